//! `weft migrate diff`: the same requests to two front doors, and what differs.
//!
//! ```text
//!  file --requests--> requests --client, twice--> answers --compare--> differences --report--> text or JSON
//! ```
//!
//! Every request has a connection of its own, to the address that was given and with the host and the name in the handshake of
//! its URL, as if the DNS record pointed there already. Nothing is believed and nothing verified: what is presented is compared.

mod certificates;
mod client;
mod compare;
mod door;
mod report;
mod requests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt as _};

use self::client::{Client, Limits};
use self::compare::{Ignored, compare};
use self::door::{Door, DoorAddress};
use self::report::{Pair, Report};
use self::requests::{Request, Version};
use crate::Output;

/// Largest file of requests, in bytes.
const MOST_BYTES: u64 = 64 << 20;

/// Two front doors, and what to ask them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address of the old one: HOST[:PORT] for all requests, or http://HOST[:PORT] and https://HOST[:PORT] for those of one
    /// scheme; may be repeated
    #[arg(long, required = true, value_name = "ADDRESS")]
    old: Vec<DoorAddress>,
    /// The address of the new one
    #[arg(long, required = true, value_name = "ADDRESS")]
    new: Vec<DoorAddress>,
    /// A file of requests: URLs, requests with headers and bodies, or lines of an access log in the combined format
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// What lines of an access log are asked of, as https://shop.example.com: they don't say it
    #[arg(long, value_name = "URL")]
    base: Option<http::Uri>,
    /// Send also what may change something: all methods but GET, HEAD, OPTIONS and TRACE
    #[arg(long)]
    all_methods: bool,
    /// The version of HTTP, where a request doesn't say it
    #[arg(long, value_enum, default_value_t)]
    http: Version,
    /// A header of answers that may differ, besides those that always may; may be repeated
    #[arg(long, value_name = "NAME")]
    ignore_header: Vec<http::HeaderName>,
    /// A header that is compared although it would be passed over; may be repeated
    #[arg(long, value_name = "NAME")]
    compare_header: Vec<http::HeaderName>,
    /// Compare bodies, by their hash
    #[arg(long)]
    bodies: bool,
    /// Don't compare certificates
    #[arg(long)]
    no_certificates: bool,
    /// Requests under way at once at each front door
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How long a request may take, from the connection to the end of the answer
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    timeout: Duration,
    /// More of a body, in bytes, isn't read: what is there is compared
    #[arg(long, default_value_t = 16 << 20)]
    max_body: usize,
    /// How to print what differs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Sends and compares; ends with 1 if something differs.
///
/// # Errors
/// What can't be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let requests = read(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(ask(args, requests))?;
    let text = args.output.show(&report)?;
    super::print(&text)?;
    Ok(if report.differs() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(args: &Args) -> anyhow::Result<Vec<Request>> {
    let path = args.requests.display();
    let size = std::fs::metadata(&args.requests).with_context(|| format!("cannot read {path}"))?.len();
    if size > MOST_BYTES {
        bail!("{path} has {size} bytes, more than the limit of {MOST_BYTES}: give a part of it");
    }
    let text = std::fs::read_to_string(&args.requests).with_context(|| format!("cannot read {path}"))?;
    let all = requests::parse(&text, args.base.as_ref()).with_context(|| path.to_string())?;
    if all.is_empty() {
        bail!("{path} has no requests");
    }
    Ok(all)
}

async fn ask(args: &Args, requests: Vec<Request>) -> anyhow::Result<Report> {
    let limits = Limits { timeout: args.timeout, body: args.max_body, default: args.http };
    let old = Client::new(Door::new(&args.old)?, limits)?;
    let new = Client::new(Door::new(&args.new)?, limits)?;
    let ignored = Ignored::new(&args.ignore_header, &args.compare_header);
    let (send, left_out): (Vec<_>, Vec<_>) =
        requests.into_iter().partition(|request| args.all_methods || request.is_safe());
    let total = send.len();
    let asked = stream::iter(send).map(|request| {
        let (old, new) = (&old, &new);
        async move {
            let (was, is) = tokio::join!(old.ask(&request), new.ask(&request));
            (request, was, is)
        }
    });
    // In their order, so that two runs can be compared.
    let mut asked = asked.buffered(usize::from(args.concurrency));
    let mut report = Report::new(total, left_out.len());
    while let Some((request, was, is)) = asked.next().await {
        let differences = compare(&was, &is, (&ignored, args.bodies));
        if !differences.is_empty() {
            report.differing.push(Pair { request: request.to_string(), differences });
        }
        if !args.no_certificates {
            report.certificate(&request, (&was, &is));
        }
    }
    Ok(report)
}
