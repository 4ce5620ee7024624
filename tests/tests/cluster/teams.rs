//! The guide for teams, followed to the end: four people, what each may, and what traffic says of it.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use weft_tests::Programs;
use weft_tests::cluster::{Cluster, Echo, PATIENCE, SYSTEM, echo_service, eventually, repository};
use weft_tests::guide::follow;

/// What the guide makes for the whole cluster goes, wherever it was left.
struct Tidy(Cluster);

impl Drop for Tidy {
    fn drop(&mut self) {
        let example = |name: &str| repository().join("examples/teams").join(name).display().to_string();
        for args in [
            &["delete", "namespace", "books", "jobs", "quarantine"][..],
            &["delete", "-f", &example("mesh.yaml")],
            &["delete", "-f", &example("keep-pods.yaml")],
            &["delete", "clusterrolebinding", "mesh-operators"],
        ] {
            if let Err(error) = self.0.k(&[args, &["--ignore-not-found"]].concat()) {
                eprintln!("something of the guide stays: {error:#}");
            }
        }
    }
}

/// A line of the shell where kubectl finds the cluster, with the `weft` that was built with this test.
fn sh(cluster: &Cluster, line: &str) -> Result<Output> {
    let mut command = cluster.beside(&["bash", "-c"]).unwrap_or_else(|| {
        let mut bash = Command::new("bash");
        bash.arg("-c");
        bash
    });
    let programs = Programs::find()?.directory().display().to_string();
    let line = format!("PATH={programs}:$PATH; {line}");
    command.arg(line).current_dir(repository()).stdin(Stdio::null()).output().context("bash")
}

#[test]
#[ignore = "needs a cluster"]
fn the_guide_for_teams_holds() -> Result<()> {
    let cluster = Cluster::open()?;
    let tidy = Tidy(cluster.clone());
    let guide = ("docs/add-a-team.md", "tests/tests/cluster/teams.rs", "the_guide_for_teams_holds");
    let followed = follow(guide, |_| false, PATIENCE, |command| sh(&cluster, command))?;
    ensure!(followed >= 35, "only {followed} steps");
    drop(tidy);
    Ok(())
}

/// A policy of the root namespace that isn't enforced is a default, which a namespace replaces; enforced, it is the least
/// that holds, at once and for connections that come in.
#[test]
#[ignore = "needs a cluster"]
fn what_is_enforced_for_a_namespace_cannot_be_opened_there() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-enforced", true)?;
    let outside = cluster.namespace("t-enforced-out", false)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server"), Echo::new("client")])?;
    outside.run(&[Echo::new("client")])?;
    let url = "http://server.t-enforced/";
    let root = |enforced: bool| {
        cluster.apply(&format!(
            r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "metadata": {{"name": "t-enforced", "namespace": "{SYSTEM}"}},
            "spec": {{"targetRefs": [{{"kind": "Namespace", "name": "t-enforced"}}], "mode": "Strict", "enforced": {enforced}}}}}"#
        ))
    };
    struct Gone(Cluster);
    impl Drop for Gone {
        fn drop(&mut self) {
            if let Err(error) = self.0.k(&["-n", SYSTEM, "delete", "meshpolicy", "t-enforced", "--ignore-not-found"]) {
                eprintln!("a policy of this test stays: {error:#}");
            }
        }
    }
    let _gone = Gone(cluster.clone());
    ns.apply(
        r#"{"apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "metadata": {"name": "open", "namespace": "@NS@"},
        "spec": {"targetRefs": [{"kind": "Pod", "selector": {"matchLabels": {"app": "server"}}}], "mode": "Permissive"}}"#,
    )?;
    root(false)?;
    cluster.wait_accepted(SYSTEM, "meshpolicy/t-enforced")?;
    eventually("a default that a pod's own policy replaces", PATIENCE, || outside.served("client", url, 10))?;
    root(true)?;
    eventually("what is enforced", PATIENCE, || outside.refused("client", url))?;
    ns.served("client", "http://server/", 10)?;
    // The namespace says so once more, for itself: nothing changes.
    ns.apply(
        r#"{"apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "metadata": {"name": "all", "namespace": "@NS@"},
        "spec": {"mode": "Permissive", "portModes": [{"port": 8080, "mode": "Permissive"}]}}"#,
    )?;
    cluster.wait_accepted("t-enforced", "meshpolicy/all")?;
    for _ in 0..5 {
        outside.refused("client", url)?;
    }
    ns.served("client", "http://server/", 10)
}
