//! Inbound through a tunnel: accept, identify (the peer's certificate), then for each stream authorize, connect, relay.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};
use weft_core::reason::Reason;
use weft_hbone::relay::Socket;
use weft_hbone::{ConnectRequest, Handler, Responder, serve_connection};
use weft_tls::{HandshakeError, PeerInfo, PeerRefused, TlsStream};

use super::inbound::Opened;
use super::reset;
use crate::authorize::Inbound;
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::observe::{Connection, Handshake, HandshakeRole};
use crate::relay::tcp::{Terms, relay};
use crate::worker::{CountPanic, Turns, Worker};

/// How long a peer waits for the pod's first certificate.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(1);

/// Serves a tunnel that was accepted inside a pod.
pub(super) async fn serve(worker: &Rc<Worker>, workload: &Rc<LocalWorkload>, stream: TcpStream, peer: SocketAddr) {
    let local = stream.local_addr().map_or(peer, weft_sys::sock::canonical);
    let began = Instant::now();
    let shaken = handshake(&worker.turns, workload, stream).await;
    let (role, took) = (HandshakeRole::Server, began.elapsed());
    let told = match &shaken {
        Ok((_, peer)) => Handshake { role, result: Reason::Ok, took, version: peer.version(), cipher: peer.cipher() },
        Err(reason) => Handshake::failed(role, *reason, took),
    };
    worker.observer.handshake(&workload.workload(&worker.node.store.load()), told);
    match shaken {
        Ok((tls, info)) => {
            let handler = Streams {
                worker: Rc::clone(worker),
                workload: Rc::clone(workload),
                identity: PeerIdentity::Certificate(Arc::new(info)),
                peer,
            };
            let limits = worker.node.limits.server;
            let report = serve_connection(tls, Rc::new(handler), limits, workload.leaving.clone()).await;
            tracing::debug!(workload = %workload.uid(), %peer, end = report.end.reason(), streams = report.streams,
                "tunnel ended");
        }
        Err(reason) => {
            let identity = PeerIdentity::Unidentified;
            let peer = Peer { identity, address: peer };
            let inbound = Inbound { workload: Rc::clone(workload), peer, destination: local };
            let record = Connection { transport: "none", ..worker.inbound.record(&inbound) };
            worker.observer.refused(&record, reason);
        }
    }
}

/// In turn with the pod's other handshakes: they are what costs, and what a flood of them must share.
async fn handshake(
    turns: &Turns,
    workload: &LocalWorkload,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, PeerInfo), Reason> {
    let pod = &workload.pod;
    let turn = match pod.budget.handshake().await {
        Ok(turn) => turn,
        Err(reason) => {
            reset(&stream);
            return Err(reason);
        }
    };
    if pod.lease.ready(CERTIFICATE_WAIT).await.is_err() {
        reset(&stream);
        return Err(Reason::NoCertificate);
    }
    let server = pod.lease.server();
    let accepted = Box::pin(turns.take(server.accept(stream))).await;
    drop(turn);
    accepted.map_err(|error| {
        tracing::debug!(workload = %pod.uid, "tunnel refused: {error}");
        match error {
            HandshakeError::NoCertificate(_) => Reason::NoCertificate,
            HandshakeError::Peer(PeerRefused::Expired { .. }) => Reason::CertificateExpired,
            HandshakeError::Peer(_) => Reason::PeerIdentity,
            _ => Reason::TlsHandshake,
        }
    })
}

/// The streams of one tunnel.
struct Streams {
    worker: Rc<Worker>,
    workload: Rc<LocalWorkload>,
    identity: PeerIdentity,
    peer: SocketAddr,
}

impl Handler for Streams {
    fn handle(&self, request: ConnectRequest, responder: Responder) -> impl Future<Output = ()> + 'static {
        let worker = Rc::clone(&self.worker);
        let inbound = Inbound {
            workload: Rc::clone(&self.workload),
            peer: Peer { identity: self.identity.clone(), address: self.peer },
            destination: request.authority,
        };
        async move {
            // The tunnel's own task doesn't see a panic of a stream's.
            let _counted = CountPanic { worker: &worker, workload: &inbound.workload.clone() };
            carry(&worker, inbound, responder).await;
        }
    }
}

async fn carry(worker: &Rc<Worker>, inbound: Inbound, responder: Responder) {
    let record = worker.inbound.record(&inbound);
    let budget = Arc::clone(&inbound.workload.pod.budget);
    let opened = match budget.connection() {
        Ok(slot) => worker.inbound.open(inbound, &record).await.map(|opened| (opened, slot)),
        Err(reason) => Err(reason),
    };
    // A responder fails when the peer has given up meanwhile.
    match opened {
        Ok((Opened::Bytes(application), _slot)) => {
            let Ok(mut stream) = responder.accept() else { return };
            let record = Connection { endpoint: Some(record.destination), ..record };
            worker.observer.opened(&record);
            let since = Instant::now();
            let mut app = Socket::new(application.stream);
            let terms = Terms {
                idle: worker.node.limits.idle,
                permission: Some(&application.permission),
                admitted: None,
                budget: &budget,
            };
            let ended = relay(&mut stream, &mut app, terms).await;
            worker.observer.closed(&record, &ended, since.elapsed());
        }
        Ok((Opened::Http(permit), _slot)) => {
            if let Ok(stream) = responder.accept() {
                worker.inbound.http(Box::new(stream), permit).await;
            }
        }
        // Only plaintext comes from the node's own address.
        Ok((Opened::Probe(_), _slot)) => drop(refuse(responder, Reason::NotAProbe)),
        Err(reason) => {
            tracing::debug!(workload = %record.workload.uid, client = %record.client, destination = %record.destination,
                reason = reason.as_str(), "stream refused");
            worker.observer.refused(&record, reason);
            let _ = refuse(responder, reason);
        }
    }
}

fn refuse(responder: Responder, reason: Reason) -> std::io::Result<()> {
    responder.refuse_because(status(reason), reason.as_str())
}

/// The answer to a CONNECT that is refused.
fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::PolicyDenied => StatusCode::UNAUTHORIZED,
        Reason::Loop => StatusCode::BAD_REQUEST,
        Reason::UnknownDestination => StatusCode::MISDIRECTED_REQUEST,
        Reason::LimitConnections | Reason::LimitBuffers | Reason::NodeExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
