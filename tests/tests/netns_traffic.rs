//! Traffic of every kind through two nodes of a mesh, while it is edited, replaced and killed: nothing breaks, nothing
//! leaks.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::{Method, Version};
use http_body_util::BodyExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use weft_testkit::clients::{Connection, Grpc, Load, banner, connect, exchange, pull, push, request, websocket};
use weft_testkit::servers::{Behaviour, any, http, tcp, udp_echo};
use weft_testkit::websocket::{Opcode, Role, read, write};
use weft_testkit::{Capture, netns_tests};
use weft_tests::{Flood, chatter, echoes, eventually, shop};

netns_tests! {
    streams_of_every_kind,
    bulk_and_many_connections,
    edits_under_load_fail_nothing,
    a_proxy_replaced_under_load_breaks_nothing,
    a_killed_proxy_leaks_nothing_and_comes_back,
    a_flood_at_one_pod_leaves_its_neighbour_alone,
}

/// How much is sent each way: all of it with `WEFT_FULL` set, an eighth otherwise.
fn bulk() -> u64 {
    let whole = 1 << 30;
    if std::env::var_os("WEFT_FULL").is_some() { whole } else { whole / 8 }
}

fn streams_of_every_kind() -> Result<()> {
    let mesh = shop(&[])?;
    let web = &mesh.pod("web").netns;
    web.block_on(grpc_both_ways(mesh.service("shop/payments", 9000)?)).context("gRPC")?;
    let catalog = mesh.service("shop/catalog", 80)?;
    web.block_on(web_socket(catalog)).context("WebSocket")?;
    web.block_on(server_sent_events(catalog)).context("server-sent events")?;
    ensure!(web.block_on(banner(mesh.service("shop/ledger", 5432)?))? == "220 ledger", "a server speaks first");

    let v6 = mesh.status("node-a")?["services"].as_array().context("services")?.iter().find_map(|service| {
        let v6 = |a: &serde_json::Value| a.as_str()?.parse::<std::net::Ipv6Addr>().ok();
        (service["name"] == "shop/catalog").then(|| service["addresses"].as_array()?.iter().find_map(v6))?
    });
    let v6 = SocketAddr::from((v6.context("catalog has no IPv6 address")?, 80));
    let echo = web.block_on(weft_testkit::clients::get(v6, "/"))?.echo()?;
    ensure!(echo.pod.starts_with("catalog-") && mesh.pod("web").ips.contains(&echo.peer.ip()), "{echo:?}");
    let direct = mesh.pod("catalog-v1").ips.iter().find(|ip| ip.is_ipv6()).copied().context("no IPv6 address")?;
    let echo = web.block_on(weft_testkit::clients::get((direct, 8080).into(), "/"))?.echo()?;
    ensure!(echo.peer.is_ipv6() && mesh.pod("web").ips.contains(&echo.peer.ip()), "{echo:?}");

    // Outside: as without a mesh, with the pod's own address.
    let outside = http(mesh.world.wire(), "outside", any(8080))?;
    let _datagrams = udp_echo(mesh.world.wire(), "outside", any(5353))?;
    let wire = mesh.wire_address()?;
    let echo = web.block_on(weft_testkit::clients::get((wire, 8080).into(), "/"))?.echo()?;
    ensure!(echo.pod == "outside" && mesh.pod("web").ips.contains(&echo.peer.ip()), "{echo:?}");
    let answer =
        web.block_on(weft_testkit::clients::udp_exchange((wire, 5353).into(), b"ping", Duration::from_secs(3)))?;
    ensure!(answer == b"outside:ping", "UDP: {answer:?}");
    drop(outside);
    Ok(())
}

async fn grpc_both_ways(payments: SocketAddr) -> Result<()> {
    let mut client = Grpc::connect(payments).await?;
    let mut call = client.stream("/shop.Payments/Stream", &[]).await?;
    for turn in 0..100 {
        let message = format!("message {turn}");
        call.send(message.as_bytes()).await?;
        ensure!(call.recv().await?.as_deref() == Some(message.as_bytes()), "turn {turn}");
    }
    ensure!(call.finish().await?.status == 0);
    Ok(())
}

async fn web_socket(catalog: SocketAddr) -> Result<()> {
    let mut io = websocket(catalog, "/").await?;
    for turn in 0..100_u32 {
        let message = vec![b'x'; 1 << (turn % 12)];
        write(&mut io, Role::Client, Opcode::Binary, &message).await?;
        let (opcode, back) = read(&mut io).await?;
        ensure!(opcode == Opcode::Binary && back == message, "turn {turn}");
    }
    write(&mut io, Role::Client, Opcode::Close, b"").await?;
    ensure!(read(&mut io).await?.0 == Opcode::Close);
    Ok(())
}

/// Each event comes when it is sent, not when there are enough.
async fn server_sent_events(catalog: SocketAddr) -> Result<()> {
    let mut connection = Connection::open(catalog, Version::HTTP_11).await?;
    let since = Instant::now();
    let response = connection.send_streaming(request(Method::GET, "/sse?n=4&every=300", &[], "")).await?;
    let mut body = response.into_body();
    let mut times = Vec::new();
    while let Some(frame) = body.frame().await {
        if frame?.into_data().is_ok_and(|data| !data.is_empty()) {
            times.push(since.elapsed());
        }
    }
    ensure!(times.len() == 4 && times[0] < Duration::from_millis(300), "{times:?}");
    ensure!(times.windows(2).all(|pair| pair[1] - pair[0] > Duration::from_millis(150)), "{times:?}");
    Ok(())
}

fn bulk_and_many_connections() -> Result<()> {
    let mesh = shop(&[])?;
    let (web, ledger) = (&mesh.pod("web").netns, mesh.pod("ledger"));
    let _sink = tcp(&ledger.netns, "ledger", any(6001), Behaviour::Sink)?;
    let _source = tcp(&ledger.netns, "ledger", any(6002), Behaviour::Source)?;
    let _echo = tcp(&ledger.netns, "ledger", any(6003), Behaviour::Echo)?;
    let bytes = bulk();
    let (sink, source, echo) = (ledger.addr(6001)?, ledger.addr(6002)?, ledger.addr(6003)?);
    let since = Instant::now();
    // Half-closing carries: the sink answers only after the end.
    let verdict = web.block_on(push(sink, bytes))?;
    ensure!(verdict == format!("ledger {bytes} ok"), "{verdict}");
    let check = web.block_on(pull(source, bytes))?;
    ensure!(check.seen() == bytes && check.wrong_at().is_none(), "{check:?}");
    eprintln!("{} MiB each way in {:?}", bytes >> 20, since.elapsed());

    let since = Instant::now();
    let open = web.block_on(many(echo, 5000))?;
    eprintln!("5000 connections in {:?}", since.elapsed());
    ensure!(open == 5000, "{open} of 5000 connections echo");
    Ok(())
}

/// Opens connections, keeps all open, and then asks each for an echo.
async fn many(echo: SocketAddr, count: usize) -> Result<usize> {
    let mut open = Vec::with_capacity(count);
    // A hundred at a time: what is under test is how many can be open, not how long a queue of SYNs may be.
    for _ in 0..count / 100 {
        let mut batch = JoinSet::new();
        for _ in 0..100 {
            batch.spawn(connect(echo));
        }
        while let Some(stream) = batch.join_next().await {
            open.push(stream??);
        }
    }
    let mut alive = 0;
    for stream in &mut open {
        alive += usize::from(echoes(stream).await?);
    }
    Ok(alive)
}

fn edits_under_load_fail_nothing() -> Result<()> {
    let mesh = shop(&[])?;
    let catalog = mesh.service("shop/catalog", 80)?;
    let load = Load { requests: 6000, rate: Some(300.0), connections: 8, ..Load::new(catalog) };
    let load = mesh.pod("web").netns.spawn(load.run());
    let toggles = [
        ("30-routes.yaml", "catalog-v1, port: 80, weight: 90", "catalog-v1, port: 80, weight: 1"),
        ("30-routes.yaml", "name: canary\n", "name: canary\n      timeouts: { request: 9s }\n"),
        ("40-policies.yaml", "[\"DELETE\", \"PUT\"]", "[\"PUT\", \"DELETE\", \"PATCH\"]"),
        ("20-services.yaml", "selector: { app: catalog, version: v2 }", "selector: { version: v2, app: catalog }"),
        ("30-routes.yaml", "name: cart-beta-testers", "name: cart-beta-testers-too"),
    ];
    for edit in 0..100 {
        let (file, from, to) = toggles[edit % toggles.len()];
        let (from, to) = if (edit / toggles.len()).is_multiple_of(2) { (from, to) } else { (to, from) };
        mesh.edit(file, from, to)?;
        std::thread::sleep(Duration::from_millis(150));
    }
    ensure!(!load.is_finished(), "the load ended before the last edit");
    let report = load.join()??;
    eprintln!("{} requests over 100 edits: {} failed, {:?}", report.ok, report.failed(), report.pods);
    ensure!(report.failed() == 0, "{:?}", report.failures);
    // Weights of 90 and 10 for half of the time, of 1 and 10 for the other: the edits did count.
    let share = report.pods.get("catalog-v2").copied().unwrap_or_default() as f64 / report.ok as f64;
    ensure!((0.3..0.7).contains(&share), "{:?}", report.pods);
    Ok(())
}

fn a_proxy_replaced_under_load_breaks_nothing() -> Result<()> {
    let mesh = shop(&[])?;
    let catalog = mesh.service("shop/catalog", 80)?;
    let _echo = tcp(&mesh.pod("ledger").netns, "ledger", any(6003), Behaviour::Echo)?;
    let (stop, chatter) = chatter(&mesh, mesh.pod("ledger").addr(6003)?, 50);
    let kept = Load { requests: 2400, rate: Some(200.0), connections: 8, ..Load::new(catalog) };
    let fresh = Load { requests: 600, rate: Some(50.0), connections: 4, reconnect: true, ..Load::new(catalog) };
    let web = &mesh.pod("web").netns;
    let (kept, fresh) = (web.spawn(kept.run()), web.spawn(fresh.run()));
    for node in ["node-a", "node-b"].repeat(2) {
        std::thread::sleep(Duration::from_secs(1));
        mesh.replace_proxy(node)?;
    }
    let (kept, fresh) = (kept.join()??, fresh.join()??);
    stop.send(true)?;
    let broken = chatter.join()??;
    eprintln!(
        "4 replacements: {broken} of 50 TCP connections broken, HTTP failed {} and {}",
        kept.failed(),
        fresh.failed()
    );
    ensure!(broken == 0 && kept.failed() == 0 && fresh.failed() == 0, "{:?} {:?}", kept.failures, fresh.failures);
    Ok(())
}

fn a_killed_proxy_leaks_nothing_and_comes_back() -> Result<()> {
    let mesh = shop(&[])?;
    let catalog = mesh.service("shop/catalog", 80)?;
    let web = &mesh.pod("web").netns;
    let direct = mesh.pod("catalog-v1").addr(8080)?;
    let capture = Capture::start(mesh.world.node("node-a"), "eth0")?;
    let pid = mesh.proxies("node-a")?.last().copied().context("no proxy")?;
    // Stopped, its supervisor doesn't start another: nobody serves.
    mesh.node("node-a").process.signal(Signal::SIGSTOP)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let message = b"GET /never-in-the-clear HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    eventually("the proxy is gone", || Ok(web.block_on(connect(direct)).is_err()))?;
    for to in [catalog, direct] {
        if web.block_on(exchange(to, message)).is_ok() {
            bail!("{to} answered without a proxy");
        }
    }
    mesh.node("node-a").process.signal(Signal::SIGCONT)?;
    eventually("the next proxy serves", || Ok(web.block_on(weft_testkit::clients::get(catalog, "/")).is_ok()))?;
    ensure!(mesh.proxies("node-a")?.last() != Some(&pid));
    let report = web.block_on(Load { requests: 200, reconnect: true, ..Load::new(catalog) }.run())?;
    ensure!(report.failed() == 0, "{report:?}");
    capture.stop()?.assert_no_plaintext(b"never-in-the-clear");
    Ok(())
}

fn a_flood_at_one_pod_leaves_its_neighbour_alone() -> Result<()> {
    let mesh = shop(&[])?;
    let flood = weft_tests::flood(&mesh, 4)?;
    let p99 = [&flood.quiet, &flood.flooded].map(|times| times.value_at_quantile(0.99));
    let Flood { rate, served, refused, failed, .. } = flood;
    eprintln!(
        "{rate:.0}/s: {served} served, {refused} refused; neighbour's p99 {} us before, {} us during",
        p99[0], p99[1]
    );
    ensure!(
        failed == 0 && refused > 0,
        "{failed} requests of the neighbour failed, {refused} of the flood were refused"
    );
    // A matter of time, and so of a machine with nothing else to do.
    let slow = std::env::var_os("WEFT_FULL").is_some() && p99[1] > 2 * p99[0];
    ensure!(!slow, "the neighbour's p99 is {:.1} times what it was", p99[1] as f64 / p99[0] as f64);
    Ok(())
}
