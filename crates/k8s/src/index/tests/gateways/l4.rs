//! TLS, TCP and UDP at Gateways.

use weft_core::ids::{CertificateKey, GatewayKey, SecretKey};
use weft_core::route::InvalidBackend;

use super::*;

const SERVICES: &str = "
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{name: tcp, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {clusterIP: 10.96.0.11, ports: [{name: tcp, port: 80}, {name: dns, port: 53, protocol: UDP}]}
";

const LISTENERS: &str = "
    {name: pass, port: 443, protocol: TLS, hostname: pass.com, tls: {mode: Passthrough}, allowedRoutes: {namespaces: {from: All}}},
    {name: ends, port: 443, protocol: TLS, hostname: ends.com, tls: {mode: Terminate, certificateRefs: [{name: c}]}, allowedRoutes: {namespaces: {from: All}}},
    {name: tcp, port: 53, protocol: TCP, allowedRoutes: {namespaces: {from: All}}},
    {name: dns, port: 53, protocol: UDP, allowedRoutes: {namespaces: {from: All}}},
    {name: dns2, port: 54, protocol: UDP, allowedRoutes: {namespaces: {from: All}}}";

fn l4_route(kind: &str, more: &str, hostnames: &str, backend: &str) -> String {
    let hostnames = if hostnames.is_empty() { String::new() } else { format!("hostnames: [{hostnames}], ") };
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\n\
         spec: {{parentRefs: [{{name: gw, namespace: edge{more}}}], {hostnames}rules: [{{backendRefs: [{{{backend}}}]}}]}}\n"
    )
}

fn all(route: &str) -> Index {
    serve(&(SERVICES.to_owned() + &gateway(LISTENERS) + &secret("edge", "c", "chain 1", "key 1") + route)).0
}

fn wrong_with(index: &Index, kind: Kind) -> Vec<String> {
    match index.status(&ObjectRef::new(kind, "shop", "r")) {
        Some((_, ObjectStatus::Parents(parents))) => parents.iter().flat_map(|p| wrong(&p.conditions)).collect(),
        other => panic!("{other:?}"),
    }
}

/// The listeners of the route's rules, and where the first backend goes.
fn attached_to(index: &Index) -> (Vec<String>, Option<BackendTarget>) {
    let rule = index.resources().find_map(|resource| match resource {
        Resource::GatewayRule(it) => Some(it.rule.clone()),
        _ => None,
    });
    let Some(rule) = rule else { return (Vec::new(), None) };
    let RouteRule::L4(rule) = &*rule else { panic!("{rule:?}") };
    let parents = rule.parents.iter().map(|parent| match parent {
        Parent::Listener(key) => key.name.to_string(),
        other => panic!("{other:?}"),
    });
    (parents.collect(), rule.backends.first().map(|backend| backend.target.clone()))
}

#[test]
fn tls_ends_or_passes_on_one_port_and_udp_is_beside_tcp() {
    let index = all("");
    let status = status_of(&index, "gw");
    assert!(status.listeners.iter().all(|listener| wrong(&listener.conditions).is_empty()), "{status:?}");
    let protocols: Vec<_> = served(&index).into_iter().map(|it| (it.key.name.to_string(), it.protocol)).collect();
    let key = CertificateKey { gateway: GatewayKey::new("edge", "gw"), secret: SecretKey::new("edge", "c") };
    let find = |name: &str| protocols.iter().find(|(it, _)| it == name).map(|(_, protocol)| protocol.clone()).unwrap();
    assert_eq!(find("ends"), ListenerProtocol::TlsTerminate { certificates: vec![key] });
    assert_eq!(find("pass"), ListenerProtocol::TlsPassthrough);
    assert_eq!((find("tcp"), find("dns")), (ListenerProtocol::Tcp, ListenerProtocol::Udp));
    let kinds: Vec<_> = status.listeners.iter().map(|listener| listener.supported_kinds.clone()).collect();
    let (tls, udp) = (vec![RouteKind::Tls], vec![RouteKind::Udp]);
    assert_eq!(kinds, [tls.clone(), tls, vec![RouteKind::Tcp], udp.clone(), udp]);
}

#[test]
fn routes_go_to_the_listeners_of_their_kind() {
    for (kind, more, hostnames, listeners, reason) in [
        ("TLSRoute", "", "pass.com", "pass", ""),
        ("TLSRoute", "", "ends.com, pass.com", "pass ends", ""),
        ("TLSRoute", ", sectionName: ends", "pass.com", "", "Accepted/NoMatchingListenerHostname"),
        ("TLSRoute", ", sectionName: tcp", "pass.com", "", "Accepted/NotAllowedByListeners"),
        ("TLSRoute", ", sectionName: nobody", "pass.com", "", "Accepted/NoMatchingParent"),
        ("TCPRoute", "", "", "tcp", ""),
        ("TCPRoute", ", port: 53", "", "tcp", ""),
        ("TCPRoute", ", port: 443", "", "", "Accepted/NotAllowedByListeners"),
        ("UDPRoute", "", "", "dns dns2", ""),
        ("UDPRoute", ", port: 53", "", "dns", ""),
        ("UDPRoute", ", port: 54, sectionName: dns2", "", "dns2", ""),
        ("UDPRoute", ", port: 53, sectionName: dns2", "", "", "Accepted/NoMatchingParent"),
        ("UDPRoute", ", sectionName: pass", "", "", "Accepted/NotAllowedByListeners"),
    ] {
        let (port, of) = if kind == "UDPRoute" { (53, Kind::UdpRoute) } else { (80, Kind::TcpRoute) };
        let of = if kind == "TLSRoute" { Kind::TlsRoute } else { of };
        let index = all(&l4_route(kind, more, hostnames, &format!("name: cart, port: {port}")));
        let want: Vec<_> = listeners.split_whitespace().map(str::to_owned).collect();
        assert_eq!(attached_to(&index).0, want, "{kind}{more}");
        let reasons: Vec<_> = (!reason.is_empty()).then(|| reason.to_owned()).into_iter().collect();
        assert_eq!(wrong_with(&index, of), reasons, "{kind}{more}");
        let counts = status_of(&index, "gw").listeners.iter().map(|it| it.attached_routes).sum::<usize>();
        assert_eq!(counts, want.len(), "{kind}{more}");
    }
}

#[test]
fn a_port_may_be_open_for_datagrams_and_connections() {
    let both = |udp_target: &str| {
        format!(
            "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: both, namespace: shop}}\nspec: {{clusterIP: 10.96.0.12, \
             ports: [{{name: dns, port: 53, protocol: UDP, targetPort: {udp_target}}}, {{name: dns-tcp, port: 53, targetPort: 5353}}]}}\n"
        )
    };
    for (target, reasons) in [("5353", vec![]), ("5354", vec!["ResolvedRefs/UnsupportedProtocol"])] {
        let index = all(&(both(target) + &l4_route("UDPRoute", "", "", "name: both, port: 53")));
        assert_eq!(wrong_with(&index, Kind::UdpRoute), reasons, "{target}");
        let index = all(&(both(target) + &l4_route("TCPRoute", "", "", "name: both, port: 53")));
        assert!(wrong_with(&index, Kind::TcpRoute).is_empty(), "{target}");
    }
}

#[test]
fn backends_that_cannot_be_had_are_named_and_their_share_is_refused() {
    let (missing, denied, kind, port) = (
        InvalidBackend::NotFound,
        InvalidBackend::NotPermitted,
        InvalidBackend::InvalidKind,
        InvalidBackend::UnsupportedPort,
    );
    for (route, of) in [("TLSRoute", Kind::TlsRoute), ("TCPRoute", Kind::TcpRoute), ("UDPRoute", Kind::UdpRoute)] {
        let hostnames = if route == "TLSRoute" { "pass.com" } else { "" };
        let number = if route == "UDPRoute" { 53 } else { 80 };
        for (backend, want, reason) in [
            ("name: nobody", &missing, "ResolvedRefs/BackendNotFound"),
            ("name: far, namespace: other", &denied, "ResolvedRefs/RefNotPermitted"),
            ("name: cart, kind: Nonsense", &kind, "ResolvedRefs/InvalidKind"),
        ] {
            let index = all(&l4_route(route, "", hostnames, &format!("{backend}, port: {number}")));
            assert_eq!(wrong_with(&index, of), [reason], "{route} {backend}");
            let (parents, target) = attached_to(&index);
            assert!(!parents.is_empty(), "it is attached all the same: {route} {backend}");
            let Some(BackendTarget::Invalid { reason, .. }) = target else { panic!("{route} {backend}: {target:?}") };
            assert_eq!(reason, *want, "{route} {backend}");
        }
        let other = if route == "UDPRoute" { 80 } else { 53 };
        let index = all(&l4_route(route, "", hostnames, &format!("name: cart, port: {other}")));
        assert_eq!(wrong_with(&index, of), ["ResolvedRefs/UnsupportedProtocol"], "{route}");
        let Some(BackendTarget::Invalid { reason, .. }) = attached_to(&index).1 else { panic!("{route}") };
        assert_eq!(reason, port, "datagrams and connections don't mix");
    }
}
