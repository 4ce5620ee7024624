//! The example shop, explained.

use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, Method};
use weft_core::change::Change;
use weft_core::snapshot::Snapshot;
use weft_k8s::index::{Index, IndexConfig};
use weft_k8s::object::{Kind, Object};
use weft_k8s::parse;

use super::decide::Explanation;
use super::{Call, explain};

/// The shop as a cluster would know it: pods with addresses, Services with ClusterIPs and endpoints.
pub fn shop() -> Snapshot {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut index = Index::new(IndexConfig::default());
    let (mut pods, mut services) = (0_u8, 0_u8);
    let mut selected = Vec::new();
    for file in files {
        let parsed = parse::parse(&file.display().to_string(), &std::fs::read_to_string(&file).unwrap());
        assert!(!parsed.broken && parsed.findings.is_empty(), "{:?}", parsed.findings);
        for mut object in parsed.objects.into_iter().map(|l| l.object) {
            match &mut object {
                Object::Pod(pod) => {
                    pods += 1;
                    let ip = format!("10.0.0.{pods}");
                    Arc::make_mut(pod).status = serde_json::from_value(serde_json::json!({
                        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                        "conditions": [{"type": "Ready", "status": "True"}],
                    }))
                    .unwrap();
                    selected.push((pod.metadata.labels.clone().unwrap(), ip));
                }
                Object::Service(service) => {
                    services += 1;
                    let ip = format!("10.96.0.{services}");
                    let spec = Arc::make_mut(service).spec.as_mut().unwrap();
                    spec.cluster_ip = Some(ip.clone());
                    spec.cluster_ips = Some(vec![ip]);
                }
                _ => {}
            }
            index.apply(object);
        }
    }
    let slices: Vec<_> = index.of_kind(Kind::Service).map(|(_, o)| o.clone()).collect();
    for object in slices {
        let Object::Service(service) = object else { continue };
        let spec = service.spec.clone().unwrap();
        let selector = spec.selector.unwrap();
        let port = &spec.ports.unwrap()[0];
        let target = if port.port == 80 { 8080 } else { port.port };
        let chosen = selected.iter().filter(|(labels, _)| selector.iter().all(|(k, v)| labels.get(k) == Some(v)));
        let endpoints: Vec<_> =
            chosen.map(|(_, ip)| serde_json::json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        let name = service.metadata.name.clone().unwrap();
        let slice = serde_json::from_value(serde_json::json!({
            "metadata": {"name": format!("{name}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": port.name, "port": target, "protocol": "TCP"}],
        }))
        .unwrap();
        index.apply(Object::EndpointSlice(Arc::new(slice)));
    }
    index.commit();
    let changes: Vec<_> = index.resources().cloned().map(Change::Upsert).collect();
    Snapshot::default().apply(&changes)
}

fn call(source: &str, destination: &str) -> Call {
    Call {
        source: source.into(),
        destination: destination.into(),
        method: Method::GET,
        target: "/".into(),
        host: None,
        headers: HeaderMap::new(),
    }
}

fn explained(call: &Call) -> Explanation {
    explain(&shop(), call).unwrap()
}

#[test]
fn a_canary_names_its_rule_and_both_shares() {
    let explanation = explained(&call("shop/web", "catalog:80"));
    assert!(explanation.rule.as_deref().unwrap().contains("HTTPRoute/shop/catalog-canary#0"), "{explanation}");
    let shares: Vec<_> = explanation.endpoints.iter().map(|e| e.backend.as_str()).collect();
    assert_eq!(shares, ["90% Service shop/catalog-v1:80", "10% Service shop/catalog-v2:80"]);
    assert!(explanation.reaches());
}

#[test]
fn a_header_decides_and_a_consumer_route_replaces_the_producers() {
    let mut tester = call("shop/web", "cart");
    tester.headers.insert("x-tester", "yes".parse().unwrap());
    assert!(explained(&tester).rule.unwrap().ends_with("(testers)"));
    assert!(explained(&call("shop/web", "cart")).rule.unwrap().ends_with("(everybody)"));
    let consumer = explained(&call("reports/nightly", "catalog.shop"));
    assert!(consumer.rule.unwrap().contains("HTTPRoute/reports/catalog-for-reports#0"));
}

#[test]
fn a_denied_call_names_the_policy() {
    let mut delete = call("shop/web", "catalog");
    delete.method = Method::DELETE;
    let explanation = explained(&delete);
    assert!(!explanation.reaches(), "{explanation}");
    assert!(explanation.endpoints.iter().all(|e| e.policy.contains("shop/catalog-read-only")), "{explanation}");
    let stranger = explained(&call("reports/nightly", "10.0.0.8:9000"));
    assert!(!stranger.reaches() && stranger.to_string().contains("shop/payments-callers"), "{stranger}");
    let outside = explained(&call("legacy/batch", "10.0.0.8:9000"));
    assert!(outside.to_string().contains("plaintext_refused"), "{outside}");
}

#[test]
fn a_misrouted_call_says_that_no_rule_matches() {
    let mut misrouted = call("shop/web", "orders");
    misrouted.target = "/v2/orders".into();
    let explanation = explained(&misrouted);
    assert!(explanation.failure.as_deref().unwrap().contains("no_route"), "{explanation}");
    let error = explain(&shop(), &call("shop/web", "nowhere")).unwrap_err();
    assert!(error.to_string().contains("no Service shop/nowhere"));
}
