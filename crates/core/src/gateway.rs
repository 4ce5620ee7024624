//! Listeners of Gateways as the data plane knows them, and the certificates that they present.
//!
//! The controller has validated them: listeners that conflict, or whose certificates can't be had, are not here.

use std::fmt;
use std::net::IpAddr;

use crate::ids::{CertificateKey, GatewayKey, ListenerKey, PolicyKey, Port, RouteKind};
use crate::route::HostnameMatch;

mod backend;
mod client_address;
mod names;
mod scope;

pub use self::backend::{BackendTls, BackendTrust, SubjectAltName};
pub use self::client_address::{ClientAddress, ForwardedHeader, Hops, ProxyHeader, ProxyProtocol};
pub use self::names::{further_name, label_value, object_name};
pub use self::scope::{GatewayRule, by_scope};

/// One listener of a Gateway (Gateway API, `Listener`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its key.
    pub key: ListenerKey,
    /// The addresses that it listens on (`spec.addresses` of its Gateway); empty: all that the machine has.
    pub addresses: Vec<IpAddr>,
    /// The port that it listens on.
    pub port: Port,
    /// The host that its requests or TLS connections are for; `None`: any.
    pub hostname: Option<HostnameMatch>,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
    /// The kinds of route that it takes (`status.listeners[].supportedKinds`); rules of others are passed over.
    pub kinds: Vec<RouteKind>,
    /// Where TLS ends: what is asked of certificates of clients; `None`: they are asked for none (GEP-91).
    pub client_validation: Option<ClientValidation>,
    /// Whether HTTP/3 is spoken beside it, on the port of UDP with the same number (RFC 9114). Of HTTPS only.
    pub http3: bool,
    /// The AuthorizationPolicies that judge its clients, besides what their destinations' do.
    pub policies: Vec<PolicyKey>,
}

/// How certificates of clients are judged (`spec.tls.frontend`, GEP-91).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientValidation {
    /// The authorities that they may come from, one or more as PEM.
    pub ca: Vec<u8>,
    /// What becomes of a client without a valid one.
    pub mode: ClientValidationMode,
}

/// What becomes of a client without a valid certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientValidationMode {
    /// `AllowValidOnly`: its handshake fails.
    AllowValidOnly,
    /// `AllowInsecureFallback`: it is let through, as one that nobody knows.
    AllowInsecureFallback,
}

/// What is spoken on a listener, with what it takes to do so (`protocol` and `tls`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// `HTTP`: HTTP/1.1, or HTTP/2 with prior knowledge.
    Http,
    /// `HTTPS`: the same inside of TLS, which ends here.
    Https {
        /// Presented by the name that a client asks for; never empty.
        certificates: Vec<CertificateKey>,
    },
    /// `TLS`, mode `Terminate`: TLS ends here, what is in it is relayed as bytes.
    TlsTerminate {
        /// Presented by the name that a client asks for; never empty.
        certificates: Vec<CertificateKey>,
    },
    /// `TLS`, mode `Passthrough`: the connection is relayed as it is, by the name in its ClientHello.
    TlsPassthrough,
    /// `TCP`: bytes.
    Tcp,
    /// `UDP`: datagrams.
    Udp,
}

/// What carries a listener's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// What has to be known of a connection to a port before its listener is: listeners of one port have this in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortLayer {
    /// Listeners are told apart by the host of each request.
    Http,
    /// Listeners are told apart by the name in the ClientHello.
    Tls,
    /// There is one listener.
    Tcp,
    /// There is one listener, of datagrams.
    Udp,
}

impl ListenerProtocol {
    /// How listeners of its port are told apart.
    pub const fn layer(&self) -> PortLayer {
        match self {
            Self::Http => PortLayer::Http,
            Self::Https { .. } | Self::TlsTerminate { .. } | Self::TlsPassthrough => PortLayer::Tls,
            Self::Tcp => PortLayer::Tcp,
            Self::Udp => PortLayer::Udp,
        }
    }

    /// What carries its traffic: a port of TCP and the same one of UDP are two places.
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Http | Self::Https { .. } | Self::TlsTerminate { .. } | Self::TlsPassthrough | Self::Tcp => {
                Transport::Tcp
            }
        }
    }

    /// The certificates that it presents; none if TLS doesn't end here.
    pub fn certificates(&self) -> &[CertificateKey] {
        match self {
            Self::Https { certificates } | Self::TlsTerminate { certificates } => certificates,
            Self::Http | Self::TlsPassthrough | Self::Tcp | Self::Udp => &[],
        }
    }
}

/// A place that is listened on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bind {
    /// The address; `None`: all that the machine has.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Port,
    /// Of what.
    pub transport: Transport,
}

impl Bind {
    /// A place of connections.
    pub const fn tcp(address: Option<IpAddr>, port: Port) -> Self {
        Self { address, port, transport: Transport::Tcp }
    }

    /// A place of datagrams.
    pub const fn udp(address: Option<IpAddr>, port: Port) -> Self {
        Self { address, port, transport: Transport::Udp }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port)?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port)?,
            None => write!(f, "*:{}", self.port)?,
        }
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Listener {
    /// Where it listens.
    pub fn binds(&self) -> impl Iterator<Item = Bind> + '_ {
        let any = self.addresses.is_empty().then_some(None);
        let each = self.addresses.iter().copied().map(Some);
        let transport = self.protocol.transport();
        any.into_iter().chain(each).map(move |address| Bind { address, port: self.port, transport })
    }

    /// Whether it is spoken to over QUIC, too.
    pub const fn speaks_http3(&self) -> bool {
        self.http3 && matches!(self.protocol, ListenerProtocol::Https { .. })
    }
}

/// A certificate chain with its private key. It goes only to who presents it, and to no disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its key.
    pub key: CertificateKey,
    /// The chain, leaf first, as PEM (`tls.crt`).
    pub chain: Vec<u8>,
    /// The private key, as PEM (`tls.key`).
    pub private_key: PrivateKey,
}

/// What a Gateway has besides its listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The Gateway.
    pub key: GatewayKey,
    /// What it presents to backends that ask for a certificate (`spec.tls.backend.clientCertificateRef`).
    pub client_certificate: Option<CertificateKey>,
    /// How it learns who its clients are.
    pub client_address: ClientAddress,
    /// Whether answers carry the request's id (`X-Request-Id`), too.
    pub answers_request_id: bool,
}

/// The PEM text of a private key. It shows itself to nobody who only prints what holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Vec<u8>);

impl PrivateKey {
    /// Takes the text as it is.
    pub fn new(pem: impl Into<Vec<u8>>) -> Self {
        Self(pem.into())
    }

    /// The text, for whoever signs with it.
    pub fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SecretKey;

    #[test]
    fn a_private_key_is_not_printed_with_what_holds_it() {
        let certificate = Certificate {
            key: CertificateKey::new(GatewayKey::new("ns", "gw"), SecretKey::new("ns", "c")),
            chain: b"chain".to_vec(),
            private_key: PrivateKey::new(*b"very secret"),
        };
        let text = format!("{certificate:?}");
        assert!(text.contains("hidden") && !text.contains(&format!("{:?}", b"very")[..12]), "{text}");
    }
}
