//! A rule's `retry`: what is tried again, how often, when, where, and what it says of itself; and the budget of retries.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use weft_core::change::{Change, Resource};
use weft_core::route::*;
use weft_core::service::{AppProtocol, Service};
use weft_core::traffic::{BackendTraffic, RetryConstraint};

use super::world::*;

fn retry(attempts: u32, codes: &[u16]) -> Retry {
    let codes = codes.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect();
    Retry { attempts, backoff: Duration::from_millis(100), codes }
}

/// A rule of `web`, whose endpoints are these.
fn web(endpoints: &[u8], retry: Option<Retry>, timeouts: Timeouts) -> Vec<Change> {
    let mut changes = service("web", AppProtocol::Http, endpoints);
    changes.push(upsert(HttpRule { timeouts, retry, ..rule(0, "/", vec![backend("web")]) }));
    changes
}

/// When which endpoint was asked.
type Asked = Rc<RefCell<Vec<(Instant, u8)>>>;

/// Endpoints that answer with these codes, one after the other, the last of them for ever.
fn scripted(world: &World, endpoints: &[u8], codes: &[u16]) -> Asked {
    let asked = Asked::default();
    for last in endpoints {
        let (asked, codes, last) = (Rc::clone(&asked), codes.to_vec(), *last);
        world.app(
            last,
            Rc::new(move |request, address| {
                let nth = asked.borrow().len();
                asked.borrow_mut().push((Instant::now(), last));
                let code = codes[nth.min(codes.len() - 1)];
                if code == 200 { echo()(request, address) } else { status(code)(request, address) }
            }),
        );
    }
    asked
}

fn tries(world: &World) -> (u64, String) {
    let entry = world.logged().pop().unwrap();
    (entry["tries"].as_u64().unwrap(), entry["reason"].as_str().unwrap().to_owned())
}

#[test]
fn listed_codes_are_tried_again_as_often_as_the_rule_says() {
    for (codes, attempts, listed, want, asked_times) in [
        (&[503, 200][..], 1, &[503][..], 200, 2),
        (&[500, 502, 200], 3, &[500, 502], 200, 3),
        // When it's over, the last answer stands.
        (&[503, 503, 500, 200], 2, &[503, 500], 500, 3),
        // Codes that aren't listed are the application's business.
        (&[500, 200], 3, &[503], 500, 1),
        (&[429, 200], 1, &[429], 200, 2),
        (&[503, 200], 3, &[], 503, 1),
    ] {
        on_worker(async move {
            let world = World::new(web(&[1], Some(retry(attempts, listed)), Timeouts::default()));
            let asked = scripted(&world, &[1], codes);
            let mut client = world.connect(Version::HTTP_11).await;
            assert_eq!(client.get("/").await.0, want, "{codes:?}");
            assert_eq!(asked.borrow().len(), asked_times, "{codes:?}");
            assert_eq!(tries(&world), (asked_times as u64, "ok".into()));
            let counted = world.metric("weft_http_retries_total", &["route=\"HTTPRoute/shop/r\""]);
            assert_eq!(counted.unwrap_or_default() as usize, asked_times - 1);
        });
    }
}

#[test]
fn every_attempt_goes_to_another_endpoint_while_there_is_one() {
    on_worker(async {
        let world = World::new(web(&[1, 2, 3, 4], Some(retry(3, &[503])), Timeouts::default()));
        let asked = scripted(&world, &[1, 2, 3, 4], &[503]);
        for _ in 0..4 {
            asked.borrow_mut().clear();
            let mut client = world.connect(Version::HTTP_2).await;
            assert_eq!(client.get("/").await.0, 503);
            let mut endpoints: Vec<_> = asked.borrow().iter().map(|(_, last)| *last).collect();
            endpoints.sort_unstable();
            assert_eq!(endpoints, [1, 2, 3, 4]);
        }
    });
}

#[test]
fn the_pause_between_two_attempts_is_the_backoff_and_doubles() {
    on_worker(async {
        let world = World::new(web(&[1, 2], Some(retry(3, &[503])), Timeouts::default()));
        let asked = scripted(&world, &[1, 2], &[503]);
        world.connect(Version::HTTP_11).await.get("/").await;
        let times: Vec<_> = asked.borrow().iter().map(|(at, _)| *at).collect();
        let pauses: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
        assert_eq!(pauses.len(), 3);
        for (pause, least) in pauses.into_iter().zip([100, 200, 400]) {
            assert!((least..=least * 5 / 4 + 5).contains(&pause), "{pause} ms, not {least}");
        }
    });
}

#[test]
fn a_refused_connection_is_tried_again_until_the_attempts_are_over() {
    on_worker(async {
        // One endpoint, which comes up while we try.
        let world = World::new(web(&[1], Some(retry(3, &[])), Timeouts::default()));
        scripted(&world, &[1], &[200]);
        world.down(1, true);
        let mut client = world.connect(Version::HTTP_11).await;
        let request = client.ask(Request::post("/").body(full("once")).unwrap());
        let up = async {
            tokio::time::sleep(Duration::from_millis(250)).await;
            world.down(1, false);
        };
        let ((status, _, body), ()) = futures::join!(request, up);
        assert_eq!((status, &body[..]), (200, &b"once"[..]));
        // Refused at once, after 100 ms; up before the next.
        assert_eq!(tries(&world), (3, "ok".into()));
        world.down(1, true);
        world.forget();
        let started = Instant::now();
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.get("/").await.0, 503);
        let took = started.elapsed().as_millis();
        assert!((700..=900).contains(&took), "{took} ms");
        assert_eq!(tries(&world), (4, "connect_failed".into()));
    });
}

#[test]
fn without_a_retry_a_refused_connection_is_tried_elsewhere_and_nothing_more() {
    on_worker(async {
        let world = World::new(web(&[1, 2], None, Timeouts::default()));
        world.down(1, true);
        world.down(2, true);
        let started = Instant::now();
        assert_eq!(world.connect(Version::HTTP_11).await.get("/").await.0, 503);
        assert_eq!((started.elapsed(), world.net.dials.get()), (Duration::ZERO, 3));
        assert_eq!(tries(&world), (0, "connect_failed".into()));
    });
}

/// Reads a request with a body of four bytes, as far as it comes; `None`: the connection ended before.
async fn read_request(stream: &mut DuplexStream) -> Option<String> {
    let mut text = Vec::new();
    let mut buf = [0; 1024];
    loop {
        let n = stream.read(&mut buf).await.ok().filter(|n| *n > 0)?;
        text.extend_from_slice(&buf[..n]);
        let so_far = String::from_utf8_lossy(&text);
        let whole = so_far.split_once("\r\n\r\n");
        if whole.is_some_and(|(head, body)| head.starts_with("GET") || body.len() >= 4) {
            return Some(so_far.into_owned());
        }
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// An endpoint that does this with each request of all its connections, in turn: `None` ends the connection.
fn endpoint(world: &World, last: u8, script: Vec<Option<&'static [u8]>>) -> Rc<RefCell<Vec<String>>> {
    let seen = Rc::<RefCell<Vec<String>>>::default();
    let (of_app, next) = (Rc::clone(&seen), Rc::new(Cell::new(0)));
    world.raw(
        last,
        Rc::new(move |mut stream, _| {
            let (seen, next, script) = (Rc::clone(&of_app), Rc::clone(&next), script.clone());
            tokio::task::spawn_local(async move {
                while let Some(request) = read_request(&mut stream).await {
                    seen.borrow_mut().push(request);
                    let step = script.get(next.get()).copied().flatten();
                    next.set(next.get() + 1);
                    match step {
                        Some(answer) => stream.write_all(answer).await.unwrap(),
                        None => return,
                    }
                }
            });
        }),
    );
    seen
}

#[test]
fn a_request_whose_connection_breaks_is_tried_again_also_if_it_is_not_idempotent() {
    on_worker(async {
        // A rule that asks for retries asks for them for all requests (GEP-1731).
        let world = World::new(web(&[1], Some(retry(1, &[])), Timeouts::default()));
        let seen = endpoint(&world, 1, vec![None, Some(OK), None, None]);
        let post = || Request::post("/").body(full("paid")).unwrap();
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.ask(post()).await.0, 200);
        assert_eq!(seen.borrow().len(), 2);
        assert!(seen.borrow().iter().all(|request| request.ends_with("\r\n\r\npaid")), "{seen:?}");
        assert_eq!(tries(&world), (2, "ok".into()));
        world.forget();
        assert_eq!(world.connect(Version::HTTP_11).await.ask(post()).await.0, 502, "once, and no more");
        assert_eq!(tries(&world), (2, "upstream_reset".into()));
    });
    on_worker(async {
        let world = World::new(web(&[1], None, Timeouts::default()));
        let seen = endpoint(&world, 1, vec![None, Some(OK)]);
        let post = Request::post("/").body(full("paid")).unwrap();
        assert_eq!(world.connect(Version::HTTP_11).await.ask(post).await.0, 502, "not without the rule");
        assert_eq!(seen.borrow().len(), 1);
    });
}

#[test]
fn a_kept_connection_that_was_closed_costs_no_attempt() {
    on_worker(async {
        let world = World::new(web(&[1], Some(retry(1, &[503])), Timeouts::default()));
        // The second request finds the connection of the first closed; on a fresh one the endpoint is busy once.
        let seen = endpoint(&world, 1, vec![Some(OK), None, Some(BUSY), Some(OK)]);
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.get("/").await.0, 200);
        assert_eq!(client.get("/").await.0, 200);
        assert_eq!(seen.borrow().len(), 4);
        assert_eq!(tries(&world), (3, "ok".into()), "what was sent is told all the same");
    });
}

#[test]
fn every_attempt_has_its_own_time_and_all_together_the_requests() {
    let hang = || -> App { Rc::new(|_, _| Box::pin(std::future::pending::<Response<Body>>())) };
    let limit = |ms| Some(Duration::from_millis(ms));
    for (request, one, attempts, took, reason, tried) in [
        (None, limit(500), 2, 1800..1950, "backend_timeout", 3),
        // In the third attempt: 500 + 100 + 500 + 200 + what is left.
        (limit(1500), limit(500), 9, 1500..1503, "request_timeout", 3),
        // In the pause before the second attempt.
        (limit(550), limit(500), 9, 550..553, "request_timeout", 1),
    ] {
        on_worker(async move {
            let timeouts = Timeouts { request, backend_request: one };
            let world = World::new(web(&[1, 2], Some(retry(attempts, &[])), timeouts));
            world.app(1, hang());
            world.app(2, hang());
            let started = Instant::now();
            assert_eq!(world.connect(Version::HTTP_11).await.get("/").await.0, 504);
            let ms = started.elapsed().as_millis();
            assert!(took.contains(&ms), "{reason}: {ms} ms");
            assert_eq!(tries(&world), (tried, reason.into()));
        });
    }
}

#[test]
fn the_time_of_an_attempt_covers_the_body_of_its_answer() {
    // "to when the full response has been received from the backend" (`timeouts.backendRequest`).
    for (request, reason) in [(None, "backend_timeout"), (Some(Duration::from_millis(300)), "request_timeout")] {
        on_worker(async move {
            let timeouts = Timeouts { request, backend_request: Some(Duration::from_millis(500)) };
            let world = World::new(web(&[1], None, timeouts));
            world.app(
                1,
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
            let mut client = world.connect(Version::HTTP_11).await;
            let started = Instant::now();
            let response = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap();
            assert!(response.into_body().collect().await.is_err(), "a cut answer must not look whole");
            let late = started.elapsed() - request.unwrap_or(Duration::from_millis(500));
            assert!(late <= Duration::from_millis(2), "{late:?}");
            assert_eq!(tries(&world), (1, reason.into()));
        });
    }
}

/// `web` with a budget: a share, and so many in a second whatever the share.
fn with_budget(percent: u8, min_retries: u32, attempts: u32) -> Vec<Change> {
    let (interval, min_interval) = (Duration::from_secs(10), Duration::from_secs(1));
    let constraint = RetryConstraint { percent, interval, min_retries, min_interval };
    let traffic = Some(Box::new(BackendTraffic { retry: Some(constraint), session: None }));
    let changes = web(&[1, 2], Some(retry(attempts, &[503])), Timeouts::default());
    let budgeted = |change| match change {
        Change::Upsert(Resource::Service(service)) => {
            Change::Upsert(Resource::Service(Arc::new(Service { traffic: traffic.clone(), ..(*service).clone() })))
        }
        other => other,
    };
    changes.into_iter().map(budgeted).collect()
}

#[test]
fn retries_beyond_the_budget_are_answered_503() {
    on_worker(async {
        let world = World::new(with_budget(0, 2, 3));
        let asked = scripted(&world, &[1, 2], &[503]);
        let mut client = world.connect(Version::HTTP_11).await;
        // Two of the three attempts are paid for.
        let (status, _, body) = client.get("/").await;
        assert_eq!((status, &body[..], asked.borrow().len()), (503, &b"retry_budget"[..], 3));
        assert_eq!(tries(&world), (3, "retry_budget".into()));
        assert_eq!(client.get("/").await.2, "retry_budget");
        assert_eq!(asked.borrow().len(), 4, "asked once, and not again");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        asked.borrow_mut().clear();
        client.get("/").await;
        assert_eq!(asked.borrow().len(), 3, "another second");
    });
}

#[test]
fn other_requests_pay_for_retries() {
    on_worker(async {
        let world = World::new(with_budget(20, 0, 1));
        let failing = Rc::new(Cell::new(false));
        let asked = Rc::new(Cell::new(0));
        for last in [1, 2] {
            let (failing, asked) = (Rc::clone(&failing), Rc::clone(&asked));
            world.app(
                last,
                Rc::new(move |request, address| {
                    asked.set(asked.get() + 1);
                    if failing.get() { status(503)(request, address) } else { echo()(request, address) }
                }),
            );
        }
        let mut client = world.connect(Version::HTTP_11).await;
        for _ in 0..8 {
            assert_eq!(client.get("/").await.0, 200);
        }
        failing.set(true);
        asked.set(0);
        for _ in 0..6 {
            assert_eq!(client.get("/").await.0, 503);
        }
        // Of 8 + 6 requests and the retries themselves a fifth: three.
        assert_eq!(asked.get(), 6 + 3);
        let (told, budget): (Vec<_>, Vec<_>) = world
            .logged()
            .into_iter()
            .skip(8)
            .map(|entry| entry["reason"].as_str().unwrap().to_owned())
            .partition(|reason| reason == "ok");
        assert_eq!((told.len(), budget.len()), (3, 3), "the application's own answer, or ours");
        let counted = world.metric("weft_http_requests_total", &["reason=\"retry_budget\""]);
        assert_eq!(counted, Some(3.0));
    });
}

#[test]
fn what_is_no_retry_of_the_rule_costs_no_budget() {
    on_worker(async {
        let world = World::new(with_budget(0, 0, 1));
        scripted(&world, &[2], &[200]);
        world.down(1, true);
        let mut client = world.connect(Version::HTTP_11).await;
        for _ in 0..4 {
            assert_eq!(client.get("/").await.0, 200, "elsewhere, because nothing was sent");
        }
    });
}
