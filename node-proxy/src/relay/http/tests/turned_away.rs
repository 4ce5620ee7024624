//! Pods that go: requests that reached no application go to another endpoint, and those that can still be served are.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, Version};
use tokio::net::TcpListener;
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::service::AppProtocol;

use super::inbound::{Loopback, policy, workload};
use super::reasons::{meshed, says};
use super::world::*;
use crate::authorize::{Granted, Inbound, Registry, inbound};
use crate::identify::{LocalWorkload, Peer, PeerIdentity, Pod};
use crate::relay::front::HttpRelay;
use crate::relay::http::HttpFront;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const GONE: &[(&str, &str)] = &[("x-weft-reason", "unknown_destination"), ("x-weft-by", "destination shop/cart-1")];

/// Endpoint 1 is a pod of the mesh whose proxy, or application, says this; endpoint 2 serves.
fn beside_one_that_serves(headers: &'static [(&'static str, &'static str)]) -> World {
    let world = World::new(vec![meshed()]);
    world.app(1, says(503, headers));
    world.app(2, echo());
    world
}

/// The statuses of two requests, of which each endpoint would get one, and how often the second was tried at most.
async fn two(world: &World, version: Version, method: &Method, body: &'static str) -> (Vec<u16>, u64) {
    let mut client = world.connect(version).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let request = Request::builder().method(method).uri("/").body(full(body)).unwrap();
        statuses.push(client.ask(request).await.0);
    }
    statuses.sort_unstable();
    let tries = world.logged().iter().filter_map(|entry| entry["tries"].as_u64()).max();
    (statuses, tries.unwrap_or_default())
}

#[test]
fn what_reached_no_application_goes_to_another_endpoint_whatever_the_method() {
    for version in BOTH {
        on_worker(async move {
            for headers in [
                GONE,
                &[("x-weft-reason", "workload_gone"), ("x-weft-by", "destination shop/cart-1")],
                &[("x-weft-reason", "connect_failed"), ("x-weft-by", "destination shop/cart-1")],
            ] {
                for method in [Method::GET, Method::POST] {
                    let world = beside_one_that_serves(headers);
                    assert_eq!(two(&world, version, &method, "").await, (vec![200, 200], 2), "{method} {headers:?}");
                }
            }
        });
    }
}

#[test]
fn a_body_that_is_gone_is_not_made_up() {
    for version in BOTH {
        on_worker(async move {
            let world = beside_one_that_serves(GONE);
            assert_eq!(two(&world, version, &Method::POST, "body").await, (vec![200, 503], 1));
        });
    }
}

#[test]
fn what_an_application_may_have_seen_is_not_sent_again() {
    on_worker(async {
        for headers in [
            // Somebody else's proxy.
            &[("x-weft-reason", "unknown_destination"), ("x-weft-by", "destination shop/other")][..],
            &[("x-weft-reason", "unknown_destination"), ("x-weft-by", "source shop/cart-1")],
            &[("x-weft-reason", "unknown_destination")],
            // The application had it.
            &[("x-weft-reason", "upstream_reset"), ("x-weft-by", "destination shop/cart-1")],
            // Everybody would say the same.
            &[("x-weft-reason", "policy_denied"), ("x-weft-by", "destination shop/cart-1")],
            &[],
        ] {
            let world = beside_one_that_serves(headers);
            assert_eq!(two(&world, Version::HTTP_2, &Method::GET, "").await, (vec![200, 503], 1), "{headers:?}");
        }
        // An endpoint outside the mesh has no proxy.
        let world = World::new(Vec::new());
        world.app(1, says(503, GONE));
        world.app(2, echo());
        assert_eq!(two(&world, Version::HTTP_2, &Method::GET, "").await, (vec![200, 503], 1));
    });
}

#[test]
fn where_every_endpoint_is_gone_that_is_the_answer() {
    on_worker(async {
        let mut changes = service("web", AppProtocol::Http, &[1]);
        changes.push(meshed());
        let world = World::new(changes);
        world.app(1, says(503, GONE));
        let (status, headers, _) = world.connect(Version::HTTP_2).await.get("/").await;
        assert_eq!((status, headers["x-weft-reason"].to_str().unwrap()), (503, "unknown_destination"));
        assert_eq!(world.logged()[0]["tries"], 3);
    });
}

/// Of these endpoints of `web` the list names pods that nobody knows.
fn unknown(endpoints: &[u8], known: &[u8]) -> Vec<Change> {
    let mut changes = service("web", AppProtocol::Http, &[endpoints, known].concat());
    for change in &mut changes {
        let Change::Upsert(Resource::EndpointSlice(slice)) = change else { continue };
        for endpoint in &mut Arc::make_mut(slice).endpoints {
            if endpoints.iter().any(|last| address(*last).ip() == endpoint.address) {
                endpoint.workload = Some("Kubernetes//Pod/shop/gone".into());
            }
        }
    }
    changes
}

#[test]
fn endpoints_that_nobody_knows_any_more_are_passed_by() {
    on_worker(async {
        for _ in 0..4 {
            let world = World::new(unknown(&[1, 2, 3, 4, 5, 6, 7], &[8]));
            world.app(8, echo());
            let (status, headers, _) = world.connect(Version::HTTP_2).await.get("/").await;
            assert_eq!((status, headers.get("x-endpoint")), (200, Some(&"10.0.0.8".parse().unwrap())));
        }
        let world = World::new(unknown(&[1, 2, 3, 4, 5, 6, 7], &[]));
        assert_eq!(world.connect(Version::HTTP_2).await.get("/").await.0, 503);
        assert_eq!(world.net.dials.get(), 7 + 3, "each once, and no more than a few again");
    });
}

/// A connection of a client in the mesh to `pod`.
async fn connect(world: &World, registry: &Registry, app: SocketAddr, pod: &Arc<Pod>) -> Client {
    let identity = PeerIdentity::FirstHand(SpiffeId::new(TrustDomain::default(), "shop", "web"));
    let peer = Peer { identity, address: "127.0.0.1:4000".parse().unwrap() };
    let asked = Inbound { workload: Rc::new(LocalWorkload::new(Arc::clone(pod))), peer, destination: app };
    let Ok(Granted::Http(permit)) = inbound(&world.store, registry, asked).await else {
        panic!("the policy looks at requests")
    };
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let front = HttpFront(Rc::clone(&world.engine));
    tokio::task::spawn_local(front.inbound(Box::new(theirs), permit));
    Client::new(ours, Version::HTTP_2).await
}

#[test]
fn a_pod_that_the_api_server_has_forgotten_serves_to_its_end_under_the_policies_of_now() {
    // Real sockets, so a real clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let named = vec![Change::Upsert(Resource::Workload(Arc::new(workload()))), policy("GET")];
        let world = World::new(named);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve_app(stream, app, echo()));
            }
        });
        let registry = Registry::new(Rc::clone(&world.engine.observer));
        let remembered = crate::plain::pod_of(workload(), Arc::new(Loopback));
        let never_seen = crate::plain::pod_of(workload(), Arc::new(Loopback));
        remembered.remember(&world.store.load());
        let mut clients =
            [connect(&world, &registry, app, &remembered).await, connect(&world, &registry, app, &never_seen).await];
        for client in &mut clients {
            assert_eq!(client.get("/ok").await.0, 200);
        }
        world.apply(&[Change::Remove(ResourceKey::Workload(workload().uid))]);
        let [known, unknown] = &mut clients;
        let (status, headers, _) = unknown.get("/ok").await;
        assert_eq!((status, headers["x-weft-reason"].to_str().unwrap()), (503, "unknown_destination"));
        assert_eq!(known.get("/ok").await.0, 200, "its processes go on for a moment");
        let mut new = connect(&world, &registry, app, &remembered).await;
        assert_eq!(new.get("/ok").await.0, 200, "for new connections, too");
        assert_eq!(known.get("/secret").await.0, 403);
        world.apply(&[policy("POST")]);
        assert_eq!(known.get("/ok").await.0, 403, "policies are those of now");
    };
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
