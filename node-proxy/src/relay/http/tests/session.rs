//! Persistent sessions: what a client is told, and where it is sent with that.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Version};
use weft_core::change::{Change, Resource};
use weft_core::gateway::{GatewayRule, Listener, ListenerProtocol};
use weft_core::ids::{CertificateKey, GatewayKey, ListenerKey, Port, RouteKind, SecretKey};
use weft_core::route::*;
use weft_core::service::*;
use weft_core::traffic::*;

use super::world::*;

thread_local! {
    static WALL: Cell<u64> = const { Cell::new(1_000_000) };
}

fn cookie(permanent: bool, hours: Option<u64>) -> SessionPersistence {
    SessionPersistence {
        carrier: SessionCarrier::Cookie { name: CookieName::new("sid").unwrap(), permanent },
        absolute_timeout: hours.map(|hours| Duration::from_secs(3600 * hours)),
        key: SessionKey::new([1; 16]),
    }
}

fn header() -> SessionPersistence {
    SessionPersistence { carrier: SessionCarrier::Header(HeaderName::from_static("x-sid")), ..cookie(false, None) }
}

fn sticky(session: SessionPersistence, rule: HttpRule) -> HttpRule {
    HttpRule { sessions: Sessions::OfRule(Box::new(session)), ..rule }
}

/// Endpoints 1 to 8 of the Service `web`, which are asked in turn.
fn many() -> Vec<Change> {
    service("web", AppProtocol::Http, &[1, 2, 3, 4, 5, 6, 7, 8])
}

fn world(rule: HttpRule) -> World {
    let mut changes = many();
    changes.push(upsert(rule));
    let world = World::new(changes);
    (1..=8).for_each(|last| world.app(last, echo()));
    world.engine.wall.set(|| WALL.get());
    world
}

/// What an answer sets: the cookie as it is to be sent back, and its attributes.
fn set(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get("set-cookie")?.to_str().unwrap();
    let (pair, attributes) = text.split_once("; ").unwrap();
    Some((pair.to_owned(), attributes.to_owned()))
}

async fn ask(client: &mut Client, name: &'static str, value: &str) -> (String, HeaderMap) {
    let mut request = Request::get("/").body(empty()).unwrap();
    if !value.is_empty() {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, headers, body) = client.ask(request).await;
    assert_eq!(status, 200, "{body:?}");
    (headers["x-endpoint"].to_str().unwrap().to_owned(), headers)
}

#[test]
fn a_client_with_its_cookie_stays_and_one_without_does_not() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        on_worker(async move {
            let world = world(sticky(cookie(false, None), rule(0, "/", vec![backend("web")])));
            let mut client = world.connect(version).await;
            let (first, headers) = ask(&mut client, "cookie", "").await;
            let (sid, attributes) = set(&headers).unwrap();
            assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
            assert!(sid.starts_with("sid=") && !sid.contains("10.0.0") && !sid.contains("0a0000"), "{sid}");
            let (other, _) = ask(&mut client, "cookie", "").await;
            assert_ne!(other, first, "in turn without it");
            // On other connections, which other workers and nodes may have, and among other cookies.
            let mut other = world.connect(version).await;
            for cookies in [sid.clone(), format!("a=1; {sid}; b=2"), format!("sid=theirs; {sid}")] {
                for _ in 0..8 {
                    let (endpoint, headers) = ask(&mut other, "cookie", &cookies).await;
                    assert_eq!((&endpoint, set(&headers)), (&first, None), "{cookies}");
                }
            }
        });
    }
}

/// GEP-1619, "Path": other matches of the rule are other paths.
#[test]
fn the_path_of_a_cookie_is_that_of_the_match_that_led_there() {
    on_worker(async {
        let mut rule = sticky(cookie(false, None), rule(0, "/a", vec![backend("web")]));
        let second = HttpMatch { path: PathMatch::Prefix("/b".into()), ..rule.matches[0].clone() };
        rule.matches.push(second);
        let world = world(rule);
        let mut client = world.connect(Version::HTTP_11).await;
        for path in ["/a", "/b"] {
            let request = Request::get(format!("{path}/x")).body(empty()).unwrap();
            let (_, attributes) = set(&client.ask(request).await.1).unwrap();
            assert_eq!(attributes, format!("Path={path}; HttpOnly; SameSite=Lax"));
        }
    });
}

#[test]
fn what_is_no_session_of_ours_means_nothing() {
    on_worker(async {
        let world = world(sticky(cookie(false, None), rule(0, "/", vec![backend("web")])));
        let mut client = world.connect(Version::HTTP_11).await;
        let (_, headers) = ask(&mut client, "cookie", "").await;
        let (sid, _) = set(&headers).unwrap();
        let mut forged = sid.clone().into_bytes();
        let last = forged.len() - 1;
        forged[last] = if forged[last] == b'0' { b'1' } else { b'0' };
        let forged = String::from_utf8(forged).unwrap();
        for cookies in ["sid=", "sid", "sid=10.0.0.1:8080", "other=1", &sid.to_uppercase(), &forged, &sid[..20]] {
            let mut seen = std::collections::HashSet::new();
            for _ in 0..4 {
                let (endpoint, headers) = ask(&mut client, "cookie", cookies).await;
                assert!(set(&headers).is_some(), "{cookies}: a new one");
                seen.insert(endpoint);
            }
            assert_eq!(seen.len(), 4, "{cookies}");
        }
    });
}

#[test]
fn a_permanent_cookie_says_how_long_it_lasts_and_every_session_ends() {
    on_worker(async {
        for (permanent, attributes) in
            [(true, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), (false, "Path=/; HttpOnly; SameSite=Lax")]
        {
            let world = world(sticky(cookie(permanent, Some(1)), rule(0, "/", vec![backend("web")])));
            let mut client = world.connect(Version::HTTP_11).await;
            WALL.set(1_000_000);
            let (first, headers) = ask(&mut client, "cookie", "").await;
            let (sid, said) = set(&headers).unwrap();
            assert_eq!(said, attributes);
            WALL.set(1_000_000 + 3599);
            let (endpoint, headers) = ask(&mut client, "cookie", &sid).await;
            assert_eq!((endpoint, set(&headers)), (first.clone(), None), "using it doesn't make it longer");
            WALL.set(1_000_000 + 3600);
            let (endpoint, headers) = ask(&mut client, "cookie", &sid).await;
            assert!(endpoint != first && set(&headers).is_some(), "it is over");
        }
    });
}

#[test]
fn a_header_carries_a_session_as_well() {
    on_worker(async {
        let world = world(sticky(header(), rule(0, "/", vec![backend("web")])));
        let mut client = world.connect(Version::HTTP_2).await;
        let (first, headers) = ask(&mut client, "x-sid", "").await;
        let sid = headers["x-sid"].to_str().unwrap().to_owned();
        assert!(headers.get("set-cookie").is_none());
        for _ in 0..8 {
            let (endpoint, headers) = ask(&mut client, "x-sid", &sid).await;
            assert_eq!((&endpoint, headers.get("x-sid")), (&first, None));
        }
    });
}

/// The endpoints of `web`, one of them in another state.
fn with_health(last: u8, health: EndpointHealth) -> Change {
    let Some(Change::Upsert(Resource::EndpointSlice(slice))) = many().pop() else { panic!("no slice") };
    let mut slice = EndpointSlice::clone(&slice);
    let changed = slice.endpoints.iter_mut().find(|it| it.address == address(last).ip()).unwrap();
    changed.health = health;
    Change::Upsert(Resource::EndpointSlice(Arc::new(slice)))
}

#[test]
fn a_session_stays_with_an_endpoint_that_drains_and_moves_when_it_is_gone() {
    on_worker(async {
        let world = world(sticky(cookie(false, None), rule(0, "/", vec![backend("web")])));
        let mut client = world.connect(Version::HTTP_11).await;
        let (first, headers) = ask(&mut client, "cookie", "").await;
        let (sid, _) = set(&headers).unwrap();
        let last = first.rsplit('.').next().unwrap().parse().unwrap();
        world.apply(&[with_health(last, EndpointHealth::Draining)]);
        let (endpoint, headers) = ask(&mut client, "cookie", &sid).await;
        assert_eq!((&endpoint, set(&headers)), (&first, None));
        for _ in 0..8 {
            assert_ne!(ask(&mut client, "cookie", "").await.0, first, "nobody new");
        }
        world.apply(&[with_health(last, EndpointHealth::NotReady)]);
        let (second, headers) = ask(&mut client, "cookie", &sid).await;
        assert_ne!(second, first);
        let (moved, _) = set(&headers).unwrap();
        for _ in 0..8 {
            assert_eq!(ask(&mut client, "cookie", &moved).await.0, second);
        }
        // It is there again, and the session has moved for good.
        world.apply(&many());
        assert_eq!(ask(&mut client, "cookie", &moved).await.0, second);
    });
}

#[test]
fn a_session_whose_endpoint_cant_be_reached_moves() {
    on_worker(async {
        let world = world(sticky(cookie(false, None), rule(0, "/", vec![backend("web")])));
        let mut client = world.connect(Version::HTTP_11).await;
        let (first, headers) = ask(&mut client, "cookie", "").await;
        let (sid, _) = set(&headers).unwrap();
        world.down(first.rsplit('.').next().unwrap().parse().unwrap(), true);
        // A kept connection to it is still open: another client has none.
        world.forget();
        let mut client = world.connect(Version::HTTP_11).await;
        let (second, headers) = ask(&mut client, "cookie", &sid).await;
        assert!(second != first && set(&headers).is_some());
    });
}

#[test]
fn a_session_holds_over_weights() {
    on_worker(async {
        let split = |web: u32, other: u32| {
            let weighted = |name: &str, weight| HttpBackend { weight, ..backend(name) };
            sticky(cookie(false, None), rule(0, "/", vec![weighted("other", other), weighted("web", web)]))
        };
        let world = world(split(1, 0));
        world.app(3, echo());
        let mut client = world.connect(Version::HTTP_11).await;
        let (first, headers) = ask(&mut client, "cookie", "").await;
        let (sid, _) = set(&headers).unwrap();
        world.apply(&[upsert(split(0, 1))]);
        for _ in 0..8 {
            assert_eq!(ask(&mut client, "cookie", &sid).await.0, first, "even at weight 0");
            assert_eq!(ask(&mut client, "cookie", "").await.0, "10.0.0.3");
        }
        // Its backend is taken out of the rule: nothing else leads there.
        world.apply(&[upsert(sticky(cookie(false, None), rule(0, "/", vec![backend("other")])))]);
        assert_eq!(ask(&mut client, "cookie", &sid).await.0, "10.0.0.3");
    });
}

#[test]
fn rules_share_no_session_and_keep_each_others_under_one_name() {
    on_worker(async {
        let of = |key: u8| SessionPersistence { key: SessionKey::new([key; 16]), ..header() };
        let world = world(sticky(of(1), rule(0, "/", vec![backend("web")])));
        world.apply(&[upsert(sticky(of(2), rule(1, "/b", vec![backend("web")])))]);
        let mut client = world.connect(Version::HTTP_11).await;
        let (first, headers) = ask(&mut client, "x-sid", "").await;
        let sid = headers["x-sid"].to_str().unwrap().to_owned();
        let b = |value: &str| Request::get("/b").header("x-sid", value).body(empty()).unwrap();
        let (_, headers, _) = client.ask(b(&sid)).await;
        let (second, both) = (headers["x-endpoint"].clone(), headers["x-sid"].to_str().unwrap().to_owned());
        assert!(both.ends_with(&format!(".{sid}")), "{both}");
        for _ in 0..4 {
            let (endpoint, headers) = ask(&mut client, "x-sid", &both).await;
            assert_eq!((&endpoint, headers.get("x-sid")), (&first, None));
            let (_, headers, _) = client.ask(b(&both)).await;
            assert_eq!((&headers["x-endpoint"], headers.get("x-sid")), (&second, None));
        }
        // No more than a few of those that nobody here knows.
        let many = (0..30).map(|n| format!("{n:040x}")).collect::<Vec<_>>().join(".");
        let (_, headers) = ask(&mut client, "x-sid", &many).await;
        assert_eq!(headers["x-sid"].to_str().unwrap().split('.').count(), 4);
    });
}

#[test]
fn a_retry_takes_the_session_along() {
    on_worker(async {
        let retry = Some(Retry {
            attempts: 1,
            backoff: Duration::from_millis(1),
            codes: vec![StatusCode::SERVICE_UNAVAILABLE],
        });
        let sessions = sticky(cookie(false, None), rule(0, "/", vec![backend("web")]));
        let world = world(HttpRule { retry, ..sessions });
        let mut client = world.connect(Version::HTTP_11).await;
        let (first, headers) = ask(&mut client, "cookie", "").await;
        let (sid, _) = set(&headers).unwrap();
        world.forget();
        world.app(first.rsplit('.').next().unwrap().parse().unwrap(), status(503));
        let mut client = world.connect(Version::HTTP_11).await;
        let (second, headers) = ask(&mut client, "cookie", &sid).await;
        let (moved, _) = set(&headers).unwrap();
        assert_ne!(second, first);
        assert_eq!(ask(&mut client, "cookie", &moved).await.0, second);
    });
}

#[test]
fn a_cookie_of_the_application_is_left_alone() {
    on_worker(async {
        let world = world(sticky(cookie(false, None), rule(0, "/", vec![backend("web")])));
        for last in 1..=8 {
            world.app(
                last,
                Rc::new(|_, _| {
                    let answer = Response::builder().header("set-cookie", "sid=its-own").header("x-endpoint", "-");
                    Box::pin(async move { answer.body(empty()).unwrap() })
                }),
            );
        }
        let mut client = world.connect(Version::HTTP_11).await;
        let (_, headers) = ask(&mut client, "cookie", "").await;
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["sid=its-own"]);
    });
}

/// The Service `web` as a policy has it.
fn of_policy(session: SessionPersistence) -> Change {
    let Some(Change::Upsert(Resource::Service(service))) = many().into_iter().next() else { panic!("no Service") };
    let traffic = Some(Box::new(BackendTraffic { retry: None, session: Some(session) }));
    Change::Upsert(Resource::Service(Arc::new(Service { traffic, ..Service::clone(&service) })))
}

#[test]
fn a_policy_of_a_service_gives_sessions_with_and_without_routes() {
    on_worker(async {
        let mut changes = many();
        changes.push(of_policy(cookie(false, None)));
        let world = World::new(changes);
        (1..=8).for_each(|last| world.app(last, echo()));
        let mut client = world.connect(Version::HTTP_11).await;
        let (first, headers) = ask(&mut client, "cookie", "").await;
        let (sid, attributes) = set(&headers).unwrap();
        assert_eq!(attributes, "HttpOnly; SameSite=Lax", "no Path: any may lead to the Service");
        assert_eq!(ask(&mut client, "cookie", &sid).await.0, first);

        let sessions = Sessions::OfBackends(vec![None, Some(cookie(false, None))]);
        let backends = vec![HttpBackend { weight: 0, ..backend("other") }, backend("web")];
        world.apply(&[upsert(HttpRule { sessions: sessions.clone(), ..rule(0, "/", backends) })]);
        let (first, headers) = ask(&mut client, "cookie", "").await;
        let (sid, attributes) = set(&headers).unwrap();
        assert_eq!(attributes, "HttpOnly; SameSite=Lax");
        let backends = vec![backend("other"), HttpBackend { weight: 0, ..backend("web") }];
        world.apply(&[upsert(HttpRule { sessions, ..rule(0, "/", backends) })]);
        assert_eq!(ask(&mut client, "cookie", &sid).await.0, first);
        let (other, headers) = ask(&mut client, "cookie", "").await;
        assert_eq!((other.as_str(), set(&headers)), ("10.0.0.3", None), "that backend has none");
    });
}

#[test]
fn behind_tls_of_a_gateway_a_cookie_is_for_tls_alone() {
    on_worker(async {
        let gateway = GatewayKey::new("edge", "gw");
        let key = ListenerKey::new(gateway.clone(), "any");
        let certificate = CertificateKey::new(gateway.clone(), SecretKey::new("edge", "c"));
        let listener = |protocol| {
            Change::Upsert(Resource::Listener(Arc::new(Listener {
                key: key.clone(),
                addresses: Vec::new(),
                port: Port::new(80).unwrap(),
                hostname: None,
                protocol,
                kinds: vec![RouteKind::Http],
                client_validation: None,
                policies: Vec::new(),
                http3: false,
            })))
        };
        let parents = vec![Parent::Listener(key.clone())];
        let rule = HttpRule { parents, ..sticky(cookie(false, None), rule(0, "/shop", vec![backend("web")])) };
        let rule = Arc::new(RouteRule::Http(rule));
        let rule = Change::Upsert(Resource::GatewayRule(Arc::new(GatewayRule { gateway, rule })));
        let mut changes = many();
        changes.extend([listener(ListenerProtocol::Https { certificates: vec![certificate] }), rule]);
        let world = World::new(changes);
        (1..=8).for_each(|last| world.app(last, echo()));
        let request = || Request::get("/shop/cart").header("host", "a.com").body(empty()).unwrap();
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut client = world.connect_gateway(version, Some(key.clone())).await;
            let (_, attributes) = set(&client.ask(request()).await.1).unwrap();
            assert_eq!(attributes, "Path=/shop; HttpOnly; SameSite=Lax; Secure");
        }
        world.apply(&[listener(ListenerProtocol::Http)]);
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        let (_, attributes) = set(&client.ask(request()).await.1).unwrap();
        assert_eq!(attributes, "Path=/shop; HttpOnly; SameSite=Lax");
    });
}
