//! What it costs to be seen: Weft with metrics, access log and traces, beside itself without.
//!
//! All variants run in the same rounds, each round beginning with another one, and each number is one of its round: what is
//! told is the median of the rounds' ratios to the variant that tells nothing. Spans go to a collector of OTLP that
//! forgets them, on the core of client and backend; lines go to `/dev/null`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tonic::{Request, Response, Status};
use weft_api::opentelemetry::proto::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use weft_api::opentelemetry::proto::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use weft_bench::{Metric, Report};
use weft_testkit::{Netns, Process};

use crate::Args;
use crate::files::{BACKEND, Files};
use crate::load::{Rate, wrk};
use crate::node::{Lines, Told};
use crate::pairs::{self, Pairs};
use crate::programs::{Peer, Usage};
use crate::rounds::{micros, requests, start};

/// One proxy; and a pair that parses HTTP on both sides, so that every request is counted, logged and traced twice.
const ONE: &str = "seen";
const PAIR: &str = "seen pair";
/// What the others are compared with.
const NOTHING: &str = "nothing";
const METRICS: &str = "metrics";
/// Where the collector listens, in the benchmark's own namespace.
const COLLECTOR: u16 = 4317;
/// The most of a proxy's requests that metrics may cost, in percent.
const GOAL: f64 = 3.0;

/// Measures all variants.
///
/// # Errors
/// When a program doesn't start, or a load generator fails.
pub fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let files = Files::new()?;
    let _backend = Peer::start(files.backend(Netns::here(), BACKEND.ip())?, args.load_core)?;
    let _collector = collector(args)?;
    let program = std::env::current_exe()?;
    let plain = vec![
        files.weft_counting(NOTHING, &program, (9060, false))?,
        files.weft_counting(METRICS, &program, (9065, true))?,
    ];
    let mut world = Pairs::new()?;
    let mut pairs = Vec::new();
    for (n, (name, told)) in variants().into_iter().enumerate() {
        let file = format!("seen-{n}");
        let pods = world.pods(&files, &file, args.load_core)?;
        pairs.push(pairs::telling(name, &files, pods, (&file, &program, true), &told)?);
    }
    // Variants are all one peer.
    let everybody = Args { peer: Vec::new(), ..args.clone() };
    let (plain, pairs) = (start(plain, &everybody, report)?, start(pairs, &everybody, report)?);
    for round in 0..args.rounds {
        eprintln!("observability: round {} of {}", round + 1, args.rounds);
        for (scenario, peers) in [(ONE, &plain), (PAIR, &pairs)] {
            one_round(scenario, peers, round, args, report)?;
        }
    }
    for scenario in [ONE, PAIR] {
        if let Some(share) = report.median(scenario, SHARE, METRICS) {
            let cost = 100.0 - share;
            let word = if cost < GOAL { "goal reached" } else { "GOAL MISSED" };
            eprintln!("{scenario}: metrics cost {cost:.1} % of the requests (goal: under {GOAL} %): {word}");
        }
    }
    Ok(())
}

fn variants() -> Vec<(&'static str, Told)> {
    let told = |log, share: Option<f64>| {
        let traces = share.map(|share| (share, format!("http://127.0.0.1:{COLLECTOR}")));
        Told { metrics: true, log, traces }
    };
    vec![
        (NOTHING, Told { metrics: false, log: Lines::Off, traces: None }),
        (METRICS, told(Lines::Off, None)),
        ("log errors", told(Lines::Errors, None)),
        ("log all", told(Lines::All, None)),
        ("traces 1 %", told(Lines::Off, Some(0.01))),
        ("traces 100 %", told(Lines::Off, Some(1.0))),
        ("as shipped", told(Lines::Errors, Some(0.01))),
    ]
}

const SHARE: &str = "requests, of those of nothing";
const MORE: &str = "CPU per request, of that of nothing";

fn one_round(scenario: &'static str, peers: &[Peer], round: usize, args: &Args, report: &mut Report) -> Result<()> {
    let mut seen = Vec::with_capacity(peers.len());
    // Whoever is first in a round has another machine than whoever is last.
    let (before, after) = peers.split_at(round % peers.len().max(1));
    for peer in after.iter().chain(before) {
        let (rate, cpu) = run(peer, args)?;
        let mut note = |name, unit, value| {
            report.add(Metric { scenario, name, unit }, peer.name, value, rate.failures);
        };
        note("requests", "1/s", rate.per_second);
        note("CPU per request", "us", cpu);
        seen.push((peer.name, rate, cpu));
    }
    let (_, base, base_cpu) = seen.iter().find(|(name, ..)| *name == NOTHING).context("nothing to compare with")?;
    for (name, rate, cpu) in &seen {
        let failures = rate.failures + base.failures;
        let mut note = |metric, value| {
            report.add(Metric { scenario, name: metric, unit: "%" }, name, value, failures);
        };
        note(SHARE, 100.0 * rate.per_second / base.per_second);
        note(MORE, 100.0 * cpu / base_cpu);
    }
    Ok(())
}

/// A load, and the processor time of each of its requests, in microseconds.
fn run(peer: &Peer, args: &Args) -> Result<(Rate, f64)> {
    let Usage { cpu: before, .. } = peer.usage()?;
    let rate = wrk(&requests(&peer.h1), args.load_core, args.time())?;
    let spent = peer.usage()?.cpu - before;
    Ok((rate, micros(spent) / rate.requests.max(1) as f64))
}

/// The collector, as a process of its own.
fn collector(args: &Args) -> Result<Process> {
    let mut command = std::process::Command::new("taskset");
    command.arg("-c").arg(args.load_core.to_string()).arg(std::env::current_exe()?);
    command.arg("--serve-collector").arg(COLLECTOR.to_string());
    let mut process = Netns::here().start(command)?;
    process.wait_until(Duration::from_secs(20), |log| log.contains(LISTENING))?;
    Ok(process)
}

const LISTENING: &str = "collecting";

struct Forgetful;

#[tonic::async_trait]
impl TraceService for Forgetful {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Takes spans until it is killed.
///
/// # Errors
/// When the port can't be had.
pub fn collect(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        println!("{LISTENING}");
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(Forgetful);
        Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
    })
}
