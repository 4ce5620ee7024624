//! Which endpoint a session means, as a client carries it (GEP-1619): sealed, so that it tells nobody an address, and says
//! nothing that wasn't said by a proxy of this mesh.
//!
//! A seal holds the time when the session ends and a mark of its endpoint: `until (4 bytes) | check (8) | mark (8)`, in
//! hexadecimal. The check is a keyed hash of both, and the mark is covered by another one that starts from the check, so that
//! equal marks under other times don't look alike. The key comes with the configuration, the same for every proxy. What a
//! seal means is looked up among the endpoints that there are, so that it can't lead anywhere else.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use weft_core::ids::ServicePortKey;
use weft_core::service::EndpointHealth;
use weft_core::snapshot::{EndpointEntry, Frontend};
use weft_core::traffic::SessionKey;

use super::hash::{hash_address, hash_bytes, mix};

/// The characters of a seal.
pub const SEAL_LEN: usize = 40;

/// A session's endpoint and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Of an endpoint of a backend.
    pub mark: EndpointMark,
    /// When the session ends, in seconds since the Unix epoch; 0: never.
    pub until: u32,
}

/// What tells an endpoint of a backend from all others: a hash of the backend, of the address and of the workload behind it,
/// so that a pod that got the address of another one isn't taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointMark(u64);

/// The part of the marks that all endpoints of a backend share.
#[derive(Clone, Copy, Debug)]
struct BackendMark(u64);

impl BackendMark {
    fn new(backend: &ServicePortKey) -> Self {
        Self(hash_bytes(backend.to_string().as_bytes()))
    }

    fn of(self, entry: &EndpointEntry) -> EndpointMark {
        let workload = entry.workload.as_ref().map_or(0, |uid| hash_bytes(uid.as_str().as_bytes()));
        EndpointMark(mix(self.0 ^ mix(hash_address(entry.address) ^ workload.rotate_left(1))))
    }
}

impl EndpointMark {
    /// The mark of the endpoint at an address.
    pub fn of(frontend: &Frontend, address: SocketAddr) -> Option<Self> {
        let entry = frontend.endpoints.entries.iter().find(|entry| entry.address == address)?;
        Some(BackendMark::new(&frontend.key).of(entry))
    }

    /// The endpoint, if there is one that still serves: one that ends goes on with its sessions as long as it can.
    pub fn find(self, frontend: &Frontend) -> Option<SocketAddr> {
        let backend = BackendMark::new(&frontend.key);
        let serving = frontend.endpoints.entries.iter().filter(|entry| entry.health != EndpointHealth::NotReady);
        serving.filter(|entry| backend.of(entry) == self).map(|entry| entry.address).next()
    }
}

impl Seal {
    /// As a client carries it.
    pub fn to_text(self, key: &SessionKey) -> String {
        let EndpointMark(mark) = self.mark;
        let check = self.check(key);
        format!("{:08x}{check:016x}{:016x}", self.until, mark ^ cover(key, check))
    }

    /// What was sealed with this key, unless it has ended; `now` in seconds since the Unix epoch.
    pub fn open(key: &SessionKey, text: &str, now: u64) -> Option<Self> {
        if !is_seal(text) {
            return None;
        }
        let number = |from: usize, to: usize| u64::from_str_radix(text.get(from..to)?, 16).ok();
        let (until, check, covered) = (u32::try_from(number(0, 8)?).ok()?, number(8, 24)?, number(24, 40)?);
        let seal = Self { mark: EndpointMark(covered ^ cover(key, check)), until };
        let has_ended = until != 0 && u64::from(until) <= now;
        (seal.check(key) == check && !has_ended).then_some(seal)
    }

    fn check(self, key: &SessionKey) -> u64 {
        let EndpointMark(mark) = self.mark;
        keyed(key, b"check", &[u64::from(self.until), mark])
    }
}

/// Whether a text has the form of a seal, whoever made it.
pub fn is_seal(text: &str) -> bool {
    text.len() == SEAL_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn cover(key: &SessionKey, check: u64) -> u64 {
    keyed(key, b"cover", &[check])
}

/// The first 8 bytes of a hash over key and message, whose length is known from its purpose.
fn keyed(key: &SessionKey, purpose: &[u8; 5], message: &[u64]) -> u64 {
    let mut hash = Sha256::new().chain_update(key.as_bytes()).chain_update(purpose);
    message.iter().for_each(|number| hash.update(number.to_be_bytes()));
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SessionKey = SessionKey::new([7; 16]);

    fn seal(mark: u64, until: u32) -> Seal {
        Seal { mark: EndpointMark(mark), until }
    }

    #[test]
    fn what_is_sealed_can_be_opened_until_it_ends() {
        for (mark, until) in [(0, 0), (u64::MAX, 1000), (42, u32::MAX)] {
            let text = seal(mark, until).to_text(&KEY);
            assert!(is_seal(&text), "{text}");
            assert_eq!(Seal::open(&KEY, &text, 999), Some(seal(mark, until)));
        }
        let text = seal(1, 1000).to_text(&KEY);
        assert_eq!(Seal::open(&KEY, &text, 1000), None);
        assert!(Seal::open(&KEY, &seal(1, 0).to_text(&KEY), u64::MAX).is_some(), "no end");
    }

    #[test]
    fn nothing_else_can_be_opened() {
        let text = seal(42, 1000).to_text(&KEY);
        assert_eq!(Seal::open(&SessionKey::new([8; 16]), &text, 0), None, "another rule's");
        for at in 0..SEAL_LEN {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(bytes).unwrap();
            assert_eq!(Seal::open(&KEY, &forged, 0), None, "changed at {at}");
        }
        for other in ["", "10.0.0.1:8080", &text[1..], &format!("{text}0"), &text.to_uppercase(), &"ä".repeat(20)] {
            assert_eq!(Seal::open(&KEY, other, 0), None, "{other:?}");
        }
    }

    #[test]
    fn a_seal_shows_no_mark_and_no_likeness() {
        let texts: Vec<_> = (0..4).map(|until| seal(42, until).to_text(&KEY)).collect();
        for (n, text) in texts.iter().enumerate() {
            assert!(!text.contains(&format!("{:016x}", 42)));
            assert!(texts.iter().skip(n + 1).all(|other| other[24..] != text[24..]));
        }
    }
}
