//! Peers that don't play by the rules, against the server, and paths that break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "each test binary uses a part")]
mod common;

use std::rc::Rc;
use std::time::Duration;

use common::{Backend, CONNECTING_FOREVER, ECHO, PIPE, Port, run};
use http::{Method, Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_hbone::{OpenError, OpenRequest, ServeEnd, ServeReport, ServerLimits, Tunnel, TunnelLimits, serve_connection};

fn serve(limits: ServerLimits) -> (DuplexStream, JoinHandle<ServeReport>) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let handler = Rc::new(Port(Rc::new(Backend::default())));
    (ours, tokio::task::spawn_local(serve_connection(theirs, handler, limits, CancellationToken::new())))
}

type Sender = h2::client::SendRequest<bytes::Bytes>;

async fn raw_client(io: DuplexStream) -> (Sender, JoinHandle<Result<(), h2::Error>>) {
    let (send, connection) = h2::client::handshake(io).await.unwrap();
    (send.ready().await.unwrap(), tokio::task::spawn_local(connection))
}

fn connect_to(authority: &str) -> Request<()> {
    Request::builder().method(Method::CONNECT).uri(authority).version(Version::HTTP_2).body(()).unwrap()
}

#[test]
fn what_is_not_a_connect_to_an_address_is_a_bad_request() {
    run(async {
        let (io, _serving) = serve(ServerLimits::default());
        let (mut send, _connection) = raw_client(io).await;
        let get = Request::builder().uri("http://10.0.0.1:80/").version(Version::HTTP_2).body(()).unwrap();
        let bad = ["svc.ns.svc:80", "10.0.0.1:0", "10.0.0.1", "[::]:80", "0.0.0.0:80", "user@10.0.0.1:80"];
        for request in std::iter::once(get).chain(bad.map(connect_to)) {
            let what = format!("{request:?}");
            let (response, _body) = send.send_request(request, false).unwrap();
            assert_eq!(response.await.unwrap().status(), 400, "{what}");
        }
        let (response, _body) = send.send_request(connect_to("[2001:db8::1]:1"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn a_rapid_reset_in_one_flight_ends_the_connection() {
    run(async {
        let (io, serving) = serve(ServerLimits::default());
        let (mut send, connection) = raw_client(io).await;
        for _ in 0..100 {
            let Ok((_response, mut body)) = send.send_request(connect_to("10.0.0.1:6"), false) else { break };
            body.send_reset(h2::Reason::CANCEL);
            // One write per stream, all before the server runs.
        }
        let error = connection.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
        let report = serving.await.unwrap();
        assert_eq!(report.end.reason(), "protocol_limit", "{report:?}");
    });
}

#[test]
fn a_rapid_reset_slow_enough_to_be_accepted_ends_the_connection_too() {
    run(async {
        let (io, serving) = serve(ServerLimits::default());
        let (mut send, connection) = raw_client(io).await;
        let mut sent = 0;
        while sent < 1000 {
            let authority = format!("10.0.0.1:{CONNECTING_FOREVER}");
            let Ok((_response, mut body)) = send.send_request(connect_to(&authority), false) else { break };
            // The server has handed the stream to its handler by now.
            tokio::time::sleep(Duration::from_millis(1)).await;
            body.send_reset(h2::Reason::CANCEL);
            tokio::time::sleep(Duration::from_millis(1)).await;
            sent += 1;
        }
        assert!((200..300).contains(&sent), "stopped after {sent}");
        let error = connection.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
        assert_eq!(serving.await.unwrap().end, ServeEnd::TooManyResets);
    });
}

/// A client that writes frames itself, behind the preface and empty SETTINGS.
async fn by_hand() -> (DuplexStream, JoinHandle<ServeReport>) {
    let (mut io, serving) = serve(ServerLimits::default());
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    (io, serving)
}

#[test]
fn a_head_in_ever_more_frames_ends_the_connection() {
    run(async {
        let (mut io, serving) = by_hand().await;
        // HEADERS with `:method: CONNECT` as a literal, and then CONTINUATIONs with `x: y`; none ends the head.
        let mut sent = 0;
        let mut taken = io.write_all(b"\0\0\x11\x01\0\0\0\0\x01\0\x07:method\x07CONNECT").await.is_ok();
        while taken && sent < 1000 {
            taken = io.write_all(b"\0\0\x05\x09\0\0\0\0\x01\0\x01x\x01y").await.is_ok();
            sent += 1;
            tokio::task::yield_now().await;
        }
        assert!(sent < 20, "{sent}");
        assert_eq!(serving.await.unwrap().end.reason(), "protocol_limit");
    });
}

#[test]
fn a_head_that_is_large_once_it_is_unpacked_reaches_no_handler() {
    run(async {
        let (mut io, serving) = by_hand().await;
        // A field of 3 KiB to be remembered (RFC 7541, section 6.2.1), and that 12,000 times.
        let mut bomb = b"\0\x07:method\x07CONNECT\0\x0a:authority\x0d10.0.0.1:8080\x40\x01x\x7f\x81\x17".to_vec();
        bomb.extend([b'y'; 3072]);
        bomb.extend([0xbe; 12_000]);
        let mut frame = u32::try_from(bomb.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([1, 5, 0, 0, 0, 1]);
        io.write_all(&[frame, bomb].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        io.shutdown().await.unwrap();
        let report = serving.await.unwrap();
        assert_eq!((report.streams, report.panics), (0, 0), "{report:?}");
    });
}

#[test]
fn who_asks_for_acknowledgements_and_takes_none_is_stopped_and_then_let_go() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0whatever";
    const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff";
    run(async {
        for asking in [PING, SETTINGS] {
            let (mut io, serving) = by_hand().await;
            let (many, mut sent) = (asking.repeat(1000), 0);
            while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), io.write_all(&many)).await {
                sent += many.len();
                assert!(sent < 4 << 20, "it reads on, and holds what it has to say");
            }
            assert_eq!(serving.await.unwrap().end, ServeEnd::Unresponsive);
        }
    });
}

/// `:method: CONNECT` and an authority whose application never answers, as literals.
fn connect_by_hand(stream: u32) -> Vec<u8> {
    let mut head = b"\0\x07:method\x07CONNECT\0\x0a:authority\x0a10.0.0.1:6".to_vec();
    let mut frame = u32::try_from(head.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([1, 4]);
    frame.extend(stream.to_be_bytes());
    frame.append(&mut head);
    frame
}

/// A window that grows beyond its limit is an error of its stream (RFC 9113, section 6.9.1).
#[test]
fn who_has_us_reset_streams_is_let_go() {
    run(async {
        let (mut io, serving) = by_hand().await;
        let mut sent = 0;
        while sent < 1000 && !serving.is_finished() {
            let stream: u32 = 2 * sent + 1;
            let overflow = [&[0, 0, 4, 8, 0][..], &stream.to_be_bytes(), &[0x7f, 0xff, 0xff, 0xff]].concat();
            let _ = io.write_all(&connect_by_hand(stream)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _ = io.write_all(&overflow).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _ = tokio::time::timeout(Duration::ZERO, io.read(&mut [0; 4096])).await;
            sent += 1;
        }
        assert!((200..300).contains(&sent), "{sent}");
        assert_eq!(serving.await.unwrap().end, ServeEnd::TooManyResets);
    });
}

#[test]
fn clients_that_give_up_now_and_then_are_no_attack() {
    run(async {
        let (io, serving) = serve(ServerLimits::default());
        let (mut send, _connection) = raw_client(io).await;
        for _ in 0..1000 {
            let (_response, mut body) = send.send_request(connect_to("10.0.0.1:6"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(15)).await;
            body.send_reset(h2::Reason::CANCEL);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        assert!(!serving.is_finished());
    });
}

#[test]
fn a_peer_that_never_finishes_its_preface_is_dropped() {
    run(async {
        for prefix in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
            let (mut io, serving) = serve(ServerLimits::default());
            io.write_all(prefix).await.unwrap();
            let report = serving.await.unwrap();
            assert!(matches!(report.end, ServeEnd::HandshakeTimeout | ServeEnd::Protocol(_)), "{prefix:?} {report:?}");
        }
    });
}

#[test]
fn a_silent_path_is_noticed_by_both_ends() {
    run(async {
        // The server's peer reads nothing and answers no PING.
        let (mut io, serving) = serve(ServerLimits::default());
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        assert_eq!(serving.await.unwrap().end, ServeEnd::Unresponsive);
        // The client's peer swallows everything.
        let (ours, _theirs) = tokio::io::duplex(PIPE);
        let limits = TunnelLimits { open_timeout: Duration::from_secs(3600), ..TunnelLimits::default() };
        let closed = Rc::new(std::cell::Cell::new(false));
        let seen = Rc::clone(&closed);
        let tunnel = Tunnel::start(ours, limits, move || seen.set(true)).await.unwrap();
        let started = tokio::time::Instant::now();
        let error = tunnel.open(&OpenRequest::new("10.0.0.1:80".parse().unwrap())).await.unwrap_err();
        assert!(matches!(error, OpenError::Broken), "{error}");
        assert!(started.elapsed() <= limits.ping_interval + limits.ping_timeout + Duration::from_millis(10));
        assert!(closed.get());
    });
}

#[test]
fn random_bytes_end_a_connection_without_a_panic() {
    run(async {
        let mut state = 0x9E37_79B9_u32;
        for _ in 0..200 {
            let (mut io, serving) = serve(ServerLimits::default());
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
            for _ in 0..400 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Mostly small numbers, so that lengths and types make sense now and then.
                let byte = (state >> 24) as u8;
                bytes.push(if state & 0x30_000 == 0 { byte } else { byte & 7 });
            }
            io.write_all(&bytes).await.unwrap();
            io.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = io.read_to_end(&mut answer).await;
            assert_eq!(serving.await.expect("no panic").panics, 0);
        }
    });
}

#[test]
fn streams_beyond_the_limit_are_refused_for_a_retry() {
    run(async {
        let (io, _serving) = serve(ServerLimits { max_concurrent_streams: 5, ..ServerLimits::default() });
        // A client that ignores SETTINGS: opens more before it has seen them.
        let (send, connection) =
            h2::client::Builder::new().initial_max_send_streams(100).handshake::<_, bytes::Bytes>(io).await.unwrap();
        let mut send = send;
        let responses: Vec<_> =
            (0..10).map(|_| send.send_request(connect_to(&format!("10.0.0.1:{ECHO}")), false).unwrap()).collect();
        let _connection = tokio::task::spawn_local(connection);
        let mut refused = 0;
        for (response, body) in responses {
            match tokio::time::timeout(Duration::from_secs(1), response).await {
                Ok(Ok(response)) => {
                    assert_eq!(response.status(), 200);
                    std::mem::forget((response, body));
                }
                Ok(Err(error)) => {
                    assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
                    refused += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert_eq!(refused, 5);
    });
}
