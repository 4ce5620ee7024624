//! Frames that no honest client sends (RFC 9113).

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};

use super::super::gateway::{at, http};
use super::super::world::*;
use super::{noting, noting_app, record};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
/// 431 in the Huffman code of HPACK, or without it, behind its length.
const TOO_LARGE: [&[u8]; 2] = [b"\x83\x69\x90\xff", b"\x03431"];

/// A client that writes frames itself.
struct Attacker(DuplexStream);

/// Kind, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as literals that nobody is to remember (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

fn request(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    block(&[&usual, more].concat())
}

impl Attacker {
    async fn new(mut stream: DuplexStream) -> Self {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut this = Self(stream);
        assert!(this.send(&frame(SETTINGS, 0, 0, b"")).await);
        this
    }

    /// Whether it was taken.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None`: the connection is over, or silent for a while.
    async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some((head[3], head[4], stream, payload))
        };
        timeout(Duration::from_secs(1), read).await.ok().flatten()
    }

    /// All that comes.
    async fn rest(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            all.push(frame);
        }
        all
    }
}

fn calmed(frames: &[Frame]) -> bool {
    frames.iter().any(|(kind, _, _, payload)| *kind == GOAWAY && payload[4..8] == ENHANCE_YOUR_CALM)
}

/// A Gateway in front of Service `web`, whose endpoints do this.
fn gateway(app: &App) -> World {
    let world = World::new(vec![http("any"), at(&["any"], rule(0, "", vec![backend("web")]))]);
    [1, 2].into_iter().for_each(|last| world.app(last, Rc::clone(app)));
    world
}

fn never() -> App {
    Rc::new(|_, _| Box::pin(std::future::pending()))
}

#[test]
fn a_rapid_reset_in_one_flight_ends_the_connection() {
    on_worker(async {
        let world = gateway(&never());
        let mut attacker = Attacker::new(world.connect_gateway_raw(None)).await;
        let flight: Vec<u8> = (0..200)
            .flat_map(|n| {
                let stream = 2 * n + 1;
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(&[])), frame(RST_STREAM, 0, stream, &CANCEL)]
            })
            .flatten()
            .collect();
        assert!(attacker.send(&flight).await);
        assert!(calmed(&attacker.rest().await));
        assert!(world.net.dials.get() < 50, "{}", world.net.dials.get());
        assert_eq!(world.engine.connections(), 0);
    });
}

/// Begins requests and gives each up a millisecond later, until it is let go: how many.
async fn reset_slowly(stream: DuplexStream, most: u32, end: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut attacker = Attacker::new(stream).await;
    let mut sent = 0;
    while sent < most {
        let stream = 2 * sent + 1;
        if !attacker.send(&frame(HEADERS, END_HEADERS, stream, &request(&[]))).await {
            break;
        }
        sleep(Duration::from_millis(1)).await;
        if !attacker.send(&end(stream)).await {
            break;
        }
        sleep(Duration::from_millis(1)).await;
        // What comes is taken, so that nothing waits for that.
        let mut read = [0; 4096];
        let _ = timeout(Duration::ZERO, attacker.0.read(&mut read)).await;
        sent += 1;
    }
    sent
}

fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL)
}

#[test]
fn a_rapid_reset_slow_enough_to_be_handed_out_ends_the_connection_too() {
    on_worker(async {
        let world = gateway(&never());
        let sent = reset_slowly(world.connect_gateway_raw(None), 1000, cancel).await;
        assert!((200..300).contains(&sent), "{sent}");
        assert_eq!(world.engine.connections(), 0);
        // A pod of the mesh is known; what it does shows under its name.
        assert_eq!(reset_slowly(world.connect_raw(), 1000, cancel).await, 1000);
    });
}

#[test]
fn clients_that_give_up_now_and_then_and_those_that_get_answers_are_no_attack() {
    on_worker(async {
        let world = gateway(&never());
        let mut client = Attacker::new(world.connect_gateway_raw(None)).await;
        for n in 0..1000 {
            assert!(client.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &request(&[]))).await);
            sleep(Duration::from_millis(30)).await;
            assert!(client.send(&cancel(2 * n + 1)).await, "{n}");
            let mut read = [0; 4096];
            let _ = timeout(Duration::ZERO, client.0.read(&mut read)).await;
        }
        let world = gateway(&echo());
        let mut client = world.connect_gateway(http::Version::HTTP_2, None).await;
        for _ in 0..1000 {
            let ask = http::Request::get("/").header("host", "a").body(empty()).unwrap();
            assert_eq!(client.ask(ask).await.0, 200);
        }
    });
}

#[test]
fn who_has_us_reset_requests_is_let_go() {
    on_worker(async {
        let world = gateway(&never());
        // A window that grows beyond its limit is an error of its stream (RFC 9113, section 6.9.1).
        let overflow = |stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
        let sent = reset_slowly(world.connect_gateway_raw(None), 1000, overflow).await;
        assert!((50..300).contains(&sent), "{sent}");
        assert_eq!(world.engine.connections(), 0);
    });
}

#[test]
fn a_head_in_ever_more_frames_ends_the_connection() {
    on_worker(async {
        let world = gateway(&never());
        let mut attacker = Attacker::new(world.connect_gateway_raw(None)).await;
        assert!(attacker.send(&frame(HEADERS, END_STREAM, 1, &request(&[]))).await);
        let mut sent = 0;
        while sent < 1000 && attacker.send(&frame(CONTINUATION, 0, 1, &block(&[("x", "y")]))).await {
            sent += 1;
            tokio::task::yield_now().await;
        }
        assert!(sent < 20, "{sent}");
        assert!(calmed(&attacker.rest().await));
        assert_eq!(world.net.dials.get(), 0);
    });
}

#[test]
fn a_head_that_is_large_once_it_is_unpacked_is_refused() {
    for (times, ends) in [(25, false), (12_000, true)] {
        on_worker(async {
            let world = gateway(&echo());
            let mut attacker = Attacker::new(world.connect_gateway_raw(None)).await;
            let mut bomb = request(&[]);
            // A field of 3 KiB to be remembered (RFC 7541, section 6.2.1; the length as of section 5.1), and that again and again.
            bomb.extend([0x40, 1, b'x', 0x7f, 0x81, 0x17]);
            bomb.extend([b'y'; 3072]);
            bomb.resize(bomb.len() + times, 0xbe);
            assert!(attacker.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await);
            let answer = attacker.rest().await;
            let refused = |(kind, _, stream, payload): &Frame| {
                let says = |code: &&[u8]| payload.windows(code.len()).any(|at| at == *code);
                *kind == HEADERS && *stream == 1 && TOO_LARGE.iter().any(says)
            };
            assert!(if ends { calmed(&answer) } else { answer.iter().any(refused) }, "{times}: {answer:x?}");
            assert_eq!(world.net.dials.get(), 0);
        });
    }
}

#[test]
fn who_asks_for_acknowledgements_and_takes_none_is_stopped_and_then_let_go() {
    for asking in [frame(PING, 0, 0, b"whatever"), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])] {
        on_worker(async {
            let world = gateway(&never());
            let mut attacker = Attacker::new(world.connect_gateway_raw(None)).await;
            let many = asking.repeat(1000);
            let mut sent = 0;
            while let Ok(true) = timeout(Duration::from_secs(1), attacker.send(&many)).await {
                sent += many.len();
                assert!(sent < 4 << 20, "it reads on, and holds what it has to say");
            }
            assert_eq!(world.engine.connections(), 1);
            sleep(Duration::from_secs(90)).await;
            assert_eq!(world.engine.connections(), 0, "stopped after {sent} bytes");
        });
    }
}

#[test]
fn fields_that_would_be_more_in_http_1_never_get_there() {
    let lies: [&[(&str, &str)]; 20] = [
        &[("x", "y\r\nhidden: 1")],
        &[("x", "y\nhidden: 1")],
        &[("x", "y\rhidden: 1")],
        &[("x", "y\0")],
        &[("x: y\r\nhidden", "1")],
        &[("x y", "1")],
        &[("x:", "1")],
        &[("X", "1")],
        &[("", "1")],
        &[("transfer-encoding", "chunked")],
        &[("connection", "x-a")],
        &[("connection", "upgrade"), ("upgrade", "websocket")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "keep-alive")],
        &[("te", "gzip")],
        &[("host", "b")],
        &[("host", "a"), ("host", "a")],
        &[("content-length", "1"), ("content-length", "2")],
        &[("content-length", "5")],
        &[("content-length", "+0")],
    ];
    let whole = |pseudo: [&str; 4], more: &[(&str, &str)]| {
        let names = [":method", ":scheme", ":authority", ":path"];
        let fields: Vec<_> = names.into_iter().zip(pseudo).chain(more.iter().copied()).collect();
        block(&fields)
    };
    let mut heads: Vec<Vec<u8>> = lies.iter().map(|more| whole(["GET", "http", "a", "/"], more)).collect();
    for pseudo in [
        ["GET / HTTP/1.1\r\nhidden:", "http", "a", "/"],
        ["GET", "http", "a\r\nhidden: 1", "/"],
        ["GET", "http", "a/b", "/"],
        ["GET", "http", "u@a", "/"],
        ["GET", "http", "", "/"],
        ["GET", "http", "a", "/ HTTP/1.1\r\nhidden: 1"],
        ["GET", "http", "a", "/\r\n\r\nGET /hidden"],
        ["GET", "http", "a", "/ x"],
        ["GET", "http", "a", "x"],
        ["GET", "http", "a", ""],
    ] {
        heads.push(whole(pseudo, &[]));
    }
    for head in heads {
        on_worker(async {
            let (world, asked) = noting();
            let mut attacker = Attacker::new(world.connect_raw()).await;
            assert!(attacker.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await);
            let frames = attacker.rest().await;
            let what = String::from_utf8_lossy(&head);
            assert!(asked.borrow().is_empty() && world.net.dials.get() == 0, "{what}: {:?}", asked.borrow());
            assert!(frames.iter().any(|(kind, _, _, _)| matches!(*kind, RST_STREAM | GOAWAY | HEADERS)), "{what}");
        });
    }
}

#[test]
fn a_body_is_as_long_as_its_head_says_or_doesnt_get_there() {
    const HIDDEN: &[u8] = b"abcGET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    for (length, data) in [("3", HIDDEN), ("100", HIDDEN)] {
        on_worker(async {
            // Endpoints of a Gateway are spoken to in HTTP/1.
            let (app, asked) = noting_app();
            let world = gateway(&app);
            let wires = [1, 2].map(|last| record(&world, last));
            let mut attacker = Attacker::new(world.connect_gateway_raw(None)).await;
            assert!(attacker.send(&frame(HEADERS, END_HEADERS, 1, &request(&[("content-length", length)]))).await);
            sleep(Duration::from_millis(100)).await;
            assert!(attacker.send(&frame(DATA, END_STREAM, 1, data)).await);
            let frames = attacker.rest().await;
            assert!(frames.iter().any(|(kind, _, stream, _)| (*kind, *stream) == (RST_STREAM, 1)), "{frames:?}");
            let targets: Vec<String> = asked.borrow().iter().map(|(target, _)| target.clone()).collect();
            assert!(targets.iter().all(|target| target == "POST /"), "{targets:?}");
            let wire: String = wires.iter().map(|wire| String::from_utf8_lossy(&wire.borrow()).into_owned()).collect();
            assert!(wire.starts_with("POST / HTTP/1.1\r\n"), "{wire}");
            assert!(length == "100" || !wire.contains("/hidden"), "{wire}");
        });
    }
}
