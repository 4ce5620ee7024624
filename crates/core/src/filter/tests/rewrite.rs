//! Header modifiers, path modifiers and redirects.

use http::{HeaderValue, Method, StatusCode};

use super::{headers, values};
use crate::filter::plan::FrontFacts;
use crate::filter::redirect::location;
use crate::filter::{is_protected, replace_path};
use crate::ids::Port;
use crate::matching::RequestFacts;
use crate::route::{HeaderModifier, PathModifier, Redirect, RedirectScheme};

fn modifier(set: &[&str], add: &[&str], remove: &[&str]) -> HeaderModifier {
    let pairs = |lines: &[&str]| headers(lines).iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    HeaderModifier { set: pairs(set), add: pairs(add), remove: remove.iter().map(|it| it.parse().unwrap()).collect() }
}

#[test]
fn set_overwrites_the_request_with_the_given_header() {
    let mut map = headers(&["My-Header: foo", "my-header: more"]);
    modifier(&["my-header: bar"], &[], &[]).apply(&mut map);
    assert_eq!(values(&map, "my-header"), "bar");
    modifier(&["new: x"], &[], &[]).apply(&mut map);
    assert_eq!(values(&map, "new"), "x");
}

#[test]
fn add_appends_to_any_existing_values() {
    let mut map = headers(&["my-header: foo"]);
    modifier(&[], &["My-Header: bar,baz"], &[]).apply(&mut map);
    assert_eq!(values(&map, "my-header"), "foo,bar,baz");
    let mut map = headers(&["my-header: one", "my-header: two"]);
    modifier(&[], &["my-header: three", "other: new"], &[]).apply(&mut map);
    assert_eq!(values(&map, "my-header"), "one,two,three");
    assert_eq!(values(&map, "other"), "new");
}

#[test]
fn set_cookie_gets_a_line_of_its_own_and_cookies_a_semicolon() {
    let mut map = headers(&["set-cookie: a=1", "cookie: a=1"]);
    modifier(&[], &["set-cookie: b=2", "cookie: b=2"], &[]).apply(&mut map);
    assert_eq!(values(&map, "set-cookie"), "a=1|b=2");
    assert_eq!(values(&map, "cookie"), "a=1; b=2");
}

#[test]
fn remove_the_given_headers() {
    let mut map = headers(&["my-header1: foo", "My-Header2: bar", "my-header3: baz", "my-header3: more"]);
    modifier(&[], &[], &["My-Header1", "my-header3", "absent"]).apply(&mut map);
    assert_eq!(map.len(), 1);
    assert_eq!(values(&map, "my-header2"), "bar");
}

#[test]
fn what_frames_a_message_or_belongs_to_a_hop_is_never_written() {
    let lines = ["content-length: 3", "transfer-encoding: chunked", "connection: close", "te: trailers", "host: a"];
    let original = headers(&lines);
    let mut map = original.clone();
    let names: Vec<&str> = lines.iter().map(|line| line.split_once(':').unwrap().0).collect();
    let evil: Vec<String> = names.iter().map(|name| format!("{name}: evil")).collect();
    let evil: Vec<&str> = evil.iter().map(String::as_str).collect();
    modifier(&evil, &[], &[]).apply(&mut map);
    modifier(&[], &evil, &[]).apply(&mut map);
    modifier(&[], &[], &names).apply(&mut map);
    assert_eq!(map, original);
    for name in ["upgrade", "keep-alive", "proxy-connection", "trailer", "http2-settings"] {
        assert!(is_protected(&name.parse().unwrap()), "{name}");
    }
    assert!(!is_protected(&"x-forwarded-for".parse().unwrap()));
}

/// The table at `HTTPPathModifier.replacePrefixMatch`.
#[test]
fn replace_prefix_match_follows_the_table_of_the_api() {
    for (path, prefix, replacement, modified) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        // Beyond the table: the root on either side.
        ("/bar", "/", "/xyz", "/xyz/bar"),
        ("/", "/", "/xyz", "/xyz"),
        ("/bar/", "/", "/xyz/", "/xyz/bar/"),
        ("/bar", "/", "/", "/bar"),
        ("/", "/", "/", "/"),
        ("/foo", "/foo", "/xyz/", "/xyz"),
    ] {
        let len = prefix.trim_end_matches('/').len();
        let modifier = PathModifier::Prefix(replacement.into());
        let found = replace_path(&modifier, path, Some(len));
        assert_eq!(found.as_deref(), Some(modified), "{path} {prefix} {replacement}");
    }
}

#[test]
fn replace_full_path_replaces_all_of_it() {
    let full = |text: &str| PathModifier::Full(text.into());
    assert_eq!(replace_path(&full("/one"), "/full/one/two", None).as_deref(), Some("/one"));
    assert_eq!(replace_path(&full("one"), "/x", Some(2)).as_deref(), Some("/one"));
    assert_eq!(replace_path(&full(""), "/x", Some(2)).as_deref(), Some("/"));
}

#[test]
fn a_prefix_cannot_be_replaced_where_none_matched() {
    let modifier = PathModifier::Prefix("/x".into());
    assert_eq!(replace_path(&modifier, "/foo", None), None);
    assert_eq!(replace_path(&modifier, "*", Some(0)), None);
    assert_eq!(replace_path(&modifier, "/foobar", Some(4)), None);
    assert_eq!(replace_path(&modifier, "/foo", Some(9)), None);
}

fn redirect() -> Redirect {
    Redirect { scheme: None, hostname: None, path: None, port: None, status: StatusCode::FOUND }
}

/// The `Location` for a request to `a.com/p/q?x=1`, whose prefix `/p` matched.
fn location_of(redirect: &Redirect, scheme: RedirectScheme, port: u16) -> String {
    let map = headers(&[]);
    let facts = RequestFacts { method: &Method::GET, host: "a.com", path: "/p/q", query: Some("x=1"), headers: &map };
    let front = FrontFacts { scheme, port: Port::new(port).unwrap() };
    location(redirect, &facts, &front, Some(2)).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_port_of_a_redirect_follows_the_rules_of_the_api() {
    use RedirectScheme::{Http, Https};
    for (front, front_port, scheme, port, expected) in [
        // "If redirect scheme is empty, the redirect port MUST be the Gateway Listener port."
        (Http, 80, None, None, "http://a.com"),
        (Http, 8080, None, None, "http://a.com:8080"),
        (Https, 443, None, None, "https://a.com"),
        (Https, 8443, None, None, "https://a.com:8443"),
        (Http, 443, None, None, "http://a.com:443"),
        // "If redirect scheme is not-empty, the redirect port MUST be the well-known port."
        (Http, 8080, Some(Https), None, "https://a.com"),
        (Http, 8080, Some(Http), None, "http://a.com"),
        (Https, 8443, Some(Http), None, "http://a.com"),
        // "Port is the port to be used in the value of the Location header."
        (Http, 80, None, Some(8080), "http://a.com:8080"),
        (Http, 80, Some(Https), Some(8443), "https://a.com:8443"),
        // "SHOULD NOT add the port number": HTTP and 80, HTTPS and 443.
        (Http, 8080, None, Some(80), "http://a.com"),
        (Http, 8080, Some(Https), Some(443), "https://a.com"),
        (Https, 8443, None, Some(443), "https://a.com"),
        (Http, 8080, Some(Https), Some(80), "https://a.com:80"),
        (Http, 8080, None, Some(443), "http://a.com:443"),
    ] {
        let redirect = Redirect { scheme, port: port.and_then(Port::new), ..redirect() };
        assert_eq!(location_of(&redirect, front, front_port), format!("{expected}/p/q?x=1"));
    }
}

#[test]
fn host_and_path_of_a_redirect() {
    let hostname = Redirect { hostname: Some("example.org".into()), ..redirect() };
    assert_eq!(location_of(&hostname, RedirectScheme::Http, 80), "http://example.org/p/q?x=1");
    let prefix = Redirect { path: Some(PathModifier::Prefix("/new".into())), ..redirect() };
    assert_eq!(location_of(&prefix, RedirectScheme::Http, 80), "http://a.com/new/q?x=1");
    let full = Redirect { path: Some(PathModifier::Full("/new".into())), ..redirect() };
    assert_eq!(location_of(&full, RedirectScheme::Http, 80), "http://a.com/new?x=1");
}

#[test]
fn without_a_host_the_location_is_relative() {
    let map = headers(&[]);
    let facts = RequestFacts { method: &Method::GET, host: "", path: "*", query: None, headers: &map };
    let front = FrontFacts { scheme: RedirectScheme::Http, port: Port::new(80).unwrap() };
    assert_eq!(location(&redirect(), &facts, &front, Some(0)), Some(HeaderValue::from_static("/")));
}
