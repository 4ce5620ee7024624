//! Listeners of Gateways: where they listen, which routes they have, and whose hosts those answer for.

use http::HeaderMap;

use super::*;
use crate::gateway::{
    BackendTls, BackendTrust, Bind, Certificate, GatewayConfig, GatewayRule, Listener, ListenerProtocol, PortLayer,
    PrivateKey, by_scope,
};
use crate::ids::{CertificateKey, GatewayKey, GatewayRuleKey, ListenerKey, ListenerSetKey, SecretKey};
use crate::matching::{ListenerChoice, RequestFacts};
use crate::route::HostnameMatch;

fn key(name: &str) -> ListenerKey {
    ListenerKey::new(GatewayKey::new("edge", "gw"), name)
}

fn listener_on(name: &str, number: u16, hostname: Option<&str>, protocol: ListenerProtocol) -> Listener {
    Listener {
        key: key(name),
        addresses: Vec::new(),
        port: port(number),
        hostname: hostname.map(HostnameMatch::new),
        protocol,
        kinds: vec![RouteKind::Http, RouteKind::Grpc],
        client_validation: None,
        policies: Vec::new(),
        http3: false,
    }
}

fn http(name: &str, number: u16, hostname: Option<&str>) -> Change {
    Change::Upsert(Resource::Listener(Arc::new(listener_on(name, number, hostname, ListenerProtocol::Http))))
}

fn route(name: &str, listeners: &[&str], hostnames: &[&str]) -> Change {
    let Change::Upsert(Resource::Rule(rule)) = http_rule(RouteKind::Http, "shop", name, None) else { panic!() };
    let RouteRule::Http(mut rule) = (*rule).clone() else { panic!() };
    rule.parents = listeners.iter().map(|name| Parent::Listener(key(name))).collect();
    rule.hostnames = hostnames.iter().map(|name| HostnameMatch::new(name)).collect();
    rule.matches[0].path = PathMatch::Prefix(String::new());
    let rule = Arc::new(RouteRule::Http(rule));
    Change::Upsert(Resource::GatewayRule(Arc::new(GatewayRule { gateway: GatewayKey::new("edge", "gw"), rule })))
}

fn bind(number: u16) -> Bind {
    Bind::tcp(None, port(number))
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
        let rule = GatewayRuleKey { gateway: key("any").gateway, rule: rule_key(RouteKind::Http, "shop", "r") };
        let unrouted = snapshot.apply(&[Change::Remove(ResourceKey::GatewayRule(rule))]);
        assert_eq!(answer(&unrouted, 80, "a.com"), "any 404");
    }
}

#[test]
fn a_route_that_is_edited_answers_as_it_is_now_at_the_listeners_that_it_is_attached_to_now() {
    let both = [http("a", 80, None), http("b", 81, None), route("r", &["a"], &["a.com"])];
    let answers = |snapshot: &Snapshot, host: &str| [answer(snapshot, 80, host), answer(snapshot, 81, host)];
    let before = Snapshot::default().apply(&both);
    // In its place, and twice in one batch: the rest of the set is as it was.
    let edited = before.apply(&[route("r", &["a"], &["b.com"]), route("r", &["a"], &["c.com"])]);
    assert_eq!(answers(&edited, "a.com"), ["a 404", "b 404"]);
    assert_eq!(answers(&edited, "c.com"), ["a r", "b 404"]);
    assert_eq!(answers(&before, "a.com"), ["a r", "b 404"], "an older snapshot stays as it is");
    let moved = edited.apply(&[route("r", &["b"], &["c.com"])]);
    assert_eq!(answers(&moved, "c.com"), ["a 404", "b r"]);
    let at_both = moved.apply(&[route("r", &["a", "b"], &["c.com"])]);
    assert_eq!(answers(&at_both, "c.com"), ["a r", "b r"]);
    let rule = GatewayRuleKey { gateway: key("a").gateway, rule: rule_key(RouteKind::Http, "shop", "r") };
    assert_eq!(answers(&at_both.apply(&[Change::Remove(ResourceKey::GatewayRule(rule))]), "c.com"), ["a 404", "b 404"]);
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
    let Change::Upsert(Resource::Rule(rule)) = http_rule(RouteKind::Http, "shop", "both", None) else { panic!() };
    let RouteRule::Http(mut rule) = (*rule).clone() else { panic!() };
    rule.parents.push(Parent::Listener(key("any")));
    rule.hostnames = vec![HostnameMatch::new("a.com")];
    rule.matches[0].path = PathMatch::Prefix(String::new());
    let mut changes: Vec<_> = by_scope(RouteRule::Http(rule)).into_iter().map(Change::Upsert).collect();
    changes.extend([service("cart", "10.96.0.1", &[(80, AppProtocol::Http)]), http("any", 80, None)]);
    let snapshot = Snapshot::default().apply(&changes);
    assert_eq!((answer(&snapshot, 80, "a.com"), answer(&snapshot, 80, "b.com")), ("any both".into(), "any 404".into()));
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
fn tcp_and_udp_of_one_port_are_two_places() {
    let of = |name: &str, protocol, kind| {
        let listener = Listener { kinds: vec![kind], ..listener_on(name, 53, None, protocol) };
        Change::Upsert(Resource::Listener(Arc::new(listener)))
    };
    let snapshot = Snapshot::default()
        .apply(&[of("tcp", ListenerProtocol::Tcp, RouteKind::Tcp), of("udp", ListenerProtocol::Udp, RouteKind::Udp)]);
    let mut at: Vec<_> = snapshot.gateway_ports().map(|it| (it.bind.to_string(), it.layer)).collect();
    at.sort();
    assert_eq!(at, [("*:53".to_owned(), PortLayer::Tcp), ("*:53/udp".to_owned(), PortLayer::Udp)]);
}

#[test]
fn a_listener_of_a_set_is_another_than_one_of_the_gateway_by_its_name() {
    let of_set = ListenerKey::of_set(key("l").gateway, ListenerSetKey::new("team", "set"), "l");
    let Change::Upsert(Resource::Listener(own)) = http("l", 80, Some("a.com")) else { panic!() };
    let second = Listener { key: of_set.clone(), hostname: Some(HostnameMatch::new("b.com")), ..(*own).clone() };
    let Change::Upsert(Resource::GatewayRule(rule)) = route("r", &["l"], &[]) else { panic!() };
    let rule = GatewayRule { rule: Arc::new(rule.rule.attached_to(vec![Parent::Listener(of_set)])), ..(*rule).clone() };
    let snapshot = Snapshot::default().apply(&[
        Change::Upsert(Resource::Listener(own)),
        Change::Upsert(Resource::Listener(Arc::new(second))),
        Change::Upsert(Resource::GatewayRule(Arc::new(rule))),
    ]);
    assert_eq!((answer(&snapshot, 80, "a.com"), answer(&snapshot, 80, "b.com")), ("l 404".into(), "l r".into()));
}

#[test]
fn how_backends_are_spoken_to_is_known_until_it_is_removed() {
    let port = ServicePortKey { service: ServiceKey::new("edge", "web"), port: port(443) };
    let tls = BackendTls {
        port: port.clone(),
        hostname: "web.example".into(),
        subject_alt_names: Vec::new(),
        trust: BackendTrust::System,
    };
    let key_of = key("any").gateway;
    let client_address = crate::gateway::ClientAddress::default();
    let config = GatewayConfig { key: key_of, client_certificate: None, client_address, answers_request_id: false };
    let all = [Resource::BackendTls(Arc::new(tls)), Resource::GatewayConfig(Arc::new(config))];
    let snapshot = Snapshot::default().apply(&all.clone().map(Change::Upsert));
    assert!(snapshot.backend_tls(&port).is_some() && snapshot.gateway_config(&key("any").gateway).is_some());
    assert!(all.iter().all(|resource| snapshot.resources().contains(resource)));
    let gone = snapshot.apply(&all.map(|resource| Change::Remove(resource.key())));
    assert!(gone.backend_tls(&port).is_none() && gone.gateway_config(&key("any").gateway).is_none());
}

#[test]
fn private_keys_are_in_no_copy_of_a_snapshot() {
    let certificate = Certificate {
        key: CertificateKey::new(key("any").gateway, SecretKey::new("edge", "c")),
        chain: b"chain".to_vec(),
        private_key: PrivateKey::new(*b"key"),
    };
    let listener = http("any", 80, None);
    let snapshot = Snapshot::default().apply(&[Change::Upsert(Resource::Certificate(Arc::new(certificate))), listener]);
    assert!(snapshot.certificate(&CertificateKey::new(key("any").gateway, SecretKey::new("edge", "c"))).is_some());
    let copy = snapshot.resources();
    assert!(copy.iter().any(|it| matches!(it, Resource::Listener(_))), "listeners are in it");
    assert!(!copy.iter().any(|it| matches!(it, Resource::Certificate(_))));
}

/// An edit compiles only what it touches, so whatever came before must not show in what comes out.
#[test]
fn whatever_the_edits_were_a_snapshot_is_the_one_of_what_is_there_now() {
    let listeners = ["a", "b"];
    let kinds = |name: &str, kinds: &[RouteKind], hostname: Option<&str>| {
        let listener = listener_on(name, 80, hostname, ListenerProtocol::Http);
        Change::Upsert(Resource::Listener(Arc::new(Listener { kinds: kinds.to_vec(), ..listener })))
    };
    let gone = |name: &str| {
        let rule = rule_key(RouteKind::Http, "shop", name);
        Change::Remove(ResourceKey::GatewayRule(GatewayRuleKey { gateway: key("a").gateway, rule }))
    };
    let steps = [
        vec![http("a", 80, Some("a.com")), http("b", 80, Some("b.com")), route("r", &["a", "b"], &["a.com", "b.com"])],
        vec![route("s", &["a"], &["a.com"]), route("s", &["b"], &["b.com"]), gone("r")],
        vec![route("r", &["a"], &[])],
        // The listener and its rules in one batch, in both orders.
        vec![gone("r"), http("a", 80, Some("a.com")), route("t", &["a"], &["a.com"])],
        vec![http("a", 80, Some("c.com")), route("t", &["a"], &["c.com"])],
        vec![kinds("a", &[RouteKind::Grpc], Some("c.com"))],
        vec![route("t", &["a"], &[]), kinds("a", &[RouteKind::Http], Some("c.com"))],
        vec![Change::Remove(ResourceKey::Listener(key("b"))), gone("s"), http("b", 80, Some("b.com"))],
        vec![route("s", &["b"], &["b.com"]), gone("s"), route("s", &["b"], &[]), gone("t")],
        vec![gone("s")],
    ];
    let (mut now, mut there) = (Snapshot::default(), Vec::<(ResourceKey, Change)>::new());
    for step in steps {
        now = now.apply(&step);
        for change in step {
            let (Change::Upsert(Resource::Listener(_) | Resource::GatewayRule(_)) | Change::Remove(_)) = &change else {
                panic!()
            };
            let of = match &change {
                Change::Upsert(resource) => resource.key(),
                Change::Remove(key) => key.clone(),
            };
            there.retain(|(key, _)| *key != of);
            if matches!(change, Change::Upsert(_)) {
                there.push((of, change));
            }
        }
        let fresh = Snapshot::default().apply(&there.iter().map(|(_, change)| change.clone()).collect::<Vec<_>>());
        for host in ["a.com", "b.com", "c.com", "d.com"] {
            assert_eq!(answer(&now, 80, host), answer(&fresh, 80, host), "{host} after {there:?}");
        }
        let without_routes = |snapshot: &Snapshot| {
            let found = listeners.map(|name| format!("{name}.com")).map(|host| {
                let port = snapshot.gateway_port(&bind(80)).unwrap();
                port.listeners.find(&host).is_some_and(|it| matches!(it.routes, RouteSet::None))
            });
            (found, snapshot.gateway_rules().count())
        };
        assert_eq!(without_routes(&now), without_routes(&fresh), "{there:?}");
    }
}
