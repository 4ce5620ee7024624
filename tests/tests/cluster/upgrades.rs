//! Another version of everything, there and back, under load of all kinds.

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, Mix, PATIENCE, SYSTEM, eventually};

use crate::meshed::Meshed;

/// Names of the running pods of the proxy, by node.
fn proxies(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let pods = cluster.json(&["-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=weft-node-proxy"])?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let of = |pod: &serde_json::Value| (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["name"]));
    let mut all: Vec<_> = pods["items"].as_array().into_iter().flatten().map(of).collect();
    all.sort();
    Ok(all)
}

/// One proxy on each node: those that were replaced have gone.
fn no_old_ones(cluster: &Cluster) -> Result<()> {
    let all = proxies(cluster)?;
    let nodes = cluster.json(&["nodes"])?["items"].as_array().map_or(0, Vec::len);
    ensure!(all.len() == nodes, "{all:?}");
    Ok(())
}

/// 200 requests a second on connections that are kept, streams, and 50 connections of bytes, from before the upgrade until
/// after the rollback. Nothing waits for the proxies that serve them to their end, and those end with them.
#[test]
#[ignore = "needs a cluster"]
fn an_upgrade_and_its_rollback_cost_no_request_no_stream_and_no_connection() -> Result<()> {
    let meshed = Meshed::open("t-upgrades")?;
    let cluster = meshed.cluster();
    eventually("no proxy of before", PATIENCE, || no_old_ones(cluster))?;
    let stamp = cluster.json(&["namespace", &meshed.ns.name])?["metadata"]["uid"].as_str().unwrap_or("x").to_owned();
    let mix = Mix { seconds: 200, per_second: 200, keep: true, streams: 10, connections: 50, ..meshed.requests() };
    let load = meshed.ns.mix("server", &mix)?;
    let upgrade =
        ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait", "--timeout=3m"];
    let parts = ["nodeProxy", "agent", "controller", "ca"];
    let changes = parts.map(|part| format!("--set={part}.podAnnotations.test={stamp}"));
    let before = proxies(cluster)?;
    cluster.helm(&[&upgrade[..], &changes.each_ref().map(String::as_str)].concat())?;
    let between = proxies(cluster)?;
    ensure!(before.iter().all(|old| between.contains(old)), "the old ones were waited for, or broken: {between:?}");
    cluster.helm(&["rollback", "weft", "-n", SYSTEM, "--wait", "--timeout=3m"])?;
    load.goes_on()?;
    load.all_answered()?;
    // An hour is what they may have at most; nothing is left for them.
    eventually("the old proxies to end with their last connection", PATIENCE, || no_old_ones(cluster))?;
    cluster.never_restarted("weft-node-proxy")
}

/// Names of a node's proxies that are ready and are of the version with this mark.
fn marked(cluster: &Cluster, node: &str, mark: &str) -> Result<Vec<String>> {
    let field = format!("--field-selector=spec.nodeName={node}");
    let pods = cluster.json(&["-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=weft-node-proxy", &field])?;
    let is_one = |pod: &&serde_json::Value| {
        let ready = pod["status"]["conditions"].as_array().into_iter().flatten();
        pod["metadata"]["annotations"]["test"].as_str() == Some(mark)
            && ready.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(pods["items"].as_array().into_iter().flatten().filter(is_one).map(name).collect())
}

/// A node gets the new version when the pod of its old proxy is deleted, and not before; nobody notices either.
#[test]
#[ignore = "needs a cluster"]
fn one_node_is_upgraded_first_and_the_other_when_it_is_asked_to() -> Result<()> {
    let meshed = Meshed::open("t-one-first")?;
    let cluster = meshed.cluster();
    eventually("no proxy of before", PATIENCE, || no_old_ones(cluster))?;
    let mark = cluster.json(&["namespace", &meshed.ns.name])?["metadata"]["uid"].as_str().unwrap_or("x").to_owned();
    let load = meshed.ns.mix("server", &Mix { per_second: 200, ..load_of(&meshed) })?;
    let annotation = format!("--set=nodeProxy.podAnnotations.test={mark}");
    let on_delete = ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait"];
    cluster
        .helm(&[&on_delete[..], &["--timeout=3m", "--set=nodeProxy.updateStrategy=OnDelete", &annotation]].concat())?;
    let before = proxies(cluster)?;
    for (node, pod) in &before {
        ensure!(marked(cluster, node, &mark)?.is_empty(), "{node} wasn't asked to");
        cluster.k(&["-n", SYSTEM, "delete", "pod", pod, "--wait=false"])?;
        eventually("the new one", PATIENCE, || {
            ensure!(marked(cluster, node, &mark)?.len() == 1, "not on {node}");
            Ok(())
        })?;
    }
    load.goes_on()?;
    load.all_answered()?;
    cluster.helm(&["rollback", "weft", "-n", SYSTEM, "--wait", "--timeout=3m"])?;
    eventually("the old proxies to end with their last connection", PATIENCE, || no_old_ones(cluster))
}

/// Connections of all kinds that are open all the while.
fn load_of(meshed: &Meshed) -> Mix<'_> {
    Mix { seconds: 90, keep: true, streams: 5, connections: 10, ..meshed.requests() }
}
