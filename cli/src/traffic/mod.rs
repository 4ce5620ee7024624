//! `weft stat`, `weft top` and `weft edges`: what flows in the mesh, by the proxies' own metrics of some seconds.

mod edges;
mod rows;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::ValueEnum;
use weft_view::{Filter, Metrics, Window};

use self::edges::Edges;
use self::rows::Stat;
use crate::Output;
use crate::ask::{Proxies, Whom};
use crate::cluster::{self, Target, block_on};

/// What clears a terminal and goes to its top (ECMA-48).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What rows stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The workloads that are called
    Workload,
    /// The ports of Services that are called
    #[default]
    Service,
    /// The rules of routes
    Route,
    /// The workloads that call
    Caller,
}

/// Whose traffic, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Only what this namespace, or workload of it, calls
    #[arg(long, value_name = "NAMESPACE[/WORKLOAD]")]
    from: Option<String>,
    /// Only what this namespace, or workload of it, is called with
    #[arg(long, value_name = "NAMESPACE[/WORKLOAD]")]
    to: Option<String>,
    /// Only what this Service is called with
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    #[command(flatten)]
    proxies: Whom,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What to show.
#[derive(Debug, clap::Args)]
pub struct StatArgs {
    /// What a row is
    #[arg(value_enum, default_value_t)]
    by: By,
    /// How long to count
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    over: Duration,
    #[command(flatten)]
    which: Which,
}

/// What to show again and again.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// What a row is
    #[arg(value_enum, default_value_t)]
    by: By,
    /// How long to count for each screen
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    every: Duration,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Rows that are shown
    #[arg(long, default_value_t = 20)]
    rows: usize,
    /// Ends after so many screens; left out: goes on until it is told to end
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    which: Which,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most requests
    #[default]
    Rps,
    /// Most that failed, as a share
    Failures,
    /// The slowest
    Latency,
}

/// What to show.
#[derive(Debug, clap::Args)]
pub struct EdgesArgs {
    /// How long to count
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    over: Duration,
    #[command(flatten)]
    which: Which,
}

impl Which {
    fn filter(&self) -> anyhow::Result<Filter> {
        if let Some(service) = &self.service {
            ensure!(service.split('/').count() == 2, "--service {service}: expected NAMESPACE/NAME");
        }
        Ok(Filter { from: self.from.clone(), to: self.to.clone(), service: self.service.clone() })
    }

    /// What is counted from now on, for so long.
    fn counted(&self, target: &Target, over: Duration) -> anyhow::Result<Window> {
        block_on(async {
            let proxies = Proxies::of(target, &self.proxies).await?;
            let first = pages(&proxies).await?;
            Ok(window(&proxies, first, over).await?.0)
        })
    }
}

/// `weft stat`
///
/// # Errors
/// No proxy could be asked.
pub fn stat(args: &StatArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let filter = args.which.filter()?;
    let window = args.which.counted(target, args.over)?;
    cluster::write(&args.which.output.show(&Stat::of(&window, args.by, &filter))?)?;
    Ok(ExitCode::SUCCESS)
}

/// `weft edges`
///
/// # Errors
/// No proxy could be asked.
pub fn edges(args: &EdgesArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let filter = args.which.filter()?;
    let window = args.which.counted(target, args.over)?;
    cluster::write(&args.which.output.show(&Edges::of(&window, &filter))?)?;
    Ok(ExitCode::SUCCESS)
}

/// `weft top`
///
/// # Errors
/// No proxy could be asked.
pub fn top(args: &TopArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let filter = args.which.filter()?;
    let clear = args.which.output == Output::Text && std::io::stdout().is_terminal();
    block_on(async {
        let proxies = Proxies::of(target, &args.which.proxies).await?;
        let mut before = pages(&proxies).await?;
        let mut shown = 0;
        while args.count.is_none_or(|count| shown < count) {
            let (window, now) = window(&proxies, before, args.every).await?;
            before = now;
            let stat = Stat::of(&window, args.by, &filter).first(args.sort, args.rows);
            let text = args.which.output.show(&stat)?;
            cluster::write(&if clear { format!("{CLEAR}{text}") } else { text })?;
            shown += 1;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Metrics by the name of their proxy.
type Pages = Vec<(String, Metrics)>;

/// The pages of now. Who can't be asked is said once and left out.
async fn pages(proxies: &Proxies) -> anyhow::Result<Pages> {
    let answers = proxies.read("/metrics").await;
    for why in &answers.unread {
        eprintln!("weft: {why}");
    }
    if answers.pages.is_empty() {
        bail!("no proxy could be asked");
    }
    Ok(answers.pages.into_iter().map(|(name, page)| (name, Metrics::parse(&String::from_utf8_lossy(&page)))).collect())
}

/// What was counted between some pages and those after a while.
async fn window(proxies: &Proxies, first: Pages, over: Duration) -> anyhow::Result<(Window, Pages)> {
    let since = std::time::Instant::now();
    tokio::time::sleep(over.max(Duration::from_secs(1))).await;
    let second = pages(proxies).await?;
    Ok((Window::between(&first, &second, since.elapsed()), second))
}
