//! The kubelet's probes of a Strict pod through real packets, and who else has the node's address.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use support::{Event, Mesh, SOON, upsert};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_core::change::Resource;
use weft_core::ids::{PolicyKey, Port};
use weft_core::policy::{
    Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, MeshPolicy, Mode, Scope, Source, WorkloadLimits,
};
use weft_core::reason::Reason;
use weft_core::workload::{Probe, ProbeCall, Workload};
use weft_testkit::clients::{self as tcp, Connection};
use weft_testkit::servers::{self, Behaviour};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const SECRET: &[u8] = b"what only the mesh may say";

weft_testkit::netns_tests! {
    probes_pass_and_other_clients_of_the_nodes_address_do_not,
    a_tcp_probe_reaches_nothing_but_its_answer,
    tls_passes_where_a_probe_over_tls_is_declared,
    a_denied_node_is_denied_its_probes,
}

/// A mesh whose pod `c` is Strict, is for callers that aren't there, and declares probes.
fn mesh() -> Result<Mesh> {
    let mesh = Mesh::with_node_addresses(&["c"])?;
    let probe = |port, call| Probe { port: Port::new(port).unwrap(), call };
    let probes = vec![
        probe(8080, ProbeCall::Http { target: "/healthz?full=1".into() }),
        probe(8080, ProbeCall::Grpc { service: String::new() }),
        probe(7000, ProbeCall::Tcp),
        probe(8443, ProbeCall::Https),
    ];
    let strict = MeshPolicy {
        key: PolicyKey::new("weft-system", "strict"),
        scope: Scope::Mesh,
        created_unix_seconds: 0,
        mode: Some(Mode::Strict),
        port_modes: Vec::new(),
        enforced: false,
        limits: WorkloadLimits::default(),
    };
    let source = Source { identities: vec![GlobMatch::new("cluster.local/ns/shop/sa/nobody")], ..Source::default() };
    mesh.apply(&[
        upsert(Resource::Workload(Arc::new(Workload { probes, ..mesh.workload("c", true) }))),
        upsert(Resource::MeshPolicy(Arc::new(strict))),
        upsert(policy(Action::Allow, source)),
    ]);
    Ok(mesh)
}

fn policy(action: Action, source: Source) -> Resource {
    Resource::Authorization(Arc::new(AuthorizationPolicy {
        key: PolicyKey::new("shop", format!("{action:?}").to_lowercase()),
        scope: Scope::Namespace("shop".into()),
        action,
        dry_run: false,
        rules: vec![AuthorizationRule { from: vec![source], to: Vec::new() }],
    }))
}

fn probes_pass_and_other_clients_of_the_nodes_address_do_not() -> Result<()> {
    let mesh = mesh()?;
    let (a, c, d) = (mesh.pod("a"), mesh.pod("c"), mesh.pod("d"));
    let server = servers::http(&c, "c", servers::any(8080))?;
    let (node, other) = (mesh.world.node("n2"), mesh.world.node("n1"));
    let target = c.addr(8080);
    node.block_on(async {
        let reply = tcp::get(target, "/healthz?full=1").await?;
        ensure!(reply.status == 200, "{reply:?}");
        let reply = tcp::Grpc::connect(target).await?.unary(CHECK, &[], b"").await?;
        ensure!(reply.status == 0, "{reply:?}");
        anyhow::Ok(())
    })?;
    ensure!(server.peers().len() == 2 && server.peers().iter().all(|peer| peer.ip() == node_address()), "{server:?}");
    // A client of a NodePort, masqueraded, and a pod on the node's network look the same as the kubelet.
    node.block_on(async {
        for path in ["/", "/healthz", "/admin?full=1"] {
            let reply = tcp::get(target, path).await?;
            ensure!(reply.status == 403 && reply.body.starts_with(b"request "), "{path}: {reply:?}");
        }
        let posted = tcp::request(http::Method::POST, "/healthz?full=1", &[], "x");
        let reply = Connection::open(target, http::Version::HTTP_11).await?.send(posted).await?;
        ensure!(reply.status == 403, "{reply:?}");
        let reply = tcp::Grpc::connect(target).await?.unary("/shop.Cart/Empty", &[], b"").await?;
        ensure!(reply.status == 7, "{reply:?}");
        ensure!(tcp::exchange(target, SECRET).await.map_or(true, |answer| !contains(&answer, SECRET)));
        // A port for which nothing is declared.
        ensure!(tcp::exchange(c.addr(9000), SECRET).await.is_err());
        anyhow::Ok(())
    })?;
    for (who, answer) in [
        ("a pod of the node", d.block_on(tcp::get(target, "/healthz?full=1"))),
        ("a pod of another node", a.block_on(tcp::get(target, "/healthz?full=1"))),
        ("another node", other.block_on(tcp::get(target, "/healthz?full=1"))),
        ("another address of the node", node.block_on(tcp::get(c.addr6(8080), "/healthz?full=1"))),
    ] {
        ensure!(answer.is_err(), "{who} was answered {answer:?}");
    }
    ensure!(server.peers().len() == 2, "c saw {:?}", server.peers());
    let refused = |e: &Event| matches!(e, Event::Refused(c, Reason::PlaintextRefused) if c.transport == "node");
    mesh.proxy_of("c").events.wait("the port without a probe", refused)?;
    Ok(())
}

fn node_address() -> std::net::IpAddr {
    [10, 244, 2, 1].into()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn a_tcp_probe_reaches_nothing_but_its_answer() -> Result<()> {
    let mesh = mesh()?;
    let c = mesh.pod("c");
    // One that would speak first.
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Banner)?;
    let node = mesh.world.node("n2");
    node.block_on(async {
        drop(tcp::connect(c.addr(7000)).await?);
        anyhow::Ok(())
    })?;
    let probed =
        |e: &Event| matches!(e, Event::Closed(c, ended) if c.transport == "node" && ended.reason == Reason::Ok);
    mesh.proxy_of("c").events.wait("a probe", probed)?;
    node.block_on(async {
        let mut stream = tcp::connect(c.addr(7000)).await?;
        stream.write_all(b"x").await?;
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut heard)).await.context("it goes on")?;
        ensure!(ended.is_err() && heard.is_empty(), "heard {:?}", String::from_utf8_lossy(&heard));
        anyhow::Ok(())
    })?;
    ensure!(server.peers().is_empty(), "c saw {:?}", server.peers());
    Ok(())
}

fn tls_passes_where_a_probe_over_tls_is_declared() -> Result<()> {
    let mesh = mesh()?;
    let c = mesh.pod("c");
    let server = servers::tcp(&c, "c", servers::any(8443), Behaviour::Echo)?;
    let _http = servers::http(&c, "c", servers::any(8080))?;
    // The first byte of a TLS handshake, and of HTTP.
    let (hello, get) = (&b"\x16\x03\x01 and the rest"[..], &b"GET / HTTP/1.1\r\nhost: c\r\n\r\n"[..]);
    mesh.world.node("n2").block_on(async {
        ensure!(tcp::exchange(c.addr(8443), hello).await? == hello);
        let plain = tcp::exchange(c.addr(8443), get).await;
        ensure!(plain.is_err(), "{plain:?}");
        ensure!(tcp::exchange(c.addr(8080), hello).await.is_err(), "TLS where HTTP is declared");
        anyhow::Ok(())
    })?;
    ensure!(server.peers().len() == 1, "c saw {:?}", server.peers());
    Ok(())
}

fn a_denied_node_is_denied_its_probes() -> Result<()> {
    let mesh = mesh()?;
    let c = mesh.pod("c");
    let server = servers::http(&c, "c", servers::any(8080))?;
    let node = mesh.world.node("n2");
    ensure!(node.block_on(tcp::get(c.addr(8080), "/healthz?full=1"))?.status == 200);
    let source = Source { addresses: vec!["10.244.2.1/32".parse()?], ..Source::default() };
    mesh.apply(&[upsert(policy(Action::Deny, source))]);
    ensure!(node.block_on(tcp::get(c.addr(8080), "/healthz?full=1")).is_err(), "denied");
    ensure!(server.peers().len() == 1, "c saw {:?}", server.peers());
    Ok(())
}
