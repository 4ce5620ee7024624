//! What becomes of a request.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{headers, values};
use crate::filter::{ForwardPlan, FrontFacts, HttpPlan, LocalReply, plan_http, plan_http_kept, validate_rule};
use crate::ids::{Port, RouteKey, RouteKind, RuleKey, ServiceKey, ServicePortKey};
use crate::matching::{HttpTable, RequestFacts, draw};
use crate::reason::Reason;
use crate::route::{
    BackendTarget, Cors, Created, Fraction, HeaderModifier, HttpAction, HttpBackend, HttpFilter, HttpMatch, HttpRule,
    InvalidBackend, Mirror, OriginMatch, PathMatch, PathModifier, Redirect, RedirectScheme, Rewrite, RouteRule,
    Timeouts,
};

pub(super) fn target(name: &str) -> BackendTarget {
    BackendTarget::Service(ServicePortKey { service: ServiceKey::new("ns", name), port: Port::new(80).unwrap() })
}

pub(super) fn backend(name: &str, weight: u32) -> HttpBackend {
    HttpBackend { target: target(name), weight, filters: vec![] }
}

pub(super) fn broken(weight: u32) -> HttpBackend {
    let target = BackendTarget::Invalid { reference: "Service ns/none:80".into(), reason: InvalidBackend::NotFound };
    HttpBackend { target, weight, filters: vec![] }
}

pub(super) fn rule(action: HttpAction, filters: Vec<HttpFilter>) -> HttpRule {
    let route = RouteKey { kind: RouteKind::Http, namespace: "ns".into(), name: "r".into() };
    let prefix = HttpMatch { path: PathMatch::Prefix("/p".into()), method: None, headers: vec![], query: vec![] };
    HttpRule {
        key: RuleKey { route, index: 0 },
        name: None,
        created: Created::default(),
        parents: vec![],
        hostnames: vec![],
        matches: vec![prefix],
        filters,
        action,
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }
}

pub(super) fn set(name: &'static str, value: &'static str) -> HeaderModifier {
    HeaderModifier { set: vec![(name.parse().unwrap(), HeaderValue::from_static(value))], ..HeaderModifier::default() }
}

fn rewrite(hostname: Option<&'static str>, path: Option<PathModifier>) -> HttpFilter {
    HttpFilter::Rewrite(Rewrite { hostname: hostname.map(HeaderValue::from_static), path })
}

fn mirror(name: &str, numerator: u32, denominator: u32) -> HttpFilter {
    let fraction = Fraction { numerator, denominator: NonZeroU32::new(denominator).unwrap() };
    HttpFilter::Mirror(Mirror { backend: target(name), fraction })
}

/// Plans `method host/p/q?x=1` with these headers and hands the plan to `check`.
pub(super) fn plan_of<R>(
    rule: HttpRule,
    method: Method,
    lines: &[&str],
    seed: u64,
    check: impl FnOnce(HttpPlan<'_>) -> R,
) -> R {
    let table = HttpTable::new(&[Arc::new(RouteRule::Http(rule))]);
    let map = headers(lines);
    let facts = RequestFacts { method: &method, host: "a.com", path: "/p/q", query: Some("x=1"), headers: &map };
    let front = FrontFacts { scheme: RedirectScheme::Http, port: Port::new(8080).unwrap() };
    check(plan_http(table.find(&facts), &facts, &front, seed))
}

pub(super) fn reply_of(rule: HttpRule, seed: u64) -> (StatusCode, Reason, String, HeaderMap) {
    plan_of(rule, Method::GET, &[], seed, |plan| match plan {
        HttpPlan::Reply(LocalReply { status, headers, reason, detail }) => {
            (status, reason, detail.into_owned(), headers)
        }
        HttpPlan::Forward(plan) => panic!("forwarded: {plan:?}"),
    })
}

pub(super) fn forwarded<R>(rule: HttpRule, seed: u64, check: impl FnOnce(ForwardPlan<'_>) -> R) -> R {
    plan_of(rule, Method::GET, &["origin: https://a.com"], seed, |plan| match plan {
        HttpPlan::Forward(plan) => check(plan),
        HttpPlan::Reply(reply) => panic!("answered: {reply:?}"),
    })
}

#[test]
fn when_no_rules_match_a_404_is_returned() {
    let map = HeaderMap::new();
    let facts = RequestFacts { method: &Method::GET, host: "", path: "/", query: None, headers: &map };
    let front = FrontFacts { scheme: RedirectScheme::Http, port: Port::new(80).unwrap() };
    let HttpPlan::Reply(reply) = plan_http(None, &facts, &front, 0) else { panic!("forwarded") };
    assert_eq!((reply.status, reply.reason), (StatusCode::NOT_FOUND, Reason::NoRoute));
    let grpc = reply.into_grpc();
    assert_eq!((grpc.status, values(&grpc.headers, "grpc-status")), (StatusCode::OK, "12".into()));
}

#[test]
fn a_session_keeps_its_backend_whatever_the_weights_say() {
    let backends = vec![backend("a", 1), backend("b", 0), broken(1)];
    let table = HttpTable::new(&[Arc::new(RouteRule::Http(rule(HttpAction::Forward(backends), vec![])))]);
    let map = HeaderMap::new();
    let facts = RequestFacts { method: &Method::GET, host: "", path: "/p", query: None, headers: &map };
    let front = FrontFacts { scheme: RedirectScheme::Http, port: Port::new(80).unwrap() };
    for (kept, want) in [(Some(0), Some("ns/a:80")), (Some(1), Some("ns/b:80")), (Some(2), None), (Some(3), None)] {
        for seed in 0..20 {
            let target = match plan_http_kept(table.find(&facts), &facts, &front, seed, kept) {
                HttpPlan::Forward(plan) => {
                    assert_eq!(Some(plan.index), kept);
                    Some(plan.target.to_string())
                }
                HttpPlan::Reply(_) => None,
            };
            assert_eq!(target.as_deref(), want);
        }
    }
}

#[test]
fn rules_that_cannot_forward_answer_500() {
    let invalid = rule(HttpAction::Invalid("unknown filter".into()), vec![]);
    let (status, reason, detail, _) = reply_of(invalid, 0);
    assert_eq!((status.as_u16(), reason, detail.as_str()), (500, Reason::InvalidRoute, "unknown filter"));
    for backends in [vec![], vec![backend("a", 0)], vec![backend("a", 0), backend("b", 0)]] {
        let (status, reason, ..) = reply_of(rule(HttpAction::Forward(backends), vec![]), 0);
        assert_eq!((status.as_u16(), reason), (500, Reason::NoBackend));
    }
    let (status, reason, detail, _) = reply_of(rule(HttpAction::Forward(vec![broken(1)]), vec![]), 0);
    assert_eq!((status.as_u16(), reason), (500, Reason::InvalidBackend));
    assert_eq!(detail, "backend Service ns/none:80: not found");
}

#[test]
fn the_share_of_an_invalid_backend_gets_500() {
    let mut failed = 0;
    for seed in 0..1000 {
        let rule = rule(HttpAction::Forward(vec![backend("a", 1), broken(1), backend("never", 0)]), vec![]);
        failed += plan_of(rule, Method::GET, &[], draw(1, seed), |plan| match plan {
            HttpPlan::Reply(reply) => usize::from(reply.status.as_u16() == 500),
            HttpPlan::Forward(plan) => {
                assert_eq!(plan.target.service.name.as_str(), "a");
                0
            }
        });
    }
    assert!((440..560).contains(&failed), "{failed}");
}

#[test]
fn weights_share_the_requests() {
    let mut counts = [0; 3];
    for seed in 0..10_000 {
        let rule = rule(HttpAction::Forward(vec![backend("0", 70), backend("1", 30), backend("2", 0)]), vec![]);
        counts[forwarded(rule, seed, |plan| plan.target.service.name.as_str().parse::<usize>().unwrap())] += 1;
    }
    assert!((6800..7200).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
}

#[test]
fn filters_of_the_rule_come_before_those_of_the_backend_and_after_them_in_the_response() {
    let mut only = backend("a", 1);
    only.filters =
        vec![HttpFilter::RequestHeaders(set("x-who", "backend")), HttpFilter::ResponseHeaders(set("x-who", "backend"))];
    let of_rule =
        vec![HttpFilter::RequestHeaders(set("x-who", "rule")), HttpFilter::ResponseHeaders(set("x-who", "rule"))];
    forwarded(rule(HttpAction::Forward(vec![only]), of_rule), 0, |plan| {
        let [mut request, mut copy, mut response] = [(); 3].map(|()| HeaderMap::new());
        plan.apply_request(&mut request);
        plan.apply_mirror_request(&mut copy);
        plan.apply_response(&mut response);
        assert_eq!(values(&request, "x-who"), "backend");
        assert_eq!(values(&copy, "x-who"), "rule");
        assert_eq!(values(&response, "x-who"), "rule");
    });
}

#[test]
fn a_rewrite_changes_host_and_path_and_keeps_the_query() {
    let filters = vec![rewrite(Some("b.com"), Some(PathModifier::Prefix("/new".into())))];
    forwarded(rule(HttpAction::Forward(vec![backend("a", 1)]), filters), 0, |plan| {
        assert_eq!(plan.authority.unwrap(), "b.com");
        assert_eq!(plan.path_and_query.unwrap().as_str(), "/new/q?x=1");
    });
    forwarded(rule(HttpAction::Forward(vec![backend("a", 1)]), vec![]), 0, |plan| {
        assert!(plan.authority.is_none() && plan.path_and_query.is_none() && plan.mirrors.is_empty());
    });
}

#[test]
fn a_host_set_by_a_modifier_is_the_authority_unless_a_rewrite_gives_one() {
    let host = || HttpFilter::RequestHeaders(set("host", "set.com"));
    let forward = || HttpAction::Forward(vec![backend("a", 1)]);
    forwarded(rule(forward(), vec![host()]), 0, |plan| {
        assert_eq!(plan.authority.unwrap(), "set.com");
        let mut request = headers(&["host: a.com"]);
        plan.apply_request(&mut request);
        assert_eq!(values(&request, "host"), "a.com");
    });
    for filters in [vec![host(), rewrite(Some("b.com"), None)], vec![rewrite(Some("b.com"), None), host()]] {
        let both = rule(forward(), filters);
        assert_eq!(validate_rule(&both).unwrap_err().field(), "filters");
        forwarded(both, 0, |plan| assert_eq!(plan.authority.unwrap(), "b.com"));
    }
}

#[test]
fn a_rewrite_of_the_backend_replaces_that_of_the_rule() {
    let mut only = backend("a", 1);
    only.filters = vec![rewrite(None, Some(PathModifier::Full("/backend".into())))];
    let filters = vec![rewrite(Some("rule.com"), Some(PathModifier::Full("/rule".into())))];
    forwarded(rule(HttpAction::Forward(vec![only]), filters), 0, |plan| {
        assert_eq!(plan.authority.unwrap(), "rule.com");
        assert_eq!(plan.path_and_query.unwrap().as_str(), "/backend?x=1");
    });
}

#[test]
fn a_rewrite_that_gives_no_path_fails_closed() {
    let mut exact = rule(
        HttpAction::Forward(vec![backend("a", 1)]),
        vec![rewrite(None, Some(PathModifier::Prefix("/new".into())))],
    );
    exact.matches[0].path = PathMatch::Exact("/p/q".into());
    assert_eq!(validate_rule(&exact).unwrap_err().field(), "filters[0].urlRewrite.path");
    assert_eq!(reply_of(exact, 0).1, Reason::InvalidRoute);
}

#[test]
fn every_mirror_draws_its_own_share_and_an_invalid_one_is_dropped() {
    let invalid = HttpFilter::Mirror(Mirror {
        backend: broken(1).target,
        fraction: Fraction { numerator: 1, denominator: NonZeroU32::MIN },
    });
    let filters = || vec![mirror("all", 1, 1), mirror("none", 0, 100), mirror("some", 35, 100), invalid.clone()];
    let (mut all, mut some) = (0, 0);
    for seed in 0..10_000 {
        forwarded(rule(HttpAction::Forward(vec![backend("a", 1)]), filters()), seed, |plan| {
            for target in &plan.mirrors {
                match target.service.name.as_str() {
                    "all" => all += 1,
                    "some" => some += 1,
                    other => panic!("{other} got a copy"),
                }
            }
        });
    }
    assert_eq!(all, 10_000);
    assert!((3350..3650).contains(&some), "{some}");
}

#[test]
fn a_redirect_carries_the_response_filters_of_its_rule() {
    let redirect =
        Redirect { scheme: None, hostname: Some("b.com".into()), path: None, port: None, status: StatusCode::FOUND };
    let filters = vec![HttpFilter::ResponseHeaders(set("x-who", "rule"))];
    let (status, reason, _, map) = reply_of(rule(HttpAction::Redirect(redirect), filters), 0);
    assert_eq!((status, reason), (StatusCode::FOUND, Reason::Redirect));
    assert_eq!(values(&map, "location"), "http://b.com:8080/p/q?x=1");
    assert_eq!(values(&map, "x-who"), "rule");
}

#[test]
fn a_preflight_is_answered_before_a_redirect_and_a_simple_request_gets_its_headers() {
    let cors = || {
        let allow_origins = vec![OriginMatch::new("https://a.com").unwrap()];
        HttpFilter::Cors(Cors { allow_origins, allow_methods: vec!["GET".into()], ..Cors::default() })
    };
    let redirect = Redirect { scheme: None, hostname: None, path: None, port: None, status: StatusCode::FOUND };
    for action in [HttpAction::Redirect(redirect), HttpAction::Forward(vec![backend("a", 1)])] {
        let asked = ["origin: https://a.com", "access-control-request-method: GET"];
        plan_of(rule(action, vec![cors()]), Method::OPTIONS, &asked, 0, |plan| {
            let HttpPlan::Reply(reply) = plan else { panic!("forwarded") };
            assert_eq!(reply.reason, Reason::CorsPreflight);
        });
    }
    forwarded(rule(HttpAction::Forward(vec![backend("a", 1)]), vec![cors()]), 0, |plan| {
        let mut response = headers(&["access-control-allow-origin: *"]);
        plan.apply_response(&mut response);
        assert_eq!(values(&response, "access-control-allow-origin"), "https://a.com");
    });
}

#[test]
fn validation_names_the_field() {
    let forward = |filters| rule(HttpAction::Forward(vec![backend("a", 1)]), filters);
    let add = |name: &'static str| HeaderModifier { add: set(name, "x").set, ..HeaderModifier::default() };
    let mut twice = set("a", "x");
    twice.remove = vec!["a".parse().unwrap()];
    for (filter, field) in [
        (
            HttpFilter::RequestHeaders(set("content-length", "1")),
            "filters[0].requestHeaderModifier.set[content-length]",
        ),
        (HttpFilter::RequestHeaders(add("host")), "filters[0].requestHeaderModifier.add[host]"),
        (HttpFilter::ResponseHeaders(set("host", "a")), "filters[0].responseHeaderModifier.set[host]"),
        (HttpFilter::ResponseHeaders(set("connection", "a")), "filters[0].responseHeaderModifier.set[connection]"),
        (HttpFilter::RequestHeaders(twice), "filters[0].requestHeaderModifier.remove[a]"),
        (rewrite(None, Some(PathModifier::Full("/a?b".into()))), "filters[0].urlRewrite.path"),
        (rewrite(None, Some(PathModifier::Full("/a b".into()))), "filters[0].urlRewrite.path"),
        (mirror("m", 2, 1), "filters[0].requestMirror.fraction"),
    ] {
        let rule = forward(vec![filter.clone()]);
        assert_eq!(validate_rule(&rule).unwrap_err().field(), field);
        let mut of_backend = backend("a", 1);
        of_backend.filters = vec![filter];
        let rule = super::plan::rule(HttpAction::Forward(vec![of_backend]), vec![]);
        assert_eq!(validate_rule(&rule).unwrap_err().field(), format!("backendRefs[0].{field}"));
    }
    assert_eq!(validate_rule(&forward(vec![HttpFilter::RequestHeaders(set("host", "a"))])), Ok(()));
}

#[test]
fn a_grpc_answer_has_the_status_of_its_reason() {
    for (status, reason, code) in [
        (404, Reason::NoRoute, 12),
        (500, Reason::InvalidBackend, 14),
        (500, Reason::NoBackend, 14),
        (500, Reason::InvalidRoute, 14),
        (503, Reason::NoEndpoint, 14),
        (504, Reason::RequestTimeout, 4),
        (403, Reason::PolicyDenied, 7),
        (400, Reason::BadRequest, 13),
        (500, Reason::Panic, 2),
    ] {
        assert_eq!(crate::filter::grpc_status(StatusCode::from_u16(status).unwrap(), reason), code, "{reason}");
    }
}
