//! What is decided about plaintext from the node's own address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::net::TcpStream;
use weft_core::authorize::HttpFacts;
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{PolicyKey, Port};
use weft_core::policy::*;
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::workload::{Enrolment, Owner, Probe, ProbeCall, Workload};

use super::super::{Granted, Inbound, ProbeFacts, Registry, inbound};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::inpod::{ListenerRole, Outgoing, PodNet};
use crate::store::Store;

/// Nothing is opened here.
#[derive(Debug)]
struct Nowhere;

impl PodNet for Nowhere {
    fn listen(&self, _role: ListenerRole) -> io::Result<Vec<std::net::TcpListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn original_destination(&self, _stream: &TcpStream) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn outgoing(&self, _source: Option<IpAddr>, _to: SocketAddr) -> io::Result<Outgoing> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

/// Declares an HTTP probe on 80, TCP on 81, TLS on 443, nothing elsewhere.
fn workload() -> Workload {
    let probe = |number, call| Probe { port: port(number), call };
    Workload {
        uid: "Kubernetes//Pod/shop/cart-1".into(),
        namespace: "shop".into(),
        name: "cart-1".into(),
        identity: SpiffeId::new(TrustDomain::default(), "shop", "cart"),
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        node: "n1".into(),
        zone: None,
        enrolment: Enrolment::Enrolled,
        owner: Owner { kind: "Pod".into(), name: "cart-1".into(), app: "cart".into(), version: String::new() },
        policies: Vec::new(),
        probes: vec![
            probe(80, ProbeCall::Http { target: "/healthz".into() }),
            probe(81, ProbeCall::Tcp),
            probe(443, ProbeCall::Https),
        ],
        network_policy: false,
        telemetry: Vec::new(),
    }
}

fn mode(mode: Mode) -> Change {
    Change::Upsert(Resource::MeshPolicy(Arc::new(MeshPolicy {
        key: PolicyKey::new("weft-system", "mode"),
        scope: Scope::Mesh,
        created_unix_seconds: 0,
        mode: Some(mode),
        port_modes: Vec::new(),
        enforced: false,
        limits: WorkloadLimits::default(),
    })))
}

fn policy(action: Action, rule: AuthorizationRule) -> Change {
    Change::Upsert(Resource::Authorization(Arc::new(AuthorizationPolicy {
        key: PolicyKey::new("shop", format!("{action:?}")),
        scope: Scope::Namespace("shop".into()),
        action,
        dry_run: false,
        rules: vec![rule],
    })))
}

/// Of a caller with an identity.
fn from_shop() -> AuthorizationRule {
    let source = Source { namespaces: vec![GlobMatch::new("shop")], ..Source::default() };
    AuthorizationRule { from: vec![source], to: Vec::new() }
}

fn from_node() -> AuthorizationRule {
    let source = Source { addresses: vec!["10.0.0.254/32".parse().unwrap()], ..Source::default() };
    AuthorizationRule { from: vec![source], to: Vec::new() }
}

/// Of a request to a path.
fn to_admin() -> AuthorizationRule {
    let operation = Operation { paths: vec![GlobMatch::new("/admin")], ..Operation::default() };
    AuthorizationRule { from: Vec::new(), to: vec![operation] }
}

fn call(identity: PeerIdentity, number: u16) -> Inbound {
    let pod = crate::plain::pod_of(workload(), Arc::new(Nowhere));
    let peer = Peer { identity, address: "10.0.0.254:4000".parse().unwrap() };
    Inbound { workload: Rc::new(LocalWorkload::new(pod)), peer, destination: SocketAddr::from(([10, 0, 0, 1], number)) }
}

fn store(changes: &[Change]) -> Store {
    let all = [&[Change::Upsert(Resource::Workload(Arc::new(workload())))], changes].concat();
    Store::new(Snapshot::default().apply(&all))
}

async fn outcome(store: &Store, identity: PeerIdentity, number: u16) -> &'static str {
    match inbound(store, &Registry::default(), call(identity, number)).await {
        Ok(Granted::Bytes(_)) => "bytes",
        Ok(Granted::Http(_)) => "requests",
        Ok(Granted::Probe(_)) => "probe",
        Err(reason) => reason.as_str(),
    }
}

#[tokio::test]
async fn the_nodes_address_is_worth_a_declared_probe_and_no_more() {
    use Mode::{Permissive, Strict, StrictAudit};
    let allow = || policy(Action::Allow, from_shop());
    // Ports: HTTP, TCP and TLS declared, nothing declared.
    for (what, changes, want) in [
        ("nothing said", vec![], ["bytes"; 4]),
        ("Permissive", vec![mode(Permissive)], ["bytes"; 4]),
        ("StrictAudit", vec![mode(StrictAudit)], ["bytes"; 4]),
        ("Strict", vec![mode(Strict)], ["probe", "probe", "probe", "plaintext_refused"]),
        ("an ALLOW for others", vec![allow()], ["probe", "probe", "probe", "policy_denied"]),
        ("both", vec![mode(Strict), allow()], ["probe", "probe", "probe", "plaintext_refused"]),
        ("denied", vec![policy(Action::Deny, from_node())], ["policy_denied"; 4]),
        (
            "denied and Strict",
            vec![mode(Strict), policy(Action::Deny, from_node())],
            ["policy_denied", "policy_denied", "policy_denied", "plaintext_refused"],
        ),
        ("allowed by address", vec![policy(Action::Allow, from_node())], ["bytes"; 4]),
        ("a policy on requests", vec![policy(Action::Deny, to_admin())], ["probe", "probe", "probe", "requests"]),
        (
            "a policy on requests, Strict",
            vec![mode(Strict), policy(Action::Deny, to_admin())],
            ["probe", "probe", "probe", "plaintext_refused"],
        ),
    ] {
        let store = store(&changes);
        let mut got = Vec::new();
        for number in [80, 81, 443, 8080] {
            got.push(outcome(&store, PeerIdentity::Node, number).await);
        }
        assert_eq!(got, want, "{what}");
    }
    // The same plaintext from elsewhere is nobody's.
    let strict = store(&[mode(Strict)]);
    for number in [80, 81, 443, 8080] {
        assert_eq!(outcome(&strict, PeerIdentity::Unidentified, number).await, "plaintext_refused");
    }
}

#[tokio::test]
async fn tls_is_taken_where_a_probe_over_tls_is_declared() {
    for (number, changes, want) in [
        (443, vec![mode(Mode::Strict)], Ok(())),
        (80, vec![mode(Mode::Strict)], Err(Reason::NotAProbe)),
        (81, vec![mode(Mode::Strict)], Err(Reason::NotAProbe)),
        (443, vec![mode(Mode::Strict), policy(Action::Allow, from_shop())], Ok(())),
        // What can't be seen can't be told from /admin.
        (443, vec![mode(Mode::Strict), policy(Action::Deny, to_admin())], Err(Reason::PolicyDenied)),
    ] {
        let store = store(&changes);
        let granted = inbound(&store, &Registry::default(), call(PeerIdentity::Node, number)).await;
        let Ok(Granted::Probe(permit)) = granted else { panic!("{number}: {granted:?}") };
        assert_eq!(permit.tls(&store).map(drop), want, "{number} {changes:?}");
    }
}

#[tokio::test]
async fn requests_are_parsed_where_one_of_them_may_pass() {
    for (number, changes, want) in [
        (80, vec![mode(Mode::Strict)], None),
        (81, vec![mode(Mode::Strict)], Some(Reason::NotAProbe)),
        (443, vec![mode(Mode::Strict)], Some(Reason::NotAProbe)),
        (81, vec![policy(Action::Allow, from_shop())], Some(Reason::NotAProbe)),
        (81, vec![policy(Action::Allow, to_admin())], None),
        (81, vec![mode(Mode::Strict), policy(Action::Allow, to_admin())], Some(Reason::NotAProbe)),
    ] {
        let store = store(&changes);
        let granted = inbound(&store, &Registry::default(), call(PeerIdentity::Node, number)).await;
        let Ok(Granted::Probe(permit)) = granted else { panic!("{number}: {granted:?}") };
        assert_eq!(permit.requests(&store).err(), want, "{number} {changes:?}");
    }
}

#[tokio::test]
async fn an_open_connection_loses_what_a_new_policy_would_not_give() {
    let registry = Registry::default();
    let open = store(&[]);
    let Ok(Granted::Bytes(bytes)) = inbound(&open, &registry, call(PeerIdentity::Node, 80)).await else { panic!() };
    let bytes = bytes.into_registration();
    open.apply(&[mode(Mode::Strict)]);
    registry.recheck_policy(&open).await;
    assert_eq!(bytes.revoked().now_or_never(), Some(Reason::PolicyRevoked), "its bytes aren't looked at");

    let Ok(Granted::Probe(permit)) = inbound(&open, &registry, call(PeerIdentity::Node, 443)).await else { panic!() };
    let tls = permit.tls(&open).unwrap().into_registration();
    let Ok(Granted::Probe(permit)) = inbound(&open, &registry, call(PeerIdentity::Node, 80)).await else { panic!() };
    registry.recheck_policy(&open).await;
    assert_eq!(tls.revoked().now_or_never(), None, "nothing has changed");
    let without = Workload { probes: Vec::new(), ..workload() };
    open.apply(&[Change::Upsert(Resource::Workload(Arc::new(without)))]);
    registry.recheck_policy(&open).await;
    assert_eq!(tls.revoked().now_or_never(), Some(Reason::PolicyRevoked));
    assert_eq!(permit.registration().revoked().now_or_never(), Some(Reason::PolicyRevoked));
}

/// A policy is removed, and its pod is told of that a moment later.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_what_its_policies_are() {
    let key = PolicyKey::new("shop", format!("{:?}", Action::Deny));
    let listed = Workload { policies: vec![key.clone()], ..workload() };
    let pod = |workload: Workload| Change::Upsert(Resource::Workload(Arc::new(workload)));
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    let request = HttpFacts { method: &method, host: "cart", path: "/", ambiguous_path: false, headers: &headers };
    for is_told in [true, false] {
        let store = store(&[policy(Action::Deny, to_admin()), pod(listed.clone())]);
        let granted = inbound(&store, &Registry::default(), call(PeerIdentity::Unidentified, 8080)).await;
        let Ok(Granted::Http(permit)) = granted else { panic!("{granted:?}") };
        let probe = ProbeFacts::default();
        assert!(permit.authorize(&store, request, &probe).await.is_ok());
        store.apply(&[Change::Remove(ResourceKey::Authorization(key.clone()))]);
        let mut asked = Box::pin(permit.authorize(&store, request, &probe));
        assert!(futures::poll!(&mut asked).is_pending(), "nobody knows yet");
        if is_told {
            store.apply(&[pod(workload())]);
        }
        let refused = asked.await.map(drop).err();
        assert_eq!(refused, (!is_told).then_some(Reason::PolicyDenied), "told: {is_told}");
    }
}
