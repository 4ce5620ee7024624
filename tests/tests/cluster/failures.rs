//! What goes on when a part of Weft doesn't.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::cluster::{Echo, PATIENCE, SYSTEM, TestNamespace, eventually, strict_pair};

/// Requests at a steady rate while something happens; each has to be answered, and soon.
fn under_load(ns: &TestNamespace, seconds: usize, happening: impl FnOnce() -> Result<()>) -> Result<()> {
    let load = ns.load("http://server/", 50 * seconds, 50, Some("node1"))?;
    happening()?;
    load.all_answered()
}

#[test]
#[ignore = "needs a cluster"]
fn a_new_version_of_the_proxy_costs_no_request() -> Result<()> {
    let ns = strict_pair("t-upgrade")?;
    under_load(&ns, 30, || {
        ns.cluster.k(&["-n", SYSTEM, "rollout", "restart", "daemonset/weft-node-proxy"])?;
        ns.cluster.wait_rollout(SYSTEM, "daemonset/weft-node-proxy")
    })?;
    // The old one, with nothing left to serve, doesn't come back to take over again.
    ns.cluster.never_restarted("weft-node-proxy")
}

#[test]
#[ignore = "needs a cluster"]
fn controller_authority_and_agent_can_be_replaced() -> Result<()> {
    let ns = strict_pair("t-control")?;
    under_load(&ns, 30, || {
        for workload in ["deployment/weft-controller", "deployment/weft-ca", "daemonset/weft-agent"] {
            ns.cluster.k(&["-n", SYSTEM, "rollout", "restart", workload])?;
        }
        for workload in ["deployment/weft-controller", "deployment/weft-ca", "daemonset/weft-agent"] {
            ns.cluster.wait_rollout(SYSTEM, workload)?;
        }
        Ok(())
    })?;
    // And they work: what is new takes effect.
    ns.run(&[Echo::new("late").behind("server")])?;
    eventually("the new pod to get its share", PATIENCE, || ns.shared("late"))
}

#[test]
#[ignore = "needs a cluster"]
fn without_controller_and_authority_traffic_goes_on() -> Result<()> {
    let ns = strict_pair("t-alone")?;
    let scale = |replicas: &str| -> Result<()> {
        for workload in ["deployment/weft-controller", "deployment/weft-ca"] {
            ns.cluster.k(&["-n", SYSTEM, "scale", workload, &format!("--replicas={replicas}")])?;
        }
        Ok(())
    };
    let wait = || -> Result<()> {
        for workload in ["deployment/weft-controller", "deployment/weft-ca"] {
            ns.cluster.wait_rollout(SYSTEM, workload)?;
        }
        Ok(())
    };
    let outcome = under_load(&ns, 15, || {
        scale("0")?;
        ns.cluster.k(&[
            "-n",
            SYSTEM,
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/name in (weft-controller,weft-ca)",
            "--timeout=60s",
        ])?;
        Ok(())
    });
    // Whatever happened: the next test needs them.
    scale("2")?;
    wait()?;
    outcome
}

/// A crash is not an upgrade: connections of that moment break, but nothing goes in the clear and it comes back by itself.
#[test]
#[ignore = "needs a cluster"]
fn a_proxy_that_is_killed_is_back_within_seconds() -> Result<()> {
    let ns = strict_pair("t-crash")?;
    for node in ["node1", "node2"] {
        ns.cluster.k(&[
            "-n",
            SYSTEM,
            "delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=weft-node-proxy",
            "--field-selector",
            &format!("spec.nodeName={node}"),
            "--grace-period=0",
            "--force",
        ])?;
    }
    eventually("traffic", Duration::from_secs(40), || {
        let answers = ns.ask("client", &["http://server/", "--count=40", "--timeout=3s"])?;
        ensure!(answers.with_status(200) == 40, "{} of 40: {}", answers.with_status(200), answers.error);
        Ok(())
    })?;
    ns.cluster.wait_rollout(SYSTEM, "daemonset/weft-node-proxy")
}
