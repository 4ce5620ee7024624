//! Who made an answer, and why: what pods and clients from outside hear of it, and what is kept.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, Version};
use weft_core::change::{Change, Resource};
use weft_core::route::{Retry, Timeouts};
use weft_core::service::AppProtocol;
use weft_core::workload::{Enrolment, Workload};

use super::gateway::{at, http};
use super::inbound::workload;
use super::world::*;
use crate::records::Record;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// The pod behind endpoint 1 is one of the mesh, on another node.
pub(super) fn meshed() -> Change {
    let workload = Workload { addresses: vec![address(1).ip()], node: "n2".into(), ..workload() };
    assert_eq!(workload.enrolment, Enrolment::Enrolled);
    Change::Upsert(Resource::Workload(Arc::new(workload)))
}

/// An application, or what answers for it, with a status and headers.
pub(super) fn says(code: u16, headers: &'static [(&'static str, &'static str)]) -> App {
    Rc::new(move |_, _| {
        let mut response = Response::builder().status(code);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Box::pin(async move { response.body(empty()).unwrap() })
    })
}

/// The proxy of the pod behind endpoint 1, which refuses in the form that it is asked in: HTTP, gRPC or the browser's form of it.
fn refuses() -> App {
    Rc::new(move |request, _| {
        let kind = request.headers().get("content-type").map_or("text/plain", |kind| kind.to_str().unwrap()).to_owned();
        let response = Response::builder()
            .header("x-weft-reason", "policy_denied")
            .header("x-weft-by", "destination shop/cart-1")
            .header("content-type", &kind);
        let said = b"grpc-status:7\r\ngrpc-message:policy_denied\r\n";
        let framed = [&[0x80, 0, 0, 0, u8::try_from(said.len()).unwrap()][..], said].concat();
        let response = match () {
            () if kind == "text/plain" => response.status(403).body(full("policy_denied")),
            () if kind.starts_with("application/grpc-web") => response.body(full(framed)),
            () => response.header("grpc-status", "7").header("grpc-message", "policy_denied").body(empty()),
        };
        Box::pin(async move { response.unwrap() })
    })
}

fn kept(world: &World) -> Record {
    let mut found = world.records.find(None, 100);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_pod_hears_the_id_the_reason_and_whose_proxy_it_was() {
    for version in BOTH {
        on_worker(async move {
            let world = World::new(vec![upsert(rule(0, "/none", vec![backend("web")]))]);
            let mut client = world.connect(version).await;
            let (status, headers, body) = client.get("/").await;
            assert_eq!((status, &body[..]), (404, &b"no_route"[..]));
            assert_eq!(
                (&headers["x-weft-reason"], &headers["x-weft-by"]),
                (&"no_route".parse().unwrap(), &"source plain/client".parse().unwrap())
            );
            assert_eq!(headers["x-request-id"].len(), 36, "{headers:?}");
            let logged = world.logged();
            assert_eq!(logged[0]["request_id"], headers["x-request-id"].to_str().unwrap());
            assert_eq!(logged[0]["made_by"], "proxy");
            let record = kept(&world);
            assert_eq!(record.request_id, headers["x-request-id"].to_str().unwrap());
            assert_eq!((record.object.as_str(), record.answered_by.as_str()), ("Service shop/web:80", "plain/client"));
            let named = Request::get("/").header("x-request-id", "mine").body(empty()).unwrap();
            assert_eq!(client.ask(named).await.1["x-request-id"], "mine");
            let strange = Request::get("/").header("x-request-id", "not an id").body(empty()).unwrap();
            assert_eq!(client.ask(strange).await.1["x-request-id"].len(), 36);
        });
    }
}

#[test]
fn a_client_from_outside_hears_the_id_only() {
    for version in BOTH {
        on_worker(async move {
            let mut changes = service("web", AppProtocol::Http, &[1]);
            changes.extend(service("empty", AppProtocol::Http, &[]));
            let changes = [
                changes,
                vec![
                    http("any"),
                    meshed(),
                    at(&["any"], rule(0, "/web", vec![backend("web")])),
                    at(&["any"], rule(1, "/empty", vec![backend("empty")])),
                ],
            ];
            let world = World::new(changes.concat());
            world.app(1, says(403, &[("x-weft-reason", "policy_denied"), ("x-weft-by", "destination shop/cart-1")]));
            let mut client = world.connect_gateway(version, None).await;
            for (path, code, reason, by) in [
                ("/", 404, "no_route", ""),
                ("/empty", 503, "no_endpoint", ""),
                ("/web", 403, "policy_denied", "shop/cart-1"),
            ] {
                let request = Request::get(path).header("host", "a.com").body(empty()).unwrap();
                let (status, headers, body) = client.ask(request).await;
                assert_eq!(status, code, "{path}");
                assert!(!headers.contains_key("x-weft-reason") && !headers.contains_key("x-weft-by"), "{headers:?}");
                let logged = &world.logged()[0];
                assert_eq!((&logged["reason"], &logged["made_by"]), (&reason.into(), &"proxy".into()), "{path}");
                let id = logged["request_id"].as_str().unwrap();
                if by.is_empty() {
                    assert_eq!(headers["x-request-id"], id);
                    assert_eq!(body, format!("request {id}"));
                }
                let record = world.records.find(Some(id), 1).remove(0);
                assert_eq!(record.reporter, "gateway");
                if reason == "no_route" {
                    assert_eq!(record.object, "Gateway edge/gw");
                }
                assert_eq!(record.answered_by, if by.is_empty() { "plain/client" } else { by });
            }
            let call = Request::post("/empty").header("host", "a.com").header("content-type", "application/grpc");
            let headers = client.ask(call.body(empty()).unwrap()).await.1;
            assert_eq!(headers["grpc-status"], "14");
            assert_eq!(headers["grpc-message"], format!("request {}", headers["x-request-id"].to_str().unwrap()));
            assert!(!headers.contains_key("x-weft-reason"), "{headers:?}");
        });
    }
}

#[test]
fn a_client_from_outside_hears_no_reason_of_the_destinations_proxy_either() {
    for (version, by) in
        BOTH.into_iter().flat_map(|version| [AppProtocol::Http, AppProtocol::H2c].map(|by| (version, by)))
    {
        on_worker(async move {
            let mut changes = service("web", by, &[1]);
            changes.extend([http("any"), meshed(), at(&["any"], rule(0, "", vec![backend("web")]))]);
            let world = World::new(changes);
            let mut client = world.connect_gateway(version, None).await;
            let web = "application/grpc-web+proto";
            world.app(1, refuses());
            for (method, sent) in
                [("GET", None), ("HEAD", None), ("POST", Some("application/grpc")), ("POST", Some(web))]
            {
                let mut request = Request::builder().method(method).uri("/a.B/C").header("host", "a.com");
                if let Some(kind) = sent {
                    request = request.header("content-type", kind);
                }
                let (status, headers, body) = client.ask(request.body(empty()).unwrap()).await;
                assert_eq!(status, if sent.is_some() { 200 } else { 403 }, "{version:?} {method} {sent:?}");
                let seen = format!("{headers:?} {}", String::from_utf8_lossy(&body));
                assert!(!seen.contains("policy_denied") && !seen.contains("x-weft-"), "{seen}");
                let logged = &world.logged()[0];
                assert_eq!(logged["reason"], "policy_denied");
                let text = format!("request {}", logged["request_id"].as_str().unwrap());
                assert_eq!(seen.contains(&text), method != "HEAD", "{seen}");
                if let Some(length) = headers.get("content-length").filter(|_| method != "HEAD") {
                    assert_eq!(length.to_str().unwrap(), body.len().to_string());
                }
                if sent == Some("application/grpc") {
                    assert_eq!(
                        (&headers["grpc-status"], &headers["grpc-message"]),
                        (&"7".parse().unwrap(), &text.parse().unwrap())
                    );
                }
            }
        });
    }
}

#[test]
fn statuses_that_an_application_makes_up_are_one_class_and_long_paths_are_cut() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        let mut client = world.connect(Version::HTTP_11).await;
        // The one connection to the endpoint is kept: the same application says both.
        let code = Rc::new(std::cell::Cell::new(600));
        let said = Rc::clone(&code);
        world.app(1, Rc::new(move |request, address| says(said.get(), &[])(request, address)));
        for made_up in [600, 999] {
            code.set(made_up);
            assert_eq!(client.get("/").await.0, made_up);
        }
        let page = world.registry.render();
        let none =
            |line: &&str| line.starts_with("weft_http_requests_total{") && line.contains("response_class=\"none\"");
        assert_eq!(page.lines().filter(none).count(), 1, "{page}");
        assert_eq!(world.metric("weft_http_requests_total", &["response_class=\"none\""]), Some(2.0));
        world.logged();
        client.get(&format!("/{}", "x".repeat(3000))).await;
        assert_eq!(world.logged()[0]["path"].as_str().unwrap().len(), 1024);
        let kept = world.records.find(None, 1).remove(0);
        assert_eq!(kept.path.len(), 512);
    });
}

#[test]
fn a_request_that_its_client_gives_up_before_there_is_an_answer_is_told_of() {
    for version in BOTH {
        on_worker(async move {
            let changes = [service("web", AppProtocol::Http, &[1]), vec![upsert(rule(3, "", vec![backend("web")]))]];
            let world = World::new(changes.concat());
            world.app(1, Rc::new(|_, _| Box::pin(std::future::pending())));
            let mut client = world.connect(version).await;
            let asking = client.send(Request::get("/slow").body(empty()).unwrap());
            let patience = std::time::Duration::from_secs(3);
            assert!(tokio::time::timeout(patience, asking).await.is_err());
            drop(client);
            let mut logged = world.logged();
            while logged.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                logged = world.logged();
            }
            let word = |key: &str| logged[0][key].as_str().unwrap().to_owned();
            assert_eq!(
                (word("path"), word("reason"), word("rule")),
                ("/slow".into(), "downstream_reset".into(), "3".into())
            );
            assert_eq!((word("endpoint"), logged[0]["status"].as_u64()), (address(1).to_string(), Some(0)));
            let needles = ["response_class=\"none\"", "reason=\"downstream_reset\"", "route=\"HTTPRoute/shop/r\""];
            assert_eq!(world.metric("weft_http_requests_total", &needles), Some(1.0), "{}", world.registry.render());
            let record = kept(&world);
            assert_eq!((record.reason.as_str(), record.backend.as_str()), ("downstream_reset", "shop/web:80"));
            assert!(record.duration_ms >= 3000.0 && !record.request_id.is_empty(), "{record:?}");
        });
    }
}

#[test]
fn a_request_that_outlives_its_endpoints_workload_is_counted() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let ended = std::cell::RefCell::new(Some(ended));
        let app: App = Rc::new(move |_, _| {
            let ended = ended.borrow_mut().take().unwrap();
            let rest = futures::FutureExt::map(ended, |_| Ok(http_body::Frame::data("x".into())));
            let body = http_body_util::StreamBody::new(futures::FutureExt::into_stream(rest));
            Box::pin(async move { Response::new(http_body_util::BodyExt::boxed(body)) })
        });
        world.app(1, app);
        let mut client = world.connect(Version::HTTP_11).await;
        let answer = client.send(Request::get("/").body(empty()).unwrap()).await.unwrap();
        // Two looks find nobody that the series names.
        for _ in 0..2 {
            world.registry.retain(&crate::telemetry::Alive::default());
        }
        end.send(()).unwrap();
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        assert_eq!(world.metric("weft_http_requests_total", &["response_class=\"2xx\""]), Some(1.0));
    });
}

#[test]
fn the_mark_of_the_destinations_proxy_is_believed_and_nobody_elses() {
    on_worker(async {
        // Where endpoint 1 is, who it says has answered, and whether that is believed.
        for (in_mesh, by, believed) in [
            (true, "destination shop/cart-1", true),
            (true, "destination shop/web-1", false),
            (true, "source shop/cart-1", false),
            (false, "destination shop/cart-1", false),
        ] {
            let mut changes = service("web", AppProtocol::Http, &[1]);
            changes.extend(in_mesh.then(meshed));
            let world = World::new(changes);
            let marks: &'static [_] = vec![("x-weft-reason", "connect_failed"), ("x-weft-by", by)].leak();
            world.app(1, says(503, marks));
            let mut client = world.connect(Version::HTTP_11).await;
            let (status, headers, _) = client.get("/").await;
            assert_eq!(
                (status, headers.contains_key("x-weft-reason"), headers.contains_key("x-weft-by")),
                (503, believed, believed),
                "{by}"
            );
            let logged = &world.logged()[0];
            let (reason, made_by) = if believed { ("connect_failed", "network") } else { ("ok", "application") };
            assert_eq!((&logged["reason"], &logged["made_by"]), (&reason.into(), &made_by.into()), "{by}");
        }
        // A code that is none is nobody's word.
        let world = World::new([service("web", AppProtocol::Http, &[1]), vec![meshed()]].concat());
        world.app(1, says(200, &[("x-weft-reason", "all_is_well"), ("x-weft-by", "destination shop/cart-1")]));
        let (_, headers, _) = world.connect(Version::HTTP_11).await.get("/").await;
        assert!(!headers.contains_key("x-weft-reason"), "{headers:?}");
    });
}

#[test]
fn a_failure_of_the_application_is_told_from_ours_and_has_an_id() {
    on_worker(async {
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        world.app(1, says(500, &[]));
        let mut client = world.connect(Version::HTTP_2).await;
        let (status, headers, _) = client.get("/broken?token=secret").await;
        assert_eq!((status, headers["x-request-id"].len(), headers.get("x-weft-reason")), (500, 36, None));
        let record = kept(&world);
        assert_eq!(record.request_id, headers["x-request-id"].to_str().unwrap());
        assert_eq!((record.reason.as_str(), record.made_by.as_str()), ("ok", "application"));
        assert_eq!((record.path.as_str(), record.answered_by.as_str()), ("/broken", ""), "{record:?}");
        // Its own id is the one by which it is known.
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        world.app(1, says(500, &[("x-request-id", "theirs")]));
        let (_, headers, _) = world.connect(Version::HTTP_11).await.get("/").await;
        assert_eq!(headers["x-request-id"], "theirs");
        assert_eq!(world.records.find(Some("theirs"), 9).len(), 1);
        // What isn't the server's failure is left alone.
        let world = World::new(service("web", AppProtocol::Http, &[1]));
        world.app(1, says(404, &[]));
        let (_, headers, _) = world.connect(Version::HTTP_11).await.get("/").await;
        assert!(!headers.contains_key("x-request-id"), "{headers:?}");
        assert!(world.records.find(None, 9).is_empty());
    });
}

#[test]
fn a_record_names_each_endpoint_that_was_tried_and_what_came_of_it() {
    on_worker(async {
        let mut made = rule(3, "", vec![backend("other")]);
        made.retry = Some(Retry {
            attempts: 1,
            codes: vec![http::StatusCode::SERVICE_UNAVAILABLE],
            backoff: std::time::Duration::from_millis(10),
        });
        made.timeouts = Timeouts::default();
        let world = World::new([vec![upsert(made)], service("other", AppProtocol::Http, &[1, 2])].concat());
        world.app(1, status(503));
        world.app(2, status(503));
        let (status, _, _) = world.connect(Version::HTTP_11).await.get("/x").await;
        assert_eq!(status, 503);
        let record = kept(&world);
        let outcomes: Vec<_> = record.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        assert_eq!(outcomes, ["503", "503"], "{record:?}");
        assert_ne!(record.attempts[0].endpoint, record.attempts[1].endpoint);
        assert_eq!((record.route.as_str(), record.rule.as_str()), ("HTTPRoute/shop/r", "3"));
        assert_eq!((record.service.as_str(), record.backend.as_str()), ("shop/web:80", "shop/other:80"));
    });
}

#[test]
fn who_cannot_be_reached_is_named_as_often_as_it_was_tried() {
    on_worker(async {
        let world = World::new(vec![upsert(rule(3, "", vec![backend("web")]))]);
        let (status, headers, _) = world.connect(Version::HTTP_11).await.get("/x").await;
        assert_eq!((status, &headers["x-weft-reason"]), (503, &"connect_failed".parse().unwrap()));
        let record = kept(&world);
        assert!(record.attempts.len() >= 2, "{record:?}");
        assert!(record.attempts.iter().all(|attempt| attempt.outcome == "connect_failed"), "{record:?}");
        assert_eq!((record.made_by.as_str(), record.backend.as_str()), ("network", "shop/web:80"));
    });
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_answered_with_an_id() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    on_worker(async {
        let world = World::new(vec![http("any")]);
        for outside in [false, true] {
            let mut stream = if outside { world.connect_gateway_raw(None) } else { world.connect_raw() };
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a.com\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\n"), "{answer}");
            let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
            assert_eq!(world.records.find(Some(id), 1)[0].reason, "header_timeout");
            assert_eq!(
                answer.contains("x-weft-reason: header_timeout\r\nx-weft-by: source plain/client\r\n"),
                !outside
            );
            assert_eq!(answer.contains("x-weft-"), !outside, "{answer}");
        }
    });
}
