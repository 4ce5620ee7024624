//! From the first node to the last: what a cluster goes through with Weft on it.

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, SYSTEM, eventually, strict_pair};

use crate::release::Release;
use crate::wayback::nodes_are_clean;

/// Does something while no node has an agent.
fn without_agents(cluster: &Cluster, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let select = |nodes: &str| {
        let patch = format!(r#"{{"spec": {{"template": {{"spec": {{"nodeSelector": {nodes}}}}}}}}}"#);
        cluster.k(&["-n", SYSTEM, "patch", "daemonset", "weft-agent", "-p", &patch])
    };
    select(r#"{"weftmesh.io/nowhere": "true"}"#)?;
    let agents = ["-l", "app.kubernetes.io/name=weft-agent", "--timeout=60s"];
    let gone = cluster.k(&[&["-n", SYSTEM, "wait", "--for=delete", "pod"], &agents[..]].concat());
    let outcome = gone.and_then(|_| work());
    select(r#"{"weftmesh.io/nowhere": null}"#)?;
    cluster.wait_rollout(SYSTEM, "daemonset/weft-agent")?;
    outcome
}

#[test]
#[ignore = "needs a cluster"]
fn a_node_with_the_startup_taint_gets_pods_when_its_agent_vouches_for_it() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-taint", true)?;
    without_agents(&ns.cluster, || {
        ns.cluster.k(&["taint", "node", "node2", "weftmesh.io/agent-not-ready=:NoSchedule", "--overwrite"])?;
        ns.apply(&Echo::new("early").on("node2").manifest())?;
        eventually("the scheduler to refuse", PATIENCE, || {
            let said = ns.cluster.k(&["-n", &ns.name, "describe", "pods"])?;
            ensure!(said.contains("untolerated taint"), "{said}");
            Ok(())
        })
    })?;
    ns.cluster.wait_rollout(&ns.name, "deploy/early")?;
    let node = ns.cluster.json(&["node/node2"])?;
    ensure!(!node["spec"]["taints"].to_string().contains("weftmesh.io"), "{}", node["spec"]["taints"]);
    Ok(())
}

/// With no agent on any node: pods of the mesh that run go on, new ones wait, and everybody else's start as ever.
#[test]
#[ignore = "needs a cluster"]
fn without_agents_no_pod_of_the_mesh_starts_unprotected_and_all_others_do() -> Result<()> {
    let ns = strict_pair("t-agentless")?;
    let outside = ns.cluster.namespace("t-agentless-outside", false)?;
    without_agents(&ns.cluster, || {
        outside.run(&[Echo::new("client").on("node1")])?;
        ns.apply(&Echo::new("late").behind("server").on("node2").manifest())?;
        eventually("the kubelet to be refused", PATIENCE, || {
            let (pod, ..) = ns.pod("late")?;
            let said = ns.cluster.k(&["-n", &ns.name, "describe", "pod", &pod])?;
            ensure!(said.contains("FailedCreatePodSandBox") && said.contains("weft"), "{said}");
            Ok(())
        })?;
        ns.served("client", "http://server/", 100)?;
        outside.refused("client", "http://server.t-agentless/")
    })?;
    ns.cluster.wait_rollout(&ns.name, "deploy/late")?;
    eventually("the late pod to get its share", PATIENCE, || ns.shared("late"))
}

#[test]
#[ignore = "needs a cluster"]
fn an_api_server_that_is_killed_costs_no_request_and_what_follows_is_seen() -> Result<()> {
    let ns = strict_pair("t-apiserver")?;
    if !ns.cluster.has_nodes() {
        eprintln!("not run: this cluster's API server can't be killed");
        return Ok(());
    }
    let load = ns.load("http://server/", 1000, 50, Some("node1"))?;
    ns.cluster.restart("apiserver")?;
    eventually("the API server", PATIENCE, || ns.cluster.k(&["get", "--raw", "/readyz"]))?;
    load.all_answered()?;
    // Watches are back: a pod that goes, one that comes, and a route.
    ns.cluster.k(&["-n", &ns.name, "delete", "pod", "-l", "app=server"])?;
    ns.run(&[Echo::new("late").behind("server")])?;
    ns.apply(
        r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "marked", "namespace": "@NS@"}, "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "server"}], "rules": [{
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-after", "value": "yes"}]}}],
        "backendRefs": [{"name": "server", "port": 80}]}]}}"#,
    )?;
    ns.cluster.wait_accepted(&ns.name, "httproute/marked")?;
    ns.cluster.wait_rollout(&ns.name, "deploy/server")?;
    eventually("route and pods to count", PATIENCE, || {
        let answers = ns.ask("client", &["http://server/", "--count=40", "--timeout=5s"])?;
        let marked =
            answers.list.iter().filter(|a| a.response.iter().any(|h| h.eq_ignore_ascii_case("x-after:yes"))).count();
        let late = answers.from("late");
        ensure!(marked == 40 && late > 0 && late < 40, "{marked} marked, {late} late, of 40: {}", answers.error);
        Ok(())
    })
}

/// A node without power: everything on it starts again in any order, and no pod of the mesh before it is protected.
#[test]
#[ignore = "needs a cluster"]
fn a_node_that_reboots_has_its_pods_back_in_the_mesh() -> Result<()> {
    let ns = strict_pair("t-reboot")?;
    if !ns.cluster.has_nodes() {
        eprintln!("not run: this cluster's nodes can't be rebooted");
        return Ok(());
    }
    let outside = ns.cluster.namespace("t-reboot-outside", false)?;
    outside.run(&[Echo::new("client").on("node1")])?;
    let url = "http://server.t-reboot/";
    ns.served("client", url, 40)?;
    let (_, before, _) = ns.pod("server")?;
    ns.cluster.reboot("node2")?;
    eventually("the server's pod to run again", 2 * PATIENCE, || {
        let (pod, address, _) = ns.pod("server")?;
        let pod = ns.cluster.json(&["-n", &ns.name, &format!("pod/{pod}")])?;
        let state = &pod["status"]["containerStatuses"][0];
        ensure!(state["restartCount"] == 1 && state["ready"] == true && address != before, "{state}");
        // Whenever it answers at all, it is Strict.
        outside.refused("client", url)
    })?;
    eventually("traffic", PATIENCE, || ns.served("client", url, 100))?;
    outside.refused("client", url)?;
    for part in ["weft-node-proxy", "weft-agent"] {
        ns.cluster.wait_rollout(SYSTEM, &format!("daemonset/{part}"))?;
    }
    Ok(())
}

/// A whole rotation by command. Between its steps is what an operator waits for: that everybody has the new root, and
/// that nobody has a certificate of the old one.
#[test]
#[ignore = "needs a cluster"]
fn the_root_is_replaced_by_command_under_load() -> Result<()> {
    let ns = strict_pair("t-rotate")?;
    let ca = |args: &[&str]| {
        let command = [&["-n", SYSTEM, "exec", "deploy/weft-ca", "--", "weft-ca"], args, &["--kubernetes"]].concat();
        ns.cluster.k(&command)
    };
    let roots = || ns.cluster.k(&["-n", SYSTEM, "get", "configmap", "weft-trust", "-o", r"jsonpath={.data.root\.pem}"]);
    let stage = |name: &str| {
        let shown = ca(&["show"])?;
        ensure!(shown.contains(name), "not {name}: {shown}");
        Ok(())
    };
    // A run that was stopped may have left a rotation under way.
    while stage("stable").is_err() {
        ca(&["rotate", "advance"])?;
    }
    let old = roots()?;
    let load = ns.load("http://server/", 1500, 50, Some("node1"))?;
    ca(&["rotate", "start"])?;
    stage("publishing")?;
    let both = eventually("both roots to be published", PATIENCE, || {
        let both = roots()?;
        ensure!(both.matches("BEGIN CERTIFICATE").count() == 2 && both.contains(old.trim()), "{both}");
        Ok(both)
    })?;
    let trusted = |count: &str| {
        for node in ["node1", "node2"] {
            let metrics = ns.cluster.proxy_metrics(node)?;
            let line = metrics.lines().find(|l| l.starts_with("weft_trusted_roots")).context("no gauge")?;
            ensure!(line.ends_with(count), "{node}: {line}");
        }
        Ok(())
    };
    eventually("every proxy to have both", PATIENCE, || trusted(" 2"))?;
    ca(&["rotate", "advance"])?;
    stage("issuing")?;
    // A certificate of the new root, and those of the old one, together.
    ns.run(&[Echo::new("late").behind("server")])?;
    eventually("the new pod to get its share", PATIENCE, || ns.shared("late"))?;
    load.all_answered()?;
    // A day early: whoever has a certificate of the old root gets another.
    ca(&["rotate", "advance"])?;
    stage("stable")?;
    ensure!(!both.is_empty() && !roots()?.contains(old.trim()), "the old root is still trusted");
    eventually("every proxy to have the new root only", PATIENCE, || trusted(" 1"))?;
    eventually("traffic", PATIENCE, || ns.served("client", "http://server/", 100))
}

/// As at an upgrade: every part at once, by Helm, with pods of the old and new proxy side by side on each node.
#[test]
#[ignore = "needs a cluster"]
fn a_helm_upgrade_costs_no_request() -> Result<()> {
    let ns = strict_pair("t-helm")?;
    let load = ns.load("http://server/", 2000, 50, Some("node1"))?;
    let stamp = ns.cluster.json(&["namespace", &ns.name])?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let upgrade =
        ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait", "--timeout=3m"];
    let parts = ["nodeProxy", "agent", "controller", "ca"];
    let changes = parts.map(|part| format!("--set={part}.podAnnotations.test={stamp}"));
    ns.cluster.helm(&[&upgrade[..], &changes.each_ref().map(String::as_str)].concat())?;
    load.all_answered()?;
    ns.cluster.never_restarted("weft-node-proxy")
}

#[test]
#[ignore = "needs a cluster"]
fn uninstalling_lets_every_pod_go_and_installing_takes_them_back() -> Result<()> {
    let ns = strict_pair("t-uninstall")?;
    let outside = ns.cluster.namespace("t-uninstall-outside", false)?;
    outside.run(&[Echo::new("client").on("node1")])?;
    let url = "http://server.t-uninstall/";
    outside.refused("client", url)?;
    let release = Release::of(&ns.cluster)?;
    release.uninstall()?;
    let outcome = (|| {
        // Nobody is left who could serve them but themselves.
        ns.served("client", "http://server/", 100)?;
        outside.served("client", url, 100)?;
        ns.run(&[Echo::new("later").behind("server")])?;
        nodes_are_clean(&ns.cluster)?;
        let kinds = ns.cluster.k(&["get", "crd", "-o", "name"])?;
        ensure!(kinds.contains("meshpolicies.weftmesh.io"), "the CRDs went, and all policies with them: {kinds}");
        Ok(())
    })();
    release.install()?;
    outcome?;
    eventually("the outside to be refused again", PATIENCE, || outside.refused("client", url))?;
    eventually("the inside to be served", PATIENCE, || ns.served("client", "http://server/", 40))
}
