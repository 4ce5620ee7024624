//! The guide for teams, as far as it needs no node: roles and what they forbid, on a real API server, with impersonated
//! users. `make cluster-build` makes what it needs: `cargo test -p weft-tests --test teams -- --ignored`. The same guide, with
//! its pods and their traffic, is followed by `cluster/teams.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_testkit::process::Process;
use weft_tests::apiserver::ApiServer;
use weft_tests::guide::{Step, follow};

const GUIDE: (&str, &str, &str) = ("docs/add-a-team.md", "tests/tests/cluster/teams.rs", "the_guide_for_teams_holds");
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server with Weft's objects, the Gateway API's, and the controllers that sum roles up and make ServiceAccounts.
fn control_plane() -> Result<(Process, ApiServer)> {
    let server = ApiServer::start(&[])?;
    let mut manager = Command::new(server.build().join("bin/kube-controller-manager"));
    manager.arg("--kubeconfig").arg(server.kubeconfig("admin"));
    // Nobody scrapes it, and another test's may be in the same place.
    manager.args(["--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=false"]);
    manager.arg("--controllers=clusterrole-aggregation-controller,serviceaccount-controller,namespace-controller");
    let manager = server.run(manager, "admin")?;
    server.install("standard")?;
    Ok((manager, server))
}

fn until(what: &str, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = holds() {
        ensure!(Instant::now() < end, "{what}: {error:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// What a role may write: `verb resource`, of groups that the mesh is about.
fn written(server: &ApiServer, role: &str) -> Result<BTreeSet<String>> {
    let role = server.json(&["clusterrole", role])?;
    let mut found = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let texts = |key: &str| -> Vec<String> {
            rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let ours =
            texts("apiGroups").iter().any(|group| group.starts_with("gateway.networking") || group == "weftmesh.io");
        if ours && texts("verbs").contains(&"create".to_owned()) {
            found.extend(texts("resources"));
        }
    }
    Ok(found)
}

#[test]
#[ignore = "needs make cluster-build"]
fn roles_are_the_sums_that_the_guide_says() -> Result<()> {
    let (_manager, server) = control_plane()?;
    let routes = ["backendtlspolicies", "grpcroutes", "httproutes", "tcproutes", "tlsroutes", "udproutes"];
    let policies = ["authorizationpolicies", "meshpolicies", "telemetrypolicies", "xbackendtrafficpolicies"];
    let developer: BTreeSet<_> = routes.into_iter().chain(policies).map(str::to_owned).collect();
    let with = |more: &[&str]| -> BTreeSet<String> {
        developer.iter().cloned().chain(more.iter().map(|&it| it.to_owned())).collect()
    };
    let expected = BTreeMap::from([
        ("weft-viewer", BTreeSet::new()),
        ("view", BTreeSet::new()),
        ("weft-developer", with(&[])),
        ("edit", with(&[])),
        ("admin", with(&["referencegrants"])),
        ("weft-operator", with(&["gatewayparameters", "gateways", "listenersets", "referencegrants", "xbackends"])),
        ("weft-provider", ["gatewayclasses", "gatewayparameters", "xmeshes"].map(str::to_owned).into()),
    ]);
    until("sums of roles", || {
        for (role, expected) in &expected {
            let found = written(&server, role)?;
            ensure!(found == *expected, "{role}: {found:?}");
        }
        Ok(())
    })?;
    for role in expected.keys() {
        let sees = server.json(&["clusterrole", role])?["rules"].to_string();
        ensure!(sees.contains("referencegrants") && sees.contains("meshpolicies"), "{role} doesn't see all: {sees}");
    }
    Ok(())
}

/// Steps that need pods, a controller or a mesh are the cluster's.
fn needs_nodes(step: &Step) -> bool {
    step.command.contains(" exec ") || step.command.contains(" wait ") || step.command.starts_with("weft ")
}

#[test]
#[ignore = "needs make cluster-build"]
fn the_guide_for_teams_allows_and_forbids_what_it_says() -> Result<()> {
    let (_manager, server) = control_plane()?;
    server.k(&["create", "namespace", "shop"])?;
    let followed = follow(GUIDE, needs_nodes, PATIENCE, |command| server.sh(command))?;
    ensure!(followed >= 25, "only {followed} steps");
    Ok(())
}

/// What takes a pod out of the mesh is refused, also on one that runs, and what doesn't isn't.
#[test]
#[ignore = "needs make cluster-build"]
fn pods_are_kept_in_the_mesh() -> Result<()> {
    let (_manager, server) = control_plane()?;
    let applied = server.sh("kubectl apply -f examples/teams/keep-pods.yaml")?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    for (name, labels) in [("in", "weftmesh.io/mesh=enabled"), ("out", "a=b"), ("free", "weftmesh.io/mesh=enabled")] {
        server.k(&["create", "namespace", name])?;
        server.k(&["label", "namespace", name, labels])?;
    }
    server.k(&["label", "namespace", "free", "weftmesh.io/pods-may-leave=true"])?;
    let pod = |namespace: &str, name: &str, metadata: &str, spec: &str| {
        server.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, {metadata}}}, \
             spec: {{containers: [{{name: app, image: localhost/app:1}}], {spec}}}}}"
        ))
    };
    until("ServiceAccounts", || {
        ["in", "out", "free"].iter().try_for_each(|ns| server.json(&["-n", ns, "sa/default"]).map(drop))
    })?;
    let disabled = "labels: {weftmesh.io/mesh: disabled}";
    // From here on the policy is known; what went through before is made anew.
    until("the policy to be in force", || {
        ensure!(pod("in", "probe", disabled, "").is_err(), "it was taken");
        Ok(())
    })?;
    let leaving = [
        (disabled, ""),
        ("labels: {gateway.networking.k8s.io/gateway-name: x}", ""),
        ("labels: {istio.io/dataplane-mode: ambient}", ""),
        ("annotations: {sidecar.istio.io/status: x}", ""),
        ("annotations: {ambient.istio.io/redirection: enabled}", ""),
        ("", "hostNetwork: true"),
        ("", "initContainers: [{name: istio-proxy, image: localhost/app:1}]"),
        ("", "initContainers: [{name: linkerd-proxy, image: localhost/app:1}]"),
    ];
    for (number, (metadata, spec)) in leaving.into_iter().enumerate() {
        let name = format!("p{number}");
        let refused = pod("in", &name, metadata, spec).map_err(|error| format!("{error:#}"));
        ensure!(refused.as_ref().is_err_and(|why| why.contains("weft-keep-pods")), "{metadata} {spec}: {refused:?}");
        for namespace in ["out", "free"] {
            pod(namespace, &name, metadata, spec)?;
        }
    }
    for (number, metadata) in
        ["", "labels: {app: x, istio.io/dataplane-mode: none}", "labels: {weftmesh.io/mesh: enabled}"]
            .into_iter()
            .enumerate()
    {
        pod("in", &format!("stays{number}"), metadata, "initContainers: [{name: setup, image: localhost/app:1}]")?;
    }
    let relabelled = server.k(&["-n", "in", "label", "--overwrite", "pod", "stays2", "weftmesh.io/mesh=disabled"]);
    ensure!(relabelled.is_err_and(|why| format!("{why:#}").contains("stay in the mesh")), "a running pod left");
    Ok(())
}
