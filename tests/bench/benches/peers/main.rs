//! Weft beside its peers: the same work, one core for the proxy, another for client and backend, in one run.
//!
//! `make bench` runs it. Everything happens in network namespaces of its own, so that ports are free and nothing outlives
//! the run. Rounds alternate between the peers, so that a machine that slows down slows all of them; what is printed is
//! the median of the rounds, and the median of each round's ratio to Envoy. Processor time per request is read beside every
//! rate: neighbours on the machine hardly disturb it.
//!
//! ```text
//!   plain   client ---------------- proxy ---------------- backend        HTTP/1.1 and HTTP/2, one proxy
//!   tls     client == TLS ========= proxy ---------------- backend        the same, and new connections
//!   mesh    client -- HTTP/1.1 -- proxy == mTLS == proxy -- backend        a pair of proxies on one core
//! ```
//!
//! Metrics, routing and (in the mesh) a policy on the client's identity are on for everybody, access logs off. Weft's pair
//! speaks HBONE and its server side relays bytes; Envoy's pair speaks HTTP/2 over mutual TLS and both sides parse HTTP, as
//! its meshes do; `envoy-h1` is what Envoy can do at best for the same work as Weft: HTTP/1.1 over kept TLS connections and
//! bytes at the server's side. `mesh L7` has a policy on each request at the server's side, for both.
//!
//! `observability` is Weft beside itself: one proxy, and a pair that parses HTTP on both sides, with metrics, access log and
//! traces on and off.
//!
//! `tls` is the process of a Gateway; whole and resumed handshakes have one request each, HTTP/3 is measured of those that speak
//! it. What Weft is to have of the rest is printed as goals.
//!
//! A peer that isn't installed is named as left out; a failed request is counted beside the number it spoils.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark: a panic is how it says that it can't go on"
)]

mod envoy;
mod files;
mod gateway;
mod handshakes;
mod http3;
mod load;
mod matching;
mod node;
mod pairs;
mod programs;
mod rounds;
mod seeing;
mod termination;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use weft_bench::Report;
use weft_node_proxy::plain::Plain;
use weft_node_proxy::process::start_logging;

/// What the product's own binary allocates with: one of the processes here is Weft's proxy.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One proxy between client and backend.
    Plain,
    /// One proxy that ends TLS.
    Tls,
    /// A pair of proxies with mutual TLS between them.
    Mesh,
    /// What metrics, access log and traces cost.
    Observability,
    /// A snapshot of a large cluster: memory, time to apply, time to match.
    Snapshot,
}

/// Measures Weft beside Envoy, nginx and HAProxy.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// What to measure; everything, when none is given.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Rounds of each measurement and peer.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The core of the proxies.
    #[arg(long, default_value_t = 1)]
    proxy_core: usize,
    /// The core of client and backend.
    #[arg(long, default_value_t = 0)]
    load_core: usize,
    /// Peers that take part (`envoy`, `envoy-h1`, `nginx`, `haproxy`, `weft`, `weft-before`); all, when none is given.
    #[arg(long)]
    peer: Vec<String>,
    /// Measurements to make, by a part of their name (`requests`, `bulk`, `L4`); all, when none is given.
    #[arg(long)]
    measure: Vec<String>,
    /// Another build of this program: its proxies take part as `weft-before`.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Also write the results, as JSON, to this file.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measures one size of a snapshot in this process.
    #[arg(long, hide = true)]
    snapshot_endpoints: Option<u32>,
    /// Is Weft as one proxy, with this configuration.
    #[arg(long, hide = true)]
    serve_plain: Option<PathBuf>,
    /// Is Weft on one node, with this configuration.
    #[arg(long, hide = true)]
    serve_node: Option<PathBuf>,
    /// Is Weft's process of a Gateway, with this configuration.
    #[arg(long, hide = true)]
    serve_gateway: Option<PathBuf>,
    /// Takes spans at this port and forgets them.
    #[arg(long, hide = true)]
    serve_collector: Option<u16>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn takes_part(&self, peer: &str) -> bool {
        self.peer.is_empty() || self.peer.iter().any(|name| name == peer)
    }

    fn measures(&self, name: &str) -> bool {
        self.measure.is_empty() || self.measure.iter().any(|part| name.contains(part.as_str()))
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn described(&self) -> Result<serde_json::Value> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpus = std::thread::available_parallelism()?.get();
        Ok(serde_json::json!({
            "kernel": kernel.trim(), "cpus": cpus, "rounds": self.rounds, "seconds": self.seconds,
        }))
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(size) = args.snapshot_endpoints {
        return matching::measure_size(size);
    }
    if [&args.serve_plain, &args.serve_node, &args.serve_gateway].into_iter().any(Option::is_some) {
        // As the product does: without anybody to take them, spans of libraries are offered to another logger at every turn.
        start_logging("info")?;
    }
    if let Some(config) = args.serve_plain {
        Plain::start(&serde_json::from_slice(&std::fs::read(config)?)?)?.wait();
        return Ok(());
    }
    if let Some(config) = args.serve_node {
        return node::serve(&config);
    }
    if let Some(config) = args.serve_gateway {
        return gateway::serve(&config);
    }
    if let Some(port) = args.serve_collector {
        return seeing::collect(port);
    }
    weft_testkit::harness::enter()?;
    ensure!(args.rounds > 0 && args.seconds > 0, "nothing to measure");
    ensure!(args.proxy_core != args.load_core, "proxy and load on one core measure each other");
    weft_testkit::Netns::here().ip(&["link set lo up"])?;
    weft_testkit::Netns::here().sysctl("ipv4/ip_local_port_range", "12000 65535")?;
    let mut report = Report::default();
    if args.wants(Part::Plain) {
        rounds::plain(&args, &mut report)?;
    }
    if args.wants(Part::Tls) {
        termination::measure(&args, &mut report)?;
    }
    if args.wants(Part::Mesh) {
        rounds::mesh(&args, &mut report)?;
    }
    if args.wants(Part::Observability) {
        seeing::measure(&args, &mut report)?;
    }
    if args.wants(Part::Snapshot) {
        matching::measure(&args, &mut report)?;
    }
    print!("{report}");
    if let Some(out) = &args.out {
        let json = report.json(&args.described()?);
        std::fs::write(out, serde_json::to_string_pretty(&json)?)?;
    }
    Ok(())
}
