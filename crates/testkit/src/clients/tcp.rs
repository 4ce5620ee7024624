//! Clients of the servers below HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::pattern;

/// Longer than any connection within one machine takes.
const CONNECT: Duration = Duration::from_secs(5);

/// Connects within five seconds, without Nagle's delay.
///
/// # Errors
/// When refused, reset or out of time; with the address.
pub async fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(addr)).await;
    let stream = stream.with_context(|| format!("connect to {addr}: no answer in {CONNECT:?}"))?;
    let stream = stream.with_context(|| format!("connect to {addr}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends bytes, half-closes, and reads to the end.
///
/// # Errors
/// When the connection fails.
pub async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let (mut read, mut write) = connect(addr).await?.into_split();
    let send = async {
        write.write_all(bytes).await?;
        write.shutdown().await
    };
    let mut answer = Vec::new();
    tokio::try_join!(send, read.read_to_end(&mut answer))?;
    Ok(answer)
}

/// Waits for the server to speak first; its first line.
///
/// # Errors
/// When the connection fails or ends before.
pub async fn banner(addr: SocketAddr) -> Result<String> {
    let mut line = String::new();
    BufReader::new(connect(addr).await?).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

/// Sends `count` bytes of the [`pattern`] to a sink; its verdict.
///
/// # Errors
/// When the connection fails.
pub async fn push(addr: SocketAddr, count: u64) -> Result<String> {
    let mut stream = connect(addr).await?;
    let mut sent = 0;
    while sent < count {
        let bytes = pattern::chunk(sent, count - sent);
        stream.write_all(&bytes).await?;
        sent += bytes.len() as u64;
    }
    stream.shutdown().await?;
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict).await?;
    Ok(verdict)
}

/// Asks a source for `count` bytes and checks them.
///
/// # Errors
/// When the connection fails.
pub async fn pull(addr: SocketAddr, count: u64) -> Result<pattern::Check> {
    let mut stream = connect(addr).await?;
    stream.write_all(format!("{count}\n").as_bytes()).await?;
    let mut check = pattern::Check::default();
    let mut buf = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(check),
            n => check.feed(&buf[..n]),
        }
    }
}

/// Sends a datagram and waits for one back.
///
/// # Errors
/// When there is no answer within the deadline, or the kernel reports that nobody listens.
pub async fn udp_exchange(addr: SocketAddr, payload: &[u8], deadline: Duration) -> Result<Vec<u8>> {
    let local: SocketAddr = if addr.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(addr).await?;
    socket.send(payload).await?;
    let mut buf = vec![0; 64 * 1024];
    let n = timeout(deadline, socket.recv(&mut buf)).await.with_context(|| format!("no answer from {addr}"))??;
    buf.truncate(n);
    Ok(buf)
}
