//! Consistent hashing: highest random weight (Thaler and Ravishankar, 1996).
//!
//! Every endpoint draws a weight for the key and the highest wins, so that every worker and every node sends a key to
//! the same endpoint, and an endpoint that goes moves its own keys only. It costs a few instructions per endpoint and
//! needs no table that edits would have to rebuild.

use std::net::{IpAddr, SocketAddr};

/// The weight that an endpoint draws for a key.
pub(super) fn weight(key: u64, endpoint: u64) -> u64 {
    mix(key ^ endpoint)
}

/// A hash of an address that is the same in every process.
pub(super) fn hash_address(address: SocketAddr) -> u64 {
    let port = u64::from(address.port());
    match address.ip() {
        IpAddr::V4(ip) => hash_bytes(&ip.octets()) ^ mix(port),
        IpAddr::V6(ip) => hash_bytes(&ip.octets()) ^ mix(port),
    }
}

/// A hash of a client's address.
pub fn hash_ip(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => hash_bytes(&ip.octets()),
        IpAddr::V6(ip) => hash_bytes(&ip.octets()),
    }
}

/// FNV-1a, finished by [`mix`]: the same in every process, unlike the standard library's.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finaliser of SplitMix64.
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
