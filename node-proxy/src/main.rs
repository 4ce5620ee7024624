//! `weft-node-proxy`: the data plane of one node.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use weft_node_proxy::process::{ProcessSettings, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The data plane of one node of a Weft mesh.
#[derive(Debug, Parser)]
#[command(name = "weft-node-proxy", version)]
struct Cli {
    #[command(flatten)]
    settings: ProcessSettings,
}

fn main() -> ExitCode {
    match run(Cli::parse().settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-node-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
