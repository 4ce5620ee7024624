//! `weft migrate`: from an Ingress controller to a Gateway, one hostname at a time, and the comparison of the two; from Istio, one
//! namespace at a time.

mod diff;
mod files;
mod ingress;
mod istio;
mod report;
mod write;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use crate::cluster::Target;

/// What nothing could be said about ends with: neither right nor wrong.
const CANNOT_TELL: u8 = 2;

/// Move from Ingresses to Gateways, or from Istio.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Translate Ingresses into Gateways and routes, and say what can't be
    Ingress(ingress::Args),
    /// Translate Istio's policies and routes, and say what can't be
    Istio(istio::Args),
    /// Send the same requests to two front doors and compare the answers
    Diff(diff::Args),
}

/// Runs it; what can't be done at all ends with 2, because 1 says that something was left out or differs.
pub fn run(args: &Args, target: &Target) -> ExitCode {
    let done = match &args.command {
        Command::Ingress(args) => ingress::run(args, target),
        Command::Istio(args) => istio::run(args, target),
        Command::Diff(args) => diff::run(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("weft: {error:#}");
        ExitCode::from(CANNOT_TELL)
    })
}

/// Prints. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.context("standard output"),
    }
}
