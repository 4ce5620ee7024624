//! What Gateways have: listeners, certificates, rules, and how they speak to backends.

use std::sync::Arc;

use weft_api::weft::config::v1 as proto;

use super::common::common;
use super::convert::{
    InvalidField, Problem, Wire, field, list, optional, present, required, wire_enum, wire_list, wire_optional,
};
use crate::gateway::{
    BackendTls, BackendTrust, Certificate, ClientAddress, ClientValidation, ClientValidationMode, ForwardedHeader,
    GatewayConfig, GatewayRule, Listener, ListenerProtocol, PrivateKey, ProxyProtocol, SubjectAltName,
};
use crate::ids::{CertificateKey, GatewayKey, ListenerKey, SecretKey, SectionName};
use crate::route::{Parent, RouteRule};

wire_enum!(ClientValidationMode, proto::ClientValidationMode:
    AllowValidOnly = AllowValidOnly, AllowInsecureFallback = AllowInsecureFallback,
);

impl Wire for ListenerKey {
    type Message = proto::ListenerParent;

    fn to_wire(&self) -> proto::ListenerParent {
        proto::ListenerParent {
            gateway: Some(self.gateway.to_wire()),
            listener: self.name.to_wire(),
            set: wire_optional(self.set.as_ref()),
        }
    }

    fn from_wire(it: proto::ListenerParent) -> Result<Self, InvalidField> {
        Ok(Self {
            gateway: required(it.gateway, "gateway")?,
            set: optional(it.set, "set")?,
            name: listener_name(it.listener, "listener")?,
        })
    }
}

/// Never empty and without a slash, because the key is written as one text.
fn listener_name(text: String, field: &str) -> Result<SectionName, InvalidField> {
    if text.is_empty() || text.contains('/') {
        return Err(InvalidField::expected("the name of a listener").within(field));
    }
    Ok(common(&text).into())
}

impl Wire for Listener {
    type Message = proto::Listener;

    fn to_wire(&self) -> proto::Listener {
        proto::Listener {
            gateway: Some(self.key.gateway.to_wire()),
            name: self.key.name.to_wire(),
            addresses: wire_list(&self.addresses),
            port: self.port.to_wire(),
            hostname: wire_optional(self.hostname.as_ref()),
            kinds: wire_list(&self.kinds),
            set: wire_optional(self.key.set.as_ref()),
            client_validation: wire_optional(self.client_validation.as_ref()),
            http3: self.http3,
            protocol: Some(protocol_to_wire(&self.protocol)),
            policies: wire_list(&self.policies),
        }
    }

    fn from_wire(it: proto::Listener) -> Result<Self, InvalidField> {
        let gateway: GatewayKey = required(it.gateway, "gateway")?;
        let protocol = present(it.protocol, "protocol")?;
        Ok(Self {
            protocol: protocol_from_wire(protocol, &gateway).map_err(|wrong| wrong.within("protocol"))?,
            key: ListenerKey { gateway, set: optional(it.set, "set")?, name: listener_name(it.name, "name")? },
            addresses: list(it.addresses, "addresses")?,
            port: field(it.port, "port")?,
            hostname: optional(it.hostname, "hostname")?,
            kinds: list(it.kinds, "kinds")?,
            client_validation: optional(it.client_validation, "client_validation")?,
            policies: list(it.policies, "policies")?,
            http3: it.http3,
        })
    }
}

/// Certificates are written as Secrets: the Gateway is the listener's.
fn protocol_to_wire(protocol: &ListenerProtocol) -> proto::listener::Protocol {
    use proto::listener::Protocol;
    let presented = |keys: &[CertificateKey]| proto::Certificates {
        secrets: keys.iter().map(|key| key.secret.to_wire()).collect(),
    };
    match protocol {
        ListenerProtocol::Http => Protocol::Http(proto::Empty {}),
        ListenerProtocol::Https { certificates } => Protocol::Https(presented(certificates)),
        ListenerProtocol::TlsTerminate { certificates } => Protocol::TlsTerminate(presented(certificates)),
        ListenerProtocol::TlsPassthrough => Protocol::TlsPassthrough(proto::Empty {}),
        ListenerProtocol::Tcp => Protocol::Tcp(proto::Empty {}),
        ListenerProtocol::Udp => Protocol::Udp(proto::Empty {}),
    }
}

fn protocol_from_wire(it: proto::listener::Protocol, gateway: &GatewayKey) -> Result<ListenerProtocol, InvalidField> {
    use proto::listener::Protocol;
    let presented = |it: proto::Certificates, name| {
        if it.secrets.is_empty() {
            return Err(InvalidField::new(Problem::Missing).within("secrets").within(name));
        }
        let secrets: Vec<SecretKey> = list(it.secrets, "secrets").map_err(|wrong| wrong.within(name))?;
        Ok(secrets.into_iter().map(|secret| CertificateKey::new(gateway.clone(), secret)).collect())
    };
    Ok(match it {
        Protocol::Http(proto::Empty {}) => ListenerProtocol::Http,
        Protocol::Https(it) => ListenerProtocol::Https { certificates: presented(it, "https")? },
        Protocol::TlsTerminate(it) => ListenerProtocol::TlsTerminate { certificates: presented(it, "tls_terminate")? },
        Protocol::TlsPassthrough(proto::Empty {}) => ListenerProtocol::TlsPassthrough,
        Protocol::Tcp(proto::Empty {}) => ListenerProtocol::Tcp,
        Protocol::Udp(proto::Empty {}) => ListenerProtocol::Udp,
    })
}

impl Wire for ClientValidation {
    type Message = proto::ClientValidation;

    fn to_wire(&self) -> proto::ClientValidation {
        proto::ClientValidation { ca: self.ca.clone(), mode: self.mode.to_wire() }
    }

    fn from_wire(it: proto::ClientValidation) -> Result<Self, InvalidField> {
        Ok(Self { ca: bytes(it.ca, "ca")?, mode: field(it.mode, "mode")? })
    }
}

impl Wire for Certificate {
    type Message = proto::Certificate;

    fn to_wire(&self) -> proto::Certificate {
        proto::Certificate {
            gateway: Some(self.key.gateway.to_wire()),
            secret: Some(self.key.secret.to_wire()),
            chain: self.chain.clone(),
            private_key: self.private_key.pem().to_vec(),
        }
    }

    fn from_wire(it: proto::Certificate) -> Result<Self, InvalidField> {
        Ok(Self {
            key: CertificateKey::new(required(it.gateway, "gateway")?, required(it.secret, "secret")?),
            chain: bytes(it.chain, "chain")?,
            private_key: PrivateKey::new(bytes(it.private_key, "private_key")?),
        })
    }
}

/// Bytes that must be there.
fn bytes(bytes: Vec<u8>, name: &str) -> Result<Vec<u8>, InvalidField> {
    present(Some(bytes).filter(|bytes| !bytes.is_empty()), name)
}

impl Wire for GatewayRule {
    type Message = proto::GatewayRule;

    fn to_wire(&self) -> proto::GatewayRule {
        proto::GatewayRule { gateway: Some(self.gateway.to_wire()), rule: Some(self.rule.to_wire()) }
    }

    fn from_wire(it: proto::GatewayRule) -> Result<Self, InvalidField> {
        let gateway: GatewayKey = required(it.gateway, "gateway")?;
        let rule: RouteRule = required(it.rule, "rule")?;
        let own = |parent: &Parent| matches!(parent, Parent::Listener(listener) if listener.gateway == gateway);
        if !rule.parents().iter().all(own) {
            return Err(InvalidField::expected("listeners of the Gateway").within("rule.parents"));
        }
        Ok(Self { gateway, rule: Arc::new(rule) })
    }
}

impl Wire for GatewayConfig {
    type Message = proto::GatewayConfig;

    fn to_wire(&self) -> proto::GatewayConfig {
        let secret = self.client_certificate.as_ref().map(|certificate| certificate.secret.to_wire());
        proto::GatewayConfig {
            gateway: Some(self.key.to_wire()),
            client_certificate: secret,
            client_address: Some(self.client_address.to_wire()),
            answers_request_id: self.answers_request_id,
        }
    }

    fn from_wire(it: proto::GatewayConfig) -> Result<Self, InvalidField> {
        let key: GatewayKey = required(it.gateway, "gateway")?;
        let secret: Option<SecretKey> = optional(it.client_certificate, "client_certificate")?;
        let client_certificate = secret.map(|secret| CertificateKey::new(key.clone(), secret));
        // Absent in what was written before there was such a thing.
        let client_address = optional(it.client_address, "client_address")?.unwrap_or_default();
        Ok(Self { key, client_certificate, client_address, answers_request_id: it.answers_request_id })
    }
}

wire_enum!(ForwardedHeader, proto::ForwardedHeader: XForwardedFor = XForwardedFor, Forwarded = Forwarded);

impl Wire for ClientAddress {
    type Message = proto::ClientAddress;

    fn to_wire(&self) -> proto::ClientAddress {
        use proto::client_address::ProxyProtocol as Form;
        let networks = |list: &[_]| proto::Networks { prefixes: wire_list(list) };
        proto::ClientAddress {
            proxy_protocol: Some(match &self.proxy_protocol {
                ProxyProtocol::Disabled => Form::Disabled(proto::Empty {}),
                ProxyProtocol::Optional(from) => Form::Optional(networks(from)),
                ProxyProtocol::Required(from) => Form::Required(networks(from)),
            }),
            header: self.header.to_wire(),
            trusted_hops: self.trusted_hops.map(u32::from),
            trusted: wire_list(&self.trusted),
        }
    }

    fn from_wire(it: proto::ClientAddress) -> Result<Self, InvalidField> {
        use proto::client_address::ProxyProtocol as Form;
        let networks = |it: proto::Networks| list(it.prefixes, "prefixes").map_err(|it| it.within("proxy_protocol"));
        let hops = |hops| u8::try_from(hops).map_err(|_| InvalidField::expected("0 to 255").within("trusted_hops"));
        Ok(Self {
            proxy_protocol: match present(it.proxy_protocol, "proxy_protocol")? {
                Form::Disabled(proto::Empty {}) => ProxyProtocol::Disabled,
                Form::Optional(from) => ProxyProtocol::Optional(networks(from)?),
                Form::Required(from) => ProxyProtocol::Required(networks(from)?),
            },
            header: field(it.header, "header")?,
            trusted_hops: it.trusted_hops.map(hops).transpose()?,
            trusted: list(it.trusted, "trusted")?,
        })
    }
}

impl Wire for BackendTls {
    type Message = proto::BackendTls;

    fn to_wire(&self) -> proto::BackendTls {
        use proto::backend_tls::Trust;
        let trust = match &self.trust {
            BackendTrust::Bundle(pem) => Trust::Bundle(pem.clone()),
            BackendTrust::System => Trust::System(proto::Empty {}),
            BackendTrust::Invalid(why) => Trust::Invalid(why.clone()),
            BackendTrust::Plain => Trust::Plain(proto::Empty {}),
        };
        proto::BackendTls {
            port: Some(self.port.to_wire()),
            hostname: self.hostname.clone(),
            subject_alt_names: wire_list(&self.subject_alt_names),
            trust: Some(trust),
        }
    }

    fn from_wire(it: proto::BackendTls) -> Result<Self, InvalidField> {
        use proto::backend_tls::Trust;
        let trust = match present(it.trust, "trust")? {
            Trust::Bundle(pem) => BackendTrust::Bundle(bytes(pem, "bundle").map_err(|wrong| wrong.within("trust"))?),
            Trust::System(proto::Empty {}) => BackendTrust::System,
            Trust::Invalid(why) => BackendTrust::Invalid(why),
            Trust::Plain(proto::Empty {}) => BackendTrust::Plain,
        };
        Ok(Self {
            port: required(it.port, "port")?,
            hostname: it.hostname,
            subject_alt_names: list(it.subject_alt_names, "subject_alt_names")?,
            trust,
        })
    }
}

impl Wire for SubjectAltName {
    type Message = proto::SubjectAltName;

    fn to_wire(&self) -> proto::SubjectAltName {
        use proto::subject_alt_name::Name;
        proto::SubjectAltName {
            name: Some(match self {
                Self::Hostname(name) => Name::Hostname(name.clone()),
                Self::Uri(uri) => Name::Uri(uri.clone()),
            }),
        }
    }

    fn from_wire(it: proto::SubjectAltName) -> Result<Self, InvalidField> {
        use proto::subject_alt_name::Name;
        Ok(match present(it.name, "name")? {
            Name::Hostname(name) => Self::Hostname(name),
            Name::Uri(uri) => Self::Uri(uri),
        })
    }
}
