//! External authorization: what is asked, and what a yes changes.

use std::num::NonZeroU32;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::plan::{backend, broken, forwarded, plan_of, reply_of, rule, set, target};
use super::{headers, values};
use crate::filter::{
    Grant, HeaderChange, HeaderMutation, HttpPlan, http_grant, question_headers, question_target, validate_rule,
};
use crate::reason::Reason;
use crate::route::{
    AuthProtocol, BackendTarget, Cors, ExternalAuth, HttpAction, HttpFilter, InvalidBackend, MAX_SHOWN_BODY,
    OriginMatch, Redirect,
};

fn names(list: &[&'static str]) -> Vec<HeaderName> {
    list.iter().map(|name| HeaderName::from_static(name)).collect()
}

fn auth(authorizer: BackendTarget, max_body: u32) -> ExternalAuth {
    let protocol = AuthProtocol::Grpc { headers: Vec::new() };
    ExternalAuth { authorizer, protocol, max_body: NonZeroU32::new(max_body) }
}

fn asks(name: &str, max_body: u32) -> HttpFilter {
    HttpFilter::ExternalAuth(auth(target(name), max_body))
}

fn changes(made: Vec<HeaderChange>) -> HeaderMutation {
    HeaderMutation(made)
}

#[test]
fn a_change_is_made_unless_it_frames_the_message_or_moves_the_request() {
    use HeaderChange::{AddIfAbsent, Append, OverwriteIfPresent, Remove, Set};
    let (x, v) = (HeaderName::from_static("x"), HeaderValue::from_static("new"));
    let cookie = HeaderName::from_static("cookie");
    let cases: &[(&[&str], HeaderChange, &str)] = &[
        (&["x: old", "x: older"], Set(x.clone(), v.clone()), "new"),
        (&[], Set(x.clone(), v.clone()), "new"),
        (&["x: old"], Append(x.clone(), v.clone()), "old,new"),
        (&[], Append(x.clone(), v.clone()), "new"),
        (&["x: old"], AddIfAbsent(x.clone(), v.clone()), "old"),
        (&[], AddIfAbsent(x.clone(), v.clone()), "new"),
        (&["x: old"], OverwriteIfPresent(x.clone(), v.clone()), "new"),
        (&[], OverwriteIfPresent(x.clone(), v.clone()), ""),
        (&["x: old"], Remove(x.clone()), ""),
    ];
    for (before, change, after) in cases {
        let mut map = headers(before);
        changes(vec![change.clone()]).apply(&mut map);
        assert_eq!(values(&map, "x"), *after, "{before:?} {change:?}");
    }
    let mut map = headers(&["cookie: a=1"]);
    changes(vec![Append(cookie, HeaderValue::from_static("b=2"))]).apply(&mut map);
    assert_eq!(values(&map, "cookie"), "a=1; b=2");
    for name in ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "trailer", "keep-alive"]
    {
        let name = HeaderName::from_static(name);
        let before = headers(&[&format!("{name}: kept")]);
        let mut map = before.clone();
        changes(vec![
            Set(name.clone(), v.clone()),
            Append(name.clone(), v.clone()),
            OverwriteIfPresent(name.clone(), v.clone()),
            Remove(name.clone()),
        ])
        .apply(&mut map);
        assert_eq!(map, before, "{name}");
    }
}

#[test]
fn a_question_over_http_has_what_is_listed_and_the_credentials() {
    let request = headers(&[
        "authorization: Bearer t",
        "cookie: a=1",
        "cookie: b=2",
        "x-a: 1",
        "host: a.com",
        "content-length: 3",
        "te: trailers",
        "expect: 100-continue",
    ]);
    let cases: &[(&[&'static str], &[&str])] = &[
        (&[], &["authorization: Bearer t"]),
        (&["cookie"], &["authorization: Bearer t", "cookie: a=1", "cookie: b=2"]),
        (&["x-a", "x-b", "authorization"], &["authorization: Bearer t", "x-a: 1"]),
        (&["host", "content-length", "te", "expect"], &["authorization: Bearer t"]),
    ];
    for (listed, sent) in cases {
        assert_eq!(question_headers(&names(listed), &request), headers(sent), "{listed:?}");
    }
    for (prefix, target, asked) in [
        ("", "/a?b=c", "/a?b=c"),
        ("/check", "/a?b=c", "/check/a?b=c"),
        ("/check", "/", "/check/"),
        ("/check", "*", "/check/*"),
    ] {
        let target = PathAndQuery::from_static(target);
        assert_eq!(question_target(prefix, &target).unwrap().as_str(), asked);
    }
}

#[test]
fn no_client_can_say_of_itself_what_the_authorizer_is_to_say() {
    type Lines = &'static [&'static str];
    let cases: &[(Lines, Lines, Lines, Lines)] = &[
        // Listed and said by the client alone: gone.
        (&["x-user"], &[], &["x-user: root", "x-a: 1"], &["x-a: 1"]),
        (&["x-user"], &["x-user: ann"], &["x-user: root"], &["x-user: ann"]),
        (&["x-user"], &["x-user: ann", "x-user: bob"], &["x-user: root"], &["x-user: ann,bob"]),
        // Not listed: not copied.
        (&["x-user"], &["x-user: ann", "x-a: 2"], &["x-a: 1"], &["x-a: 1", "x-user: ann"]),
        // Nothing is listed: everything is, but for what is of the authorizer's own message.
        (&[], &["x-user: ann", "x-a: 2"], &["x-user: root"], &["x-user: ann", "x-a: 2"]),
        (
            &[],
            &[
                "content-type: text/html",
                "content-length: 9",
                "content-encoding: br",
                "host: evil",
                "connection: close",
            ],
            &["content-type: a/json", "content-length: 2", "host: a.com"],
            &["content-type: a/json", "content-length: 2", "host: a.com"],
        ),
    ];
    for (listed, answer, sent, after) in cases {
        let mut map = headers(sent);
        http_grant(&names(listed), &headers(answer)).request.apply(&mut map);
        assert_eq!(map, headers(after), "{listed:?} {answer:?} {sent:?}");
    }
}

#[test]
fn authorizers_are_asked_in_turn_and_changes_come_at_their_place() {
    let mut of_backend = backend("a", 1);
    of_backend.filters = vec![HttpFilter::RequestHeaders(set("x-four", "backend")), asks("second", 5)];
    let mut made = rule(
        HttpAction::Forward(vec![of_backend]),
        vec![HttpFilter::RequestHeaders(set("x-one", "modifier")), asks("first", 9)],
    );
    let grant = |name: &'static str| Grant {
        request: changes(vec![
            HeaderChange::Set(HeaderName::from_static("x-one"), HeaderValue::from_static(name)),
            HeaderChange::Set(HeaderName::from_static("x-four"), HeaderValue::from_static(name)),
        ]),
        response: changes(vec![HeaderChange::Append(
            HeaderName::from_static("set-cookie"),
            HeaderValue::from_static(name),
        )]),
    };
    forwarded(made.clone(), 0, |mut plan| {
        let seen = |plan: &crate::filter::ForwardPlan<'_>| {
            let mut map = headers(&[]);
            plan.apply_request(&mut map);
            let who = plan.next_authorizer().map(|auth| auth.authorizer.clone());
            (who, values(&map, "x-one"), values(&map, "x-four"))
        };
        assert_eq!(plan.shown_body(), Some(5));
        assert_eq!(seen(&plan), (Some(target("first")), "modifier".into(), "".into()));
        plan.grant(grant("one"));
        assert_eq!(seen(&plan), (Some(target("second")), "one".into(), "backend".into()));
        plan.grant(grant("two"));
        assert_eq!(seen(&plan), (None, "two".into(), "two".into()));
        let mut mirrored = headers(&[]);
        plan.apply_mirror_request(&mut mirrored);
        assert_eq!((values(&mirrored, "x-one"), values(&mirrored, "x-four")), ("one".into(), "one".into()));
        let mut response = headers(&[]);
        plan.apply_response(&mut response);
        assert_eq!(values(&response, "set-cookie"), "one|two");
    });
    made.filters = vec![asks("first", 0), HttpFilter::RequestHeaders(set("x-one", "modifier"))];
    forwarded(made, 0, |mut plan| {
        let mut asked = headers(&[]);
        plan.apply_request(&mut asked);
        assert_eq!(values(&asked, "x-one"), "", "a modifier behind the filter");
        plan.grant(grant("one"));
        let mut sent = headers(&[]);
        plan.apply_request(&mut sent);
        assert_eq!(values(&sent, "x-one"), "modifier", "has the last word");
    });
}

#[test]
fn an_authorizer_that_is_not_there_permits_nothing() {
    let reference = "Service ns/none:80".to_owned();
    let gone = auth(BackendTarget::Invalid { reference, reason: InvalidBackend::NotFound }, 0);
    let of_rule = rule(
        HttpAction::Forward(vec![backend("a", 1)]),
        vec![asks("first", 0), HttpFilter::ExternalAuth(gone.clone())],
    );
    let mut to = backend("a", 1);
    to.filters = vec![HttpFilter::ExternalAuth(gone)];
    for made in [of_rule, rule(HttpAction::Forward(vec![to]), vec![])] {
        let (status, reason, detail, _) = reply_of(made, 0);
        assert_eq!((status.as_u16(), reason), (500, Reason::InvalidBackend));
        assert_eq!(detail, "backend Service ns/none:80: not found");
    }
    let (status, reason, ..) = reply_of(rule(HttpAction::Forward(vec![broken(1)]), vec![asks("first", 0)]), 0);
    assert_eq!((status.as_u16(), reason), (500, Reason::InvalidBackend));
}

#[test]
fn a_preflight_is_answered_without_asking() {
    let cors = Cors {
        allow_origins: vec![OriginMatch::new("https://a.com").unwrap()],
        allow_methods: vec!["GET".into()],
        ..Cors::default()
    };
    let made = rule(HttpAction::Forward(vec![backend("a", 1)]), vec![asks("first", 0), HttpFilter::Cors(cors)]);
    let lines = ["origin: https://a.com", "access-control-request-method: GET"];
    plan_of(made, Method::OPTIONS, &lines, 0, |plan| {
        let HttpPlan::Reply(reply) = plan else { panic!("forwarded") };
        assert_eq!(reply.reason, Reason::CorsPreflight);
    });
}

#[test]
fn what_an_authorizer_may_not_be_is_named() {
    let forward = |filters| rule(HttpAction::Forward(vec![backend("a", 1)]), filters);
    let http = |path: &str, response: &[&'static str]| {
        let protocol =
            AuthProtocol::Http { path: path.into(), request_headers: Vec::new(), response_headers: names(response) };
        HttpFilter::ExternalAuth(ExternalAuth { protocol, ..auth(target("x"), 0) })
    };
    let redirect = Redirect { scheme: None, hostname: None, path: None, port: None, status: StatusCode::FOUND };
    for (made, field) in [
        (forward(vec![asks("x", 0), asks("y", 0)]), "filters[1].externalAuth"),
        (forward(vec![asks("x", MAX_SHOWN_BODY + 1)]), "filters[0].externalAuth.forwardBody.maxSize"),
        (forward(vec![http("check", &[])]), "filters[0].externalAuth.http.path"),
        (forward(vec![http("/check/", &[])]), "filters[0].externalAuth.http.path"),
        (forward(vec![http("/a?b", &[])]), "filters[0].externalAuth.http.path"),
        (forward(vec![http("", &["host"])]), "filters[0].externalAuth.http.allowedResponseHeaders"),
        (forward(vec![http("", &["content-length"])]), "filters[0].externalAuth.http.allowedResponseHeaders"),
        (rule(HttpAction::Redirect(redirect), vec![asks("x", 0)]), "filters"),
    ] {
        assert_eq!(validate_rule(&made).unwrap_err().field(), field);
    }
    assert_eq!(validate_rule(&forward(vec![http("/check", &["x-user"])])), Ok(()));
    assert_eq!(validate_rule(&forward(vec![asks("x", MAX_SHOWN_BODY)])), Ok(()));
}
