//! A shop with a canary, as two proxies count it, seen by those who may view all of it and by those who may not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use weft_core::change::{Change, Resource};
use weft_core::gateway::{Certificate, Listener, ListenerProtocol, PrivateKey};
use weft_core::ids::{CertificateKey, GatewayKey, ListenerKey, Port, SecretKey};
use weft_core::snapshot::Snapshot;
use weft_k8s::index::{Index, IndexConfig};
use weft_k8s::object::Object;
use weft_k8s::parse;

use crate::routes::Backend;
use crate::{Certificates, Failures, Graph, Lens, Metrics, Routes, Window};

const MANIFESTS: &str = include_str!("tests/shop.yaml");

/// The configuration: `cart` with a canary, whose second backend is in namespace `vault`.
fn snapshot() -> Snapshot {
    snapshot_of(MANIFESTS)
}

/// The same of other manifests, with an endpoint for each of the two backends.
fn snapshot_of(manifests: &str) -> Snapshot {
    let mut index = Index::new(IndexConfig::default());
    let parsed = parse::parse("shop.yaml", manifests);
    assert!(!parsed.broken && parsed.findings.is_empty(), "{:?}", parsed.findings);
    for object in parsed.objects.into_iter().map(|located| located.object) {
        index.apply(object);
    }
    for (namespace, name, ip) in [("shop", "cart-v1", "10.0.0.1"), ("vault", "cart-v2", "10.0.0.2")] {
        let slice = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-1"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }));
        index.apply(Object::EndpointSlice(Arc::new(slice.unwrap())));
    }
    index.commit();
    let changes: Vec<_> = index.resources().cloned().map(Change::Upsert).collect();
    Snapshot::default().apply(&changes)
}

fn ends(from: (&str, &str), to: (&str, &str)) -> String {
    format!(
        "reporter=\"source\",source_namespace=\"{}\",source_workload=\"{}\",destination_namespace=\"{}\",destination_workload=\"{}\"",
        from.0, from.1, to.0, to.1
    )
}

fn dialled(namespace: &str, name: &str, port: u16) -> String {
    format!("destination_service_namespace=\"{namespace}\",destination_service=\"{name}\",destination_port=\"{port}\"")
}

/// What two proxies have counted: `factor` times as much as in a stretch of ten seconds.
fn pages(factor: f64) -> Vec<(String, Metrics)> {
    let mut n1 = String::new();
    let mut line = |name: &str, labels: String, value: f64| n1.push_str(&format!("{name}{{{labels}}} {value}\n"));
    let cart = dialled("shop", "cart", 80);
    for (from, to, rule, requests, failed) in [
        (("shop", "web"), ("shop", "cart-v1"), "0", 900.0, 0.0),
        (("shop", "web"), ("vault", "cart-v2"), "0", 100.0, 20.0),
        (("office", "batch"), ("shop", "cart-v1"), "0", 50.0, 0.0),
        (("edge", "public"), ("shop", "cart-v1"), "1", 30.0, 0.0),
    ] {
        let way = format!("{},{cart},route=\"HTTPRoute/shop/canary\",rule=\"{rule}\"", ends(from, to));
        let security = "connection_security=\"mutual_tls\"";
        let outcome =
            |class: &str, reason: &str| format!("{way},{security},response_class=\"{class}\",reason=\"{reason}\"");
        line("weft_http_requests_total", outcome("2xx", "ok"), (requests - failed) * factor);
        line("weft_http_requests_total", outcome("5xx", "ok"), failed * factor);
        line("weft_http_request_time_seconds_total", format!("{way},{security}"), requests * 0.02 * factor);
        for (le, share) in [("0.05", 0.9), ("0.1", 1.0), ("+Inf", 1.0)] {
            let place = format!(
                "reporter=\"source\",destination_namespace=\"{}\",destination_workload=\"{}\",{cart},\
                 route=\"HTTPRoute/shop/canary\",rule=\"{rule}\",le=\"{le}\"",
                to.0, to.1
            );
            line("weft_http_request_duration_seconds_bucket", place, requests * share * factor);
        }
    }
    // A Service without endpoints, a policy's no, and the calls of others among themselves.
    let refused = |from, to, service: String, class: &str, reason: &str| {
        format!(
            "{},{service},connection_security=\"none\",response_class=\"{class}\",reason=\"{reason}\"",
            ends(from, to)
        )
    };
    let unknown = ("unknown", "unknown");
    let none = refused(("shop", "web"), unknown, dialled("shop", "stock", 80), "5xx", "no_endpoint");
    line("weft_http_requests_total", none, 5.0 * factor);
    let denied = refused(("office", "batch"), ("shop", "cart-v1"), cart.clone(), "4xx", "policy_denied");
    line("weft_http_requests_total", denied, 3.0 * factor);
    let others = refused(("office", "batch"), ("vault", "safe"), dialled("vault", "safe", 80), "5xx", "connect_failed");
    line("weft_http_requests_total", others, 7.0 * factor);
    let tcp = format!(
        "{},{},connection_security=\"mutual_tls\"",
        ends(("shop", "web"), ("shop", "ledger")),
        dialled("shop", "ledger", 5432)
    );
    line("weft_tcp_connections", tcp.clone(), 3.0);
    line("weft_tcp_connections_opened_total", tcp, 10.0 * factor);
    let clear = ends(unknown, ("shop", "cart-v1")).replace("\"source\"", "\"destination\"");
    line("weft_tcp_connections_opened_total", format!("{clear},connection_security=\"plaintext\""), 20.0 * factor);
    for (namespace, reason) in [("shop", "plaintext_refused"), ("vault", "plaintext_refused"), ("shop", "ok")] {
        let labels = format!("namespace=\"{namespace}\",workload=\"till\",direction=\"inbound\",reason=\"{reason}\"");
        line("weft_tcp_connections_refused_total", labels, 2.0 * factor);
    }
    let sa = |namespace: &str, name: &str| format!("identity=\"spiffe://cluster.local/ns/{namespace}/sa/{name}\"");
    line("weft_certificate_expiry_timestamp_seconds", sa("shop", "web"), 1_800_000_900.0);
    line("weft_certificate_expiry_timestamp_seconds", sa("vault", "safe"), 1_800_000_900.0);
    line("weft_trusted_root_expiry_timestamp_seconds", "trust_domain=\"cluster.local\"".to_owned(), 2_100_000_000.0);
    let mut n2 = String::new();
    n2.push_str(&format!("weft_certificate_expiry_timestamp_seconds{{{}}} 1800000100\n", sa("shop", "web")));
    n2.push_str(&format!("weft_certificate_renewal_failures{{{}}} 2\n", sa("shop", "web")));
    n2.push_str(&format!("weft_certificate_expiry_timestamp_seconds{{{}}} 0\n", sa("shop", "cart")));
    vec![("node n1".to_owned(), Metrics::parse(&n1)), ("node n2".to_owned(), Metrics::parse(&n2))]
}

/// Ten seconds of it.
fn window() -> Window {
    Window::between(&pages(1.0), &pages(2.0), Duration::from_secs(10))
}

fn gateways() -> BTreeSet<String> {
    BTreeSet::from(["edge/public".to_owned()])
}

fn graph(lens: &Lens) -> Graph {
    Graph::of(&window(), &gateways(), lens)
}

fn certificates(lens: &Lens) -> Certificates {
    let pages = pages(1.0);
    Certificates::of(pages.iter().map(|(name, page)| (name.as_str(), page)), None, lens)
}

#[test]
fn who_calls_whom() {
    insta::assert_json_snapshot!(graph(&Lens::all()));
}

#[test]
fn where_requests_went_beside_what_the_weights_say() {
    let routes = Routes::of(&snapshot(), &window(), &Lens::all());
    let [canary, redirect, nowhere] = routes.rules.try_into().unwrap();
    assert_eq!((canary.route.as_str(), canary.rule, canary.name.as_str()), ("HTTPRoute shop/canary", 0, "canary"));
    assert_eq!(canary.parents.first().unwrap(), "Service shop/cart:80");
    assert_eq!((canary.requests_per_second, canary.success), (Some(105.0), Some(0.980952)));
    let of = |at: usize| {
        let it: &Backend = &canary.backends[at];
        (it.target.as_str(), it.weight, it.share, it.measured, it.requests_per_second, it.success)
    };
    assert_eq!(of(0), ("Service shop/cart-v1:80", 90, 0.9, Some(0.904762), Some(95.0), Some(1.0)));
    assert_eq!(of(1), ("Service vault/cart-v2:80", 10, 0.1, Some(0.095238), Some(10.0), Some(0.8)));
    assert_eq!((redirect.rule, redirect.answers.as_str(), redirect.backends.len()), (1, "a redirect, 302", 0));
    assert_eq!((redirect.requests_per_second, redirect.wants[0].as_str()), (Some(3.0), "path below /old"));
    assert_eq!(
        (nowhere.wants[0].as_str(), nowhere.requests_per_second),
        ("path below /gone and method GET", Some(0.0))
    );
    let [backend] = nowhere.backends.try_into().unwrap();
    assert_eq!((backend.share, backend.measured, backend.problem.as_str()), (1.0, None, "NotFound"));
}

#[test]
fn what_failed_and_why() {
    insta::assert_json_snapshot!(Failures::of(&window(), &Lens::all()));
}

#[test]
fn what_ends_first_comes_first_and_none_before_all() {
    insta::assert_json_snapshot!(certificates(&Lens::all()));
}

/// Every text that is in any answer.
fn told(lens: &Lens) -> String {
    let answers = [
        serde_json::to_string(&graph(lens)),
        serde_json::to_string(&Routes::of(&snapshot(), &window(), lens)),
        serde_json::to_string(&Failures::of(&window(), lens)),
        serde_json::to_string(&certificates(lens)),
    ];
    answers.map(Result::unwrap).join("\n")
}

#[test]
fn what_may_not_be_viewed_is_in_no_answer() {
    let all = told(&Lens::all());
    for secret in ["vault", "safe", "office", "batch", "cart-v2", "public"] {
        assert!(all.contains(secret), "{secret}: nothing to hide, so that this test shows nothing");
    }
    for lens in [Lens::only(["shop"]), Lens::only(["shop"]).choosing(["shop", "vault"])] {
        let told = told(&lens);
        for secret in ["vault", "safe", "office", "batch", "cart-v2", "public"] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        assert!(told.contains("another namespace"), "{told}");
    }
    let nothing = graph(&Lens::only(["elsewhere"]));
    assert!(nothing.nodes.is_empty() && nothing.edges.is_empty(), "{nothing:?}");
    assert_eq!(Routes::of(&snapshot(), &window(), &Lens::only(["vault"])).rules, []);
}

#[test]
fn calls_across_the_border_are_counts_and_nothing_else() {
    let graph = graph(&Lens::only(["shop"]));
    let edge = |from: &str, to: &str| {
        let found: Vec<_> = graph.edges.iter().filter(|it| it.from == from && it.to == to).collect();
        assert_eq!(found.len(), 1, "{from} to {to}: {graph:?}");
        found[0]
    };
    let out = edge("shop/web", "another namespace");
    assert_eq!(out.requests_per_second, 10.0);
    assert!(out.success.is_none() && out.p99_seconds.is_none() && out.encrypted.is_none(), "{out:?}");
    assert!(out.services.is_empty() && out.security.is_empty() && out.mean_seconds.is_none(), "{out:?}");
    // 50 of office, 3 of them denied beside, and 30 of the Gateway in edge: one node, one number.
    assert_eq!(edge("another namespace", "shop/cart-v1").requests_per_second, 8.3);
    let own = edge("shop/web", "shop/cart-v1");
    assert_eq!((own.encrypted, own.success), (Some(1.0), Some(1.0)));
    assert!(own.services.contains("shop/cart:80"));
    let hidden = graph.nodes.iter().find(|it| it.id == "another namespace").unwrap();
    assert!(hidden.namespace.is_empty() && hidden.success.is_none() && hidden.p99_seconds.is_none());
}

#[test]
fn a_choice_keeps_what_concerns_it_and_names_its_neighbours() {
    let graph = graph(&Lens::all().choosing(["vault"]));
    let pairs: Vec<_> = graph.edges.iter().map(|it| (it.from.as_str(), it.to.as_str())).collect();
    assert_eq!(pairs, [("office/batch", "vault/safe"), ("shop/web", "vault/cart-v2")]);
    assert_eq!(Lens::all().choosing(Vec::<String>::new()), Lens::all(), "no choice is everything");
}

#[test]
fn a_workload_behind_two_backends_is_measured_for_neither() {
    let manifests = MANIFESTS.replace(
        "{ name: cart-v2, namespace: vault, port: 80, weight: 10 }",
        "{ name: cart-v1, port: 80, weight: 10 }",
    );
    assert_ne!(manifests, MANIFESTS);
    let routes = Routes::of(&snapshot_of(&manifests), &window(), &Lens::all());
    assert!(routes.rules[0].requests_per_second > Some(1.0), "{routes:?}");
    let measured: Vec<_> = routes.rules[0].backends.iter().map(|it| (it.share, it.measured)).collect();
    assert_eq!(measured, [(0.9, None), (0.1, None)]);
}

#[test]
fn what_gateways_present_has_an_end() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 5, 6);
    let chain = params.self_signed(&key).unwrap().pem().into_bytes();
    let gateway = GatewayKey::new("edge", "public");
    let certificate = CertificateKey::new(gateway.clone(), SecretKey::new("edge", "tls"));
    let listener = Listener {
        key: ListenerKey::new(gateway, "https"),
        addresses: Vec::new(),
        port: Port::new(443).unwrap(),
        hostname: None,
        protocol: ListenerProtocol::Https { certificates: vec![certificate.clone()] },
        kinds: Vec::new(),
        client_validation: None,
        http3: false,
        policies: Vec::new(),
    };
    let private_key = PrivateKey::new(key.serialize_pem().into_bytes());
    let certificate = Certificate { key: certificate, chain, private_key };
    let listener = Change::Upsert(Resource::Listener(Arc::new(listener)));
    let certificate = Change::Upsert(Resource::Certificate(Arc::new(certificate)));
    let snapshot = Snapshot::default().apply(&[listener.clone(), certificate]);
    let of = |lens: &Lens| Certificates::of(std::iter::empty(), Some(&snapshot), lens).certificates;
    let [it] = of(&Lens::all()).try_into().unwrap();
    assert_eq!((it.name.as_str(), it.until), ("Secret edge/tls", Some(1_935_792_000)));
    assert_eq!(it.at.first().unwrap(), "Gateway edge/public listener https");
    assert!(of(&Lens::only(["shop"])).is_empty());
    // A proxy's copy of the configuration has listeners, and no certificates.
    let without = Snapshot::default().apply(&[listener]);
    let pages = pages(1.0);
    let pages = pages.iter().map(|(name, page)| (name.as_str(), page));
    let last = Certificates::of(pages, Some(&without), &Lens::all()).certificates.pop().unwrap();
    assert_eq!((last.name.as_str(), last.until), ("Secret edge/tls", None));
}
