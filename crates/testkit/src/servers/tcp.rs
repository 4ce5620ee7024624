//! Servers below HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Protocol, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UdpSocket};

use super::{Server, bind, listen_tcp, start};
use crate::netns::Netns;
use crate::pattern;

/// What a TCP server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends back what comes, at once; ends when the client does.
    Echo,
    /// Speaks first, `220 NAME\r\n`, as SMTP and MySQL do; then echoes.
    Banner,
    /// Reads to the end, then answers `NAME COUNT ok` or `NAME COUNT wrong at POSITION` (see [`pattern`]): works only
    /// when half-closing does.
    Sink,
    /// Reads one line, `COUNT\n`, then sends that many bytes of the [`pattern`] and ends.
    Source,
    /// Accepts, never reads, never writes, holds on.
    Silent,
    /// Resets the connection as soon as it is accepted.
    Reset,
}

/// A TCP server.
///
/// # Errors
/// When it can't listen.
pub fn tcp(place: &Netns, name: &str, addr: SocketAddr, behaviour: Behaviour) -> Result<Server> {
    let name = name.to_owned();
    start(
        place,
        move || listen_tcp(addr),
        async move |listener: tokio::net::TcpListener, seen| {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        seen.push(peer);
                        let name = name.clone();
                        // What a client does to its connection is the client's to report.
                        tokio::spawn(async move { serve(stream, &name, behaviour).await.ok() });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        },
    )
}

async fn serve(mut stream: TcpStream, name: &str, behaviour: Behaviour) -> Result<()> {
    stream.set_nodelay(true)?;
    match behaviour {
        Behaviour::Echo => echo(stream).await,
        Behaviour::Banner => {
            stream.write_all(format!("220 {name}\r\n").as_bytes()).await?;
            echo(stream).await
        }
        Behaviour::Sink => sink(stream, name).await,
        Behaviour::Source => source(stream).await,
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Reset => Ok(stream.set_zero_linger()?),
    }
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    Ok(write.shutdown().await?)
}

async fn sink(mut stream: TcpStream, name: &str) -> Result<()> {
    let mut check = pattern::Check::default();
    let mut buf = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buf).await? {
            0 => break,
            n => check.feed(&buf[..n]),
        }
    }
    let verdict = check.wrong_at().map_or("ok".to_owned(), |at| format!("wrong at {at}"));
    stream.write_all(format!("{name} {} {verdict}", check.seen()).as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

async fn source(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let count: u64 = line.trim().parse().context("not a number")?;
    let mut sent = 0;
    while sent < count {
        let bytes = pattern::chunk(sent, count - sent);
        stream.write_all(&bytes).await?;
        sent += bytes.len() as u64;
    }
    Ok(stream.shutdown().await?)
}

/// A UDP server that answers `NAME:PAYLOAD`.
///
/// # Errors
/// When it can't listen.
pub fn udp_echo(place: &Netns, name: &str, addr: SocketAddr) -> Result<Server> {
    let name = name.to_owned();
    let listen = move || {
        let (socket, addr) = bind(addr, Type::DGRAM, Protocol::UDP)?;
        Ok((UdpSocket::from_std(socket.into())?, addr))
    };
    start(place, listen, async move |socket: UdpSocket, seen| {
        let mut buf = vec![0; 64 * 1024];
        while let Ok((n, peer)) = socket.recv_from(&mut buf).await {
            seen.push(peer);
            let answer = [name.as_bytes(), b":", &buf[..n]].concat();
            let _ = socket.send_to(&answer, peer).await;
        }
    })
}
