//! Accepts control-channel connections for a server, such as tonic's, that takes a stream of connected streams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::TlsStream;
use crate::control::ControlServer;

/// The pause after accept() failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on `listener` and completes handshakes, at most `handshakes` at a time, so that one slow peer holds up
/// nobody. Failed handshakes are logged and dropped. Ends when the receiver is dropped.
pub fn incoming(
    listener: TcpListener,
    server: ControlServer,
    handshakes: usize,
) -> mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)> {
    let (sender, receiver) = mpsc::channel(16);
    let permits = Arc::new(Semaphore::new(handshakes.max(1)));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    if !is_of_one_connection(&error) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            let (server, sender) = (server.clone(), sender.clone());
            tokio::spawn(async move {
                let _ = tcp.set_nodelay(true);
                match server.accept(tcp).await {
                    Ok(stream) => drop(sender.send((stream, peer)).await),
                    Err(error) => {
                        tracing::info!(%peer, reason = error.reason(), "control connection refused: {error}");
                    }
                }
                drop(permit);
            });
        }
    });
    receiver
}

/// Errors that say that this connection is gone, not that the next accept() will fail too.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
}
