//! Identities that change under traffic: roots, the authority's keys, and one that is no longer welcome.

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, Load, Mix, PATIENCE, SYSTEM, eventually, failures};

use crate::meshed::Meshed;

/// A command of the authority.
fn ca(cluster: &Cluster, args: &[&str]) -> Result<String> {
    cluster.k(&[&["-n", SYSTEM, "exec", "deploy/weft-ca", "--", "weft-ca"], args, &["--kubernetes"]].concat())
}

fn stage(cluster: &Cluster, name: &str) -> Result<()> {
    let shown = ca(cluster, &["show"])?;
    ensure!(shown.contains(name), "not {name}: {shown}");
    Ok(())
}

fn roots(cluster: &Cluster) -> Result<String> {
    cluster.k(&["-n", SYSTEM, "get", "configmap", "weft-trust", "-o", r"jsonpath={.data.root\.pem}"])
}

/// Every node's proxy trusts so many roots.
fn trusted(cluster: &Cluster, count: usize) -> Result<()> {
    for node in ["node1", "node2"] {
        let metrics = cluster.proxy_metrics(node)?;
        let line = metrics.lines().find(|l| l.starts_with("weft_trusted_roots")).context("no gauge")?;
        ensure!(line.ends_with(&format!(" {count}")), "{node}: {line}");
    }
    Ok(())
}

/// One root follows the other, twice, each time with both trusted by everybody before one issues, and nobody's certificate of
/// the old one left before it goes: what the authority does by time, a person does by looking.
#[test]
#[ignore = "needs a cluster"]
fn the_root_is_replaced_twice_under_load() -> Result<()> {
    let meshed = Meshed::open("t-rotate-twice")?;
    let cluster = meshed.cluster();
    // A run that was stopped may have left a rotation under way.
    while stage(cluster, "stable").is_err() {
        ca(cluster, &["rotate", "advance"])?;
    }
    let mut seen = vec![roots(cluster)?];
    for _ in 0..2 {
        let old = seen.last().context("a root")?.trim().to_owned();
        let load = meshed.ns.mix("server", &Mix { seconds: 45, keep: true, ..meshed.requests() })?;
        ca(cluster, &["rotate", "start"])?;
        eventually("both roots to be published", PATIENCE, || {
            let both = roots(cluster)?;
            ensure!(both.matches("BEGIN CERTIFICATE").count() == 2 && both.contains(&old), "{both}");
            Ok(())
        })?;
        eventually("every proxy to have both", 2 * PATIENCE, || trusted(cluster, 2))?;
        ca(cluster, &["rotate", "advance"])?;
        stage(cluster, "issuing")?;
        load.all_answered()?;
        // A day early: whoever has a certificate of the old root gets another, and until then isn't believed.
        ca(cluster, &["rotate", "advance"])?;
        stage(cluster, "stable")?;
        eventually("every proxy to have the new root only", 2 * PATIENCE, || trusted(cluster, 1))?;
        let new = roots(cluster)?;
        ensure!(seen.iter().all(|one| !new.contains(one.trim())), "an old root is still trusted");
        seen.push(new);
        meshed.is_back()?;
    }
    // And nothing is left of it.
    meshed.load(15)?.all_answered()?;
    meshed.takes_news()
}

/// What the mesh's trust domain is called for a while.
const RENAMED: &str = "renamed.example";
/// What it is called before and after.
const USUAL: &str = "cluster.local";

/// An upgrade to this name of the trust domain, with others beside it, as JSON.
fn named(cluster: &Cluster, domain: &str, aliases: &str) -> Result<()> {
    let values = [format!("--set=trustDomain={domain}"), format!("--set-json=trustDomainAliases={aliases}")];
    let upgrade =
        ["upgrade", "weft", "charts/weft", "-n", SYSTEM, "--reset-then-reuse-values", "--wait", "--timeout=3m"];
    cluster.helm(&[&upgrade[..], &values.each_ref().map(String::as_str)].concat()).map(drop)
}

/// Every certificate in use on the nodes is under this name.
fn certificates_are_under(cluster: &Cluster, domain: &str) -> Result<()> {
    let under = format!("{{identity=\"spiffe://{domain}/");
    for node in ["node1", "node2"] {
        let metrics = cluster.proxy_metrics(node)?;
        let ends = metrics.lines().filter(|line| line.starts_with("weft_certificate_expiry_timestamp_seconds{"));
        let (right, wrong): (Vec<_>, Vec<_>) = ends.partition(|line| line.contains(&under) && !line.ends_with(" 0"));
        ensure!(wrong.is_empty() && !right.is_empty(), "{node}: {wrong:?} beside {right:?}");
    }
    Ok(())
}

/// Lets identities in that are under this name, and nobody else.
fn let_in_under(meshed: &Meshed, domain: &str) -> Result<()> {
    meshed.ns.apply(&format!(
        r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {{"name": "ours", "namespace": "@NS@"}},
        "spec": {{"action": "ALLOW", "rules": [{{"from": [{{"identities": ["spiffe://{domain}/ns/{}/sa/*"]}}]}}]}}}}"#,
        meshed.ns.name
    ))?;
    meshed.ns.cluster.wait_accepted(&meshed.ns.name, "authorizationpolicy/ours")
}

/// The three upgrades of the manual, while everything is answered, and what comes of them.
fn renamed(meshed: &Meshed, load: Load<'_>) -> Result<()> {
    let (cluster, before) = (meshed.cluster(), roots(meshed.cluster())?);
    named(cluster, USUAL, &format!("[{RENAMED:?}]"))?;
    eventually("certificates under the old name", PATIENCE, || certificates_are_under(cluster, USUAL))?;
    named(cluster, RENAMED, &format!("[{USUAL:?}]"))?;
    eventually("certificates under the new name", PATIENCE, || certificates_are_under(cluster, RENAMED))?;
    // The policy that was written for the old name has held until now.
    let_in_under(meshed, RENAMED)?;
    named(cluster, RENAMED, "[]")?;
    eventually("no other certificates", PATIENCE, || certificates_are_under(cluster, RENAMED))?;
    load.goes_on()?;
    load.all_answered()?;
    ensure!(roots(cluster)? == before, "another root");
    let shown = ca(cluster, &["show"])?;
    ensure!(shown.contains(RENAMED), "{shown}");
    let_in_under(meshed, USUAL)?;
    eventually("the old name to be nobody's", PATIENCE, || meshed.ns.refused("client", "http://server/"))?;
    let_in_under(meshed, RENAMED)?;
    meshed.is_back()?;
    meshed.takes_news()
}

/// The mesh's trust domain gets another name, under load of all kinds and a policy that names callers; nobody is refused, nobody
/// is interrupted, and in the end nothing is left of the old name.
#[test]
#[ignore = "needs a cluster"]
fn the_trust_domain_is_changed_under_load() -> Result<()> {
    let meshed = Meshed::open("t-renamed")?;
    let cluster = meshed.cluster();
    let_in_under(&meshed, USUAL)?;
    meshed.is_back()?;
    let mix = Mix { seconds: 300, per_second: 100, keep: true, streams: 5, connections: 10, ..meshed.requests() };
    let load = meshed.ns.mix("server", &mix)?;
    let changed = renamed(&meshed, load);
    // Whatever happened: other tests know the mesh by its usual name.
    named(cluster, USUAL, &format!("[{RENAMED:?}]"))?;
    eventually("certificates under the usual name", PATIENCE, || certificates_are_under(cluster, USUAL))?;
    named(cluster, USUAL, "[]")?;
    changed
}

/// The authority is gone with its Secret, and comes back from the copy that the manual asks for: the same root, so that
/// nobody notices.
#[test]
#[ignore = "needs a cluster"]
fn an_authority_that_is_lost_comes_back_from_its_backup() -> Result<()> {
    let meshed = Meshed::open("t-ca-backup")?;
    let cluster = meshed.cluster();
    let before = roots(cluster)?;
    let mut copy = cluster.json(&["-n", SYSTEM, "secret/weft-ca"])?;
    // As from a file: what only the object of then had is gone.
    let metadata = copy["metadata"].as_object_mut().context("metadata")?;
    metadata.retain(|field, _| ["name", "namespace", "labels", "annotations"].contains(&field.as_str()));
    let load = meshed.load(60)?;
    let scale =
        |replicas: &str| cluster.k(&["-n", SYSTEM, "scale", "deployment/weft-ca", &format!("--replicas={replicas}")]);
    scale("0")?;
    let gone = ["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=weft-ca", "--timeout=60s"];
    let lost = cluster.k(&[&["-n", SYSTEM], &gone[..]].concat()).and_then(|_| {
        // Replicas that run would put it back.
        cluster.k(&["-n", SYSTEM, "delete", "secret", "weft-ca"])
    });
    // Whatever happened: the next test needs it.
    let restored = cluster.apply(&copy.to_string());
    scale("2")?;
    cluster.wait_rollout(SYSTEM, "deployment/weft-ca")?;
    lost?;
    restored?;
    meshed.takes_news()?;
    ensure!(roots(cluster)? == before, "another root");
    load.goes_on()?;
    load.all_answered()
}

/// Two clients hold connections open; one of them is no longer allowed. Its connections end, and the other's don't.
#[test]
#[ignore = "needs a cluster"]
fn connections_of_an_identity_that_is_revoked_end_and_nobody_elses() -> Result<()> {
    let meshed = Meshed::open("t-revoked")?;
    let ns = &meshed.ns;
    for account in ["welcome", "revoked"] {
        ns.cluster.k(&["-n", &ns.name, "create", "serviceaccount", account])?;
    }
    let mix =
        |account| Mix { name: account, account, seconds: 30, per_second: 20, connections: 10, ..meshed.requests() };
    let (welcome, revoked) = (ns.mix("server", &mix("welcome"))?, ns.mix("server", &mix("revoked"))?);
    ns.apply(&format!(
        r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {{"name": "revoked", "namespace": "@NS@"}},
        "spec": {{"action": "DENY", "rules": [{{"from": [{{"identities": ["spiffe://cluster.local/ns/{}/sa/revoked"]}}]}}]}}}}"#,
        ns.name
    ))?;
    revoked.goes_on()?;
    welcome.all_answered()?;
    let outcomes = revoked.outcomes()?;
    let (requests, held) = outcomes.split_at(outcomes.len() - mix("").connections);
    ensure!(held.iter().all(|o| o.status.starts_with("broken")), "{:?}", failures(held));
    // From the moment that counts on, there is no way in.
    let first = requests.iter().position(|o| o.status != "200").context("it was never refused")?;
    let later = requests[first..].iter().filter(|o| o.status == "200").count();
    ensure!(first > 0 && later == 0, "{later} requests were served after the first refusal");
    Ok(())
}
