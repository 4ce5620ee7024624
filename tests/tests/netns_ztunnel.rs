//! Weft and Istio's own ztunnel on one wire, certificates of one root: traffic both ways, and what each refuses.
//!
//! Needs a ztunnel program, which `WEFT_ZTUNNEL` names; without it nothing is tested and the tests say so.
//! CONTRIBUTING.md says how to build one.

#![allow(clippy::indexing_slicing, clippy::panic, reason = "test code: a panic is how a test fails")]

mod ztunnel;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use http::{Method, StatusCode, Version};
use weft_testkit::clients::{Connection, Reply, get, request};
use weft_testkit::{Capture, Netns, netns_tests};
use weft_tests::eventually;

use self::ztunnel::{MACHINE, MANIFEST, Mixed, program};

netns_tests! {
    traffic_flows_both_ways_and_nothing_crosses_in_the_clear,
    policies_of_each_know_the_others_pods,
    weft_refuses_a_ztunnel_that_is_somebody_else,
    ztunnel_refuses_a_weft_that_is_somebody_else,
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const ZT: &str = "spiffe://cluster.local/ns/shop/sa/zt";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";
const NIGHTLY: &str = "spiffe://cluster.local/ns/reports/sa/nightly";
const CATALOG: &str = "spiffe://cluster.local/ns/shop/sa/catalog";
/// Denies the pod behind ztunnel whatever it asks of the catalog.
const DENY: &str = "
apiVersion: weftmesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: not-zt, namespace: shop }
spec:
  targetRefs:
    - kind: Pod
      selector: { matchLabels: { app: catalog } }
  action: DENY
  rules:
    - from:
        - identities: [spiffe://cluster.local/ns/shop/sa/zt]
";

fn ask(from: &Netns, to: SocketAddr, secret: &str) -> Result<Reply> {
    let headers = [("x-secret", secret)];
    from.block_on(async {
        let mut connection = Connection::open(to, Version::HTTP_11).await?;
        connection.send(request(Method::GET, &format!("/{secret}"), &headers, "")).await
    })
}

/// Waits until a request succeeds: configuration comes to the proxies a moment after it was published.
fn reaches(from: &Netns, to: SocketAddr) -> Result<()> {
    let well = || from.block_on(get(to, "/")).is_ok_and(|reply| reply.status == StatusCode::OK);
    eventually(&format!("{to} answers"), || Ok(well()))
}

fn traffic_flows_both_ways_and_nothing_crosses_in_the_clear() -> Result<()> {
    let Some(program) = program() else { return Ok(()) };
    let mixed = Mixed::start(&program)?;
    let (web, zt) = (&mixed.mesh.pod("web").netns, &mixed.pod);
    let (to_zt, to_catalog) = (mixed.service("zt")?, mixed.service("catalog-v1")?);
    let capture = Capture::start(mixed.mesh.world.node(MACHINE), "eth0")?;
    reaches(web, to_zt)?;
    reaches(zt, to_catalog)?;

    let reply = ask(web, to_zt, "never-in-the-clear")?;
    ensure!(reply.status == StatusCode::OK && reply.echo()?.pod == "zt", "{reply:?}");
    mixed.ztunnel_says(&["inbound", &format!("src.identity=\"{WEB}\""), &format!("dst.identity=\"{ZT}\"")])?;
    mixed.weft_says("node-a", &[("reporter", "source"), ("source_identity", WEB), ("destination_identity", ZT)])?;

    let reply = ask(zt, to_catalog, "never-in-the-clear")?;
    ensure!(reply.status == StatusCode::OK, "{reply:?}");
    let echo = reply.echo()?;
    ensure!(echo.pod == "catalog-v1" && echo.peer.ip() == zt.ipv4(), "the application sees {}", echo.peer);
    mixed.ztunnel_says(&["outbound", &format!("src.identity=\"{ZT}\""), &format!("dst.identity=\"{CATALOG}\"")])?;
    mixed.weft_says("node-b", &[("reporter", "destination"), ("source_identity", ZT), ("reason", "ok")])?;

    let packets = capture.stop()?;
    let ports = packets.dialled_ports();
    ensure!(ports.contains(&15008) && !ports.contains(&80) && !ports.contains(&8080), "dialled: {ports:?}");
    packets.assert_no_plaintext(b"never-in-the-clear");
    Ok(())
}

fn policies_of_each_know_the_others_pods() -> Result<()> {
    let Some(program) = program() else { return Ok(()) };
    let mixed = Mixed::start(&program)?;
    let (zt, catalog) = (&mixed.pod, mixed.service("catalog-v1")?);
    reaches(zt, catalog)?;
    let file = mixed.mesh.manifests().join("50-not-zt.yaml");
    std::fs::write(&file, DENY)?;
    let denied = || zt.block_on(get(catalog, "/")).is_ok_and(|reply| reply.status == StatusCode::FORBIDDEN);
    eventually("the policy denies ztunnel's pod", || Ok(denied()))?;
    mixed.weft_says("node-b", &[("source_identity", ZT), ("reason", "policy_denied")])?;
    ensure!(mixed.mesh.pod("web").netns.block_on(get(catalog, "/"))?.status == StatusCode::OK, "web isn't meant");
    std::fs::remove_file(file)?;
    reaches(zt, catalog)?;

    // And the other way: ztunnel holds a policy against `nightly`.
    let to_zt = mixed.service("zt")?;
    reaches(&mixed.mesh.pod("web").netns, to_zt)?;
    let served = mixed.server.peers().len();
    let answer = mixed.mesh.pod("nightly").netns.block_on(get(to_zt, "/"))?;
    ensure!(answer.status == StatusCode::FORBIDDEN, "{answer:?}");
    mixed.weft_says("node-a", &[("source_identity", NIGHTLY), ("reason", "policy_denied")])?;
    mixed.ztunnel_says(&["inbound", &format!("src.identity=\"{NIGHTLY}\""), "error="])?;
    ensure!(mixed.server.peers().len() == served, "a refused request reached the application");
    Ok(())
}

fn weft_refuses_a_ztunnel_that_is_somebody_else() -> Result<()> {
    let Some(program) = program() else { return Ok(()) };
    let mixed = Mixed::start(&program)?;
    let (web, to_zt) = (&mixed.mesh.pod("web").netns, mixed.service("zt")?);
    reaches(web, to_zt)?;
    let (from, to) = ("serviceAccountName: zt", "serviceAccountName: other");
    mixed.mesh.edit(MANIFEST, from, to)?;
    eventually("ztunnel's certificate isn't the pod's any more", || {
        Ok(web.block_on(get(to_zt, "/"))?.status != StatusCode::OK)
    })?;
    mixed.weft_says("node-a", &[("destination_identity", OTHER), ("reason", "peer_identity")])?;
    let served = mixed.server.peers().len();
    for _ in 0..5 {
        let reply = web.block_on(get(to_zt, "/"))?;
        ensure!(reply.status == StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
    }
    ensure!(mixed.server.peers().len() == served, "a refused request reached the application");
    mixed.mesh.edit(MANIFEST, to, from)?;
    reaches(web, to_zt)
}

fn ztunnel_refuses_a_weft_that_is_somebody_else() -> Result<()> {
    let Some(program) = program() else { return Ok(()) };
    let mixed = Mixed::start(&program)?;
    let zt = &mixed.pod;
    reaches(zt, mixed.service("catalog-v1")?)?;
    let catalog = mixed.mesh.pod("catalog-v2").server.as_ref();
    let served = || catalog.map_or(usize::MAX, |server| server.peers().len());
    let before = served();
    let answer = zt.block_on(get(mixed.service("catalog-v2")?, "/"));
    ensure!(answer.is_err(), "ztunnel let it pass: {answer:?}");
    mixed.ztunnel_says(&["outbound", "identity verification error", "somebody-else", CATALOG])?;
    ensure!(served() == before, "a refused request reached the application");
    Ok(())
}
