//! Bytes whose value depends on their position, so that a lost, doubled or swapped piece shows where it happened.

use std::sync::LazyLock;

use bytes::Bytes;

/// A prime, so that no power-of-two buffer lines up with the period.
const PERIOD: usize = 65_521;
/// Bytes of the table beyond the period: what [`chunk`] can cut in one piece from any position.
const CHUNK: usize = 256 * 1024;

static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(0x5eed);
    let period: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(PERIOD).collect();
    period.iter().copied().cycle().take(PERIOD + CHUNK).collect()
});

/// The bytes at `offset`, at most `len` and at most 256 KiB of them, without a copy.
pub fn chunk(offset: u64, len: u64) -> Bytes {
    let start = (offset % PERIOD as u64) as usize;
    TABLE.slice(start..start + len.min(CHUNK as u64) as usize)
}

/// Checks bytes as they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Check {
    seen: u64,
    wrong_at: Option<u64>,
}

impl Check {
    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let want = chunk(self.seen, bytes.len() as u64);
            let (now, rest) = bytes.split_at(want.len());
            if self.wrong_at.is_none() && now != want {
                let at = now.iter().zip(&want).position(|(a, b)| a != b).unwrap_or_default();
                self.wrong_at = Some(self.seen + at as u64);
            }
            self.seen += now.len() as u64;
            bytes = rest;
        }
    }

    /// Bytes taken so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The position of the first byte that wasn't as it should be.
    pub fn wrong_at(&self) -> Option<u64> {
        self.wrong_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_lost_byte_is_found_where_it_happened() {
        let mut bytes = Vec::new();
        while bytes.len() < 300_000 {
            bytes.extend_from_slice(&chunk(bytes.len() as u64, 7001));
        }
        let check = |bytes: &[u8]| {
            let mut check = Check::default();
            bytes.chunks(1234).for_each(|c| check.feed(c));
            check
        };
        assert_eq!((check(&bytes).seen(), check(&bytes).wrong_at()), (bytes.len() as u64, None));
        bytes[200_001] ^= 1;
        assert_eq!(check(&bytes).wrong_at(), Some(200_001));
        bytes.remove(70_000);
        assert!(check(&bytes).wrong_at().is_some_and(|at| (70_000..70_010).contains(&at)));
    }
}
