//! `weft dashboard`: a page at this machine's loopback that draws what the mesh does.
//!
//! ```text
//!  browser --loopback, a key of this tab--> server -> source -+- proxies of a node without Kubernetes
//!                                              |               `- a controller's view server, with your token
//!                                              `- page: plain files that are in this program
//! ```
//!
//! The page has nothing from outside, and asks for nothing else than JSON of this server. Who else is on this machine has the port,
//! but no key: a key is given once, for the token of the address that is printed.

mod keys;
mod local;
mod remote;
mod server;
mod source;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use self::server::Site;
use self::source::Source;
use crate::ask::Whom;
use crate::cluster::{Target, ViewArgs, block_on};

/// What to show, and where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port at this machine's loopback; 0: any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The directory of sockets of a node without Kubernetes [default: /run/weft]
    #[arg(long, env = "WEFT_RUN", value_name = "DIR")]
    run: Option<PathBuf>,
    #[command(flatten)]
    proxies: Whom,
    #[command(flatten)]
    view: ViewArgs,
}

/// Serves the page until the process is told to end.
///
/// # Errors
/// Nobody can be asked, or the port is taken.
pub fn run(args: Args, target: &Target) -> anyhow::Result<ExitCode> {
    block_on(LocalSet::new().run_until(async {
        let Args { port, run, proxies, view } = args;
        let source = Source::choose(run, &proxies, (target, view)).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("port {port}: choose another one with --port"))?;
        let site = Rc::new(Site::new(source, listener.local_addr()?.port()));
        println!("open {} in a browser; it ends with Ctrl-C", site.invitation());
        server::serve(site, listener).await
    }))
}
