//! The startup taint of a fresh node: no pod comes before the agent can protect it.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use weft_core::ids::NodeName;
use weft_kube::kube::api::{Patch, PatchParams};
use weft_kube::kube::{self, Api, Client};

/// The key of the taint. Put it on nodes as they register; the agent takes it away, never adds it.
pub const TAINT: &str = "weftmesh.io/agent-not-ready";
/// How often a node that somebody else changes at the same time is read again.
const TRIES: usize = 5;

/// The patch that takes the taint away; none when it isn't there. Taints are one atomic list, so the patch names the
/// version it was made from.
fn without_taint(node: &Node) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let kept: Vec<_> = taints.iter().filter(|taint| taint.key != TAINT).collect();
    if kept.len() == taints.len() {
        return None;
    }
    Some(json!({
        "metadata": { "resourceVersion": node.metadata.resource_version },
        "spec": { "taints": kept },
    }))
}

/// Takes the taint from a node; `false` when it wasn't there.
///
/// # Errors
/// Of the API server, conflicts only when they don't end.
pub async fn remove_taint(client: &Client, node: &NodeName) -> kube::Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut tries = 0;
    loop {
        let Some(patch) = without_taint(&nodes.get(node.as_str()).await?) else { return Ok(false) };
        tries += 1;
        match nodes.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use weft_kube_fake::FakeApi;

    const NODES: &str = "/api/v1/nodes";

    fn taints(api: &FakeApi) -> Vec<String> {
        let node = api.get(&format!("{NODES}/n1")).unwrap();
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|t| t["key"].as_str().unwrap().to_owned()).collect()
    }

    fn put(api: &FakeApi, keys: &[&str]) {
        let taints: Vec<_> = keys.iter().map(|key| json!({ "key": key, "effect": "NoSchedule" })).collect();
        api.put(NODES, json!({ "metadata": { "name": "n1" }, "spec": { "taints": taints } }));
    }

    #[tokio::test]
    async fn only_the_taint_goes_whatever_others_write_meanwhile() {
        let (api, node) = (FakeApi::new(), NodeName::new("n1"));
        put(&api, &["a", TAINT, "b"]);
        // The first attempt meets another writer.
        let (left, inner) = (AtomicU32::new(1), api.clone());
        api.answer(move |request| {
            let first = request.method == "PATCH"
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            if first {
                put(&inner, &["a", TAINT, "b", "new"]);
            }
            None
        });
        assert!(remove_taint(&api.client(), &node).await.unwrap());
        assert_eq!(taints(&api), ["a", "b", "new"]);
        assert!(!remove_taint(&api.client(), &node).await.unwrap(), "nothing to do");
        assert!(remove_taint(&api.client(), &NodeName::new("n2")).await.is_err());
    }
}
