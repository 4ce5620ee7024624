//! Gateways: what their listeners are understood as, who may attach, and what the statuses say.

mod clients;
mod cluster;
mod externals;
mod http3;
mod l4;
mod large;
mod loops;
mod machine;
mod policies;
mod routes;
mod sets;
mod tls;

use weft_core::gateway::{Listener, ListenerProtocol};
use weft_core::ids::GatewayKey;

use super::*;
use crate::object::{Condition, ConditionType, GatewayAddress, GatewayStatus};
use crate::translate::gateway::{GatewaySettings, KeyPairCheck, Place};

/// A chain is good if it says so, and its key is the one that goes with it.
fn check(chain: &[u8], key: &[u8]) -> Result<(), String> {
    match chain.strip_prefix(b"chain ") {
        Some(of) if key.strip_prefix(b"key ") == Some(of) => Ok(()),
        _ => Err("tls.key is not the key of tls.crt".into()),
    }
}

pub(super) fn serving() -> IndexConfig {
    let place = Place::Machine { addresses: vec!["192.0.2.1".parse().unwrap()] };
    let settings = GatewaySettings { place, check: KeyPairCheck(check) };
    IndexConfig { gateways: Some(settings), ..IndexConfig::default() }
}

/// With a proxy that has bound everything of the Gateways that there are.
fn serve(text: &str) -> (Index, Output) {
    let mut index = Index::new(serving());
    objects(text).into_iter().for_each(|o| index.apply(o));
    let there = index.of_kind(Kind::Gateway).map(|(it, _)| GatewayKey::new(it.namespace.clone(), it.name.clone()));
    let bound = there.map(|gateway| (gateway, BTreeMap::new())).collect();
    index.set_bound(bound);
    let out = index.commit();
    (index, out)
}

fn gateway_of(name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: edge, generation: 2}}\n\
         spec: {{gatewayClassName: weft, {spec}}}\n"
    )
}

fn gateway(listeners: &str) -> String {
    gateway_of("gw", &format!("listeners: [{listeners}]"))
}

fn secret(namespace: &str, name: &str, chain: &str, key: &str) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: kubernetes.io/tls\n\
         stringData: {{tls.crt: '{chain}', tls.key: '{key}'}}\n"
    )
}

fn grant(namespace: &str, from: &str, to: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\n\
         spec: {{from: [{{{from}}}], to: [{{{to}}}]}}\n"
    )
}

fn status_of(index: &Index, name: &str) -> GatewayStatus {
    let reference = ObjectRef::new(Kind::Gateway, "edge", name);
    match index.status(&reference) {
        Some((_, ObjectStatus::Gateway(status))) => status.clone(),
        other => panic!("{other:?}"),
    }
}

/// The reasons of some conditions that aren't as they should be.
fn wrong(conditions: &[Condition]) -> Vec<String> {
    use ConditionType::{Conflicted, InsecureFrontendValidationMode, OverlappingTlsConfig};
    let bad_if_true = |kind| matches!(kind, Conflicted | OverlappingTlsConfig | InsecureFrontendValidationMode);
    let good = |c: &&Condition| c.status != bad_if_true(c.kind);
    let show = |c: &Condition| format!("{}/{}", serde_json::to_value(c.kind).unwrap().as_str().unwrap(), c.reason);
    conditions.iter().filter(|c| !good(c)).map(show).collect()
}

/// What is wrong with each listener of Gateway `gw`.
fn listeners(text: &str) -> Vec<Vec<String>> {
    let (index, _) = serve(text);
    status_of(&index, "gw").listeners.iter().map(|listener| wrong(&listener.conditions)).collect()
}

/// What is served.
fn served(index: &Index) -> Vec<Listener> {
    let of = |resource: &Resource| match resource {
        Resource::Listener(listener) => Some((**listener).clone()),
        _ => None,
    };
    index.resources().filter_map(of).collect()
}

fn names(index: &Index) -> Vec<String> {
    served(index).iter().map(|listener| format!("{}:{}", listener.key, listener.port)).collect()
}

const HTTP: &str = "{name: http, port: 80, protocol: HTTP}";

#[test]
fn a_listener_is_served_as_it_says() {
    let text = gateway(
        "{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'}, \
         {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}, \
         {name: tls, port: 8443, protocol: TLS, tls: {mode: Passthrough}}",
    );
    let (index, out) = serve(&(text + &secret("edge", "c", "chain 1", "key 1")));
    let status = status_of(&index, "gw");
    assert_eq!(status.addresses, [GatewayAddress::Ip("192.0.2.1".parse().unwrap())]);
    assert!(wrong(&status.conditions).is_empty(), "{status:?}");
    assert!(status.listeners.iter().all(|listener| wrong(&listener.conditions).is_empty()), "{status:?}");
    let kinds: Vec<_> = status.listeners.iter().map(|listener| listener.supported_kinds.clone()).collect();
    let http = vec![RouteKind::Http, RouteKind::Grpc];
    assert_eq!(kinds, [http.clone(), http.clone(), vec![RouteKind::Tls]]);
    let served = served(&index);
    assert_eq!(served.len(), 3);
    assert_eq!(served[0].hostname.as_ref().unwrap().to_string(), "*.example.com");
    assert_eq!((&served[0].protocol, &served[0].kinds), (&ListenerProtocol::Http, &http));
    let ListenerProtocol::Https { certificates } = &served[1].protocol else { panic!("{served:?}") };
    assert_eq!(certificates[0].to_string(), "edge/gw/edge/c");
    assert!(out.statuses.iter().any(|update| update.object.kind == Kind::Gateway && update.generation == 2));
    let keys: Vec<_> = out.changes.iter().filter(|c| matches!(c, Change::Upsert(Resource::Certificate(_)))).collect();
    assert_eq!(keys.len(), 1);
}

#[test]
fn only_classes_of_ours_are_served_and_without_settings_nothing_is() {
    let class = |name: &str, controller: &str| {
        format!(
            "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\nspec: {{controllerName: {controller}}}\n"
        )
    };
    let of_class = |name: &str| gateway(HTTP).replace("gatewayClassName: weft", &format!("gatewayClassName: {name}"));
    for (text, ours) in [
        (of_class("weft"), true),
        (of_class("weft") + &class("weft", "example.com/other"), false),
        (of_class("edge"), false),
        (of_class("edge") + &class("edge", crate::object::CONTROLLER_NAME), true),
        (of_class("edge") + &class("edge", "example.com/other"), false),
    ] {
        let (index, _) = serve(&text);
        assert_eq!((!served(&index).is_empty(), index.statuses().count() == 1), (ours, ours), "{text}");
    }
    let (index, out) = index(&gateway(HTTP));
    assert!(served(&index).is_empty() && out.statuses.is_empty(), "in a cluster they are not claimed yet");
}

#[test]
fn a_listener_that_is_wrong_says_why_and_costs_no_other() {
    let tls = |refs: &str| format!("port: 443, protocol: HTTPS, tls: {{certificateRefs: [{refs}]}}");
    for (listener, reasons) in [
        ("port: 81, protocol: SCTP", vec!["Accepted/UnsupportedProtocol", "Programmed/Invalid"]),
        ("port: 81, protocol: example.com/foo", vec!["Accepted/UnsupportedProtocol", "Programmed/Invalid"]),
        ("port: 0, protocol: HTTP", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        ("port: 70000, protocol: HTTP", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        ("port: 80, protocol: HTTP, hostname: 'a.*.com'", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        (
            "port: 81, protocol: HTTP, tls: {certificateRefs: [{name: c}]}",
            vec!["Accepted/UnsupportedValue", "Programmed/Invalid"],
        ),
        ("port: 81, protocol: TCP, hostname: a.com", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        ("port: 81, protocol: UDP, hostname: a.com", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        ("port: 81, protocol: UDP, tls: {mode: Passthrough}", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        (
            "port: 443, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: nobody}]}",
            vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"],
        ),
        (
            "port: 443, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TLSRoute}, {kind: TCPRoute}]}",
            vec!["ResolvedRefs/InvalidRouteKinds"],
        ),
        ("port: 443, protocol: TLS", vec!["Accepted/UnsupportedValue", "Programmed/Invalid"]),
        (
            "port: 443, protocol: HTTPS, tls: {mode: Passthrough}",
            vec!["Accepted/UnsupportedValue", "Programmed/Invalid"],
        ),
        (
            "port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}",
            vec!["Accepted/UnsupportedValue", "Programmed/Invalid"],
        ),
        (
            "port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Like}]}}}",
            vec!["Accepted/UnsupportedValue", "Programmed/Invalid"],
        ),
        ("port: 443, protocol: HTTPS", vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: nobody}"), vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: c, kind: ConfigMap}"), vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: c, group: example.com}"), vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: garbage}"), vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: other-key}"), vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: empty}"), vec!["Programmed/Invalid", "ResolvedRefs/InvalidCertificateRef"]),
        (&tls("{name: c, namespace: vault}"), vec!["Programmed/Invalid", "ResolvedRefs/RefNotPermitted"]),
        (&tls("{name: nobody, namespace: vault}"), vec!["Programmed/Invalid", "ResolvedRefs/RefNotPermitted"]),
        // One of two is there: its hosts are served.
        (&tls("{name: nobody}, {name: c}"), vec!["ResolvedRefs/InvalidCertificateRef"]),
        (
            "port: 81, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}",
            vec!["ResolvedRefs/InvalidRouteKinds"],
        ),
        (
            "port: 81, protocol: HTTP, allowedRoutes: {kinds: [{group: example.com, kind: HTTPRoute}]}",
            vec!["ResolvedRefs/InvalidRouteKinds"],
        ),
    ] {
        let text = gateway(&format!("{{name: bad, {listener}}}, {HTTP}"))
            + &secret("edge", "c", "chain 1", "key 1")
            + &secret("vault", "c", "chain 1", "key 1")
            + &secret("edge", "garbage", "Hello world", "Hello world")
            + &secret("edge", "other-key", "chain 1", "key 2")
            + &secret("edge", "empty", "", "");
        let (index, _) = serve(&text);
        let status = status_of(&index, "gw");
        assert_eq!(wrong(&status.listeners[0].conditions), reasons, "{listener}");
        assert!(wrong(&status.listeners[1].conditions).is_empty(), "{listener}: {:?}", status.listeners[1]);
        assert!(names(&index).contains(&"edge/gw/http:80".to_owned()), "{listener}");
        let accepted = &status.conditions[0];
        let listeners_not_valid = reasons[0].starts_with("Accepted");
        assert!(accepted.status, "{listener}: {accepted:?}");
        assert_eq!(accepted.reason == "ListenersNotValid", listeners_not_valid, "{listener}: {accepted:?}");
        let problems = index.problems(&ObjectRef::new(Kind::Gateway, "edge", "gw"));
        assert!(
            !problems.is_empty() && problems.iter().all(|p| p.field.starts_with("spec.listeners[0]")),
            "{problems:?}"
        );
        assert!(problems.iter().all(|p| !p.remedy.is_empty()), "{problems:?}");
        let secrets: Vec<_> = index.resources().filter(|r| matches!(r, Resource::Certificate(_))).collect();
        assert!(secrets.len() <= 1, "only what is presented goes to the data plane");
    }
}

#[test]
fn kinds_that_are_valid_stay_beside_those_that_are_not() {
    let kinds = |list: &str| {
        let listener = format!("{{name: l, port: 80, protocol: HTTP, allowedRoutes: {{kinds: [{list}]}}}}");
        let (index, _) = serve(&gateway(&listener));
        status_of(&index, "gw").listeners[0].supported_kinds.clone()
    };
    assert_eq!(kinds("{kind: GRPCRoute}"), [RouteKind::Grpc]);
    assert_eq!(kinds("{kind: HTTPRoute}, {kind: FooRoute}"), [RouteKind::Http]);
    assert_eq!(kinds("{kind: FooRoute}"), []);
}

#[test]
fn listeners_that_cannot_be_told_apart_all_lose() {
    let http = |name: &str, more: &str| format!("{{name: {name}, port: 80, protocol: HTTP{more}}}");
    let tls = |name: &str, more: &str| {
        format!("{{name: {name}, port: 443, protocol: TLS, tls: {{mode: Passthrough}}{more}}}")
    };
    let https = |name: &str, more: &str| {
        format!("{{name: {name}, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: c}}]}}{more}}}")
    };
    let of = |port: u16, protocol: &str| format!("{{name: {protocol}{port}, port: {port}, protocol: {protocol}}}");
    let (a, b) = (", hostname: a.com", ", hostname: b.com");
    let none: Vec<String> = Vec::new();
    let hostname: Vec<String> =
        ["Accepted/HostnameConflict", "Conflicted/HostnameConflict", "Programmed/Invalid"].map(Into::into).into();
    let protocol: Vec<String> =
        ["Accepted/ProtocolConflict", "Conflicted/ProtocolConflict", "Programmed/Invalid"].map(Into::into).into();
    for (list, want) in [
        (vec![http("x", a), http("y", b), http("z", "")], vec![&none, &none, &none]),
        (vec![http("x", a), http("y", a), http("z", b)], vec![&hostname, &hostname, &none]),
        (vec![http("x", ""), http("y", ""), http("z", b)], vec![&hostname, &hostname, &none]),
        (vec![http("x", ", hostname: ''"), http("y", "")], vec![&hostname, &hostname]),
        (vec![http("x", a), "{name: t, port: 80, protocol: TCP}".into()], vec![&protocol, &protocol]),
        (vec![http("x", a), https("y", a).replace("443", "80"), http("z", b)], vec![&protocol, &protocol, &protocol]),
        (vec![https("x", a), tls("y", b), http("z", a)], vec![&none, &none, &none]),
        (vec![https("x", a), tls("y", a), http("z", a)], vec![&protocol, &protocol, &none]),
        (vec![of(53, "TCP"), of(53, "UDP"), of(54, "UDP")], vec![&none, &none, &none]),
        (vec![of(53, "TCP"), of(53, "UDP"), of(53, "UDP").replace("UDP53", "y")], vec![&none, &hostname, &hostname]),
    ] {
        let text = gateway(&list.join(", ")) + &secret("edge", "c", "chain 1", "key 1");
        assert_eq!(listeners(&text), want.into_iter().cloned().collect::<Vec<_>>(), "{list:?}");
    }
    let (index, _) = serve(&gateway(&[http("x", a), http("y", a)].join(", ")));
    let status = status_of(&index, "gw");
    assert_eq!(wrong(&status.conditions), ["Accepted/ListenersNotValid", "Programmed/Invalid"]);
    assert!(status.addresses.is_empty() && served(&index).is_empty());
    let same_name = listeners(&gateway(&[http("x", a), http("x", b)].join(", ")));
    assert!(same_name.iter().all(|it| *it == ["Accepted/UnsupportedValue", "Programmed/Invalid"]), "{same_name:?}");
}

#[test]
fn a_gateway_that_asks_for_what_cannot_be_is_refused_whole() {
    for (more, reason) in [
        ("addresses: [{type: Hostname, value: a.com}]", "Accepted/UnsupportedAddress"),
        ("addresses: [{type: test/fake, value: x}]", "Accepted/UnsupportedAddress"),
        ("addresses: [{value: nonsense}]", "Accepted/UnsupportedAddress"),
        ("infrastructure: {parametersRef: {group: a.b, kind: C, name: d}}", "Accepted/InvalidParameters"),
    ] {
        let (index, _) = serve(&gateway_of("gw", &format!("listeners: [{HTTP}], {more}")));
        assert_eq!(wrong(&status_of(&index, "gw").conditions), [reason, "Programmed/Invalid"], "{more}");
        assert!(served(&index).is_empty(), "{more}");
    }
    let (index, _) = serve(&gateway_of(
        "gw",
        &format!("listeners: [{HTTP}], addresses: [{{value: 192.0.2.9}}, {{type: IPAddress}}]"),
    ));
    let wanted: std::net::IpAddr = "192.0.2.9".parse().unwrap();
    assert_eq!(
        (served(&index)[0].addresses.as_slice(), status_of(&index, "gw").addresses.as_slice()),
        (&[wanted][..], &[GatewayAddress::Ip(wanted)][..])
    );
}

#[test]
fn a_port_is_the_oldest_gateways_and_the_next_one_gets_it_when_that_goes() {
    let of = |name: &str, created: &str, spec: &str| {
        gateway_of(name, spec).replace("generation: 2", &format!("creationTimestamp: '{created}', generation: 2"))
    };
    let older = of("older", "2026-01-01T00:00:00Z", &format!("listeners: [{HTTP}]"));
    let newer =
        of("newer", "2026-01-02T00:00:00Z", &format!("listeners: [{HTTP}, {{name: alt, port: 81, protocol: HTTP}}]"));
    let (mut index, _) = serve(&(newer.clone() + &older));
    assert_eq!(names(&index), ["edge/newer/alt:81", "edge/older/http:80"]);
    let status = status_of(&index, "newer");
    assert_eq!(wrong(&status.listeners[0].conditions), ["Accepted/PortUnavailable", "Programmed/Invalid"]);
    assert!(status.listeners[0].conditions[0].message.contains("edge/older"), "{status:?}");
    index.delete(&ObjectRef::new(Kind::Gateway, "edge", "older"));
    let out = index.commit();
    assert_eq!(names(&index), ["edge/newer/alt:81", "edge/newer/http:80"]);
    assert!(matches!(out.changes.last(), Some(Change::Remove(ResourceKey::Listener(_)))), "{:?}", out.changes);
    assert!(wrong(&status_of(&index, "newer").listeners[0].conditions).is_empty());

    let apart = |name: &str, ip: &str| gateway_of(name, &format!("listeners: [{HTTP}], addresses: [{{value: {ip}}}]"));
    let (index, _) = serve(&(apart("a", "192.0.2.1") + &apart("b", "192.0.2.2") + &apart("c", "192.0.2.1")));
    assert_eq!(names(&index), ["edge/a/http:80", "edge/b/http:80"]);
}

#[test]
fn a_certificate_comes_goes_and_turns_to_garbage_live() {
    let listener = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}";
    let (mut index, _) = serve(&gateway(&format!("{listener}, {HTTP}")));
    assert_eq!(names(&index), ["edge/gw/http:80"]);
    let mut with = |text: &str, want: &[&str]| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        let out = index.commit();
        assert_eq!(names(&index), want, "{text}");
        out
    };
    with(&secret("edge", "c", "chain 1", "key 1"), &["edge/gw/http:80", "edge/gw/https:443"]);
    let renewed = with(&secret("edge", "c", "chain 2", "key 2"), &["edge/gw/http:80", "edge/gw/https:443"]);
    assert!(matches!(&renewed.changes[..], [Change::Upsert(Resource::Certificate(_))]), "{:?}", renewed.changes);
    let garbage = with(&secret("edge", "c", "garbage", "key 2"), &["edge/gw/http:80"]);
    assert!(matches!(
        &garbage.changes[..],
        [Change::Remove(ResourceKey::Listener(_)), Change::Remove(ResourceKey::Certificate(_))]
    ));
    with(&secret("edge", "c", "chain 2", "key 2"), &["edge/gw/http:80", "edge/gw/https:443"]);
    index.delete(&ObjectRef::new(Kind::Secret, "edge", "c"));
    index.commit();
    assert_eq!(names(&index), ["edge/gw/http:80"]);
}

/// Each of these misses the reference by one field.
#[test]
fn near_misses_of_a_grant_for_a_secret() {
    let from = "group: gateway.networking.k8s.io, kind: Gateway, namespace: edge";
    let to = "group: '', kind: Secret";
    let listener = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c, namespace: vault}]}}";
    for (grant, permitted) in [
        (grant("vault", from, to), true),
        (grant("vault", from, "group: '', kind: Secret, name: c"), true),
        (grant("edge", from, to), false),
        (grant("vault", "group: '', kind: Gateway, namespace: edge", to), false),
        (grant("vault", "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge", to), false),
        (grant("vault", "group: gateway.networking.k8s.io, kind: Gateway, namespace: vault", to), false),
        (grant("vault", from, "group: example.com, kind: Secret"), false),
        (grant("vault", from, "group: '', kind: Service"), false),
        (grant("vault", from, "group: '', kind: Secret, name: other"), false),
    ] {
        let text = gateway(listener) + &secret("vault", "c", "chain 1", "key 1");
        let want: &[&str] = if permitted { &[] } else { &["Programmed/Invalid", "ResolvedRefs/RefNotPermitted"] };
        assert_eq!(listeners(&(text.clone() + &grant))[0], want, "{grant}");
        // The grant may also come later, and go.
        let (mut index, _) = serve(&text);
        objects(&grant).into_iter().for_each(|o| index.apply(o));
        index.commit();
        assert_eq!(!served(&index).is_empty(), permitted);
        let namespace = if grant.contains("namespace: edge}\n") { "edge" } else { "vault" };
        index.delete(&ObjectRef::new(Kind::ReferenceGrant, namespace, "g"));
        index.commit();
        assert!(served(&index).is_empty());
    }
}
