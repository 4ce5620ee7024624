//! Bodies of which nothing is taken.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::Notify;

use super::super::stalled::MOST;
use super::world::*;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const HELD: u64 = MOST as u64;

/// Pieces of 16 KiB, one after the other.
fn pieces(count: usize) -> Body {
    let piece = Bytes::from(vec![7; 16 << 10]);
    let frames = futures::stream::iter((0..count).map(move |_| Ok(Frame::data(piece.clone()))));
    BodyExt::boxed(StreamBody::new(frames))
}

/// An application with more to say than anybody takes, but for `/short`: 100 KiB.
fn endless() -> App {
    Rc::new(|request, _| {
        let is_short = request.uri().path() == "/short";
        Box::pin(async move { Response::new(if is_short { full(vec![7; 100 << 10]) } else { pieces(1 << 20) }) })
    })
}

fn get() -> Request<Body> {
    Request::get("/").body(empty()).unwrap()
}

async fn a_while() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[test]
fn answers_that_nobody_takes_count_as_buffers_and_those_that_are_too_much_end() {
    for version in BOTH {
        on_worker(async {
            let world = World::new(vec![]);
            world.app(1, endless());
            world.app(2, endless());
            world.may_hold(2 * HELD + HELD / 2);
            let (mut one, mut other) = (world.connect(version).await, world.connect(version).await);
            let mut first = one.send(get()).await.unwrap();
            let second = other.send(get()).await.unwrap();
            a_while().await;
            assert_eq!(world.holds(), 2 * HELD, "{version:?}");

            let mut late = world.connect(version).await;
            let mut third = late.send(get()).await.unwrap();
            a_while().await;
            assert_eq!(world.holds(), 2 * HELD, "{version:?}");
            let ended = async {
                while third.frame().await.transpose()?.is_some() {}
                Ok::<_, hyper::Error>(())
            };
            assert!(ended.await.is_err(), "{version:?}: it was cut off");

            // The others go on, and count no more while they do.
            for _ in 0..100 {
                assert!(first.frame().await.unwrap().is_ok());
            }
            drop(second);
            drop(other);
            let end = tokio::time::Instant::now() + Duration::from_secs(5);
            while tokio::time::Instant::now() < end {
                assert!(first.frame().await.unwrap().is_ok());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(world.holds(), 0, "{version:?}");
        });
    }
}

#[test]
fn streams_of_one_connection_count_each_and_short_answers_for_what_is_left_of_them() {
    on_worker(async {
        let world = World::new(vec![]);
        world.app(1, endless());
        world.app(2, endless());
        let mut client = world.connect(Version::HTTP_2).await;
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(client.send(get()).await.unwrap());
        }
        a_while().await;
        assert_eq!(world.holds(), 5 * HELD);
        answers.clear();
        a_while().await;
        assert_eq!(world.holds(), 0);
        // Whole in its windows, it is nobody's burden.
        let _short = client.send(Request::get("/short").body(empty()).unwrap()).await.unwrap();
        a_while().await;
        assert!(world.holds() <= 100 << 10, "{}", world.holds());
    });
}

#[test]
fn requests_that_no_application_takes_count_and_waiting_for_the_next_piece_does_not() {
    for version in BOTH {
        on_worker(async {
            let world = World::new(vec![]);
            let go = Rc::<Notify>::default();
            let app = |go: &Rc<Notify>| -> App {
                let go = Rc::clone(go);
                Rc::new(move |request, _| {
                    let go = Rc::clone(&go);
                    Box::pin(async move {
                        go.notified().await;
                        let got = request.into_body().collect().await.unwrap().to_bytes();
                        Response::new(full(got.len().to_string()))
                    })
                })
            };
            world.app(1, app(&go));
            world.app(2, app(&go));
            let mut client = world.connect(version).await;
            // It pauses in the middle for longer than anything counts.
            let rest = futures::stream::once(async {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Ok(Frame::data(Bytes::from_static(b"!")))
            });
            let body = StreamBody::new(pieces(256).into_data_stream().map(|data| data.map(Frame::data)).chain(rest));
            let asking = tokio::task::spawn_local(async move {
                client.ask(Request::post("/").body(BodyExt::boxed(body)).unwrap()).await
            });
            a_while().await;
            assert_eq!(world.holds(), HELD, "{version:?}");
            go.notify_one();
            a_while().await;
            assert_eq!(world.holds(), 0, "{version:?}");
            assert_eq!(asking.await.unwrap().2, (256 * (16 << 10) + 1).to_string());
        });
    }
}
