//! Bodies, streams, upgrades, and what is told about them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use weft_core::route::{HeaderModifier, HttpFilter};
use weft_core::service::AppProtocol;

use super::world::*;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

#[test]
fn a_request_and_its_answer_pass_and_are_told() {
    for version in BOTH {
        on_worker(async {
            let set =
                HeaderModifier { set: vec![("x-set".parse().unwrap(), "1".parse().unwrap())], ..Default::default() };
            let filters = vec![HttpFilter::ResponseHeaders(set)];
            let world =
                World::new(vec![upsert(weft_core::route::HttpRule { filters, ..rule(0, "/a", vec![backend("web")]) })]);
            world.app(1, echo());
            world.app(2, echo());
            let mut client = world.connect(version).await;
            let big = Bytes::from(vec![7; 300_000]);
            let (status, headers, body) = client.ask(Request::post("/a/b/../c").body(full(big.clone())).unwrap()).await;
            assert_eq!((status, body), (200, big));
            assert_eq!(headers["x-path"], "/a/c", "forwarded as matched");
            assert_eq!(headers["x-set"], "1");
            assert_eq!(client.get("/nowhere").await.0, 404);

            let labels = ["source_workload=\"client\"", "destination_service=\"web\"", "route=\"HTTPRoute/shop/r\""];
            let with = |more: &'static str| labels.into_iter().chain([more]).collect::<Vec<_>>();
            assert_eq!(world.metric("weft_http_requests_total", &with("response_class=\"2xx\"")), Some(1.0));
            let of_client = ["reporter=\"source\"", "workload=\"client\""];
            assert_eq!(world.metric("weft_http_request_body_bytes_sum", &of_client), Some(300_000.0));
            assert!(world.metric("weft_http_response_body_bytes_sum", &of_client) >= Some(300_000.0));
            let of_route = &labels[1..];
            assert_eq!(world.metric("weft_http_request_duration_seconds_count", of_route), Some(1.0));
            assert!(world.metric("weft_http_request_time_seconds_total", &labels).is_some());
            assert_eq!(world.metric("weft_http_requests_total", &["reason=\"no_route\"", "4xx"]), Some(1.0));
            let log = world.logged();
            assert_eq!(log.len(), 2);
            assert_eq!((log[0]["status"].as_u64(), log[0]["path"].as_str()), (Some(200), Some("/a/c")));
            assert_eq!((log[0]["authority"].as_str(), log[0]["rule"].as_str()), (Some("web.shop"), Some("0")));
            assert_eq!(log[0]["response_bytes"], 300_000);
            assert_eq!(log[0]["connection_security"], "plaintext");
            assert_eq!((log[1]["reason"].as_str(), log[1]["status"].as_u64()), (Some("no_route"), Some(404)));
        });
    }
}

#[test]
fn the_first_event_of_a_stream_arrives_before_it_ends() {
    for version in BOTH {
        on_worker(async {
            let world = World::new(vec![]);
            for last in [1, 2] {
                world.app(
                    last,
                    std::rc::Rc::new(|_, _| {
                        Box::pin(async {
                            let (mut sender, body) = Channel::<Bytes>::new(1);
                            tokio::task::spawn_local(async move {
                                for event in ["one", "two"] {
                                    if sender.send_data(event.into()).await.is_err() {
                                        return;
                                    }
                                    tokio::time::sleep(Duration::from_secs(60)).await;
                                }
                            });
                            Response::new(body.map_err(|never| match never {}).boxed())
                        })
                    }),
                );
            }
            let mut client = world.connect(version).await;
            let started = Instant::now();
            let mut body = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "one");
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            assert_eq!(body.collect().await.unwrap().to_bytes(), "two");
            assert!(started.elapsed() >= Duration::from_secs(120));
        });
    }
}

#[test]
fn trailers_pass_and_tell_the_grpc_status() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Grpc, &[1]));
        world.app(
            1,
            std::rc::Rc::new(|request, _| {
                Box::pin(async move {
                    assert_eq!(request.headers()["te"], "trailers");
                    assert_eq!(request.version(), Version::HTTP_2);
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "5".parse().unwrap());
                    let frames = [Ok(Frame::data(Bytes::from("m"))), Ok(Frame::trailers(trailers))];
                    Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
                })
            }),
        );
        let mut client = world.connect(Version::HTTP_2).await;
        let request = Request::post("/pkg.S/M").header("content-type", "application/grpc").header("te", "trailers");
        let response = client.send(request.body(full("q")).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "5");
        assert_eq!(world.metric("weft_http_requests_total", &["grpc_status=\"5\"", "protocol=\"grpc\""]), Some(1.0));
    });
}

#[test]
fn local_replies_of_grpc_calls_carry_a_grpc_status() {
    for (changes, code, reason) in [
        (vec![upsert(rule(0, "/none", vec![backend("web")]))], "12", "no_route"),
        (service("web", AppProtocol::Grpc, &[]), "14", "no_endpoint"),
    ] {
        on_worker(async {
            let world = World::new(changes);
            let mut client = world.connect(Version::HTTP_2).await;
            let request = Request::post("/pkg.S/M").header("content-type", "application/grpc").body(full("q")).unwrap();
            let (status, headers, body) = client.ask(request).await;
            assert_eq!((status, headers["grpc-status"].to_str().unwrap()), (200, code));
            assert_eq!(headers["grpc-message"], reason);
            assert!(body.is_empty());
        });
    }
}

#[test]
fn after_101_bytes_pass_both_ways() {
    on_worker(async {
        let world = World::new(vec![]);
        for last in [1, 2] {
            world.raw(last, std::rc::Rc::new(|mut stream, _| drop(tokio::task::spawn_local(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
                let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut got = [0; 4];
                stream.read_exact(&mut got).await.unwrap();
                stream.write_all(&got).await.unwrap();
                stream.shutdown().await.unwrap();
            }))));
        }
        let mut client = world.connect_raw();
        let head = "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nping";
        client.write_all(head.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert!(all.starts_with("HTTP/1.1 101"), "{all}");
        assert!(all.contains("upgrade: websocket"), "{all}");
        assert!(all.ends_with("\r\n\r\nhelloping"), "{all}");
        assert_eq!(world.metric("weft_http_requests_total", &["response_class=\"1xx\""]), Some(1.0));
    });
}

#[test]
fn connections_are_used_again_and_a_stale_one_costs_nobody_a_request() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        world.app(1, echo());
        let mut client = world.connect(Version::HTTP_11).await;
        for _ in 0..10 {
            assert_eq!(client.get("/").await.0, 200);
        }
        assert_eq!(world.net.dials.get(), 1);
        // One answer per connection, then it is gone without a word: the next request finds out.
        world.raw(
            1,
            std::rc::Rc::new(|mut stream, _| {
                drop(tokio::task::spawn_local(async move {
                    let mut buf = [0; 4096];
                    assert!(stream.read(&mut buf).await.unwrap() > 0);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                    // It takes the next request before it closes.
                    let _ = stream.read(&mut buf).await;
                }))
            }),
        );
        world.engine.pool.sweep(Instant::now() + Duration::from_secs(600));
        for _ in 0..5 {
            assert_eq!(client.get("/").await.0, 200);
        }
        assert!(world.net.dials.get() > 2);
    });
}

#[test]
fn a_hundred_route_edits_under_load_fail_no_request() {
    for version in BOTH {
        on_worker(async {
            let world = World::new(vec![upsert(rule(0, "/", vec![backend("web")]))]);
            for last in 1..=3 {
                world.app(last, echo());
            }
            let mut seen = std::collections::HashSet::new();
            let mut clients = Vec::new();
            for _ in 0..8 {
                clients.push(world.connect(version).await);
            }
            for edit in 0..100 {
                let to = if edit % 2 == 0 { "other" } else { "web" };
                world.apply(&[upsert(rule(0, "/", vec![backend(to)]))]);
                let asks = clients.iter_mut().map(|client| client.get("/"));
                for (status, headers, _) in futures::future::join_all(asks).await {
                    assert_eq!(status, 200);
                    let endpoint = headers["x-endpoint"].to_str().unwrap().to_owned();
                    assert_eq!(endpoint == "10.0.0.3", to == "other", "the edit is live at once");
                    seen.insert(endpoint);
                }
            }
            assert_eq!(seen.len(), 3);
            assert_eq!(world.metric("weft_http_requests_total", &["5xx"]), None);
        });
    }
}
