//! gRPC-Web between a browser's kind of client and a backend that speaks gRPC.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::task::spawn_local;
use weft_core::change::Change;
use weft_core::ids::RouteKind;
use weft_core::route::*;
use weft_core::service::AppProtocol;

use super::gateway::{at, http};
use super::world::*;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const WEB: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

/// A rule of a GRPCRoute.
fn calls() -> HttpRule {
    let mut made = rule(0, "", vec![backend("web")]);
    made.key.route.kind = RouteKind::Grpc;
    made.matches[0].path = PathMatch::Grpc { service: None, method: None };
    made
}

fn world(changes: Vec<Change>) -> World {
    let mut all = service("web", AppProtocol::Unspecified, &[1]);
    all.extend(changes);
    World::new(all)
}

fn call(kind: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post("/a.B/C").header("host", "a.com").header("content-type", kind).body(full(body)).unwrap()
}

fn message(text: &str) -> Vec<u8> {
    [&[0], &u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// The frame that ends an answer.
fn trailers(lines: &str) -> Vec<u8> {
    [&[0x80], &u32::try_from(lines.len()).unwrap().to_be_bytes()[..], lines.as_bytes()].concat()
}

fn ends(lines: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    let mut map = HeaderMap::new();
    lines.iter().for_each(|(name, value)| {
        map.append(*name, HeaderValue::from_static(value));
    });
    Frame::trailers(map)
}

fn answers(frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let body = StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed();
    Response::builder().header("content-type", "application/grpc+proto").body(body).unwrap()
}

/// A gRPC service that sends each call's bytes back, and notes the calls.
fn service_of_grpc() -> (App, Rc<RefCell<Vec<http::request::Parts>>>) {
    let seen = Rc::<RefCell<Vec<_>>>::default();
    let noted = Rc::clone(&seen);
    let app: App = Rc::new(move |request, _| {
        let noted = Rc::clone(&noted);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            noted.borrow_mut().push(head);
            let bytes = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => return answers(vec![ends(&[("grpc-status", "1")])]),
            };
            let second = Frame::data(message("more").into());
            answers(vec![Frame::data(bytes), second, ends(&[("grpc-status", "0"), ("grpc-message", "fine")])])
        })
    });
    (app, seen)
}

/// Reads text that may be padded anywhere.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect()
}

#[test]
fn a_call_becomes_one_of_grpc_and_its_answer_one_of_grpc_web() {
    for at_gateway in [false, true] {
        for (version, kind) in BOTH.into_iter().flat_map(|version| [(version, WEB), (version, TEXT)]) {
            on_worker(async move {
                let world =
                    world(if at_gateway { vec![http("any"), at(&["any"], calls())] } else { vec![upsert(calls())] });
                let (app, seen) = service_of_grpc();
                world.app(1, app);
                let mut client = match at_gateway {
                    true => world.connect_gateway(version, None).await,
                    false => world.connect(version).await,
                };
                let sent = message("hello");
                let body = if kind == TEXT { STANDARD.encode(&sent).into_bytes() } else { sent.clone() };
                let mut request = call(kind, body);
                request.headers_mut().insert("x-grpc-web", "1".parse().unwrap());
                request.headers_mut().insert("accept", kind.parse().unwrap());
                let (status, headers, body) = client.ask(request).await;
                assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, kind));
                assert!(!headers.contains_key("grpc-status") && !headers.contains_key("trailer"), "{headers:?}");
                let body = if kind == TEXT { decoded(&body) } else { body.to_vec() };
                let expected = [sent, message("more"), trailers("grpc-status:0\r\ngrpc-message:fine\r\n")].concat();
                assert_eq!(body, expected, "{version:?} {kind}");
                let head = seen.borrow_mut().pop().unwrap();
                assert_eq!((head.version, head.method.as_str(), head.uri.path()), (Version::HTTP_2, "POST", "/a.B/C"));
                assert_eq!(head.uri.authority().unwrap(), "a.com");
                assert_eq!(
                    (&head.headers["content-type"], &head.headers["te"]),
                    (&"application/grpc+proto".parse().unwrap(), &"trailers".parse::<HeaderValue>().unwrap())
                );
                assert!(["accept", "content-length", "host"].iter().all(|name| !head.headers.contains_key(*name)));
                let logged = world.logged();
                assert_eq!((&logged[0]["grpc_status"], &logged[0]["protocol"]), (&"0".into(), &"grpc".into()));
            });
        }
    }
}

#[test]
fn an_answer_without_messages_ends_in_its_body() {
    for kind in [WEB, TEXT] {
        on_worker(async move {
            let world = world(vec![upsert(calls())]);
            world.app(
                1,
                Rc::new(|_, _| {
                    let answer = Response::builder().header("content-type", "application/grpc");
                    let answer =
                        answer.header("grpc-status", "5").header("grpc-message", "none such").header("x-a", "1");
                    Box::pin(std::future::ready(answer.body(empty()).unwrap()))
                }),
            );
            let mut client = world.connect(Version::HTTP_11).await;
            let (status, headers, body) = client.ask(call(kind, "")).await;
            assert_eq!((status, headers.get("grpc-status"), &headers["x-a"]), (200, None, &"1".parse().unwrap()));
            let body = if kind == TEXT { decoded(&body) } else { body.to_vec() };
            assert_eq!(body, trailers("grpc-status:5\r\ngrpc-message:none such\r\n"));
            assert_eq!(world.logged()[0]["grpc_status"], "5");
        });
    }
}

#[test]
fn an_answer_that_just_ends_has_the_status_unknown_and_one_that_breaks_off_has_none() {
    on_worker(async {
        let world = world(vec![upsert(calls())]);
        world.app(1, Rc::new(|_, _| Box::pin(std::future::ready(answers(vec![Frame::data(message("a").into())])))));
        let mut client = world.connect(Version::HTTP_11).await;
        let (_, _, body) = client.ask(call(WEB, message("x"))).await;
        let expected = [message("a"), trailers("grpc-status:2\r\ngrpc-message:the answer has no status\r\n")].concat();
        assert_eq!(&body[..], expected);
        world.raw(
            1,
            Rc::new(|stream, address| {
                let app: App = Rc::new(|_, _| {
                    let first = stream::iter([Ok(Frame::data(message("a").into()))]);
                    let body = StreamBody::new(futures::StreamExt::chain(first, stream::pending())).boxed();
                    let answer = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
                    Box::pin(std::future::ready(answer))
                });
                spawn_local(tokio::time::timeout(Duration::from_secs(1), serve_app(stream, address, app)));
            }),
        );
        tokio::time::sleep(Duration::from_secs(100)).await;
        let mut client = world.connect(Version::HTTP_11).await;
        let answer = client.send(call(WEB, message("x"))).await.unwrap();
        assert!(answer.into_body().collect().await.is_err(), "cut off, and it can be seen");
    });
}

#[test]
fn messages_flow_as_they_come() {
    for (version, kind) in BOTH.into_iter().flat_map(|version| [(version, WEB), (version, TEXT)]) {
        on_worker(async move {
            let world = world(vec![upsert(calls())]);
            let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Frame<Bytes>>();
            let receiver = RefCell::new(Some(receiver));
            world.app(
                1,
                Rc::new(move |_, _| {
                    let receiver = receiver.borrow_mut().take().unwrap();
                    let frames = stream::unfold(receiver, |mut receiver| async {
                        let frame = receiver.recv().await?;
                        Some((Ok(frame), receiver))
                    });
                    let answer = Response::builder().header("content-type", "application/grpc");
                    Box::pin(std::future::ready(answer.body(StreamBody::new(frames).boxed()).unwrap()))
                }),
            );
            let mut client = world.connect(version).await;
            let mut body = client.send(call(kind, "")).await.unwrap().into_body();
            for text in ["one", "two", "three"] {
                sender.send(Frame::data(message(text).into())).unwrap();
                let frame = tokio::time::timeout(Duration::from_secs(1), body.frame()).await;
                let data = frame.expect("waits for the next one").unwrap().unwrap().into_data().unwrap();
                let data = if kind == TEXT { decoded(&data) } else { data.to_vec() };
                assert_eq!(data, message(text), "{version:?} {kind}");
            }
            sender.send(ends(&[("grpc-status", "0")])).unwrap();
            drop(sender);
            let rest = body.collect().await.unwrap().to_bytes();
            let rest = if kind == TEXT { decoded(&rest) } else { rest.to_vec() };
            assert_eq!(rest, trailers("grpc-status:0\r\n"));
        });
    }
}

#[test]
fn text_comes_in_whatever_pieces() {
    on_worker(async {
        let world = world(vec![upsert(calls())]);
        let (app, _) = service_of_grpc();
        world.app(1, app);
        for size in [1, 2, 3, 5, 1000] {
            let mut client = world.connect(Version::HTTP_11).await;
            // Padded in the middle, as a client does that encodes message by message.
            let text = STANDARD.encode(message("hello")) + &STANDARD.encode(message("world!"));
            let pieces: Vec<_> =
                text.as_bytes().chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
            let mut request = call(TEXT, "");
            *request.body_mut() = StreamBody::new(stream::iter(pieces)).boxed();
            let (_, _, body) = client.ask(request).await;
            let expected = [
                message("hello"),
                message("world!"),
                message("more"),
                trailers("grpc-status:0\r\ngrpc-message:fine\r\n"),
            ];
            assert_eq!(decoded(&body), expected.concat(), "{size}");
        }
    });
}

#[test]
fn text_that_is_none_is_the_clients_fault() {
    for bad in ["AAA", "AA!A", "AAAA====", "\u{feff}AAAAA"] {
        on_worker(async move {
            let world = world(vec![upsert(calls())]);
            let (app, _) = service_of_grpc();
            world.app(1, app);
            let mut client = world.connect(Version::HTTP_11).await;
            let (status, headers, body) = client.ask(call(TEXT, bad)).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, TEXT), "{bad}");
            assert_eq!(decoded(&body), trailers("grpc-status:13\r\ngrpc-message:bad_request\r\n"), "{bad}");
            assert_eq!(world.logged()[0]["reason"], "bad_request");
        });
    }
}

#[test]
fn what_the_proxy_says_itself_is_grpc_web() {
    for (kind, version) in [(WEB, Version::HTTP_11), (TEXT, Version::HTTP_2)] {
        on_worker(async move {
            let world = world(vec![upsert(calls())]);
            world.down(1, true);
            let mut client = world.connect(version).await;
            let (status, headers, body) = client.ask(call(kind, message("x"))).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, kind));
            assert_eq!(headers.get("grpc-status"), None);
            let body = if kind == TEXT { decoded(&body) } else { body.to_vec() };
            assert_eq!(body, trailers("grpc-status:14\r\ngrpc-message:connect_failed\r\n"));
        });
    }
}

#[test]
fn a_page_of_another_origin_may_call_if_cors_lets_it() {
    on_worker(async {
        let cors = Cors {
            allow_origins: vec![OriginMatch::new("https://a.com").unwrap()],
            allow_methods: vec!["POST".into()],
            allow_headers: vec!["x-grpc-web".into(), "content-type".into()],
            ..Cors::default()
        };
        let world = world(vec![upsert(HttpRule { filters: vec![HttpFilter::Cors(cors)], ..calls() })]);
        let (app, seen) = service_of_grpc();
        world.app(1, app);
        let mut client = world.connect(Version::HTTP_11).await;
        let preflight = Request::options("/a.B/C")
            .header("origin", "https://a.com")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-grpc-web")
            .body(empty())
            .unwrap();
        let (status, headers, body) = client.ask(preflight).await;
        assert_eq!(
            (status / 100, headers["access-control-allow-origin"].to_str().unwrap(), body.len()),
            (2, "https://a.com", 0)
        );
        assert!(seen.borrow().is_empty());
        let mut request = call(WEB, message("x"));
        request.headers_mut().insert("origin", "https://a.com".parse().unwrap());
        let (_, headers, _) = client.ask(request).await;
        assert_eq!(headers["access-control-allow-origin"], "https://a.com");
        assert_eq!(headers["content-type"], WEB);
    });
}

/// An application that says what it got, without a word of gRPC.
fn says_what_it_got() -> App {
    Rc::new(|request, _| {
        Box::pin(async move {
            let kind = request.headers()["content-type"].clone();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::builder().header("content-type", kind).body(full(body)).unwrap()
        })
    })
}

#[test]
fn only_what_goes_to_grpc_is_translated() {
    let plain = || rule(0, "", vec![backend("web")]);
    for (protocol, made, at_gateway, translated) in [
        (AppProtocol::Http, Some(plain()), true, false),
        (AppProtocol::H2c, Some(plain()), true, false),
        (AppProtocol::Grpc, Some(plain()), true, true),
        (AppProtocol::Grpc, Some(plain()), false, false),
        (AppProtocol::Grpc, None, false, false),
        (AppProtocol::Http, Some(calls()), false, true),
    ] {
        for kind in [WEB, TEXT] {
            let made = made.clone();
            on_worker(async move {
                let mut changes = service("web", protocol, &[1]);
                match (made, at_gateway) {
                    (Some(made), true) => changes.extend([http("any"), at(&["any"], made)]),
                    (Some(made), false) => changes.push(upsert(made)),
                    (None, _) => {}
                }
                let world = world(changes);
                world.app(1, says_what_it_got());
                let mut client = match at_gateway {
                    true => world.connect_gateway(Version::HTTP_11, None).await,
                    false => world.connect(Version::HTTP_11).await,
                };
                let sent = STANDARD.encode(message("abc"));
                let (_, headers, body) = client.ask(call(kind, sent.clone())).await;
                assert_eq!(headers["content-type"], kind);
                assert_eq!(body == sent.as_bytes(), !translated, "{protocol:?} {kind} {at_gateway}");
            });
        }
    }
}
