//! `weft explain SRC DST`: what would become of a call, by the same pure functions that decide for the proxy.

mod decide;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weft_node_proxy::store::SavedFile;

pub use self::decide::{Call, explain};
use crate::Output;

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
    /// The node's copy of its configuration.
    #[arg(long, env = "WEFT_CONFIG_COPY", default_value = "/run/weft/config")]
    config: PathBuf,
    /// How to print the explanation.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn parse_header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').ok_or_else(|| anyhow!("expected NAME:VALUE"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// Prints the explanation; fails if the call would.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let saved = SavedFile::new(&args.config).read();
    let saved =
        saved.with_context(|| format!("cannot read the node's configuration from {}", args.config.display()))?;
    let snapshot =
        saved.ok_or_else(|| anyhow!("no configuration at {}: is weft running here?", args.config.display()))?;
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
    match args.output {
        Output::Text => print!("{explanation}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
    }
    Ok(if explanation.reaches() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
