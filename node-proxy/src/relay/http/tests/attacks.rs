//! Attacks by name, as a client brings them. `docs/security-limits.md` lists them with what is done about each.

mod http2;
mod policies;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;

/// What the endpoint was asked: methods and paths, with the bodies.
type Asked = Rc<RefCell<Vec<(String, String)>>>;

/// An application that notes what it is asked.
fn noting_app() -> (App, Asked) {
    let asked = Asked::default();
    let noted = Rc::clone(&asked);
    let app: App = Rc::new(move |request, _| {
        let noted = Rc::clone(&noted);
        Box::pin(async move {
            let target = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            noted.borrow_mut().push((target, String::from_utf8_lossy(&body).into_owned()));
            Response::new(full("answer"))
        })
    });
    (app, asked)
}

/// The Service `web` with one endpoint that notes what it is asked.
fn noting() -> (World, Asked) {
    let world = World::new(service("web", weft_core::service::AppProtocol::Http, &[1]));
    let (app, asked) = noting_app();
    world.app(1, app);
    (world, asked)
}

/// Sends bytes and reads for ten (paused) seconds, or until the proxy closes.
async fn exchange(world: &World, bytes: &[u8]) -> String {
    let mut client = world.connect_raw();
    client.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// What is hidden: of two servers one takes it for a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";

/// Heads of which one server reads an end of the body before [`HIDDEN`], and another one behind it.
const REFUSED: [(&str, &str); 22] = [
    ("CL.TE", "content-length: 38\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE.CL", "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n21\r\n"),
    ("TE.TE, the second unknown", "transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n"),
    ("TE.TE, the first unknown", "transfer-encoding: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE.TE, identity", "transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("TE.TE, quoted", "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("TE.TE, a vertical tab", "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("TE.TE, a space before the colon", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("TE.TE, folded", "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("TE.TE, in a fold", "x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a carriage return alone", "x: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a null", "x: y\0transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two lengths", "content-length: 33\r\ncontent-length: 0\r\n\r\n"),
    ("one length twice", "content-length: 0\r\ncontent-length: 0\r\n\r\n"),
    ("a list of lengths", "content-length: 0, 33\r\n\r\n"),
    ("a length with a sign", "content-length: +33\r\n\r\n"),
    ("a length that is negative", "content-length: -1\r\n\r\n"),
    ("a length in hexadecimal digits", "content-length: 0x21\r\n\r\n"),
    ("a length that is none", "content-length: \r\n\r\n"),
    ("a length beyond 64 bits", "content-length: 18446744073709551616\r\n\r\n"),
    ("a length with a space before the colon", "content-length : 33\r\n\r\n"),
    ("a length in a fold", "x: y\r\n content-length: 33\r\n\r\n"),
];

/// Chunks that servers are known to read differently, behind a head that is good.
const BAD_CHUNKS: [(&str, &str); 10] = [
    ("a size that ends with a line feed alone", "5\nhello\r\n0\r\n\r\n"),
    ("a line feed in an extension", "2;\nab\r\n0\r\n\r\n"),
    ("a carriage return in an extension", "2;a\rb\r\nab\r\n0\r\n\r\n"),
    ("a size with a sign", "+2\r\nab\r\n0\r\n\r\n"),
    ("a size with 0x", "0x2\r\nab\r\n0\r\n\r\n"),
    ("a size with a space before", " 2\r\nab\r\n0\r\n\r\n"),
    ("two sizes", "2 2\r\nab\r\n0\r\n\r\n"),
    ("a size beyond 64 bits", "10000000000000002\r\nab\r\n0\r\n\r\n"),
    ("bytes without an end of line behind them", "2\r\nabXX0\r\n\r\n"),
    ("a line feed alone behind the bytes", "2\r\nab\n0\r\n\r\n"),
];

#[test]
fn what_may_hide_a_request_is_refused_and_nothing_behind_it_is_read() {
    for (name, head) in REFUSED {
        on_worker(async {
            let (world, asked) = noting();
            let answer = exchange(&world, format!("POST / HTTP/1.1\r\nhost: a\r\n{head}{HIDDEN}").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{name}: {answer}");
            assert!(asked.borrow().is_empty() && world.net.dials.get() == 0, "{name}: {:?}", asked.borrow());
        });
    }
}

#[test]
fn a_body_in_chunks_that_can_be_read_in_two_ways_ends_its_connection() {
    for (name, chunks) in BAD_CHUNKS {
        for before in ["", "2\r\nok\r\n"] {
            on_worker(async {
                let (world, asked) = noting();
                let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
                let answer = exchange(&world, format!("{head}{before}{chunks}{HIDDEN}").as_bytes()).await;
                assert!(!answer.contains("200 OK"), "{name}: {answer}");
                assert!(answer.matches("HTTP/1.").count() <= 1, "{name}: {answer}");
                let asked = asked.borrow();
                assert!(asked.iter().all(|(target, _)| target == "POST /"), "{name}: {asked:?}");
            });
        }
    }
}

/// What the RFC lets pass has one meaning for the endpoint too, because it is written anew.
#[test]
fn what_is_let_pass_is_written_anew_and_the_endpoint_reads_one_request() {
    let length = HIDDEN.len();
    for (name, request, body) in [
        (
            "a body that looks like a request",
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"),
            HIDDEN,
        ),
        ("one of a GET", format!("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{HIDDEN}"), HIDDEN),
        (
            "one in a chunk",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
            ),
            HIDDEN,
        ),
        (
            "extensions of chunks",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\nab\r\n0;e\r\n\r\n"
                .to_owned(),
            "ab",
        ),
        ("lines that end with a line feed alone", "POST / HTTP/1.1\nhost: a\ncontent-length: 2\n\nab".to_owned(), "ab"),
        (
            "a coding in other letters",
            "POST / HTTP/1.1\r\nhost: a\r\nTRANSFER-encoding:\tChunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_owned(),
            "ab",
        ),
        (
            "trailers that would frame, route or authenticate",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\ncontent-length: 9\r\n\
             transfer-encoding: chunked\r\nhost: b\r\nauthorization: x\r\nx-forwarded-for: 192.0.2.9\r\n\r\n"
                .to_owned(),
            "ab",
        ),
    ] {
        on_worker(async {
            let (world, asked) = noting();
            let wire = record(&world, 1);
            let answer = exchange(&world, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
            let (method, _) = request.split_once(' ').unwrap();
            assert_eq!(*asked.borrow(), [(format!("{method} /"), body.to_owned())], "{name}");
            let wire = String::from_utf8_lossy(&wire.borrow()).to_lowercase();
            let (head, rest) = wire.split_once("\r\n\r\n").unwrap();
            let lengths = head.matches("content-length:").count() + head.matches("transfer-encoding:").count();
            assert_eq!(lengths, 1, "{name}: {head}");
            for gone in [";a=b", "192.0.2.9", "authorization", "host: b", "content-length: 9"] {
                assert!(!wire.contains(gone), "{name}: {wire}");
            }
            assert!(!rest.contains("transfer-encoding"), "{name}: {rest}");
        });
    }
}

/// Notes what goes to an endpoint, in front of its application.
fn record(world: &World, last: u8) -> Rc<RefCell<Vec<u8>>> {
    let wire = Rc::<RefCell<Vec<u8>>>::default();
    let noted = Rc::clone(&wire);
    world.tapped(last, move |bytes| noted.borrow_mut().extend_from_slice(bytes));
    wire
}

#[test]
fn a_switch_to_another_form_of_http_is_not_passed_on() {
    for (asked_for, passed) in [
        ("upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nconnection: upgrade, http2-settings", None),
        ("upgrade: h2c\r\nconnection: upgrade", None),
        ("upgrade: HTTP/2.0\r\nconnection: upgrade", None),
        ("upgrade: TLS/1.2\r\nconnection: upgrade", None),
        ("upgrade: h2c, websocket\r\nconnection: upgrade", Some("websocket")),
    ] {
        on_worker(async {
            let (world, _) = noting();
            let wire = record(&world, 1);
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{asked_for}\r\n\r\n");
            let answer = exchange(&world, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{asked_for}: {answer}");
            let wire = String::from_utf8_lossy(&wire.borrow()).to_lowercase();
            let upgrade = wire.lines().find_map(|line| line.strip_prefix("upgrade: "));
            assert_eq!(upgrade, passed, "{asked_for}: {wire}");
            assert!(!wire.contains("http2-settings"), "{asked_for}: {wire}");
        });
    }
}

#[test]
fn a_client_cannot_say_for_whom_it_asks_in_other_letters_either() {
    use super::gateway::{at, http};
    on_worker(async {
        let world = World::new(vec![http("any"), at(&["any"], rule(0, "", vec![backend("web")]))]);
        [1, 2].into_iter().for_each(|last| world.app(last, echo()));
        let wires = [1, 2].map(|last| record(&world, last));
        let mut client = world.connect_gateway_raw(None);
        let request = "GET / HTTP/1.1\r\nhost: a\r\nX_Forwarded_For: 203.0.113.9\r\nx-forwarded_for: 203.0.113.9\r\n\
            x_real_ip: 203.0.113.9\r\nx_other: kept\r\nconnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        let wire: String = wires.iter().map(|wire| String::from_utf8_lossy(&wire.borrow()).into_owned()).collect();
        assert!(wire.contains("x_other: kept") && !wire.contains("203.0.113.9"), "{wire}");
        assert!(wire.contains("x-forwarded-for: 192.0.2.7"), "{wire}");
    });
}
