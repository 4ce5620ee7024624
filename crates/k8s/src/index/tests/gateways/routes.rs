//! Routes at Gateways.

use super::*;

pub(super) const NAMESPACES: &str = "
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80, appProtocol: http}]}
";

pub(super) fn http_route(name: &str, parent: &str, hostnames: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{parentRefs: [{parent}], hostnames: [{hostnames}], rules: [{{backendRefs: [{{name: cart, port: 80}}]}}]}}\n"
    )
}

/// The conditions of a route that aren't as they should be, for each parent.
pub(super) fn route_status(index: &Index, name: &str) -> Vec<Vec<String>> {
    match index.status(&ObjectRef::new(Kind::HttpRoute, "shop", name)) {
        Some((_, ObjectStatus::Parents(parents))) => parents.iter().map(|p| wrong(&p.conditions)).collect(),
        other => panic!("{other:?}"),
    }
}

fn attached(index: &Index) -> Vec<usize> {
    status_of(index, "gw").listeners.iter().map(|listener| listener.attached_routes).collect()
}

/// The listeners that rules of the route are attached to.
pub(super) fn parents(index: &Index) -> Vec<String> {
    let of = |resource: &Resource| match resource {
        Resource::Rule(rule) => Some(rule.parents().to_vec()),
        Resource::GatewayRule(it) => Some(it.rule.parents().to_vec()),
        _ => None,
    };
    let name = |parent: Parent| match parent {
        Parent::Listener(listener) => listener.to_string(),
        Parent::Service { port, .. } => port.to_string(),
    };
    index.resources().filter_map(of).flatten().map(name).collect()
}

const LISTENERS: &str = "
    {name: a, port: 80, protocol: HTTP, hostname: '*.a.com', allowedRoutes: {namespaces: {from: All}}},
    {name: b, port: 80, protocol: HTTP, hostname: b.com, allowedRoutes: {namespaces: {from: All}}},
    {name: any, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}},
    {name: own, port: 8081, protocol: HTTP},
    {name: team, port: 8082, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}},
    {name: grpc, port: 8083, protocol: HTTP, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}},
    {name: tcp, port: 8084, protocol: TCP, allowedRoutes: {namespaces: {from: All}}},
    {name: broken, port: 8085, protocol: HTTPS, allowedRoutes: {namespaces: {from: All}}},
    {name: named, port: 8086, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}}";

#[test]
fn a_route_attaches_to_the_listeners_that_take_it() {
    let parent = |more: &str| format!("{{name: gw, namespace: edge{more}}}");
    for (more, hostnames, listeners, reason) in [
        ("", "", "a b any team broken named", ""),
        ("", "x.a.com", "a any team broken named", ""),
        ("", "'*.com'", "a b any team broken named", ""),
        (", sectionName: a", "x.a.com, other.org", "a", ""),
        (", sectionName: a", "a.com", "", "NoMatchingListenerHostname"),
        (", sectionName: a", "b.com", "", "NoMatchingListenerHostname"),
        (", port: 80", "b.com", "b", ""),
        (", port: 80", "c.org", "", "NoMatchingListenerHostname"),
        (", port: 80, sectionName: b", "", "b", ""),
        (", port: 8080, sectionName: b", "", "", "NoMatchingParent"),
        (", port: 81", "", "", "NoMatchingParent"),
        (", sectionName: nobody", "", "", "NoMatchingParent"),
        (", sectionName: own", "", "", "NotAllowedByListeners"),
        (", sectionName: grpc", "", "", "NotAllowedByListeners"),
        (", sectionName: tcp", "", "", "NotAllowedByListeners"),
        (", sectionName: broken", "", "broken", ""),
        (", sectionName: any", "'a.*.com'", "", "UnsupportedValue"),
    ] {
        let text = NAMESPACES.to_owned() + &gateway(LISTENERS) + &http_route("r", &parent(more), hostnames);
        let (index, _) = serve(&text);
        let want: Vec<_> = listeners.split_whitespace().map(|name| format!("edge/gw/{name}")).collect();
        assert_eq!(parents(&index), want, "{more} {hostnames}");
        let wrong: Vec<_> = (!reason.is_empty()).then(|| format!("Accepted/{reason}")).into_iter().collect();
        assert_eq!(route_status(&index, "r"), [wrong], "{more} {hostnames}");
        let counts: Vec<_> = "a b any own team grpc tcp broken named"
            .split(' ')
            .map(|name| usize::from(listeners.split(' ').any(|it| it == name)))
            .collect();
        assert_eq!(attached(&index), counts, "{more} {hostnames}");
    }
}

#[test]
fn a_route_is_told_of_a_gateway_that_is_missing_and_not_of_one_of_others() {
    let route = http_route("r", "{name: gw, namespace: edge}", "");
    let (mut index, _) = serve(&(NAMESPACES.to_owned() + &route));
    assert_eq!(route_status(&index, "r"), [["Accepted/NoMatchingParent"]]);
    let other = gateway(LISTENERS).replace("gatewayClassName: weft", "gatewayClassName: other");
    objects(&other).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(route_status(&index, "r"), Vec::<Vec<String>>::new());
    objects(&gateway(LISTENERS)).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(route_status(&index, "r"), [Vec::<String>::new()]);
    index.delete(&ObjectRef::new(Kind::Gateway, "edge", "gw"));
    index.commit();
    assert_eq!(
        (route_status(&index, "r"), parents(&index).len()),
        (vec![vec!["Accepted/NoMatchingParent".to_owned()]], 0)
    );
}

#[test]
fn labels_listeners_and_routes_change_counts_live() {
    let team = "{name: team, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}";
    let routes: String = (0..3).map(|i| http_route(&format!("r{i}"), "{name: gw, namespace: edge}", "")).collect();
    let (mut index, _) = serve(&(NAMESPACES.to_owned() + &gateway(team) + &routes));
    assert_eq!(attached(&index), [3]);
    let mut with = |text: &str, want: &[usize]| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        let out = index.commit();
        assert_eq!(attached(&index), want, "{text}");
        out
    };
    let namespace =
        |team: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{team: {team}}}}}");
    with(&namespace("b"), &[0]);
    with(&namespace("a"), &[3]);
    let edit = with(&http_route("r1", "{name: gw, namespace: edge}", "x.org"), &[3]);
    assert!(edit.statuses.is_empty() && edit.changes.len() == 1, "an edit of one route touches nothing else: {edit:?}");
    let listener_edit = with(&gateway(&format!("{team}, {{name: more, port: 81, protocol: HTTP}}")), &[3, 0]);
    let changes: Vec<_> = listener_edit.changes.iter().map(|c| format!("{c:?}")).collect();
    assert!(
        matches!(&listener_edit.changes[..], [Change::Upsert(Resource::Listener(it))] if it.key.name.as_str() == "more"),
        "{changes:?}"
    );
    index.delete(&ObjectRef::new(Kind::HttpRoute, "shop", "r0"));
    index.commit();
    assert_eq!(attached(&index), [2, 0]);
}

#[test]
fn a_route_whose_rules_are_all_invalid_is_not_counted_and_answers_all_the_same() {
    let route = http_route("r", "{name: gw, namespace: edge, sectionName: any}", "")
        .replace("rules: [{", "rules: [{filters: [{type: Nonsense}], ");
    let (index, _) = serve(&(NAMESPACES.to_owned() + &gateway(LISTENERS) + &route));
    assert_eq!(route_status(&index, "r"), [["Accepted/UnsupportedValue"]]);
    assert_eq!(attached(&index).iter().sum::<usize>(), 0);
    assert_eq!(parents(&index), ["edge/gw/any"], "500 instead of 404");
}

#[test]
fn what_a_consumer_route_may_do_a_gateway_may_not() {
    let bank = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: bank, namespace: money}\n\
                spec: {clusterIP: 10.96.0.12, ports: [{port: 80, appProtocol: http}]}\n";
    let consumer = "{group: '', kind: Service, name: bank, namespace: money}";
    let to_bank =
        |parents: &str| http_route("r", parents, "").replace("name: cart, port", "name: bank, namespace: money, port");
    let base = NAMESPACES.to_owned() + bank + &gateway(LISTENERS);
    let (index, _) = serve(&(base.clone() + &to_bank(consumer)));
    assert_eq!(route_status(&index, "r"), [Vec::<String>::new()], "its clients could call it anyway");
    let both = format!("{consumer}, {{name: gw, namespace: edge, sectionName: any}}");
    let (index, _) = serve(&(base + &to_bank(&both)));
    let denied = || vec!["ResolvedRefs/RefNotPermitted".to_owned()];
    assert_eq!(route_status(&index, "r"), [denied(), denied()], "without a ReferenceGrant nobody from outside may");
}

#[test]
fn a_host_of_a_listener_has_routes_of_one_kind() {
    let of = |kind: &str, name: &str, day: u32, hosts: &str| {
        let made = format!("metadata: {{creationTimestamp: '2026-01-0{day}T00:00:00Z', ");
        http_route(name, "{name: gw, namespace: edge}", hosts).replace("metadata: {", &made).replace("HTTPRoute", kind)
    };
    let listener = "{name: l, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";
    let base = NAMESPACES.to_owned() + &gateway(listener);
    let grpc_status = |index: &Index| match index.status(&ObjectRef::new(Kind::GrpcRoute, "shop", "g")) {
        Some((_, ObjectStatus::Parents(parents))) => parents.iter().map(|p| wrong(&p.conditions)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let lost = || vec![vec!["Accepted/Conflicted".to_owned()]];
    let ok = || vec![Vec::<String>::new()];
    for (http, grpc, want_http, want_grpc) in [
        ((1, "a.com"), (2, "a.com"), ok(), lost()),
        ((2, "a.com"), (1, "a.com"), lost(), ok()),
        ((1, "a.com"), (2, "b.com"), ok(), ok()),
        ((1, ""), (2, "b.com"), ok(), lost()),
        ((1, "'*.com'"), (2, "b.com"), ok(), lost()),
    ] {
        let routes = [of("HTTPRoute", "h", http.0, http.1), of("GRPCRoute", "g", grpc.0, grpc.1)];
        let (index, _) = serve(&(base.clone() + &routes.concat()));
        assert_eq!(
            (route_status(&index, "h"), grpc_status(&index)),
            (want_http.clone(), want_grpc.clone()),
            "{http:?} {grpc:?}"
        );
        assert_eq!(attached(&index)[0], [&want_http, &want_grpc].iter().filter(|it| ***it == ok()).count());
        // The other way round, one by one; and what had lost gets its hosts when the winner goes.
        let (mut index, _) = serve(&base);
        for route in routes.iter().rev() {
            objects(route).into_iter().for_each(|o| index.apply(o));
            index.commit();
        }
        assert_eq!((route_status(&index, "h"), grpc_status(&index)), (want_http, want_grpc), "{http:?} {grpc:?}");
        index.delete(&ObjectRef::new(Kind::HttpRoute, "shop", "h"));
        index.commit();
        assert_eq!(grpc_status(&index), ok());
    }
}

#[test]
fn a_route_may_leave_the_choice_of_gateways_to_them() {
    let defaulting =
        |more: &str| http_route("r", "", "").replace("parentRefs: []", &format!("useDefaultGateways: All{more}"));
    let any = "{name: any, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";
    let of = |name: &str, port: &str, scope: &str| {
        gateway_of(name, &format!("listeners: [{}]{scope}", any.replace("80", port)))
    };
    let own = "{name: own, port: 83, protocol: HTTP}";
    let base = NAMESPACES.to_owned()
        + &of("a", "80", ", defaultScope: All")
        + &of("b", "81", ", defaultScope: None")
        + &of("c", "82", "")
        + &gateway_of("d", &format!("listeners: [{own}], defaultScope: All"));
    let (mut index, _) = serve(&(base.clone() + &defaulting("")));
    assert_eq!((parents(&index), route_status(&index, "r")), (vec!["edge/a/any".to_owned()], vec![vec![]]));
    let mut with = |text: &str, want: &[&str]| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        index.commit();
        assert_eq!(parents(&index), want, "{text}");
    };
    with(&of("c", "82", ", defaultScope: All"), &["edge/a/any", "edge/c/any"]);
    with(&of("a", "80", ""), &["edge/c/any"]);
    with(
        &defaulting(", parentRefs: [{name: b, namespace: edge}, {name: c, namespace: edge}]"),
        &["edge/b/any", "edge/c/any"],
    );
    with(&defaulting("").replace("Gateways: All", "Gateways: None"), &[]);
    with(&defaulting(", hostnames: [a.com]").replace("hostnames: [], ", ""), &["edge/c/any"]);
    with(&of("c", "82", ", defaultScope: All").replace("protocol: HTTP,", "protocol: HTTP, hostname: b.com,"), &[]);
    assert_eq!(route_status(&index, "r"), [["Accepted/NoMatchingListenerHostname"]]);
}

/// Of the only rule, at a Gateway if it has one.
fn hostnames(index: &Index) -> Vec<String> {
    let of = |rule: &RouteRule| match rule {
        RouteRule::Http(rule) => Some(rule.hostnames.iter().map(ToString::to_string).collect()),
        RouteRule::L4(_) => None,
    };
    let at_gateway = index.resources().find_map(|resource| match resource {
        Resource::GatewayRule(it) => of(&it.rule),
        _ => None,
    });
    let at_service = || {
        index.resources().find_map(|resource| match resource {
            Resource::Rule(rule) => of(rule),
            _ => None,
        })
    };
    at_gateway.or_else(at_service).unwrap()
}

#[test]
fn a_route_of_a_service_and_a_gateway_has_a_status_for_each_in_its_order() {
    let parents_of = "{name: gw, namespace: edge, sectionName: own}, {group: '', kind: Service, name: cart}, {name: gw, namespace: edge, sectionName: any}";
    let (index, _) = serve(&(NAMESPACES.to_owned() + &gateway(LISTENERS) + &http_route("r", parents_of, "x.org")));
    assert_eq!(route_status(&index, "r"), [vec!["Accepted/NotAllowedByListeners".to_owned()], vec![], vec![]]);
    assert_eq!(parents(&index), ["shop/cart:80", "edge/gw/any"]);
    assert_eq!(hostnames(&index), ["x.org"]);
    let (index, _) =
        serve(&(NAMESPACES.to_owned() + &http_route("r", "{group: '', kind: Service, name: cart}", "x.org")));
    assert_eq!(hostnames(&index), Vec::<String>::new(), "at a Service they have no meaning");
}
