//! A snapshot of a large cluster in memory: how much of it, how long to apply, how long to match.
//!
//! Each size is measured in a process of its own, so that memory freed by one doesn't hide what the next needs.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use weft_core::change::{Change, MeshConfig, Resource};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{Port, RouteKey, RouteKind, RuleKey, ServiceKey, ServicePortKey};
use weft_core::matching::RequestFacts;
use weft_core::route::{Created, HttpAction, HttpMatch, HttpRule, Parent, PathMatch, RouteRule, Timeouts};
use weft_core::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, EndpointSlice, Service, ServiceKind, ServicePort, SliceKey,
    SlicePort, TrafficDistribution,
};
use weft_core::snapshot::{RouteSet, Snapshot};
use weft_core::workload::{Enrolment, Owner, Workload};

use weft_bench::{Metric, Report};

use crate::Args;
use crate::files::{BACKEND, Files};
use crate::programs::Peer;

const SCENARIO: &str = "snapshot";
/// Endpoints, each a workload; one Service for ten.
const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const PER_SERVICE: u32 = 10;
/// Rules on one Service port.
const ROUTES: [u32; 2] = [10, 5_000];
/// Lookups of one measurement.
const LOOKUPS: u32 = 1_000_000;
/// Edits of one endpoint each.
const EDITS: u32 = 200;

/// What one size costs.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    memory_mib: f64,
    apply_ms: f64,
    edit_us: f64,
    lookup_ns: f64,
}

/// Measures all sizes.
///
/// # Errors
/// When a process for a size fails.
pub fn measure(args: &Args, report: &mut Report) -> Result<()> {
    for _ in 0..args.rounds {
        for size in SIZES {
            let mut command = Command::new("/proc/self/exe");
            command.args(["--snapshot-endpoints", &size.to_string()]);
            let out = command.output()?;
            ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let cost: Cost = serde_json::from_slice(&out.stdout)?;
            let mut note = |name: &str, unit, value| {
                let name = format!("{name}, {size} endpoints");
                report.add(Metric { scenario: SCENARIO, name: &name, unit }, "weft", value, 0);
            };
            note("memory", "MiB", cost.memory_mib);
            note("apply all", "ms", cost.apply_ms);
            note("apply one endpoint", "us", cost.edit_us);
            note("look an address up", "ns", cost.lookup_ns);
        }
        for count in ROUTES {
            let (apply, find) = routes(count)?;
            let memory = process_with(count, args)?;
            let mut note = |name: &str, unit, value| {
                let name = format!("{name}, {count} rules");
                report.add(Metric { scenario: SCENARIO, name: &name, unit }, "weft", value, 0);
            };
            note("apply one rule", "ms", apply);
            note("match a request", "ns", find);
            note("memory of the proxy", "MiB", memory);
        }
    }
    Ok(())
}

/// Measures one size in this process and prints it.
///
/// # Errors
/// When the process can't look at itself.
pub fn measure_size(size: u32) -> Result<()> {
    let before = resident()?;
    let changes = cluster(size);
    let began = Instant::now();
    let mut snapshot = Snapshot::default().apply(&changes);
    let apply_ms = began.elapsed().as_secs_f64() * 1e3;
    // The resources are shared with the snapshot; only the list of changes goes.
    drop(changes);
    let memory_mib = (resident()? - before) / f64::from(1 << 20);
    let edits: Vec<_> = (0..EDITS).map(|n| slice(n % (size / PER_SERVICE), EndpointHealth::NotReady)).collect();
    let began = Instant::now();
    for edit in &edits {
        snapshot = snapshot.apply(std::slice::from_ref(edit));
    }
    let edit_us = began.elapsed().as_secs_f64() * 1e6 / f64::from(EDITS);
    let began = Instant::now();
    for n in 0..LOOKUPS {
        black_box(snapshot.address(pod(n.wrapping_mul(2_654_435_761) % size)));
    }
    let lookup_ns = began.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS);
    println!("{}", serde_json::to_string(&Cost { memory_mib, apply_ms, edit_us, lookup_ns })?);
    Ok(())
}

/// Milliseconds to apply one more rule beside so many, and nanoseconds to find the right one.
fn routes(count: u32) -> Result<(f64, f64)> {
    let mut changes = vec![service(0)];
    changes.extend((0..count).map(rule));
    let snapshot = Snapshot::default().apply(&changes);
    let began = Instant::now();
    let snapshot = snapshot.apply(&[rule(count)]);
    let apply_ms = began.elapsed().as_secs_f64() * 1e3;
    let key = ServicePortKey { service: ServiceKey::new("bench", "s0"), port: port(80) };
    let frontend = snapshot.frontend(&key).context("no frontend")?;
    let RouteSet::Http(table) = frontend.routes_for(&"bench".into()) else { bail!("no routes: {frontend:?}") };
    let headers = HeaderMap::new();
    let paths: Vec<_> = (0..=count).map(|n| format!("/team-{}/app-{n}/orders", n % 100)).collect();
    let began = Instant::now();
    for n in 0..LOOKUPS {
        let path = &paths[(n.wrapping_mul(2_654_435_761) % count) as usize];
        let facts = RequestFacts { method: &Method::GET, host: "s0.bench", path, query: None, headers: &headers };
        black_box(table.find(&facts).context("no rule")?);
    }
    Ok((apply_ms, began.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)))
}

/// MiB of a proxy that serves with so many rules.
fn process_with(count: u32, args: &Args) -> Result<f64> {
    let files = Files::new()?;
    let _backend = Peer::start(files.backend(weft_testkit::Netns::here(), BACKEND.ip())?, args.load_core)?;
    let proxy = Peer::start(files.weft_with_routes(count)?, args.proxy_core)?;
    Ok(proxy.usage()?.memory as f64 / f64::from(1 << 20))
}

fn resident() -> Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).context("a short statm")?.parse()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("no page size")?;
    Ok(pages * page as f64)
}

fn cluster(size: u32) -> Vec<Change> {
    let mesh = MeshConfig { cluster_ranges: vec!["10.0.0.0/8".parse().expect("a range")], ..MeshConfig::default() };
    let services = (0..size / PER_SERVICE).flat_map(|n| [service(n), slice(n, EndpointHealth::Ready)]);
    let workloads = (0..size).map(workload);
    [Change::Upsert(Resource::Mesh(Arc::new(mesh)))].into_iter().chain(services).chain(workloads).collect()
}

fn port(number: u16) -> Port {
    Port::new(number).expect("not 0")
}

fn pod(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n + 1).into()
}

fn workload(n: u32) -> Change {
    let name = format!("s{}-7d9c5b8f6d-{n:05x}", n / PER_SERVICE);
    Change::Upsert(Resource::Workload(Arc::new(Workload {
        uid: format!("Kubernetes//Pod/bench/{name}").into(),
        namespace: "bench".into(),
        name: name.into(),
        identity: SpiffeId::new(TrustDomain::default(), "bench", format!("s{}", n / PER_SERVICE)),
        addresses: vec![pod(n)],
        node: format!("node-{}", n % 1000).into(),
        zone: None,
        enrolment: Enrolment::Enrolled,
        owner: Owner {
            kind: "Deployment".into(),
            name: format!("s{}", n / PER_SERVICE).into(),
            app: format!("s{}", n / PER_SERVICE),
            version: "v1".into(),
        },
        policies: vec![],
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    })))
}

fn service(n: u32) -> Change {
    Change::Upsert(Resource::Service(Arc::new(Service {
        key: ServiceKey::new("bench", format!("s{n}")),
        addresses: vec![Ipv4Addr::from_bits(0xac10_0000 + n).into()],
        ports: vec![ServicePort { name: "http".into(), port: port(80), protocol: AppProtocol::Http }],
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::PeakEwma,
        traffic: None,
    })))
}

/// The endpoints of a Service; the first has the given health.
fn slice(n: u32, first: EndpointHealth) -> Change {
    let endpoint = |i: u32| {
        let pod_name = n * PER_SERVICE + i;
        Endpoint {
            address: pod(pod_name),
            workload: Some(format!("Kubernetes//Pod/bench/s{n}-7d9c5b8f6d-{pod_name:05x}").into()),
            health: if i == 0 { first } else { EndpointHealth::Ready },
            node: Some(format!("node-{}", pod_name % 1000).into()),
            zone: None,
        }
    };
    Change::Upsert(Resource::EndpointSlice(Arc::new(EndpointSlice {
        key: SliceKey { namespace: "bench".into(), name: format!("s{n}-x").into() },
        service: ServiceKey::new("bench", format!("s{n}")),
        ports: vec![SlicePort { name: "http".into(), port: port(8080) }],
        endpoints: (0..PER_SERVICE).map(endpoint).collect(),
    })))
}

fn rule(n: u32) -> Change {
    let port = ServicePortKey { service: ServiceKey::new("bench", "s0"), port: port(80) };
    let path = PathMatch::Prefix(format!("/team-{}/app-{n}", n % 100));
    let route = RouteKey { kind: RouteKind::Http, namespace: "bench".into(), name: format!("r{n}").into() };
    Change::Upsert(Resource::Rule(Arc::new(RouteRule::Http(HttpRule {
        key: RuleKey { route, index: 0 },
        name: None,
        created: Created::default(),
        parents: vec![Parent::Service { port, consumer: None }],
        hostnames: vec![],
        matches: vec![HttpMatch { path, method: None, headers: vec![], query: vec![] }],
        filters: vec![],
        action: HttpAction::Forward(vec![]),
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }))))
}
