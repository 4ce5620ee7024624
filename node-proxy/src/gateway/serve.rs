//! One connection of a client from outside.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use weft_core::gateway::{Bind, ListenerProtocol, PortLayer};
use weft_core::reason::Reason;
use weft_core::snapshot::{GatewayListener, RouteSet};
use weft_tls::TlsStream;

use super::terminate::Terminators;
use crate::identify::LocalWorkload;
use crate::observe::{Connection, Direction};
use crate::pipeline::relay_at_gateway;
use crate::relay::front::GatewayConnection;
use crate::route::{Hello, read_client_hello};
use crate::worker::Worker;

/// A fatal alert `unrecognized_name` (RFC 6066, section 3): nobody here has the name that was asked for.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A connection that was accepted.
pub(super) struct Arrived {
    pub(super) bind: Bind,
    pub(super) stream: TcpStream,
    pub(super) client: SocketAddr,
}

/// Serves it to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    source: &Rc<LocalWorkload>,
    terminators: &Terminators,
    arrived: Arrived,
) {
    let Arrived { bind, stream, client } = arrived;
    // Fails only for a connection that is gone already, which the first read will tell.
    let _ = weft_sys::sock::set_nodelay(&stream);
    let local = stream.local_addr().map_or(client, weft_sys::sock::canonical);
    let connection = GatewayConnection { source: Rc::clone(source), client, local, bind, listener: None };
    let layer = worker.node.store.load().gateway_port(&bind).map(|port| port.layer);
    match layer {
        Some(PortLayer::Http) => worker.http.gateway(Box::new(stream), connection).await,
        Some(PortLayer::Tls) => Box::pin(tls(worker, terminators, stream, connection)).await,
        Some(PortLayer::Tcp) => match listener(worker, &bind, "") {
            Some(found) => bytes(worker, &connection, stream, Hello::default(), &found).await,
            None => refuse(worker, &connection, &stream, Reason::NoListener),
        },
        // The place is gone, and its socket will be in a moment.
        None => refuse(worker, &connection, &stream, Reason::NoListener),
    }
}

/// The listener that has a name, of those at a place.
fn listener(worker: &Worker, bind: &Bind, name: &str) -> Option<Arc<GatewayListener>> {
    worker.node.store.load().gateway_port(bind)?.listeners.find(name).cloned()
}

/// Relays bytes by the routes of a listener.
async fn bytes(
    worker: &Rc<Worker>,
    connection: &GatewayConnection,
    stream: TcpStream,
    hello: Hello,
    found: &GatewayListener,
) {
    let table = match &found.routes {
        RouteSet::Tls(table) | RouteSet::Tcp(table) => Some(&**table),
        RouteSet::None | RouteSet::Http(_) => None,
    };
    relay_at_gateway(worker, connection, stream, hello, table).await;
}

/// Passes TLS through or ends it, by the listener that has the name in the ClientHello.
async fn tls(worker: &Rc<Worker>, terminators: &Terminators, mut stream: TcpStream, connection: GatewayConnection) {
    // An error means that the client is gone.
    let Ok(hello) = read_client_hello(&mut stream, worker.node.limits.client_hello).await else { return };
    let name = hello.server_name.as_deref().unwrap_or_default();
    let Some(found) = listener(worker, &connection.bind, name) else {
        // The last word of a connection that is refused: whether it arrives is the client's business.
        let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
        return note(worker, &connection, Reason::NoListener);
    };
    let key = &found.listener.key;
    let certificates = match &found.listener.protocol {
        ListenerProtocol::Https { certificates } => certificates,
        ListenerProtocol::TlsPassthrough => return bytes(worker, &connection, stream, hello, &found).await,
        // The controller gives nobody these.
        ListenerProtocol::TlsTerminate { .. } | ListenerProtocol::Http | ListenerProtocol::Tcp => {
            return refuse(worker, &connection, &stream, Reason::NoListener);
        }
    };
    let ending = terminators.of(&worker.node.store.load(), key, certificates);
    let tls = match ending {
        Ok(tls) => tls,
        Err(why) => {
            tracing::warn!(listener = %key, "TLS can't be ended: {why}");
            return refuse(worker, &connection, &stream, Reason::NoCertificate);
        }
    };
    match shake(worker, &connection, &tls, Replayed { first: hello.bytes, at: 0, stream }).await {
        Ok(io) => {
            let listener = Some(key.clone());
            worker.http.gateway(Box::new(io), GatewayConnection { listener, ..connection }).await;
        }
        Err(reason) => note(worker, &connection, reason),
    }
}

/// In turn with the Gateway's other handshakes: they are what costs, and what a flood of them must share.
async fn shake(
    worker: &Worker,
    connection: &GatewayConnection,
    tls: &weft_tls::GatewayTls,
    io: Replayed,
) -> Result<TlsStream<Replayed>, Reason> {
    let turn = connection.source.pod.budget.handshake().await?;
    let shaken = Box::pin(worker.turns.take(tls.accept(io))).await;
    drop(turn);
    shaken.map_err(|error| {
        tracing::debug!(client = %connection.client, bind = %connection.bind, "TLS handshake failed: {error}");
        Reason::TlsHandshake
    })
}

/// Closes with a reset: the client must not take a refusal for an empty answer.
fn refuse(worker: &Worker, connection: &GatewayConnection, stream: &TcpStream, reason: Reason) {
    let _ = weft_sys::sock::reset_on_close(stream);
    note(worker, connection, reason);
}

fn note(worker: &Worker, connection: &GatewayConnection, reason: Reason) {
    let record = Connection {
        direction: Direction::Outbound,
        workload: connection.source.workload(&worker.node.store.load()),
        remote: None,
        identity: None,
        service: None,
        client: connection.client,
        destination: connection.local,
        endpoint: None,
        transport: "none",
        http: false,
    };
    worker.observer.refused(&record, reason);
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
struct Replayed {
    first: Vec<u8>,
    at: usize,
    stream: TcpStream,
}

impl AsyncRead for Replayed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.first.get(this.at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let part = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(part);
        this.at += part.len();
        if this.at >= this.first.len() {
            this.first = Vec::new();
            this.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
