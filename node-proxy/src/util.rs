//! A hasher for keys that nobody outside chooses: addresses of allocations, endpoints, indexes. And texts
//! that others may have chosen: cut, and read as a number.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps on the request path whose keys come from configuration, never from a peer.
pub type FastHash = BuildHasherDefault<FastHasher>;

/// Multiply and rotate: a few instructions per word, no protection against chosen keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct FastHasher(u64);

impl FastHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        // The map takes the top bits for one thing and the low ones for another.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.add(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.add(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.add(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }
}

/// The longest text of a peer that is told of a request, in bytes: its path, its host, its method.
pub(crate) const LONGEST_TOLD: usize = 1024;

/// The start of a text: so many bytes at most, and no half characters. Copied, it takes no more room than it has bytes.
pub(crate) fn clip(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The number that lower-case hexadecimal digits are, as W3C Trace Context and B3 have them; 32 of them at most count.
pub(crate) fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!((clip("abc", 3), clip("abc", 2), clip("", 2)), ("abc", "ab", ""));
        assert_eq!((clip("aü", 2), clip("aü", 3), clip("ü", 1)), ("a", "aü", ""));
    }
}
