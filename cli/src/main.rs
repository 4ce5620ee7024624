//! The `weft` command: one binary for a person's shell and for a node without Kubernetes.

mod connectivity;
mod explain;
mod standalone;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weft, a service mesh without sidecars.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Standalone(Box<standalone::Args>),
    /// Run the data plane of one node; `weft standalone` does so by itself.
    NodeProxy(Box<weft_node_proxy::process::ProcessSettings>),
    /// Show what this node of a standalone mesh is and does, and what needs attention.
    Status(standalone::StatusArgs),
    /// Take the CNI plugin out of this node's network configuration, when the mesh is to leave it for good.
    Uninstall {
        /// The directory of network configurations.
        #[arg(long, default_value = "/etc/cni/net.d")]
        cni_dir: PathBuf,
    },
    /// Check manifests: syntax, fields, references.
    Validate(validate::Args),
    /// Say what would become of a call, and which object decides.
    Explain(explain::Args),
    /// Test whether workloads reach each other: a small HTTP server and client.
    Connectivity(connectivity::Args),
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Standalone(args) => standalone::run(*args),
        Command::NodeProxy(settings) => {
            weft_node_proxy::process::run(*settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => standalone::run_status(&args),
        Command::Uninstall { cni_dir } => {
            weft_cni::install::uninstall(&cni_dir)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Validate(args) => validate::run(&args),
        Command::Explain(args) => explain::run(args),
        Command::Connectivity(args) => connectivity::run(args),
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
