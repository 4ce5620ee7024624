//! What the rules do to real packets, IPv4 and IPv6, and that they go without a trace.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test fails"
)]

mod support;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use support::{accept, app, block_on, bulk, carries, dial, dial_marked, nobody_comes, proxy, refused, soon, sys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_cni::rules::{Drift, OlderFlows, RuleSet, Rules, RulesError};
use weft_core::inpod::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};
use weft_sys::Netns;
use weft_testkit::{Pod, World, netns_tests};

netns_tests! {
    outbound_goes_to_the_proxy,
    inside_the_pod_nothing_is_redirected,
    inbound_goes_to_the_proxy,
    listeners_of_the_proxy_are_guarded,
    the_app_is_reached_from_the_clients_own_address,
    a_pod_reaches_itself_through_its_own_service,
    closed_is_closed_until_redirected,
    udp_passes,
    older_flows_go_on,
    older_flows_are_closed_when_asked,
    with_older_flows_closed_the_mesh_works,
    what_the_mesh_had_open_outlives_the_closing_of_older_flows,
    forwarded_packets_are_not_ours,
    removal_leaves_nothing,
    drift_is_found_and_repaired,
    a_pod_without_ipv6,
    a_missing_program_is_named,
}

const REDIRECTING: RuleSet = RuleSet::Redirecting { older_flows: OlderFlows::Keep };
/// A Service's address: nobody has it.
const SERVICE: [&str; 2] = ["10.96.0.7:80", "[fd00:10:96::7]:80"];

/// Pod `a` with rules, pod `b` on the same node without.
struct Two {
    _world: World,
    a: Pod,
    b: Pod,
    pod: Netns,
    other: Netns,
    rules: Rules,
}

impl Two {
    fn new() -> Result<Self> {
        let world = World::builder().node("n").pod("n", "a").pod("n", "b").build()?;
        let (a, b) = (world.pod("a"), world.pod("b"));
        // The strictest values: nothing of ours may depend on them being loose.
        for (key, value) in [("rp_filter", "1"), ("accept_local", "0"), ("route_localnet", "0")] {
            for dev in ["all", "default", "lo", "eth0"] {
                a.sysctl(&format!("ipv4/conf/{dev}/{key}"), value)?;
            }
        }
        let (pod, other) = (sys(&a)?, sys(&b)?);
        Ok(Self { _world: world, a, b, pod, other, rules: Rules::default() })
    }

    /// The same port at both addresses of `a`.
    fn at_a(&self, port: u16) -> [SocketAddr; 2] {
        [self.a.addr(port), self.a.addr6(port)]
    }

    fn at_b(&self, port: u16) -> [SocketAddr; 2] {
        [self.b.addr(port), self.b.addr6(port)]
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn outbound_goes_to_the_proxy() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        for (service, b) in SERVICE.map(addr).into_iter().zip(two.at_b(7000)) {
            let proxy = proxy(&two.pod, b, OUTBOUND_PORT)?;
            let server = app(&two.other, b)?;
            for to in [service, b] {
                let mut client = dial(&two.pod, to).await?;
                let (mut accepted, peer, dst) = accept(&proxy).await?;
                ensure!(dst == to, "{dst} instead of {to}");
                ensure!(peer == client.local_addr()?, "{peer}");
                carries(&mut client, &mut accepted).await?;
            }
            nobody_comes(&server).await?;
            let mut client = dial_marked(&two.pod, None, b).await?;
            let (mut accepted, peer, _) = accept(&server).await?;
            ensure!(two.a.ips().contains(&peer.ip()), "{peer}");
            carries(&mut client, &mut accepted).await?;
        }
        Ok(())
    })
}

fn inside_the_pod_nothing_is_redirected() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        for (loopback, own) in [addr("127.0.0.1:8080"), addr("[::1]:8080")].into_iter().zip(two.at_a(8080)) {
            let (out, inbound) = (proxy(&two.pod, own, OUTBOUND_PORT)?, proxy(&two.pod, own, INBOUND_PLAINTEXT_PORT)?);
            for to in [loopback, own] {
                let server = app(&two.pod, to)?;
                let mut client = dial(&two.pod, to).await?;
                let (mut accepted, peer, _) = accept(&server).await?;
                ensure!(peer == client.local_addr()?, "{peer}");
                carries(&mut client, &mut accepted).await?;
            }
            nobody_comes(&out).await?;
            nobody_comes(&inbound).await?;
        }
        Ok(())
    })
}

fn inbound_goes_to_the_proxy() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        for to in two.at_a(8080) {
            let server = app(&two.pod, to)?;
            refused(&two.other, to)
                .await
                .context("nobody takes redirected connections yet: refused, never in the clear")?;
            let proxy = proxy(&two.pod, to, INBOUND_PLAINTEXT_PORT)?;
            let mut client = dial(&two.other, to).await?;
            let (mut accepted, peer, dst) = accept(&proxy).await?;
            ensure!(dst == to && peer == client.local_addr()?, "{peer} -> {dst}");
            carries(&mut client, &mut accepted).await?;
            nobody_comes(&server).await?;
            // A probe from the node, whose address belongs to no pod.
            let node = sys(two._world.node("n"))?;
            let mut probe = dial(&node, to).await?;
            let (mut accepted, peer, dst) = accept(&proxy).await?;
            ensure!(dst == to && peer == probe.local_addr()?, "{peer} -> {dst}");
            carries(&mut probe, &mut accepted).await?;
        }
        Ok(())
    })
}

fn listeners_of_the_proxy_are_guarded() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        for (i, loopback) in [addr("127.0.0.1:1"), addr("[::1]:1")].into_iter().enumerate() {
            let ports = [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT];
            let listeners = ports.map(|port| proxy(&two.pod, loopback, port).expect("a listener"));
            let own = two.a.ips()[i];
            for port in ports {
                for ip in [own, loopback.ip()] {
                    let to = SocketAddr::new(ip, port);
                    refused(&two.pod, to).await.with_context(|| format!("from within, {to}"))?;
                }
            }
            for port in [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT] {
                refused(&two.other, SocketAddr::new(own, port))
                    .await
                    .with_context(|| format!("from outside, {port}"))?;
            }
            for listener in &listeners {
                nobody_comes(listener).await?;
            }
            let to = SocketAddr::new(own, HBONE_PORT);
            for mut client in [dial(&two.other, to).await?, dial_marked(&two.pod, None, to).await?] {
                let (mut accepted, peer, dst) = accept(&listeners[2]).await?;
                ensure!(dst == to && peer == client.local_addr()?, "{peer} -> {dst}");
                carries(&mut client, &mut accepted).await?;
            }
        }
        Ok(())
    })
}

/// The whole way in: client -> proxy -> app, the second leg from the client's address, even from its very port, which
/// makes both legs the same tuple.
fn the_app_is_reached_from_the_clients_own_address() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        for to in two.at_a(8080) {
            let server = app(&two.pod, to)?;
            let proxy = proxy(&two.pod, to, INBOUND_PLAINTEXT_PORT)?;
            let mut client = dial(&two.other, to).await?;
            let (mut outer, peer, dst) = accept(&proxy).await?;
            for source in [peer, SocketAddr::new(peer.ip(), 0)] {
                let mut inner = dial_marked(&two.pod, Some(source), dst).await?;
                let (mut app, seen, _) = accept(&server).await?;
                ensure!(seen == inner.local_addr()? && seen.ip() == peer.ip(), "the app saw {seen}, not {source}");
                carries(&mut inner, &mut app).await?;
                carries(&mut client, &mut outer).await.context("the outer leg still works")?;
                bulk(&mut inner, &mut app).await?;
                drop(inner);
                ensure!(soon("end of stream", app.read(&mut [0; 1])).await? == 0);
            }
            // Somebody outside the pod's own network, behind the default route.
            let stranger = if to.is_ipv4() { addr("192.0.2.1:0") } else { addr("[2001:db8::1]:0") };
            let mut inner = dial_marked(&two.pod, Some(stranger), dst).await?;
            let (mut app, seen, _) = accept(&server).await?;
            ensure!(seen.ip() == stranger.ip(), "{seen}");
            carries(&mut inner, &mut app).await?;
        }
        Ok(())
    })
}

fn a_pod_reaches_itself_through_its_own_service() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        for (service, own) in SERVICE.map(addr).into_iter().zip(two.at_a(8080)) {
            let server = app(&two.pod, own)?;
            let (out, hbone) = (proxy(&two.pod, own, OUTBOUND_PORT)?, proxy(&two.pod, own, HBONE_PORT)?);
            let _client = dial(&two.pod, service).await?;
            let (_accepted, peer, dst) = accept(&out).await?;
            ensure!(dst == service, "{dst}");
            let mut tunnel = dial_marked(&two.pod, None, SocketAddr::new(own.ip(), HBONE_PORT)).await?;
            let (mut end, from, _) = accept(&hbone).await?;
            ensure!(from.ip() == own.ip(), "{from}");
            carries(&mut tunnel, &mut end).await?;
            // The source of the app's connection is the pod's own address; its client's port is taken, by the client.
            let mut inner = dial_marked(&two.pod, Some(SocketAddr::new(peer.ip(), 0)), own).await?;
            let (mut app, seen, _) = accept(&server).await?;
            ensure!(seen == inner.local_addr()? && seen.ip() == peer.ip(), "{seen}");
            carries(&mut inner, &mut app).await?;
        }
        Ok(())
    })
}

fn closed_is_closed_until_redirected() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, RuleSet::Closed).await?;
        for (b, a) in two.at_b(7000).into_iter().zip(two.at_a(8080)) {
            let (server, own) = (app(&two.other, b)?, app(&two.pod, a)?);
            let mut out = Box::pin(dial(&two.pod, b));
            let mut inbound = Box::pin(dial(&two.other, a));
            tokio::select! {
                done = &mut out => panic!("out of a closed pod: {done:?}"),
                done = &mut inbound => panic!("into a closed pod: {done:?}"),
                nobody = async { tokio::try_join!(nobody_comes(&server), nobody_comes(&own)) } => drop(nobody?),
            }
            let marked = tokio::time::timeout(support::A_WHILE, dial_marked(&two.pod, None, b)).await;
            ensure!(marked.is_err(), "closed for the proxy too: {marked:?}");
            let mut client = dial(&two.pod, a).await.context("the pod itself")?;
            let (mut accepted, ..) = accept(&own).await?;
            carries(&mut client, &mut accepted).await?;

            // Who knocked while it was closed gets through once it redirects.
            let (out15001, in15006) = (proxy(&two.pod, a, OUTBOUND_PORT)?, proxy(&two.pod, a, INBOUND_PLAINTEXT_PORT)?);
            two.rules.apply(&two.pod, REDIRECTING).await?;
            let (_out, _inbound) = (out.await?, inbound.await?);
            ensure!(accept(&out15001).await?.2 == b);
            ensure!(accept(&in15006).await?.2 == a);
            nobody_comes(&server).await?;
            two.rules.apply(&two.pod, RuleSet::Closed).await?;
        }
        Ok(())
    })
}

fn udp_passes() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        for set in [RuleSet::Closed, REDIRECTING, RuleSet::Redirecting { older_flows: OlderFlows::Close }] {
            two.rules.apply(&two.pod, set).await?;
            for (a, b) in two.at_a(0).into_iter().zip(two.at_b(5353)) {
                let socket = |netns: &Netns, at| -> Result<tokio::net::UdpSocket> {
                    let socket = netns.run(|| std::net::UdpSocket::bind(at))??;
                    socket.set_nonblocking(true)?;
                    Ok(tokio::net::UdpSocket::from_std(socket)?)
                };
                let (client, server) = (socket(&two.pod, a)?, socket(&two.other, b)?);
                client.send_to(b"query", b).await?;
                let (_, from) = soon("query", server.recv_from(&mut [0; 16])).await?;
                server.send_to(b"answer", from).await?;
                let (_, from) = soon("answer", client.recv_from(&mut [0; 16])).await?;
                ensure!(from == b, "{from}");
            }
        }
        Ok(())
    })
}

fn older_flows_go_on() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        for (a, b) in two.at_a(8080).into_iter().zip(two.at_b(7000)) {
            let (server, remote) = (app(&two.pod, a)?, app(&two.other, b)?);
            let (mut in1, mut out1) = (dial(&two.other, a).await?, dial(&two.pod, b).await?);
            let (mut in2, mut out2) = (accept_plain(&server).await?, accept_plain(&remote).await?);
            for set in [REDIRECTING, RuleSet::Closed, REDIRECTING] {
                two.rules.apply(&two.pod, set).await?;
            }
            carries(&mut in1, &mut in2).await?;
            carries(&mut out1, &mut out2).await?;
            two.rules.remove(&two.pod).await?;
            carries(&mut in1, &mut in2).await?;
            carries(&mut out1, &mut out2).await?;
        }
        Ok(())
    })
}

async fn accept_plain(listener: &tokio::net::TcpListener) -> Result<tokio::net::TcpStream> {
    Ok(soon("accept", listener.accept()).await?.0)
}

fn older_flows_are_closed_when_asked() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        // Strict from the start, and Strict after a time of Permissive, when connection tracking knows the flow.
        for first in [RuleSet::Closed, REDIRECTING] {
            for (a, b) in two.at_a(8080).into_iter().zip(two.at_b(7000)) {
                let (server, remote) = (app(&two.pod, a)?, app(&two.other, b)?);
                let (mut in1, mut out1) = (dial(&two.other, a).await?, dial(&two.pod, b).await?);
                let (mut in2, mut out2) = (accept_plain(&server).await?, accept_plain(&remote).await?);
                two.rules.apply(&two.pod, first).await?;
                if first == REDIRECTING {
                    carries(&mut in1, &mut in2).await?;
                    carries(&mut out1, &mut out2).await?;
                }
                two.rules.apply(&two.pod, RuleSet::Redirecting { older_flows: OlderFlows::Close }).await?;
                for stream in [&mut in1, &mut in2, &mut out1, &mut out2] {
                    // Whoever speaks next learns it.
                    let _sent = stream.write_all(b"x").await;
                    let end = soon("a reset", async { anyhow::Ok(stream.read(&mut [0; 1]).await) }).await?;
                    ensure!(end.is_err(), "{first:?}: {end:?}");
                }
                two.rules.remove(&two.pod).await?;
            }
        }
        Ok(())
    })
}

fn with_older_flows_closed_the_mesh_works() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        two.rules.apply(&two.pod, RuleSet::Redirecting { older_flows: OlderFlows::Close }).await?;
        for (a, b) in two.at_a(8080).into_iter().zip(two.at_b(7000)) {
            let remote = app(&two.other, b)?;
            refused(&two.other, a).await.context("no proxy: refused")?;
            let server = app(&two.pod, a)?;
            let listeners =
                [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT].map(|p| proxy(&two.pod, a, p).expect("a listener"));
            let mut client = dial(&two.pod, b).await?;
            let (mut outbound, ..) = accept(&listeners[0]).await?;
            carries(&mut client, &mut outbound).await?;
            let mut upstream = dial_marked(&two.pod, None, b).await?;
            carries(&mut upstream, &mut accept_plain(&remote).await?).await?;

            let mut client = dial(&two.other, a).await?;
            let (mut outer, peer, dst) = accept(&listeners[1]).await?;
            carries(&mut client, &mut outer).await?;
            let mut inner = dial_marked(&two.pod, Some(peer), dst).await?;
            let (mut app, seen, _) = accept(&server).await?;
            ensure!(seen == peer, "{seen}");
            bulk(&mut inner, &mut app).await?;
            let mut tunnel = dial(&two.other, SocketAddr::new(a.ip(), HBONE_PORT)).await?;
            bulk(&mut tunnel, &mut accept(&listeners[2]).await?.0).await?;
            let mut own = dial(&two.pod, a).await?;
            carries(&mut own, &mut accept_plain(&server).await?).await?;
        }
        Ok(())
    })
}

/// A policy that refuses plaintext comes while the mesh is at work, and goes again.
fn what_the_mesh_had_open_outlives_the_closing_of_older_flows() -> Result<()> {
    let two = Two::new()?;
    let closing = RuleSet::Redirecting { older_flows: OlderFlows::Close };
    block_on(async {
        for (a, b) in two.at_a(8080).into_iter().zip(two.at_b(HBONE_PORT)) {
            let (server, remote) = (app(&two.pod, a)?, app(&two.other, b)?);
            let [plain, tunnels] =
                [INBOUND_PLAINTEXT_PORT, HBONE_PORT].map(|port| proxy(&two.pod, a, port).expect("a listener"));
            // Of a version before these rules: known when it next sends.
            two.rules.remove(&two.pod).await?;
            let mut first = dial_marked(&two.pod, None, b).await?;
            let mut first_far = accept_plain(&remote).await?;
            two.rules.apply(&two.pod, REDIRECTING).await?;
            let mut out = dial_marked(&two.pod, None, b).await?;
            let mut out_far = accept_plain(&remote).await?;
            let mut tunnel = dial(&two.other, SocketAddr::new(a.ip(), HBONE_PORT)).await?;
            let (mut tunnel_near, ..) = accept(&tunnels).await?;
            let mut client = dial(&two.other, a).await?;
            let (mut outer, peer, dst) = accept(&plain).await?;
            let mut inner = dial_marked(&two.pod, Some(peer), dst).await?;
            let (mut app, ..) = accept(&server).await?;
            for set in [closing, REDIRECTING, closing] {
                two.rules.apply(&two.pod, set).await?;
                carries(&mut first, &mut first_far).await.context("of a version before")?;
                // Either end may be the first to send.
                carries(&mut out_far, &mut out).await.with_context(|| format!("{set:?}: to a peer"))?;
                carries(&mut tunnel, &mut tunnel_near).await.with_context(|| format!("{set:?}: from a peer"))?;
                carries(&mut client, &mut outer).await.with_context(|| format!("{set:?}: plaintext"))?;
                carries(&mut app, &mut inner).await.with_context(|| format!("{set:?}: to the app"))?;
            }
        }
        Ok(())
    })
}

/// A pod that is a router itself (containers inside it): what it forwards isn't traffic of the pod.
fn forwarded_packets_are_not_ours() -> Result<()> {
    let two = Two::new()?;
    let inner = two._world.netns("nested")?;
    two.a.ip(&[
        format!("link add nested type veth peer name eth0 netns {}", inner.name()),
        "link set nested up".to_owned(),
        "addr add 10.9.0.1/24 dev nested".to_owned(),
    ])?;
    two.a.sysctl("ipv4/ip_forward", "1")?;
    inner.ip(&["link set eth0 up", "addr add 10.9.0.2/24 dev eth0", "route add default via 10.9.0.1"])?;
    two.b.ip(&[format!("route add 10.9.0.0/24 via {}", two.a.ipv4())])?;
    block_on(async {
        two.rules.apply(&two.pod, REDIRECTING).await?;
        let server = app(&two.other, two.b.addr(7000))?;
        let mut client = dial(&sys(&inner)?, two.b.addr(7000)).await?;
        let (mut accepted, peer, _) = accept(&server).await?;
        ensure!(peer.ip() == addr("10.9.0.2:0").ip(), "{peer}");
        carries(&mut client, &mut accepted).await
    })
}

/// Everything of a namespace that we could have touched.
fn everything(pod: &Pod) -> Result<String> {
    let mut all = String::new();
    for command in [
        "nft list ruleset",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "ip address",
        "sysctl -a --pattern ^net\\.ip",
    ] {
        all.push_str(&format!("== {command}\n{}", pod.exec(command)?));
    }
    // Lifetimes count down by themselves.
    let lines = all.lines().filter(|line| !line.contains("valid_lft") && !line.contains("expires"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn removal_leaves_nothing() -> Result<()> {
    let two = Two::new()?;
    // What belongs to others stays.
    two.a.exec("nft add table inet other")?;
    two.a.ip(&["rule add fwmark 0x1 lookup 100 priority 100", "route add local 198.51.100.0/24 dev lo table 100"])?;
    let before = everything(&two.a)?;
    block_on(async {
        two.rules.remove(&two.pod).await.context("remove where there is nothing")?;
        ensure!(everything(&two.a)? == before);
        for sets in [vec![RuleSet::Closed], vec![REDIRECTING], vec![RuleSet::Closed, REDIRECTING, REDIRECTING]] {
            for set in sets {
                two.rules.apply(&two.pod, set).await?;
                let held = everything(&two.a)?;
                two.rules.apply(&two.pod, set).await?;
                ensure!(strip_handles(&everything(&two.a)?) == strip_handles(&held), "applying twice changes nothing");
                ensure!(held != before);
            }
            two.rules.remove(&two.pod).await?;
            let after = everything(&two.a)?;
            ensure!(after == before, "--- before\n{before}\n--- after\n{after}");
        }
        Ok(())
    })
}

fn strip_handles(text: &str) -> String {
    text.lines().map(|line| line.split(" # handle").next().unwrap_or_default()).collect()
}

fn drift_is_found_and_repaired() -> Result<()> {
    let two = Two::new()?;
    let cases: [(&str, Drift); 7] = [
        ("nft delete table inet weft", Drift::NoTable),
        ("nft flush chain inet weft outbound", Drift::Table),
        ("nft insert rule inet weft inbound accept", Drift::Table),
        ("ip rule del priority 20574", Drift::Rule("IPv4")),
        ("ip -6 rule del priority 20574", Drift::Rule("IPv6")),
        ("ip route flush table 574", Drift::Route("IPv4")),
        ("ip -6 route flush table 574", Drift::Route("IPv6")),
    ];
    block_on(async {
        for set in [RuleSet::Closed, REDIRECTING, RuleSet::Redirecting { older_flows: OlderFlows::Close }] {
            two.rules.apply(&two.pod, set).await?;
            ensure!(two.rules.verify(&two.pod, set).await?.is_empty());
        }
        two.rules.apply(&two.pod, REDIRECTING).await?;
        ensure!(two.rules.verify(&two.pod, RuleSet::Closed).await? == [Drift::Table], "another set is a difference");
        for (command, drift) in cases {
            two.a.exec(command)?;
            let found = two.rules.verify(&two.pod, REDIRECTING).await?;
            ensure!(found == [drift], "{command}: {found:?}");
            two.rules.apply(&two.pod, REDIRECTING).await?;
            let found = two.rules.verify(&two.pod, REDIRECTING).await?;
            ensure!(found.is_empty(), "{command}: not repaired: {found:?}");
        }
        Ok(())
    })
}

fn a_pod_without_ipv6() -> Result<()> {
    let two = Two::new()?;
    two.a.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
    let before = everything(&two.a)?;
    block_on(async {
        two.rules.apply(&two.pod, RuleSet::Closed).await?;
        two.rules.apply(&two.pod, REDIRECTING).await?;
        ensure!(two.rules.verify(&two.pod, REDIRECTING).await?.is_empty());
        let proxy = proxy(&two.pod, two.a.addr(1), OUTBOUND_PORT)?;
        let _client = dial(&two.pod, addr(SERVICE[0])).await?;
        ensure!(accept(&proxy).await?.2 == addr(SERVICE[0]));
        two.rules.remove(&two.pod).await?;
        ensure!(everything(&two.a)? == before);
        Ok(())
    })
}

fn a_missing_program_is_named() -> Result<()> {
    let two = Two::new()?;
    block_on(async {
        let rules = Rules::with_nft("nft-that-is-not-there");
        let error = rules.apply(&two.pod, RuleSet::Closed).await.err().context("it must fail")?;
        ensure!(matches!(error, RulesError::MissingProgram { .. }), "{error}");
        ensure!(error.to_string().contains("`nft-that-is-not-there` is not installed"), "{error}");
        Ok(())
    })
}
