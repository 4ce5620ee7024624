//! ListenerSets.

use super::routes::{NAMESPACES, http_route, parents, route_status};
use super::*;
use crate::object::ListenerSetStatus;

fn taking(from: &str, listeners: &str) -> String {
    let allowed =
        if from.is_empty() { String::new() } else { format!(", allowedListeners: {{namespaces: {{{from}}}}}") };
    gateway_of("gw", &format!("listeners: [{listeners}]{allowed}"))
}

fn set(namespace: &str, name: &str, created: u32, listeners: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
         metadata: {{name: {name}, namespace: {namespace}, generation: 5, creationTimestamp: '2026-01-0{created}T00:00:00Z'}}\n\
         spec: {{parentRef: {{name: gw, namespace: edge}}, listeners: [{listeners}]}}\n"
    )
}

fn namespace(name: &str, team: &str) -> String {
    format!("\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {team}}}}}\n")
}

fn http(name: &str, host: &str) -> String {
    format!(
        "{{name: {name}, port: 80, protocol: HTTP, hostname: {host}, allowedRoutes: {{namespaces: {{from: All}}}}}}"
    )
}

fn set_status(index: &Index, namespace: &str, name: &str) -> ListenerSetStatus {
    match index.status(&ObjectRef::new(Kind::ListenerSet, namespace, name)) {
        Some((5, ObjectStatus::ListenerSet(status))) => status.clone(),
        other => panic!("{other:?}"),
    }
}

/// What is wrong with a set, and with each of its listeners.
fn told(index: &Index, namespace: &str, name: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let status = set_status(index, namespace, name);
    (wrong(&status.conditions), status.listeners.iter().map(|it| wrong(&it.conditions)).collect())
}

fn good(listeners: usize) -> (Vec<String>, Vec<Vec<String>>) {
    (Vec::new(), vec![Vec::new(); listeners])
}

fn refused(reason: &str, listeners: Vec<Vec<String>>) -> (Vec<String>, Vec<Vec<String>>) {
    (["Accepted", "Programmed"].map(|kind| format!("{kind}/{reason}")).to_vec(), listeners)
}

#[test]
fn a_gateway_says_whose_sets_it_takes() {
    for (from, edge, a, b) in [
        ("", false, false, false),
        ("from: None", false, false, false),
        ("from: Same", true, false, false),
        ("from: All", true, true, true),
        ("from: Selector, selector: {matchLabels: {team: a}}", false, true, false),
        ("from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: edge}}", true, false, false),
        ("from: Selector, selector: {matchExpressions: [{key: team, operator: Like}]}", false, false, false),
        ("from: Selector", false, false, false),
    ] {
        let text = taking(from, &http("own", "own.com"))
            + &namespace("a", "a")
            + &namespace("b", "b")
            + &set("edge", "s", 1, &http("l", "edge.com"))
            + &set("a", "s", 1, &http("l", "a.com"))
            + &set("b", "s", 1, &http("l", "b.com"));
        let (index, _) = serve(&text);
        for (namespace, allowed) in [("edge", edge), ("a", a), ("b", b)] {
            let want = if allowed { good(1) } else { refused("NotAllowed", Vec::new()) };
            assert_eq!(told(&index, namespace, "s"), want, "{from}: {namespace}");
            let served = names(&index).contains(&format!("edge/gw/{namespace}/s/l:80"));
            assert_eq!(served, allowed, "{from}: {:?}", names(&index));
        }
        let status = status_of(&index, "gw");
        assert_eq!(status.attached_listener_sets, [edge, a, b].into_iter().filter(|it| *it).count(), "{from}");
        assert_eq!((status.listeners.len(), wrong(&status.conditions)), (1, vec![]), "{from}");
    }
}

#[test]
fn the_gateways_listeners_come_first_and_older_sets_before_newer_ones() {
    let conflict =
        |reason: &str| ["Accepted", "Conflicted", "Programmed"].map(|kind| format!("{kind}/{reason}")).to_vec();
    let tcp = "{name: tcp, port: 80, protocol: TCP}";
    for (own, older, newer, want_older, want_newer) in [
        // Hostnames.
        (
            http("own", "own.com"),
            [http("x", "own.com"), http("y", "y.com")].join(", "),
            [http("x", "own.com")].join(", "),
            (Vec::new(), vec![conflict("HostnameConflict"), Vec::new()]),
            refused("ListenersNotValid", vec![conflict("HostnameConflict")]),
        ),
        (
            http("own", "own.com"),
            http("x", "x.com"),
            [http("x", "x.com"), http("z", "z.com")].join(", "),
            good(1),
            (Vec::new(), vec![conflict("HostnameConflict"), Vec::new()]),
        ),
        // Protocols; what lost is in nobody's way.
        (
            http("own", "own.com"),
            [tcp.to_owned(), http("y", "y.com")].join(", "),
            http("z", "z.com"),
            (Vec::new(), vec![conflict("ProtocolConflict"), Vec::new()]),
            good(1),
        ),
        (
            "{name: own, port: 81, protocol: HTTP}".to_owned(),
            tcp.to_owned(),
            http("z", "z.com"),
            good(1),
            refused("ListenersNotValid", vec![conflict("ProtocolConflict")]),
        ),
    ] {
        let sets = [set("edge", "older", 1, &older), set("edge", "newer", 2, &newer)];
        for order in [[0, 1], [1, 0]] {
            let text = taking("from: All", &own) + &order.map(|i| sets[i].as_str()).concat();
            let (index, _) = serve(&text);
            assert_eq!(told(&index, "edge", "older"), want_older, "{older}");
            assert_eq!(told(&index, "edge", "newer"), want_newer, "{newer}");
            let own = status_of(&index, "gw");
            assert!(own.listeners.iter().all(|it| wrong(&it.conditions).is_empty()), "{own:?}");
            let accepted = [&want_older, &want_newer].iter().filter(|(set, _)| set.is_empty()).count();
            assert_eq!(own.attached_listener_sets, accepted, "{older} {newer}");
        }
    }
    // Of the same age: by namespace and name. Two listeners may have the same name.
    let text = taking("from: All", &http("l", "own.com"))
        + &set("b", "s", 1, &http("l", "x.com"))
        + &set("a", "z", 1, &http("l", "x.com"));
    let (index, _) = serve(&text);
    assert_eq!(names(&index), ["edge/gw/l:80", "edge/gw/a/z/l:80"]);
}

#[test]
fn a_set_needs_grants_of_its_own() {
    let https = "{name: l, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c, namespace: vault}]}}";
    let base = taking("from: All", HTTP) + &secret("vault", "c", "chain 1", "key 1") + &set("team", "s", 1, https);
    let grant = |kind: &str, namespace: &str| {
        let from = format!("group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}");
        grant("vault", &from, "group: '', kind: Secret")
    };
    let denied = ["Programmed/Invalid", "ResolvedRefs/RefNotPermitted"].map(str::to_owned).to_vec();
    for (grant, permitted) in [
        (grant("ListenerSet", "team"), true),
        (grant("ListenerSet", "edge"), false),
        (grant("Gateway", "team"), false),
        (grant("Gateway", "edge"), false),
    ] {
        let (index, _) = serve(&(base.clone() + &grant));
        let want = if permitted { good(1) } else { refused("ListenersNotValid", vec![denied.clone()]) };
        assert_eq!(told(&index, "team", "s"), want, "{grant}");
        assert_eq!(status_of(&index, "gw").attached_listener_sets, usize::from(permitted));
        assert!(wrong(&status_of(&index, "gw").conditions).is_empty(), "what a set lacks is not the Gateway's fault");
    }
    // The Gateway asks for clients' certificates on all HTTPS listeners of a port, whoever holds them.
    let asking = base.replace(
        "allowedListeners",
        "tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: nobody}]}}}}, allowedListeners",
    );
    let (index, _) = serve(&(asking + &grant("ListenerSet", "team")));
    let (_, listeners) = told(&index, "team", "s");
    let want = ["Accepted/NoValidCACertificate", "Programmed/Invalid", "ResolvedRefs/InvalidCACertificateRef"];
    assert_eq!(listeners, [want.map(str::to_owned).to_vec()]);
}

#[test]
fn routes_attach_to_a_set_by_naming_it() {
    let same = "{name: same, port: 80, protocol: HTTP, hostname: same.com}";
    let base = NAMESPACES.to_owned()
        + &taking("from: All", &http("own", "own.com"))
        + &set("shop", "s", 1, &[http("x", "x.com"), http("y", "y.com"), same.to_owned()].join(", "))
        + &set("edge", "t", 1, &[http("z", "z.com"), same.replace("same.com", "other.com")].join(", "));
    let of_set = |namespace: &str, name: &str, more: &str| {
        format!("{{group: gateway.networking.k8s.io, kind: ListenerSet, namespace: {namespace}, name: {name}{more}}}")
    };
    let gateway = |more: &str| format!("{{name: gw, namespace: edge{more}}}");
    let ok = || Vec::<String>::new();
    let no = |reason: &str| vec![format!("Accepted/{reason}")];
    for (parents_of, hostnames, listeners, status) in [
        (vec![gateway("")], "", "own", vec![ok()]),
        (vec![gateway(", sectionName: x")], "", "", vec![no("NoMatchingParent")]),
        (vec![of_set("shop", "s", "")], "", "shop/s/x shop/s/y shop/s/same", vec![ok()]),
        (vec![of_set("shop", "s", "")], "y.com", "shop/s/y", vec![ok()]),
        (vec![of_set("shop", "s", "")], "own.com", "", vec![no("NoMatchingListenerHostname")]),
        (vec![of_set("shop", "s", ", sectionName: x")], "", "shop/s/x", vec![ok()]),
        (vec![of_set("shop", "s", ", sectionName: own")], "", "", vec![no("NoMatchingParent")]),
        (vec![of_set("shop", "s", ", port: 80")], "x.com", "shop/s/x", vec![ok()]),
        (vec![of_set("shop", "s", ", port: 81")], "", "", vec![no("NoMatchingParent")]),
        // `Same` is the set's own namespace.
        (vec![of_set("edge", "t", "")], "", "edge/t/z", vec![ok()]),
        (vec![of_set("edge", "t", ", sectionName: same")], "", "", vec![no("NotAllowedByListeners")]),
        (vec![of_set("shop", "nobody", "")], "", "", vec![no("NoMatchingParent")]),
        // Each parentRef by itself.
        (
            vec![gateway(", sectionName: nobody"), of_set("shop", "s", ", sectionName: x"), gateway("")],
            "",
            "own shop/s/x",
            vec![no("NoMatchingParent"), ok(), ok()],
        ),
    ] {
        let (index, _) = serve(&(base.clone() + &http_route("r", &parents_of.join(", "), hostnames)));
        let mut got = parents(&index);
        got.sort();
        let mut want: Vec<_> = listeners.split_whitespace().map(|name| format!("edge/gw/{name}")).collect();
        want.sort();
        assert_eq!(got, want, "{parents_of:?} {hostnames}");
        assert_eq!(route_status(&index, "r"), status, "{parents_of:?} {hostnames}");
        let attached = |listeners: &[crate::object::ListenerStatus]| -> usize {
            listeners.iter().map(|it| it.attached_routes).sum()
        };
        let own = attached(&status_of(&index, "gw").listeners);
        let of_sets =
            [("shop", "s"), ("edge", "t")].map(|(ns, name)| attached(&set_status(&index, ns, name).listeners));
        assert_eq!(own + of_sets.iter().sum::<usize>(), want.len(), "{parents_of:?} {hostnames}");
    }
}

#[test]
fn a_set_comes_changes_its_mind_and_goes_live() {
    let route = http_route("r", "{kind: ListenerSet, group: gateway.networking.k8s.io, namespace: shop, name: s}", "");
    let (mut index, _) = serve(&(NAMESPACES.to_owned() + &taking("from: All", &http("own", "own.com")) + &route));
    assert_eq!(route_status(&index, "r"), [["Accepted/NoMatchingParent"]]);
    let mut with = |text: &str, want: &[&str]| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        let out = index.commit();
        assert_eq!(names(&index), want, "{text}");
        (out, route_status(&index, "r"))
    };
    let (_, told) = with(&set("shop", "s", 1, &http("x", "x.com")), &["edge/gw/own:80", "edge/gw/shop/s/x:80"]);
    assert_eq!(told, [Vec::<String>::new()]);
    // An edit of a set touches what is its own.
    let (out, _) = with(
        &set("shop", "s", 1, &[http("x", "x.com"), http("y", "y.com")].join(", ")),
        &["edge/gw/own:80", "edge/gw/shop/s/x:80", "edge/gw/shop/s/y:80"],
    );
    let touched: Vec<_> = out.statuses.iter().map(|update| update.object.kind).collect();
    assert_eq!(touched, [Kind::ListenerSet], "{:?}", out.statuses);
    let (_, told) = with(&taking("from: None", &http("own", "own.com")), &["edge/gw/own:80"]);
    assert_eq!(told, [["Accepted/NoMatchingParent"]]);
    with(
        &taking("from: All", &http("own", "own.com")),
        &["edge/gw/own:80", "edge/gw/shop/s/x:80", "edge/gw/shop/s/y:80"],
    );
    let other = set("shop", "s", 1, &http("x", "x.com")).replace("name: gw", "name: others");
    let (_, told) = with(&other, &["edge/gw/own:80"]);
    assert_eq!(told, Vec::<Vec<String>>::new(), "it is of a Gateway that we don't serve");
    assert!(index.status(&ObjectRef::new(Kind::ListenerSet, "shop", "s")).is_none());
}

#[test]
fn in_a_cluster_a_set_is_programmed_with_its_gateway() {
    let class = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
                 spec: {controllerName: weftmesh.io/gateway-controller}\n";
    let service = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: gw-weft, namespace: edge, \
                   labels: {gateway.networking.k8s.io/gateway-name: gw}, ownerReferences: \
                   [{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: gw, uid: ''}]}\n\
                   spec: {type: LoadBalancer, clusterIPs: [10.0.0.1], ports: [{port: 80}]}\n\
                   status: {loadBalancer: {ingress: [{ip: 192.0.2.7}]}}\n";
    let settings = GatewaySettings { place: Place::Cluster, check: KeyPairCheck(check) };
    let mut index = Index::new(IndexConfig { gateways: Some(settings), ..IndexConfig::default() });
    let text = class.to_owned()
        + service
        + &taking("from: All", &http("own", "own.com"))
        + &set("edge", "s", 1, &http("l", "x.com"));
    objects(&text).into_iter().for_each(|o| index.apply(o));
    index.commit();
    let waiting = (vec!["Programmed/ParentNotProgrammed".to_owned()], vec![vec!["Programmed/Pending".to_owned()]]);
    assert_eq!(told(&index, "edge", "s"), waiting);
    let gw = weft_core::ids::GatewayKey::new("edge", "gw");
    index.set_bound([(gw.clone(), BTreeMap::new())].into());
    let out = index.commit();
    assert_eq!((told(&index, "edge", "s"), out.changes.len()), (good(1), 0));
    // No pod can bind it: the Gateway's own listener goes on, and so says the Gateway.
    let mut key = weft_core::ids::ListenerKey::new(gw.clone(), "l");
    key.set = Some(weft_core::ids::ListenerSetKey::new("edge", "s"));
    index.set_bound([(gw, [(key, "in use".to_owned())].into())].into());
    index.commit();
    let refused = || vec!["Programmed/RefusedByPod".to_owned()];
    assert_eq!(told(&index, "edge", "s"), (refused(), vec![refused()]));
    assert!(
        wrong(&status_of(&index, "gw").conditions).is_empty()
            && wrong(&status_of(&index, "gw").listeners[0].conditions).is_empty()
    );
    assert_eq!(status_of(&index, "gw").attached_listener_sets, 1);
}

#[test]
fn a_set_made_anew_is_told_its_status() {
    let of = |uid: &str| {
        set("edge", "s", 1, &http("x", "x.com")).replace("generation: 5", &format!("generation: 5, uid: {uid}"))
    };
    let (mut index, _) = serve(&(taking("from: All", HTTP).replace("port: 80", "port: 81") + &of("a")));
    objects(&of("b")).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    let told: Vec<_> = out.statuses.iter().map(|update| update.object.kind).collect();
    assert_eq!((told, out.changes.len()), (vec![Kind::ListenerSet], 0));
    assert_eq!(self::told(&index, "edge", "s"), good(1));
}

#[test]
fn a_set_of_a_gateway_that_is_refused_or_not_ours() {
    let refusing = taking("from: All", HTTP).replace("spec: {", "spec: {addresses: [{type: Hostname, value: a.com}], ");
    let (index, _) = serve(&(refusing + &set("edge", "s", 1, &http("x", "x.com"))));
    let (own, _) = told(&index, "edge", "s");
    assert_eq!(own, ["Accepted/ParentNotAccepted", "Programmed/ParentNotProgrammed"]);
    let others = taking("from: All", HTTP).replace("gatewayClassName: weft", "gatewayClassName: other");
    for text in [others, String::new()] {
        let (index, _) = serve(&(text + &set("edge", "s", 1, &http("x", "x.com"))));
        assert_eq!(index.statuses().count(), 0, "nothing is said of what isn't ours");
    }
}
