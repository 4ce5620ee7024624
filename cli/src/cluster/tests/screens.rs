//! What people and programs see, as golden files.

use serde_json::json;

use super::healthy;
use super::sample::*;
use crate::cluster::checks;
use crate::cluster::enroll::Outcome;
use crate::cluster::facts::{Facts, Unread};
use crate::cluster::status::Overview;

/// Three faults: a pod in the clear, a route without a Service, a network policy.
fn faulty() -> Facts {
    let mut facts = healthy();
    facts.pages.insert("weft-agent-1".into(), agent(&[("cart", "unprotected", "nft: operation not permitted")]));
    facts.objects.as_mut().unwrap().push(route("bad", false));
    let policy = json!({ "metadata": { "namespace": "shop", "name": "web-only" }, "spec": { "podSelector": {},
        "ingress": [{ "from": [{ "namespaceSelector": {} }], "ports": [{ "port": 8080 }] }] } });
    facts.network_policies = Ok(vec![object(policy)]);
    facts
}

#[test]
fn a_report_of_a_healthy_mesh() {
    let report = checks::installed(&healthy(), (1, 30));
    insta::assert_snapshot!(report.to_string());
}

#[test]
fn a_report_before_the_installation() {
    let mut facts = healthy();
    let mut rights = facts.rights.unwrap();
    rights[0].allowed = false;
    facts.rights = Ok(rights);
    facts.cilium = Ok(Some(object(json!({ "data": { "kube-proxy-replacement": "true", "cni-exclusive": "false" } }))));
    facts.felix = Err(Unread { what: "felixconfigurations".into(), why: "forbidden: no right to get".into() });
    facts.nodes.as_mut().unwrap().push(object(node("n3", "4.18.0")));
    insta::assert_snapshot!(checks::before(&facts, (1, 30)).to_string());
    facts.felix = Ok(None);
    insta::assert_snapshot!(checks::before(&facts, (1, 30)).to_string());
}

#[test]
fn a_report_of_a_mesh_with_three_faults_names_each() {
    let report = checks::installed(&faulty(), (1, 30));
    assert_eq!(report.code(), 1);
    for name in ["Pod shop/cart", "HTTPRoute shop/bad", "NetworkPolicy shop/web-only"] {
        assert!(report.findings().iter().any(|f| f.object == name && !f.remedy.is_empty()), "{name}");
    }
    insta::assert_snapshot!(report.to_string());
    insta::assert_json_snapshot!(report);
}

#[test]
fn one_screen_of_a_mesh() {
    insta::assert_snapshot!(Overview::of(&healthy(), (1, 30)).to_string());
    let overview = Overview::of(&faulty(), (1, 30));
    insta::assert_snapshot!(overview.to_string());
    insta::assert_json_snapshot!(overview);
}

#[test]
fn pods_of_a_namespace_that_is_enrolled() {
    let mut facts = healthy();
    let mut host = pod("shop", "exporter", "n2");
    host["spec"]["hostNetwork"] = json!(true);
    facts.pods.as_mut().unwrap().push(object(host));
    facts.pages.insert("weft-agent-1".into(), agent(&[("cart", "closed", "no proxy has taken it yet")]));
    let outcome = Outcome::of(&facts, "shop", true).unwrap();
    assert_eq!((outcome.done, outcome.waiting.len(), outcome.never.len()), (1, 1, 1));
    insta::assert_snapshot!(outcome.to_string());
    insta::assert_json_snapshot!(outcome);
}

#[test]
fn pods_of_a_namespace_that_leaves() {
    let mut facts = healthy();
    facts.namespaces.as_mut().unwrap()[0].metadata.labels = None;
    // The agent of n1 hasn't let its pod go yet; one with a label of its own stays.
    let mut stays = pod("shop", "stays", "n1");
    stays["metadata"]["labels"]["weftmesh.io/mesh"] = json!("enabled");
    facts.pods.as_mut().unwrap().push(object(stays));
    facts.pages.insert("weft-agent-2".into(), agent(&[]));
    let outcome = Outcome::of(&facts, "shop", false).unwrap();
    assert_eq!((outcome.done, outcome.waiting.len()), (1, 1));
    insta::assert_snapshot!(outcome.to_string());
    // One that only counts: two are still enrolled there, then the one that stays.
    for (protected, done) in [(2, 1), (1, 2)] {
        facts.pages.insert(
            "weft-agent-1".into(),
            ready(&format!("weft_agent_pods{{protection=\"protected\"}} {protected}\n")),
        );
        assert_eq!(Outcome::of(&facts, "shop", false).unwrap().done, done);
    }
    facts.pages.insert("weft-agent-1".into(), agent(&[("cart", "protected", "")]));
    // An agent that doesn't answer is no agent that has let go.
    let silent = Unread { what: "metrics".into(), why: "connection refused".into() };
    facts.pages.get_mut("weft-agent-2").unwrap().metrics = Err(silent);
    assert_eq!(Outcome::of(&facts, "shop", false).unwrap().done, 0);
}

#[test]
fn what_nodes_refuse_is_on_the_screen_with_who_and_why() {
    let mut facts = healthy();
    let report = |node: &str| json!([{ "kind": "Service", "namespace": "shop", "name": "cart", "nodes": { node: "ports: 0" }, "count": 1 }]);
    let data = json!({ "weft-controller-a": report("n1").to_string(), "weft-controller-b": report("n2").to_string() });
    facts.refusals = Ok(Some(object(json!({ "metadata": { "name": "weft-refusals" }, "data": data }))));
    let condition =
        json!({ "type": "weftmesh.io/Programmed", "status": "False", "reason": "RefusedByNode", "message": "x" });
    let route = &mut facts.objects.as_mut().unwrap()[0].object;
    route["status"]["parents"][1]["conditions"].as_array_mut().unwrap().push(condition);
    let overview = Overview::of(&facts, (1, 30));
    assert_eq!(overview.not_accepted[0].condition, "weftmesh.io/Programmed=False");
    let problems: Vec<_> = overview.problems.iter().map(|p| (p.object.as_str(), p.what.as_str())).collect();
    let what = "refused by 2 of the node proxies, which keep what they had: n1, n2 (ports: 0)";
    assert_eq!(problems, [("Service shop/cart", what)], "once for each object");
}
