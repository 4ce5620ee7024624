//! Listeners and their certificates.

use weft_api::weft::config::v1 as proto;

use super::convert::{InvalidField, Problem, Wire, field, list, optional, present, required, wire_list, wire_optional};
use crate::gateway::{Certificate, Listener, ListenerProtocol, PrivateKey};
use crate::ids::{CertificateKey, ListenerKey, SectionName};

impl Wire for Listener {
    type Message = proto::Listener;

    fn to_wire(&self) -> proto::Listener {
        proto::Listener {
            gateway: Some(self.key.gateway.to_wire()),
            name: self.key.name.to_wire(),
            addresses: wire_list(&self.addresses),
            port: self.port.to_wire(),
            hostname: wire_optional(self.hostname.as_ref()),
            protocol: Some(self.protocol.to_wire()),
            kinds: wire_list(&self.kinds),
        }
    }

    fn from_wire(it: proto::Listener) -> Result<Self, InvalidField> {
        let name: SectionName = field(it.name, "name")?;
        if name.as_str().is_empty() || name.as_str().contains('/') {
            return Err(InvalidField::expected("the name of a listener").within("name"));
        }
        Ok(Self {
            key: ListenerKey { gateway: required(it.gateway, "gateway")?, name },
            addresses: list(it.addresses, "addresses")?,
            port: field(it.port, "port")?,
            hostname: optional(it.hostname, "hostname")?,
            protocol: required(it.protocol, "protocol")?,
            kinds: list(it.kinds, "kinds")?,
        })
    }
}

impl Wire for ListenerProtocol {
    type Message = proto::listener::Protocol;

    fn to_wire(&self) -> proto::listener::Protocol {
        use proto::listener::Protocol;
        let presented = |keys: &[CertificateKey]| proto::Certificates { keys: wire_list(keys) };
        match self {
            Self::Http => Protocol::Http(proto::Empty {}),
            Self::Https { certificates } => Protocol::Https(presented(certificates)),
            Self::TlsTerminate { certificates } => Protocol::TlsTerminate(presented(certificates)),
            Self::TlsPassthrough => Protocol::TlsPassthrough(proto::Empty {}),
            Self::Tcp => Protocol::Tcp(proto::Empty {}),
        }
    }

    fn from_wire(it: proto::listener::Protocol) -> Result<Self, InvalidField> {
        use proto::listener::Protocol;
        let presented = |it: proto::Certificates, name| {
            if it.keys.is_empty() {
                return Err(InvalidField::new(Problem::Missing).within("keys").within(name));
            }
            list::<CertificateKey>(it.keys, "keys").map_err(|wrong| wrong.within(name))
        };
        Ok(match it {
            Protocol::Http(proto::Empty {}) => Self::Http,
            Protocol::Https(it) => Self::Https { certificates: presented(it, "https")? },
            Protocol::TlsTerminate(it) => Self::TlsTerminate { certificates: presented(it, "tls_terminate")? },
            Protocol::TlsPassthrough(proto::Empty {}) => Self::TlsPassthrough,
            Protocol::Tcp(proto::Empty {}) => Self::Tcp,
        })
    }
}

impl Wire for Certificate {
    type Message = proto::Certificate;

    fn to_wire(&self) -> proto::Certificate {
        proto::Certificate {
            key: Some(self.key.to_wire()),
            chain: self.chain.clone(),
            private_key: self.private_key.pem().to_vec(),
        }
    }

    fn from_wire(it: proto::Certificate) -> Result<Self, InvalidField> {
        Ok(Self {
            key: required(it.key, "key")?,
            chain: present(Some(it.chain).filter(|chain| !chain.is_empty()), "chain")?,
            private_key: PrivateKey::new(present(Some(it.private_key).filter(|key| !key.is_empty()), "private_key")?),
        })
    }
}
