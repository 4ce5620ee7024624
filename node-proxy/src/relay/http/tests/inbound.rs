//! Requests to a local pod whose policy looks at HTTP, up to a real socket of the application.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft_core::change::{Change, Resource};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::PolicyKey;
use weft_core::policy::*;
use weft_core::workload::{Enrolment, Owner, Workload};

use super::world::*;
use crate::authorize::{Granted, Inbound, Registry, inbound};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::inpod::{ListenerRole, Outgoing, PodNet};
use crate::relay::front::HttpRelay;
use crate::relay::http::{HttpFront, HttpSettings};
use crate::telemetry::LogPolicy;

/// The test's own namespace: an application on loopback.
#[derive(Debug)]
pub(super) struct Loopback;

impl PodNet for Loopback {
    fn listen(&self, _role: ListenerRole) -> io::Result<Vec<std::net::TcpListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn original_destination(&self, _stream: &TcpStream) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn outgoing(&self, _source: Option<IpAddr>, to: SocketAddr) -> io::Result<Outgoing> {
        Ok(Outgoing { socket: TcpSocket::new_v4()?, to })
    }
}

pub(super) fn workload() -> Workload {
    Workload {
        uid: "Kubernetes//Pod/shop/cart-1".into(),
        namespace: "shop".into(),
        name: "cart-1".into(),
        identity: SpiffeId::new(TrustDomain::default(), "shop", "cart"),
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
        node: "n1".into(),
        zone: None,
        enrolment: Enrolment::Enrolled,
        owner: Owner { kind: "Deployment".into(), name: "cart".into(), app: "cart".into(), version: String::new() },
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    }
}

/// Allows one method on `/ok`.
pub(super) fn policy(method: &str) -> Change {
    let operation =
        Operation { methods: vec![GlobMatch::new(method)], paths: vec![GlobMatch::new("/ok")], ..Operation::default() };
    Change::Upsert(Resource::Authorization(Arc::new(AuthorizationPolicy {
        key: PolicyKey::new("shop", "ok"),
        scope: Scope::Namespace("shop".into()),
        action: Action::Allow,
        dry_run: false,
        rules: vec![AuthorizationRule { from: Vec::new(), to: vec![operation] }],
    })))
}

/// Would deny everything.
fn dry_run() -> Change {
    Change::Upsert(Resource::Authorization(Arc::new(AuthorizationPolicy {
        key: PolicyKey::new("shop", "none"),
        scope: Scope::Namespace("shop".into()),
        action: Action::Deny,
        dry_run: true,
        rules: vec![AuthorizationRule::default()],
    })))
}

/// A client's connection to the pod, as the in-memory path brings it.
async fn connect(world: &World, registry: &Registry, app: SocketAddr, version: Version) -> Client {
    let identity = PeerIdentity::FirstHand(SpiffeId::new(TrustDomain::default(), "shop", "web"));
    Client::new(connect_as(world, registry, app, identity).await, version).await
}

/// The bytes of a connection of whoever it is.
pub(super) async fn connect_as(
    world: &World,
    registry: &Registry,
    app: SocketAddr,
    identity: PeerIdentity,
) -> DuplexStream {
    let pod = crate::plain::pod_of(workload(), Arc::new(Loopback));
    let peer = Peer { identity, address: "127.0.0.1:4000".parse().unwrap() };
    let asked = Inbound { workload: Rc::new(LocalWorkload::new(pod)), peer, destination: app };
    let Ok(Granted::Http(permit)) = inbound(&world.store, registry, asked).await else {
        panic!("the policy looks at requests")
    };
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let front = HttpFront(Rc::clone(&world.engine));
    tokio::task::spawn_local(front.inbound(Box::new(theirs), permit));
    ours
}

#[test]
fn each_request_is_authorized_as_it_will_be_forwarded_on_the_latest_policy() {
    // Real sockets, so a real clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let world =
                World::new(vec![Change::Upsert(Resource::Workload(Arc::new(workload()))), policy("GET"), dry_run()]);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let app = listener.local_addr().unwrap();
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve_app(stream, app, echo()));
                }
            });
            let registry = Registry::new(Rc::clone(&world.engine.observer));
            let mut client = connect(&world, &registry, app, version).await;
            assert_eq!(client.get("/ok").await.1["x-path"], "/ok");
            assert_eq!(client.get("/x/..//ok").await.1["x-path"], "/ok", "as forwarded");
            assert_eq!(client.get("/ok/../secret").await.0, 403);
            let post = || Request::post("/ok").body(full("x")).unwrap();
            let (status, _, body) = client.ask(post()).await;
            assert_eq!((status, &body[..]), (403, &b"policy_denied"[..]));
            let mut call = post();
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            assert_eq!(client.ask(call).await.1["grpc-status"], "7", "PERMISSION_DENIED");

            world.apply(&[policy("POST")]);
            assert_eq!(client.get("/ok").await.0, 403, "the open connection sees the new policy");
            assert_eq!(client.ask(post()).await.0, 200);

            let denied = [
                "reporter=\"destination\"",
                "connection_security=\"local\"",
                "reason=\"policy_denied\"",
                "4xx",
                "grpc_status=\"\"",
            ];
            assert_eq!(world.metric("weft_http_requests_total", &denied), Some(3.0));
            for (decision, policy, mode, times) in [
                ("allow", "shop/ok", "enforce", 3.0),
                ("deny", "", "enforce", 4.0),
                ("would_deny", "shop/none", "audit", 7.0),
            ] {
                let policy = format!("policy=\"{policy}\"");
                let needles = [&*policy, &format!("decision=\"{decision}\""), &format!("mode=\"{mode}\"")];
                assert_eq!(world.metric("weft_authorization_decisions_total", &needles), Some(times), "{needles:?}");
            }
            let log = world.logged();
            assert_eq!(log.len(), 7);
            assert_eq!(log[2]["source_identity"], "spiffe://cluster.local/ns/shop/sa/web");
            assert_eq!((log[2]["path"].as_str(), log[2]["status"].as_u64()), (Some("/secret"), Some(403)));
        }
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

#[test]
fn a_refusal_names_its_policy_and_an_application_cannot_speak_for_its_proxy() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let world = World::new(vec![Change::Upsert(Resource::Workload(Arc::new(workload()))), policy("GET")]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        let says: App = Rc::new(|_, _| {
            let answer = http::Response::builder().status(500).header("x-weft-by", "destination shop/cart-1");
            Box::pin(async move { answer.header("x-weft-reason", "policy_denied").body(empty()).unwrap() })
        });
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve_app(stream, app, Rc::clone(&says)));
            }
        });
        let registry = Registry::new(Rc::clone(&world.engine.observer));
        let mut client = connect(&world, &registry, app, Version::HTTP_11).await;
        let (status, headers, _) = client.get("/ok").await;
        assert_eq!(
            (status, headers.contains_key("x-weft-reason"), headers.contains_key("x-weft-by")),
            (500, false, false)
        );
        let found = world.records.find(Some(headers["x-request-id"].to_str().unwrap()), 1).remove(0);
        assert_eq!((found.reporter.as_str(), found.made_by.as_str()), ("destination", "application"));
        let (status, headers, _) = client.get("/secret").await;
        assert_eq!((status, headers["x-weft-reason"].as_bytes()), (403, &b"policy_denied"[..]));
        assert_eq!(headers["x-weft-by"], "destination shop/cart-1");
        let found = world.records.find(Some(headers["x-request-id"].to_str().unwrap()), 1).remove(0);
        assert_eq!(found.detail, "no AuthorizationPolicy of action ALLOW matched");
        assert_eq!(
            (found.object.as_str(), found.answered_by.as_str()),
            ("AuthorizationPolicies of shop/cart-1", "shop/cart-1")
        );
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

#[test]
fn whoever_calls_in_the_clear_hears_the_id_only() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let settings = HttpSettings { header_timeout: Duration::from_millis(50), ..HttpSettings::default() };
        let changes = vec![Change::Upsert(Resource::Workload(Arc::new(workload()))), policy("GET")];
        let world = World::with(changes, settings, LogPolicy::All);
        let registry = Registry::new(Rc::clone(&world.engine.observer));
        let app: SocketAddr = "127.0.0.1:9".parse().unwrap();
        for identity in [PeerIdentity::Unidentified, PeerIdentity::Node] {
            let stream = connect_as(&world, &registry, app, identity.clone()).await;
            let (status, headers, body) = Client::new(stream, Version::HTTP_11).await.get("/secret").await;
            let id = headers["x-request-id"].to_str().unwrap();
            assert_eq!((status, &body[..]), (403, format!("request {id}").as_bytes()), "{identity:?}");
            assert!(!headers.contains_key("x-weft-reason") && !headers.contains_key("x-weft-by"), "{headers:?}");
            let found = world.records.find(Some(id), 1).remove(0);
            assert_eq!((found.reason.as_str(), found.kept.as_str()), ("policy_denied", "refused"));

            let mut slow = connect_as(&world, &registry, app, identity).await;
            slow.write_all(b"GET / HTTP/1.1\r\nhost: a.com\r\n").await.unwrap();
            let mut answer = String::new();
            slow.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 ") && !answer.contains("x-weft-"), "{answer}");
        }
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}
