//! `weft dashboard` for somebody who may view his own namespace and no other.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_testkit::Netns;
use weft_testkit::process::Process;
use weft_tests::Programs;
use weft_tests::cluster::{Cluster, PATIENCE, eventually, strict_pair};

const PEOPLE: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: viewer, namespace: "@NS@" }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: viewer, namespace: "@NS@" }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: weft-view }
subjects: [{ kind: ServiceAccount, name: viewer, namespace: "@NS@" }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: drawn, namespace: "@NS@" }
spec:
  parentRefs: [{ group: "", kind: Service, name: server }]
  rules: [{ backendRefs: [{ name: server, port: 80 }] }]
"#;

/// A page that is served, and the key to it.
struct Page {
    cluster: Cluster,
    _process: Process,
    address: String,
    key: String,
}

impl Page {
    fn of(cluster: &Cluster, account: &str) -> Result<Self> {
        let program = Programs::find()?.directory().join("weft").display().to_string();
        let words = [program.as_str(), "dashboard", "--service-account", account];
        let command = cluster.beside(&words).context("not a cluster of ours")?;
        let mut process = Process::start(&Netns::here(), command)?;
        let mut invitation = String::new();
        process.wait_until(PATIENCE, |log| {
            let said = log.lines().find_map(|line| line.strip_prefix("open ")?.split(' ').next());
            invitation = said.unwrap_or_default().to_owned();
            !invitation.is_empty()
        })?;
        let (address, token) = invitation.split_once("/#token=").context("no token")?;
        let mut it =
            Self { cluster: cluster.clone(), _process: process, address: address.to_owned(), key: String::new() };
        let said = it.curl("session", &["--data", token])?;
        it.key = said["key"].as_str().with_context(|| said.to_string())?.to_owned();
        Ok(it)
    }

    fn curl(&self, path: &str, more: &[&str]) -> Result<Value> {
        let (url, key) = (format!("{}/api/{path}", self.address), format!("authorization: Bearer {}", self.key));
        let words = [&["curl", "--silent", "--show-error", "--max-time", "60", "--header", &key, &url], more].concat();
        let output = self.cluster.beside(&words).context("not a cluster of ours")?.output()?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).with_context(said)
    }
}

#[test]
#[ignore = "needs a cluster"]
fn who_may_view_a_namespace_sees_its_calls_and_routes_and_no_other_namespace() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("LEFT OUT: pods of this cluster can't be reached from here");
        return Ok(());
    }
    let ns = strict_pair("t-dashboard")?;
    ns.apply(PEOPLE)?;
    cluster.wait_accepted(&ns.name, "httproute/drawn")?;
    let page = Page::of(&cluster, &format!("{}/viewer", ns.name))?;
    let of = |view: &str| page.curl(&format!("{view}?namespace={}", ns.name), &[]);
    let client = format!("{}/client", ns.name);
    eventually("the call to be drawn", PATIENCE, || {
        ns.served("client", "http://server/", 20)?;
        let graph = of("graph")?;
        let edges = graph["edges"].as_array().with_context(|| graph.to_string())?;
        let edge = edges.iter().find(|edge| edge["from"] == *client).with_context(|| graph.to_string())?;
        ensure!(edge["encrypted"] == 1.0 && edge["success"] == 1.0, "{edge:#}");
        ensure!(edge["requestsPerSecond"].as_f64() > Some(0.0), "{edge:#}");
        Ok(())
    })?;
    eventually("the route's split to be measured", PATIENCE, || {
        ns.served("client", "http://server/", 20)?;
        let routes = of("routes")?;
        let backend = &routes["rules"][0]["backends"][0];
        ensure!(backend["measured"] == 1.0, "{routes:#}");
        Ok(())
    })?;
    let certificates = of("certificates")?.to_string();
    ensure!(certificates.contains(&format!("/ns/{}/sa/", ns.name)), "{certificates}");
    for view in ["graph", "routes", "certificates"] {
        let told = of(view)?.to_string();
        ensure!(!told.contains("weft-system/") && !told.contains("/ns/weft-system/"), "{view}: {told}");
        for namespace in ["", "?namespace=weft-system", "?namespace=default"] {
            let refused = page.curl(&format!("{view}{namespace}"), &[])?;
            let why = refused["error"].as_str().with_context(|| refused.to_string())?;
            ensure!(why.contains("may not get views.weftmesh.io"), "{view}{namespace}: {why}");
        }
    }
    let namespaces = page.curl("namespaces", &[])?;
    ensure!(namespaces["namespaces"] == serde_json::json!([ns.name]), "{namespaces}");
    Ok(())
}
