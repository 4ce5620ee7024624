//! Servers answer as they say, clients report what happened, captures see what was sent.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, Version};
use tokio::io::AsyncReadExt as _;
use weft_testkit::clients::{self, Connection, Grpc, Load, request};
use weft_testkit::servers::{self, Behaviour, any};
use weft_testkit::websocket::{self, Opcode, Role};
use weft_testkit::{Capture, World, netns_tests};

netns_tests! {
    echo_tells_what_arrived,
    special_paths_do_as_they_say,
    grpc_streams_both_ways_and_ends_with_the_status,
    websocket_and_events_flow,
    tcp_behaviours,
    datagrams_come_back,
    load_accounts_for_every_request,
    a_capture_reads_plaintext,
    a_capture_sees_only_its_interface,
}

fn echo_tells_what_arrived() -> Result<()> {
    let world = World::two_nodes()?;
    let (a, c) = (world.pod("a"), world.pod("c"));
    let server = servers::http(&c, "c-v1", any(80))?;
    for (version, text) in [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_2, "HTTP/2.0")] {
        for (addr, from) in [(c.addr(80), a.ips()[0]), (c.addr6(80), a.ips()[1])] {
            let reply = a.block_on(async {
                let mut connection = Connection::open(addr, version).await?;
                let headers = [("host", "web.ns"), ("x-two", "1"), ("x-two", "2"), ("x-echo-set-header", "x-new: 7")];
                connection.get("/first").await?;
                connection.send(request(Method::PUT, "/p%2Fq/../r?k=v", &headers, "payload")).await
            })?;
            let echo = reply.echo()?;
            ensure!((&*echo.pod, &*echo.method, &*echo.version) == ("c-v1", "PUT", text), "{echo:?}");
            ensure!((&*echo.path, echo.query.as_deref()) == ("/p%2Fq/../r", Some("k=v")), "{echo:?}");
            ensure!(echo.host.as_deref() == Some("web.ns"), "{echo:?}");
            ensure!(echo.headers["x-two"] == ["1", "2"], "{echo:?}");
            ensure!(echo.peer.ip() == from && echo.local == addr, "{echo:?}");
            ensure!((echo.body_bytes, &*echo.body) == (7, "payload"), "{echo:?}");
            ensure!(reply.header("x-new") == Some("7") && reply.header("x-echo-pod") == Some("c-v1"), "{reply:?}");
        }
    }
    let peers: Vec<_> = server.peers().iter().map(|p| p.ip()).collect();
    ensure!(peers == [a.ips(), a.ips()].concat(), "one connection each, kept alive: {peers:?}");
    Ok(())
}

fn special_paths_do_as_they_say() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let pod = world.pod("p");
    let _server = servers::http(&pod, "p", any(80))?;
    let addr = pod.addr(80);
    pod.block_on(async {
        ensure!(clients::get(addr, "/status/418").await?.status == 418);
        for expected in [503, 503, 200] {
            let status = clients::get(addr, "/flaky?key=k&fail=2").await?.status;
            ensure!(status == expected, "{status} instead of {expected}");
        }
        ensure!(clients::get(addr, "/abort").await.is_err());
        let bytes = clients::get(addr, "/bytes?n=1000003").await?.body;
        ensure!(bytes.len() == 1_000_003);
        let mut open = Connection::open(addr, Version::HTTP_2).await?;
        let sunk = open.send(request(Method::POST, "/sink", &[], bytes)).await?;
        ensure!(sunk.body == r#"{"pod":"p","seen":1000003,"wrong_at":null}"#, "{sunk:?}");
        let start = std::time::Instant::now();
        clients::get(addr, "/?delay=50").await?;
        ensure!(start.elapsed() >= Duration::from_millis(50));
        Ok(())
    })
}

fn grpc_streams_both_ways_and_ends_with_the_status() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let pod = world.pod("p");
    let _server = servers::http(&pod, "p", any(80))?;
    pod.block_on(async {
        let mut client = Grpc::connect(pod.addr(80)).await?.authority("echo.ns:80");
        let reply = client.unary("/echo.Echo/Say", &[], b"hello").await?;
        ensure!(reply.status == 0 && reply.messages == [b"hello".as_slice()], "{reply:?}");
        let failing = [("x-grpc-status", "14"), ("x-grpc-message", "gone")];
        let reply = client.unary("/echo.Echo/Say", &failing, b"").await?;
        ensure!((reply.status, reply.message.as_deref()) == (14, Some("gone")), "{reply:?}");

        let mut call = client.stream("/echo.Echo/Chat", &[]).await?;
        for text in ["one", "two"] {
            call.send(text.as_bytes()).await?;
            let answer = call.recv().await?.context("the end")?;
            ensure!(answer == text, "{answer:?}");
        }
        call.send(&vec![7; 200_000]).await?;
        let rest = call.finish().await?;
        ensure!(rest.status == 0 && rest.messages.len() == 1 && rest.messages[0].len() == 200_000);
        Ok(())
    })
}

fn websocket_and_events_flow() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let pod = world.pod("p");
    let _server = servers::http(&pod, "p", any(80))?;
    pod.block_on(async {
        let mut socket = clients::websocket(pod.addr(80), "/chat").await?;
        websocket::write(&mut socket, Role::Client, Opcode::Text, b"hi").await?;
        ensure!(websocket::read(&mut socket).await? == (Opcode::Text, b"hi".to_vec()));
        websocket::write(&mut socket, Role::Client, Opcode::Close, b"").await?;
        ensure!(websocket::read(&mut socket).await? == (Opcode::Close, Vec::new()));
        let body = clients::get(pod.addr(80), "/sse?n=3&every=1").await?.body;
        ensure!(body == "id: 0\ndata: p\n\nid: 1\ndata: p\n\nid: 2\ndata: p\n\n", "{body:?}");
        Ok(())
    })
}

fn tcp_behaviours() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let pod = world.pod("p");
    let kinds = [Behaviour::Echo, Behaviour::Banner, Behaviour::Sink, Behaviour::Source, Behaviour::Reset];
    let servers = (1..).zip(kinds).map(|(port, kind)| servers::tcp(&pod, "p", any(port), kind));
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    pod.block_on(async {
        ensure!(clients::exchange(pod.addr(1), b"twice").await? == b"twice");
        ensure!(clients::banner(pod.addr6(2)).await? == "220 p");
        ensure!(clients::push(pod.addr(3), 3_000_001).await? == "p 3000001 ok");
        ensure!(clients::exchange(pod.addr(3), b"not the pattern").await?.starts_with(b"p 15 wrong at "));
        let check = clients::pull(pod.addr(4), 3_000_001).await?;
        ensure!((check.seen(), check.wrong_at()) == (3_000_001, None), "{check:?}");
        // The reset may be there before connect() returns.
        let reset = async { Ok(clients::connect(pod.addr(5)).await?.read_u8().await?) };
        let error = reset.await.err().and_then(|e: anyhow::Error| Some(e.downcast_ref::<std::io::Error>()?.kind()));
        ensure!(error == Some(std::io::ErrorKind::ConnectionReset), "{error:?}");
        Ok(())
    })
}

fn datagrams_come_back() -> Result<()> {
    let world = World::two_nodes()?;
    let (a, c) = (world.pod("a"), world.pod("c"));
    let server = servers::udp_echo(&c, "c", any(53))?;
    let deadline = Duration::from_secs(5);
    ensure!(a.block_on(clients::udp_exchange(c.addr(53), b"q", deadline))? == b"c:q");
    ensure!(a.block_on(clients::udp_exchange(c.addr6(53), b"q", deadline))? == b"c:q");
    ensure!(server.peers().iter().map(|p| p.ip()).eq(a.ips()), "{:?}", server.peers());
    Ok(())
}

fn load_accounts_for_every_request() -> Result<()> {
    let world = World::two_nodes()?;
    let (a, c) = (world.pod("a"), world.pod("c"));
    let _server = servers::http(&c, "c", any(80))?;
    let load = Load { connections: 4, requests: 400, rate: Some(2000.0), ..Load::new(c.addr(80)) };
    let report = a.block_on(load.run())?;
    ensure!((report.ok, report.failed(), report.pods["c"]) == (400, 0, 400), "{report:?}");
    ensure!(report.elapsed >= Duration::from_millis(195), "faster than the rate: {:?}", report.elapsed);
    ensure!(report.latency.len() == 400 && report.quantile(0.5) <= report.quantile(0.99));

    let flaky = Load { target: "/flaky?fail=10&status=500".to_owned(), requests: 50, ..Load::new(c.addr(80)) };
    let report = a.block_on(flaky.run())?;
    ensure!((report.ok, report.failed()) == (40, 10), "{report:?}");
    ensure!(report.failures.keys().eq(["status 500 Internal Server Error"]), "{:?}", report.failures);

    let nobody = Load { connections: 2, requests: 7, ..Load::new(c.addr(81)) };
    let report = a.block_on(nobody.run())?;
    ensure!((report.ok, report.failed()) == (0, 7), "{report:?}");
    Ok(())
}

fn a_capture_reads_plaintext() -> Result<()> {
    let world = World::two_nodes()?;
    let (a, c) = (world.pod("a"), world.pod("c"));
    let _server = servers::http(&c, "c", any(80))?;
    let capture = Capture::start(world.node("n1"), "eth0")?;
    // The needle starts in one packet and ends in another.
    let body = [&[b'.'; 1440][..], b"needle-in-the-clear", &[b'.'; 4000]].concat();
    a.block_on(async {
        let mut connection = Connection::open(c.addr6(80), Version::HTTP_11).await?;
        connection.send(request(Method::POST, "/", &[], body)).await
    })?;
    capture.wait_until(Duration::from_secs(5), |p| p.contains(b"\"pod\":\"c\""))?;
    let packets = capture.stop()?;
    ensure!(packets.contains(b"needle-in-the-clear"), "{packets:?}");
    ensure!(!packets.contains(b"needle-in-the-dark"));
    ensure!(packets.dialled_ports().into_iter().eq([80]), "{packets:?}");
    ensure!(packets.flows_of(c.addr6(80)).len() == 2, "{packets:?}");
    ensure!(std::panic::catch_unwind(|| packets.assert_no_plaintext(b"needle-in-the-clear")).is_err());
    packets.assert_no_plaintext(b"needle-in-the-dark");
    Ok(())
}

fn a_capture_sees_only_its_interface() -> Result<()> {
    let world = World::two_nodes()?;
    let (a, b) = (world.pod("a"), world.pod("b"));
    let _server = servers::tcp(&b, "b", any(7), Behaviour::Echo)?;
    let wire = Capture::start(world.node("n1"), "eth0")?;
    let inside = Capture::start(&a, "eth0")?;
    a.block_on(clients::exchange(b.addr(7), b"stays on the node"))?;
    ensure!(inside.stop()?.contains(b"stays on the node"));
    ensure!(!wire.stop()?.contains(b"stays on the node"), "same-node traffic on the wire");
    Ok(())
}
