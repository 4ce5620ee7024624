//! Listeners of Gateways: where they listen, which routes they have, and whose hosts those answer for.

use http::HeaderMap;

use super::*;
use crate::gateway::{Bind, Certificate, Listener, ListenerProtocol, PortLayer, PrivateKey};
use crate::ids::{CertificateKey, GatewayKey, ListenerKey, SectionName};
use crate::matching::{ListenerChoice, RequestFacts};
use crate::route::HostnameMatch;

fn key(name: &str) -> ListenerKey {
    ListenerKey { gateway: GatewayKey::new("edge", "gw"), name: name.into() }
}

fn listener_on(name: &str, number: u16, hostname: Option<&str>, protocol: ListenerProtocol) -> Listener {
    Listener {
        key: key(name),
        addresses: Vec::new(),
        port: port(number),
        hostname: hostname.map(HostnameMatch::new),
        protocol,
        kinds: vec![RouteKind::Http, RouteKind::Grpc],
    }
}

fn http(name: &str, number: u16, hostname: Option<&str>) -> Change {
    Change::Upsert(Resource::Listener(Arc::new(listener_on(name, number, hostname, ListenerProtocol::Http))))
}

fn route(name: &str, listeners: &[&str], hostnames: &[&str]) -> Change {
    let Change::Upsert(Resource::Rule(rule)) = http_rule(RouteKind::Http, "shop", name, None) else { panic!() };
    let RouteRule::Http(mut rule) = (*rule).clone() else { panic!() };
    let parent = |name: &&str| Parent::Listener { gateway: key(name).gateway, listener: SectionName::from(*name) };
    rule.parents.extend(listeners.iter().map(parent));
    rule.hostnames = hostnames.iter().map(|name| HostnameMatch::new(name)).collect();
    rule.matches[0].path = PathMatch::Prefix(String::new());
    Change::Upsert(Resource::Rule(Arc::new(RouteRule::Http(rule))))
}

fn bind(number: u16) -> Bind {
    Bind { address: None, port: port(number) }
}

/// `listener route`, or why there is none.
fn answer(snapshot: &Snapshot, number: u16, host: &str) -> String {
    let Some(found) = snapshot.gateway_port(&bind(number)) else { return "refused".into() };
    let ListenerChoice::Listener(listener) = found.listeners.of_request(host, None) else { return "404".into() };
    let RouteSet::Http(table) = &listener.routes else { return format!("{} 404", listener.listener.key.name) };
    let headers = HeaderMap::new();
    let facts = RequestFacts { method: &http::Method::GET, host, path: "/", query: None, headers: &headers };
    let rule = table.find(&facts).map_or("404".into(), |matched| matched.rule.key.route.name.to_string());
    format!("{} {rule}", listener.listener.key.name)
}

#[test]
fn a_route_answers_only_for_hosts_of_its_own_and_of_the_listener_that_owns_them() {
    let snapshot = Snapshot::default().apply(&[
        http("any", 80, None),
        http("example", 80, Some("*.example.com")),
        http("abc", 80, Some("abc.example.com")),
        route("everywhere", &["any"], &[]),
        route("of-example", &["example"], &["*.com", "x.example.com"]),
    ]);
    for (host, want) in [
        ("other.com", "any everywhere"),
        ("x.example.com", "example of-example"),
        ("y.example.com", "example of-example"),
        ("abc.example.com", "abc 404"),
        ("example.com", "any everywhere"),
    ] {
        assert_eq!(answer(&snapshot, 80, host), want, "{host}");
    }
    assert_eq!(answer(&snapshot, 81, "other.com"), "refused");
}

#[test]
fn the_order_in_which_listeners_and_routes_come_and_go_does_not_matter() {
    let changes = [http("any", 80, None), route("r", &["any"], &["a.com"])];
    for order in [[0, 1], [1, 0]] {
        let mut snapshot = Snapshot::default();
        for at in order {
            snapshot = snapshot.apply(&[changes[at].clone()]);
        }
        assert_eq!(answer(&snapshot, 80, "a.com"), "any r");
        assert_eq!(answer(&snapshot, 80, "b.com"), "any 404");
        let moved = snapshot.apply(&[http("any", 8080, None)]);
        assert_eq!((answer(&moved, 80, "a.com"), answer(&moved, 8080, "a.com")), ("refused".into(), "any r".into()));
        let gone = snapshot.apply(&[Change::Remove(ResourceKey::Listener(key("any")))]);
        assert_eq!(answer(&gone, 80, "a.com"), "refused");
        assert_eq!(answer(&gone.apply(&[http("any", 80, None)]), 80, "a.com"), "any r");
        let unrouted = snapshot.apply(&[Change::Remove(ResourceKey::Rule(rule_key(RouteKind::Http, "shop", "r")))]);
        assert_eq!(answer(&unrouted, 80, "a.com"), "any 404");
    }
}

#[test]
fn an_edit_of_one_listener_leaves_the_port_of_another_as_it_was() {
    let before = Snapshot::default().apply(&[http("a", 80, None), http("b", 81, None), route("r", &["a"], &[])]);
    let after = before.apply(&[http("b", 81, Some("b.com")), http("c", 82, None)]);
    let at = |snapshot: &Snapshot| Arc::clone(snapshot.gateway_port(&bind(80)).unwrap());
    assert!(Arc::ptr_eq(&at(&before), &at(&after)));
    assert_eq!(after.gateway_ports().count(), 3);
}

#[test]
fn hostnames_count_at_a_gateway_and_not_at_a_service() {
    let snapshot = Snapshot::default().apply(&[
        service("cart", "10.96.0.1", &[(80, AppProtocol::Http)]),
        http("any", 80, None),
        route("both", &["any"], &["a.com"]),
    ]);
    assert_eq!(answer(&snapshot, 80, "b.com"), "any 404");
    let ConnectionPlan::Http { table: Some(table), .. } = plan(&snapshot, "shop", "10.96.0.1:80") else { panic!() };
    let headers = HeaderMap::new();
    let facts = RequestFacts { method: &http::Method::GET, host: "cart", path: "/", query: None, headers: &headers };
    assert!(table.find(&facts).is_some());
}

#[test]
fn a_listener_passes_over_rules_of_kinds_that_it_does_not_take() {
    let mut tcp = listener_on("tcp", 80, None, ListenerProtocol::Tcp);
    tcp.kinds = vec![RouteKind::Tcp];
    let snapshot =
        Snapshot::default().apply(&[Change::Upsert(Resource::Listener(Arc::new(tcp))), route("r", &["tcp"], &[])]);
    let found = snapshot.gateway_port(&bind(80)).unwrap();
    assert_eq!(found.layer, PortLayer::Tcp);
    assert!(matches!(found.listeners.find("").unwrap().routes, RouteSet::None));
}

#[test]
fn a_listener_with_addresses_listens_at_each_of_them_and_nowhere_else() {
    let mut listener = listener_on("l", 80, None, ListenerProtocol::Http);
    listener.addresses = vec![ip("192.0.2.1"), ip("2001:db8::1")];
    let snapshot = Snapshot::default().apply(&[Change::Upsert(Resource::Listener(Arc::new(listener)))]);
    let mut binds: Vec<_> = snapshot.gateway_ports().map(|at| at.bind.to_string()).collect();
    binds.sort();
    assert_eq!(binds, ["192.0.2.1:80", "[2001:db8::1]:80"]);
}

#[test]
fn private_keys_are_in_no_copy_of_a_snapshot() {
    let certificate = Certificate {
        key: CertificateKey::new("edge", "c"),
        chain: b"chain".to_vec(),
        private_key: PrivateKey::new(*b"key"),
    };
    let listener = http("any", 80, None);
    let snapshot = Snapshot::default().apply(&[Change::Upsert(Resource::Certificate(Arc::new(certificate))), listener]);
    assert!(snapshot.certificate(&CertificateKey::new("edge", "c")).is_some());
    let copy = snapshot.resources();
    assert!(copy.iter().any(|it| matches!(it, Resource::Listener(_))), "listeners are in it");
    assert!(!copy.iter().any(|it| matches!(it, Resource::Certificate(_))));
}
