//! Requests from the node's own address to a Strict pod: its declared probes, and nothing else.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use tokio::net::TcpListener;
use weft_core::change::{Change, Resource};
use weft_core::ids::{PolicyKey, Port};
use weft_core::policy::*;
use weft_core::workload::{Probe, ProbeCall, Workload};

use super::inbound::{Loopback, workload};
use super::world::*;
use crate::authorize::{Granted, Inbound, Registry, inbound};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::relay::front::HttpRelay;
use crate::relay::http::HttpFront;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// An application on a port that the pod declares probes for.
async fn start() -> (World, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve_app(stream, app, echo()));
        }
    });
    let port = Port::new(app.port()).unwrap();
    let probes = vec![
        Probe { port, call: ProbeCall::Http { target: "/healthz?full=1".into() } },
        Probe { port, call: ProbeCall::Grpc { service: "cart".into() } },
    ];
    let strict = MeshPolicy {
        key: PolicyKey::new("weft-system", "strict"),
        scope: Scope::Mesh,
        created_unix_seconds: 0,
        mode: Some(Mode::Strict),
        port_modes: Vec::new(),
        enforced: false,
        limits: WorkloadLimits::default(),
    };
    let world = World::new(vec![
        Change::Upsert(Resource::Workload(Arc::new(Workload { probes, ..workload() }))),
        Change::Upsert(Resource::MeshPolicy(Arc::new(strict))),
    ]);
    (world, app)
}

/// A connection from the node.
async fn connect(world: &World, app: SocketAddr, version: Version) -> Client {
    let pod = crate::plain::pod_of(workload(), Arc::new(Loopback));
    let peer = Peer { identity: PeerIdentity::Node, address: "127.0.0.1:4000".parse().unwrap() };
    let asked = Inbound { workload: Rc::new(LocalWorkload::new(pod)), peer, destination: app };
    let registry = Registry::new(Rc::clone(&world.engine.observer));
    let Ok(Granted::Probe(permit)) = inbound(&world.store, &registry, asked).await else { panic!("it is Strict") };
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let front = HttpFront(Rc::clone(&world.engine));
    tokio::task::spawn_local(front.inbound(Box::new(theirs), permit.requests(&world.store).unwrap()));
    Client::new(ours, version).await
}

fn message(service: &str) -> Vec<u8> {
    let length = u8::try_from(service.len()).unwrap();
    [&[0, 0, 0, 0, length + 2, 0x0a, length], service.as_bytes()].concat()
}

fn check(path: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(path).header("content-type", "application/grpc").body(full(body)).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    // Real sockets, so a real clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

#[test]
fn a_declared_get_passes_and_anything_else_ends_the_connection() {
    run(async {
        let (world, app) = start().await;
        let mut client = connect(&world, app, Version::HTTP_11).await;
        for _ in 0..2 {
            let (status, headers, _) = client.get("/healthz?full=1").await;
            assert_eq!((status, headers["x-path"].as_bytes()), (200, &b"/healthz"[..]));
        }
        let others = [
            Request::get("/healthz"),
            Request::get("/admin"),
            Request::post("/healthz?full=1"),
            Request::get("/healthz?full=1").header("connection", "upgrade").header("upgrade", "websocket"),
        ];
        for other in others {
            let mut client = connect(&world, app, Version::HTTP_11).await;
            let (status, headers, body) = client.ask(other.body(empty()).unwrap()).await;
            assert_eq!((status, headers.get("x-path"), body.starts_with(b"request ")), (403, None, true));
            let again = Request::get("/healthz?full=1").body(empty()).unwrap();
            assert!(client.send(again).await.is_err(), "the connection has ended");
        }
        let mut client = connect(&world, app, Version::HTTP_11).await;
        let body = Request::get("/healthz?full=1").body(full("x")).unwrap();
        assert_eq!(client.ask(body).await.0, 403, "a probe has no body");
        let mut client = connect(&world, app, Version::HTTP_2).await;
        assert_eq!(client.get("/healthz?full=1").await.0, 403, "the kubelet speaks HTTP/1");
        let refused = ["connection_security=\"node\"", "reason=\"not_a_probe\""];
        assert_eq!(
            world.metric("weft_http_requests_total", &[&refused[..], &["protocol=\"http1\""]].concat()),
            Some(5.0)
        );
    });
}

#[test]
fn a_health_check_by_grpc_passes_for_its_service_only() {
    run(async {
        let (world, app) = start().await;
        let mut client = connect(&world, app, Version::HTTP_2).await;
        let (status, headers, body) = client.ask(check(CHECK, message("cart"))).await;
        assert_eq!((status, headers["x-path"].as_bytes(), &body[..]), (200, CHECK.as_bytes(), &message("cart")[..]));
        for (path, body) in [
            (CHECK, message("card")),
            (CHECK, Vec::new()),
            (CHECK, vec![0; 100_000]),
            ("/grpc.health.v1.Health/Watch", message("cart")),
            ("/shop.Cart/Empty", message("cart")),
        ] {
            let mut client = connect(&world, app, Version::HTTP_2).await;
            let (_, headers, _) = client.ask(check(path, body)).await;
            assert_eq!((headers["grpc-status"].as_bytes(), headers.get("x-path")), (&b"7"[..], None), "{path}");
            // Until GOAWAY arrives a declared one still passes.
            while client.send(check(CHECK, message("cart"))).await.is_ok() {}
        }
    });
}

#[test]
fn a_policy_that_denies_holds_for_probes_too() {
    run(async {
        let (world, app) = start().await;
        let mut client = connect(&world, app, Version::HTTP_11).await;
        assert_eq!(client.get("/healthz?full=1").await.0, 200);
        let operation = Operation { paths: vec![GlobMatch::new("/health*")], ..Operation::default() };
        world.apply(&[Change::Upsert(Resource::Authorization(Arc::new(AuthorizationPolicy {
            key: PolicyKey::new("shop", "no"),
            scope: Scope::Namespace("shop".into()),
            action: Action::Deny,
            dry_run: false,
            rules: vec![AuthorizationRule { from: Vec::new(), to: vec![operation] }],
        })))]);
        let (status, _, body) = client.get("/healthz?full=1").await;
        assert_eq!(
            (status, body.starts_with(b"request ")),
            (403, true),
            "whoever has the node's address isn't told why"
        );
    });
}
