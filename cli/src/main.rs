//! The `weft` command: one binary for a person's shell and for a node without Kubernetes.

mod ask;
mod bugreport;
mod cluster;
mod connectivity;
mod dashboard;
mod explain;
#[cfg(test)]
mod manual;
mod migrate;
mod node;
mod objects;
mod reason;
mod standalone;
mod tap;
mod traffic;
mod validate;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use comfy_table::presets::NOTHING;
use comfy_table::{Row, Table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weft, a service mesh without sidecars.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: cluster::Target,
}

#[derive(Debug, Subcommand)]
enum Command {
    Standalone(Box<standalone::Args>),
    /// Run the data plane of one node; `weft standalone` does so by itself.
    NodeProxy(Box<weft_node_proxy::process::ProcessSettings>),
    /// Install the mesh in a cluster, or upgrade it.
    Install(cluster::InstallArgs),
    /// Remove the mesh from a cluster; with --cni-dir, its CNI plugin from this node's network configuration.
    Uninstall(cluster::UninstallArgs),
    /// Check whether a cluster can have the mesh, whether a mesh works, or who still calls in plaintext.
    Check(cluster::CheckArgs),
    /// Put a namespace into the mesh, or take it out, and wait for its pods.
    Enroll(cluster::EnrollArgs),
    /// Show the mesh and what needs attention: of the cluster, or of this node of a mesh without Kubernetes.
    Status(standalone::StatusArgs),
    /// Ask a node's proxy for its configuration, certificates or connections, or set what it logs.
    Proxy(cluster::ProxyArgs),
    /// Show the versions of this program and of the mesh's parts.
    Version(cluster::VersionArgs),
    /// Check manifests: syntax, fields, references.
    Validate(validate::Args),
    /// Say what would become of a call, and which object decides.
    Explain(explain::Args),
    /// Say why a request failed: its path, route, rule, the endpoints it was sent to, the object at fault and the remedy.
    Why(why::Args),
    /// Show rates, success, latency and encryption of workloads, Services, rules or callers.
    Stat(traffic::StatArgs),
    /// Show the same again and again, the busiest first.
    Top(traffic::TopArgs),
    /// Show who calls whom, and whether that is encrypted.
    Edges(traffic::EdgesArgs),
    /// Serve a page at this machine's loopback that draws the mesh: calls, routes, certificates, problems.
    Dashboard(dashboard::Args),
    /// Show requests as they pass: who calls whom, by which route and endpoint, with which result.
    Tap(Box<tap::Args>),
    /// Show what applies to a pod or a Service: identity, mode, limits, policies, endpoints, rules.
    Describe(objects::DescribeArgs),
    /// Show who may call a pod: its policies in order, and what they say of a call.
    Authz(objects::AuthzArgs),
    /// Say what a reason code means, where to look and what to do.
    Reason(reason::Args),
    /// Move from Ingresses to Gateways: translate, and compare the two front doors.
    Migrate(migrate::Args),
    /// Test whether workloads reach each other: a small HTTP server and client.
    Connectivity(connectivity::Args),
    /// Collect statuses, configurations, metrics and logs of all parts in one file, without secrets.
    Bugreport(bugreport::Args),
    /// Work on this node, as root: open its pods when its proxy can't be brought up.
    Node(node::Args),
    /// Make a one-time token with which one more node can join.
    Token(TokenArgs),
    /// Print a completion script.
    Completion {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// The primary's state directory.
    #[arg(long, default_value = "/var/lib/weft")]
    state: PathBuf,
    /// How long the token can be used.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "15m")]
    life: Duration,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For programs, and manifests' readers.
    Yaml,
}

impl Output {
    /// A value as it is asked for, with its line's end.
    fn show<T: serde::Serialize + std::fmt::Display>(self, value: &T) -> anyhow::Result<String> {
        self.show_as(value, ToString::to_string)
    }

    /// The same for what has no words of its own.
    fn show_as<T: serde::Serialize>(self, value: &T, words: impl FnOnce(&T) -> String) -> anyhow::Result<String> {
        Ok(match self {
            Self::Text => words(value),
            Self::Json => serde_json::to_string_pretty(value)? + "\n",
            Self::Yaml => serde_norway::to_string(value)?,
        })
    }
}

/// A table without lines, indented.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(Row::from(row));
    }
    table.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}

/// The command line; as a plugin of kubectl its usage lines say `kubectl weft`.
fn command() -> clap::Command {
    let command = Cli::command();
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_ref().and_then(|path| path.file_stem()?.to_str());
    if name == Some("kubectl-weft") { command.name("kubectl weft").bin_name("kubectl weft") } else { command }
}

fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli.command, &cli.target) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, target: &cluster::Target) -> anyhow::Result<ExitCode> {
    match command {
        Command::Standalone(args) => standalone::run(*args),
        Command::NodeProxy(settings) => {
            weft_node_proxy::process::run(*settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Install(args) => cluster::install(target, &args),
        Command::Uninstall(args) => match &args.cni_dir {
            Some(folder) => {
                weft_cni::install::uninstall(folder)?;
                Ok(ExitCode::SUCCESS)
            }
            None => cluster::uninstall(target, &args),
        },
        Command::Check(args) => Ok(cluster::check(target, &args)),
        Command::Enroll(args) => cluster::enroll(target, &args),
        Command::Status(args) if args.is_standalone() && !target.is_given() => standalone::run_status(&args),
        Command::Status(args) => Ok(cluster::status(target, args.output)),
        Command::Proxy(args) => cluster::proxy(target, &args),
        Command::Version(args) => cluster::version(target, &args),
        Command::Validate(args) => validate::run(&args),
        Command::Explain(args) => explain::run(args, target),
        Command::Why(args) => Ok(why::run(&args, target)),
        Command::Stat(args) => traffic::stat(&args, target),
        Command::Top(args) => traffic::top(&args, target),
        Command::Edges(args) => traffic::edges(&args, target),
        Command::Dashboard(args) => dashboard::run(args, target),
        Command::Tap(args) => tap::run(&args, target),
        Command::Describe(args) => objects::describe(&args, target).map(|()| ExitCode::SUCCESS),
        Command::Authz(args) => objects::authz(&args, target),
        Command::Reason(args) => reason::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Migrate(args) => Ok(migrate::run(&args, target)),
        Command::Connectivity(args) => connectivity::run(args),
        Command::Bugreport(args) => bugreport::run(&args, target),
        Command::Node(args) => node::run(&args),
        Command::Token(args) => {
            let tokens = weft_controller::standalone::Tokens::open(&args.state)?;
            println!("{}", tokens.make_join_token(args.life)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "weft", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether the manual shows an example as it is.
#[cfg(test)]
fn is_in_manual(example: &str) -> bool {
    include_str!("../../docs/cli.md").contains(example.trim_end())
}
