//! `weft tap`: requests and connections as they end, of all proxies of a cluster by way of the controller, or of this node's
//! by its socket.

mod socket;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use weft_core::tap::{Direction, Filter, LONGEST, Line, Lines, Of, PATH, Tap, USUAL_PER_SECOND};

use self::view::{Row, header};
use crate::cluster::{Target, View, ViewArgs, block_on};

/// The socket of a node's proxy, where this is a node of a mesh without Kubernetes.
const HERE: &str = "/run/weft/tap.sock";

/// What to look at, where and for how long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// pod/NAME, deploy/NAME (or what else owns pods), service/NAME; left out: all of the namespace
    #[arg(value_name = "KIND/NAME")]
    what: Option<String>,
    /// The namespace whose traffic it is: what it calls, and what it is called with
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "what"])]
    all_namespaces: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    limits: Limits,
    /// The socket of this machine's proxy, of a mesh without Kubernetes [default: /run/weft/tap.sock where it is there]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    controller: ViewArgs,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Which requests.
#[derive(Clone, Debug, Default, clap::Args)]
struct Which {
    /// Only where what is tapped is called (in), or calls (out)
    #[arg(long, value_enum)]
    direction: Option<Side>,
    /// Only what this namespace, or pod or workload of it, calls
    #[arg(long, value_name = "NAMESPACE[/NAME]")]
    from: Option<String>,
    /// Only what this namespace, or pod, workload or Service of it, is called with
    #[arg(long, value_name = "NAMESPACE[/NAME]")]
    to: Option<String>,
    /// Only what went by this route
    #[arg(long, value_name = "NAMESPACE/NAME")]
    route: Option<String>,
    /// Only this method
    #[arg(long)]
    method: Option<String>,
    /// Only paths that begin so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only this status: 503, or 5xx, or failed for all that failed
    #[arg(long)]
    status: Option<String>,
    /// Only what the proxy at this place tells: source, destination or gateway. Where both ends parse HTTP, both tell
    #[arg(long, value_name = "PLACE")]
    seen_by: Option<String>,
    /// Paths with their query
    #[arg(long)]
    query: bool,
}

/// How many, and for how long.
#[derive(Clone, Debug, clap::Args)]
struct Limits {
    /// Ends after so many
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    count: u64,
    /// Ends after so long, ten minutes at most
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1m")]
    lasts: Duration,
    /// How many of one proxy in a second, at most; more are dropped and counted
    #[arg(long, value_name = "N", default_value_t = USUAL_PER_SECOND)]
    rate: u32,
}

/// At which end of a call what is tapped is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    /// It is called
    In,
    /// It calls
    Out,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line each, for people
    #[default]
    Text,
    /// A JSON object each, for programs
    Json,
}

impl Args {
    /// What to ask for. `needs_namespace`: it has to be said whose traffic is meant.
    fn tap(&self, needs_namespace: bool) -> anyhow::Result<Tap> {
        let namespace = self.namespace.clone().unwrap_or_default();
        if needs_namespace && namespace.is_empty() && !self.all_namespaces {
            bail!("whose traffic? Say --namespace NAME, or --all-namespaces if you may see those");
        }
        let which = self.which.clone();
        let filter = Filter {
            namespace,
            of: self.what.as_deref().map_or(Ok(Of::Namespace), of)?,
            direction: which.direction.map(|side| match side {
                Side::In => Direction::In,
                Side::Out => Direction::Out,
            }),
            from: which.from.unwrap_or_default(),
            to: which.to.unwrap_or_default(),
            service: String::new(),
            route: which.route.unwrap_or_default(),
            method: which.method.unwrap_or_default().to_ascii_uppercase(),
            path: which.path.unwrap_or_default(),
            status: which.status.unwrap_or_default(),
            reporter: which.seen_by.unwrap_or_default(),
        };
        let seconds = self.limits.lasts.as_secs().max(1);
        ensure!(seconds <= u64::from(LONGEST), "--for: {} minutes at most", LONGEST / 60);
        let seconds = u32::try_from(seconds).unwrap_or(LONGEST);
        let tap = Tap { filter, rate: self.limits.rate, seconds, count: self.limits.count, query: which.query };
        tap.check().map_err(anyhow::Error::msg)?;
        Ok(tap)
    }
}

/// `deploy/web`
fn of(text: &str) -> anyhow::Result<Of> {
    let Some((kind, name)) = text.split_once('/').filter(|(_, name)| !name.is_empty() && !name.contains('/')) else {
        // As kubectl has it, a kind alone stands for all of them.
        return match text {
            "pod" | "pods" | "po" | "ns" | "namespace" => Ok(Of::Namespace),
            _ => bail!("{text}: expected KIND/NAME, such as deploy/web, or nothing for all of the namespace"),
        };
    };
    Ok(match kind.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Of::Pod(name.to_owned()),
        "service" | "services" | "svc" => Of::Service(name.to_owned()),
        "deploy" | "deployment" | "deployments" | "sts" | "statefulset" | "statefulsets" | "ds" | "daemonset"
        | "daemonsets" | "job" | "jobs" | "workload" => Of::Workload(name.to_owned()),
        _ => bail!("{text}: only pods, Services and what owns pods, such as a Deployment, can be tapped"),
    })
}

/// `weft tap`
///
/// # Errors
/// Nobody can be asked, or one may not.
pub fn run(args: &Args, target: &Target) -> anyhow::Result<ExitCode> {
    let here =
        args.socket.clone().or_else(|| Some(PathBuf::from(HERE)).filter(|path| !target.is_given() && path.exists()));
    block_on(async {
        let output = args.output;
        match here {
            Some(path) => {
                let tap = args.tap(false)?;
                let answer = socket::ask(&path, serde_json::to_vec(&tap)?).await?;
                show(answer, Screen::new(output, false)).await
            }
            None => {
                let tap = args.tap(true)?;
                let mut view = View::connect(target, &args.controller).await?;
                let answer = view.post(PATH, serde_json::to_vec(&tap)?).await?;
                show(answer, Screen::new(output, true)).await
            }
        }
    })
}

/// Prints an answer as it comes, to its end.
async fn show(mut answer: Incoming, mut screen: Screen) -> anyhow::Result<ExitCode> {
    let mut lines = Lines::default();
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let mut text = String::new();
        let mut is_over = false;
        for line in lines.push(&data)? {
            is_over |= matches!(line, Line::End(_));
            text.push_str(&screen.take(line));
        }
        if !print(&text)? {
            return Ok(ExitCode::SUCCESS);
        }
        if is_over {
            return screen.end();
        }
    }
    bail!("the tap has ended without a word: is the proxy, or the controller, being replaced?")
}

/// Prints, and says whether anybody reads on: `head` has seen enough at some point.
fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        done => done.context("standard output").map(|()| true),
    }
}

/// What was seen so far.
struct Screen {
    output: Format,
    /// Whether several proxies are heard, who join and leave.
    many: bool,
    begun: bool,
    seen: u64,
    dropped: u64,
    joined: BTreeSet<String>,
    over: String,
}

impl Screen {
    fn new(output: Format, many: bool) -> Self {
        let (joined, over) = (BTreeSet::new(), String::new());
        Self { output, many, begun: false, seen: 0, dropped: 0, joined, over }
    }

    /// What a line adds to the standard output.
    fn take(&mut self, line: Line) -> String {
        match line {
            Line::Seen(record) => {
                self.seen = self.seen.saturating_add(1);
                return match self.output {
                    Format::Json => serde_json::to_string(&record).unwrap_or_default() + "\n",
                    Format::Text if std::mem::replace(&mut self.begun, true) => Row(&record).to_string(),
                    Format::Text => format!("{}{}", header(), Row(&record)),
                };
            }
            Line::Dropped(dropped) => self.dropped = dropped,
            Line::Joined(proxies) => self.joined.extend(proxies),
            Line::Left { proxy, why } => {
                eprintln!("weft: {proxy} isn't heard: {}", view::plain(&why));
                self.joined.remove(&proxy);
            }
            Line::Quiet => {}
            Line::End(why) => self.over = why,
        }
        String::new()
    }

    /// Says how it went.
    fn end(&self) -> anyhow::Result<ExitCode> {
        eprintln!("weft: {}", self.summary());
        ensure!(!self.many || !self.joined.is_empty(), "no proxy was heard: is the mesh's DaemonSet up to date?");
        Ok(ExitCode::SUCCESS)
    }

    fn summary(&self) -> String {
        let mut text = view::plain(&self.over);
        if self.dropped > 0 {
            text += &format!("; {} more were dropped: narrow the filter, or raise --rate", self.dropped);
        }
        if self.many {
            text += &format!("; proxies that were heard: {}", self.joined.len());
        }
        text
    }
}
