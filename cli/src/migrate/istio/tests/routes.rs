//! What a VirtualService can't be translated without, and what it costs.

use serde_json::json;

use super::migrate;
use crate::migrate::report::Level;

const SERVICES: &str = "
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {selector: {app: api}, ports: [{name: http, port: 80}, {name: http-admin, port: 81}, {name: tcp-db, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: odd, namespace: shop}, spec: {selector: {app: odd}, ports: [{name: http-a, port: 90}, {name: http-b, port: 91}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: far, namespace: other}, spec: {selector: {app: far}, ports: [{name: http, port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web, namespace: shop}, spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}}
";

fn service(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}{SERVICES}"
    )
}

#[test]
fn what_decides_where_requests_go_is_translated_or_costs_the_whole_of_it() {
    for spec in [
        "{hosts: [web], http: [{match: [{sourceLabels: {app: x}}], route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{match: [{withoutHeaders: {x: {exact: y}}}], route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{match: [{port: 80}], route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{match: [{uri: {regex: '('}}], route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{match: [{uri: {prefix: /a//b}}], route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{match: [{unheard: of}], route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{unheard: of, route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{rewrite: {uriRegexRewrite: {match: a, rewrite: b}}, route: [{destination: {host: web}}]}]}",
        "{hosts: [web], http: [{route: [{destination: {host: web, subset: v9}}]}]}",
        "{hosts: [web], http: [{route: [{destination: {host: example.com}}]}]}",
        "{hosts: [web], http: [{route: [{destination: {host: web, port: {number: 99}}}]}]}",
        "{hosts: [web], http: [{route: [{destination: {host: odd}}]}]}",
        "{hosts: [web], http: [{delegate: {name: nobody}}]}",
        "{hosts: [web], tls: [{match: [{sniHosts: [a]}], route: [{destination: {host: web}}]}]}",
        "{hosts: [nobody], http: [{route: [{destination: {host: web}}]}]}",
        // Either may match, and here the longer one comes first.
        "{hosts: [web], http: [{match: [{uri: {regex: '/a.*'}}], route: [{destination: {host: web}}]},
            {match: [{uri: {regex: '/a[0-9]+'}}], route: [{destination: {host: api, port: {number: 80}}}]}]}",
    ] {
        let made = migrate(&service(spec));
        assert!(made.of_kind("HTTPRoute").is_empty() && made.of_kind("Service").is_empty(), "{spec}\n{}", made.yaml());
        assert!(made.left().contains("the VirtualService"), "{spec}\n{}", made.report);
    }
}

#[test]
fn requests_stay_on_the_port_that_they_were_for() {
    let made = migrate(&service("{hosts: [api], http: [{route: [{destination: {host: api}}]}]}"));
    let ports = |pointer: &str| -> Vec<_> {
        made.of_kind("HTTPRoute").iter().map(|it| it.pointer(pointer).unwrap().clone()).collect()
    };
    assert_eq!(ports("/spec/parentRefs/0/port"), [json!(80), json!(81)]);
    assert_eq!(ports("/spec/rules/0/backendRefs/0/port"), [json!(80), json!(81)]);
}

#[test]
fn a_subset_is_a_service_of_the_pods_that_it_was_for() {
    let made = migrate(&service("{hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}"));
    let subset = made.of_kind("Service")[0];
    assert_eq!(subset["spec"]["selector"], json!({ "app": "web", "version": "v1" }));
    assert_eq!(subset["metadata"]["name"], "web-v1");
    assert_eq!(made.of_kind("HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"][0]["name"], "web-v1");
    // One that is there already is used, and one that is somebody else's is not.
    let there = "\n---\n{apiVersion: v1, kind: Service, metadata: {name: web-v1, namespace: shop}, spec: {selector: {app: web, version: v1}, ports: [{port: 80}]}}";
    let spec = "{hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}";
    let made = migrate(&(service(spec) + there));
    assert!(made.of_kind("Service").is_empty() && made.of_kind("HTTPRoute").len() == 1, "{}", made.report);
    let made = migrate(&(service(spec) + &there.replace("version: v1", "version: v2")));
    assert!(made.of_kind("HTTPRoute").is_empty() && made.left().contains("the VirtualService"));
}

#[test]
fn routes_are_where_they_are_for_the_same_clients() {
    let route = "http: [{route: [{destination: {host: far.other.svc.cluster.local}}]}]";
    let host = "hosts: [far.other.svc.cluster.local]";
    let everybody = migrate(&service(&format!("{{{host}, {route}}}")));
    assert_eq!(everybody.of_kind("HTTPRoute")[0]["metadata"]["namespace"], "other");
    let own = migrate(&service(&format!("{{{host}, exportTo: [.], {route}}}")));
    assert_eq!(own.of_kind("HTTPRoute")[0]["metadata"]["namespace"], "shop");
    let grant = own.of_kind("ReferenceGrant")[0];
    assert_eq!((&grant["metadata"]["namespace"], &grant["spec"]["to"][0]["name"]), (&json!("other"), &json!("far")));
    assert!(own.complaints().is_empty(), "{:?}", own.complaints());
}

#[test]
fn of_several_destinations_one_without_a_weight_has_nothing() {
    let spec = "{hosts: [web], http: [{route: [{destination: {host: web}, weight: 100}, {destination: {host: far.other.svc.cluster.local}}]}]}";
    let made = migrate(&service(spec));
    let refs = &made.of_kind("HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"];
    assert_eq!((&refs[0]["weight"], &refs[1]["weight"]), (&json!(100), &json!(0)));
}

#[test]
fn bytes_have_routes_of_their_own_by_port() {
    let spec = "{hosts: [api], http: [{route: [{destination: {host: web}}]}], tcp: [{match: [{port: 5432}], route: [{destination: {host: api, port: {number: 5432}}}]}]}";
    let made = migrate(&service(spec));
    let tcp = made.of_kind("TCPRoute");
    assert_eq!(tcp.len(), 1);
    assert_eq!(tcp[0]["spec"]["parentRefs"][0]["port"], 5432);
    assert!(made.complaints().is_empty(), "{:?}", made.complaints());
}

#[test]
fn a_second_virtual_service_for_a_host_is_said_to_be_left_out() {
    let one = service("{hosts: [web], http: [{route: [{destination: {host: web}}]}]}");
    let two = one.split("\n---").next().unwrap().replace("name: web, namespace", "name: later, namespace");
    let made = migrate(&format!("{one}\n---\n{two}"));
    assert_eq!(made.of_kind("HTTPRoute").len(), 1);
    let left = made.report.of(Level::LeftOut).next().unwrap();
    assert_eq!((left.object.as_str(), left.setting.as_str()), ("VirtualService shop/web", "spec.hosts"));
}

#[test]
fn more_rules_than_a_route_can_have_are_several_routes_in_their_order() {
    let rules: Vec<String> = (0..40)
        .map(|i| format!("{{match: [{{uri: {{exact: /p{i}}}}}], route: [{{destination: {{host: web}}}}]}}"))
        .collect();
    let made = migrate(&service(&format!("{{hosts: [web], http: [{}]}}", rules.join(", "))));
    let names: Vec<_> = made.of_kind("HTTPRoute").iter().map(|it| it["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["web", "web-02", "web-03"]);
    assert!(made.complaints().is_empty(), "{:?}", made.complaints());
}
