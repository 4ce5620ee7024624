//! The guides as somebody follows them, from a cluster without a mesh to one without it again. `tests/src/manual.rs` says
//! how pages name what is run here.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use weft_tests::Programs;
use weft_tests::cluster::{Cluster, SYSTEM, repository};
use weft_tests::edge::Certificate;
use weft_tests::guide::{Step, desk, follow};

use crate::release::Release;

const FILE: &str = "tests/tests/cluster/guides.rs";
/// How long it may take until a command says what the guide says: a ConfigMap's change takes a kubelet a minute or more.
const PATIENCE: Duration = Duration::from_secs(180);

/// A line of the shell at the desk, where kubectl and helm find the cluster, with the `weft` that was built with this test.
fn sh(cluster: &Cluster, desk: &Path, line: &str) -> Result<Output> {
    let mut command = cluster.beside(&["bash", "-c"]).unwrap_or_else(|| {
        let mut bash = Command::new("bash");
        bash.arg("-c");
        bash
    });
    let programs = Programs::find()?.directory().display().to_string();
    let line = format!("PATH={programs}:$PATH; set -euo pipefail; {line}");
    command.arg(line).current_dir(desk).stdin(Stdio::null()).output().context("bash")
}

/// A test cluster's mesh out of the way, and back with its values when the value goes: tests that follow want it.
struct Set {
    cluster: Cluster,
    release: Release,
}

impl Set {
    fn aside(cluster: &Cluster) -> Result<Self> {
        let set = Self { cluster: cluster.clone(), release: Release::of(cluster)? };
        set.release.uninstall()?;
        set.cluster.k(&["delete", "namespace", "shop", "legacy", "--ignore-not-found", "--timeout=2m"])?;
        Ok(set)
    }

    fn back(&self) -> Result<()> {
        // Nodes first: one that a guide was stopped at takes no pods.
        for node in ["node1", "node2"] {
            self.cluster.k(&["uncordon", node])?;
        }
        self.release.install()
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if let Err(error) = self.back() {
            eprintln!("the cluster is without its mesh: {error:#}");
        }
    }
}

#[test]
#[ignore = "needs a cluster"]
fn the_guides_from_the_first_day_to_the_way_back() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("not run: a mesh that is somebody else's isn't taken away");
        return Ok(());
    }
    let set = Set::aside(&cluster)?;
    let desk = desk()?;
    let mut followed = 0;
    for day in 0..3 {
        let page = format!("docs/guides/day-{day}.md");
        let guide = (page.as_str(), FILE, "the_guides_from_the_first_day_to_the_way_back");
        followed += follow(guide, |_: &Step| false, PATIENCE, |line| sh(&cluster, desk.path(), line))?;
    }
    ensure!(followed >= 70, "only {followed} steps");
    let kinds = cluster.k(&["get", "crd", "-o", "name"])?;
    ensure!(!kinds.contains("weftmesh.io"), "the guides leave kinds of ours: {kinds}");
    drop(set);
    cluster.wait_rollout(SYSTEM, "daemonset/weft-node-proxy")
}

/// The chart's page: kubectl instead of Helm, in and out.
#[test]
#[ignore = "needs a cluster"]
fn the_chart_without_helm() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("not run: a mesh that is somebody else's isn't taken away");
        return Ok(());
    }
    let set = Set::aside(&cluster)?;
    let desk = desk()?;
    cluster.k(&["delete", "namespace", SYSTEM, "--timeout=2m"])?;
    let guide = ("charts/weft/README.md", FILE, "the_chart_without_helm");
    let followed = follow(guide, |_: &Step| false, PATIENCE, |line| sh(&cluster, desk.path(), line))?;
    ensure!(followed >= 5, "only {followed} steps");
    drop(set);
    cluster.wait_rollout(SYSTEM, "daemonset/weft-node-proxy")
}

/// What else the manual has to type, on a mesh that runs.
#[test]
#[ignore = "needs a cluster"]
fn single_commands_of_the_manual() -> Result<()> {
    let cluster = Cluster::open()?;
    let desk = desk()?;
    let shop = repository().join("examples/quickstart/shop.yaml");
    cluster.k(&["apply", "-f", &shop.display().to_string()])?;
    cluster.k(&["-n", "shop", "delete", "rolebinding", "jane-taps", "--ignore-not-found"])?;
    if !cluster.has_nodes() {
        eprintln!("not run: nodes have other names on this cluster");
        return Ok(());
    }
    // A value that restarts nothing.
    std::fs::write(desk.path().join("my-values.yaml"), "dashboards: {labels: {example.com/desk: mine}}\n")?;
    let release = Release::of(&cluster)?;
    let guide = ("docs/cli.md", FILE, "single_commands_of_the_manual");
    let outcome =
        follow(guide, |_: &Step| false, PATIENCE, |line| sh(&cluster, desk.path(), line)).and_then(|followed| {
            ensure!(followed >= 5, "only {followed} steps");
            let board = cluster.json(&["-n", SYSTEM, "configmap/weft-overview-dashboard"])?;
            let label = &board["metadata"]["labels"]["example.com/desk"];
            ensure!(label == "mine", "what was installed hasn't the value of my-values.yaml: {label}");
            Ok(())
        });
    let back = release.install();
    cluster.k(&["-n", "shop", "delete", "rolebinding", "jane-taps", "--ignore-not-found"])?;
    outcome.and(back)
}

/// A host behind an old door: addresses, a certificate, and a redirect that nobody asked for.
const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: shop
  annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: 10.0.0.0/8}
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.example.com], secretName: shop-tls}]
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: catalog, port: {number: 80}}}}]}
";

/// What a move makes goes, however far it came.
struct Moved {
    cluster: Cluster,
    desk: tempfile::TempDir,
}

impl Drop for Moved {
    fn drop(&mut self) {
        let made = self.desk.path().join("moved").display().to_string();
        for args in [
            &["-f", &made][..],
            &["-n", "shop", "ingress/shop", "secret/shop-tls"],
            &["ingressclass.networking.k8s.io/nginx"],
        ] {
            if let Err(error) = self.cluster.k(&[&["delete", "--ignore-not-found", "--timeout=1m"], args].concat()) {
                eprintln!("something of the move stays: {error:#}");
            }
        }
    }
}

/// From an Ingress in the cluster to a Gateway that stands beside it.
#[test]
#[ignore = "needs a cluster"]
fn a_host_gets_a_gateway_beside_its_ingress() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("not run: a class nginx that is somebody else's isn't taken away");
        return Ok(());
    }
    let shop = repository().join("examples/quickstart/shop.yaml");
    cluster.k(&["apply", "-f", &shop.display().to_string()])?;
    let moved = Moved { cluster: cluster.clone(), desk: desk()? };
    let Certificate { chain, key } = Certificate::of("shop.example.com")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "shop-tls", "namespace": "shop"},
        "stringData": {"tls.crt": chain, "tls.key": key},
    });
    cluster.apply(&secret.to_string())?;
    cluster.apply(INGRESS)?;
    let guide = ("docs/migrate.md", FILE, "a_host_gets_a_gateway_beside_its_ingress");
    let followed = follow(guide, |_: &Step| false, PATIENCE, |line| sh(&cluster, moved.desk.path(), line))?;
    ensure!(followed == 4, "{followed} steps");
    for object in ["httproute/shop", "httproute/shop-redirect", "authorizationpolicies.weftmesh.io/shop-addresses"] {
        cluster.wait_accepted("shop", object)?;
    }
    Ok(())
}
