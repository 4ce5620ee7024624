//! Servers that say who they are in every answer.
//!
//! [`http`] speaks HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket on one port, as the request has it; [`tcp`]
//! behaves as told; [`udp_echo`] answers datagrams. All listen before they return and stop when dropped.

mod grpc;
mod http;
mod tcp;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

pub use self::http::{POD_HEADER, http};
pub use self::tcp::{Behaviour, tcp, udp_echo};
use crate::netns::Netns;
use crate::task::Task;

/// A running server; ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    seen: Seen,
    task: Task<()>,
}

/// Who connected, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<SocketAddr>>>);

impl Server {
    /// Where it listens; `[::]` unless told otherwise.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The peer address of every connection (or datagram) so far, in the order they came, IPv4 as IPv4.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.seen.0.lock().clone()
    }

    /// Whether it still serves.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Seen {
    pub(crate) fn push(&self, peer: SocketAddr) -> SocketAddr {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.0.lock().push(peer);
        peer
    }
}

/// A port on every address of both families.
pub fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Listens in `place`, then runs `serve` there.
fn start<L, F>(
    place: &Netns,
    listen: impl FnOnce() -> Result<(L, SocketAddr)> + Send + 'static,
    serve: F,
) -> Result<Server>
where
    F: AsyncFnOnce(L, Seen) + Send + 'static,
{
    let seen = Seen::default();
    let (ready, is_ready) = mpsc::channel();
    let inner = seen.clone();
    let task = place.spawn_with(move || async move {
        match listen() {
            Ok((listener, addr)) => {
                let _ = ready.send(Ok(addr));
                serve(listener, inner).await;
            }
            Err(e) => {
                let _ = ready.send(Err(e));
            }
        }
    });
    let addr = is_ready.recv().with_context(|| format!("no server in {:?}", place.name()))??;
    Ok(Server { addr, seen, task })
}

fn bind(addr: SocketAddr, kind: Type, protocol: Protocol) -> Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into()).with_context(|| format!("bind {addr}"))?;
    let addr = socket.local_addr()?.as_socket().context("not an internet address")?;
    Ok((socket, addr))
}

fn listen_tcp(addr: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr)> {
    let (socket, addr) = bind(addr, Type::STREAM, Protocol::TCP)?;
    socket.listen(1024)?;
    Ok((tokio::net::TcpListener::from_std(socket.into())?, addr))
}
