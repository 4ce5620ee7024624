//! Whatever Gateways may have.

use super::*;
use crate::gateway::*;

fn gateway() -> impl Strategy<Value = GatewayKey> {
    (text(), text()).prop_map(|(ns, name)| GatewayKey::new(ns, name))
}

pub(super) fn listener_key() -> impl Strategy<Value = ListenerKey> {
    let set = of((text(), text()).prop_map(|(ns, name)| ListenerSetKey::new(ns, name)));
    (gateway(), set, "[a-z-]{1,5}").prop_map(|(gateway, set, name)| ListenerKey { gateway, set, name: name.into() })
}

fn secret() -> impl Strategy<Value = SecretKey> {
    (text(), text()).prop_map(|(ns, name)| SecretKey::new(ns, name))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..9)
}

/// With the keys of certificates still of no Gateway.
fn protocol() -> impl Strategy<Value = (ListenerProtocol, Vec<SecretKey>)> {
    let secrets = || vec(secret(), 1..3);
    let none = |protocol| Just((protocol, Vec::new()));
    prop_oneof![
        none(ListenerProtocol::Http),
        secrets().prop_map(|secrets| (ListenerProtocol::Https { certificates: Vec::new() }, secrets)),
        secrets().prop_map(|secrets| (ListenerProtocol::TlsTerminate { certificates: Vec::new() }, secrets)),
        none(ListenerProtocol::TlsPassthrough),
        none(ListenerProtocol::Tcp),
        none(ListenerProtocol::Udp),
    ]
}

pub(super) fn listener() -> impl Strategy<Value = Listener> {
    use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};
    let kinds = vec(select(&[RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Udp][..]), FEW);
    let place = (vec(any::<IpAddr>(), FEW), port(), of(hostname()));
    let validation = (bytes(), select(&[AllowValidOnly, AllowInsecureFallback][..]))
        .prop_map(|(ca, mode)| ClientValidation { ca, mode });
    let more = (of(validation), any::<bool>(), vec(policy_key(), FEW));
    (listener_key(), place, protocol(), kinds, more).prop_map(
        |(key, (addresses, port, hostname), (mut protocol, secrets), kinds, (client_validation, http3, policies))| {
            if let ListenerProtocol::Https { certificates } | ListenerProtocol::TlsTerminate { certificates } =
                &mut protocol
            {
                certificates.extend(secrets.into_iter().map(|it| CertificateKey::new(key.gateway.clone(), it)));
            }
            Listener { key, addresses, port, hostname, protocol, kinds, client_validation, http3, policies }
        },
    )
}

pub(super) fn certificate() -> impl Strategy<Value = Certificate> {
    (gateway(), secret(), bytes(), bytes()).prop_map(|(gateway, secret, chain, key)| Certificate {
        key: CertificateKey::new(gateway, secret),
        chain,
        private_key: PrivateKey::new(key),
    })
}

/// The same rule, attached to listeners of one Gateway.
pub(super) fn rule(rule: RouteRule) -> impl Strategy<Value = GatewayRule> {
    let listeners = vec((of((text(), text())), "[a-z-]{1,5}"), FEW);
    (gateway(), listeners).prop_map(move |(gateway, listeners)| {
        let parent = |(set, name): (Option<(String, String)>, String)| {
            let set = set.map(|(ns, name)| ListenerSetKey::new(ns, name));
            Parent::Listener(ListenerKey { gateway: gateway.clone(), set, name: name.into() })
        };
        let parents = listeners.into_iter().map(parent).collect();
        GatewayRule { rule: Arc::new(rule.attached_to(parents)), gateway: gateway.clone() }
    })
}

fn client_address() -> impl Strategy<Value = ClientAddress> {
    let proxy_protocol = prop_oneof![
        Just(ProxyProtocol::Disabled),
        vec(net(), FEW).prop_map(ProxyProtocol::Optional),
        vec(net(), FEW).prop_map(ProxyProtocol::Required),
    ];
    let header = select(&[ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded][..]);
    (proxy_protocol, header, of(any::<u8>()), vec(net(), FEW)).prop_map(
        |(proxy_protocol, header, trusted_hops, trusted)| ClientAddress {
            proxy_protocol,
            header,
            trusted_hops,
            trusted,
        },
    )
}

pub(super) fn config() -> impl Strategy<Value = GatewayConfig> {
    (gateway(), of(secret()), client_address(), any::<bool>()).prop_map(
        |(key, secret, client_address, answers_request_id)| GatewayConfig {
            client_certificate: secret.map(|secret| CertificateKey::new(key.clone(), secret)),
            key,
            client_address,
            answers_request_id,
        },
    )
}

pub(super) fn backend_tls() -> impl Strategy<Value = BackendTls> {
    let name = prop_oneof![any_text().prop_map(SubjectAltName::Hostname), any_text().prop_map(SubjectAltName::Uri),];
    let trust = prop_oneof![
        bytes().prop_map(BackendTrust::Bundle),
        Just(BackendTrust::System),
        any_text().prop_map(BackendTrust::Invalid),
        Just(BackendTrust::Plain),
    ];
    (service_port_key(), any_text(), vec(name, FEW), trust)
        .prop_map(|(port, hostname, subject_alt_names, trust)| BackendTls { port, hostname, subject_alt_names, trust })
}
