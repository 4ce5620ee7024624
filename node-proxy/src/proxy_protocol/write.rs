//! Headers towards backends.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use weft_core::service::ProxyVersion;

use super::Ends;
use super::read::SIGNATURE;

/// What a backend is told of a connection, before everything else on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyHeader {
    /// In which version.
    pub(crate) version: ProxyVersion,
    /// Whose connection it is.
    pub(crate) ends: Ends,
}

impl ProxyHeader {
    /// Of a connection from `source`, which dialled `destination`.
    pub(crate) const fn new(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { version, ends: Ends { source, destination } }
    }

    /// As it is sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Ends { source, destination } = self.ends;
        match self.version {
            ProxyVersion::V1 => {
                let (family, from, to) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => ("TCP4", from.to_string(), to.to_string()),
                    (from, to) => ("TCP6", v6(from).to_string(), v6(to).to_string()),
                };
                format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
            }
            ProxyVersion::V2 => {
                let mut bytes = SIGNATURE.to_vec();
                match (source.ip().to_canonical(), destination.ip().to_canonical()) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        bytes.extend([0x21, 0x11, 0, 12]);
                        bytes.extend(from.octets());
                        bytes.extend(to.octets());
                    }
                    (from, to) => {
                        bytes.extend([0x21, 0x21, 0, 36]);
                        bytes.extend(v6(from).octets());
                        bytes.extend(v6(to).octets());
                    }
                }
                bytes.extend(source.port().to_be_bytes());
                bytes.extend(destination.port().to_be_bytes());
                bytes
            }
        }
    }
}

/// Both ends have to be of one family.
fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
