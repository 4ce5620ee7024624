//! What root does on a node itself, without a cluster to ask: `weft node`.

use std::process::ExitCode;

use weft_cni::agent::bypass::command::{self, BypassSettings};

/// Work on this node, as root.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Open this node's pods, so that they work without the mesh when its proxy can't be brought up; with --off, take them
    /// back. Asks neither the proxy nor the API server.
    Bypass(BypassSettings),
}

/// Does it; 0 if every pod became what was asked for.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Bypass(settings) = &args.command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(command::run(settings))?;
    print!("{report}");
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
