//! What the watches make of an API server in memory.

use super::*;
use serde_json::{Value, json};
use weft_kube_fake::{FakeApi, Reply};

use crate::rules::OlderFlows;

const KIND: &str = "/apis/weftmesh.io/v1alpha1/meshpolicies";

fn namespace(api: &FakeApi, name: &str, label: &str) {
    let labels = if label.is_empty() { json!({}) } else { json!({ ENROLMENT_LABEL: label }) };
    api.put("/api/v1/namespaces", json!({ "metadata": { "name": name, "labels": labels } }));
}

fn pod(api: &FakeApi, namespace: &str, name: &str, node: &str, label: &str) {
    let pod = json!({
        "metadata": { "name": name, "labels": { ENROLMENT_LABEL: label } },
        "spec": { "nodeName": node, "containers": [{ "name": "app" }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.7" }] },
    });
    api.put(&format!("/api/v1/namespaces/{namespace}/pods"), pod);
}

fn policy(api: &FakeApi, spec: &Value) {
    let policy = json!({
        "apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "metadata": { "name": "p" }, "spec": spec,
    });
    api.put("/apis/weftmesh.io/v1alpha1/namespaces/shop/meshpolicies", policy);
}

/// With a pod in the mesh on the node `n1`.
fn cluster() -> FakeApi {
    let api = FakeApi::new();
    namespace(&api, "shop", "enabled");
    pod(&api, "shop", "cart", "n1", "enabled");
    api
}

fn follow(api: &FakeApi) -> Shared {
    let source = Arc::new(ClusterSource::new(World::new("weft-system".into(), "weft-system".into(), [])));
    let (client, followed) = (api.client(), Arc::clone(&source));
    tokio::spawn(async move {
        let events = Events::new(client.clone(), "weftmesh.io/agent", "n1");
        followed.follow(client, &"n1".into(), &events).await;
    });
    source
}

async fn until(source: &ClusterSource, what: &str, condition: impl Fn(&ClusterSource) -> bool) {
    let mut changes = source.changes();
    let wait = async {
        while !condition(source) {
            let _lives = changes.changed().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(), "{what}");
}

fn older_flows(source: &ClusterSource) -> OlderFlows {
    let cart = PodRef { namespace: "shop".into(), name: "cart".into(), uid: None };
    let decided = source.lock().world.decide(&cart);
    match decided {
        Ok(Decision::Enrolled(enrolled)) => enrolled.older_flows,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_labelled_pod_of_another_node_keeps_its_namespace_from_passing() {
    let api = FakeApi::new();
    for name in ["calm", "mixed"] {
        namespace(&api, name, "");
    }
    pod(&api, "mixed", "p", "n2", "enabled");
    pod(&api, "calm", "q", "n2", "disabled");
    let source = follow(&api);
    until(&source, "listed", ClusterSource::is_listed).await;
    assert_eq!(source.namespaces_outside(), ["calm".into()]);
    pod(&api, "calm", "r", "n3", "enabled");
    until(&source, "a new one", |source| source.namespaces_outside().is_empty()).await;
    api.remove("/api/v1/namespaces/mixed/pods/p");
    until(&source, "none is left", |source| source.namespaces_outside() == ["mixed".into()]).await;
}

#[tokio::test(start_paused = true)]
async fn policies_are_read_as_the_controller_reads_them() {
    for spec in [json!({ "mode": "Permissive", "novelty": 1 }), json!({ "mode": "Strictish" })] {
        let api = cluster();
        policy(&api, &spec);
        let source = follow(&api);
        until(&source, "listed", ClusterSource::is_listed).await;
        assert_eq!(older_flows(&source), OlderFlows::Close, "{spec}");
        policy(&api, &json!({ "mode": "Permissive" }));
        until(&source, "corrected", |source| older_flows(source) == OlderFlows::Keep).await;
        policy(&api, &spec);
        until(&source, "broken", |source| older_flows(source) == OlderFlows::Close).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_does_not_mean_that_there_are_no_policies() {
    for (code, reason) in [(403, "Forbidden"), (500, "InternalError"), (503, "ServiceUnavailable")] {
        let api = cluster();
        policy(&api, &json!({ "mode": "Strict" }));
        api.answer(move |request| request.path.ends_with("meshpolicies").then(|| Reply::error(code, reason)));
        let source = follow(&api);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(!source.is_listed(), "{reason}");
        api.answer(|_| None);
        until(&source, "listed", ClusterSource::is_listed).await;
        assert_eq!(older_flows(&source), OlderFlows::Close, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_the_kind_has_no_policies_until_some_come() {
    let api = cluster();
    api.serve(KIND, false);
    let source = follow(&api);
    let soon = tokio::time::timeout(Duration::from_secs(1), source.listed()).await;
    assert!(soon.is_ok(), "its pods must start");
    assert_eq!(older_flows(&source), OlderFlows::Keep);
    api.serve(KIND, true);
    policy(&api, &json!({ "mode": "Strict" }));
    until(&source, "policies", |source| older_flows(source) == OlderFlows::Close).await;
}
