//! The guides as somebody follows them, from a cluster without a mesh to one without it again. `tests/src/manual.rs` says
//! how pages name what is run here.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::Programs;
use weft_tests::cluster::{Cluster, SYSTEM, repository};
use weft_tests::guide::{Step, follow};

use crate::release::Release;

const FILE: &str = "tests/tests/cluster/guides.rs";
/// How long it may take until a command says what the guide says: a ConfigMap's change takes a kubelet a minute or more.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder with what people have of the repository beside them, so that what the guides write isn't left in it.
fn desk() -> Result<tempfile::TempDir> {
    let desk = tempfile::tempdir()?;
    for name in ["charts", "examples"] {
        symlink(repository().join(name), desk.path().join(name))?;
    }
    Ok(desk)
}

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
    let guide = ("docs/cli.md", FILE, "single_commands_of_the_manual");
    let followed = follow(guide, |_: &Step| false, PATIENCE, |line| sh(&cluster, desk.path(), line))?;
    cluster.k(&["-n", "shop", "delete", "rolebinding", "jane-taps"])?;
    ensure!(followed >= 3, "only {followed} steps");
    Ok(())
}
