//! CORS: a test for each sentence of `HTTPCORSFilter`.

use http::{HeaderMap, Method, StatusCode};

use super::{headers, values};
use crate::filter::cors::CorsResponse;
use crate::filter::reply::LocalReply;
use crate::matching::RequestFacts;
use crate::route::{Cors, OriginMatch};

fn cors(origins: &[&str], credentials: bool, methods: &[&str], names: &[&str]) -> Cors {
    let owned = |texts: &[&str]| texts.iter().map(|&it| it.to_owned()).collect();
    Cors {
        allow_origins: origins.iter().map(|it| OriginMatch::new(it).unwrap()).collect(),
        allow_credentials: credentials,
        allow_methods: owned(methods),
        allow_headers: owned(names),
        expose_headers: vec![],
        max_age_seconds: 5,
    }
}

fn preflight(cors: &Cors, lines: &[&str]) -> LocalReply<'static> {
    cors.preflight(&headers(lines))
}

fn response(cors: &Cors, request: &[&str], upstream: &[&str]) -> HeaderMap {
    let mut map = headers(upstream);
    CorsResponse::new(cors, &headers(request)).apply(&mut map);
    map
}

const ORIGIN: &str = "access-control-allow-origin";
const METHODS: &str = "access-control-allow-methods";
const HEADERS: &str = "access-control-allow-headers";
const CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSED: &str = "access-control-expose-headers";

#[test]
fn a_wildcard_is_a_greedy_match_to_the_left_including_any_number_of_labels() {
    for (pattern, origin, matches) in [
        ("https://*.bar.com", "https://www.bar.com", true),
        ("https://*.bar.com", "https://xpto.www.bar.com", true),
        ("https://*.bar.com", "https://bar.com", false),
        ("https://*.bar.com", "https://.bar.com", false),
        ("https://*.bar.com", "https://evilbar.com", false),
        ("https://*.bar.com", "http://www.bar.com", false),
        ("https://*.bar.com", "https://www.bar.com.evil.org", false),
        ("https://*.bar.com", "https://evil.org/www.bar.com", false),
        ("https://*.bar.com", "https://evil.org:80.bar.com", false),
        ("https://*.bar.com", "https://www.bar.com:8443", false),
        ("https://*.bar.com:8443", "https://www.bar.com:8443", true),
        ("https://*.bar.com:8443", "https://www.bar.com", false),
        ("https://*", "https://any.thing", true),
        ("https://*", "http://any.thing", false),
        ("https://*", "https://any.thing:8443", false),
        ("https://*:8443", "https://any.thing:8443", true),
        ("*", "https://any.thing:12345", true),
        ("*", "null", true),
        ("https://*", "null", false),
    ] {
        assert_eq!(OriginMatch::new(pattern).unwrap().matches(origin), matches, "{pattern} {origin}");
    }
}

#[test]
fn if_the_port_is_not_included_the_one_of_the_scheme_is_assumed() {
    for (pattern, origin, matches) in [
        ("https://www.foo.com", "https://www.foo.com", true),
        ("https://www.foo.com", "https://WWW.foo.com", true),
        ("https://www.foo.com", "https://www.foo.com:443", true),
        ("https://www.foo.com:443", "https://www.foo.com", true),
        ("http://www.foo.com:80", "http://www.foo.com", true),
        ("http://www.foo.com", "http://www.foo.com:443", false),
        ("https://www.foo.com", "https://www.foo.com:8443", false),
        ("https://www.foo.com", "https://www.foo.comx", false),
        ("https://www.foo.com", "https://foo.com", false),
        ("https://www.foo.com", "http://www.foo.com", false),
    ] {
        assert_eq!(OriginMatch::new(pattern).unwrap().matches(origin), matches, "{pattern} {origin}");
    }
}

#[test]
fn an_origin_that_is_none_is_refused() {
    for text in [
        "",
        "foo.com",
        "ftp://foo.com",
        "https://",
        "https://a*.com",
        "https://*a.com",
        "https://a.com/x",
        "https://a/*",
    ] {
        assert!(OriginMatch::new(text).is_err(), "{text}");
    }
}

#[test]
fn a_preflight_of_an_allowed_origin_gets_what_is_configured() {
    let mut filter =
        cors(&["https://www.foo.com", "https://*.bar.com"], true, &["GET", "OPTIONS"], &["x-header-1", "x-header-2"]);
    filter.expose_headers = vec!["x-header-3".into(), "x-header-4".into()];
    filter.max_age_seconds = 3600;
    for origin in ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"] {
        let asked = ["access-control-request-method: GET", "access-control-request-headers: x-header-1, x-header-2"];
        let reply = preflight(&filter, &[&format!("origin: {origin}"), asked[0], asked[1]]);
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        assert_eq!(values(&reply.headers, ORIGIN), origin);
        assert_eq!(values(&reply.headers, METHODS), "GET, OPTIONS");
        assert_eq!(values(&reply.headers, HEADERS), "x-header-1, x-header-2");
        assert_eq!(values(&reply.headers, EXPOSED), "x-header-3, x-header-4");
        assert_eq!(values(&reply.headers, "access-control-max-age"), "3600");
        assert_eq!(values(&reply.headers, CREDENTIALS), "true");
    }
}

#[test]
fn a_preflight_of_another_origin_gets_no_cors_header() {
    let filter = cors(&["https://www.foo.com"], true, &["GET"], &[]);
    let reply = preflight(&filter, &["origin: https://foobar.com", "access-control-request-method: GET"]);
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    let names: Vec<_> = reply.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["vary"]);
}

#[test]
fn with_credentials_a_wildcard_is_never_sent() {
    let mut filter = cors(&["*"], true, &["*"], &["*"]);
    filter.expose_headers = vec!["*".into(), "x-named".into()];
    let reply = preflight(
        &filter,
        &[
            "origin: https://other.foo.com",
            "access-control-request-method: PUT",
            "access-control-request-headers: x-header-1, x-header-2",
        ],
    );
    assert_eq!(values(&reply.headers, ORIGIN), "https://other.foo.com");
    assert_eq!(values(&reply.headers, METHODS), "PUT");
    assert_eq!(values(&reply.headers, HEADERS), "x-header-1, x-header-2");
    assert_eq!(values(&reply.headers, CREDENTIALS), "true");
    assert_eq!(values(&reply.headers, EXPOSED), "x-named");
    // "If the Access-Control-Request-Headers header is not present, the gateway must omit" the answer to it.
    let reply = preflight(&filter, &["origin: https://other.foo.com", "access-control-request-method: PUT"]);
    assert!(!reply.headers.contains_key(HEADERS));
    let map = response(&filter, &["origin: https://other.foo.com"], &[]);
    assert_eq!(values(&map, ORIGIN), "https://other.foo.com");
    assert!(map.values().all(|value| value != "*"));
}

#[test]
fn without_credentials_a_wildcard_stands_for_itself() {
    let filter = cors(&["*"], false, &["*"], &["*"]);
    let asked = ["origin: https://a.com:12345", "access-control-request-method: POST"];
    let reply = preflight(&filter, &asked);
    assert_eq!(values(&reply.headers, ORIGIN), "*");
    assert_eq!(values(&reply.headers, METHODS), "*");
    assert_eq!(values(&reply.headers, HEADERS), "*");
    assert!(!reply.headers.contains_key(CREDENTIALS));
}

#[test]
fn the_credentials_header_is_omitted_entirely_when_false() {
    let filter = cors(&["https://www.foo.com"], false, &["*"], &[]);
    let reply = preflight(&filter, &["origin: https://www.foo.com", "access-control-request-method: POST"]);
    assert!(!reply.headers.contains_key(CREDENTIALS));
    assert!(!reply.headers.contains_key(HEADERS));
    assert_eq!(values(&reply.headers, ORIGIN), "https://www.foo.com");
    assert_eq!(values(&reply.headers, "access-control-max-age"), "5");
    assert!(!response(&filter, &["origin: https://www.foo.com"], &[]).contains_key(CREDENTIALS));
}

#[test]
fn a_response_to_an_allowed_origin_carries_it() {
    let filter = cors(&["https://www.foo.com"], true, &["GET"], &[]);
    let map = response(&filter, &["origin: https://www.foo.com"], &["x: y"]);
    assert_eq!(values(&map, ORIGIN), "https://www.foo.com");
    assert_eq!(values(&map, CREDENTIALS), "true");
    assert_eq!(values(&map, "vary"), "origin");
    assert_eq!(values(&map, "x"), "y");
}

#[test]
fn the_backend_cannot_grant_what_the_filter_refuses() {
    let filter = cors(&["https://www.foo.com"], false, &["GET"], &[]);
    let upstream = ["access-control-allow-origin: *", "access-control-allow-credentials: true", "vary: accept"];
    for request in [&["origin: https://evil.com"][..], &[]] {
        let map = response(&filter, request, &upstream);
        assert!(!map.contains_key(ORIGIN) && !map.contains_key(CREDENTIALS));
        assert_eq!(values(&map, "vary"), "accept|origin");
    }
    let map = response(&filter, &["origin: https://www.foo.com"], &upstream);
    assert_eq!(values(&map, ORIGIN), "https://www.foo.com");
    assert!(!map.contains_key(CREDENTIALS));
}

#[test]
fn without_a_filter_the_backend_speaks_for_itself() {
    let upstream = headers(&["access-control-allow-origin: *"]);
    let mut map = upstream.clone();
    CorsResponse::None.apply(&mut map);
    assert_eq!(map, upstream);
}

#[test]
fn only_options_with_an_origin_and_a_method_is_a_preflight() {
    let both = ["origin: https://a.com", "access-control-request-method: GET"];
    for (method, lines, expected) in [
        (Method::OPTIONS, &both[..], true),
        (Method::GET, &both[..], false),
        (Method::OPTIONS, &both[..1], false),
        (Method::OPTIONS, &both[1..], false),
    ] {
        let map = headers(lines);
        let facts = RequestFacts { method: &method, host: "", path: "/", query: None, headers: &map };
        assert_eq!(Cors::is_preflight(&facts), expected, "{method} {lines:?}");
    }
}
