//! What a rule does for a Service it does at a Gateway: the same rules, asked at both.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use weft_core::route::{
    BackendTarget, Cors, Fraction, HeaderMatch, HeaderModifier, HttpBackend, HttpFilter, HttpMatch, InvalidBackend,
    Mirror, OriginMatch, PathMatch, QueryMatch, Retry, Rewrite, TextMatch, Timeouts,
};

use super::*;

/// An application that says what it was asked.
fn tells() -> App {
    Rc::new(|request, _| {
        Box::pin(async move {
            let mut response = Response::new(full(format!("{} {}", request.method(), request.uri())));
            for (name, value) in request.headers() {
                let name = HeaderName::try_from(format!("was-{name}")).unwrap();
                response.headers_mut().append(name, value.clone());
            }
            response.headers_mut().insert("x-plain", "1".parse().unwrap());
            response
        })
    })
}

/// The answers to a request at the Service `web` and at a listener, which are the same but for what a Gateway tells of its
/// clients, and what it doesn't tell them: why it answered itself.
async fn answer(
    rule: &HttpRule,
    app: impl Fn() -> App,
    request: impl Fn() -> Request<Body>,
) -> (u16, HeaderMap, String) {
    let mut answers = Vec::new();
    for at_gateway in [false, true] {
        let changes =
            if at_gateway { vec![http("any"), at(&["any"], rule.clone())] } else { vec![upsert(rule.clone())] };
        let world = World::new(changes);
        [1, 2, 3].into_iter().for_each(|last| world.app(last, app()));
        let mut client = match at_gateway {
            false => world.connect(Version::HTTP_11).await,
            true => world.connect_gateway(Version::HTTP_11, None).await,
        };
        let (status, mut headers, body) = client.ask(request()).await;
        let of_client = [
            "was-x-forwarded-for",
            "was-x-forwarded-proto",
            "was-x-forwarded-host",
            "was-x-forwarded-port",
            "was-x-request-id",
        ];
        for name in of_client.into_iter().chain(["date"]) {
            headers.remove(name);
        }
        answers.push((status, headers, String::from_utf8(body.to_vec()).unwrap()));
    }
    let (mut at_gateway, mut at_service) = (answers.pop().unwrap(), answers.pop().unwrap());
    let ids = [&mut at_gateway, &mut at_service].map(|answer| answer.1.remove("x-request-id"));
    if let Some(reason) = at_service.1.remove("x-weft-reason") {
        assert!(at_service.1.remove("x-weft-by").is_some() && ids[1].is_some());
        if !at_service.2.is_empty() {
            assert_eq!(at_service.2, reason.to_str().unwrap());
            assert_eq!(at_gateway.2, format!("request {}", ids[0].as_ref().unwrap().to_str().unwrap()));
            for answer in [&mut at_gateway, &mut at_service] {
                answer.2.clear();
                answer.1.remove("content-length");
            }
        }
    }
    assert_eq!(at_service, at_gateway);
    at_gateway
}

fn modifier(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderModifier {
    let pair =
        |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) { (name.parse().unwrap(), value.parse().unwrap()) };
    HeaderModifier {
        set: set.iter().map(pair).collect(),
        add: add.iter().map(pair).collect(),
        remove: remove.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn filters_of_a_rule_and_of_a_backend() {
    on_worker(async {
        let rewrite = Rewrite {
            hostname: Some("one.example.org".parse().unwrap()),
            path: Some(PathModifier::Prefix("/new".into())),
        };
        let of_backend = HttpBackend {
            filters: vec![HttpFilter::RequestHeaders(modifier(&[("x-of", "backend")], &[], &[]))],
            ..backend("web")
        };
        let rule = HttpRule {
            filters: vec![
                HttpFilter::Rewrite(rewrite),
                HttpFilter::RequestHeaders(modifier(&[("x-set", "new")], &[("x-add", "more")], &["x-gone"])),
                HttpFilter::ResponseHeaders(modifier(&[("x-answer", "1")], &[], &["x-plain"])),
            ],
            ..rule(0, "/old", vec![of_backend])
        };
        let request = || {
            let mut request = get("web.shop", "/old/x?y=1");
            for (name, value) in [("x-set", "old"), ("x-add", "first"), ("x-gone", "1")] {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            request
        };
        let (status, headers, body) = answer(&rule, tells, request).await;
        assert_eq!((status, body.as_str()), (200, "GET /new/x?y=1"));
        let was = |name: &str| values(&headers, &format!("was-{name}"));
        assert_eq!(
            (was("host"), was("x-set"), was("x-gone").len()),
            (vec!["one.example.org".into()], vec!["new".into()], 0)
        );
        assert_eq!((was("x-add").join(","), was("x-of")), ("first,more".into(), vec!["backend".into()]));
        assert_eq!((values(&headers, "x-answer"), headers.contains_key("x-plain")), (vec!["1".to_owned()], false));
    });
}

#[test]
fn the_host_that_was_rewritten_is_told_at_a_gateway() {
    on_worker(async {
        let rewrite = Rewrite { hostname: Some("one.example.org".parse().unwrap()), path: None };
        let rewritten =
            HttpRule { filters: vec![HttpFilter::Rewrite(rewrite)], ..rule(0, "/new", vec![backend("web")]) };
        let kept = rule(1, "/kept", vec![backend("web")]);
        let world = World::new(vec![http("any"), at(&["any"], rewritten), at(&["any"], kept)]);
        [1, 2].into_iter().for_each(|last| world.app(last, tells()));
        for version in BOTH {
            let mut client = world.connect_gateway(version, None).await;
            let (_, headers, _) = client.ask(get("a.com", "/new")).await;
            assert_eq!(values(&headers, "was-x-forwarded-host"), ["a.com"], "{version:?}");
            let (_, headers, _) = client.ask(get("a.com", "/kept")).await;
            assert_eq!(values(&headers, "was-x-forwarded-host").len(), 0, "{version:?}");
        }
    });
}

#[test]
fn conditions_on_method_header_and_query() {
    on_worker(async {
        let exact = |text: &str| TextMatch::Exact(text.into());
        let strict = HttpMatch {
            path: PathMatch::Exact("/x".into()),
            method: Some(Method::POST),
            headers: vec![HeaderMatch { name: "version".parse().unwrap(), value: exact("two") }],
            query: vec![QueryMatch { name: "animal".into(), value: exact("whale") }],
        };
        let rule = HttpRule { matches: vec![strict], ..rule(0, "", vec![backend("web")]) };
        for (method, path, version, want) in [
            (Method::POST, "/x?animal=whale", "two", 200),
            (Method::POST, "/x?z=1&animal=whale", "two", 200),
            (Method::GET, "/x?animal=whale", "two", 404),
            (Method::POST, "/x/?animal=whale", "two", 404),
            (Method::POST, "/x?animal=Whale", "two", 404),
            (Method::POST, "/x?animal=whale", "one", 404),
        ] {
            let request = || {
                let mut request = get("web.shop", path);
                *request.method_mut() = method.clone();
                request.headers_mut().insert("version", version.parse().unwrap());
                request
            };
            assert_eq!(answer(&rule, tells, request).await.0, want, "{method} {path} {version}");
        }
    });
}

#[test]
fn limits_of_time_and_tries() {
    on_worker(async {
        let slow = || -> App {
            Rc::new(|_, _| {
                Box::pin(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Response::new(empty())
                })
            })
        };
        let half = Some(Duration::from_millis(500));
        for (timeouts, want) in [
            (Timeouts { request: half, backend_request: None }, 504),
            (Timeouts { request: None, backend_request: half }, 504),
            (Timeouts::default(), 200),
        ] {
            let rule = HttpRule { timeouts, ..rule(0, "", vec![backend("web")]) };
            assert_eq!(answer(&rule, slow, || get("web.shop", "/")).await.0, want, "{timeouts:?}");
        }
        // The endpoints of one Service count together how often they were asked.
        let failing = |times: u32| {
            let asked = Rc::new(Cell::new(0));
            move || -> App {
                let asked = Rc::clone(&asked);
                Rc::new(move |_, _| {
                    asked.set((asked.get() + 1) % (times + 1));
                    let code = if asked.get() == 0 { 200 } else { 503 };
                    Box::pin(async move { Response::builder().status(code).body(empty()).unwrap() })
                })
            }
        };
        let retry = |attempts, code: u16| {
            let codes = vec![StatusCode::from_u16(code).unwrap()];
            Some(Retry { attempts, backoff: Duration::from_millis(1), codes })
        };
        for (retry, want) in [(retry(2, 503), 200), (retry(2, 500), 503), (None, 503)] {
            let rule = HttpRule { retry: retry.clone(), ..rule(0, "", vec![backend("web")]) };
            // Each of both asks an application of its own.
            let app = failing(2);
            let (status, ..) = match want {
                200 => answer(&rule, app, || get("web.shop", "/")).await,
                _ => answer(&rule, || super::super::world::status(503), || get("web.shop", "/")).await,
            };
            assert_eq!(status, want, "{retry:?}");
        }
    });
}

#[test]
fn a_try_that_takes_too_long_or_finds_nobody_is_made_elsewhere() {
    on_worker(async {
        let retry = Retry { attempts: 1, backoff: Duration::from_millis(1), codes: Vec::new() };
        let timeouts = Timeouts { request: None, backend_request: Some(Duration::from_millis(500)) };
        let rule = HttpRule { retry: Some(retry), timeouts, ..rule(0, "", vec![backend("web")]) };
        let world = World::new(vec![http("any"), at(&["any"], rule)]);
        let hangs: App = Rc::new(|_, _| Box::pin(std::future::pending()));
        world.app(1, hangs);
        world.app(2, tells());
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        for _ in 0..4 {
            assert_eq!(client.ask(get("a.com", "/")).await.0, 200, "whichever is asked first");
        }
        world.down(1, true);
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        for _ in 0..4 {
            assert_eq!(client.ask(get("a.com", "/")).await.0, 200);
        }
    });
}

#[test]
fn what_a_rule_answers_itself() {
    on_worker(async {
        let missing = |weight| HttpBackend {
            target: BackendTarget::Invalid { reference: "Service shop/none".into(), reason: InvalidBackend::NotFound },
            weight,
            filters: Vec::new(),
        };
        let none = |weight| HttpBackend { weight, ..backend("web") };
        for (backends, want) in [
            (vec![], 500),
            (vec![none(0)], 500),
            (vec![missing(1)], 500),
            (vec![missing(1), none(0)], 500),
            (vec![missing(0), none(1)], 200),
        ] {
            let rule = rule(0, "", backends.clone());
            assert_eq!(answer(&rule, tells, || get("web.shop", "/")).await.0, want, "{backends:?}");
        }
        let cors = Cors {
            allow_origins: vec![OriginMatch::Exact("https://www.foo.com".into())],
            allow_methods: vec!["GET".into()],
            max_age_seconds: 5,
            ..Cors::default()
        };
        let rule = HttpRule { filters: vec![HttpFilter::Cors(cors)], ..rule(0, "", vec![backend("web")]) };
        let preflight = || {
            let mut request = get("web.shop", "/");
            *request.method_mut() = Method::OPTIONS;
            request.headers_mut().insert("origin", "https://www.foo.com".parse().unwrap());
            request.headers_mut().insert("access-control-request-method", "GET".parse().unwrap());
            request
        };
        let (status, headers, _) = answer(&rule, tells, preflight).await;
        assert!(matches!(status, 200 | 204), "{status}");
        assert_eq!(values(&headers, "access-control-allow-origin"), ["https://www.foo.com"]);
    });
}

#[test]
fn mirrors_of_a_gateway_get_their_share() {
    on_worker(async {
        let mirror = |to: &str, numerator| {
            HttpFilter::Mirror(Mirror {
                backend: BackendTarget::Service(key(to)),
                fraction: Fraction { numerator, denominator: NonZeroU32::new(100).unwrap() },
            })
        };
        let mut changes = service("third", AppProtocol::Http, &[4]);
        changes.extend([
            http("any"),
            at(
                &["any"],
                HttpRule {
                    filters: vec![mirror("other", 100), mirror("third", 100)],
                    ..rule(0, "/all", vec![backend("web")])
                },
            ),
            at(&["any"], HttpRule { filters: vec![mirror("other", 0)], ..rule(1, "/none", vec![backend("web")]) }),
        ]);
        let world = World::new(changes);
        let (copies, thirds) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        [1, 2].into_iter().for_each(|last| world.app(last, tells()));
        for (last, count) in [(3, &copies), (4, &thirds)] {
            let count = Rc::clone(count);
            world.app(
                last,
                Rc::new(move |_, _| {
                    count.set(count.get() + 1);
                    Box::pin(async { Response::new(empty()) })
                }),
            );
        }
        let mut client = world.connect_gateway(Version::HTTP_2, None).await;
        for path in ["/all", "/none"] {
            assert_eq!(client.ask(get("a.com", path)).await.0, 200);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((copies.get(), thirds.get()), (1, 1));
    });
}
