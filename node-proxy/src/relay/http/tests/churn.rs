//! What comes and goes must leave nothing behind.

use http::{Request, Version};
use tokio::time::Duration;
use weft_core::change::{Change, ResourceKey};
use weft_core::ids::ServiceKey;
use weft_core::service::{AppProtocol, SliceKey};

use super::world::*;
use crate::telemetry::Alive;

#[test]
fn a_thousand_services_that_come_and_go_leave_nothing_behind() {
    on_worker(async {
        let world = World::new(vec![]);
        world.app(1, echo());
        let mut client = world.connect(Version::HTTP_11).await;
        let mut most = 0;
        for n in 0..1000 {
            let name = format!("s{n}");
            let mut changes = service(&name, AppProtocol::Http, &[1]);
            changes.push(upsert(rule(n, "/", vec![backend(&name)])));
            world.apply(&changes);
            assert_eq!(client.get("/").await.0, 200);
            let rule = rule(n, "/", Vec::new()).key;
            world.apply(&[
                Change::Remove(ResourceKey::Rule(rule)),
                Change::Remove(ResourceKey::EndpointSlice(SliceKey {
                    namespace: "shop".into(),
                    name: name.as_str().into(),
                })),
                Change::Remove(ResourceKey::Service(ServiceKey::new("shop", name.as_str()))),
            ]);
            if n % 10 == 0 {
                world.registry.retain(&Alive::of(&world.store.load(), [&**world.local()]));
                tokio::time::sleep(Duration::from_secs(61)).await;
            }
            most = most.max(world.engine.balancers.len()).max(world.registry.len());
        }
        assert!(most < 100, "grew to {most}");
        assert!(world.registry.len() < 60, "{}", world.registry.len());
    });
}

#[test]
fn nothing_is_kept_for_a_pod_that_left() {
    on_worker(async {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let world = World::new(vec![]);
            world.app(1, echo());
            world.app(2, echo());
            let mut client = world.connect(version).await;
            assert_eq!(client.get("/").await.0, 200);
            let kept = world.engine.pooled();
            assert_eq!(kept.0 + kept.1, 1);
            world.forget();
            assert_eq!(world.engine.pooled(), (0, 0));
        }
    });
}

#[test]
fn a_panic_in_a_request_ends_it_alone_and_is_counted() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        world.app(1, echo());
        let mut client = world.connect(Version::HTTP_2).await;
        assert_eq!(client.get("/").await.0, 200);
        world.apply(&service("web", AppProtocol::Http, &[PANICS]));
        let request = Request::get("/").body(empty()).unwrap();
        assert!(client.send(request).await.is_err());
        world.apply(&service("web", AppProtocol::Http, &[1]));
        assert_eq!(client.get("/").await.0, 200, "the connection goes on");
        assert_eq!(world.metric("weft_panics_total", &["workload=\"client\""]), Some(1.0));
    });
}

#[test]
fn gauges_and_ejections_are_told() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Http, &[1, 2, 3]));
        world.app(1, echo());
        world.app(2, echo());
        world.app(3, status(503));
        let mut client = world.connect(Version::HTTP_2).await;
        for _ in 0..30 {
            client.get("/").await;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        let metric =
            |name| world.registry.render().lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u32>().ok());
        assert_eq!(metric("weft_endpoints_ejected "), Some(1));
        assert_eq!(metric("weft_http2_upstream_connections "), Some(3));
        assert_eq!(metric("weft_http_downstream_connections "), Some(1));
        let ejected = world.metric("weft_endpoint_ejections_total", &["destination_service=\"web\""]);
        assert_eq!(ejected, Some(1.0));
        let open = ["connection_security=\"plaintext\"", "destination_workload=\"various\""];
        assert_eq!(world.metric("weft_tcp_connections", &open), Some(1.0), "as its requests go");
        drop(client);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.metric("weft_tcp_connections", &open), Some(0.0));
    });
}
