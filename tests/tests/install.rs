//! Ways to install the charts other than `helm install` of the default, on a real API server.
//! `make cluster-build` makes what it needs: `cargo test -p weft-tests --test install -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Deserialize as _;
use serde_json::Value;
use weft_tests::apiserver::ApiServer;
use weft_tests::cluster::repository;

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: weft-system}}";

const POLICY: &str = "
apiVersion: weftmesh.io/v1alpha1
kind: MeshPolicy
metadata: {name: strict, namespace: default}
spec: {mode: Strict, portModes: [{port: 8080, mode: Permissive}]}
";

/// The versions of all objects of a rendered chart, as the API server has them.
fn versions(server: &ApiServer, rendered: &str) -> Result<BTreeMap<String, String>> {
    let documents = serde_norway::Deserializer::from_str(rendered).map(Value::deserialize);
    let mut versions = BTreeMap::new();
    for object in documents.filter_map(Result::ok).filter(Value::is_object) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, _) = text("/apiVersion").split_once('/').unwrap_or_default();
        let name = format!("{}.{group}/{}", text("/kind").to_lowercase(), text("/metadata/name"));
        let namespace = if text("/metadata/namespace").is_empty() { "default" } else { text("/metadata/namespace") };
        let found = server.json(&["-n", namespace, name.replace("./", "/").as_str()])?;
        let version = found["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        versions.insert(name, version.to_owned());
    }
    Ok(versions)
}

/// As the chart's manual says.
#[test]
#[ignore = "needs make cluster-build"]
fn helm_template_and_kubectl_apply_install_it_and_a_second_time_changes_nothing() -> Result<()> {
    let server = ApiServer::start(&[])?;
    server.apply(NAMESPACE)?;
    let rendered = server.helm(&["template", "weft", "charts/weft", "-n", "weft-system", "--no-hooks"])?;
    // Of kinds that are defined in the same breath there are no objects in it: one apply is enough.
    server.apply(&rendered)?;
    let first = versions(&server, &rendered)?;
    ensure!(first.len() > 20 && first.contains_key("daemonset.apps/weft-node-proxy"), "{first:?}");
    server.apply(&rendered)?;
    ensure!(versions(&server, &rendered)? == first, "the same objects were changed");
    server.apply(POLICY)
}

/// An older release of the CRDs, one that lacks what a newer one has, becomes the newer one, and its objects stay.
#[test]
#[ignore = "needs make cluster-build"]
fn the_chart_of_crds_upgrades_them_and_leaves_them_behind() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let older = tempfile::tempdir()?;
    let (from, to) = (repository().join("charts/weft-crds"), older.path().join("weft-crds"));
    let copied = std::process::Command::new("cp").arg("-r").arg(&from).arg(&to).status()?;
    ensure!(copied.success(), "cp: {copied}");
    let file = to.join("templates/meshpolicies.yaml");
    let (text, without) = (std::fs::read_to_string(&file)?, |text: &str| text.replace("shortNames:", "categories:"));
    ensure!(without(&text) != text, "nothing to leave out in {text}");
    std::fs::write(&file, without(&text))?;
    let short =
        || server.json(&["crd", "meshpolicies.weftmesh.io"]).map(|crd| crd["spec"]["names"]["shortNames"].clone());

    server.helm(&["install", "weft-crds", to.to_str().unwrap(), "-n", "weft-system", "--create-namespace"])?;
    ensure!(short()?.is_null(), "{}", short()?);
    server.k(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    server.apply(POLICY)?;
    server.helm(&["upgrade", "weft-crds", "charts/weft-crds", "-n", "weft-system"])?;
    ensure!(short()?.is_array(), "{}", short()?);
    server.helm(&["uninstall", "weft-crds", "-n", "weft-system"])?;
    let policy = server.json(&["meshpolicy.weftmesh.io", "strict"])?;
    ensure!(policy["spec"]["portModes"][0]["port"] == 8080, "{policy}");
    Ok(())
}

/// Where one team has the cluster's objects and another one the namespace's.
#[test]
#[ignore = "needs make cluster-build"]
fn objects_of_the_cluster_and_of_the_namespace_are_two_releases() -> Result<()> {
    let server = ApiServer::start(&[])?;
    server.apply(NAMESPACE)?;
    for scope in ["cluster", "namespace"] {
        let (release, scope) = (format!("weft-{scope}"), format!("--set=resourceScope={scope}"));
        let args = ["install", &release, "charts/weft", "-n", "weft-system", "--no-hooks", &scope];
        server.helm(&args)?;
    }
    let whole = server.helm(&["template", "weft", "charts/weft", "-n", "weft-system", "--no-hooks"])?;
    let found = versions(&server, &whole)?;
    ensure!(found.len() > 20, "{found:?}");
    Ok(())
}
