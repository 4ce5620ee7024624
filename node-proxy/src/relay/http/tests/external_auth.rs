//! External authorization between a client, an authorizer and a backend.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::Instant;
use weft_api::envoy::config::core::v3::{HeaderValue as Pair, HeaderValueOption};
use weft_api::envoy::service::auth::v3::attribute_context::HttpRequest;
use weft_api::envoy::service::auth::v3::check_response::HttpResponse;
use weft_api::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use weft_api::google::rpc::Status;
use weft_core::change::{Change, ResourceKey};
use weft_core::ids::{RouteKind, ServiceKey};
use weft_core::route::*;
use weft_core::service::AppProtocol;

use super::gateway::{at, https, key_of};
use super::world::*;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

fn names(list: &[&'static str]) -> Vec<HeaderName> {
    list.iter().map(|name| HeaderName::from_static(name)).collect()
}

/// Asks the Service `auth`, which has endpoint 4.
fn filter(protocol: AuthProtocol, max_body: u32) -> HttpFilter {
    let authorizer = BackendTarget::Service(key("auth"));
    HttpFilter::ExternalAuth(ExternalAuth { authorizer, protocol, max_body: NonZeroU32::new(max_body) })
}

fn over_http(path: &str, request: &[&'static str], response: &[&'static str]) -> AuthProtocol {
    AuthProtocol::Http { path: path.into(), request_headers: names(request), response_headers: names(response) }
}

fn over_grpc() -> AuthProtocol {
    AuthProtocol::Grpc { headers: Vec::new() }
}

fn guarded(filter: HttpFilter) -> HttpRule {
    HttpRule { filters: vec![filter], ..rule(0, "", vec![backend("web")]) }
}

fn world(rule: HttpRule) -> World {
    let mut changes = service("web", AppProtocol::Http, &[1]);
    changes.extend(service("auth", AppProtocol::Http, &[4]));
    changes.push(upsert(rule));
    World::new(changes)
}

/// What an application was asked, most recent last: its heads and bodies.
type Seen = Rc<RefCell<Vec<(http::request::Parts, bytes::Bytes)>>>;

/// An application that notes what it is asked before it answers.
fn notes(answer: impl Fn(&http::request::Parts) -> Response<Body> + 'static) -> (App, Seen) {
    let (seen, answer) = (Seen::default(), Rc::new(answer));
    let noted = Rc::clone(&seen);
    let app: App = Rc::new(move |request, _| {
        let (noted, answer) = (Rc::clone(&noted), Rc::clone(&answer));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let response = answer(&head);
            noted.borrow_mut().push((head, body));
            response
        })
    });
    (app, seen)
}

/// The host that a request was for.
fn host(head: &http::request::Parts) -> String {
    let named = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    head.uri.authority().map(ToString::to_string).or(named).unwrap()
}

fn plain(status: u16) -> impl Fn(&http::request::Parts) -> Response<Body> {
    move |_| Response::builder().status(status).body(empty()).unwrap()
}

/// An authorizer over gRPC.
fn decides(decide: impl Fn(HttpRequest) -> CheckResponse + 'static) -> App {
    let decide = Rc::new(decide);
    Rc::new(move |request, _| {
        let decide = Rc::clone(&decide);
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
            assert_eq!((request.version(), &request.headers()["te"]), (Version::HTTP_2, &"trailers".parse().unwrap()));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let asked = CheckRequest::decode(&body[5..]).unwrap();
            grpc(&decide(asked.attributes.unwrap().request.unwrap().http.unwrap()), "0")
        })
    })
}

/// The answer to a unary call.
fn grpc(message: &impl Message, status: &'static str) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap());
    framed.put_slice(&message.encode_to_vec());
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let frames = [Ok(http_body::Frame::data(framed.freeze())), Ok(http_body::Frame::trailers(trailers))];
    let body = StreamBody::new(futures::stream::iter(frames)).boxed();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn says(code: i32, response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse { status: Some(Status { code, ..Status::default() }), http_response: response }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    let header = Pair { key: name.into(), value: value.into(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

#[test]
fn an_authorizer_over_http_gets_the_head_and_its_200_passes_it() {
    for version in BOTH {
        on_worker(async move {
            let world = world(guarded(filter(over_http("/check", &["x-a"], &["x-user"]), 0)));
            let (authorizer, asked) = notes(|_| {
                let answer = Response::builder().header("x-user", "ann").header("x-other", "1");
                answer.body(full("welcome")).unwrap()
            });
            let (app, seen) = notes(plain(200));
            world.app(4, authorizer);
            world.app(1, app);
            let mut client = world.connect(version).await;
            let request = Request::put("/x?y=1")
                .header("authorization", "Bearer t")
                .header("x-a", "1")
                .header("x-b", "2")
                .header("x-user", "root")
                .body(full("payload"))
                .unwrap();
            assert_eq!(client.ask(request).await.0, 200);
            let (head, body) = asked.borrow_mut().pop().unwrap();
            assert_eq!(
                (head.method.as_str(), head.uri.to_string().as_str(), head.version),
                ("PUT", "/check/x?y=1", Version::HTTP_11)
            );
            let mut headers: Vec<_> =
                head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            headers.sort();
            assert_eq!(headers, ["authorization: Bearer t", "content-length: 0", "host: web.shop", "x-a: 1"]);
            assert_eq!((body.len(), asked.borrow().len()), (0, 0), "asked once, and not shown the body");
            let (head, body) = seen.borrow_mut().pop().unwrap();
            assert_eq!((&body[..], head.uri.path()), (&b"payload"[..], "/x"));
            let users: Vec<_> = head.headers.get_all("x-user").iter().map(|user| user.to_str().unwrap()).collect();
            assert_eq!((users, head.headers.get("x-other")), (vec!["ann"], None), "the client can't say who it is");
            assert_eq!(world.metric("weft_external_auth_checks_total", &["result=\"allowed\""]), Some(1.0));
        });
    }
}

#[test]
fn the_connection_of_a_yes_is_used_again() {
    on_worker(async {
        let world = world(guarded(filter(over_http("", &[], &[]), 0)));
        world.app(4, notes(|_| Response::new(full("yes, with some words"))).0);
        world.app(1, status(200));
        let mut client = world.connect(Version::HTTP_11).await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.0, 200);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.net.dials.get(), 2, "one to each");
    });
}

#[test]
fn what_is_not_200_is_the_clients_answer() {
    for version in BOTH {
        for code in [201, 204, 302, 401, 403, 429, 500, 503] {
            on_worker(async move {
                let world = world(guarded(filter(over_http("", &[], &[]), 0)));
                world.app(
                    4,
                    notes(move |_| {
                        let answer = Response::builder().status(code).header("www-authenticate", "Basic");
                        let answer = answer.header("set-cookie", "a=1").header("set-cookie", "b=2");
                        answer.body(if code == 204 { empty() } else { full("who are you?") }).unwrap()
                    })
                    .0,
                );
                let (app, seen) = notes(plain(200));
                world.app(1, app);
                let mut client = world.connect(version).await;
                let (status, headers, body) = client.get("/").await;
                assert_eq!((status, &headers["www-authenticate"]), (code, &"Basic".parse::<HeaderValue>().unwrap()));
                assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
                assert_eq!(&body[..], if code == 204 { &b""[..] } else { b"who are you?" });
                assert!(seen.borrow().is_empty(), "{code}");
                assert_eq!(world.logged()[0]["reason"], "auth_denied");
                assert_eq!(world.metric("weft_external_auth_checks_total", &["result=\"denied\""]), Some(1.0));
            });
        }
    }
}

#[test]
fn an_authorizer_over_grpc_changes_what_it_permits_and_says_what_it_denies() {
    for version in BOTH {
        on_worker(async move {
            let world = world(guarded(filter(over_grpc(), 0)));
            let asked = Rc::new(RefCell::new(Vec::new()));
            let noted = Rc::clone(&asked);
            world.app(
                4,
                decides(move |http| {
                    let path = http.path.clone();
                    noted.borrow_mut().push(http);
                    if path == "/no" {
                        let denied = DeniedHttpResponse {
                            status: Some(weft_api::envoy::r#type::v3::HttpStatus { code: 418 }),
                            headers: vec![header("x-why", "tea")],
                            body: "a pot".into(),
                        };
                        return says(7, Some(HttpResponse::DeniedResponse(denied)));
                    }
                    let ok = OkHttpResponse {
                        headers: vec![header("x-user", "ann"), header("host", "evil"), header("content-length", "9")],
                        headers_to_remove: vec!["authorization".into()],
                        response_headers_to_add: vec![header("x-seen", "1")],
                        ..OkHttpResponse::default()
                    };
                    says(0, Some(HttpResponse::OkResponse(ok)))
                }),
            );
            let (app, seen) = notes(plain(200));
            world.app(1, app);
            let mut client = world.connect(version).await;
            let request = |path: &str| {
                let request = Request::post(path).header("authorization", "Bearer t").header("x-user", "root");
                request.body(full("abc")).unwrap()
            };
            let (status, headers, _) = client.ask(request("/yes?a=b")).await;
            assert_eq!((status, headers.get("x-seen")), (200, Some(&"1".parse().unwrap())));
            let (head, body) = seen.borrow_mut().pop().unwrap();
            assert_eq!(
                (&head.headers["x-user"], head.headers.get("authorization")),
                (&"ann".parse::<HeaderValue>().unwrap(), None)
            );
            assert_eq!((host(&head), &body[..]), ("web.shop".to_owned(), &b"abc"[..]));
            let (status, headers, body) = client.ask(request("/no")).await;
            assert_eq!((status, &headers["x-why"], &body[..]), (418, &"tea".parse().unwrap(), &b"a pot"[..]));
            assert!(seen.borrow().is_empty());
            let asked = asked.borrow();
            assert_eq!(
                (asked.len(), &*asked[0].path, &*asked[0].host, &*asked[0].body),
                (2, "/yes?a=b", "web.shop", "")
            );
            assert_eq!((&*asked[0].headers["authorization"], &*asked[0].headers[":method"]), ("Bearer t", "POST"));
            assert_eq!(asked[0].protocol, if version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" });
        });
    }
}

/// Whatever goes wrong with the authorizer, and what the client hears.
#[test]
fn without_a_clear_yes_nothing_passes() {
    let never: fn() -> App = || Rc::new(|_, _| Box::pin(std::future::pending()));
    type Case = (&'static str, AuthProtocol, Box<dyn Fn(&World)>, u16, &'static str);
    let cases: [Case; 11] = [
        ("refused", over_grpc(), Box::new(|world| world.down(4, true)), 403, "auth_failed"),
        ("refused", over_http("", &[], &[]), Box::new(|world| world.down(4, true)), 403, "auth_failed"),
        ("no answer", over_grpc(), Box::new(move |world| world.app(4, never())), 403, "auth_failed"),
        ("no answer", over_http("", &[], &[]), Box::new(move |world| world.app(4, never())), 403, "auth_failed"),
        (
            "an answer without an end",
            over_grpc(),
            Box::new(|world| {
                world.app(
                    4,
                    Rc::new(|_, _| {
                        let body = StreamBody::new(futures::stream::pending()).boxed();
                        let answer = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
                        Box::pin(std::future::ready(answer))
                    }),
                );
            }),
            403,
            "auth_failed",
        ),
        (
            "an error of gRPC",
            over_grpc(),
            Box::new(|world| {
                world.app(4, Rc::new(|_, _| Box::pin(std::future::ready(grpc(&says(0, None), "13")))));
            }),
            403,
            "auth_failed",
        ),
        (
            "another message",
            over_grpc(),
            Box::new(|world| {
                let noise = Status { code: 0, message: "x".repeat(301), ..Status::default() };
                world.app(4, Rc::new(move |_, _| Box::pin(std::future::ready(grpc(&noise, "0")))));
            }),
            403,
            "auth_failed",
        ),
        ("no gRPC at all", over_grpc(), Box::new(|world| world.app(4, status(200))), 403, "auth_failed"),
        (
            "nothing",
            over_grpc(),
            Box::new(|world| world.app(4, decides(|_| CheckResponse::default()))),
            403,
            "auth_failed",
        ),
        (
            "no endpoint",
            over_http("", &[], &[]),
            Box::new(|world| world.apply(&service("auth", AppProtocol::Http, &[]))),
            403,
            "auth_failed",
        ),
        (
            "no Service",
            over_http("", &[], &[]),
            Box::new(|world| world.apply(&[Change::Remove(ResourceKey::Service(ServiceKey::new("shop", "auth")))])),
            500,
            "invalid_backend",
        ),
    ];
    for (what, protocol, breaks, code, reason) in cases {
        on_worker(async move {
            let world = world(guarded(filter(protocol.clone(), 0)));
            let (app, seen) = notes(plain(200));
            world.app(1, app);
            breaks(&world);
            let mut client = world.connect(Version::HTTP_11).await;
            let started = Instant::now();
            let (status, _, body) = client.get("/").await;
            assert_eq!((status, &body[..]), (code, reason.as_bytes()), "{what} {protocol:?}");
            assert!(started.elapsed() <= Duration::from_secs(11), "{what}");
            assert!(seen.borrow().is_empty(), "{what}");
        });
    }
}

#[test]
fn the_time_of_the_request_covers_the_authorizer() {
    on_worker(async {
        let timeouts = Timeouts { request: Some(Duration::from_secs(2)), ..Timeouts::default() };
        let world = world(HttpRule { timeouts, ..guarded(filter(over_grpc(), 0)) });
        world.app(4, Rc::new(|_, _| Box::pin(std::future::pending())));
        let mut client = world.connect(Version::HTTP_11).await;
        let started = Instant::now();
        let (status, _, body) = client.get("/").await;
        assert_eq!((status, &body[..]), (504, &b"request_timeout"[..]));
        assert!((2000..2500).contains(&started.elapsed().as_millis()));
    });
}

#[test]
fn a_body_is_shown_whole_or_the_request_is_refused() {
    for version in BOTH {
        on_worker(async move {
            for (length, chunked, code) in
                [(0, false, 200), (10, false, 200), (10, true, 200), (11, false, 413), (11, true, 413)]
            {
                for protocol in [over_grpc(), over_http("", &[], &[])] {
                    let world = world(guarded(filter(protocol.clone(), 10)));
                    let text = "0123456789+".get(..length).unwrap();
                    let shown = Rc::new(RefCell::new(None));
                    if protocol == over_grpc() {
                        let noted = Rc::clone(&shown);
                        let decide = move |http: HttpRequest| {
                            *noted.borrow_mut() = Some((http.body, http.size));
                            says(0, None)
                        };
                        world.app(4, decides(decide));
                    } else {
                        let noted = Rc::clone(&shown);
                        world.app(
                            4,
                            Rc::new(move |request, _| {
                                let noted = Rc::clone(&noted);
                                Box::pin(async move {
                                    let length = request.headers()["content-length"].to_str().unwrap().parse().unwrap();
                                    let body = request.into_body().collect().await.unwrap().to_bytes();
                                    *noted.borrow_mut() = Some((String::from_utf8(body.to_vec()).unwrap(), length));
                                    Response::new(empty())
                                })
                            }),
                        );
                    }
                    let (app, seen) = notes(plain(200));
                    world.app(1, app);
                    let mut client = world.connect(version).await;
                    let pieces: Vec<_> =
                        text.bytes().map(|byte| Ok(http_body::Frame::data(vec![byte].into()))).collect();
                    let body =
                        if chunked { StreamBody::new(futures::stream::iter(pieces)).boxed() } else { full(text) };
                    let (status, ..) = client.ask(Request::post("/").body(body).unwrap()).await;
                    let what = format!("{version:?} {length} {chunked} {protocol:?}");
                    assert_eq!(status, code, "{what}");
                    let passed = (code == 200).then(|| text.to_owned());
                    assert_eq!(shown.take(), passed.clone().map(|text| (text, length as i64)), "{what}");
                    let got = seen.borrow_mut().pop().map(|(_, body)| String::from_utf8(body.to_vec()).unwrap());
                    assert_eq!(got, passed, "{what}");
                }
            }
        });
    }
}

#[test]
fn a_client_that_waits_to_be_told_to_send_its_body_is_told() {
    on_worker(async {
        let world = world(guarded(filter(over_http("", &[], &[]), 10)));
        world.app(4, notes(plain(200)).0);
        let (app, seen) = notes(plain(200));
        world.app(1, app);
        let mut client = world.connect_raw();
        let head = "POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 25];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hi").await.unwrap();
        let mut said = [0; 12];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 200");
        let (head, body) = seen.borrow_mut().pop().unwrap();
        assert_eq!((head.headers.get("expect"), &body[..]), (None, &b"hi"[..]));
    });
}

#[test]
fn a_grpc_stream_whose_body_is_to_be_shown_does_not_wait_for_ever() {
    on_worker(async {
        let world = world(guarded(filter(over_grpc(), 1000)));
        world.app(4, decides(|_| says(0, None)));
        let mut client = world.connect(Version::HTTP_2).await;
        let body = StreamBody::new(futures::stream::pending()).boxed();
        let request = Request::post("/a/B").header("content-type", "application/grpc").body(body).unwrap();
        let (status, headers, _) = client.ask(request).await;
        assert_eq!((status, headers.contains_key("grpc-status")), (200, true));
        assert_eq!(world.logged()[0]["reason"], "body_timeout");
    });
}

#[test]
fn it_is_asked_once_however_often_the_backend_is_tried() {
    on_worker(async {
        let retry =
            Retry { attempts: 3, backoff: Duration::from_millis(10), codes: vec![StatusCode::SERVICE_UNAVAILABLE] };
        let world = world(HttpRule { retry: Some(retry), ..guarded(filter(over_http("", &[], &["x-user"]), 100)) });
        let (authorizer, asked) = notes(|_| Response::builder().header("x-user", "ann").body(empty()).unwrap());
        world.app(4, authorizer);
        let tries = Rc::new(Cell::new(0));
        let tried = Rc::clone(&tries);
        let (app, seen) = notes(move |_| {
            tried.set(tried.get() + 1);
            Response::builder().status(if tried.get() < 3 { 503 } else { 200 }).body(empty()).unwrap()
        });
        world.app(1, app);
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.ask(Request::post("/").body(full("again")).unwrap()).await.0, 200);
        assert_eq!((asked.borrow().len(), tries.get()), (1, 3));
        for (head, body) in seen.borrow().iter() {
            assert_eq!((&head.headers["x-user"], &body[..]), (&"ann".parse::<HeaderValue>().unwrap(), &b"again"[..]));
        }
    });
}

#[test]
fn a_mirror_gets_what_was_permitted_and_nothing_else() {
    on_worker(async {
        let mirror = Mirror {
            backend: BackendTarget::Service(key("other")),
            fraction: Fraction { numerator: 1, denominator: NonZeroU32::MIN },
        };
        let mut rule = guarded(filter(over_http("", &[], &["x-user"]), 100));
        rule.filters.insert(0, HttpFilter::Mirror(mirror));
        let world = world(rule);
        world.app(
            4,
            notes(|head| {
                let code = if head.uri.path() == "/no" { 403 } else { 200 };
                Response::builder().status(code).header("x-user", "ann").body(empty()).unwrap()
            })
            .0,
        );
        let (copied, copies) = notes(plain(200));
        world.app(3, copied);
        world.app(1, status(200));
        let mut client = world.connect(Version::HTTP_11).await;
        let ask = |path: &str| Request::post(path).header("x-user", "root").body(full("copy me")).unwrap();
        assert_eq!(client.ask(ask("/no")).await.0, 403);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(copies.borrow().is_empty());
        assert_eq!(client.ask(ask("/yes")).await.0, 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let copies = copies.borrow();
        assert_eq!((copies.len(), &copies[0].0.headers["x-user"]), (1, &"ann".parse::<HeaderValue>().unwrap()));
        assert_eq!(&copies[0].1[..], b"copy me");
    });
}

#[test]
fn a_websocket_is_opened_when_it_is_permitted() {
    for (code, answer) in [(200, "HTTP/1.1 101"), (403, "HTTP/1.1 403")] {
        on_worker(async move {
            let world = world(guarded(filter(over_http("", &[], &[]), 100)));
            world.app(4, notes(plain(code)).0);
            world.raw(
                1,
                Rc::new(|mut stream, _| {
                    spawn_local(async move {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            head.push(stream.read_u8().await.unwrap());
                        }
                        let says =
                            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
                        stream.write_all(says).await.unwrap();
                        let _ = stream.read_u8().await;
                    });
                }),
            );
            let mut client = world.connect_raw();
            let head = "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            client.write_all(head.as_bytes()).await.unwrap();
            let mut said = [0; 12];
            client.read_exact(&mut said).await.unwrap();
            assert_eq!(&said[..], answer.as_bytes());
        });
    }
}

/// To a client of HTTP/2 every success means that its WebSocket is open.
#[test]
fn a_no_is_never_a_success_to_who_opens_a_websocket_over_http_2() {
    for (said, heard) in [(200, 403), (204, 403), (302, 302), (401, 401)] {
        on_worker(async move {
            let world = world(guarded(filter(over_grpc(), 0)));
            world.app(
                4,
                decides(move |_| {
                    let status = Some(weft_api::envoy::r#type::v3::HttpStatus { code: said });
                    let denied = DeniedHttpResponse { status, ..DeniedHttpResponse::default() };
                    says(7, Some(HttpResponse::DeniedResponse(denied)))
                }),
            );
            let mut client = world.connect(Version::HTTP_2).await;
            // Until the server's settings are here.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Client::H2(sender) = &mut client else { unreachable!() };
            let mut request = Request::connect("http://web.shop/chat").body(empty()).unwrap();
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), heard, "{said}");
        });
    }
}

#[test]
fn an_authorizer_of_a_gateway_is_asked_in_its_own_version_and_told_the_scheme() {
    on_worker(async {
        let mut made = guarded(filter(over_http("/check", &["x-forwarded-for"], &[]), 0));
        let mut changes = service("auth", AppProtocol::H2c, &[4]);
        changes.extend([https("any"), at(&["any"], made.clone())]);
        let world = World::new(changes);
        let (authorizer, asked) = notes(plain(200));
        world.app(4, authorizer);
        [1, 2].into_iter().for_each(|last| world.app(last, status(200)));
        let mut client = world.connect_gateway(Version::HTTP_11, Some(key_of("any"))).await;
        let request = || Request::get("/x?y=1").header("host", "a.com").header("x-forwarded-for", "10.9.9.9");
        assert_eq!(client.ask(request().body(empty()).unwrap()).await.0, 200);
        let (head, _) = asked.borrow_mut().pop().unwrap();
        assert_eq!((head.version, head.uri.path_and_query().unwrap().as_str()), (Version::HTTP_2, "/check/x?y=1"));
        assert_eq!((host(&head), &head.headers["x-forwarded-for"]), ("a.com".into(), &"192.0.2.7".parse().unwrap()));
        made.filters = vec![filter(over_grpc(), 0)];
        world.apply(&[at(&["any"], made)]);
        let told = Rc::new(RefCell::new(None));
        let noted = Rc::clone(&told);
        world.app(
            4,
            decides(move |http| {
                *noted.borrow_mut() = Some((http.scheme, http.host));
                says(0, None)
            }),
        );
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(client.ask(request().body(empty()).unwrap()).await.0, 200);
        assert_eq!(told.take(), Some(("https".to_owned(), "a.com".to_owned())));
    });
}

#[test]
fn a_grpc_client_hears_a_grpc_status() {
    for (code, status) in [(401, "16"), (403, "7"), (404, "12"), (503, "14"), (200, "2")] {
        on_worker(async move {
            let mut rule = guarded(filter(over_grpc(), 0));
            rule.key.route.kind = RouteKind::Grpc;
            let world = world(rule);
            world.app(
                4,
                decides(move |_| {
                    let denied = DeniedHttpResponse {
                        status: Some(weft_api::envoy::r#type::v3::HttpStatus { code }),
                        headers: vec![header("x-why", "so"), header("grpc-status", "0"), header("content-type", "a/b")],
                        body: "page".into(),
                    };
                    says(7, Some(HttpResponse::DeniedResponse(denied)))
                }),
            );
            let mut client = world.connect(Version::HTTP_2).await;
            let request = Request::post("/a/B").header("content-type", "application/grpc").body(empty()).unwrap();
            let (http, headers, body) = client.ask(request).await;
            assert_eq!((http, headers["grpc-status"].to_str().unwrap(), body.len()), (200, status, 0));
            assert_eq!(headers["content-type"], "application/grpc");
            assert_eq!((headers["x-why"].to_str().unwrap(), headers.get_all("grpc-status").iter().count()), ("so", 1));
        });
    }
}

#[test]
fn a_page_can_read_the_no_and_a_preflight_asks_nobody() {
    on_worker(async {
        let cors = Cors {
            allow_origins: vec![OriginMatch::new("https://a.com").unwrap()],
            allow_methods: vec!["PUT".into()],
            ..Cors::default()
        };
        let mut rule = guarded(filter(over_http("", &[], &[]), 0));
        rule.filters.push(HttpFilter::Cors(cors));
        let world = world(rule);
        let (authorizer, asked) = notes(plain(401));
        world.app(4, authorizer);
        let mut client = world.connect(Version::HTTP_11).await;
        let preflight = Request::options("/")
            .header("origin", "https://a.com")
            .header("access-control-request-method", "PUT")
            .body(empty())
            .unwrap();
        let (status, headers, _) = client.ask(preflight).await;
        assert!((200..300).contains(&status) && headers.contains_key("access-control-allow-origin"), "{status}");
        assert!(asked.borrow().is_empty());
        let (status, headers, _) =
            client.ask(Request::put("/").header("origin", "https://a.com").body(empty()).unwrap()).await;
        assert_eq!(
            (status, &headers["access-control-allow-origin"]),
            (401, &"https://a.com".parse::<HeaderValue>().unwrap())
        );
        world.down(4, true);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let (status, headers, _) =
            client.ask(Request::put("/").header("origin", "https://a.com").body(empty()).unwrap()).await;
        assert_eq!((status, headers.contains_key("access-control-allow-origin")), (403, true));
    });
}

/// A kept connection that the authorizer closes at the wrong moment is no reason to turn a client away.
#[test]
fn a_question_that_a_connection_lost_is_asked_again_once() {
    on_worker(async {
        let world = world(guarded(filter(over_http("", &[], &[]), 0)));
        let heard = Rc::new(Cell::new(0));
        let counted = Rc::clone(&heard);
        world.raw(
            4,
            Rc::new(move |mut stream, _| {
                let counted = Rc::clone(&counted);
                spawn_local(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    counted.set(counted.get() + 1);
                    // Every other one is lost.
                    if counted.get() % 2 == 0 {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                            .await;
                    }
                });
            }),
        );
        world.app(1, status(200));
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.ask(Request::post("/").body(empty()).unwrap()).await.0, 200);
        assert_eq!(heard.get(), 2);
    });
}
