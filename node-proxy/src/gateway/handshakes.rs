//! Who does the handshakes that are under way: one client that begins many and goes on with none must leave room for others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The part of a Gateway's handshakes that one client may have under way. Not less: behind a load balancer or a node that
/// forwards, many clients have one address.
const SHARE: u32 = 4;

/// Handshakes under way by client. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One handshake, counted until dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    all: Handshakes,
    client: IpAddr,
}

impl Handshakes {
    /// Counts one more, of `most` that the Gateway may have under way; `None`: the client has its share already.
    pub(super) fn begin(&self, client: IpAddr, most: u32) -> Option<UnderWay> {
        let client = network(client);
        let mut clients = self.0.lock();
        let count = clients.entry(client).or_insert(0);
        if *count >= (most / SHARE).max(1) {
            return None;
        }
        *count += 1;
        drop(clients);
        Some(UnderWay { all: self.clone(), client })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut clients = self.all.0.lock();
        if let Some(count) = clients.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// What one client has of addresses: with IPv6 it is given a whole /64 (RFC 6177).
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_whatever_its_addresses() {
        let all = Handshakes::default();
        let begin = |client: &str| all.begin(client.parse().unwrap(), 8);
        let (first, _second) = (begin("192.0.2.7").unwrap(), begin("::ffff:192.0.2.7").unwrap());
        assert!(begin("192.0.2.7").is_none());
        let _other = begin("192.0.2.8").unwrap();
        drop(first);
        let _again = begin("192.0.2.7").unwrap();
        let _v6 = (begin("2001:db8::1").unwrap(), begin("2001:db8::ffff:1").unwrap());
        assert!(begin("2001:db8::2").is_none(), "one client's /64");
        let _next = begin("2001:db8:0:1::1").unwrap();
        assert!(all.begin("10.0.0.1".parse().unwrap(), 0).is_some(), "never none at all");
    }

    #[test]
    fn nobody_is_kept_in_mind_who_does_nothing() {
        let all = Handshakes::default();
        drop(all.begin("192.0.2.7".parse().unwrap(), 8));
        assert!(all.0.lock().is_empty());
    }
}
