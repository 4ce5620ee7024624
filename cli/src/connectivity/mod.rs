//! `weft connectivity`: a tiny HTTP server and client, for `helm test`, the quickstart, and whoever asks "can A reach B?".
//!
//! The client tells three things apart, because a mesh that refuses and a server that isn't there look alike to most
//! clients: an answer, a refusal (the connection was accepted and then closed without an answer, or the answer is
//! 403), and everything else.

mod check;
mod client;
mod outcome;
mod server;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Subcommand;

/// Test whether workloads reach each other: a small HTTP server and client.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every HTTP request with a name.
    Server(server::Args),
    /// Send requests and count the answers, or wait until URLs are reached or refused as they should.
    Client(client::Args),
}

/// Runs the server until it is told to end, or the client until it knows.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Server(args) => server::run(args).await,
            Command::Client(args) => client::run(args).await,
        }
    })
}
