//! HTTP/3: where it is listened for, and the connections that come there.
//!
//! ```text
//!  UDP socket --datagrams--> endpoint --Initial--> limits, Retry --> handshake (ClientHello -> listener) --> relay::http
//!  (of one worker)                    \--of a connection--> that connection
//! ```
//!
//! A place has one endpoint, which one worker owns: all packets of a connection have to come to one socket, also when the
//! number of sockets changes, and no connection changes workers. Which worker is told by the port, so that several places have
//! several. The socket is nobody else's: of two that shared the port each would get a part of the other's packets. So a proxy
//! that takes over listens when the one before it has no connection left; until then that one refuses new ones, and their
//! clients go on with TCP, as they do whenever UDP doesn't pass.
//!
//! Invariants: clients hear of HTTP/3 only where it is listened for ([`QuicPlaces`]); who ends TLS and who is turned away is
//! decided by the same listeners, certificates and limits as with TCP. A client keeps the address that it came from for as long
//! as its connection lasts, because policies look at it.

mod connection;
mod endpoint;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_core::gateway::{Bind, PortLayer};
use weft_core::ids::GatewayKey;
use weft_core::snapshot::Snapshot;

use super::terminate::Terminators;
use crate::identify::LocalWorkload;
use crate::worker::Worker;
pub use places::QuicPlaces;

/// Where this worker listens, by the place of TCP beside it.
#[derive(Default)]
pub(super) struct QuicListening {
    places: BTreeMap<Bind, Place>,
    failing: BTreeSet<Bind>,
}

/// A place that is listened on. Connections that are open end after what is under way when it is gone.
struct Place {
    gateway: GatewayKey,
    tcp: Bind,
    known: QuicPlaces,
    gone: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known.remove(&self.tcp);
        self.gone.cancel();
    }
}

/// Where HTTP/3 is to be listened for by this worker.
pub(super) fn wanted(worker: &Worker, snapshot: &Snapshot) -> BTreeMap<Bind, GatewayKey> {
    let is_ours = |bind: &Bind| usize::from(bind.port.get()) % worker.workers.len().max(1) == worker.index;
    let ports = snapshot.gateway_ports().filter(|port| port.layer == PortLayer::Tls && is_ours(&port.bind));
    let ports = ports.filter(|port| port.listeners.iter().any(|it| it.listener.speaks_http3()));
    ports.map(|port| (port.bind, port.gateway.clone())).collect()
}

impl QuicListening {
    /// Whether it can't listen somewhere.
    pub(super) fn has_failed(&self) -> bool {
        !self.failing.is_empty()
    }

    /// Closes what is gone.
    pub(super) fn retain(&mut self, wanted: &BTreeMap<Bind, GatewayKey>) {
        self.places.retain(|bind, place| wanted.get(bind) == Some(&place.gateway));
        self.failing.retain(|bind| wanted.contains_key(bind));
    }

    /// Listens at a place, unless it does already. One that can't be had costs its listener nothing: clients stay with TCP.
    pub(super) fn open(
        &mut self,
        worker: &Rc<Worker>,
        source: &Rc<LocalWorkload>,
        terminators: &Arc<Terminators>,
        (tcp, gateway): (Bind, GatewayKey),
    ) {
        if self.places.contains_key(&tcp) {
            return;
        }
        let gone = CancellationToken::new();
        match endpoint::listen((worker, source), terminators, tcp, &gone) {
            Ok(()) => {
                let known = worker.node.gateways.http3().clone();
                known.add(tcp);
                self.failing.remove(&tcp);
                tracing::info!(%gateway, bind = %Bind::udp(tcp.address, tcp.port), "listening for HTTP/3");
                self.places.insert(tcp, Place { gateway, tcp, known, gone });
            }
            Err(error) => {
                if self.failing.insert(tcp) {
                    let bind = Bind::udp(tcp.address, tcp.port);
                    tracing::error!(%gateway, %bind, "can't listen for HTTP/3, tried again every few seconds; clients stay \
                        with HTTP/1 and HTTP/2 until then: {error}; is another program, or one that this one replaces, \
                        listening there?");
                }
            }
        }
    }
}
