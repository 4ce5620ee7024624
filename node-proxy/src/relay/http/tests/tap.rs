//! Requests of this worker, as whoever taps sees them.

use std::rc::Rc;

use http::{Response, Version};
use serde_json::json;
use weft_core::service::AppProtocol;
use weft_core::tap::{Line, Record, Tap};

use super::world::*;
use crate::tap::Subscription;

fn begin(world: &World, tap: serde_json::Value) -> Subscription {
    let tap: Tap = serde_json::from_value(tap).unwrap();
    tap.check().unwrap();
    world.engine.log.taps().begin(tap).unwrap()
}

async fn records(mut subscription: Subscription) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(line) = subscription.next().await {
        match line {
            Line::Seen(record) => records.push(*record),
            Line::Quiet | Line::End(_) => {}
            other => panic!("{other:?}"),
        }
    }
    records
}

#[test]
fn a_tap_sees_the_route_and_the_endpoint_and_another_filter_nothing() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        on_worker(async move {
            let mut changes = service("web", AppProtocol::Http, &[1]);
            changes.push(upsert(rule(2, "/cart", vec![backend("web")])));
            let world = World::new(changes);
            world.app(
                1,
                Rc::new(|request, _| {
                    let status = if request.uri().path() == "/cart/2" { 503 } else { 200 };
                    Box::pin(async move { Response::builder().status(status).body(empty()).unwrap() })
                }),
            );
            let mut client = world.connect(version).await;
            assert_eq!(client.get("/cart/before").await.0, 200, "nobody looks on");
            let here = begin(&world, json!({ "filter": { "service": "shop/web", "method": "GET" }, "seconds": 5 }));
            let other = begin(&world, json!({ "filter": { "service": "shop/web", "method": "POST" }, "seconds": 5 }));
            let failed = begin(&world, json!({ "filter": { "status": "failed" }, "seconds": 5, "query": true }));
            assert_eq!(client.get("/cart/1?card=4711").await.0, 200);
            assert_eq!(client.get("/cart/2?card=4711").await.0, 503);
            let (here, other, failed) = (records(here).await, records(other).await, records(failed).await);
            assert_eq!(other, []);
            assert_eq!(here.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["/cart/1", "/cart/2"]);
            let first = &here[0];
            assert_eq!(
                [
                    &*first.source_namespace,
                    &first.source_pod,
                    &first.service,
                    &first.route,
                    &first.rule,
                    &first.endpoint
                ],
                ["plain", "client", "shop/web:80", "HTTPRoute/shop/r", "2", "10.0.0.1:8080"]
            );
            assert_eq!(
                (first.status, &*first.reason, &*first.made_by, &*first.method),
                (200, "ok", "application", "GET")
            );
            assert!(!first.time.is_empty() && !format!("{first:?}").contains("4711"), "{first:?}");
            let [failure] = &failed[..] else { panic!("{failed:?}") };
            assert_eq!((&*failure.path, failure.status, &*failure.made_by), ("/cart/2?card=4711", 503, "application"));
        });
    }
}
