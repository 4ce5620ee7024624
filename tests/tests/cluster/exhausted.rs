//! Nodes that have no more of something: room on the disk, descriptors, memory.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_sys::Netns;
use weft_tests::cluster::{Cluster, Echo, Mix, PATIENCE, Process, SYSTEM, eventually, failures};

use crate::meshed::{Meshed, breaking, clock, failed_only_between};
use crate::mtls::Capture;

const NODE: &str = "node2";

/// The node's folder for sockets is a disk of its own, which can be full.
struct Disk<'a>(&'a Cluster);

impl<'a> Disk<'a> {
    /// Agent and proxy are killed, so that they start on it.
    fn mount(cluster: &'a Cluster) -> Result<Self> {
        let disk = Self(cluster);
        disk.sh("mount -t tmpfs -o size=1m,nr_inodes=64 weft-test /run/weft")?;
        disk.restart()?;
        // They are taken for ready until the kubelet has looked: what fills the disk too early leaves them no place of their own.
        eventually("their sockets on the disk", PATIENCE, || {
            disk.sh("[ -S /run/weft/proxy.sock ] && [ -S /run/weft/handover.sock ]")
        })?;
        Ok(disk)
    }

    fn sh(&self, command: &str) -> Result<()> {
        let output = self.0.on_node(NODE, &["sh", "-c", command]).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn restart(&self) -> Result<()> {
        for part in ["weft-agent", "weft-node-proxy"] {
            self.0.crash(NODE, part)?;
        }
        for part in ["weft-agent", "weft-node-proxy"] {
            self.0.wait_rollout(SYSTEM, &format!("daemonset/{part}"))?;
        }
        Ok(())
    }

    fn fill(&self) -> Result<()> {
        self.sh(
            "cd /run/weft && i=0; while touch filler-$i 2>/dev/null; do i=$((i + 1)); [ $i -lt 1000 ] || exit 1; done",
        )
    }

    fn make_room(&self) -> Result<()> {
        self.sh("rm -f /run/weft/filler-*")
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Whatever becomes of the test: the next one needs the node as it was.
        let _ = self.sh("umount -l /run/weft").and_then(|()| self.restart());
    }
}

/// New proxies and agents can't make their sockets. The old proxy goes on until they can.
#[test]
#[ignore = "needs a cluster"]
fn a_rollout_onto_a_full_disk_waits_and_costs_no_request() -> Result<()> {
    let meshed = Meshed::open("t-full-disk")?;
    breaking(&meshed, || {
        let disk = Disk::mount(meshed.cluster())?;
        meshed.is_back()?;
        let load = meshed.load(120)?;
        let cluster = meshed.cluster();
        let serving = cluster.part("weft-node-proxy", NODE)?;
        // An agent has the place of the one before. What it leaves free is filled, too.
        for part in ["daemonset/weft-agent", "daemonset/weft-node-proxy"] {
            disk.fill()?;
            cluster.k(&["-n", SYSTEM, "rollout", "restart", part])?;
            if part.ends_with("agent") {
                cluster.wait_rollout(SYSTEM, part)?;
            }
        }
        eventually("a new proxy to fail on the full disk", PATIENCE, || {
            let pods = cluster.json(&["-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=weft-node-proxy"])?;
            let pods = pods["items"].as_array().context("pods")?;
            let new = pods.iter().find(|pod| {
                pod["spec"]["nodeName"] == NODE && pod["metadata"]["name"].as_str() != Some(serving.as_str())
            });
            let status = &new.context("none yet")?["status"]["containerStatuses"][0];
            ensure!(status["restartCount"].as_u64() > Some(0), "{status}");
            Ok(())
        })?;
        load.goes_on()?;
        meshed.is_strict()?;
        disk.make_room()?;
        for part in ["weft-agent", "weft-node-proxy"] {
            cluster.wait_rollout(SYSTEM, &format!("daemonset/{part}"))?;
        }
        load.all_answered()?;
        drop(disk);
        meshed.is_back()
    })
}

/// New connections wait or are refused, those that are open go on, and when there are descriptors again everything is as before,
/// without a restart.
#[test]
#[ignore = "needs a cluster"]
fn a_proxy_without_descriptors_keeps_what_is_open_and_goes_on_when_it_has_some() -> Result<()> {
    let meshed = Meshed::open("t-descriptors")?;
    breaking(&meshed, || {
        for node in ["node1", "node2"] {
            let proxy = meshed.cluster().process(node, "weft-node-proxy")?;
            let mix = Mix { seconds: 40, streams: 5, connections: 10, ..meshed.requests() };
            let load = meshed.ns.mix("server", &mix)?;
            let before = proxy.descriptor_limit()?;
            // None that isn't open already, whatever it closes.
            proxy.limit_descriptors(8)?;
            let out = eventually("a request to find none", PATIENCE, || {
                ensure!(meshed.ns.served("client", "http://server/", 1).is_err(), "it was answered");
                Ok(())
            });
            proxy.limit_descriptors(before)?;
            out?;
            let back = clock()? + 2.0;
            load.goes_on()?;
            let outcomes = load.outcomes()?;
            let (requests, held) = outcomes.split_at(outcomes.len() - mix.streams - mix.connections);
            ensure!(failures(held).is_empty(), "{node}: what was open: {:?}", failures(held));
            let after: Vec<_> = requests.iter().filter(|o| o.clock > back).cloned().collect();
            ensure!(!after.is_empty() && failures(&after).is_empty(), "{node}: afterwards: {:?}", failures(&after));
            ensure!(meshed.cluster().process(node, "weft-node-proxy")? == proxy, "{node}: it was restarted");
            meshed.is_strict()?;
        }
        Ok(())
    })
}

/// Connections from a pod's network whose buffers are full, all the way there and back.
struct Flood(Vec<TcpStream>);

impl Flood {
    /// As many of `count` as are taken.
    fn open(from: Process, to: SocketAddr, count: usize) -> Result<Self> {
        let connect = |_| TcpStream::connect_timeout(&to, Duration::from_secs(5)).ok();
        let streams: Vec<_> = Netns::open(&from.network())?.run(|| (0..count).filter_map(connect).collect())?;
        for stream in &streams {
            stream.set_nonblocking(true)?;
        }
        Ok(Self(streams))
    }

    /// Sends what fits. Whoever echoes it has to keep it. How many are still open.
    fn push(&mut self) -> usize {
        let block = [0; 64 << 10];
        self.0.retain_mut(|stream| {
            loop {
                match stream.write(&block) {
                    Ok(written) if written > 0 => {}
                    Ok(_) => return false,
                    Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
        });
        self.0.len()
    }
}

/// A pod of its own on the first node.
fn flooder(meshed: &Meshed) -> Result<Process> {
    meshed.ns.run(&[Echo::new("flooder").on("node1")])?;
    let found = meshed.cluster().processes("node1", "server", "--version=flooder")?;
    found.first().copied().context("no flooder")
}

/// The server's address, and the port at which [`weft_tests::cluster::served`] echoes bytes.
fn echo(meshed: &Meshed) -> Result<SocketAddr> {
    let (_, address, _) = meshed.ns.pod("server")?;
    Ok(SocketAddr::new(address.parse()?, 9090))
}

/// Why the container of a node's proxy before this one has ended.
fn last_end(cluster: &Cluster, node: &str) -> Result<String> {
    let proxy = cluster.part("weft-node-proxy", node)?;
    let pod = cluster.json(&["-n", SYSTEM, &format!("pod/{proxy}")])?;
    let reason = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"];
    Ok(reason.as_str().context("it hasn't")?.to_owned())
}

/// The kernel kills the one that takes more memory than there is; what then happens is what happens after every SIGKILL.
#[test]
#[ignore = "needs a cluster"]
fn a_proxy_that_the_kernel_kills_for_its_memory_serves_two_seconds_after_its_start() -> Result<()> {
    let meshed = Meshed::open("t-memory")?;
    breaking(&meshed, || {
        let cluster = meshed.cluster();
        let flooder = flooder(&meshed)?;
        for node in ["node1", "node2"] {
            let capture = Capture::start(cluster, "node1")?;
            let load = meshed.ns.mix("server", &meshed.requests())?;
            let proxy = cluster.process(node, "weft-node-proxy")?;
            let mut flood = Flood::open(flooder, echo(&meshed)?, 200)?;
            let short = clock()?;
            proxy.limit_memory(proxy.memory()? + (2 << 20))?;
            eventually("the proxy to need more than it may have", PATIENCE, || {
                flood.push();
                ensure!(proxy.memory().is_err(), "{node}: it has enough");
                Ok(())
            })?;
            let started = cluster.started_after(node, "weft-node-proxy", proxy)?;
            load.goes_on()?;
            let failed = failed_only_between(&load.outcomes()?, short, started)?;
            eprintln!("{node}: started after {:.1} s; {failed} requests failed", started - short);
            eventually("why it ended", PATIENCE, || {
                let reason = last_end(cluster, node)?;
                ensure!(reason == "OOMKilled", "{node}: {reason}");
                Ok(())
            })?;
            capture.shows_no_request(&meshed.ns)?;
            meshed.is_strict()?;
        }
        Ok(())
    })
}

/// Connections whose buffers are full are let go before there is no memory; everybody else is answered.
#[test]
#[ignore = "needs a cluster"]
fn a_proxy_with_little_memory_lets_connections_go_and_lives() -> Result<()> {
    let meshed = Meshed::open("t-little-memory")?;
    let beside = Meshed::open("t-little-memory-beside")?;
    breaking(&meshed, || {
        let cluster = meshed.cluster();
        let proxies = ["-n", SYSTEM, "daemonset/weft-node-proxy"];
        let resources = &cluster.json(&proxies)?["spec"]["template"]["spec"]["containers"][0]["resources"];
        let before = resources["limits"]["memory"].as_str().context("no limit")?.to_owned();
        let limit = |memory: &str| {
            let limit = format!("--limits=memory={memory}");
            cluster.k(&["-n", SYSTEM, "set", "resources", "daemonset/weft-node-proxy", &limit])?;
            cluster.wait_rollout(SYSTEM, "daemonset/weft-node-proxy")
        };
        limit("192Mi")?;
        let outcome = flooded(&meshed, &beside);
        // Whatever happened: the next test needs it.
        limit(&before)?;
        outcome
    })
}

fn flooded(meshed: &Meshed, beside: &Meshed) -> Result<()> {
    let proxy = |node| meshed.cluster().process(node, "weft-node-proxy");
    let proxies = [proxy("node1")?, proxy("node2")?];
    let load = beside.ns.mix("server", &Mix { streams: 5, connections: 10, ..beside.requests() })?;
    // Twice as much as there is, if each held no more than its stream's window.
    let mut flood = Flood::open(flooder(meshed)?, echo(meshed)?, 800)?;
    let (opened, mut most) = (flood.0.len(), 0);
    while load.goes_on().is_ok() {
        flood.push();
        for proxy in proxies {
            most = most.max(proxy.memory().context("a proxy was killed")?);
        }
    }
    let open = flood.push();
    eprintln!("of {opened} connections {open} were left; a proxy had {} MiB at most", most >> 20);
    ensure!(open < opened, "all could stay: that was no flood");
    ensure!([proxy("node1")?, proxy("node2")?] == proxies, "a proxy was killed");
    // Whoever floods has the cores, too: how soon an answer comes isn't judged.
    let outcomes = load.outcomes()?;
    ensure!(failures(&outcomes).is_empty(), "beside a flood: {:?}", failures(&outcomes));
    Ok(())
}
