//! External authorization: what the filter becomes, and which of its mistakes is named how.

use std::num::NonZeroU32;

use weft_core::route::{AuthProtocol, BackendTarget, ExternalAuth, HttpFilter, InvalidBackend};

use super::*;

const BACKEND: &str = "backendRefs: [{name: cart-v2, port: 80}]";

fn rule_with(auth: &str) -> String {
    format!("{{filters: [{{type: ExternalAuth, externalAuth: {{{auth}}}}}], {BACKEND}}}")
}

/// The authorizer of the first rule that has one.
fn authorizer(index: &Index) -> Option<ExternalAuth> {
    let of = |resource: &Resource| match resource {
        Resource::Rule(rule) => match &**rule {
            RouteRule::Http(rule) => Some(rule.filters.clone()),
            RouteRule::L4(_) => None,
        },
        _ => None,
    };
    index.resources().filter_map(of).flatten().find_map(|filter| match filter {
        HttpFilter::ExternalAuth(auth) => Some(auth),
        _ => None,
    })
}

/// `ResolvedRefs` of the route, and the first problem's field and text.
fn wrong(index: &Index) -> (bool, String) {
    let route = ObjectRef::new(Kind::HttpRoute, "shop", "r");
    let Some((_, ObjectStatus::Parents(parents))) = index.status(&route) else { panic!("no status") };
    let resolved = |c: &&crate::object::Condition| c.kind == crate::object::ConditionType::ResolvedRefs;
    let resolved = parents[0].conditions.iter().find(resolved).is_some_and(|condition| condition.status);
    (resolved, index.problems(&route).first().map(ToString::to_string).unwrap_or_default())
}

fn names(list: &[&'static str]) -> Vec<http::HeaderName> {
    list.iter().map(|name| http::HeaderName::from_static(name)).collect()
}

#[test]
fn what_the_filter_says_is_what_is_done() {
    let service = BackendTarget::Service(ServicePortKey {
        service: ServiceKey::new("shop", "cart"),
        port: Port::new(7070).unwrap(),
    });
    let http = |path: &str, request: &[&'static str], response: &[&'static str]| AuthProtocol::Http {
        path: path.into(),
        request_headers: names(request),
        response_headers: names(response),
    };
    let grpc = |headers: &[&'static str]| AuthProtocol::Grpc { headers: names(headers) };
    for (more, protocol, max_body) in [
        ("protocol: GRPC, grpc: {}", grpc(&[]), 0),
        ("protocol: GRPC", grpc(&[]), 0),
        ("protocol: GRPC, grpc: {allowedHeaders: [X-A, cookie]}", grpc(&["x-a", "cookie"]), 0),
        ("protocol: GRPC, grpc: {}, forwardBody: {maxSize: 4096}", grpc(&[]), 4096),
        ("protocol: GRPC, grpc: {}, forwardBody: {maxSize: 0}", grpc(&[]), 0),
        ("protocol: GRPC, grpc: {}, forwardBody: {}", grpc(&[]), 0),
        ("protocol: HTTP, http: {}", http("", &[], &[]), 0),
        ("protocol: HTTP", http("", &[], &[]), 0),
        (
            "protocol: HTTP, http: {path: /check/, allowedHeaders: [Cookie, Host], allowedResponseHeaders: [X-User]}",
            http("/check", &["cookie", "host"], &["x-user"]),
            0,
        ),
        ("protocol: HTTP, http: {path: /}, forwardBody: {maxSize: 1048576}", http("", &[], &[]), 1 << 20),
    ] {
        let rules = format!("[{}]", rule_with(&format!("backendRef: {{name: cart, port: 7070}}, {more}")));
        let (index, _) = index(&(SHOP.to_owned() + &route("r", CART, &rules)));
        let max_body = NonZeroU32::new(max_body);
        assert_eq!(
            authorizer(&index),
            Some(ExternalAuth { authorizer: service.clone(), protocol, max_body }),
            "{more}"
        );
        assert_eq!(wrong(&index), (true, String::new()), "{more}");
    }
}

#[test]
fn a_mistake_costs_its_rule_and_is_named() {
    let good = "backendRef: {name: cart, port: 7070}";
    let filter = |auth: &str| format!("{{type: ExternalAuth, externalAuth: {{{auth}}}}}");
    let one = |auth: &str| format!("filters: [{}], {BACKEND}", filter(auth));
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    let cors = "{type: CORS, cors: {}, externalAuth: {protocol: GRPC}}";
    for (rule, field) in [
        (one("protocol: GRPC"), "filters[0].externalAuth.backendRef: is missing"),
        (one(good), "filters[0].externalAuth.protocol: is missing"),
        (one(&format!("protocol: grpc, {good}")), "externalAuth.protocol: \"grpc\""),
        (one(&format!("protocol: GRPC, {good}, http: {{}}")), "externalAuth.http: is set for protocol GRPC"),
        (one(&format!("protocol: HTTP, {good}, grpc: {{}}")), "externalAuth.grpc: is set for protocol HTTP"),
        (one(&format!("protocol: HTTP, {good}, http: {{path: check}}")), "http.path: \"check\""),
        (one(&format!("protocol: HTTP, {good}, http: {{path: /a/../b}}")), "http.path: \"/a/../b\""),
        (one(&format!("protocol: HTTP, {good}, http: {{path: '/[]'}}")), "http.path: \"/[]\""),
        (one(&format!("protocol: HTTP, {good}, http: {{allowedHeaders: ['a b']}}")), "http.allowedHeaders[0]"),
        (
            one(&format!("protocol: HTTP, {good}, http: {{allowedResponseHeaders: [x, Host]}}")),
            "http.allowedResponseHeaders[1]: no authorizer",
        ),
        (
            one(&format!("protocol: HTTP, {good}, http: {{allowedResponseHeaders: [Content-Length]}}")),
            "http.allowedResponseHeaders[0]",
        ),
        (one(&format!("protocol: GRPC, {good}, grpc: {{allowedHeaders: [x, '']}}")), "grpc.allowedHeaders[1]"),
        (one(&format!("protocol: GRPC, {good}, forwardBody: {{maxSize: -1}}")), "externalAuth.forwardBody.maxSize"),
        (
            one(&format!("protocol: GRPC, {good}, forwardBody: {{maxSize: 1048577}}")),
            "externalAuth.forwardBody.maxSize",
        ),
        (format!("filters: [{{type: ExternalAuth}}], {BACKEND}"), "filters[0].externalAuth: is missing"),
        (format!("filters: [{cors}], {BACKEND}"), "filters[0].externalAuth: is set in a filter of type CORS"),
        (
            format!("filters: [{f}, {f}], {BACKEND}", f = filter(&format!("protocol: GRPC, {good}"))),
            "filters: ExternalAuth is there more than once",
        ),
        (
            format!("filters: [{redirect}, {}]", filter(&format!("protocol: GRPC, {good}"))),
            "filters: nobody can be asked about a RequestRedirect",
        ),
    ] {
        let rules = format!("[{{{BACKEND}}}, {{{rule}}}]");
        let (index, _) = index(&(SHOP.to_owned() + &route("r", CART, &rules)));
        let (_, problem) = wrong(&index);
        assert!(problem.starts_with("spec.rules[1].") && problem.contains(field), "{rule}: {problem}");
        assert!(problem.contains("; "), "no remedy: {problem}");
        let actions: Vec<_> = index
            .resources()
            .filter_map(|resource| match resource {
                Resource::Rule(rule) => match &**rule {
                    RouteRule::Http(rule) => Some(matches!(rule.action, HttpAction::Invalid(_))),
                    RouteRule::L4(_) => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(actions, [false, true], "{rule}");
    }
}

#[test]
fn a_grpc_route_has_no_such_filter() {
    let rules = format!("[{}]", rule_with("protocol: GRPC, backendRef: {name: cart, port: 7070}"));
    let text = SHOP.to_owned() + &route("r", CART, &rules).replace("kind: HTTPRoute", "kind: GRPCRoute");
    let (index, _) = index(&text);
    let problems = index.problems(&ObjectRef::new(Kind::GrpcRoute, "shop", "r"));
    assert!(problems[0].to_string().contains("\"ExternalAuth\" is not a type of filter in GRPCRoute"), "{problems:?}");
}

#[test]
fn an_authorizer_is_resolved_as_a_backend_is_and_live() {
    let rules = |reference: &str| format!("[{}]", rule_with(&format!("protocol: HTTP, backendRef: {{{reference}}}")));
    let text = |reference: &str| SHOP.to_owned() + &route("r", CART, &rules(reference));
    let reason = |index: &Index| authorizer(index).and_then(|auth| auth.authorizer.invalid().map(|(_, why)| why));
    for (reference, why) in [
        ("name: cart, port: 80", None),
        ("name: nobody, port: 80", Some(InvalidBackend::NotFound)),
        ("name: cart, port: 81", Some(InvalidBackend::UnsupportedPort)),
        ("name: bank, namespace: money, port: 80", Some(InvalidBackend::NotPermitted)),
        ("name: cart, port: 80, kind: Deployment", Some(InvalidBackend::InvalidKind)),
    ] {
        let (index, _) = index(&text(reference));
        assert_eq!((reason(&index), wrong(&index).0), (why, why.is_none()), "{reference}");
    }
    let (mut index, _) = index(&text("name: bank, namespace: money, port: 80"));
    let grant = "
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: money}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}
";
    objects(grant).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!((reason(&index), wrong(&index).0), (None, true));
    index.delete(&ObjectRef::new(Kind::Service, "money", "bank"));
    index.commit();
    assert_eq!((reason(&index), wrong(&index).0), (Some(InvalidBackend::NotFound), false));
}
