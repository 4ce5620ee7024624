//! Accepts control-channel connections for a server, such as tonic's, that takes a stream of connected streams.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::TlsStream;
use crate::control::ControlServer;

/// The pause after accept() failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most handshakes that go on at the same time.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeLimits {
    /// Of all peers.
    pub total: usize,
    /// Of one address.
    pub per_address: usize,
}

/// Accepts on `listener` and completes handshakes, so many at a time as `limits` says. A peer that says nothing holds up
/// nobody at another address. Failed handshakes are logged and dropped. Ends when the receiver is dropped.
pub fn incoming(
    listener: TcpListener,
    server: ControlServer,
    limits: HandshakeLimits,
) -> mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)> {
    let (sender, receiver) = mpsc::channel(16);
    let door = Door { server, sender, limits, handshakes: JoinSet::new(), under_way: VecDeque::new() };
    tokio::spawn(door.run(listener));
    receiver
}

/// Where peers come in.
struct Door {
    server: ControlServer,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
    limits: HandshakeLimits,
    handshakes: JoinSet<()>,
    /// Those that haven't ended, the oldest first.
    under_way: VecDeque<(IpAddr, AbortHandle)>,
}

impl Door {
    async fn run(mut self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = self.handshakes.join_next() => {
                    self.forget_ended();
                    continue;
                }
                () = self.sender.closed() => return,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    // Else it is closed by going out of scope.
                    if self.has_room(peer.ip()).await {
                        self.begin(tcp, peer);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    if !is_of_one_connection(&error) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let (server, sender) = (self.server.clone(), self.sender.clone());
        let handshake = self.handshakes.spawn(async move {
            let _ = tcp.set_nodelay(true);
            match server.accept(tcp).await {
                Ok(stream) => drop(sender.send((stream, peer)).await),
                Err(error) => {
                    tracing::info!(%peer, reason = error.reason(), "control connection refused: {error}");
                }
            }
        });
        self.under_way.push_back((peer.ip(), handshake));
    }

    /// Whether one more handshake of an address may begin. One address has only so many; what is more is refused, so that
    /// those that it has can end. Where there are too many of all, an address that has more than its share makes room. If
    /// none has, all nodes come at once, and wait in the listener's queue for handshakes to end: each does, in time.
    async fn has_room(&mut self, address: IpAddr) -> bool {
        self.forget_ended();
        let own = self.under_way.iter().filter(|(of, _)| *of == address).count();
        if own >= self.limits.per_address.max(1) {
            tracing::debug!(%address, "control connection refused: too many handshakes of this address are under way");
            return false;
        }
        while self.under_way.len() >= self.limits.total.max(1) {
            if let Some(fullest) = self.fullest(own + 1) {
                self.close_oldest(fullest);
                continue;
            }
            tokio::select! {
                _ = self.handshakes.join_next() => self.forget_ended(),
                () = self.sender.closed() => return false,
            }
        }
        true
    }

    /// The address that has most, if that is more than this.
    fn fullest(&self, more_than: usize) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.under_way.iter().for_each(|(of, _)| *counts.entry(*of).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.filter(|(_, count)| *count > more_than).map(|(address, _)| address)
    }

    /// A handshake takes a few round trips: of those of one address, the oldest is the least likely to be honest.
    fn close_oldest(&mut self, address: IpAddr) {
        let oldest = self.under_way.iter().position(|(of, _)| *of == address);
        if let Some((_, handshake)) = oldest.and_then(|at| self.under_way.remove(at)) {
            tracing::debug!(%address, "handshake given up: this address has most of too many that are under way");
            handshake.abort();
        }
    }

    fn forget_ended(&mut self) {
        self.under_way.retain(|(_, handshake)| !handshake.is_finished());
    }
}

/// Errors that say that this connection is gone, not that the next accept() will fail too.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
}
