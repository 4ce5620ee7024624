//! See [`crate::fuzzing`].

use std::net::SocketAddr;

use weft_core::service::ProxyVersion;

use super::read::{Parsed, parse};
use super::{Ends, ProxyHeader};
use crate::fuzzing::Read;

/// The length of the header that bytes begin with, and whose connection it says that it is.
pub fn proxy_header(bytes: &[u8]) -> Read<(usize, Option<crate::fuzzing::Ends>)> {
    match parse(bytes) {
        Parsed::Incomplete => Read::More,
        Parsed::Absent | Parsed::Malformed(_) => Read::No,
        Parsed::Whole { length, ends } => {
            Read::Whole((length, ends.map(|Ends { source, destination }| (source, destination))))
        }
    }
}

/// A header of version 2, or else 1, for a connection.
pub fn write_proxy_header(two: bool, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    ProxyHeader::new(if two { ProxyVersion::V2 } else { ProxyVersion::V1 }, source, destination).bytes()
}
