//! Another version of everything, there and back, under load of all kinds.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::cluster::{Cluster, Mix, PATIENCE, SYSTEM, eventually};

use crate::meshed::Meshed;

/// A pod of the proxy.
#[derive(Debug)]
struct Proxy {
    name: String,
    node: String,
    /// Of which version it is, as these tests annotate their versions.
    mark: String,
    is_ready: bool,
}

/// All of them, those that were replaced included.
fn proxies(cluster: &Cluster) -> Result<Vec<Proxy>> {
    let pods = cluster.json(&["-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=weft-node-proxy"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |pod: &Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        Proxy {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            mark: text(&pod["metadata"]["annotations"]["test"]),
            is_ready: conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        }
    };
    Ok(pods["items"].as_array().into_iter().flatten().map(of).collect())
}

/// A mark that no version has had.
fn mark(meshed: &Meshed) -> Result<String> {
    let namespace = meshed.cluster().json(&["namespace", &meshed.ns.name])?;
    Ok(namespace["metadata"]["uid"].as_str().context("no uid")?.to_owned())
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
    let mark = mark(&meshed)?;
    let mix = Mix { seconds: 200, per_second: 200, keep: true, streams: 10, connections: 50, ..meshed.requests() };
    let load = meshed.ns.mix("server", &mix)?;
    let upgrade =
        ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait", "--timeout=3m"];
    let parts = ["nodeProxy", "agent", "controller", "ca"];
    let changes = parts.map(|part| format!("--set={part}.podAnnotations.test={mark}"));
    let before = proxies(cluster)?;
    cluster.helm(&[&upgrade[..], &changes.each_ref().map(String::as_str)].concat())?;
    let between = proxies(cluster)?;
    let stands = |old: &Proxy| between.iter().any(|proxy| proxy.name == old.name);
    ensure!(before.iter().all(stands), "the old ones were waited for, or broken: {between:?}");
    cluster.helm(&["rollback", "weft", "-n", SYSTEM, "--wait", "--timeout=3m"])?;
    load.goes_on()?;
    load.all_answered()?;
    // An hour is what they may have at most; nothing is left for them.
    eventually("the old proxies to end with their last connection", PATIENCE, || no_old_ones(cluster))?;
    cluster.never_restarted("weft-node-proxy")
}

/// A node gets the new version when the pod of its old proxy is deleted, and not before; nobody notices either.
#[test]
#[ignore = "needs a cluster"]
fn one_node_is_upgraded_first_and_the_other_when_it_is_asked_to() -> Result<()> {
    let meshed = Meshed::open("t-one-first")?;
    let cluster = meshed.cluster();
    eventually("no proxy of before", PATIENCE, || no_old_ones(cluster))?;
    let mark = mark(&meshed)?;
    let load = meshed.ns.mix("server", &Mix { per_second: 200, ..load_of(&meshed) })?;
    let annotation = format!("--set=nodeProxy.podAnnotations.test={mark}");
    let on_delete = ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait"];
    cluster
        .helm(&[&on_delete[..], &["--timeout=3m", "--set=nodeProxy.updateStrategy=OnDelete", &annotation]].concat())?;
    let upgraded = node_by_node(cluster, &mark).and_then(|()| load.goes_on());
    let answered = load.all_answered();
    // Whatever happened: other tests want proxies that are replaced by themselves.
    cluster.helm(&["rollback", "weft", "-n", SYSTEM, "--wait", "--timeout=3m"])?;
    upgraded?;
    answered?;
    eventually("the old proxies to end with their last connection", PATIENCE, || no_old_ones(cluster))
}

/// Deletes one proxy after the other; each time the node has one with this mark, and the next node has none yet.
fn node_by_node(cluster: &Cluster, mark: &str) -> Result<()> {
    let marked = |node: &str| -> Result<Vec<bool>> {
        let is_one = |proxy: &&Proxy| proxy.node == node && proxy.mark == mark;
        Ok(proxies(cluster)?.iter().filter(is_one).map(|proxy| proxy.is_ready).collect())
    };
    for Proxy { name, node, .. } in proxies(cluster)? {
        ensure!(marked(&node)?.is_empty(), "{node} wasn't asked to");
        cluster.k(&["-n", SYSTEM, "delete", "pod", &name, "--wait=false"])?;
        eventually("the new one", PATIENCE, || {
            let ready = marked(&node)?;
            ensure!(ready == [true], "on {node}: {ready:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Connections of all kinds that are open all the while.
fn load_of(meshed: &Meshed) -> Mix<'_> {
    Mix { seconds: 90, keep: true, streams: 5, connections: 10, ..meshed.requests() }
}
