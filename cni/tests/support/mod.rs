//! Sockets and shorthands for the tests that use real namespaces.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_core::inpod::PROXY_MARK;
use weft_sys::Netns;
use weft_sys::sock::{self, Connect, Listen};

/// How long anything that must happen may take.
pub const SOON: Duration = Duration::from_secs(10);
/// How long to watch that something does not happen.
pub const A_WHILE: Duration = Duration::from_millis(400);

/// Runs a test's future.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future)
}

/// The testkit's namespace as the agent knows it.
pub fn sys(netns: &weft_testkit::Netns) -> Result<Netns> {
    Ok(Netns::from_fd(netns.fd().context("a named namespace")?.try_clone_to_owned()?)?)
}

/// Waits for something that must happen.
pub async fn soon<T, E: Into<anyhow::Error>>(what: &str, f: impl Future<Output = Result<T, E>>) -> Result<T> {
    let done = tokio::time::timeout(SOON, f).await.with_context(|| format!("{what}: not in {SOON:?}"))?;
    done.map_err(Into::into).with_context(|| what.to_owned())
}

/// An app's listener.
pub fn app(netns: &Netns, addr: SocketAddr) -> Result<TcpListener> {
    Ok(TcpListener::from_std(sock::listen(Some(netns), &Listen::new(addr))?)?)
}

/// A listener of the proxy: marked, on every address of the family of `like`.
pub fn proxy(netns: &Netns, like: SocketAddr, port: u16) -> Result<TcpListener> {
    let mut options = Listen::new(SocketAddr::new(sock::unspecified(like.ip()), port));
    options.mark = Some(PROXY_MARK);
    Ok(TcpListener::from_std(sock::listen(Some(netns), &options)?)?)
}

/// Dials as an app does.
pub async fn dial(netns: &Netns, to: SocketAddr) -> Result<TcpStream> {
    soon("dial", sock::connect(Some(netns), &Connect::default(), to)).await
}

/// Dials as the proxy does, from `source` when given.
pub async fn dial_marked(netns: &Netns, source: Option<SocketAddr>, to: SocketAddr) -> Result<TcpStream> {
    let options = Connect { mark: Some(PROXY_MARK), source, transparent: source.is_some() };
    soon("dial as the proxy", sock::connect(Some(netns), &options, to)).await
}

/// The next connection: the stream, who dialled, and where it was going.
pub async fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr, SocketAddr)> {
    let (stream, peer) = soon("accept", listener.accept()).await?;
    // Without rules in the namespace nothing is tracked: then the connection goes where it says.
    let dst = sock::original_dst(&stream).or_else(|_untracked| stream.local_addr())?;
    Ok((stream, peer, dst))
}

/// Fails when a connection arrives.
pub async fn nobody_comes(listener: &TcpListener) -> Result<()> {
    let came = tokio::time::timeout(A_WHILE, listener.accept()).await;
    ensure!(came.is_err(), "a connection came: {came:?}");
    Ok(())
}

/// Whether dialling is refused at once (a reset, not silence).
pub async fn refused(netns: &Netns, to: SocketAddr) -> Result<()> {
    let dialled = tokio::time::timeout(SOON, sock::connect(Some(netns), &Connect::default(), to)).await;
    let error = dialled.context("silence instead of a refusal")?.err().context("connected instead of a refusal")?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
    Ok(())
}

/// Bytes pass in both directions.
pub async fn carries(a: &mut TcpStream, b: &mut TcpStream) -> Result<()> {
    moves(a, b, b"ping").await?;
    moves(b, a, b"pong").await
}

/// A megabyte and back: segments, windows and acknowledgements of all sizes.
pub async fn bulk(a: &mut TcpStream, b: &mut TcpStream) -> Result<()> {
    let data = vec![7; 1 << 20];
    moves(a, b, &data).await?;
    moves(b, a, &data).await
}

async fn moves(from: &mut TcpStream, to: &mut TcpStream, data: &[u8]) -> Result<()> {
    let mut got = vec![0; data.len()];
    soon("bytes", async { tokio::try_join!(from.write_all(data), to.read_exact(&mut got)) }).await?;
    ensure!(got == data);
    Ok(())
}
