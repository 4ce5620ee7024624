//! One connection of a client from outside.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use weft_core::gateway::{Bind, ListenerProtocol, PortLayer};
use weft_core::reason::Reason;
use weft_core::snapshot::{GatewayListener, RouteSet};
use weft_sys::sock;
use weft_tls::TlsStream;

use super::KEEPALIVE;
use super::opening::{self, NotServed};
use super::terminate::Terminators;
use crate::authorize::gateway::Admitted;
use crate::identify::LocalWorkload;
use crate::observe::{Connection, Direction, Handshake, HandshakeRole};
use crate::pipeline::{AtGateway, ClientStream, relay_at_gateway};
use crate::relay::encrypted::Encrypted;
use crate::relay::front::GatewayConnection;
use crate::route::{Hello, Replayed, read_client_hello};
use crate::worker::Worker;

/// A fatal alert `unrecognized_name` (RFC 6066, section 3): nobody here has the name that was asked for.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// How long a handshake may take, with the wait for its turn.
const HANDSHAKE: Duration = Duration::from_secs(10);

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
    let Arrived { bind, mut stream, client } = arrived;
    // Fails only for a connection that is gone already, which the first read will tell.
    let _ = tune(&stream);
    let local = stream.local_addr().map_or(client, sock::canonical);
    let mut connection = GatewayConnection { source: Rc::clone(source), client, local, bind, listener: None };
    let first = match opening::read(worker, &mut connection, &mut stream).await {
        Ok(first) => first,
        Err(NotServed::Gone) => return,
        Err(NotServed::Refused(reason, why)) => {
            let _ = sock::reset_on_close(&stream);
            return note_because(worker, &connection, reason, &why);
        }
    };
    let layer = worker.node.store.load().gateway_port(&bind).map(|port| port.layer);
    match layer {
        Some(PortLayer::Http) if first.is_empty() => worker.http.gateway(Box::new(stream), connection).await,
        Some(PortLayer::Http) => worker.http.gateway(Box::new(Replayed::new(first, stream)), connection).await,
        Some(PortLayer::Tls) => {
            Box::pin(tls(worker, terminators, Replayed::new(first, stream), connection)).await;
        }
        Some(PortLayer::Tcp) => match listener(worker, &bind, "") {
            Some(found) => {
                let hello = Hello { bytes: first, server_name: None };
                bytes(worker, &connection, ClientStream::Tcp(stream), hello, &found).await;
            }
            None => refuse(worker, &connection, &stream, Reason::NoListener),
        },
        // Another transport: there are no connections to it.
        Some(PortLayer::Udp) => refuse(worker, &connection, &stream, Reason::NoListener),
        // The place is gone, and its socket will be in a moment.
        None => refuse(worker, &connection, &stream, Reason::NoListener),
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    sock::set_nodelay(stream)?;
    sock::set_keepalive(stream, Some(KEEPALIVE))
}

/// The listener that has a name, of those at a place.
fn listener(worker: &Worker, bind: &Bind, name: &str) -> Option<Arc<GatewayListener>> {
    worker.node.store.load().gateway_port(bind)?.listeners.find(name).cloned()
}

/// Whether all listeners at a place end TLS for HTTP, and may answer in TLS. Where bytes are passed through a client is refused
/// like one that nobody listens for.
fn ends_tls(worker: &Worker, bind: &Bind) -> bool {
    let snapshot = worker.node.store.load();
    let is_https = |it: &Arc<GatewayListener>| matches!(it.listener.protocol, ListenerProtocol::Https { .. });
    snapshot.gateway_port(bind).is_some_and(|port| port.listeners.iter().all(is_https))
}

/// Relays bytes by the routes of a listener.
async fn bytes(
    worker: &Rc<Worker>,
    connection: &GatewayConnection,
    stream: ClientStream,
    hello: Hello,
    found: &GatewayListener,
) {
    let gateway = connection.source.workload(&worker.node.store.load());
    let admitted = Admitted::new(&worker.node.store, gateway, connection, &found.listener);
    if let Err(why) = admitted.check(&*worker.observer).await {
        stream.reset();
        return note_because(worker, connection, Reason::PolicyDenied, &why);
    }
    let table = match &found.routes {
        RouteSet::Tls(table) | RouteSet::Tcp(table) => Some(&**table),
        RouteSet::None | RouteSet::Http(_) | RouteSet::Udp(_) => None,
    };
    let passthrough = matches!(found.listener.protocol, ListenerProtocol::TlsPassthrough);
    relay_at_gateway(worker, connection, AtGateway { stream, hello, passthrough, table, admitted: &admitted }).await;
}

/// Passes TLS through or ends it, by the listener that has the name in the ClientHello.
async fn tls(worker: &Rc<Worker>, terminators: &Terminators, mut io: Replayed, connection: GatewayConnection) {
    // An error means that the client is gone.
    let Ok(mut hello) = read_client_hello(&mut io, worker.node.limits.client_hello).await else { return };
    let (mut more, mut stream) = io.into_parts();
    hello.bytes.append(&mut more);
    let name = hello.server_name.as_deref().unwrap_or_default();
    let Some(found) = listener(worker, &connection.bind, name) else {
        if !ends_tls(worker, &connection.bind) {
            return refuse(worker, &connection, &stream, Reason::NoListener);
        }
        // The last word of a connection that is refused: whether it arrives is the client's business.
        let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
        return note(worker, &connection, Reason::NoListener);
    };
    let is_http = match &found.listener.protocol {
        ListenerProtocol::Https { .. } => true,
        ListenerProtocol::TlsTerminate { .. } => false,
        ListenerProtocol::TlsPassthrough => {
            return bytes(worker, &connection, ClientStream::Tcp(stream), hello, &found).await;
        }
        // Another layer than this port's: there are none.
        ListenerProtocol::Http | ListenerProtocol::Tcp | ListenerProtocol::Udp => {
            return refuse(worker, &connection, &stream, Reason::NoListener);
        }
    };
    let tls = match terminators.of(&worker.node.store.load(), &found.listener) {
        Ok(tls) => tls,
        Err(_told) => return refuse(worker, &connection, &stream, Reason::NoCertificate),
    };
    let Hello { bytes: first, server_name } = hello;
    let began = Instant::now();
    let shaken = shake(worker, &connection, &tls, Replayed::new(first, stream)).await;
    let negotiated = shaken.as_ref().map(weft_tls::negotiated).map_err(|reason| *reason);
    tell(worker, &connection.source, negotiated, began.elapsed());
    match shaken {
        Ok(io) if is_http => {
            let listener = Some(Arc::clone(&found.listener));
            worker.http.gateway(Box::new(io), GatewayConnection { listener, ..connection }).await;
        }
        Ok(io) => {
            let hello = Hello { bytes: Vec::new(), server_name };
            bytes(worker, &connection, ClientStream::Tls(Box::new(Encrypted::new(io))), hello, &found).await;
        }
        Err(reason) => note(worker, &connection, reason),
    }
}

/// Tells telemetry how a client's handshake ended: with a version and a cipher suite, or not.
pub(super) fn tell(
    worker: &Worker,
    source: &LocalWorkload,
    negotiated: Result<(&'static str, &'static str), Reason>,
    took: Duration,
) {
    let role = HandshakeRole::Gateway;
    let handshake = match negotiated {
        Ok((version, cipher)) => Handshake { role, result: Reason::Ok, took, version, cipher },
        Err(reason) => Handshake::failed(role, reason, took),
    };
    worker.observer.handshake(&source.workload(&worker.node.store.load()), handshake);
}

/// In turn with the Gateway's other handshakes: they are what costs, and what a flood of them must share.
async fn shake(
    worker: &Worker,
    connection: &GatewayConnection,
    tls: &weft_tls::GatewayTls,
    io: Replayed,
) -> Result<TlsStream<Replayed>, Reason> {
    let budget = &connection.source.pod.budget;
    let most = budget.usage().max_handshakes;
    let begun = worker.node.gateways.handshakes().begin(connection.client.ip(), most);
    let _of_client = begun.ok_or(Reason::LimitHandshakes)?;
    let in_turn = async {
        let _turn = budget.handshake().await?;
        Ok(worker.turns.take(tls.accept(io)).await)
    };
    let shaken = Box::pin(timeout(HANDSHAKE, in_turn)).await.map_err(|_| Reason::TlsHandshake)??;
    shaken.map_err(|error| {
        tracing::debug!(client = %connection.client, bind = %connection.bind, "TLS handshake failed: {error}");
        Reason::TlsHandshake
    })
}

/// Closes with a reset: the client must not take a refusal for an empty answer.
fn refuse(worker: &Worker, connection: &GatewayConnection, stream: &TcpStream, reason: Reason) {
    let _ = sock::reset_on_close(stream);
    note(worker, connection, reason);
}

pub(super) fn note(worker: &Worker, connection: &GatewayConnection, reason: Reason) {
    note_because(worker, connection, reason, "");
}

fn note_because(worker: &Worker, connection: &GatewayConnection, reason: Reason, why: &str) {
    tracing::debug!(client = %connection.client, bind = %connection.bind, reason = reason.as_str(), "refused: {why}");
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
    worker.observer.refused_because(&record, reason, why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_is_gone_without_a_word_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    }
}
