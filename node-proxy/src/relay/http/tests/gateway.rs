//! Requests of clients from outside at the listeners of a Gateway.

mod clients;
mod rules;
mod slow;
mod told;

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request, Response, Version};
use weft_core::change::{Change, Resource};
use weft_core::gateway::{ClientValidation, ClientValidationMode, GatewayRule, Listener, ListenerProtocol};
use weft_core::ids::{CertificateKey, GatewayKey, ListenerKey, Port, RouteKind, SecretKey};
use weft_core::route::{
    HostnameMatch, HttpAction, HttpRule, Parent, PathModifier, Redirect, RedirectScheme, RouteRule,
};
use weft_core::service::AppProtocol;

use super::world::*;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

pub(super) fn key_of(name: &str) -> ListenerKey {
    ListenerKey::new(GatewayKey::new("edge", "gw"), name)
}

/// A listener on port 80 with its hostname as its name; `any` has none.
fn listener(name: &str, protocol: ListenerProtocol) -> Change {
    Change::Upsert(Resource::Listener(Arc::new(Listener {
        key: key_of(name),
        addresses: Vec::new(),
        port: Port::new(80).unwrap(),
        hostname: (name != "any").then(|| HostnameMatch::new(name)),
        protocol,
        kinds: vec![RouteKind::Http, RouteKind::Grpc],
        client_validation: None,
        policies: Vec::new(),
        http3: false,
    })))
}

pub(super) fn http(name: &str) -> Change {
    listener(name, ListenerProtocol::Http)
}

pub(super) fn https(name: &str) -> Change {
    let certificate = CertificateKey::new(GatewayKey::new("edge", "gw"), SecretKey::new("edge", "c"));
    listener(name, ListenerProtocol::Https { certificates: vec![certificate] })
}

/// A rule at some listeners.
pub(super) fn at(listeners: &[&str], rule: HttpRule) -> Change {
    let parent = |name: &&str| Parent::Listener(key_of(name));
    let rule = Arc::new(RouteRule::Http(HttpRule { parents: listeners.iter().map(parent).collect(), ..rule }));
    Change::Upsert(Resource::GatewayRule(Arc::new(GatewayRule { gateway: GatewayKey::new("edge", "gw"), rule })))
}

fn get(host: &str, path: &str) -> Request<Body> {
    Request::get(path).header("host", host).body(empty()).unwrap()
}

/// An application that says what it was sent.
fn mirror_headers() -> App {
    Rc::new(|request, _| {
        Box::pin(async move {
            let mut response = Response::new(full(format!("{:?}", request.version())));
            let host = request.uri().authority().map(|authority| authority.to_string());
            for (name, value) in request.headers() {
                response
                    .headers_mut()
                    .append(http::HeaderName::try_from(format!("was-{name}")).unwrap(), value.clone());
            }
            if let Some(host) = host {
                response.headers_mut().insert("was-host", host.parse().unwrap());
            }
            response
        })
    })
}

#[test]
fn a_request_is_answered_by_the_routes_of_the_listener_that_has_its_host() {
    for version in BOTH {
        on_worker(async move {
            let mut of_other = rule(1, "", vec![backend("other")]);
            of_other.hostnames = vec![HostnameMatch::new("*.a.com")];
            let world = World::new(vec![
                http("any"),
                http("*.a.com"),
                http("lonely.a.com"),
                at(&["any"], rule(0, "/web", vec![backend("web")])),
                at(&["*.a.com"], of_other),
            ]);
            [1, 2, 3].into_iter().for_each(|last| world.app(last, echo()));
            let mut client = world.connect_gateway(version, None).await;
            for (host, path, want) in [
                ("b.com", "/web", "web"),
                ("b.com:80", "/web", "web"),
                ("b.com", "/", "nobody"),
                ("x.a.com", "/web", "other"),
                ("X.A.com", "/", "other"),
                ("lonely.a.com", "/web", "nobody"),
            ] {
                let (status, headers, _) = client.ask(get(host, path)).await;
                let from = match headers.get("x-endpoint").map(|value| value.to_str().unwrap()) {
                    Some("10.0.0.3") => "other",
                    Some(_) => "web",
                    None => "nobody",
                };
                assert_eq!(
                    (from, status),
                    (want, if want == "nobody" { 404 } else { 200 }),
                    "{version:?} {host}{path}"
                );
            }
            world.apply(&[Change::Remove(weft_core::change::ResourceKey::Listener(key_of("any")))]);
            assert_eq!(client.ask(get("b.com", "/web")).await.0, 404);
            let reasons: Vec<_> = world.logged().into_iter().map(|line| line["reason"].clone()).collect();
            assert_eq!(reasons, ["ok", "ok", "no_route", "ok", "ok", "no_route", "no_listener"]);
        });
    }
}

#[test]
fn a_request_on_the_connection_of_another_listener_is_misdirected() {
    on_worker(async {
        let world = World::new(vec![
            https("a.com"),
            https("b.com"),
            at(&["a.com", "b.com"], rule(0, "", vec![backend("web")])),
        ]);
        [1, 2].into_iter().for_each(|last| world.app(last, echo()));
        let mut client = world.connect_gateway(Version::HTTP_2, Some(key_of("a.com"))).await;
        for (host, want) in [("a.com", 200), ("b.com", 421), ("c.com", 404), ("a.com", 200)] {
            assert_eq!(client.ask(get(host, "/")).await.0, want, "{host}");
        }
    });
}

/// `any` with TLS, of clients with a certificate of an authority.
fn validated(ca: &str) -> Change {
    let Change::Upsert(Resource::Listener(listener)) = https("any") else { unreachable!() };
    let validation = ClientValidation { ca: ca.into(), mode: ClientValidationMode::AllowValidOnly };
    let listener = Listener { client_validation: Some(validation), ..(*listener).clone() };
    Change::Upsert(Resource::Listener(Arc::new(listener)))
}

/// TLS that ends here, around bytes that nobody looks at.
fn bytes_in_tls() -> ListenerProtocol {
    let Change::Upsert(Resource::Listener(listener)) = https("any") else { unreachable!() };
    ListenerProtocol::TlsTerminate { certificates: listener.protocol.certificates().to_vec() }
}

#[test]
fn a_connection_ends_where_its_listener_asks_for_another_handshake() {
    for version in BOTH {
        on_worker(async move {
            // What the listener was, what it becomes, whether connections live through it.
            for (before, after, lives) in [
                (http("any"), http("any"), true),
                (http("any"), https("any"), false),
                (https("any"), http("any"), false),
                (https("any"), listener("any", bytes_in_tls()), false),
                (https("any"), https("any"), true),
                (https("any"), validated("one"), false),
                (validated("one"), validated("other"), false),
                (validated("one"), validated("one"), true),
            ] {
                let what = format!("{version:?} {before:?} {after:?}");
                let tls =
                    !matches!(&before, Change::Upsert(Resource::Listener(it)) if it.protocol == ListenerProtocol::Http);
                let world = World::new(vec![before, at(&["any"], rule(0, "", vec![backend("web")]))]);
                [1, 2].into_iter().for_each(|last| world.app(last, echo()));
                let mut client = world.connect_gateway(version, tls.then(|| key_of("any"))).await;
                assert_eq!(client.ask(get("a.com", "/")).await.0, 200, "{what}");
                world.apply(&[after]);
                assert_eq!(client.ask(get("a.com", "/")).await.0, if lives { 200 } else { 421 }, "{what}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                assert_eq!(client.send(get("a.com", "/")).await.is_ok(), lives, "{what}");
            }
        });
    }
}

#[test]
fn nobody_is_told_of_http_3_where_it_is_not_listened_for() {
    for version in BOTH {
        on_worker(async move {
            let Change::Upsert(Resource::Listener(listener)) = https("any") else { unreachable!() };
            let listener = Listener { http3: true, ..(*listener).clone() };
            assert!(listener.speaks_http3());
            let world = World::new(vec![
                Change::Upsert(Resource::Listener(Arc::new(listener))),
                at(&["any"], rule(0, "", vec![backend("web")])),
            ]);
            [1, 2].into_iter().for_each(|last| world.app(last, echo()));
            let mut client = world.connect_gateway(version, Some(key_of("any"))).await;
            let (status, headers, _) = client.ask(get("a.com", "/")).await;
            assert_eq!((status, headers.get("alt-svc")), (200, None), "{version:?}");
        });
    }
}

#[test]
fn an_endpoint_is_told_of_the_client_and_asked_in_its_own_version() {
    let ask = |version: Version, listener: Option<ListenerKey>, declared: AppProtocol, grpc: bool| async move {
        let mut changes = service("web", declared, &[1, 2]);
        changes.push(if listener.is_some() { https("any") } else { http("any") });
        changes.push(at(&["any"], rule(0, "", vec![backend("web")])));
        let world = World::new(changes);
        [1, 2].into_iter().for_each(|last| world.app(last, mirror_headers()));
        let mut client = world.connect_gateway(version, listener).await;
        let mut request = get("a.com", "/x");
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert("x-forwarded-for", "10.9.9.9".parse().unwrap());
        headers.insert("x-forwarded-proto", "gopher".parse().unwrap());
        headers.append("cookie", "a=1".parse().unwrap());
        if grpc {
            headers.insert("content-type", "application/grpc".parse().unwrap());
        }
        let (status, headers, body) = client.ask(request).await;
        assert_eq!(status, 200);
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("was-x-forwarded-for"), "192.0.2.7");
        assert_eq!((header("was-host"), header("was-cookie")), ("a.com".into(), "a=1".into()));
        (String::from_utf8(body.to_vec()).unwrap(), header("was-x-forwarded-proto"))
    };
    let pair = |version: &str, proto: &str| (version.to_owned(), proto.to_owned());
    on_worker(async move {
        let any = || Some(key_of("any"));
        assert_eq!(ask(Version::HTTP_11, None, AppProtocol::Http, false).await, pair("HTTP/1.1", "http"));
        assert_eq!(ask(Version::HTTP_2, any(), AppProtocol::Http, false).await, pair("HTTP/1.1", "https"));
        assert_eq!(ask(Version::HTTP_2, any(), AppProtocol::Unspecified, false).await, pair("HTTP/1.1", "https"));
        assert_eq!(ask(Version::HTTP_2, None, AppProtocol::H2c, false).await, pair("HTTP/2.0", "http"));
        assert_eq!(ask(Version::HTTP_11, None, AppProtocol::H2c, false).await, pair("HTTP/2.0", "http"));
        assert_eq!(ask(Version::HTTP_2, None, AppProtocol::Unspecified, true).await, pair("HTTP/2.0", "http"));
    });
}

#[test]
fn a_redirect_keeps_the_scheme_of_the_listener() {
    on_worker(async {
        let redirect = Redirect {
            scheme: None,
            hostname: None,
            path: Some(PathModifier::Full("/new".into())),
            port: None,
            status: http::StatusCode::FOUND,
        };
        let to_https = Redirect { scheme: Some(RedirectScheme::Https), path: None, ..redirect.clone() };
        let answer = |redirect: Redirect, prefix: &str, index| HttpRule {
            action: HttpAction::Redirect(redirect),
            ..rule(index, prefix, vec![])
        };
        let world = World::new(vec![
            http("any"),
            at(&["any"], answer(redirect, "/old", 0)),
            at(&["any"], answer(to_https, "/secure", 1)),
        ]);
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        let location = |headers: &HeaderMap| headers["location"].to_str().unwrap().to_owned();
        assert_eq!(location(&client.ask(get("a.com", "/old")).await.1), "http://a.com/new");
        assert_eq!(location(&client.ask(get("a.com", "/secure/x")).await.1), "https://a.com/secure/x");
        // TLS ended here: the same route redirects within https.
        world.apply(&[https("any")]);
        let mut client = world.connect_gateway(Version::HTTP_2, Some(key_of("any"))).await;
        assert!(location(&client.ask(get("a.com", "/old")).await.1).starts_with("https://a.com"));
    });
}

#[test]
fn hostnames_of_a_route_rank_its_rules_within_a_listener() {
    on_worker(async {
        let of = |index, host: &str, to: &str| {
            let mut made = rule(index, "", vec![backend(to)]);
            made.hostnames = vec![HostnameMatch::new(host)];
            at(&["any"], made)
        };
        let world = World::new(vec![http("any"), of(0, "*.com", "other"), of(1, "a.com", "web")]);
        [1, 2, 3].into_iter().for_each(|last| world.app(last, echo()));
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        let endpoint = |headers: &HeaderMap| headers["x-endpoint"].to_str().unwrap() == "10.0.0.3";
        assert!(endpoint(&client.ask(get("b.com", "/")).await.1));
        assert!(!endpoint(&client.ask(get("a.com", "/")).await.1));
        assert_eq!(client.ask(get("a.org", "/")).await.0, 404);
    });
}
