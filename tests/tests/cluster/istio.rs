//! Istio's agents as clients of the authority.

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, PATIENCE, SYSTEM, TestNamespace, eventually};

/// Runs what Istio's agent does for a ServiceAccount, in a pod that has the token of `default`; what it says, and whether
/// it ended well.
fn agent(ns: &TestNamespace, account: &str) -> Result<(bool, String)> {
    let (name, namespace) = (format!("agent-{account}"), &ns.name);
    ns.apply(&format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "@NS@"}}, "spec": {{"restartPolicy": "Never",
        "containers": [{{"name": "agent", "image": "localhost/istio-client:1", "args": ["-namespace={namespace}", "-account={account}"],
            "volumeMounts": [{{"name": "root", "mountPath": "/var/run/secrets/istio"}}, {{"name": "token", "mountPath": "/var/run/secrets/tokens"}}]}}],
        "volumes": [{{"name": "root", "configMap": {{"name": "root"}}}}, {{"name": "token", "projected": {{"sources": [
            {{"serviceAccountToken": {{"audience": "istio-ca", "path": "istio-token"}}}}]}}}}]}}}}"#
    ))?;
    let phase = eventually("the agent to end", PATIENCE, || {
        let phase = ns.cluster.k(&["-n", namespace, "get", "pod", &name, "-o", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Succeeded" || phase == "Failed", "it is {phase}");
        Ok(phase)
    })?;
    Ok((phase == "Succeeded", ns.cluster.k(&["-n", namespace, "logs", &name])?))
}

fn istio_agents(cluster: &Cluster, served: bool) -> Result<String> {
    let set = format!("--set=ca.istioAgents={served}");
    let upgrade =
        ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait", "--timeout=3m"];
    cluster.helm(&[&upgrade[..], &[&set]].concat())
}

#[test]
#[ignore = "needs a cluster"]
fn istios_agent_gets_a_certificate_of_its_own_identity_and_of_no_other() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-istio", false)?;
    let roots = ns.cluster.k(&["-n", SYSTEM, "get", "configmap", "weft-trust", "-o", r"jsonpath={.data.root\.pem}"])?;
    ns.cluster.k(&["-n", &ns.name, "create", "configmap", "root", &format!("--from-literal=root.pem={roots}")])?;
    istio_agents(&ns.cluster, true)?;
    let outcome = (|| {
        let (well, said) = agent(&ns, "default")?;
        ensure!(well && said.contains("certificate of spiffe://cluster.local/ns/t-istio/sa/default"), "{said}");
        let (well, said) = agent(&ns, "other")?;
        ensure!(!well, "{said}");
        Ok(())
    })();
    istio_agents(&ns.cluster, false)?;
    outcome
}
