//! Who clients are to a Gateway, and which of them its policies let in.

use weft_core::gateway::{ClientAddress, GatewayConfig};
use weft_core::ids::PolicyKey;
use weft_core::policy::{Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, Operation, Scope, Source};
use weft_core::service::{Balancing, HashKey, Service};

use super::*;

pub(super) fn config(client_address: ClientAddress, answers_request_id: bool) -> Change {
    let key = GatewayKey::new("edge", "gw");
    let config = GatewayConfig { key, client_certificate: None, client_address, answers_request_id };
    Change::Upsert(Resource::GatewayConfig(Arc::new(config)))
}

pub(super) fn one_hop() -> ClientAddress {
    ClientAddress { trusted_hops: Some(1), ..ClientAddress::default() }
}

fn policy(name: &str, action: Action, rules: Vec<AuthorizationRule>) -> Change {
    let key = PolicyKey::new("edge", name);
    let policy = AuthorizationPolicy { key, scope: Scope::Selected, action, dry_run: false, rules };
    Change::Upsert(Resource::Authorization(Arc::new(policy)))
}

fn from(net: &str) -> AuthorizationRule {
    let source = Source { addresses: vec![net.parse().unwrap()], ..Source::default() };
    AuthorizationRule { from: vec![source], to: Vec::new() }
}

fn to(operation: Operation) -> AuthorizationRule {
    AuthorizationRule { from: Vec::new(), to: vec![operation] }
}

/// A listener with policies.
fn guarded(listener: Change, policies: &[&str]) -> Change {
    let Change::Upsert(Resource::Listener(listener)) = listener else { unreachable!() };
    let policies = policies.iter().map(|name| PolicyKey::new("edge", *name)).collect();
    Change::Upsert(Resource::Listener(Arc::new(Listener { policies, ..(*listener).clone() })))
}

pub(super) fn by(request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    let mut request = request;
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

#[test]
fn an_endpoint_is_told_whom_a_believed_proxy_names_and_nobody_else() {
    for version in BOTH {
        on_worker(async move {
            let world = World::new(vec![http("any"), at(&["any"], rule(0, "", vec![backend("web")]))]);
            [1, 2].into_iter().for_each(|last| world.app(last, mirror_headers()));
            let mut client = world.connect_gateway(version, None).await;
            let ask = || by(by(get("a.com", "/"), "x-forwarded-for", "203.0.113.9"), "x-request-id", "theirs");
            let (_, headers, _) = client.ask(ask()).await;
            assert_eq!(
                (&headers["was-x-forwarded-for"], &headers["was-x-forwarded-port"]),
                (&"192.0.2.7".parse().unwrap(), &"80".parse().unwrap())
            );
            assert_eq!((headers["was-x-request-id"].len(), headers.get("x-request-id")), (36, None), "a new id");
            world.apply(&[config(one_hop(), true)]);
            let (_, headers, _) = client.ask(ask()).await;
            assert_eq!(headers["was-x-forwarded-for"], "203.0.113.9, 192.0.2.7", "{version:?}");
            assert_eq!(
                (&headers["was-x-request-id"], &headers["x-request-id"]),
                (&"theirs".parse().unwrap(), &"theirs".parse().unwrap())
            );
            let (status, headers, _) = client.ask(by(get("a.com", "/"), "x-request-id", "theirs")).await;
            assert_eq!((status, headers["x-request-id"].len()), (200, 36), "no proxy has named a client");
            let logged = world.logged();
            let sources: Vec<_> = logged.iter().map(|line| line["source_address"].as_str().unwrap()).collect();
            assert_eq!(sources, ["192.0.2.7:4000", "203.0.113.9:0", "192.0.2.7:4000"], "{version:?}");
            assert_eq!(logged[1]["request_id"], "theirs");
            assert_eq!(logged[2]["request_id"], headers["x-request-id"].to_str().unwrap());
        });
    }
}

#[test]
fn an_answer_of_the_gateways_own_carries_the_id_too() {
    on_worker(async {
        let world = World::new(vec![http("any"), config(ClientAddress::default(), true)]);
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        let (status, headers, _) = client.ask(get("a.com", "/")).await;
        assert_eq!((status, headers["x-request-id"].len()), (404, 36));
    });
}

#[test]
fn policies_judge_the_client_and_the_request() {
    for version in BOTH {
        on_worker(async move {
            let paths = Operation { paths: vec![GlobMatch::new("/admin*")], ..Operation::default() };
            let hosts = Operation { hosts: vec![GlobMatch::new("b.com")], ..Operation::default() };
            let world = World::new(vec![
                guarded(http("any"), &["no-admin", "some"]),
                http("free.com"),
                policy("no-admin", Action::Deny, vec![to(paths)]),
                policy("some", Action::Allow, vec![from("203.0.113.0/24"), to(hosts)]),
                at(&["any", "free.com"], rule(0, "", vec![backend("web")])),
                config(one_hop(), false),
            ]);
            [1, 2].into_iter().for_each(|last| world.app(last, echo()));
            let mut client = world.connect_gateway(version, None).await;
            for (host, path, behind, want) in [
                ("a.com", "/", "203.0.113.9", 200),
                ("a.com", "/", "198.51.100.1", 403),
                ("b.com", "/", "198.51.100.1", 200),
                ("b.com", "/admin", "198.51.100.1", 403),
                ("a.com", "/admin/x", "203.0.113.9", 403),
                ("a.com", "/x/../admin", "203.0.113.9", 403),
                ("free.com", "/admin", "198.51.100.1", 200),
            ] {
                let (status, _, _) = client.ask(by(get(host, path), "x-forwarded-for", behind)).await;
                assert_eq!(status, want, "{version:?} {host}{path} {behind}");
            }
            let logged = world.logged();
            let details: Vec<_> = logged.iter().map(|line| line["detail"].as_str().unwrap()).collect();
            let (none, admin) = ("no AuthorizationPolicy of action ALLOW matched", "AuthorizationPolicy edge/no-admin");
            assert_eq!(details, ["", none, "", admin, admin, admin, ""]);
            assert_eq!(logged[1]["reason"], "policy_denied");
            let denied = |policy: &str| {
                world.metric(
                    "weft_authorization_decisions_total",
                    &["decision=\"deny\"", &format!("policy=\"{policy}\"")],
                )
            };
            assert_eq!((denied("edge/no-admin"), denied("")), (Some(3.0), Some(1.0)));
        });
    }
}

#[test]
fn a_policy_that_is_on_its_way_is_waited_for_and_one_that_never_comes_denies() {
    on_worker(async {
        let world = World::new(vec![guarded(http("any"), &["late"]), at(&["any"], rule(0, "", vec![backend("web")]))]);
        [1, 2].into_iter().for_each(|last| world.app(last, echo()));
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        assert_eq!(client.ask(get("a.com", "/")).await.0, 403, "never");
        let arrives = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            world.apply(&[policy("late", Action::Allow, vec![from("192.0.2.0/24")])]);
        };
        let ((status, ..), ()) = tokio::join!(client.ask(get("a.com", "/")), arrives);
        assert_eq!(status, 200, "in time");
        // An edit holds for the next request of a connection that is open.
        world.apply(&[policy("late", Action::Allow, vec![from("198.51.100.0/24")])]);
        assert_eq!(client.ask(get("a.com", "/")).await.0, 403);
        world.apply(&[Change::Remove(weft_core::change::ResourceKey::Authorization(PolicyKey::new("edge", "late")))]);
        assert_eq!(client.ask(get("a.com", "/")).await.0, 403, "gone, and still listed");
        world.apply(&[guarded(http("any"), &[])]);
        assert_eq!(client.ask(get("a.com", "/")).await.0, 200);
    });
}

#[test]
fn endpoints_are_chosen_by_the_client_that_a_believed_proxy_names() {
    on_worker(async {
        let mut changes = service("web", AppProtocol::Http, &[1, 2]);
        let Change::Upsert(Resource::Service(service)) = &mut changes[0] else { unreachable!() };
        let balancing = Balancing::ConsistentHash(HashKey::ClientIp);
        *service = Arc::new(Service { balancing, ..(**service).clone() });
        changes.extend([http("any"), at(&["any"], rule(0, "", vec![backend("web")])), config(one_hop(), false)]);
        let world = World::new(changes);
        [1, 2].into_iter().for_each(|last| world.app(last, echo()));
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        let mut endpoints = std::collections::HashMap::<String, std::collections::HashSet<String>>::new();
        for _ in 0..3 {
            for last in 0..16 {
                let behind = format!("203.0.113.{last}");
                let mut request = get("a.com", "/");
                request.headers_mut().insert("x-forwarded-for", behind.parse().unwrap());
                let (_, headers, _) = client.ask(request).await;
                endpoints.entry(behind).or_default().insert(headers["x-endpoint"].to_str().unwrap().to_owned());
            }
        }
        assert!(endpoints.values().all(|of| of.len() == 1), "{endpoints:?}");
        let all: std::collections::HashSet<_> = endpoints.into_values().flatten().collect();
        assert_eq!(all.len(), 2, "not all by the address of the proxy");
    });
}
