//! Each reason of a route's conditions.

use super::*;
use crate::object::ConditionType;

/// The conditions of the only route, as `Type=Status/Reason`, for each parent.
fn conditions(text: &str) -> Vec<Vec<String>> {
    let (_, out) = index(text);
    let update = out.statuses.iter().find(|s| matches!(s.status, ObjectStatus::Parents(_))).expect("no route status");
    let ObjectStatus::Parents(parents) = &update.status else { panic!() };
    let show = |c: &crate::object::Condition| {
        let kind = match c.kind {
            ConditionType::Accepted => "Accepted",
            ConditionType::ResolvedRefs => "ResolvedRefs",
            other => return format!("{other:?}={}/{}", c.status, c.reason),
        };
        format!("{kind}={}/{}", c.status, c.reason)
    };
    parents.iter().map(|p| p.conditions.iter().map(show).collect()).collect()
}

fn of(parent: &str, rules: &str) -> Vec<Vec<String>> {
    conditions(&(SHOP.to_owned() + &route("r", parent, rules)))
}

const OK_BACKEND: &str = "backendRefs: [{name: cart-v2, port: 80}]";

fn svc(name: &str, more: &str) -> String {
    format!("{{group: '', kind: Service, name: {name}{more}}}")
}

#[test]
fn parents() {
    let rules = format!("[{{{OK_BACKEND}}}]");
    for (parent, accepted) in [
        (svc("cart", ""), "true/Accepted"),
        (svc("cart", ", port: 80"), "true/Accepted"),
        (svc("cart", ", sectionName: http"), "true/Accepted"),
        (svc("cart", ", sectionName: http, port: 80"), "true/Accepted"),
        (svc("cart", ", sectionName: http, port: 7070"), "false/NoMatchingParent"),
        (svc("nobody", ""), "false/NoMatchingParent"),
        (svc("cart", ", port: 81"), "false/NoMatchingParent"),
        (svc("cart", ", port: 70000"), "false/NoMatchingParent"),
        (svc("cart", ", sectionName: web"), "false/NoMatchingParent"),
        (svc("cart", ", port: 443"), "false/NoMatchingParent"),
        (svc("cart", ", port: 9090"), "false/NoMatchingParent"),
        (svc("cart", ", namespace: elsewhere"), "false/NoMatchingParent"),
        (svc("bank", ", namespace: money"), "true/Accepted"),
    ] {
        let got = of(&parent, &rules);
        assert_eq!(got[0], [format!("Accepted={accepted}"), "ResolvedRefs=true/ResolvedRefs".into()], "{parent}");
    }
}

#[test]
fn each_parent_has_its_own_status() {
    let parents = format!("{}, {}, {{name: gw}}", svc("nobody", ""), CART);
    let got = of(&parents, &format!("[{{{OK_BACKEND}}}]"));
    assert_eq!(got.len(), 2, "the Gateway is not claimed");
    assert_eq!(got[0][0], "Accepted=false/NoMatchingParent");
    assert_eq!(got[1][0], "Accepted=true/Accepted");
}

#[test]
fn a_route_of_gateways_alone_is_left_alone() {
    let (index, out) = index(&(SHOP.to_owned() + &route("r", "{name: gw}", "[]")));
    assert!(out.statuses.is_empty());
    assert!(!index.resources().any(|r| matches!(r, Resource::Rule(_))));
}

#[test]
fn a_route_that_leaves_its_service_gives_its_status_and_rules_back() {
    let (mut index, _) = index(&(SHOP.to_owned() + &route("r", CART, &format!("[{{{OK_BACKEND}}}]"))));
    objects(&route("r", "{name: gw}", "[]")).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    assert_eq!(out.statuses.len(), 1);
    assert_eq!(out.statuses[0].status, ObjectStatus::Parents(Vec::new()));
    assert!(matches!(out.changes[..], [Change::Remove(ResourceKey::Rule(_))]), "{out:?}");
}

#[test]
fn references() {
    for (backend, reason) in [
        ("{name: cart-v2, port: 80}", "true/ResolvedRefs"),
        ("{name: nobody, port: 80}", "false/BackendNotFound"),
        ("{name: nobody, port: 80, weight: 0}", "false/BackendNotFound"),
        ("{name: cart-v2, port: 81}", "false/BackendNotFound"),
        ("{name: cart-v2}", "false/BackendNotFound"),
        ("{name: cart-v2, port: 80, kind: Deployment}", "false/InvalidKind"),
        ("{name: cart-v2, port: 80, group: apps}", "false/InvalidKind"),
        ("{name: bank, namespace: money, port: 80}", "false/RefNotPermitted"),
        ("{name: nobody, namespace: money, port: 80}", "false/RefNotPermitted"),
    ] {
        let got = of(CART, &format!("[{{backendRefs: [{backend}]}}]"));
        assert_eq!(got[0], ["Accepted=true/Accepted".into(), format!("ResolvedRefs={reason}")], "{backend}");
        let mirror =
            format!("[{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {backend}}}}}], {OK_BACKEND}}}]");
        if !backend.contains("weight") {
            assert_eq!(of(CART, &mirror)[0][1], format!("ResolvedRefs={reason}"), "mirror to {backend}");
        }
    }
}

/// Each of these misses the reference by one field.
#[test]
fn near_misses_of_a_reference_grant() {
    let grant = |namespace: &str, from: &str, to: &str| {
        format!(
            "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\n\
             spec: {{from: [{{{from}}}], to: [{{{to}}}]}}\n"
        )
    };
    let from = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop";
    let to = "group: '', kind: Service";
    let rules = "[{backendRefs: [{name: bank, namespace: money, port: 80}]}]";
    for (grant, permitted) in [
        (grant("money", from, to), true),
        (grant("money", from, "group: '', kind: Service, name: bank"), true),
        (grant("shop", from, to), false),
        (grant("money", "group: '', kind: HTTPRoute, namespace: shop", to), false),
        (grant("money", "group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop", to), false),
        (grant("money", "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: money", to), false),
        (grant("money", from, "group: apps, kind: Service"), false),
        (grant("money", from, "group: '', kind: Secret"), false),
        (grant("money", from, "group: '', kind: Service, name: vault"), false),
    ] {
        let got = conditions(&(SHOP.to_owned() + &route("r", CART, rules) + &grant));
        let want = if permitted { "ResolvedRefs=true/ResolvedRefs" } else { "ResolvedRefs=false/RefNotPermitted" };
        assert_eq!(got[0][1], want, "{grant}");
    }
}

#[test]
fn a_consumer_route_may_send_back_to_its_own_parent() {
    let parent = svc("bank", ", namespace: money");
    let got = of(&parent, "[{backendRefs: [{name: bank, namespace: money, port: 80}]}]");
    assert_eq!(got[0][1], "ResolvedRefs=true/ResolvedRefs");
    let (index, _) = index(&(SHOP.to_owned() + &route("r", &parent, "[]")));
    let consumers: Vec<_> = index
        .resources()
        .filter_map(|r| match r {
            Resource::Rule(rule) => Some(rule.parents()[0].clone()),
            _ => None,
        })
        .collect();
    assert!(matches!(&consumers[..], [Parent::Service { consumer: Some(ns), .. }] if ns.as_str() == "shop"));
}

/// A bad rule next to a good one: the good one works, the bad one answers 500, the status says which and why.
#[test]
fn bad_rules() {
    let filter = |f: &str| format!("filters: [{f}], {OK_BACKEND}");
    let set_host = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: x}]}}";
    let prefix = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}";
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    let cases = [
        (
            format!("matches: [{{path: {{type: RegularExpression, value: '('}}}}], {OK_BACKEND}"),
            "matches[0].path.value",
        ),
        (
            format!("matches: [{{path: {{type: RegularExpression, value: '(?=a)'}}}}], {OK_BACKEND}"),
            "matches[0].path.value",
        ),
        (format!("matches: [{{path: {{value: a}}}}], {OK_BACKEND}"), "matches[0].path.value"),
        (format!("matches: [{{path: {{value: /a/../b}}}}], {OK_BACKEND}"), "matches[0].path.value"),
        (format!("matches: [{{path: {{type: Prefix, value: /a}}}}], {OK_BACKEND}"), "matches[0].path.type"),
        (format!("matches: [{{method: get}}], {OK_BACKEND}"), "matches[0].method"),
        (format!("matches: [{{headers: [{{name: 'a b', value: c}}]}}], {OK_BACKEND}"), "matches[0].headers"),
        (filter("{type: RequestHeaderModifer}"), "filters[0].type"),
        (filter("{type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}"), "filters[0].type"),
        (filter("{type: RequestHeaderModifier}"), "filters[0].requestHeaderModifier"),
        (filter(&format!("{set_host}, {{type: URLRewrite, urlRewrite: {{hostname: y}}}}")), "filters"),
        (filter(&format!("{set_host}, {set_host}")), "filters"),
        (
            filter("{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Transfer-Encoding]}}"),
            "remove[0].name",
        ),
        (filter(redirect), "backendRefs"),
        (format!("matches: [{{path: {{type: Exact, value: /a}}}}], {}", filter(prefix)), "urlRewrite.path.type"),
        (
            format!("matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}], {}", filter(prefix)),
            "urlRewrite.path.type",
        ),
        ("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]".into(), "statusCode"),
        ("filters: [{type: RequestRedirect, requestRedirect: {port: 0}}]".into(), "requestRedirect.port"),
        ("backendRefs: [{name: cart-v2, port: 80, weight: -1}]".into(), "backendRefs[0].weight"),
        (format!("timeouts: {{request: 1.5s}}, {OK_BACKEND}"), "timeouts.request"),
        (format!("timeouts: {{request: 1s, backendRequest: 2s}}, {OK_BACKEND}"), "timeouts.backendRequest"),
        (format!("retry: {{codes: [200]}}, {OK_BACKEND}"), "retry.codes[0]"),
        (format!("sessionPersistence: {{idleTimeout: 1h}}, {OK_BACKEND}"), "sessionPersistence.idleTimeout"),
        (format!("sessionPersistence: {{type: cookie}}, {OK_BACKEND}"), "sessionPersistence.type"),
        (format!("sessionPersistence: {{sessionName: 'a b'}}, {OK_BACKEND}"), "sessionPersistence.sessionName"),
    ];
    for (bad, field) in cases {
        let text = SHOP.to_owned() + &route("r", CART, &format!("[{{{OK_BACKEND}}}, {{{bad}}}]"));
        let got = conditions(&text);
        assert_eq!(got[0][..2], ["Accepted=true/Accepted", "PartiallyInvalid=true/UnsupportedValue"], "{bad}");
        let (index, out) = index(&text);
        let rules: Vec<_> = index
            .resources()
            .filter_map(|r| match r {
                Resource::Rule(rule) => match &**rule {
                    RouteRule::Http(rule) => Some(rule.action.clone()),
                    RouteRule::L4(_) => None,
                },
                _ => None,
            })
            .collect();
        assert!(matches!(&rules[..], [HttpAction::Forward(_), HttpAction::Invalid(_)]), "{bad}: {rules:?}");
        let problems = index.problems(&ObjectRef::new(Kind::HttpRoute, "shop", "r"));
        assert!(
            problems.iter().any(|p| p.field.starts_with("spec.rules[1]") && p.field.contains(field)),
            "{bad}: {problems:?}"
        );
        assert!(problems.iter().all(|p| !p.remedy.is_empty()), "{problems:?}");
        let text = format!("{:?}", out.statuses);
        assert!(text.contains("Dropped Rule 1") && text.contains(field), "{text}");
    }
}

#[test]
fn a_route_without_a_valid_rule_is_refused_and_still_answers_500() {
    let rules = "[{filters: [{type: Nonsense}]}]";
    assert_eq!(of(CART, rules)[0][0], "Accepted=false/UnsupportedValue");
    let both = "[{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]";
    assert_eq!(of(CART, both)[0][0], "Accepted=false/IncompatibleFilters");
    let (index, _) = index(&(SHOP.to_owned() + &route("r", CART, rules)));
    assert!(index.resources().any(|r| matches!(r, Resource::Rule(r) if matches!(&**r, RouteRule::Http(h) if matches!(h.action, HttpAction::Invalid(_))))));
}

fn other(kind: &str, name: &str, parent: &str) -> String {
    route(name, parent, &format!("[{{{OK_BACKEND}}}]")).replace("kind: HTTPRoute", &format!("kind: {kind}"))
}

#[test]
fn one_kind_of_route_for_a_port() {
    let on = |kind: &str, name: &str| other(kind, name, &svc("cart", ", port: 80"));
    let reasons = |text: &str| -> Vec<(String, String)> {
        let (_, out) = index(&(SHOP.to_owned() + text));
        let of = |s: &StatusUpdate| {
            let ObjectStatus::Parents(p) = &s.status else { panic!() };
            (s.object.kind.as_str().to_owned(), p[0].conditions[0].reason.clone())
        };
        out.statuses.iter().map(of).collect()
    };
    let pair = |k: &str, r: &str| (k.to_owned(), r.to_owned());
    assert_eq!(
        reasons(&(on("HTTPRoute", "h") + &on("GRPCRoute", "g"))),
        [pair("HTTPRoute", "Conflicted"), pair("GRPCRoute", "Accepted")]
    );
    assert_eq!(
        reasons(&(on("HTTPRoute", "h") + &on("TCPRoute", "t"))),
        [pair("HTTPRoute", "Accepted"), pair("TCPRoute", "Conflicted")]
    );
    let tls = |kind: &str, name: &str| other(kind, name, &svc("cart", ", port: 443"));
    assert_eq!(
        reasons(&(tls("TLSRoute", "a") + &tls("TCPRoute", "b"))),
        [pair("TLSRoute", "Accepted"), pair("TCPRoute", "Conflicted")]
    );
    assert_eq!(reasons(&on("UDPRoute", "u")), [pair("UDPRoute", "NoMatchingParent")]);
}

#[test]
fn the_loser_comes_back_when_the_winner_leaves() {
    let text = SHOP.to_owned() + &other("HTTPRoute", "h", CART) + &other("GRPCRoute", "g", CART);
    let (mut index, _) = index(&text);
    index.delete(&ObjectRef::new(Kind::GrpcRoute, "shop", "g"));
    let out = index.commit();
    let update = out.statuses.iter().find(|s| s.object.kind == Kind::HttpRoute).unwrap();
    let ObjectStatus::Parents(parents) = &update.status else { panic!() };
    assert_eq!(parents[0].conditions[0].reason, "Accepted");
    assert!(
        out.changes
            .iter()
            .any(|c| matches!(c, Change::Upsert(Resource::Rule(r)) if r.key().route.name.as_str() == "h"))
    );
}

#[test]
fn a_tls_route_keeps_its_server_names_and_never_widens_them() {
    let tls = |hosts: &str| {
        let text = other("TLSRoute", "t", CART).replace("  rules:", &format!("  hostnames: {hosts}\n  rules:"));
        let (index, _) = index(&(SHOP.to_owned() + &text));
        let rule = index.resources().find_map(|r| match r {
            Resource::Rule(rule) => match &**rule {
                RouteRule::L4(rule) => Some(rule.clone()),
                RouteRule::Http(_) => None,
            },
            _ => None,
        });
        rule.unwrap()
    };
    let good = tls("[a.example.com, '*.example.org']");
    assert_eq!(good.hostnames.len(), 2);
    assert_eq!(good.parents.len(), 1, "only the port that says https");
    let bad = tls("['a.*.com']");
    assert!(bad.hostnames.is_empty());
    assert!(bad.backends.iter().all(|b| matches!(b.target, BackendTarget::Invalid { .. })));
}

#[test]
fn a_service_that_comes_later_completes_the_route() {
    let (mut index, _) = index(&route("r", CART, &format!("[{{{OK_BACKEND}}}]")));
    objects(SHOP).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    let update = out.statuses.iter().find(|s| s.object.kind == Kind::HttpRoute).unwrap();
    let ObjectStatus::Parents(parents) = &update.status else { panic!() };
    assert!(parents[0].conditions.iter().all(|c| c.status), "{parents:?}");
    index.delete(&ObjectRef::new(Kind::Service, "shop", "cart"));
    let out = index.commit();
    assert!(out.changes.iter().any(|c| matches!(c, Change::Remove(ResourceKey::Rule(_)))));
}

/// A watch may tell of a deletion and a new object of the same name as one change.
#[test]
fn an_object_made_anew_under_its_name_is_reported_anew() {
    let route = |uid: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
            metadata: {{name: r, namespace: shop, generation: 1, uid: {uid}}}\n\
            spec: {{parentRefs: [{{group: '', kind: Service, name: cart}}]}}"
        );
        objects(&text).remove(0)
    };
    let (mut index, _) = index(SHOP);
    for uid in ["u1", "u2"] {
        index.apply(route(uid));
        assert_eq!(index.commit().statuses.len(), 1, "{uid}");
        index.apply(route(uid));
        assert!(index.commit().is_empty());
    }
}
