//! What goes on, and what doesn't, while something is away or broken; each row of the manual's table names its test.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, Mix, PATIENCE, SYSTEM, eventually};

use crate::meshed::{Meshed, breaking, clock, failed_only_between, outage};
use crate::mtls::Capture;

/// How long the API server is away for a proxy that crashes meanwhile.
const CRASH: Duration = Duration::from_secs(40);

/// Does something while a Deployment of the mesh has no pod.
fn without(cluster: &Cluster, part: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (workload, label) = (format!("deployment/{part}"), format!("app.kubernetes.io/name={part}"));
    let scale = |replicas: &str| cluster.k(&["-n", SYSTEM, "scale", &workload, &format!("--replicas={replicas}")]);
    scale("0")?;
    let gone = cluster.k(&["-n", SYSTEM, "wait", "--for=delete", "pod", "-l", &label, "--timeout=60s"]);
    let outcome = gone.and_then(|_| work());
    // Whatever happened: the next test needs it.
    scale("2")?;
    cluster.wait_rollout(SYSTEM, &workload)?;
    outcome
}

/// A proxy that starts meanwhile has its saved configuration.
#[test]
#[ignore = "needs a cluster"]
fn without_a_controller_everything_goes_on_and_a_proxy_can_start() -> Result<()> {
    let meshed = Meshed::open("t-no-controller")?;
    breaking(&meshed, || {
        without(meshed.cluster(), "weft-controller", || {
            meshed.load(outage().as_secs())?.all_answered()?;
            meshed.cluster().crash("node2", "weft-node-proxy")?;
            meshed.is_back()
        })
    })?;
    meshed.takes_news()
}

/// Who has an identity that its node has already goes on, new pods included. A proxy that starts meanwhile has no certificates:
/// its pods are closed until the authority is back, and never in the clear.
#[test]
#[ignore = "needs a cluster"]
fn without_an_authority_everything_goes_on_but_what_has_no_certificate() -> Result<()> {
    let meshed = Meshed::open("t-no-authority")?;
    breaking(&meshed, || {
        without(meshed.cluster(), "weft-ca", || {
            let seconds = usize::try_from(outage().as_secs())?;
            let known =
                Mix { account: "client", seconds, keep: true, streams: 5, connections: 10, ..meshed.requests() };
            meshed.ns.mix("server", &known)?.all_answered()?;
            meshed.cluster().crash("node2", "weft-node-proxy")?;
            meshed.ns.refused("client", "http://server/")?;
            meshed.is_strict()
        })?;
        meshed.is_back()
    })?;
    meshed.takes_news()
}

/// What crashes is started again by a kubelet that has nobody to ask either; who a new proxy is the authority tells by the API
/// server's keys and the pods that were there, so that it serves as if the API server were there.
#[test]
#[ignore = "needs a cluster"]
fn without_an_api_server_everything_goes_on_and_what_crashes_serves_again() -> Result<()> {
    let meshed = Meshed::open("t-no-apiserver")?;
    breaking(&meshed, || {
        let cluster = meshed.cluster();
        let load = meshed.load(outage().as_secs() + 20)?;
        cluster.outage("apiserver", outage())?;
        let ready = || eventually("the API server", PATIENCE, || cluster.k(&["get", "--raw", "/readyz"]));
        ready()?;
        load.all_answered()?;

        let load = meshed.ns.mix("server", &Mix { seconds: 90, ..meshed.requests() })?;
        let (killed, started, over) = std::thread::scope(|scope| {
            let away = scope.spawn(|| cluster.outage("apiserver", CRASH).and_then(|()| clock()));
            eventually("the API server to be away", PATIENCE, || {
                ensure!(cluster.k(&["get", "--raw", "/readyz", "--request-timeout=1s"]).is_err(), "it answers");
                Ok(())
            })?;
            let killed = clock()?;
            let started = cluster.crash("node2", "weft-node-proxy")?;
            cluster.crash("node2", "weft-agent")?;
            let over = away.join().expect("the outage")?;
            anyhow::Ok((killed, started, over))
        })?;
        ensure!(over > started + 10.0, "the API server was back {:.1} s after the proxy", over - started);
        ready()?;
        let failed = failed_only_between(&load.outcomes()?, killed, started)?;
        eprintln!(
            "{failed} requests failed; the proxy had started {:.1} s before the API server was back",
            over - started
        );
        Ok(())
    })?;
    meshed.takes_news()
}

/// What was written since the backup was made is gone, and revisions begin again below those that everybody has seen.
#[test]
#[ignore = "needs a cluster"]
fn an_etcd_that_is_restored_to_an_older_revision_costs_no_request_and_is_followed() -> Result<()> {
    let meshed = Meshed::open("t-etcd")?;
    let cluster = meshed.cluster();
    if !cluster.has_nodes() {
        eprintln!("not run: this cluster's etcd can't be restored");
        return Ok(());
    }
    let route = r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "marked", "namespace": "@NS@"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "server", "port": 80}], "rules": [{
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-marked", "value": "yes"}]}}],
        "backendRefs": [{"name": "server", "port": 80}]}]}}"#;
    let marked = |count: usize| {
        let answers = meshed.ns.ask("client", &["http://server/", "--count=10", "--timeout=5s"])?;
        answers.all(10, 200)?;
        let is_marked = |headers: &[String]| headers.iter().any(|h| h.eq_ignore_ascii_case("x-marked:yes"));
        let found = answers.list.iter().filter(|answer| is_marked(&answer.response)).count();
        ensure!(found == count, "{found} of 10 are marked");
        Ok(())
    };
    // From before the backup: whatever pod comes later is forgotten.
    let load = meshed.load(90)?;
    cluster.etcd("save")?;
    meshed.ns.apply(route)?;
    eventually("the route to count", PATIENCE, || marked(10))?;
    cluster.etcd("restore")?;
    eventually("the route to be gone", 2 * PATIENCE, || marked(0))?;
    // And what is written from now on is seen, although its revisions have been there before.
    meshed.ns.apply(route)?;
    eventually("the route to count again", PATIENCE, || marked(10))?;
    load.all_answered()?;
    meshed.is_strict()?;
    meshed.takes_news()
}

/// Connections of that moment break; nothing goes in the clear, and two seconds after the next one has started it is as if
/// nothing had been.
#[test]
#[ignore = "needs a cluster"]
fn a_proxy_that_is_killed_serves_two_seconds_after_its_start_and_nothing_goes_in_the_clear() -> Result<()> {
    let meshed = Meshed::open("t-sigkill")?;
    breaking(&meshed, || {
        for node in ["node1", "node2"] {
            let capture = Capture::start(meshed.cluster(), "node1")?;
            let load = meshed.ns.mix("server", &meshed.requests())?;
            let killed = clock()?;
            let started = meshed.cluster().crash(node, "weft-node-proxy")?;
            load.goes_on()?;
            let failed = failed_only_between(&load.outcomes()?, killed, started)?;
            eprintln!("{node}: started after {:.1} s; {failed} requests failed", started - killed);
            capture.shows_no_request(&meshed.ns)?;
            meshed.is_strict()?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn agent_and_proxy_come_back_in_whatever_order_they_are_killed() -> Result<()> {
    let meshed = Meshed::open("t-orders")?;
    let before = meshed.incarnation()?;
    breaking(&meshed, || {
        let cluster = meshed.cluster();
        for (node, first, second) in
            [("node1", "weft-agent", "weft-node-proxy"), ("node2", "weft-node-proxy", "weft-agent")]
        {
            let old = (cluster.process(node, first)?, cluster.process(node, second)?);
            old.0.kill()?;
            old.1.kill()?;
            cluster.started_after(node, first, old.0)?;
            cluster.started_after(node, second, old.1)?;
            meshed.is_back()?;
        }
        // One after the other: the second is killed when the first has only just started.
        for (first, second) in [("weft-agent", "weft-node-proxy"), ("weft-node-proxy", "weft-agent")] {
            cluster.crash("node2", first)?;
            cluster.crash("node2", second)?;
            meshed.is_back()?;
        }
        Ok(())
    })?;
    ensure!(meshed.incarnation()? == before, "an application was restarted");
    Ok(())
}

/// All that the mesh has on a node's disk.
const LOSE: &str = "find /run/weft /var/lib/weft -mindepth 1 -not -type d -delete";

/// Everything of the mesh on a node is gone at once, also what it had on the disk; then the pods' rules with it.
#[test]
#[ignore = "needs a cluster"]
fn a_node_that_loses_all_of_the_mesh_takes_its_running_pods_back() -> Result<()> {
    let meshed = Meshed::open("t-lost-node")?;
    let before = meshed.incarnation()?;
    breaking(&meshed, || {
        let cluster = meshed.cluster();
        let [server] = cluster.processes("node2", "load", "-serve")?[..] else { anyhow::bail!("not one server") };
        for rules_too in [false, true] {
            let old = (cluster.process("node2", "weft-agent")?, cluster.process("node2", "weft-node-proxy")?);
            let removed = cluster.on_node("node2", &["sh", "-c", LOSE]).status()?;
            ensure!(removed.success(), "{removed}");
            old.0.kill()?;
            old.1.kill()?;
            if rules_too {
                server.in_network(&["nft", "flush", "ruleset"])?;
            }
            cluster.started_after("node2", "weft-agent", old.0)?;
            eventually("the rules", PATIENCE, || {
                ensure!(server.in_network(&["nft", "list", "ruleset"])?.contains("redirect to :15001"), "none");
                Ok(())
            })?;
            eventually("nobody outside to be served", PATIENCE, || meshed.is_strict())?;
            meshed.is_back()?;
        }
        Ok(())
    })?;
    ensure!(meshed.incarnation()? == before, "an application was restarted");
    Ok(())
}
