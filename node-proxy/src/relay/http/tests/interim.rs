//! Interim answers, bodies that wait for one, and bodies that don't come.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::spawn_local;
use tokio::time::Instant;
use weft_core::service::AppProtocol;

use super::world::*;

fn world() -> World {
    World::new(service("web", AppProtocol::Http, &[1]))
}

/// Reads until the end of a head, and what came with it.
async fn head(stream: &mut DuplexStream) -> String {
    let mut all = Vec::new();
    while !all.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("a head");
        all.push(byte[0]);
    }
    String::from_utf8(all).unwrap()
}

const EXPECTS: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";

#[test]
fn a_body_is_not_asked_for_before_the_endpoint_wants_it() {
    on_worker(async {
        let world = world();
        world.raw(
            1,
            Rc::new(|mut stream, _| {
                spawn_local(async move {
                    assert!(head(&mut stream).await.contains("expect: 100-continue"));
                    let early = tokio::time::timeout(Duration::from_millis(900), stream.read_u8()).await;
                    assert!(early.is_err(), "the body came unasked");
                    stream.write_all(b"HTTP/1.1 417 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    tokio::time::sleep(Duration::from_secs(5)).await;
                });
            }),
        );
        let mut client = world.connect_raw();
        client.write_all(EXPECTS.as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 417"), "no 100 before: {answer}");
    });
}

#[test]
fn a_body_goes_when_the_endpoint_says_100_or_nothing_for_a_second() {
    for says in [true, false] {
        on_worker(async {
            let world = world();
            world.raw(
                1,
                Rc::new(move |mut stream, _| {
                    spawn_local(async move {
                        head(&mut stream).await;
                        if says {
                            tokio::time::sleep(Duration::from_millis(300)).await;
                            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                        }
                        stream.read_exact(&mut [0; 4]).await.unwrap();
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    });
                }),
            );
            let started = Instant::now();
            let mut client = world.connect_raw();
            client.write_all(EXPECTS.as_bytes()).await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 100"));
            let waited = started.elapsed().as_millis();
            assert!(if says { 300..400 } else { 1000..1100 }.contains(&waited), "{waited}");
            client.write_all(b"body").await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 200"), "one 100 only");
        });
    }
}

#[test]
fn early_hints_reach_a_client_of_http_1_1_before_the_answer() {
    on_worker(async {
        let world = world();
        world.raw(
            1,
            Rc::new(|mut stream, _| {
                spawn_local(async move {
                    for n in 0.. {
                        if head(&mut stream).await.contains("/last") {
                            break;
                        }
                        let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: </{n}>\r\nconnection: x\r\n\r\n");
                        stream.write_all(hints.as_bytes()).await.unwrap();
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        let answer = format!("HTTP/1.1 200 OK\r\nx-n: {n}\r\ncontent-length: 2\r\n\r\nhi");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                    tokio::time::sleep(Duration::from_secs(5)).await;
                });
            }),
        );
        let mut client = world.connect_raw();
        for n in 0..3 {
            let started = Instant::now();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let hints = head(&mut client).await;
            assert_eq!(hints, format!("HTTP/1.1 103 Early Hints\r\nlink: </{n}>\r\n\r\n"));
            assert!(started.elapsed() < Duration::from_millis(500), "at once");
            let answer = head(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("x-n: {n}")), "{answer}");
            client.read_exact(&mut [0; 2]).await.unwrap();
        }
        client.write_all(b"GET /last HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 204"));
        // A client of HTTP/1.0 knows no interim answers.
        let mut old = world.connect_raw();
        old.write_all(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(head(&mut old).await.starts_with("HTTP/1.0 200"));
    });
}

#[test]
fn a_body_that_does_not_come_gets_408_and_the_endpoint_no_blame() {
    on_worker(async {
        let world = world();
        let broken = Rc::new(Cell::new(0));
        let counts = Rc::clone(&broken);
        world.raw(
            1,
            Rc::new(move |mut stream, _| {
                let counts = Rc::clone(&counts);
                spawn_local(async move {
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all).await;
                    counts.set(counts.get() + 1);
                });
            }),
        );
        // More than eject an endpoint.
        for _ in 0..6 {
            let started = Instant::now();
            let mut client = world.connect_raw();
            client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
            let took = started.elapsed().as_secs();
            assert!((300..=610).contains(&took), "{took}");
        }
        assert_eq!(broken.get(), 6, "the endpoint saw each break off");
        let ejections = world.metric("weft_endpoint_ejections_total", &[]);
        assert_eq!(ejections, None);
        // A stream of messages pauses as it likes.
        let started = Instant::now();
        let mut call = world.connect_raw();
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 9\r\n\r\nabc";
        call.write_all(head.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(2000), call.read_u8()).await;
        assert!(answer.is_err(), "still open after {:?}", started.elapsed());
    });
}
