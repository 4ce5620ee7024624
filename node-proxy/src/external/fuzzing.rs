//! See [`crate::fuzzing`].

use std::net::IpAddr;

/// The addresses in a reply to the question for the IPv4 addresses of a host, if it is one to a query with this id.
pub fn addresses_in(reply: &[u8], host: &str, id: u16) -> Option<Vec<IpAddr>> {
    super::dns::addresses_in(reply, host, id)
}
