//! The measurements between client and backend, round by round.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use weft_bench::{Metric, REFERENCE, Report};

use crate::Args;
use crate::envoy::Between;
use crate::files::{BACKEND, Files};
use crate::load::{BUSY, Rate, Wrk, h2load, steady, wrk};
use crate::pairs::{self, Pairs};
use crate::programs::{Front, Peer, Spec};

const PLAIN_H1: &str = "plain h1";
const PLAIN_H2: &str = "plain h2";
const MESH: &str = "mesh";
const MESH_POLICY: &str = "mesh L7";
/// Connections of the main load.
const CONNECTIONS: usize = 64;
/// Requests per second at which the latency of an unparsed connection is compared.
const L4_RATE: f64 = 1000.0;
/// How many requests a second of the proxy's processor time is good for. A fast proxy waits for client and backend, which have
/// one core together: the rate is theirs then.
pub const PER_CORE: &str = "requests per core";
/// How the report calls the backend without anything in front.
const DIRECT: &str = "(direct)";

/// One proxy between client and backend.
///
/// # Errors
/// When the backend or an installed peer doesn't start, or a load generator fails.
pub fn plain(args: &Args, report: &mut Report) -> Result<()> {
    let files = Files::new()?;
    let _backend = Peer::start(files.backend(weft_testkit::Netns::here(), BACKEND.ip())?, args.load_core)?;
    let mut specs = vec![files.envoy_plain()?, files.nginx()?, files.haproxy()?];
    for (name, program) in args.wefts()? {
        specs.push(files.weft_plain(name, &program)?);
    }
    let peers = start(specs, args, report)?;
    for round in 1..=args.rounds {
        eprintln!("plain: round {round} of {}", args.rounds);
        let rate = wrk(&requests(&Front::here(BACKEND)), args.load_core, args.time())?;
        report.add(
            Metric { scenario: PLAIN_H1, name: "requests", unit: "1/s" },
            DIRECT,
            rate.per_second,
            rate.failures,
        );
        for peer in &peers {
            measured(peer, PLAIN_H1, report, || wrk(&requests(&peer.h1), args.load_core, args.time()))?;
        }
        for peer in &peers {
            let Some(front) = &peer.h2 else { continue };
            measured(peer, PLAIN_H2, report, || h2load(front, BUSY, args.load_core, args.time()))?;
        }
    }
    Ok(())
}

/// A pair of proxies with mutual TLS between them.
///
/// # Errors
/// As [`plain`].
pub fn mesh(args: &Args, report: &mut Report) -> Result<()> {
    let files = Files::new()?;
    let mut world = Pairs::new()?;
    let direct = world.pods(&files, "direct", args.load_core)?;
    let (mut specs, mut policies) = (Vec::new(), Vec::new());
    let mut envoy = |name, file: &str, between| {
        let pods = world.pods(&files, file, args.load_core)?;
        pairs::envoy(name, &files, pods, (file, between))
    };
    specs.push(envoy(REFERENCE, "envoy", Between::Http2)?);
    specs.push(envoy("envoy-h1", "envoy-h1", Between::Http1Bytes)?);
    policies.push(envoy(REFERENCE, "envoy-l7", Between::Http2Policy)?);
    for (name, program) in args.wefts()? {
        let pods = world.pods(&files, name, args.load_core)?;
        specs.push(pairs::weft(name, &files, pods, (name, &program, false))?);
        let file = format!("{name}-l7");
        let pods = world.pods(&files, &file, args.load_core)?;
        policies.push(pairs::weft(name, &files, pods, (&file, &program, true))?);
    }
    let (peers, policies) = (start(specs, args, report)?, start(policies, args, report)?);
    for round in 1..=args.rounds {
        eprintln!("mesh: round {round} of {}", args.rounds);
        if args.measures("requests") {
            for (scenario, peers) in [(MESH, &peers), (MESH_POLICY, &policies)] {
                for peer in peers {
                    measured(peer, scenario, report, || wrk(&requests(&peer.h1), args.load_core, args.time()))?;
                }
            }
        }
        bulk_and_churn(&peers, args, report)?;
        // The same rate for everybody, or the numbers would be of different work.
        let half = report.median(MESH, "requests", REFERENCE).or(report.median(MESH, "requests", "weft"));
        if let Some(rate) = half.filter(|_| args.measures("half")) {
            for peer in &peers {
                at_half_load(peer, rate / 2.0, args, report)?;
            }
        }
        if args.measures("L4") {
            unparsed(&peers, &pairs::direct(&direct), args, report)?;
        }
    }
    Ok(())
}

impl Args {
    /// This program, and another build of it to compare with.
    pub fn wefts(&self) -> Result<Vec<(&'static str, PathBuf)>> {
        let this = ("weft", std::env::current_exe()?);
        let before = self.before.clone().map(|program| ("weft-before", program));
        Ok([this].into_iter().chain(before).collect())
    }
}

/// The main load.
pub fn requests(front: &Front) -> Wrk<'_> {
    Wrk { front, path: "/1k", connections: CONNECTIONS, reconnect: false }
}

/// Starts those that take part and are installed.
///
/// # Errors
/// When one of them doesn't serve.
pub fn start(specs: Vec<Spec>, args: &Args, report: &mut Report) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for spec in specs.into_iter().filter(|spec| args.takes_part(spec.name)) {
        match spec.missing() {
            Some(program) => report.leave_out(spec.name, &format!("{program} isn't installed")),
            None => peers.push(Peer::start(spec, args.proxy_core)?),
        }
    }
    Ok(peers)
}

/// Runs a load and notes its rate and what it cost the peer.
///
/// # Errors
/// When the load can't be run or the peer is gone.
pub fn measured(
    peer: &Peer,
    scenario: &'static str,
    report: &mut Report,
    load: impl Fn() -> Result<Rate>,
) -> Result<()> {
    let before = peer.usage()?;
    let rate = load()?;
    let after = peer.usage()?;
    let mut note = |name, unit, value| {
        report.add(Metric { scenario, name, unit }, peer.name, value, rate.failures);
    };
    note("requests", "1/s", rate.per_second);
    let core = after.cpu - before.cpu;
    note(PER_CORE, "1/s", rate.requests as f64 / core.as_secs_f64());
    note("of its core", "%", core.as_secs_f64() * rate.per_second / rate.requests as f64 * 100.0);
    note("CPU per request", "us", micros(core) / rate.requests as f64);
    note("memory", "MiB", mib(after.memory));
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn bulk_and_churn(peers: &[Peer], args: &Args, report: &mut Report) -> Result<()> {
    let megabytes = f64::from(1 << 20) / 1e6;
    let http = |peer: &Peer| Some(peer.h1.clone());
    let bytes = |peer: &Peer| peer.tcp.clone();
    type Pick<'a> = &'a dyn Fn(&Peer) -> Option<Front>;
    let kinds: [(&str, Pick<'_>, bool); 4] = [
        ("bulk over HTTP, 8 x 1 MiB", &http, false),
        ("bulk unparsed, 8 x 1 MiB", &bytes, false),
        ("new connections", &http, true),
        ("new connections, unparsed", &bytes, true),
    ];
    for (name, pick, reconnect) in kinds.into_iter().filter(|(name, ..)| args.measures(name)) {
        for (peer, front) in peers.iter().filter_map(|peer| Some((peer, pick(peer)?))) {
            let (path, connections) = if reconnect { ("/1k", CONNECTIONS) } else { ("/1m", 8) };
            let load = Wrk { front: &front, path, connections, reconnect };
            let before = peer.usage()?;
            let rate = wrk(&load, args.load_core, args.time())?;
            let cpu = micros(peer.usage()?.cpu - before.cpu) / rate.requests as f64;
            let (unit, value) = if reconnect { ("1/s", 1.0) } else { ("MB/s", megabytes) };
            let mut note = |name: &str, unit, value| {
                report.add(Metric { scenario: MESH, name, unit }, peer.name, value, rate.failures);
            };
            note(name, unit, rate.per_second * value);
            note(&format!("CPU of one: {name}"), "us", cpu);
        }
    }
    Ok(())
}

fn at_half_load(peer: &Peer, rate: f64, args: &Args, report: &mut Report) -> Result<()> {
    let before = peer.usage()?;
    let result = steady(&peer.h1, CONNECTIONS, rate, args.load_core, args.time())?;
    let after = peer.usage()?;
    let mut note = |name, unit, value| {
        report.add(Metric { scenario: MESH, name, unit }, peer.name, value, result.failed());
    };
    let thousands = result.ok as f64 / 1000.0;
    note("p50 at half of Envoy's rate", "us", micros(result.quantile(0.5)));
    note("p99 at half of Envoy's rate", "us", micros(result.quantile(0.99)));
    note("CPU for 1,000 requests at that rate", "ms", micros(after.cpu - before.cpu) / 1000.0 / thousands);
    note("memory at that rate", "MiB", mib(after.memory));
    Ok(())
}

/// What a pair that doesn't look at the bytes adds to a request's latency.
fn unparsed(peers: &[Peer], direct: &Front, args: &Args, report: &mut Report) -> Result<()> {
    let run = |front: &Front| steady(front, 8, L4_RATE, args.load_core, args.time());
    let base = run(direct)?;
    let metric = |name| Metric { scenario: MESH, name, unit: "us" };
    report.add(metric("L4 p99 at 1,000/s"), DIRECT, micros(base.quantile(0.99)), base.failed());
    for peer in peers {
        let Some(front) = &peer.tcp else { continue };
        let result = run(front)?;
        let added = |share| micros(result.quantile(share)) - micros(base.quantile(share));
        report.add(metric("L4 p99 at 1,000/s"), peer.name, micros(result.quantile(0.99)), result.failed());
        report.add(metric("L4 p50 added at 1,000/s"), peer.name, added(0.5), result.failed());
        report.add(metric("L4 p99 added at 1,000/s"), peer.name, added(0.99), result.failed());
    }
    Ok(())
}

/// As the report has times.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
