//! Whose word a Gateway takes for who its clients are.
//!
//! ```text
//!  connection's address --PROXY protocol, of those who may send it--> the connection's client
//!                       --X-Forwarded-For or Forwarded, as far as it is believed--> the request's client
//! ```

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

/// How a Gateway learns the addresses of its clients (`GatewayParameters`, `spec.clientAddress`). The default: from the
/// connection itself, and clients vouch for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {
    /// Headers of the PROXY protocol before everything else.
    pub proxy_protocol: ProxyProtocol,
    /// Which header proxies in front tell of clients by.
    pub header: ForwardedHeader,
    /// How many proxies in front are believed; with [`Self::trusted`] at most so many.
    pub trusted_hops: Option<u8>,
    /// Where proxies that are believed have their addresses; empty and no number of hops: none is.
    pub trusted: Vec<IpNet>,
}

/// Whether connections begin with a header of the PROXY protocol, and who may send one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They don't: such a header is taken for what it stands in front of, which it breaks.
    #[default]
    Disabled,
    /// Those from here may; what comes from elsewhere is not looked at for one.
    Optional(Vec<IpNet>),
    /// They must, and come from here.
    Required(Vec<IpNet>),
}

/// The header by which proxies tell of clients. Only one is believed, because a proxy that adds to one passes the other on
/// as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

/// What a connection's address means for the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// None is looked for.
    Ignored,
    /// There may be one.
    Possible,
    /// There must be one.
    Expected,
    /// It isn't one that may connect.
    Refused,
}

/// The addresses that a request came by: the connection's first, the client's last.
pub type Hops = SmallVec<[IpAddr; 4]>;

impl ProxyProtocol {
    /// What a connection from an address may or must begin with.
    pub fn of(&self, peer: IpAddr) -> ProxyHeader {
        let from = |list: &[IpNet]| contains(list, peer);
        match self {
            Self::Disabled => ProxyHeader::Ignored,
            Self::Optional(list) if from(list) => ProxyHeader::Possible,
            Self::Optional(_) => ProxyHeader::Ignored,
            Self::Required(list) if from(list) => ProxyHeader::Expected,
            Self::Required(_) => ProxyHeader::Refused,
        }
    }
}

impl ClientAddress {
    /// Whether what an address says of who is behind it is believed, if `passed` proxies are believed already.
    fn believes(&self, address: IpAddr, passed: usize) -> bool {
        let near = self.trusted_hops.is_none_or(|most| passed < usize::from(most));
        match (self.trusted_hops, self.trusted.is_empty()) {
            (None, true) => false,
            (Some(_), true) => near,
            (_, false) => near && contains(&self.trusted, address),
        }
    }

    /// Whether a connection's client is a proxy that is believed.
    pub fn is_believed(&self, peer: IpAddr) -> bool {
        self.believes(peer, 0)
    }

    /// The way a request came, back to its client. `told` is what proxies say, the nearest one first; `None` in it is what is
    /// no address, behind which nobody is known.
    ///
    /// With a number of hops alone, a request that names fewer than that didn't come the way it should have: then nothing
    /// that it says is believed.
    pub fn hops(&self, peer: IpAddr, told: impl Iterator<Item = Option<IpAddr>>) -> Hops {
        let mut hops: Hops = SmallVec::from_iter([peer.to_canonical()]);
        for address in told {
            let believed = hops.last().is_some_and(|last| self.believes(*last, hops.len() - 1));
            let Some(address) = address.filter(|_| believed) else { break };
            hops.push(address.to_canonical());
        }
        let wanted = self.trusted_hops.filter(|_| self.trusted.is_empty()).map_or(0, usize::from);
        if hops.len() <= wanted {
            hops.truncate(1);
        }
        hops
    }
}

fn contains(list: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    list.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|it| it.parse().unwrap()).collect()
    }

    fn client(trusted_hops: Option<u8>, trusted: &[&str], peer: &str, told: &str) -> String {
        let settings = ClientAddress { trusted_hops, trusted: nets(trusted), ..ClientAddress::default() };
        let told = told.split(',').map(str::trim).filter(|it| !it.is_empty()).rev();
        let hops = settings.hops(peer.parse().unwrap(), told.map(|it| it.parse().ok()));
        hops.iter().rev().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_client_is_whom_the_last_believed_proxy_names() {
        let lan = &["10.0.0.0/8", "fd00::/8"][..];
        for (hops, trusted, peer, told, want) in [
            // Nobody is believed.
            (None, &[][..], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
            (Some(0), &[], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
            (Some(0), lan, "10.0.0.1", "192.0.2.7", "10.0.0.1"),
            // By number: what is left of it is the client's own word.
            (Some(1), &[], "10.0.0.1", "192.0.2.7", "192.0.2.7 10.0.0.1"),
            (Some(1), &[], "10.0.0.1", "1.1.1.1, 192.0.2.7", "192.0.2.7 10.0.0.1"),
            (Some(2), &[], "10.0.0.1", "1.1.1.1, 192.0.2.7, 10.0.0.2", "192.0.2.7 10.0.0.2 10.0.0.1"),
            // Not the way it should have come.
            (Some(1), &[], "10.0.0.1", "", "10.0.0.1"),
            (Some(2), &[], "10.0.0.1", "192.0.2.7", "10.0.0.1"),
            (Some(2), &[], "10.0.0.1", "192.0.2.7, nobody, 10.0.0.2", "10.0.0.1"),
            // By address: the first that isn't one of theirs.
            (None, lan, "10.0.0.1", "1.1.1.1, 192.0.2.7, 10.0.0.2", "192.0.2.7 10.0.0.2 10.0.0.1"),
            (None, lan, "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3 10.0.0.2 10.0.0.1"),
            (None, lan, "10.0.0.1", "192.0.2.7, nobody, 10.0.0.2", "10.0.0.2 10.0.0.1"),
            (None, lan, "203.0.113.9", "192.0.2.7", "203.0.113.9"),
            (None, lan, "::ffff:10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7 10.0.0.1"),
            (None, lan, "fd00::1", "2001:db8::7", "2001:db8::7 fd00::1"),
            // By both.
            (Some(1), lan, "10.0.0.1", "192.0.2.7, 10.0.0.2", "10.0.0.2 10.0.0.1"),
            (Some(9), lan, "10.0.0.1", "1.1.1.1, 192.0.2.7", "192.0.2.7 10.0.0.1"),
            (Some(1), lan, "203.0.113.9", "192.0.2.7", "203.0.113.9"),
        ] {
            assert_eq!(client(hops, trusted, peer, told), want, "{hops:?} {trusted:?} {peer} {told:?}");
        }
    }

    #[test]
    fn only_those_who_may_are_looked_at_for_a_proxy_header() {
        let list = || nets(&["10.0.0.0/8"]);
        for (settings, known, other) in [
            (ProxyProtocol::Disabled, ProxyHeader::Ignored, ProxyHeader::Ignored),
            (ProxyProtocol::Optional(list()), ProxyHeader::Possible, ProxyHeader::Ignored),
            (ProxyProtocol::Required(list()), ProxyHeader::Expected, ProxyHeader::Refused),
        ] {
            for inside in ["10.1.2.3", "::ffff:10.1.2.3"] {
                assert_eq!(settings.of(inside.parse().unwrap()), known, "{settings:?} {inside}");
            }
            assert_eq!(settings.of("192.0.2.7".parse().unwrap()), other, "{settings:?}");
        }
    }
}
