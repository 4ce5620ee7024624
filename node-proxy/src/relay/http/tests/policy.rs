//! Timeouts, retries, mirrors, ejection: what the rule and the endpoints' health decide.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::time::Instant;
use weft_core::change::{Change, Resource};
use weft_core::route::*;
use weft_core::service::{AppProtocol, Balancing, HashKey, Service};

use super::world::*;

fn hang() -> App {
    Rc::new(|_, _| Box::pin(std::future::pending::<Response<Body>>()))
}

fn timeouts(request: u64, backend_request: u64) -> Timeouts {
    let limit = |ms| (ms > 0).then(|| Duration::from_millis(ms));
    Timeouts { request: limit(request), backend_request: limit(backend_request) }
}

fn retry(attempts: u32, codes: &[u16]) -> Option<Retry> {
    let codes = codes.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect();
    Some(Retry { attempts, backoff: Duration::from_millis(100), codes })
}

fn web(timeouts: Timeouts, retry: Option<Retry>) -> Vec<weft_core::change::Change> {
    vec![upsert(HttpRule { timeouts, retry, ..rule(0, "/", vec![backend("web")]) })]
}

#[test]
fn time_runs_out_with_504_and_a_reason() {
    for (limits, tries, least, reason) in [
        (timeouts(2000, 0), None, 2000, "request_timeout"),
        (timeouts(0, 500), None, 500, "backend_timeout"),
        (timeouts(0, 500), retry(2, &[]), 1500, "backend_timeout"),
        (timeouts(1200, 500), retry(9, &[]), 1200, "request_timeout"),
    ] {
        on_worker(async {
            let world = World::new(web(limits, tries));
            world.app(1, hang());
            world.app(2, hang());
            let mut client = world.connect(Version::HTTP_11).await;
            let started = Instant::now();
            assert_eq!(client.get("/").await.0, 504);
            let took = started.elapsed().as_millis();
            assert!((least..least + 500).contains(&took), "{reason}: {took} ms");
            assert_eq!(world.logged()[0]["reason"], reason);
        });
    }
}

#[test]
fn the_time_of_the_request_covers_the_body_of_the_answer() {
    on_worker(async {
        let world = World::new(web(timeouts(1000, 0), None));
        for last in [1, 2] {
            world.app(
                last,
                Rc::new(|_, _| {
                    Box::pin(async {
                        let (mut sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
                        tokio::task::spawn_local(async move {
                            sender.send_data("x".into()).await.unwrap();
                            std::future::pending::<()>().await;
                        });
                        Response::new(body.map_err(|never| match never {}).boxed())
                    })
                }),
            );
        }
        let mut client = world.connect(Version::HTTP_11).await;
        let started = Instant::now();
        let response = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "a cut answer must not look whole");
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(world.logged()[0]["reason"], "request_timeout");
    });
}

#[test]
fn a_retry_goes_elsewhere_with_the_same_body() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        on_worker(async {
            let world = World::new(web(Timeouts::default(), retry(1, &[503])));
            world.app(1, status(503));
            world.app(2, echo());
            let mut client = world.connect(version).await;
            for _ in 0..10 {
                let (status, headers, body) = client.ask(Request::post("/").body(full("payload")).unwrap()).await;
                assert_eq!((status, &body[..]), (200, &b"payload"[..]));
                assert_eq!(headers["x-endpoint"], "10.0.0.2");
            }
            assert!(world.metric("weft_http_retries_total", &[]).unwrap() >= 4.0);
        });
    }
}

#[test]
fn a_retry_avoids_the_endpoint_that_failed_even_if_the_hash_says_it() {
    on_worker(async {
        let mut changes = web(Timeouts::default(), retry(1, &[503]));
        for change in service("web", AppProtocol::Http, &[1, 2]) {
            changes.push(match change {
                Change::Upsert(Resource::Service(plain)) => {
                    let balancing = Balancing::ConsistentHash(HashKey::ClientIp);
                    Change::Upsert(Resource::Service(Arc::new(Service { balancing, ..(*plain).clone() })))
                }
                other => other,
            });
        }
        let world = World::new(changes);
        let failed = Rc::new(RefCell::new(None));
        for last in [1, 2] {
            let failed = Rc::clone(&failed);
            world.app(
                last,
                Rc::new(move |request, address| {
                    // Only the first request of all fails, so that asking the same endpoint again would work.
                    if failed.borrow().is_none() {
                        *failed.borrow_mut() = Some(address.ip().to_string());
                        return status(503)(request, address);
                    }
                    echo()(request, address)
                }),
            );
        }
        let (code, headers, _) = world.connect(Version::HTTP_11).await.get("/").await;
        assert_eq!(code, 200);
        assert_ne!(headers["x-endpoint"].to_str().ok(), failed.borrow().as_deref());
    });
}

#[test]
fn a_body_larger_than_the_buffer_is_not_sent_twice() {
    on_worker(async {
        let world = World::new(web(Timeouts::default(), retry(3, &[503])));
        let requests = Rc::new(Cell::new(0));
        for last in [1, 2] {
            let requests = Rc::clone(&requests);
            world.app(
                last,
                Rc::new(move |request, _| {
                    requests.set(requests.get() + 1);
                    Box::pin(async {
                        drop(request.into_body().collect().await);
                        Response::builder().status(503).body(empty()).unwrap()
                    })
                }),
            );
        }
        let mut client = world.connect(Version::HTTP_11).await;
        let big = Bytes::from(vec![1; super::super::replay::REPLAY_LIMIT + 1]);
        assert_eq!(client.ask(Request::post("/").body(full(big)).unwrap()).await.0, 503);
        assert_eq!(requests.get(), 1);
        let fits = Bytes::from(vec![1; super::super::replay::REPLAY_LIMIT]);
        assert_eq!(client.ask(Request::post("/").body(full(fits)).unwrap()).await.0, 503);
        assert_eq!(requests.get(), 1 + 4);
    });
}

#[test]
fn a_request_that_was_never_sent_goes_to_another_endpoint_without_a_retry_policy() {
    on_worker(async {
        let world = World::new(vec![]);
        world.app(2, echo());
        world.down(1, true);
        let mut client = world.connect(Version::HTTP_11).await;
        for _ in 0..20 {
            let (status, _, body) = client.ask(Request::post("/").body(full("once")).unwrap()).await;
            assert_eq!((status, &body[..]), (200, &b"once"[..]));
        }
        world.down(2, true);
        let mut other = world.connect(Version::HTTP_2).await;
        assert_eq!(other.get("/").await.0, 503);
        assert_eq!(world.logged().last().unwrap()["reason"], "connect_failed");
    });
}

#[test]
fn a_post_that_was_lost_is_not_sent_again() {
    on_worker(async {
        let world = World::new(vec![]);
        let requests = Rc::new(Cell::new(0));
        for last in [1, 2] {
            let requests = Rc::clone(&requests);
            world.raw(
                last,
                Rc::new(move |mut stream, _| {
                    let requests = Rc::clone(&requests);
                    tokio::task::spawn_local(async move {
                        use tokio::io::AsyncReadExt;
                        let mut buf = [0; 4096];
                        if stream.read(&mut buf).await.unwrap() > 0 {
                            requests.set(requests.get() + 1);
                        }
                    });
                }),
            );
        }
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.ask(Request::post("/").body(full("pay")).unwrap()).await.0, 502);
        assert_eq!(requests.get(), 1);
        assert_eq!(world.logged()[0]["reason"], "upstream_reset");
    });
}

#[test]
fn an_endpoint_that_keeps_failing_is_left_out() {
    on_worker(async {
        let world = World::new(vec![]);
        world.app(1, status(500));
        world.app(2, echo());
        let mut client = world.connect(Version::HTTP_11).await;
        let mut failed = 0;
        for _ in 0..50 {
            failed += u32::from(client.get("/").await.0 == 500);
        }
        assert_eq!(failed, 5, "five in a row eject it");
    });
}

#[test]
fn a_mirror_gets_the_request_and_never_slows_the_original() {
    on_worker(async {
        let mirror = HttpFilter::Mirror(Mirror {
            backend: BackendTarget::Service(key("other")),
            fraction: Fraction { numerator: 1, denominator: 1.try_into().unwrap() },
        });
        let changes = vec![upsert(HttpRule { filters: vec![mirror], ..rule(0, "/", vec![backend("web")]) })];
        let world = World::new(changes);
        world.app(1, echo());
        world.app(2, echo());
        let mirrored = Rc::new(RefCell::new(Vec::new()));
        world.app(3, {
            let mirrored = Rc::clone(&mirrored);
            Rc::new(move |request, _| {
                let mirrored = Rc::clone(&mirrored);
                Box::pin(async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    mirrored.borrow_mut().push(body);
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Response::builder().status(500).body(empty()).unwrap()
                })
            })
        });
        let mut client = world.connect(Version::HTTP_11).await;
        let started = Instant::now();
        assert_eq!(client.ask(Request::post("/").body(full("copy")).unwrap()).await.0, 200);
        assert!(started.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(*mirrored.borrow(), [Bytes::from("copy")]);
        assert_eq!(world.metric("weft_http_mirrored_requests_total", &["result=\"answered\""]), Some(1.0));
        assert_eq!(world.logged().len(), 1, "a copy is nobody's request");
    });
}

#[test]
fn an_http1_client_reaches_an_endpoint_that_speaks_only_http2() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::H2c, &[1]));
        world.app(
            1,
            Rc::new(|request, _| {
                Box::pin(async move {
                    assert_eq!(request.version(), Version::HTTP_2);
                    assert_eq!(request.uri().authority().unwrap(), "web.shop");
                    Response::new(full("h2"))
                })
            }),
        );
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(&client.get("/").await.2[..], b"h2");
    });
}
