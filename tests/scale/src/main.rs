//! `weft-scale`: what the control plane costs on a large cluster. `run.sh` beside it brings the API server up and takes it
//! down; `make bench-scale` runs it.
//!
//! ```text
//!  etcd, kube-apiserver <--objects-- weft-scale --edits-->
//!        | watch                        ^ 200 delta xDS clients, each with its node's token
//!        v                              |
//!  weft-controller ----delta xDS, mTLS--+--> one weft-node-proxy
//!        ^ certificate
//!  weft-ca
//! ```
//!
//! [`objects`]: the cluster. [`api`], [`store`]: writing to it. [`programs`]: the real programs and their tokens. [`clients`]: the
//! simulated nodes. [`measure`]: memory, processor time and bytes of a process. [`edits`]: edits and how long they take.
//! [`report`]: the table.
//!
//! `--only gateway` and `--only listener-sets` measure Gateways, with the process of one in place of the node proxy and with
//! traffic: [`gateway`], [`sets`]; [`edge`]: their objects; [`traffic`]: applications and clients; [`sheet`]: what was measured, and
//! what it may be.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark: it may end where it can't go on"
)]

mod api;
mod clients;
mod edge;
mod edits;
mod gateway;
mod measure;
mod objects;
mod programs;
mod report;
mod sets;
mod sheet;
mod store;
mod told;
mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use self::api::Api;
use self::clients::Clients;
use self::edits::Plan;
use self::measure::{Process, bytes_sent, load_average};
use self::objects::Size;
use self::programs::Programs;
use self::report::{Row, Rows};
use self::sets::Sets;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the idle cost is measured.
const IDLE: Duration = Duration::from_secs(10);
/// How long everything may take to settle at the largest size.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is measured. Each part wants an API server without the objects of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Services, pods and routes of a mesh, with many nodes.
    Mesh,
    /// A Gateway with thousands of routes.
    Gateway,
    /// A Gateway with thousands of ListenerSets.
    ListenerSets,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Gateway => "gateway",
            Self::ListenerSets => "listener-sets",
        }
    }
}

/// The control plane on a large cluster.
#[derive(Debug, Parser)]
struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value = "mesh")]
    only: Part,
    /// Routes of the Gateway
    #[arg(long, default_value_t = 5000, value_parser = positive)]
    routes: usize,
    /// Routes that are added to it one by one, at rest and again beside churn
    #[arg(long, default_value_t = 300, value_parser = positive)]
    adds: usize,
    /// Routes that are edited once a second each for that churn
    #[arg(long, default_value_t = 100, value_parser = positive)]
    churn: usize,
    /// Edits of a live route
    #[arg(long, default_value_t = 20, value_parser = positive)]
    live_edits: usize,
    /// Routes that are attached to one Gateway at once
    #[arg(long, default_value_t = 1000, value_parser = positive)]
    attached: usize,
    /// ListenerSets and their routes, smallest first: SETSxROUTES
    #[arg(long, value_delimiter = ',', default_value = "625x10000,2500x40000")]
    sets: Vec<Sets>,
    /// Sizes to measure with all clients, smallest first: SERVICESxPODS
    #[arg(long, value_delimiter = ',', default_value = "100x1000,1000x10000")]
    sizes: Vec<Size>,
    /// Sizes to measure after those, with one client
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "10000x100000")]
    alone: Vec<Size>,
    /// Clients
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Edits of each kind
    #[arg(long, default_value_t = 200)]
    edits: usize,
    /// Where to write the numbers as JSON
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the programs are
    #[arg(long)]
    programs: PathBuf,
    /// A folder for files of this run
    #[arg(long)]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::connect().await?;
    let nodes = if args.only == Part::Mesh { args.clients.max(1) } else { 1 };
    objects::base(&api, nodes).await?;
    let programs = Programs::prepare(&api, &args.programs, &args.folder, nodes).await?;
    let sheet = match args.only {
        Part::Mesh => return mesh(&args, &api, &programs, nodes).await,
        Part::Gateway => gateway::measure(&api, &programs, args.gateway_plan()).await?,
        Part::ListenerSets => sets::measure(&api, &programs, &args.sets, args.live_edits).await?,
    };
    args.write(json!({ (args.only.name()): sheet.to_json() }))
}

impl Args {
    fn gateway_plan(&self) -> gateway::Plan {
        let Self { routes, adds, churn, live_edits: edits, attached, .. } = *self;
        gateway::Plan { routes, adds, churn, edits, attached }
    }

    /// Puts numbers into the file that is asked for, beside those that are there of other parts.
    fn write(&self, numbers: Value) -> anyhow::Result<()> {
        let Some(path) = &self.out else { return Ok(()) };
        let before = std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let mut all = before.filter(Value::is_object).unwrap_or_else(|| json!({}));
        for (name, value) in numbers.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        std::fs::write(path, format!("{all:#}\n")).with_context(|| path.display().to_string())
    }
}

/// The mesh, in all its sizes.
async fn mesh(args: &Args, api: &Api, programs: &Programs, nodes: usize) -> anyhow::Result<()> {
    let mut rows = Rows::default();
    let all: Vec<_> = args.sizes.iter().map(|s| (*s, args.clients)).chain(args.alone.iter().map(|s| (*s, 1))).collect();
    let mut made = Size::default();
    for (size, clients) in all {
        let began = Instant::now();
        objects::grow(api, made, size, nodes).await.with_context(|| format!("objects of {size}"))?;
        println!("{size}: objects made in {:.0} s", began.elapsed().as_secs_f64());
        let plan = Plan { from: made, to: size, nodes, edits: args.edits };
        made = size;
        let row = one_size(api, programs, plan, clients).await.with_context(|| size.to_string())?;
        rows.add(row);
        println!("{rows}");
        args.write(rows.to_json())?;
    }
    Ok(())
}

/// Measures one size: the controller anew, then clients, then edits.
async fn one_size(api: &Api, programs: &Programs, plan: Plan, count: usize) -> anyhow::Result<Row> {
    let mut row = Row::new(plan.to, count);
    let began = Instant::now();
    let controller = programs.controller().await?;
    let process = Process::of(controller.id());
    controller.ready(PATIENCE).await?;
    row.set("controller: start to ready, s", began.elapsed().as_secs_f64());
    row.set("controller: CPU of the start, s", process.cpu()?.as_secs_f64());
    row.set("controller: memory without clients, MiB", process.memory()?);
    row.set("resources", controller.metric("weft_controller_resources").await?);

    let (began, cpu) = (Instant::now(), process.cpu()?);
    let clients = Clients::connect(programs, count)?;
    clients.synced(PATIENCE).await?;
    row.set("clients: first to last in sync, s", began.elapsed().as_secs_f64());
    row.set("controller: CPU until all are in sync, s", (process.cpu()? - cpu).as_secs_f64());
    row.set("sent until all are in sync, MiB", bytes_sent(programs::XDS)? / f64::from(1 << 20));
    row.set("controller: memory with clients, MiB", process.memory()?);

    let proxy = programs.proxy().await?;
    let of_proxy = Process::of(proxy.id());
    // What it has is saved some seconds after the last change.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let (began, cpu) = (Instant::now(), process.cpu()?);
    tokio::time::sleep(IDLE).await;
    let share = (process.cpu()? - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    row.set("controller: idle, % of a core", share * 100.0);
    row.set("load average of the machine", load_average()?);

    for kind in edits::KINDS {
        let cost = edits::run(api, &clients, process, kind, plan).await.with_context(|| kind.name())?;
        row.edit(kind.name(), &cost);
    }
    row.set("controller: memory at the end, MiB", process.memory()?);
    row.set("controller: most memory, MiB", process.peak()?);
    row.set("node proxy: memory, MiB", of_proxy.memory()?);
    row.set("node proxy: most memory, MiB", of_proxy.peak()?);
    row.note("nacks", json!(controller.metric("weft_controller_nacks_total").await.unwrap_or(0.0)));
    drop(clients);
    proxy.end().await?;
    controller.end().await?;
    Ok(row)
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number above 0".to_owned())
}
