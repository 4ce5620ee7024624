//! `weft tap` by two people: one may see the namespace, the other may not.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::cluster::{Cluster, PATIENCE, TestNamespace, eventually, strict_pair};

/// A ServiceAccount that may tap its namespace, one that may nothing, and a route.
const PEOPLE: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: watcher, namespace: "@NS@" }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: stranger, namespace: "@NS@" }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: watcher, namespace: "@NS@" }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: weft-tap }
subjects: [{ kind: ServiceAccount, name: watcher, namespace: "@NS@" }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: seen, namespace: "@NS@" }
spec:
  parentRefs: [{ group: "", kind: Service, name: server }]
  rules:
  - backendRefs: [{ name: server, port: 80 }]
    matches: [{ path: { type: PathPrefix, value: /other } }]
  - backendRefs: [{ name: server, port: 80 }]
"#;

fn tap(ns: &TestNamespace, who: &str, namespace: &str, more: &[&str]) -> Result<Output> {
    let account = format!("{}/{who}", ns.name);
    let arguments = ["tap", "--service-account", &account, "--namespace", namespace, "-o", "json", "--count", "1"];
    ns.cluster.weft(&[&arguments, more].concat())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn is_refused(ns: &TestNamespace, who: &str, namespace: &str) -> Result<()> {
    let output = tap(ns, who, namespace, &["--for", "30s"])?;
    let said = said(&output);
    let remedy = format!("kubectl -n {namespace} create rolebinding");
    ensure!(!output.status.success(), "{who} may see {namespace}: {said}");
    ensure!(said.contains("403") && said.contains("taps.weftmesh.io") && said.contains(&remedy), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn who_may_tap_a_namespace_sees_route_and_endpoint_and_nobody_else_does() -> Result<()> {
    let ns = strict_pair("t-tap")?;
    ns.apply(PEOPLE)?;
    ns.cluster.wait_accepted(&ns.name, "httproute/seen")?;
    let (server, address, _) = ns.pod("server")?;
    eventually("the server to answer", PATIENCE, || ns.served("client", "http://server/", 1))?;
    is_refused(&ns, "stranger", &ns.name)?;
    is_refused(&ns, "watcher", "weft-system")?;

    let filter = ["--for", "2m", "--path", "/tapped", "--seen-by", "source", "--status", "200"];
    let output = std::thread::scope(|scope| {
        let tapping = scope.spawn(|| tap(&ns, "watcher", &ns.name, &filter));
        // Until one is seen, or the tap is over.
        while !tapping.is_finished() {
            ns.served("client", "http://server/tapped?card=4711", 5)?;
        }
        tapping.join().map_err(|_| anyhow::anyhow!("the tap panicked"))?
    })?;
    ensure!(output.status.success(), "{}", said(&output));
    let line = String::from_utf8_lossy(&output.stdout).lines().next().context("nothing was seen")?.to_owned();
    let seen: Value = serde_json::from_str(&line)?;
    let expected = [
        ("reporter", "source".to_owned()),
        ("source_namespace", ns.name.clone()),
        ("source_workload", "client".to_owned()),
        ("destination_pod", server),
        ("route", format!("HTTPRoute/{}/seen", ns.name)),
        ("rule", "1".to_owned()),
        ("endpoint", format!("{address}:8080")),
        ("path", "/tapped".to_owned()),
        ("connection_security", "mutual_tls".to_owned()),
    ];
    for (field, value) in &expected {
        ensure!(seen[*field] == **value, "{field} isn't {value}: {seen:#}");
    }
    ensure!(seen["proxy"].as_str().is_some_and(|proxy| proxy.starts_with("node ")), "{seen:#}");
    is_in_the_audit(&ns.cluster, &format!("system:serviceaccount:{}:watcher", ns.name))
}

fn is_in_the_audit(cluster: &Cluster, user: &str) -> Result<()> {
    let logs =
        cluster.k(&["-n", "weft-system", "logs", "--tail=-1", "-l", "app.kubernetes.io/name=weft-controller"])?;
    let lines = logs.lines().filter(|line| line.contains(r#""target":"audit""#) && line.contains(user));
    ensure!(lines.clone().any(|line| line.contains(r#""message":"tap""#)), "no tap of {user} is in the audit log");
    Ok(())
}
