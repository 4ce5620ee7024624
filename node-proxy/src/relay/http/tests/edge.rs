//! Bytes that a client may send to confuse one of two parsers, and limits.

use std::rc::Rc;
use std::time::Duration;

use http::{Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::world::*;

/// Sends bytes and reads until the proxy closes, or for ten (paused) seconds.
async fn exchange(world: &World, bytes: &[u8]) -> String {
    let mut client = world.connect_raw();
    client.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (name, request, expected) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n", "400"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", "400"),
        ("bad host", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", "400"),
        ("user info", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", "400"),
        ("absolute form, other host", "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n", "400"),
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", "400"),
        ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc", "400"),
        ("a signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", "400"),
        ("chunked in 1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("another coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("unknown coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", "400"),
        ("space before colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n", "400"),
        ("folded line", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n", "400"),
        ("nul in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", "400"),
        ("escaped control", "GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
        ("above the root", "GET /a/../../b HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
        ("connect", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", "400"),
    ] {
        on_worker(async {
            let world = World::new(vec![]);
            let answer = exchange(&world, request.as_bytes()).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {expected}")) || answer.starts_with("HTTP/1.0 400"),
                "{name}: {answer}"
            );
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{name}: nothing after it is read: {answer}");
            assert_eq!(world.net.dials.get(), 0, "{name}: nothing was forwarded");
        });
    }
}

/// Requests whose body has two lengths.
const TWO_LENGTHS: [&str; 4] = [
    "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "POST /b HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
    "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
];

#[test]
fn a_body_with_two_lengths_is_refused_whichever_request_of_a_connection_it_is() {
    const AFTER: &str = "GET /after HTTP/1.1\r\nhost: a\r\n\r\n";
    for before in [
        "",
        "GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\n",
    ] {
        for bad in TWO_LENGTHS {
            for at_once in [true, false] {
                on_worker(async {
                    let world = World::new(service_one());
                    world.app(1, echo());
                    let mut client = world.connect_raw();
                    client.write_all(before.as_bytes()).await.unwrap();
                    if !at_once {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                    client.write_all(format!("{bad}{AFTER}").as_bytes()).await.unwrap();
                    let mut answer = String::new();
                    client.read_to_string(&mut answer).await.expect("closed by the proxy");
                    assert_eq!(answer.matches("x-path: /a").count(), usize::from(!before.is_empty()), "{answer}");
                    assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{before} {bad} {answer}");
                    assert!(!answer.contains("/after") && !answer.contains("/b"), "{bad}: {answer}");
                    assert_eq!(world.net.dials.get(), u32::from(!before.is_empty()), "{bad}");
                });
            }
        }
    }
}

/// Why the proxy looks itself: the codec takes three of the four for good, as the RFC allows.
#[test]
fn what_the_codec_itself_makes_of_two_lengths() {
    const EXPECTED: [(u16, usize, bool); 4] = [(200, 2, true), (200, 2, true), (200, 2, false), (400, 0, true)];
    for (request, (status, body, closes)) in TWO_LENGTHS.into_iter().zip(EXPECTED) {
        on_worker(async {
            use http_body_util::BodyExt;
            let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(Response::new(full(body.len().to_string())))
            });
            let io = hyper_util::rt::TokioIo::new(theirs);
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
            let connection = tokio::task::spawn_local(connection);
            ours.write_all(request.as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let read = ours.read(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(status == 400 || answer.ends_with(&format!("\r\n\r\n{body}")), "{request}: {answer}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(connection.is_finished(), closes, "{request}: {answer}");
        });
    }
}

#[test]
fn pipelined_requests_and_http_1_0_are_answered_in_order() {
    on_worker(async {
        let world = World::new(service_one());
        world.app(1, echo());
        let two = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = exchange(&world, two.as_bytes()).await;
        assert!(answer.find("x-path: /1").unwrap() < answer.find("x-path: /2").unwrap(), "{answer}");
        let answer = exchange(&world, b"GET /old HTTP/1.0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("x-path: /old"), "{answer}");
        let answer = exchange(&world, b"HEAD /h HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
        let expect =
            "POST /e HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\nhi";
        let answer = exchange(&world, expect.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
        assert!(answer.contains("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
    });
}

fn service_one() -> Vec<weft_core::change::Change> {
    service("web", weft_core::service::AppProtocol::Http, &[1])
}

#[test]
fn heads_over_the_limit_get_431() {
    on_worker(async {
        let world = World::new(vec![]);
        let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(61 * 1024));
        assert!(exchange(&world, large.as_bytes()).await.starts_with("HTTP/1.1 431"));
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: 1\r\n".repeat(101));
        assert!(exchange(&world, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    });
}

#[test]
fn a_slow_head_and_an_idle_connection_end_but_a_slow_answer_does_not() {
    on_worker(async {
        let world = World::new(service_one());
        world.app(
            1,
            Rc::new(|_, _| {
                Box::pin(async {
                    tokio::time::sleep(Duration::from_secs(3000)).await;
                    Response::new(full("late"))
                })
            }),
        );
        let started = Instant::now();
        let mut slow = world.connect_raw();
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let took = started.elapsed().as_secs();
        assert!((30..40).contains(&took), "{took}");

        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(&client.get("/").await.2[..], b"late");

        let started = Instant::now();
        let mut idle = world.connect_raw();
        assert_eq!(idle.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        let took = started.elapsed().as_secs();
        assert!((3600..3610).contains(&took), "{took}");
    });
}

#[test]
fn requests_that_a_client_gave_up_keep_no_connection_open() {
    on_worker(async {
        let world = World::new(service_one());
        world.app(1, Rc::new(|_, _| Box::pin(std::future::pending())));
        let mut client = world.connect(Version::HTTP_2).await;
        for _ in 0..3 {
            // Dropped before the answer, it is reset.
            let asked = tokio::time::timeout(Duration::from_secs(5), client.get("/")).await;
            assert!(asked.is_err());
        }
        tokio::time::sleep(Duration::from_secs(3500)).await;
        assert_eq!(world.engine.connections(), 1);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(world.engine.connections(), 0, "it is idle");
    });
}

#[test]
fn a_quiet_h2_connection_stays_while_it_is_pinged_but_a_slow_header_block_ends_it() {
    on_worker(async {
        let world = World::new(service_one());
        world.app(1, echo());
        let mut client = world.connect_raw();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut pinged = 0;
        for _ in 0..10 {
            client.write_all(b"\0\0\x08\x06\0\0\0\0\0whatever").await.unwrap();
            pinged += count_pongs(&mut client).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        assert_eq!(pinged, 10);
        let started = Instant::now();
        // HEADERS without END_HEADERS, and never a CONTINUATION.
        client.write_all(b"\0\0\x01\x01\x01\0\0\0\x01\x82").await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        let took = started.elapsed().as_secs();
        assert!((30..40).contains(&took), "{took}");
    });
}

/// Reads until an answer to our PING; answers the proxy's.
async fn count_pongs(client: &mut tokio::io::DuplexStream) -> u32 {
    loop {
        let mut header = [0; 9];
        client.read_exact(&mut header).await.expect("the connection stays");
        let mut payload = vec![0; usize::from(u16::from_be_bytes([header[1], header[2]]))];
        client.read_exact(&mut payload).await.unwrap();
        match (header[3], header[4]) {
            (6, 1) if payload == b"whatever" => return 1,
            (6, 0) => {
                header[4] = 1;
                client.write_all(&[&header[..], &payload].concat()).await.unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn half_a_preface_is_a_slow_head() {
    on_worker(async {
        let world = World::new(vec![]);
        let started = Instant::now();
        let mut client = world.connect_raw();
        client.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        let took = started.elapsed().as_secs();
        assert!((30..40).contains(&took), "{took}");
    });
}

#[test]
fn a_drain_finishes_what_is_under_way_and_takes_no_more() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        on_worker(async {
            let world = World::new(service_one());
            world.app(
                1,
                Rc::new(|_, _| {
                    Box::pin(async {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        Response::new(full("done"))
                    })
                }),
            );
            let mut client = world.connect(version).await;
            let (answer, ()) = tokio::join!(client.get("/"), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                world.engine.drain();
            });
            assert_eq!(&answer.2[..], b"done");
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(world.engine.connections(), 0, "{version:?}");
        });
    }
}

#[test]
fn an_idle_client_gets_one_more_answer_from_a_draining_worker() {
    on_worker(async {
        let world = World::new(service_one());
        world.app(1, Rc::new(|_, _| Box::pin(async { Response::new(full("done")) })));
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(&client.get("/").await.2[..], b"done");
        world.engine.drain();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (status, headers, body) = client.get("/").await;
        assert_eq!((status, &body[..]), (200, &b"done"[..]));
        assert_eq!(headers.get("connection").map(|v| v.as_bytes()), Some(&b"close"[..]));
        // Another that asks for nothing more is ended after a while.
        let _silent = world.connect_raw();
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(world.engine.connections(), 0);
    });
}
