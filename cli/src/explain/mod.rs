//! `weft explain SRC DST`: what would become of a call, by the same pure functions that decide for the proxy.

mod decide;
#[cfg(test)]
pub mod tests;
pub mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weft_core::snapshot::Snapshot;
use weft_node_proxy::store::SavedFile;

pub use self::decide::{Call, explain};
use crate::Output;
use crate::cluster::{self, Target};

/// Where a node without Kubernetes keeps it.
const HERE: &str = "/run/weft/config";

/// The call to explain.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who calls: a pod as NAMESPACE/NAME.
    source: String,
    /// What is called: SERVICE.NAMESPACE[:PORT], or IP:PORT.
    destination: String,
    /// The HTTP method.
    #[arg(long, default_value = "GET")]
    method: Method,
    /// The path, with the query if there is one.
    #[arg(long, default_value = "/")]
    path: String,
    /// A request header as NAME:VALUE; may be repeated.
    #[arg(long = "header", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The Host header; the Service's name if absent.
    #[arg(long)]
    host: Option<String>,
    /// A node's copy of its configuration. Left out: that of this node if it is one of a mesh without Kubernetes, else
    /// that of the proxy of the caller's node in the cluster.
    #[arg(long, env = "WEFT_CONFIG_COPY")]
    config: Option<PathBuf>,
    /// How to print the explanation.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn parse_header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').ok_or_else(|| anyhow!("expected NAME:VALUE"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

fn saved(path: &Path) -> anyhow::Result<Snapshot> {
    let saved = SavedFile::new(path).read();
    let saved = saved.with_context(|| format!("cannot read the node's configuration from {}", path.display()))?;
    saved.ok_or_else(|| anyhow!("no configuration at {}: is weft running here?", path.display()))
}

/// Prints the explanation; fails if the call would.
pub fn run(args: Args, target: &Target) -> anyhow::Result<ExitCode> {
    let snapshot = match &args.config {
        Some(path) => saved(path)?,
        None if !target.is_given() && Path::new(HERE).exists() => saved(Path::new(HERE))?,
        None => cluster::configuration(target, &args.source)?,
    };
    let headers: HeaderMap = args.headers.into_iter().collect();
    let call = Call {
        source: args.source,
        destination: args.destination,
        method: args.method,
        target: args.path,
        host: args.host,
        headers,
    };
    let explanation = explain(&snapshot, &call)?;
    print!("{}", args.output.show(&explanation)?);
    Ok(if explanation.reaches() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
