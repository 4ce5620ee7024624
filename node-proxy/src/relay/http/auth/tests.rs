//! Envoy's messages: what is said, and what an answer means.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode, Version};
use prost::Message as _;
use tokio::time::Instant;
use weft_api::envoy::config::core::v3::{HeaderValue as Pair, HeaderValueOption};
use weft_api::envoy::service::auth::v3::check_response::HttpResponse;
use weft_api::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse, attribute_context,
};
use weft_core::filter::{Grant, HeaderChange, HeaderMutation};

use super::Question;
use super::envoy::{Verdict, http_request, verdict};

/// A field of a message: its number, and what it is made of.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

/// A field that is a number.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// `HeaderValueOption`, with what else it has.
fn option(key: &str, value: &str, more: &[u8]) -> Vec<u8> {
    let header = [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    [field(1, &header), more.to_vec()].concat()
}

/// `google.rpc.Status`
fn status(code: u8) -> Vec<u8> {
    field(1, &number(1, code))
}

const OK: u8 = 3;
const DENIED: u8 = 2;

fn read(bytes: &[Vec<u8>]) -> Verdict {
    verdict(CheckResponse::decode(&*bytes.concat()).unwrap())
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

/// Each change is looked up among the headers, of which there may not be any number.
#[test]
fn an_answer_changes_a_bounded_number_of_headers() {
    let option = |at: usize| HeaderValueOption {
        header: Some(Pair { key: format!("x-{at}"), value: "1".into(), ..Pair::default() }),
        ..HeaderValueOption::default()
    };
    let answer = |count: usize, response: usize| {
        let headers: Vec<_> = (0..count).map(option).collect();
        let ok = OkHttpResponse {
            headers,
            response_headers_to_add: (0..response).map(option).collect(),
            ..OkHttpResponse::default()
        };
        verdict(CheckResponse { http_response: Some(HttpResponse::OkResponse(ok)), ..CheckResponse::default() })
    };
    assert!(matches!(answer(64, 64), Verdict::Permitted(_)));
    assert!(matches!(answer(64, 65), Verdict::Unclear(_)));
    let denied = DeniedHttpResponse { headers: (0..40_000).map(option).collect(), ..DeniedHttpResponse::default() };
    let denied =
        CheckResponse { http_response: Some(HttpResponse::DeniedResponse(denied)), ..CheckResponse::default() };
    let Verdict::Denied { headers, .. } = verdict(denied) else { panic!("its no counts") };
    assert_eq!(headers.len(), 128);
}

/// On the wire, as Envoy's messages are numbered.
#[test]
fn an_answer_means_what_it_means_to_envoy() {
    use HeaderChange::{AddIfAbsent, Append, OverwriteIfPresent, Remove, Set};
    let permitted = |request: Vec<HeaderChange>, response: Vec<HeaderChange>| {
        Verdict::Permitted(Grant { request: HeaderMutation(request), response: HeaderMutation(response) })
    };
    let denied = |status: u16, headers: &[(&'static str, &str)], body: &'static str| {
        let pairs = headers.iter().map(|(key, value)| (name(key), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        Verdict::Denied { status: StatusCode::from_u16(status).unwrap(), headers: map, body: Bytes::from(body) }
    };
    let value = |text: &str| text.parse().unwrap();
    let header = |more: &[u8]| field(OK, &field(2, &option("X-User", "ann", more)));
    // `append`, a BoolValue, is field 2 of the option; `append_action` is field 3.
    let append = |yes: bool| field(2, &if yes { number(1, 1) } else { Vec::new() });
    let x = || (name("x-user"), value("ann"));
    for (what, answer, expected) in [
        ("yes", vec![field(1, &[])], permitted(vec![], vec![])),
        ("yes, with an empty ok_response", vec![field(1, &[]), field(OK, &[])], permitted(vec![], vec![])),
        ("ok_response alone", vec![field(OK, &[])], permitted(vec![], vec![])),
        ("no", vec![status(7)], denied(403, &[], "")),
        ("no, whatever else", vec![status(7), field(OK, &[])], denied(403, &[], "")),
        ("denied_response alone", vec![field(DENIED, &[])], denied(403, &[], "")),
        (
            "denied_response",
            vec![
                status(16),
                field(
                    DENIED,
                    &[
                        // 401 is two bytes of a number.
                        field(1, &[1 << 3, 0x91, 0x03]),
                        field(2, &option("set-cookie", "a=1", &[])),
                        field(2, &option("set-cookie", "b=2", &[])),
                        field(2, &option("content-length", "9", &[])),
                        field(2, &option(":status", "200", &[])),
                        field(3, b"who?"),
                    ]
                    .concat(),
                ),
            ],
            denied(401, &[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-type", "text/plain")], "who?"),
        ),
        ("a status that is none", vec![status(7), field(DENIED, &field(1, &number(1, 99)))], denied(403, &[], "")),
        ("an interim status", vec![status(7), field(DENIED, &field(1, &number(1, 101)))], denied(403, &[], "")),
        ("header", vec![field(1, &[]), header(&[])], permitted(vec![Set(x().0, x().1)], vec![])),
        ("append", vec![field(1, &[]), header(&append(true))], permitted(vec![Append(x().0, x().1)], vec![])),
        ("no append", vec![field(1, &[]), header(&append(false))], permitted(vec![Set(x().0, x().1)], vec![])),
        ("absent", vec![field(1, &[]), header(&number(3, 1))], permitted(vec![AddIfAbsent(x().0, x().1)], vec![])),
        ("overwrite", vec![field(1, &[]), header(&number(3, 2))], permitted(vec![Set(x().0, x().1)], vec![])),
        (
            "if there",
            vec![field(1, &[]), header(&number(3, 3))],
            permitted(vec![OverwriteIfPresent(x().0, x().1)], vec![]),
        ),
        (
            "remove, and nothing of where it goes",
            vec![
                field(1, &[]),
                field(
                    OK,
                    &[field(5, b"Authorization"), field(5, b":path"), field(2, &option(":path", "/", &[]))].concat(),
                ),
            ],
            permitted(vec![Remove(name("authorization"))], vec![]),
        ),
        (
            "of the response",
            vec![
                field(1, &[]),
                field(OK, &[field(6, &option("x-a", "1", &[])), field(6, &option("set-cookie", "s=1", &[]))].concat()),
            ],
            permitted(vec![], vec![Set(name("x-a"), value("1")), Append(name("set-cookie"), value("s=1"))]),
        ),
        (
            "bytes in place of text",
            vec![field(1, &[]), field(OK, &field(2, &field(1, &[field(1, b"x-user"), field(3, b"\xff")].concat())))],
            permitted(vec![Set(name("x-user"), http::HeaderValue::from_bytes(b"\xff").unwrap())], vec![]),
        ),
    ] {
        assert_eq!(read(&answer), expected, "{what}");
    }
}

#[test]
fn an_answer_that_is_no_clear_yes_permits_nothing() {
    for (answer, why) in [
        (vec![], "it says nothing"),
        (vec![field(1, &[]), field(DENIED, &[])], "it says yes and no"),
        (vec![field(1, &[]), field(OK, &field(7, &field(1, b"q")))], "it asks for changes of the query"),
        (vec![field(1, &[]), field(OK, &field(8, b"q"))], "it asks for changes of the query"),
        (vec![field(1, &[]), field(OK, &field(2, &option("a b", "c", &[])))], "\"a b\" is no header"),
        (vec![field(1, &[]), field(OK, &field(2, &option("a", "b\n", &[])))], "its value of header a"),
        (vec![field(1, &[]), field(OK, &field(2, &option("a", "b", &number(3, 9))))], "it asks for something unknown"),
        (vec![field(1, &[]), field(OK, &field(5, b"a b"))], "\"a b\" is no header"),
    ] {
        let Verdict::Unclear(said) = read(&answer) else { panic!("{why}: {:?}", read(&answer)) };
        assert!(said.starts_with(why), "{said}");
    }
}

fn asked(listed: &[&'static str], body: Option<&'static [u8]>) -> attribute_context::HttpRequest {
    let request = Request::post("/a/b?c=d")
        .version(Version::HTTP_11)
        .header("host", "a.com:81")
        .header("x-request-id", "r1")
        .header("x-a", "1")
        .header("x-a", "2")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-bytes", &b"\xff"[..])
        .header("content-length", "5");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let listed: Vec<_> = listed.iter().map(|it| name(it)).collect();
    let body = body.map(Bytes::from_static);
    let question = Question { parts: &parts, headers: parts.headers.clone(), body, until: Instant::now() };
    http_request("https", &listed, &question)
}

#[test]
fn an_authorizer_hears_of_the_request_what_it_may() {
    let http = asked(&[], None);
    assert_eq!((&*http.id, &*http.method, &*http.path), ("r1", "POST", "/a/b?c=d"));
    assert_eq!((&*http.host, &*http.scheme, &*http.protocol, http.size), ("a.com:81", "https", "HTTP/1.1", 5));
    let mut all: Vec<_> = http.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.sort();
    assert_eq!(
        all,
        [
            ":authority=a.com:81",
            ":method=POST",
            ":path=/a/b?c=d",
            ":scheme=https",
            "content-length=5",
            "cookie=a=1; b=2",
            "x-a=1,2",
            "x-bytes=\u{fffd}",
            "x-request-id=r1"
        ]
    );
    let http = asked(&["x-a", "x-none"], None);
    assert_eq!(http.headers.into_iter().collect::<Vec<_>>(), [("x-a".to_owned(), "1,2".to_owned())]);
    for (body, text, raw, size) in [
        (None, "", &b""[..], 5),
        (Some(&b""[..]), "", b"", 0),
        (Some(b"hello"), "hello", b"", 5),
        // Nobody hides a body from who looks at the text alone.
        (Some(b"hell\xff"), "hell\u{fffd}", b"hell\xff", 5),
    ] {
        let http = asked(&[], body);
        assert_eq!((&*http.body, &*http.raw_body, http.size), (text, raw, size));
    }
}

/// The numbers of Envoy's messages.
#[test]
fn a_question_is_on_the_wire_what_envoy_sends() {
    let http = attribute_context::HttpRequest {
        id: "i".into(),
        method: "GET".into(),
        headers: [("x".to_owned(), "y".to_owned())].into(),
        path: "/".into(),
        host: "h".into(),
        scheme: "s".into(),
        size: 1,
        protocol: "p".into(),
        body: "b".into(),
        raw_body: vec![1],
    };
    let request = attribute_context::Request { time: None, http: Some(http) };
    let attributes = AttributeContext { source: None, request: Some(request) };
    let sent = CheckRequest { attributes: Some(attributes) }.encode_to_vec();
    let http = [
        field(1, b"i"),
        field(2, b"GET"),
        field(3, &[field(1, b"x"), field(2, b"y")].concat()),
        field(4, b"/"),
        field(5, b"h"),
        field(6, b"s"),
        number(9, 1),
        field(10, b"p"),
        field(11, b"b"),
        field(12, &[1]),
    ];
    assert_eq!(sent, field(1, &field(4, &field(2, &http.concat()))));
}
