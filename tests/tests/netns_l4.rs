//! L4 through real packets: two nodes, pods in namespaces, redirection, tunnels, and a capture on the wire between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use support::{Event, Mesh, SOON, ips, open, upsert};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_core::change::{Change, MeshConfig, Resource};
use weft_core::ids::{PolicyKey, Port, ServiceKey};
use weft_core::policy::{
    Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, MeshPolicy, Mode, Scope, Source, WorkloadLimits,
};
use weft_core::reason::Reason;
use weft_core::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, EndpointSlice, Service, ServiceKind, ServicePort, SliceKey,
    SlicePort, TrafficDistribution,
};
use weft_node_proxy::observe::HandshakeRole;
use weft_testkit::Pod;
use weft_testkit::capture::{Capture, RecordType};
use weft_testkit::clients as tcp;
use weft_testkit::servers::{self, Behaviour};

const SECRET: &[u8] = b"the secret that must not be on the wire";

weft_testkit::netns_tests! {
    between_nodes_everything_is_mutual_tls,
    over_ipv6_too,
    on_one_node_pods_meet_in_memory,
    force_wire_sends_one_node_through_the_tunnel,
    a_server_may_speak_first,
    half_close_is_kept_both_ways,
    bulk_arrives_whole,
    strict_refuses_plaintext,
    permissive_takes_plaintext_and_keeps_the_source,
    what_is_not_ours_passes,
    a_policy_that_denies_closes_open_connections,
    a_root_that_goes_closes_open_connections,
    without_a_proxy_connections_are_refused,
    an_unknown_cluster_address_is_refused_after_a_second,
    a_pod_that_dials_the_proxy_gets_nowhere,
    a_service_is_balanced_over_endpoints_that_answer,
    session_affinity_holds_for_connections,
    a_tunnel_leads_to_its_own_pod_only,
    a_panic_ends_one_connection_only,
    a_pod_that_goes_leaves_no_connection_behind,
}

fn between_nodes_everything_is_mutual_tls() -> Result<()> {
    let mesh = Mesh::of(&["a", "c"])?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    let capture = Capture::start(mesh.world.node("n1"), "eth0")?;
    let answer = a.block_on(tcp::exchange(c.addr(7000), SECRET))?;
    ensure!(answer == SECRET, "echoed {answer:?}");
    let packets = capture.stop()?;
    packets.assert_no_plaintext(SECRET);
    ensure!(packets.dialled_ports().into_iter().eq([15008]), "dialled {:?}", packets.dialled_ports());
    let flow = packets.flows().into_iter().find(|flow| flow.from().ip() == a.ipv4() && flow.to().port() == 15008);
    let records = flow.context("a's tunnel")?.tls_records();
    ensure!(records.iter().any(|(kind, _)| *kind == RecordType::ApplicationData), "{records:?}");
    ensure!(ips(&server.peers()) == [a.ipv4()], "c saw {:?}", server.peers());
    let inbound = mesh.proxy_of("c").events.wait("closed at c", |e| matches!(e, Event::Closed(..)))?;
    let Event::Closed(connection, ended) = inbound else { unreachable!() };
    ensure!(connection.identity == Some(Mesh::identity("a")) && connection.transport == "hbone", "{connection:?}");
    ensure!((ended.received, ended.sent, ended.reason) == (39, 39, Reason::Ok), "{ended:?}");
    for (pod, role) in [("a", HandshakeRole::Client), ("c", HandshakeRole::Server)] {
        let shaken =
            |e: &Event| matches!(e, Event::Handshake(uid, r, Reason::Ok) if *uid == Mesh::uid(pod) && *r == role);
        mesh.proxy_of(pod).events.wait("a handshake", shaken)?;
    }
    Ok(())
}

fn over_ipv6_too() -> Result<()> {
    let mesh = Mesh::of(&["a", "c"])?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    let capture = Capture::start(mesh.world.node("n1"), "eth0")?;
    ensure!(a.block_on(tcp::exchange(c.addr6(7000), SECRET))? == SECRET);
    let packets = capture.stop()?;
    packets.assert_no_plaintext(SECRET);
    ensure!(packets.dialled_ports().into_iter().eq([15008]), "dialled {:?}", packets.dialled_ports());
    ensure!(ips(&server.peers()) == [a.ipv6()], "c saw {:?}", server.peers());
    Ok(())
}

fn on_one_node_pods_meet_in_memory() -> Result<()> {
    let mesh = Mesh::of(&["a", "b"])?;
    let (a, b) = (mesh.pod("a"), mesh.pod("b"));
    let server = servers::tcp(&b, "b", servers::any(7000), Behaviour::Echo)?;
    let capture = Capture::start(&b, "eth0")?;
    for addr in [b.addr(7000), b.addr6(7000)] {
        ensure!(a.block_on(tcp::exchange(addr, SECRET))? == SECRET);
    }
    ensure!(capture.stop()?.flows().is_empty(), "nothing crosses b's interface");
    ensure!(ips(&server.peers()) == a.ips(), "b saw {:?}", server.peers());
    let inbound = |e: &Event| matches!(e, Event::Closed(c, _) if c.workload.uid == Mesh::uid("b"));
    let Event::Closed(connection, ended) = mesh.proxy_of("b").events.wait("closed at b", inbound)? else {
        unreachable!()
    };
    ensure!(connection.identity == Some(Mesh::identity("a")) && connection.transport == "local", "{connection:?}");
    ensure!((ended.received, ended.sent, ended.reason) == (39, 39, Reason::Ok), "{ended:?}");
    Ok(())
}

fn force_wire_sends_one_node_through_the_tunnel() -> Result<()> {
    let mesh = Mesh::of(&["a", "b"])?;
    let config = MeshConfig { force_wire: true, ..MeshConfig::default() };
    mesh.apply(&[upsert(Resource::Mesh(Arc::new(config)))]);
    let (a, b) = (mesh.pod("a"), mesh.pod("b"));
    let server = servers::tcp(&b, "b", servers::any(7000), Behaviour::Echo)?;
    let capture = Capture::start(&b, "eth0")?;
    ensure!(a.block_on(tcp::exchange(b.addr(7000), SECRET))? == SECRET);
    let packets = capture.stop()?;
    packets.assert_no_plaintext(SECRET);
    ensure!(packets.dialled_ports().into_iter().eq([15008]), "dialled {:?}", packets.dialled_ports());
    ensure!(ips(&server.peers()) == [a.ipv4()], "b saw {:?}", server.peers());
    Ok(())
}

fn a_server_may_speak_first() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c"])?;
    for name in ["b", "c"] {
        let _server = servers::tcp(&mesh.pod(name), name, servers::any(25), Behaviour::Banner)?;
        let banner = mesh.pod("a").block_on(tcp::banner(mesh.pod(name).addr(25)))?;
        ensure!(banner == format!("220 {name}"), "{banner}");
    }
    Ok(())
}

fn half_close_is_kept_both_ways() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c"])?;
    for name in ["b", "c"] {
        let to = mesh.pod(name);
        let _sink = servers::tcp(&to, name, servers::any(7001), Behaviour::Sink)?;
        let verdict = mesh.pod("a").block_on(tcp::push(to.addr(7001), 300_000))?;
        ensure!(verdict == format!("{name} 300000 ok"), "{verdict}");
    }
    Ok(())
}

fn bulk_arrives_whole() -> Result<()> {
    const COUNT: u64 = 64 << 20;
    let mesh = Mesh::of(&["a", "b", "c"])?;
    for name in ["b", "c"] {
        let to = mesh.pod(name);
        let _source = servers::tcp(&to, name, servers::any(7002), Behaviour::Source)?;
        let check = mesh.pod("a").block_on(tcp::pull(to.addr(7002), COUNT))?;
        ensure!(check.seen() == COUNT && check.wrong_at().is_none(), "{check:?}");
    }
    Ok(())
}

fn strict() -> Resource {
    Resource::MeshPolicy(Arc::new(MeshPolicy {
        key: PolicyKey::new("weft-system", "strict"),
        scope: Scope::Mesh,
        created_unix_seconds: 0,
        mode: Some(Mode::Strict),
        port_modes: Vec::new(),
        enforced: false,
        limits: WorkloadLimits::default(),
    }))
}

fn strict_refuses_plaintext() -> Result<()> {
    let mesh = Mesh::of(&["c"])?;
    mesh.apply(&[upsert(strict())]);
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    let failed = a.block_on(tcp::exchange(c.addr(7000), SECRET));
    ensure!(failed.is_err(), "answered {failed:?}");
    let refused = |e: &Event| matches!(e, Event::Refused(_, Reason::PlaintextRefused));
    mesh.proxy_of("c").events.wait("plaintext_refused", refused)?;
    ensure!(server.peers().is_empty(), "the application saw {:?}", server.peers());
    Ok(())
}

fn permissive_takes_plaintext_and_keeps_the_source() -> Result<()> {
    let mesh = Mesh::of(&["c"])?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    for addr in [c.addr(7000), c.addr6(7000)] {
        ensure!(a.block_on(tcp::exchange(addr, SECRET))? == SECRET);
    }
    ensure!(ips(&server.peers()) == a.ips(), "c saw {:?}", server.peers());
    let plaintext = |e: &Event| matches!(e, Event::Closed(c, _) if c.transport == "plaintext" && c.identity.is_none());
    mesh.proxy_of("c").events.wait("a plaintext connection", plaintext)?;
    Ok(())
}

fn what_is_not_ours_passes() -> Result<()> {
    let mesh = Mesh::of(&["a"])?;
    let (a, d) = (mesh.pod("a"), mesh.pod("d"));
    let server = servers::tcp(&d, "d", servers::any(7000), Behaviour::Echo)?;
    for addr in [d.addr(7000), d.addr6(7000)] {
        ensure!(a.block_on(tcp::exchange(addr, SECRET))? == SECRET);
    }
    ensure!(ips(&server.peers()) == a.ips(), "d saw {:?}", server.peers());
    let passed = |e: &Event| matches!(e, Event::Closed(c, _) if c.transport == "passthrough");
    mesh.proxy_of("a").events.wait("a passthrough connection", passed)?;
    Ok(())
}

fn deny(identity: &str) -> Resource {
    let source = Source { identities: vec![GlobMatch::new(identity)], ..Source::default() };
    Resource::Authorization(Arc::new(AuthorizationPolicy {
        key: PolicyKey::new("shop", "deny"),
        scope: Scope::Namespace("shop".into()),
        action: Action::Deny,
        dry_run: false,
        rules: vec![AuthorizationRule { from: vec![source], to: Vec::new() }],
    }))
}

/// The time until an open connection is reset.
async fn until_reset(mut stream: tokio::net::TcpStream) -> Result<std::time::Duration> {
    let since = std::time::Instant::now();
    let read = tokio::time::timeout(SOON, stream.read_u8()).await.context("still open")?;
    let error = read.err().context("bytes came")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
    Ok(since.elapsed())
}

fn a_policy_that_denies_closes_open_connections() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c"])?;
    let targets = [mesh.pod("b").addr(7000), mesh.pod("c").addr(7000)];
    let _servers = (
        servers::tcp(&mesh.pod("b"), "b", servers::any(7000), Behaviour::Echo)?,
        servers::tcp(&mesh.pod("c"), "c", servers::any(7000), Behaviour::Echo)?,
    );
    mesh.pod("a").block_on(async {
        let (to_b, to_c) = (open(targets[0]).await?, open(targets[1]).await?);
        // Another identity's policy leaves them alone.
        mesh.apply(&[upsert(deny("cluster.local/ns/shop/sa/b"))]);
        mesh.apply(&[upsert(deny("cluster.local/ns/shop/sa/a"))]);
        for stream in [to_b, to_c] {
            let took = until_reset(stream).await?;
            ensure!(took.as_secs() < 1, "took {took:?}");
        }
        for target in targets {
            ensure!(open(target).await.is_err(), "{target} is still open to new connections");
        }
        Ok(())
    })?;
    for pod in ["b", "c"] {
        let revoked = |e: &Event| matches!(e, Event::Closed(c, ended) if c.workload.uid == Mesh::uid(pod) && ended.reason == Reason::PolicyRevoked);
        mesh.proxy_of(pod).events.wait("policy_revoked", revoked)?;
        let denied =
            |e: &Event| matches!(e, Event::Refused(c, Reason::PolicyDenied) if c.workload.uid == Mesh::uid(pod));
        mesh.proxy_of(pod).events.wait("policy_denied", denied)?;
    }
    Ok(())
}

fn a_root_that_goes_closes_open_connections() -> Result<()> {
    // Whichever end it is that no longer trusts the other.
    for end in ["c", "a"] {
        let mesh = Mesh::of(&["a", "c"])?;
        let target = mesh.pod("c").addr(7000);
        let _server = servers::tcp(&mesh.pod("c"), "c", servers::any(7000), Behaviour::Echo)?;
        mesh.pod("a").block_on(async {
            let stream = open(target).await?;
            mesh.proxy_of(end).trust.update(support::Authority::new()?.bundle()?)?;
            let took = until_reset(stream).await?;
            ensure!(took.as_secs() < 1, "took {took:?}");
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

fn without_a_proxy_connections_are_refused() -> Result<()> {
    let mut mesh = Mesh::of(&["a", "c"])?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    let capture = Capture::start(mesh.world.node("n1"), "eth0")?;
    ensure!(a.block_on(tcp::exchange(c.addr(7000), SECRET))? == SECRET);
    mesh.kill("n1")?;
    let failed = a.block_on(tcp::exchange(c.addr(7000), SECRET));
    ensure!(failed.is_err(), "answered {failed:?}");
    let packets = capture.stop()?;
    packets.assert_no_plaintext(SECRET);
    ensure!(packets.dialled_ports().into_iter().eq([15008]), "dialled {:?}", packets.dialled_ports());
    ensure!(server.peers().len() == 1, "c saw {:?}", server.peers());
    Ok(())
}

fn a_pod_that_goes_leaves_no_connection_behind() -> Result<()> {
    let mesh = Mesh::of(&["a", "c"])?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let _server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    ensure!(a.block_on(tcp::exchange(c.addr(7000), SECRET))? == SECRET);
    let proxy = mesh.proxy_of("c");
    let open = || proxy.workers.as_ref().map_or(0, weft_node_proxy::worker::Workers::connections);
    ensure!(open() > 0, "the tunnel is kept for the next connection");
    let (announced, _netns) = mesh.announcement("c")?;
    proxy.control.block_on(proxy.manager.remove(&announced.sandbox));
    proxy.events.until("no connection is left", || open() == 0)
}

fn an_unknown_cluster_address_is_refused_after_a_second() -> Result<()> {
    let mesh = Mesh::of(&["a"])?;
    mesh.pod("a").block_on(async {
        let stream = tcp::connect("10.96.77.77:80".parse()?).await?;
        let took = until_reset(stream).await?;
        ensure!((0.9..2.0).contains(&took.as_secs_f64()), "took {took:?}");
        anyhow::Ok(())
    })?;
    let unknown = |e: &Event| matches!(e, Event::Refused(_, Reason::UnknownDestination));
    mesh.proxy_of("a").events.wait("unknown_destination", unknown)?;
    Ok(())
}

fn a_pod_that_dials_the_proxy_gets_nowhere() -> Result<()> {
    let mesh = Mesh::of(&["a", "c"])?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    for addr in ["127.0.0.1:15001".parse()?, a.addr(15001), c.addr(15001), c.addr(15006), c.addr(15008)] {
        let failed = a.block_on(tcp::exchange(addr, SECRET));
        ensure!(failed.is_err(), "{addr} answered {failed:?}");
    }
    mesh.proxy_of("a").events.wait("loop", |e| matches!(e, Event::Refused(_, Reason::Loop)))?;
    Ok(())
}

/// A Service on 10.96.0.10 port 80 with endpoints on port 7000.
fn service(protocol: AppProtocol, endpoints: &[&Pod]) -> Vec<Change> {
    let key = ServiceKey::new("shop", "web");
    let port = |port| Port::new(port).unwrap();
    let service = Service {
        key: key.clone(),
        addresses: vec!["10.96.0.10".parse().unwrap()],
        ports: vec![ServicePort { name: "p".into(), port: port(80), protocol }],
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::default(),
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::default(),
        traffic: None,
    };
    let endpoint = |pod: &&Pod| Endpoint {
        address: pod.ipv4().into(),
        workload: Some(Mesh::uid(pod.pod_name())),
        health: EndpointHealth::Ready,
        node: Some(pod.node_name().into()),
        zone: None,
    };
    let slice = EndpointSlice {
        key: SliceKey { namespace: "shop".into(), name: "web-1".into() },
        service: key,
        ports: vec![SlicePort { name: "p".into(), port: port(7000) }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    vec![upsert(Resource::Service(Arc::new(service))), upsert(Resource::EndpointSlice(Arc::new(slice)))]
}

fn a_service_is_balanced_over_endpoints_that_answer() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c", "d"])?;
    let pods = ["b", "c", "d"].map(|name| mesh.pod(name));
    mesh.apply(&service(AppProtocol::Tcp, &[&pods[0], &pods[1], &pods[2]]));
    // d is an endpoint too, but nothing listens there: its turns go to the others.
    let running = [
        servers::tcp(&pods[0], "b", servers::any(7000), Behaviour::Banner)?,
        servers::tcp(&pods[1], "c", servers::any(7000), Behaviour::Banner)?,
    ];
    let web = "10.96.0.10:80".parse()?;
    for _ in 0..24 {
        mesh.pod("a").block_on(tcp::banner(web))?;
    }
    let counts = running.each_ref().map(|server| server.peers().len());
    ensure!(counts.iter().sum::<usize>() == 24 && counts.iter().all(|n| *n > 3), "{counts:?}");
    ensure!(running.iter().all(|server| ips(&server.peers()).iter().all(|ip| *ip == mesh.pod("a").ipv4())));
    Ok(())
}

fn session_affinity_holds_for_connections() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c", "d"])?;
    let pods = ["b", "c", "d"].map(|name| mesh.pod(name));
    let mut changes = service(AppProtocol::Tcp, &[&pods[0], &pods[1], &pods[2]]);
    let Change::Upsert(Resource::Service(web)) = &mut changes[0] else { unreachable!() };
    Arc::make_mut(web).client_ip_affinity = Some(std::time::Duration::from_secs(600));
    mesh.apply(&changes);
    let mut servers = Vec::new();
    for pod in &pods {
        servers.push(servers::tcp(pod, pod.pod_name(), servers::any(7000), Behaviour::Banner)?);
    }
    for _ in 0..12 {
        mesh.pod("a").block_on(tcp::banner("10.96.0.10:80".parse()?))?;
    }
    let counts: Vec<_> = servers.iter().map(|server| server.peers().len()).collect();
    ensure!(counts.iter().filter(|n| **n == 12).count() == 1, "{counts:?}");
    Ok(())
}

/// A peer with a good certificate asks the proxy of `c` for a stream to somewhere else.
fn a_tunnel_leads_to_its_own_pod_only() -> Result<()> {
    let mesh = Mesh::of(&["a", "c"])?;
    let (a, c, d) = (mesh.pod("a"), mesh.pod("c"), mesh.pod("d"));
    let server = servers::tcp(&d, "d", servers::any(7000), Behaviour::Echo)?;
    let svid = mesh.authority.issue(&Mesh::identity("a"))?;
    let trust = weft_tls::TrustStore::new(mesh.authority.bundle()?);
    let store = weft_tls::CertStore::new(trust, weft_tls::Clock::system(), weft_tls::TlsSettings::default());
    store.install(svid);
    // From the node's own namespace, where nothing is redirected.
    let asks = [d.addr(7000), c.addr(15001), c.addr(15006), c.addr(15008), "127.0.0.1:7000".parse()?];
    let statuses = mesh.world.node(a.node_name()).block_on(async {
        let client = weft_tls::ClientTls::for_identity(&store, &Mesh::identity("a"))?;
        let tcp = tcp::connect(c.addr(15008)).await?;
        let expected = weft_tls::ExpectedPeer::one(Mesh::identity("c"));
        let (tls, _) = client.connect(tcp, c.ipv4().into(), &expected).await?;
        let (mut h2, connection) = h2::client::handshake(tls).await?;
        tokio::spawn(connection);
        let mut statuses = Vec::new();
        for ask in asks {
            let uri = http::Uri::builder().authority(ask.to_string()).build()?;
            let mut request = http::Request::new(());
            *request.method_mut() = http::Method::CONNECT;
            *request.uri_mut() = uri;
            let (answer, _stream) = h2.send_request(request, false)?;
            statuses.push(answer.await?.status().as_u16());
        }
        anyhow::Ok(statuses)
    })?;
    ensure!(statuses == [421, 400, 400, 400, 421], "{statuses:?}");
    ensure!(server.peers().is_empty(), "d saw {:?}", server.peers());
    Ok(())
}

fn a_panic_ends_one_connection_only() -> Result<()> {
    // The HTTP engine of these tests panics when it is asked for anything.
    let mesh = Mesh::of(&["a", "b"])?;
    let b = mesh.pod("b");
    mesh.apply(&service(AppProtocol::Http, &[&b]));
    let _server = servers::tcp(&b, "b", servers::any(7000), Behaviour::Echo)?;
    mesh.pod("a").block_on(async {
        let mut before = open(b.addr(7000)).await?;
        ensure!(tcp::exchange("10.96.0.10:80".parse()?, SECRET).await.map_or(true, |answer| answer.is_empty()));
        before.write_all(b"y").await?;
        ensure!(before.read_u8().await? == b'y', "the connection beside it");
        drop(open(b.addr(7000)).await?);
        anyhow::Ok(())
    })?;
    let panicked = |e: &Event| matches!(e, Event::Panicked(uid) if *uid == Mesh::uid("a"));
    mesh.proxy_of("a").events.wait("panicked", panicked)?;
    Ok(())
}
