//! The way back: out of the mesh, and the mesh out of the cluster, under load.

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, Mix, Outcome, PATIENCE, STRICT, eventually, failures};

use crate::meshed::{Meshed, clock};
use crate::release::Release;

/// What is on a node, in whatever is the mesh's to leave something in: its rules, sockets and routes in pods' namespaces, its
/// interfaces, the plugin, its processes and its files.
const ON_NODE: &str = r#"
for ns in /run/netns/*; do
    nsenter --net="$ns" nft list tables | grep weft
    nsenter --net="$ns" ss -Hltn | grep -E ':1500[0-9]|:15008'
    nsenter --net="$ns" ip rule | grep -vE 'lookup (local|main|default)'
    nsenter --net="$ns" ip -o link | grep -i weft
done
ip -o link | grep -i weft
nft list tables | grep weft
grep -l weft /etc/cni/net.d/*
ls -d /opt/cni/bin/weft* 2>/dev/null
find /run/weft /var/lib/weft -not -type d
true"#;

/// Objects of every kind that say they are the mesh's, other than the definitions of kinds, which go by hand so that nobody's
/// policies go with them.
fn objects(cluster: &Cluster) -> Result<String> {
    let kinds = cluster.k(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("customresourcedefinitions")).collect();
    let select = ["-A", "-l", "app.kubernetes.io/part-of=weft", "--ignore-not-found", "-o", "name"];
    cluster.k(&[&["get", &kinds.join(",")], &select[..]].concat())
}

/// Whether everything was answered but what came in the time in which one end had left and the other one hadn't. How many
/// those were.
fn answered_but_between(outcomes: &[Outcome], from: f64, to: f64) -> Result<usize> {
    // Who calls may leave a little later than who is called.
    let to = to + 2.0;
    let is_between = |o: &&Outcome| o.clock + o.took / 1000.0 >= from && o.clock <= to;
    let (between, rest): (Vec<_>, Vec<_>) = outcomes.iter().cloned().partition(|o| is_between(&o));
    let bad = failures(&rest);
    ensure!(bad.is_empty(), "by the second they began in: {bad:?}");
    ensure!(rest.iter().any(|o| o.clock > to), "the load was over before");
    Ok(between.iter().filter(|o| o.status != "200").count())
}

/// First the namespace leaves, then the mesh. The processes are the same all the while, and nobody outside of the moment in
/// which the two ends of a request leave one after the other notices.
#[test]
#[ignore = "needs a cluster"]
fn a_namespace_leaves_and_then_the_mesh_and_nothing_stays() -> Result<()> {
    let meshed = Meshed::open("t-way-back")?;
    let staying = Meshed::open("t-way-back-last")?;
    let taking = Meshed::open("t-way-back-open")?;
    let (cluster, name) = (meshed.cluster(), meshed.ns.name.as_str());
    let before = (meshed.incarnation()?, staying.incarnation()?, taking.incarnation()?);
    let release = Release::of(cluster)?;

    let load = meshed.ns.mix("server", &Mix { seconds: 40, ..meshed.requests() })?;
    let from = clock()?;
    cluster.k(&["label", "namespace", name, "weftmesh.io/mesh-"])?;
    eventually("the namespace to be open", PATIENCE, || meshed.is_open())?;
    let to = clock()?;
    let lost = answered_but_between(&load.outcomes()?, from, to)?;
    eprintln!("a namespace left in {:.1} s; {lost} requests failed", to - from);
    staying.is_strict()?;

    cluster.k(&["-n", &taking.ns.name, "delete", "meshpolicies.weftmesh.io", "--all"])?;
    eventually("plaintext to be taken", PATIENCE, || taking.is_open())?;
    let load = staying.ns.mix("server", &Mix { seconds: 90, ..staying.requests() })?;
    let plain = taking.ns.mix("server", &Mix { seconds: 90, per_second: 100, ..taking.requests() })?;
    let kept = Mix { name: "kept", keep: true, seconds: 90, per_second: 100, ..taking.requests() };
    let kept = taking.ns.mix("server", &kept)?;
    let beside = meshed.ns.mix("server", &Mix { seconds: 90, ..meshed.requests() })?;
    let from = clock()?;
    release.uninstall()?;
    let outcome = (|| {
        staying.is_open()?;
        let to = clock()?;
        let lost = answered_but_between(&load.outcomes()?, from, to)?;
        eprintln!("the mesh left in {:.1} s; {lost} requests failed", to - from);
        beside.all_answered().context("who had left before")?;
        plain.all_answered().context("where plaintext is taken")?;
        kept.all_answered().context("where plaintext is taken, on connections that are kept")?;
        ensure!(
            (meshed.incarnation()?, staying.incarnation()?, taking.incarnation()?) == before,
            "an application was restarted"
        );
        nothing_stays(cluster)
    })();
    release.install()?;
    outcome?;
    eventually("the mesh to be back", PATIENCE, || staying.is_strict())?;
    staying.is_back()
}

/// Where plaintext is taken, neither requests nor connections that are kept notice that a namespace leaves.
#[test]
#[ignore = "needs a cluster"]
fn a_permissive_namespace_leaves_and_no_request_fails() -> Result<()> {
    let meshed = Meshed::open("t-leaves")?;
    let (cluster, name) = (meshed.cluster(), meshed.ns.name.as_str());
    let before = meshed.incarnation()?;
    cluster.k(&["-n", name, "delete", "meshpolicies.weftmesh.io", "--all"])?;
    eventually("plaintext to be taken", PATIENCE, || meshed.is_open())?;
    let load = meshed.ns.mix("server", &Mix { per_second: 200, ..meshed.requests() })?;
    let kept = meshed.ns.mix("server", &Mix { name: "kept", keep: true, per_second: 200, ..meshed.requests() })?;
    cluster.k(&["label", "namespace", name, "weftmesh.io/mesh-"])?;
    load.all_answered()?;
    kept.all_answered()?;
    // Who has left is open whatever a policy says.
    meshed.ns.apply(STRICT)?;
    meshed.is_open()?;
    ensure!(meshed.incarnation()? == before, "an application was restarted");
    Ok(())
}

fn nothing_stays(cluster: &Cluster) -> Result<()> {
    eventually("the mesh's own objects to go", PATIENCE, || {
        let all = objects(cluster)?;
        // With the first two a mesh that is installed again is the same one; the others are what replicas told each other.
        let leases = ["weft-ca", "weft-controller"].map(|name| format!("lease.coordination.k8s.io/{name}"));
        let maps = ["weft-trust", "weft-gateways", "weft-refusals"].map(|name| format!("configmap/{name}"));
        let stays = [&["secret/weft-ca".to_owned()][..], &leases, &maps].concat();
        let left: Vec<_> = all.lines().filter(|object| !stays.iter().any(|one| one == object)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    nodes_are_clean(cluster)
}

/// Whether nothing of the mesh is left on any node, where those can be entered.
pub(crate) fn nodes_are_clean(cluster: &Cluster) -> Result<()> {
    if !cluster.has_nodes() {
        return Ok(());
    }
    for node in ["node1", "node2"] {
        eventually("a clean node", PATIENCE, || {
            let left = cluster.on_node(node, &["sh", "-c", ON_NODE]).output()?;
            ensure!(left.status.success(), "{}", String::from_utf8_lossy(&left.stderr));
            ensure!(left.stdout.is_empty(), "{node} still has\n{}", String::from_utf8_lossy(&left.stdout));
            Ok(())
        })?;
    }
    Ok(())
}
