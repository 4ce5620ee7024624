//! What one pod may cost its node and its neighbours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use anyhow::{Context as _, Result, ensure};
use support::{Event, Mesh, SOON, open, upsert};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_core::change::Resource;
use weft_core::ids::PolicyKey;
use weft_core::policy::{MeshPolicy, Scope, WorkloadLimits};
use weft_core::reason::Reason;
use weft_core::workload::Workload;
use weft_node_proxy::inpod::ListenerRole;
use weft_testkit::clients as tcp;
use weft_testkit::servers::{self, Behaviour};

const PING: &[u8] = b"ping";

weft_testkit::netns_tests! {
    a_broken_listener_is_opened_anew,
    a_flood_of_connections_is_shed_at_the_limit_of_its_pod,
    a_flood_of_handshakes_at_one_pod_leaves_its_neighbour_alone,
}

fn a_broken_listener_is_opened_anew() -> Result<()> {
    let mesh = Mesh::of(&["c"])?;
    let c = mesh.pod("c").addr(7000);
    let _server = servers::tcp(&mesh.pod("c"), "c", servers::any(7000), Behaviour::Echo)?;
    for served in mesh.proxy_of("c").manager.served()? {
        for (role, listener) in &served.listeners {
            if *role == ListenerRole::InboundPlaintext {
                // A socket that was listening refuses to accept after this.
                socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Read)?;
            }
        }
    }
    let d = mesh.pod("d");
    let again = || {
        let exchange = async { tokio::time::timeout(SOON / 5, tcp::exchange(c, PING)).await };
        d.block_on(async { exchange.await.is_ok_and(|answer| answer.is_ok()) })
    };
    mesh.proxy_of("c").events.until("it listens again", again)?;
    let role = ListenerRole::InboundPlaintext;
    let reopened = |e: &Event| matches!(e, Event::Reopened(uid, r) if *uid == Mesh::uid("c") && *r == role);
    mesh.proxy_of("c").events.wait("reopened", reopened)?;
    Ok(())
}

fn a_flood_of_connections_is_shed_at_the_limit_of_its_pod() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c"])?;
    let policy = MeshPolicy {
        key: PolicyKey::new("shop", "three"),
        scope: Scope::Selected,
        created_unix_seconds: 0,
        mode: None,
        port_modes: Vec::new(),
        enforced: false,
        limits: WorkloadLimits { max_connections: Some(3), ..WorkloadLimits::default() },
    };
    let workload = Workload { policies: vec![policy.key.clone()], ..mesh.workload("a", true) };
    mesh.apply(&[upsert(Resource::MeshPolicy(Arc::new(policy))), upsert(Resource::Workload(Arc::new(workload)))]);
    let c = mesh.pod("c").addr(7000);
    let _server = servers::tcp(&mesh.pod("c"), "c", servers::any(7000), Behaviour::Echo)?;
    let limited = || mesh.proxy_of("a").manager.pods().iter().any(|p| p.budget.usage().max_connections == 3);
    mesh.proxy_of("a").events.until("the limit", limited)?;
    let held = mesh.pod("a").block_on(async {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(open(c).await?);
        }
        ensure!(open(c).await.is_err(), "one too many");
        anyhow::Ok(held)
    })?;
    let shed = |e: &Event| matches!(e, Event::Shed(uid, Reason::LimitConnections) if *uid == Mesh::uid("a"));
    mesh.proxy_of("a").events.wait("limit_connections", shed)?;
    mesh.pod("b").block_on(open(c)).context("the neighbour")?;
    drop(held);
    let free = || mesh.proxy_of("a").manager.pods().iter().all(|p| p.budget.usage().connections == 0);
    mesh.proxy_of("a").events.until("connections given back", free)?;
    mesh.pod("a").block_on(open(c)).context("once there is room again")?;
    Ok(())
}

/// The first bytes that a client of `to` sends: all that a flood needs, over and over.
async fn client_hello(mesh: &Mesh, to: &str) -> Result<Vec<u8>> {
    let store = weft_tls::CertStore::new(
        weft_tls::TrustStore::new(mesh.authority.bundle()?),
        weft_tls::Clock::system(),
        weft_tls::TlsSettings::default(),
    );
    store.install(mesh.authority.issue(&Mesh::identity("a"))?);
    let client = weft_tls::ClientTls::for_identity(&store, &Mesh::identity("a"))?;
    let (near, mut far) = tokio::io::duplex(16 << 10);
    let expected = weft_tls::ExpectedPeer::one(Mesh::identity(to));
    let ip = mesh.pod(to).ipv4().into();
    let dialling = tokio::spawn(async move { client.connect(near, ip, &expected).await.map(drop) });
    let mut hello = vec![0; 5];
    far.read_exact(&mut hello).await?;
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + length, 0);
    far.read_exact(&mut hello[5..]).await?;
    dialling.abort();
    Ok(hello)
}

/// Makes the proxy of `to` do the costly half of `burst` handshakes ten times a second, each for a peer that then
/// leaves.
async fn flood(to: std::net::SocketAddr, hello: Vec<u8>, burst: usize, stop: Arc<AtomicBool>) -> u32 {
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    let answered = Arc::new(AtomicU32::new(0));
    while !stop.load(Relaxed) {
        pace.tick().await;
        for (hello, answered) in std::iter::repeat_n((hello.clone(), Arc::clone(&answered)), burst) {
            tokio::spawn(async move {
                let mut stream = tcp::connect(to).await?;
                stream.write_all(&hello).await?;
                // The server's whole flight follows its first byte.
                tokio::time::timeout(SOON, stream.read_u8()).await??;
                answered.fetch_add(1, Relaxed);
                anyhow::Ok(())
            });
        }
    }
    answered.load(Relaxed)
}

/// Round trips through the mesh for some time: their 50th and 99th percentile, in microseconds.
async fn round_trips(to: std::net::SocketAddr, lasting: std::time::Duration) -> Result<(u64, u64)> {
    let mut stream = open(to).await?;
    let mut times = Vec::new();
    let since = std::time::Instant::now();
    while since.elapsed() < lasting {
        let sent = std::time::Instant::now();
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut [0; 4]).await?;
        times.push(sent.elapsed().as_micros() as u64);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    times.sort_unstable();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

fn a_flood_of_handshakes_at_one_pod_leaves_its_neighbour_alone() -> Result<()> {
    let mesh = Mesh::of(&["a", "c", "d"])?;
    let _server = servers::tcp(&mesh.pod("d"), "d", servers::any(7000), Behaviour::Echo)?;
    let hello = mesh.world.node("n1").block_on(client_hello(&mesh, "c"))?;
    neighbour_under_flood(&mesh, &hello)
}

/// Of the neighbour's time under the flood, what the machine costs by itself in the same seconds is seen at a control: the
/// same round trips on the node, without the mesh.
fn neighbour_under_flood(mesh: &Mesh, hello: &[u8]) -> Result<()> {
    const LASTING: std::time::Duration = std::time::Duration::from_secs(2);
    let node = mesh.world.node("n1");
    let beside = std::net::SocketAddr::from((node.ipv4(), 7001));
    let _control = servers::tcp(node, "control", servers::any(7001), Behaviour::Echo)?;
    let (victim, neighbour) = (mesh.pod("c").addr(15008), mesh.pod("d").addr(7000));
    let measure = || {
        let node = node.clone();
        let control = std::thread::spawn(move || node.block_on(round_trips(beside, LASTING)));
        let measured = mesh.pod("a").block_on(round_trips(neighbour, LASTING))?;
        anyhow::Ok((measured, control.join().expect("the control")?))
    };
    let (quiet, _) = measure()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = std::thread::spawn({
        let (stop, node, hello) = (Arc::clone(&stop), node.clone(), hello.to_vec());
        move || node.block_on(flood(victim, hello, 60, stop))
    });
    let loud = measure();
    stop.store(true, Relaxed);
    let answered = flooding.join().expect("the flood");
    let (loud, control) = loud?;
    let rate = f64::from(answered) / LASTING.as_secs_f64();
    println!("p50 and p99 in us: quiet {quiet:?}, under {rate:.0} handshakes/s {loud:?}, beside the mesh {control:?}");
    ensure!(rate > 300.0, "only {rate} handshakes/s: no flood");
    let most = (2 * quiet.1).max(quiet.1 + 3000) + control.1;
    ensure!(loud.1 < most, "p99 from {} to {} us, {} beside the mesh", quiet.1, loud.1, control.1);
    Ok(())
}
