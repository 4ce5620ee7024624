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
mod edits;
mod measure;
mod objects;
mod programs;
mod report;
mod store;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use self::api::Api;
use self::clients::Clients;
use self::edits::Plan;
use self::measure::{Process, bytes_sent, load_average};
use self::objects::Size;
use self::programs::Programs;
use self::report::{Row, Rows};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the idle cost is measured.
const IDLE: Duration = Duration::from_secs(10);
/// How long everything may take to settle at the largest size.
const PATIENCE: Duration = Duration::from_secs(900);

/// The control plane on a large cluster.
#[derive(Debug, Parser)]
struct Args {
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
    let mut rows = Rows::default();
    let all: Vec<_> = args.sizes.iter().map(|s| (*s, args.clients)).chain(args.alone.iter().map(|s| (*s, 1))).collect();
    let nodes = args.clients.max(1);
    objects::base(&api, nodes).await?;
    let programs = Programs::prepare(&api, &args.programs, &args.folder, nodes).await?;
    let mut made = Size::default();
    for (size, clients) in all {
        let began = Instant::now();
        objects::grow(&api, made, size, nodes).await.with_context(|| format!("objects of {size}"))?;
        println!("{size}: objects made in {:.0} s", began.elapsed().as_secs_f64());
        let plan = Plan { from: made, to: size, nodes, edits: args.edits };
        made = size;
        let row = one_size(&api, &programs, plan, clients).await.with_context(|| size.to_string())?;
        rows.add(row);
        println!("{rows}");
        if let Some(path) = &args.out {
            std::fs::write(path, format!("{:#}\n", rows.to_json())).with_context(|| path.display().to_string())?;
        }
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
