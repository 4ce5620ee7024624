//! Any listener, and any certificate.

use super::*;
use crate::gateway::{Certificate, Listener, ListenerProtocol, PrivateKey};

pub(super) fn listener() -> impl Strategy<Value = Listener> {
    let keys = || vec((text(), text()).prop_map(|(ns, name)| CertificateKey::new(ns, name)), 1..3);
    let protocol = prop_oneof![
        Just(ListenerProtocol::Http),
        keys().prop_map(|certificates| ListenerProtocol::Https { certificates }),
        keys().prop_map(|certificates| ListenerProtocol::TlsTerminate { certificates }),
        Just(ListenerProtocol::TlsPassthrough),
        Just(ListenerProtocol::Tcp),
    ];
    let kinds = vec(select(&[RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp][..]), FEW);
    let place = (vec(any::<IpAddr>(), FEW), port(), of(hostname()));
    ((text(), text(), "[a-z-]{1,5}"), place, protocol, kinds).prop_map(
        |((namespace, gateway, name), (addresses, port, hostname), protocol, kinds)| Listener {
            key: ListenerKey { gateway: GatewayKey::new(namespace, gateway), name: name.into() },
            addresses,
            port,
            hostname,
            protocol,
            kinds,
        },
    )
}

pub(super) fn certificate() -> impl Strategy<Value = Certificate> {
    let bytes = || vec(any::<u8>(), 1..9);
    (text(), text(), bytes(), bytes()).prop_map(|(namespace, name, chain, key)| Certificate {
        key: CertificateKey::new(namespace, name),
        chain,
        private_key: PrivateKey::new(key),
    })
}
