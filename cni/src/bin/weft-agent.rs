//! `weft-agent`: the agent of one node of a Kubernetes cluster, and the hook that un-installs.

#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};
use weft_cni::agent::bypass::command::{self, BypassSettings};
use weft_cni::kubernetes::settings::{RunSettings, UninstallSettings};
use weft_cni::kubernetes::traces::Traces;
use weft_cni::kubernetes::{leave, recorder, run};

/// The agent of one node of a Weft mesh on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "weft-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep this node's pods, CNI configuration and startup taint
    Run(Box<RunSettings>),
    /// Take every pod of the cluster out of the mesh and wait until every node has done so
    Uninstall(UninstallSettings),
    /// Open this node's pods, so that they work without the mesh: for root on the node, when its proxy can't be brought up
    Bypass(BypassSettings),
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = match command {
        Command::Run(settings) => {
            settings.validate()?;
            start_logging(&settings.log)?;
            let metrics = recorder()?;
            runtime.block_on(async {
                let stopped = stopped()?;
                let client = weft_kube::client().await?;
                let traces = Traces::new(&settings);
                let ended = tokio::select! {
                    ended = run(*settings, client, metrics, traces.clone()) => ended,
                    () = stopped => {
                        tracing::info!("the agent ends; pods stay as they are");
                        Ok(())
                    }
                };
                traces.remove().await;
                ended
            })
        }
        Command::Bypass(settings) => {
            start_logging("warn")?;
            let report = runtime.block_on(command::run(&settings))?;
            print!("{report}");
            anyhow::ensure!(report.is_complete(), "not every pod is as it should be");
            Ok(())
        }
        Command::Uninstall(settings) => {
            settings.validate()?;
            start_logging("warn")?;
            runtime.block_on(async {
                let client = weft_kube::client().await?;
                let namespace = settings.namespace.as_str().into();
                leave::uninstall(client, &namespace, &settings.daemonset, settings.timeout).await
            })
        }
    };
    // A blocking look at the node doesn't hold the end up.
    runtime.shutdown_background();
    outcome
}

/// Ends when the process is asked to.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("the signal SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("the signal SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Text for a terminal, one JSON object a line otherwise.
fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("logging")
}
