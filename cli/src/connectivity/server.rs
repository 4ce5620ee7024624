//! The server: every request is answered with a name.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use futures::future::{join_all, select_all};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// What the server's answers say about the client's address.
pub const PEER_HEADER: &str = "x-connectivity-peer";

/// Where to listen, and what to answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What every answer says.
    #[arg(long, default_value = "weft")]
    name: String,
    /// Where to listen, HTTP/1.1 and HTTP/2 without TLS; may be repeated. [::] takes IPv4 too.
    #[arg(long, default_value = "[::]:8080")]
    listen: Vec<SocketAddr>,
}

/// Serves until SIGTERM.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listeners = join_all(args.listen.iter().map(|address| bind(*address))).await;
    let listeners = listeners.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let name: &'static str = Box::leak(args.name.into_boxed_str());
    let serving = select_all(listeners.into_iter().map(|listener| Box::pin(accept(listener, name))));
    tokio::select! {
        _ = serving => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Listens; on a machine without IPv6, `[::]` means every IPv4 address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    weft_control::bind(address).await.with_context(|| format!("--listen {address}"))
}

/// Serves connections of one listener; never ends.
pub async fn accept(listener: TcpListener, name: &'static str) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(serve(stream, peer, name))),
            // Out of descriptors, most likely: they come back.
            Err(error) => {
                eprintln!("weft: accepting: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, name: &'static str) {
    let answer = service_fn(move |_request| async move {
        let mut answer = http::Response::new(Full::new(bytes::Bytes::from(format!("{name}\n"))));
        if let Ok(peer) = peer.ip().to_canonical().to_string().parse() {
            answer.headers_mut().insert(PEER_HEADER, peer);
        }
        Ok::<_, Infallible>(answer)
    });
    // What a client does to its own connection is its own affair.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
}
