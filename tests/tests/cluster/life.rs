//! What applications do by themselves: they are rolled out, scaled, drained from nodes and killed, and nobody who calls them is
//! to notice.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::cluster::{Echo, Mix, PATIENCE, echo_service, eventually, served, strict_pair};

use crate::meshed::{Meshed, clock};

/// A policy that looks at requests, so that the proxies at both ends parse them.
const LOOKS: &str = r#"{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {"name": "read", "namespace": "@NS@"},
    "spec": {"action": "ALLOW", "rules": [{"to": [{"methods": ["GET"]}]}, {"to": [{"ports": [9090]}]}]}}"#;

#[test]
#[ignore = "needs a cluster"]
fn a_rolling_restart_and_a_scaling_down_cost_no_request() -> Result<()> {
    let meshed = Meshed::with("t-life", &served("server", 3, None, ""))?;
    meshed.ns.apply(LOOKS)?;
    let (cluster, name) = (meshed.cluster(), meshed.ns.name.as_str());
    let load = meshed.ns.mix("server", &Mix { seconds: 75, per_second: 100, keep: true, ..meshed.requests() })?;
    cluster.k(&["-n", name, "rollout", "restart", "deploy/server"])?;
    cluster.wait_rollout(name, "deploy/server")?;
    for replicas in ["1", "4"] {
        cluster.k(&["-n", name, "scale", "deploy/server", &format!("--replicas={replicas}")])?;
        cluster.wait_rollout(name, "deploy/server")?;
        eventually("those that go to be gone", PATIENCE, || {
            let pods = cluster.json(&["-n", name, "pods", "-l", "app=server"])?;
            let count = pods["items"].as_array().map_or(0, Vec::len);
            ensure!(count.to_string() == replicas, "{count} pods");
            Ok(())
        })?;
    }
    load.goes_on()?;
    load.all_answered()
}

/// More can't be in seven processes at the moment of their end, at a hundred short requests a second.
const LOST: usize = 7;

/// Without a grace, as a pod that is deleted by force: the API server forgets it before its processes have ended, and its
/// processes end before anybody has heard of it. Requests that a killed process had are lost; no other.
#[test]
#[ignore = "needs a cluster"]
fn pods_that_go_at_once_cost_no_request_but_those_that_they_had() -> Result<()> {
    for (name, looks) in [("t-killed", false), ("t-killed-http", true)] {
        let ns = strict_pair(name)?;
        if looks {
            ns.apply(LOOKS)?;
        }
        ns.apply(&echo_service("many"))?;
        ns.run(&[Echo { replicas: 6, ..Echo::new("many") }])?;
        let mix = Mix { on: Some("node1"), seconds: 40, per_second: 100, keep: true, ..Mix::default() };
        let load = ns.mix("many", &mix)?;
        for replicas in ["2", "6"] {
            ns.cluster.k(&["-n", name, "scale", "deploy/many", &format!("--replicas={replicas}")])?;
            ns.cluster.wait_rollout(name, "deploy/many")?;
        }
        let pods = ns.cluster.json(&["-n", name, "pods", "-l", "app=many"])?;
        let pods = pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
        let half: Vec<_> = pods.take(3).collect();
        let delete = ["-n", name, "delete", "pod", "--grace-period=0", "--force", "--wait=false"];
        ns.cluster.k(&[&delete[..], &half[..]].concat())?;
        ns.cluster.wait_rollout(name, "deploy/many")?;
        load.goes_on()?;
        let outcomes = load.outcomes()?;
        // 502: the process had the request. Everything else has somebody else to ask.
        let (lost, bad): (Vec<_>, Vec<_>) =
            outcomes.iter().filter(|o| o.status != "200").partition(|o| o.status == "502");
        ensure!(bad.is_empty() && lost.len() <= LOST, "{bad:?}, and {} lost with their process", lost.len());
        eprintln!("{name}: of {} requests {} were lost with their process", outcomes.len(), lost.len());
    }
    Ok(())
}

/// While there is nobody, requests are answered at once with the reason. Those that the last pod had are lost with it.
#[test]
#[ignore = "needs a cluster"]
fn scaled_to_zero_requests_are_refused_at_once_and_served_when_somebody_is_back() -> Result<()> {
    let meshed = Meshed::open("t-zero")?;
    let (cluster, name) = (meshed.cluster(), meshed.ns.name.as_str());
    let load = meshed.ns.mix("server", &Mix { seconds: 60, keep: true, ..meshed.requests() })?;
    let began = clock()?;
    cluster.k(&["-n", name, "scale", "deploy/server", "--replicas=0"])?;
    cluster.k(&["-n", name, "wait", "--for=delete", "pod", "-l", "app=server", "--timeout=60s"])?;
    // So that who waits isn't ended by what comes next.
    std::thread::sleep(Duration::from_secs(6));
    cluster.k(&["-n", name, "scale", "deploy/server", "--replicas=1"])?;
    cluster.wait_rollout(name, "deploy/server")?;
    let back = clock()? + 2.0;
    load.goes_on()?;
    let outcomes = load.outcomes()?;
    let bad: Vec<_> = outcomes.iter().filter(|o| o.status != "200").collect();
    let (refused, late): (Vec<_>, Vec<_>) = bad.into_iter().partition(|o| o.status == "503" && o.took < 900.0);
    ensure!(refused.iter().all(|o| o.clock > began && o.clock < back), "{refused:?}");
    ensure!(!refused.is_empty(), "there was always somebody");
    // Whose pod went with its network before it could answer: until the API server has heard of its end, and a PING has had no answer.
    let first = late.first().map_or(0.0, |o| o.clock);
    ensure!(late.iter().all(|o| o.clock > began && o.clock - first < 0.5 && o.took < 5000.0), "{late:?}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_drained_nodes_pods_move_without_a_failed_request() -> Result<()> {
    let budget = r#"{"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "server", "namespace": "@NS@"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "server"}}}}"#;
    let spread = r#""topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "server"}}}]"#;
    let meshed = Meshed::with("t-drain", &served("server", 2, None, spread))?;
    meshed.ns.apply(budget)?;
    meshed.ns.apply(LOOKS)?;
    let cluster = meshed.cluster();
    let load = meshed.ns.mix("server", &Mix { seconds: 60, per_second: 100, keep: true, ..meshed.requests() })?;
    let drained =
        cluster.k(&["drain", "node2", "--ignore-daemonsets", "--force", "--pod-selector=app=server", "--timeout=60s"]);
    let moved = drained.and_then(|_| cluster.wait_rollout(&meshed.ns.name, "deploy/server"));
    // Whatever happened: the next test needs it.
    cluster.k(&["uncordon", "node2"])?;
    moved?;
    load.goes_on()?;
    load.all_answered()
}
