//! `weft check`: whether a cluster can have the mesh, whether a mesh works, and who still calls in plaintext.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;

use super::read::Session;
use super::{checks, helm, print, strict};
use crate::Output;

/// What to check. Ends with 0 if nothing is wrong, 1 if something is, 2 if that can't be said.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check whether the cluster can have the mesh, before it is installed
    #[arg(long)]
    pre: bool,
    /// Show who calls the pods of this namespace in plaintext, and would be refused in mode Strict
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "pre")]
    strict: Option<String>,
    /// With --strict: count for so long, rather than all since the proxies started
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "strict")]
    over: Option<Duration>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Checks and prints.
pub async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(namespace) = &args.strict {
        let callers = strict::read(session, namespace, args.over).boxed_local().await?;
        print(args.output, &callers)?;
        return Ok(ExitCode::from(callers.code()));
    }
    let required = helm::oldest_kubernetes().context("the chart in this program")?;
    let report = match args.pre {
        true => checks::before(&session.before().boxed_local().await?, required),
        false => checks::installed(&session.installed().boxed_local().await?, required),
    };
    print(args.output, &report)?;
    Ok(report.exit_code())
}
