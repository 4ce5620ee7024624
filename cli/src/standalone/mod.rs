//! `weft standalone`: a mesh without Kubernetes, one process per node that watches over that node's proxy.
//!
//! ```text
//!   primary:  directory -> index -> snapshot -> delta xDS,  authority,  sessions of nodes
//!   any node: session <- agent <- CNI plugin;  DNS;  node proxy as a child process, replaced on SIGHUP
//! ```
//!
//! The primary's own node is a node like any other: it speaks to the primary over the same socket with a token of its
//! own. The proxy is a process apart, so that it can be replaced, and can crash, without the rest; killed, this process
//! leaves it running, and its next start takes over from it.

mod access;
mod files;
mod member;
mod node;
mod primary;
mod session;
mod settings;
mod status;
mod supervisor;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::identity::SpiffeId;
use weft_core::identity::TrustDomain;
use weft_node_proxy::process::start_logging;

pub use self::settings::Args;
use self::settings::Role;
pub use self::status::{StatusArgs, run as run_status, trouble};

/// The ServiceAccount that the primary answers as.
const PRIMARY: (&str, &str) = ("weft-system", "weft-primary");

fn primary_identity(domain: &TrustDomain) -> SpiffeId {
    SpiffeId::new(domain.clone(), PRIMARY.0, PRIMARY.1)
}

/// Waits for a moment, if there is one to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Runs until it is told to end.
///
/// # Errors
/// What makes a start impossible; later trouble is logged and mended.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let role = args.role()?;
    start_logging(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args, role))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Args, role: Role) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone())?);
    files::prepare(&args.state).with_context(|| format!("--state {}", args.state.display()))?;
    files::prepare(&args.run).with_context(|| format!("--run {}", args.run.display()))?;
    let _lock = files::lock(&args.state.join("lock"))?;
    let args = Arc::new(args);
    let status = Arc::<status::Shared>::default();
    let home = match role {
        Role::Primary(dir) => primary::start(&args, &dir, &status).await?,
        Role::Member(address) => member::start(&args, address, &stop).await?,
    };
    node::run(&args, home, status, stop).await
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stop.cancel();
    })
}
