//! `weft-node-proxy`: the data plane of one node; `weft-node-proxy gateway`: that of one Gateway.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use weft_node_proxy::process::{GatewaySettings, ProcessSettings, run, run_gateway};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What comes before the settings of a Gateway's proxy.
const GATEWAY: &str = "gateway";

/// The data plane of one node of a Weft mesh.
#[derive(Debug, Parser)]
#[command(name = "weft-node-proxy", version)]
#[command(after_help = "The data plane of one Gateway: weft-node-proxy gateway; see weft-node-proxy gateway --help")]
struct Cli {
    #[command(flatten)]
    settings: ProcessSettings,
}

/// The data plane of one Gateway of a Weft mesh, in a pod of its own.
#[derive(Debug, Parser)]
#[command(name = "weft-node-proxy gateway", version)]
struct GatewayCli {
    #[command(flatten)]
    settings: GatewaySettings,
}

fn main() -> ExitCode {
    // Not a subcommand of the other: neither of them takes what the other needs, also from the environment.
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let is_gateway = arguments.get(1).is_some_and(|first| first == GATEWAY);
    let ended = if is_gateway {
        arguments.remove(1);
        run_gateway(GatewayCli::parse_from(arguments).settings)
    } else {
        run(Cli::parse_from(arguments).settings)
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-node-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
