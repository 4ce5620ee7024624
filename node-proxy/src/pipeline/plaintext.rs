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
use super::reset;
use crate::authorize::Inbound;
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
    let from_node = worker.node.addresses.contains(&peer.ip());
    let identity = if from_node { PeerIdentity::Node } else { PeerIdentity::Unidentified };
    let inbound = Inbound { workload: Rc::clone(workload), peer: Peer { identity, address: peer }, destination };
    let record = worker.inbound.record(&inbound);
    if from_node {
        worker.observer.node_plaintext(&record);
    } else if strict_audit(worker, &record) {
        worker.observer.strict_audit(&record);
    }
    match worker.inbound.open(inbound, &record).await {
        Ok(Opened::Bytes(application)) => {
            let record = Connection { endpoint: Some(destination), ..record };
            worker.observer.opened(&record);
            let since = Instant::now();
            let (mut client, mut app) = (Socket::new(stream), Socket::new(application.stream));
            let (idle, budget) = (worker.node.limits.idle, &workload.pod.budget);
            let terms = Terms { idle, permission: Some(&application.permission), budget };
            let ended = relay(&mut client, &mut app, terms).await;
            worker.observer.closed(&record, &ended, since.elapsed());
        }
        Ok(Opened::Http(permit)) => worker.inbound.http(Box::new(stream), permit).await,
        Err(reason) => {
            refused(worker, &record, reason);
            reset(&stream);
        }
    }
}

fn strict_audit(worker: &Worker, record: &Connection) -> bool {
    let port = Port::new(record.destination.port());
    port.is_some_and(|port| worker.node.store.load().mode_for(&record.workload, port) == Mode::StrictAudit)
}

fn refused(worker: &Worker, record: &Connection, reason: Reason) {
    tracing::debug!(workload = %record.workload.uid, client = %record.client, destination = %record.destination,
        reason = reason.as_str(), "plaintext connection refused");
    worker.observer.refused(record, reason);
}
