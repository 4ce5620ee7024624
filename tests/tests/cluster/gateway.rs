//! Gateways: what the controller makes for them, and clients from outside that come through them into a Strict mesh.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, STRICT, TestNamespace, echo_service, eventually};

/// An enrolled namespace in Strict with `server` in it, a Gateway `edge` in front of it, and a client outside the mesh.
pub(crate) struct Edge {
    /// What is enrolled.
    pub(crate) inside: TestNamespace,
    /// Where the client is.
    pub(crate) outside: TestNamespace,
    /// The Gateway's address.
    pub(crate) address: String,
}

/// The Gateway's object, with these listeners besides the one of port 80.
pub(crate) fn gateway(more: &str) -> String {
    format!(
        r#"{{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {{"name": "edge", "namespace": "@NS@"}},
        "spec": {{"gatewayClassName": "weft", "listeners": [{{"name": "http", "port": 80, "protocol": "HTTP"}}{more}]}}}}"#
    )
}

pub(crate) fn route(ns: &TestNamespace, name: &str, spec: &str) -> Result<()> {
    ns.apply(&format!(
        r#"{{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {{"name": "{name}", "namespace": "@NS@"}},
        "spec": {{"parentRefs": [{{"name": "edge"}}], {spec}}}}}"#
    ))?;
    ns.cluster.wait_accepted(&ns.name, &format!("httproute/{name}"))
}

/// The address of a Gateway that is programmed as it is now.
pub(crate) fn address(ns: &TestNamespace) -> Result<String> {
    eventually("the Gateway to be programmed", 2 * PATIENCE, || {
        let gateway = ns.cluster.json(&["-n", &ns.name, "gateway/edge"])?;
        let conditions = gateway["status"]["conditions"].as_array().into_iter().flatten();
        let programmed = conditions.into_iter().find(|c| c["type"] == "Programmed").context("no condition")?;
        ensure!(programmed["status"] == "True", "{programmed}");
        ensure!(programmed["observedGeneration"] == gateway["metadata"]["generation"], "of an older one");
        let address = gateway["status"]["addresses"][0]["value"].as_str();
        address.map(str::to_owned).context("no address")
    })
}

pub(crate) fn edge(name: &str) -> Result<Edge> {
    let inside = Cluster::open()?.namespace(name, true)?;
    inside.apply(&echo_service("server"))?;
    inside.apply(STRICT)?;
    inside.apply(&gateway(""))?;
    inside.run(&[Echo::new("server")])?;
    let outside = inside.cluster.namespace(&format!("{name}-out"), false)?;
    outside.run(&[Echo::new("client")])?;
    let address = address(&inside)?;
    Ok(Edge { inside, outside, address })
}

#[test]
#[ignore = "needs a cluster"]
fn clients_from_outside_reach_a_strict_mesh_through_a_gateway_with_its_identity() -> Result<()> {
    let Edge { inside, outside, address } = edge("t-edge")?;
    route(&inside, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    outside.refused("client", &format!("http://server.{}/", inside.name))?;
    let url = format!("http://{address}/");
    eventually("the route to be live", Duration::from_secs(5), || outside.served("client", &url, 20))?;
    outside.served("client", &url, 300)?;
    // The destination sees the Gateway: who lets only others in lets nobody in through it.
    let only = |who: &str| {
        inside.apply(&format!(
            r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {{"name": "who", "namespace": "@NS@"}},
            "spec": {{"action": "ALLOW", "rules": [{{"from": [{{"identities": ["spiffe://cluster.local/ns/{}/sa/{who}"]}}]}}]}}}}"#,
            inside.name
        ))
    };
    only("somebody-else")?;
    eventually("the policy to be enforced", PATIENCE, || {
        let answers = outside.ask("client", &[&url, "--count=20", "--timeout=5s"])?;
        ensure!(answers.with_status(200) == 0 && answers.list.len() == 20, "{:?}", answers.list.first());
        Ok(())
    })?;
    only("edge-weft")?;
    eventually("the policy to be changed", PATIENCE, || outside.served("client", &url, 20))
}

#[test]
#[ignore = "needs a cluster"]
fn a_listener_that_is_added_restarts_no_pod_and_costs_no_request() -> Result<()> {
    let Edge { inside, outside, address } = edge("t-edit-edge")?;
    route(&inside, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    let url = format!("http://{address}/");
    eventually("the route to be live", Duration::from_secs(5), || outside.served("client", &url, 20))?;
    let pods = || inside.cluster.k(&["-n", &inside.name, "get", "pods", "-o", "name", "-l", LABEL]);
    let before = pods()?;
    ensure!(before.lines().count() >= 1, "no pods of the Gateway");
    let load = outside.load(&url, 1000, 100, None)?;
    inside.apply(&gateway(r#", {"name": "more", "port": 8080, "protocol": "HTTP"}"#))?;
    self::address(&inside)?;
    eventually("the new listener to be reachable", PATIENCE, || {
        outside.served("client", &format!("http://{address}:8080/"), 20)
    })?;
    inside.apply(&gateway(""))?;
    self::address(&inside)?;
    load.all_answered()?;
    ensure!(pods()? == before, "other pods than before");
    Ok(())
}

/// Pods of the Gateway.
pub(crate) const LABEL: &str = "gateway.networking.k8s.io/gateway-name=edge";

#[test]
#[ignore = "needs a cluster"]
fn a_rollout_of_a_gateway_costs_no_request() -> Result<()> {
    let Edge { inside, outside, address } = edge("t-roll-edge")?;
    route(&inside, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    let url = format!("http://{address}/");
    eventually("the route to be live", Duration::from_secs(5), || outside.served("client", &url, 20))?;
    let load = outside.load(&url, 3000, 100, None)?;
    inside.cluster.k(&["-n", &inside.name, "rollout", "restart", "deploy/edge-weft"])?;
    inside.cluster.wait_rollout(&inside.name, "deploy/edge-weft")?;
    load.all_answered()
}

#[test]
#[ignore = "needs a cluster"]
fn a_certificate_that_turns_to_garbage_and_back_disturbs_no_neighbour() -> Result<()> {
    let Edge { inside, outside, address } = edge("t-cert-edge")?;
    route(&inside, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    let secret = |certificate: &str, key: &str| {
        inside.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {{"name": "site", "namespace": "@NS@"}},
            "stringData": {{"tls.crt": {}, "tls.key": {}}}}}"#,
            serde_json::Value::from(certificate),
            serde_json::Value::from(key),
        ))
    };
    let pair = rcgen::generate_simple_self_signed(vec!["site.example".to_owned()])?;
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    secret(&certificate, &key)?;
    inside.apply(&gateway(
        r#", {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "site.example",
        "tls": {"certificateRefs": [{"name": "site"}]}}"#,
    ))?;
    self::address(&inside)?;
    let resolved = || -> Result<(String, String)> {
        let gateway = inside.cluster.json(&["-n", &inside.name, "gateway/edge"])?;
        let listeners = gateway["status"]["listeners"].as_array().into_iter().flatten();
        let https = listeners.into_iter().find(|l| l["name"] == "https").context("no listener https")?;
        let conditions = https["conditions"].as_array().into_iter().flatten();
        let found = conditions.into_iter().find(|c| c["type"] == "ResolvedRefs").context("no condition")?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("reason")))
    };
    let site = [
        &format!("https://{address}/")[..],
        "-H",
        "Host: site.example",
        "--insecure-skip-verify",
        "--server-name=site.example",
        "--count=20",
        "--timeout=5s",
    ];
    let over_tls = || {
        let answers = outside.ask("client", &site)?;
        ensure!(answers.with_status(200) == 20, "{:?} {}", answers.list.first(), answers.error);
        Ok(())
    };
    eventually("HTTPS", PATIENCE, over_tls)?;
    let url = format!("http://{address}/");
    let load = outside.load(&url, 1000, 100, None)?;
    secret("garbage", "garbage")?;
    eventually("the status to say so", PATIENCE, || {
        let (status, reason) = resolved()?;
        ensure!(status == "False" && reason == "InvalidCertificateRef", "{status} {reason}");
        Ok(())
    })?;
    secret(&certificate, &key)?;
    eventually("HTTPS again", PATIENCE, over_tls)?;
    load.all_answered()
}

/// Made by the controller with its own rights, and checked by a real API server.
#[test]
#[ignore = "needs a cluster"]
fn the_network_policy_of_a_gateway_follows_its_listeners_and_comes_back() -> Result<()> {
    let Edge { inside, .. } = edge("t-policy-edge")?;
    let has = |expected: &[u64]| -> Result<()> {
        let policy = inside.cluster.json(&["-n", &inside.name, "networkpolicy/edge-weft"])?;
        // Others are for the controller alone.
        let rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
        let open = rules.filter(|rule| rule.get("from").is_none());
        let ports = open.flat_map(|rule| rule["ports"].as_array().into_iter().flatten());
        let ports: Vec<_> = ports.filter_map(|port| port["port"].as_u64()).collect();
        ensure!(ports == expected, "{ports:?} instead of {expected:?}");
        Ok(())
    };
    has(&[80, 15021])?;
    inside.apply(&gateway(r#", {"name": "more", "port": 8080, "protocol": "HTTP"}"#))?;
    eventually("the new port to be opened", PATIENCE, || has(&[80, 8080, 15021]))?;
    inside.cluster.k(&["-n", &inside.name, "delete", "networkpolicy/edge-weft"])?;
    eventually("the policy to come back", PATIENCE, || has(&[80, 8080, 15021]))
}
