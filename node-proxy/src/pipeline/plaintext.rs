//! Inbound in the clear: accept, identify (nobody, or the node by its address), authorize, connect, relay.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::Instant;
use weft_core::ids::Port;
use weft_core::policy::Mode;
use weft_core::reason::Reason;
use weft_hbone::relay::Socket;

use super::inbound::Opened;
use super::{probe, reset};
use crate::authorize::{Inbound, has_probes};
use crate::connect::Application;
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::observe::Connection;
use crate::relay::tcp::{Terms, relay};
use crate::worker::Worker;

/// Serves a connection that came to a pod outside any tunnel.
pub(super) async fn serve(worker: &Rc<Worker>, workload: &Rc<LocalWorkload>, stream: TcpStream, peer: SocketAddr) {
    let destination = match workload.pod.net.original_destination(&stream) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::debug!(workload = %workload.uid(), %peer, "a connection without a destination: {error}");
            return reset(&stream);
        }
    };
    let node = worker.node.addresses.contains(&peer.ip()) || workload.pod.is_node_address(peer.ip());
    let identity = if node { PeerIdentity::Node } else { PeerIdentity::Unidentified };
    let inbound = Inbound { workload: Rc::clone(workload), peer: Peer { identity, address: peer }, destination };
    let record = worker.inbound.record(&inbound);
    if node {
        worker.observer.node_plaintext(&record);
    }
    if strict_audit(worker, &record, node) {
        worker.observer.strict_audit(&record);
    }
    match worker.inbound.open(inbound, &record).await {
        Ok(Opened::Bytes(application)) => carry(worker, workload, stream, (application, record)).await,
        Ok(Opened::Http(permit)) => worker.inbound.http(Box::new(stream), permit).await,
        Ok(Opened::Probe(permit)) => Box::pin(probe::serve(worker, workload, stream, (permit, record))).await,
        Err(reason) => {
            refused(worker, &record, reason);
            reset(&stream);
        }
    }
}

/// Bytes both ways until one end closes.
pub(super) async fn carry(
    worker: &Rc<Worker>,
    workload: &Rc<LocalWorkload>,
    stream: TcpStream,
    (application, record): (Application, Connection),
) {
    let record = Connection { endpoint: Some(record.destination), ..record };
    worker.observer.opened(&record);
    let since = Instant::now();
    let (mut client, mut app) = (Socket::new(stream), Socket::new(application.stream));
    let (idle, budget) = (worker.node.limits.idle, &workload.pod.budget);
    let terms = Terms { idle, permission: Some(&application.permission), admitted: None, budget };
    let ended = relay(&mut client, &mut app, terms).await;
    worker.observer.closed(&record, &ended, since.elapsed());
}

/// Whether Strict would refuse the connection. From the node it might be one of the probes that the pod declares.
fn strict_audit(worker: &Worker, record: &Connection, node: bool) -> bool {
    let Some(port) = Port::new(record.destination.port()) else { return false };
    let mode = worker.node.store.load().mode_for(&record.workload, port);
    mode == Mode::StrictAudit && !(node && has_probes(&record.workload, port))
}

pub(super) fn refused(worker: &Worker, record: &Connection, reason: Reason) {
    tracing::debug!(workload = %record.workload.uid, client = %record.client, destination = %record.destination,
        reason = reason.as_str(), "plaintext connection refused");
    worker.observer.refused(record, reason);
}
