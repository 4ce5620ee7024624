//! One connection of a client from outside: whether it is let in, its handshake, and where it goes then.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weft_core::gateway::{Bind, Listener};
use weft_core::reason::Reason;
use weft_sys::sock;
use weft_tls::Chosen;

use crate::gateway::handshakes::UnderWay;
use crate::gateway::serve::{note, tell};
use crate::identify::LocalWorkload;
use crate::inpod::ListenerRole;
use crate::relay::front::{GatewayConnection, QuicConnection};
use crate::worker::{CountPanic, LoadSlot, Worker};

/// How long a handshake may take, with the wait for its turn.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The part of the handshakes that a Gateway may have under way from which on a client has to show that it is where it says it is
/// (RFC 9000, section 8.1.2): one that isn't must not use up what others need. It costs a round trip.
const CROWD: u32 = 8;

/// What the connections of a place have in common.
pub(super) struct Front {
    worker: Rc<Worker>,
    source: Rc<LocalWorkload>,
    tcp: Bind,
    gone: CancellationToken,
    /// Held by each handshake that is under way.
    under_way: Rc<()>,
}

/// What is counted for a connection until it is over.
type Counted = (crate::budget::ConnectionSlot, LoadSlot);
/// What is counted for a connection until its handshake is over.
type Begun = (UnderWay, Rc<()>);

impl Front {
    pub(super) fn new(worker: Rc<Worker>, source: Rc<LocalWorkload>, tcp: Bind, gone: CancellationToken) -> Self {
        Self { worker, source, tcp, gone, under_way: Rc::default() }
    }

    /// Lets clients in until the place is gone, and turns them away until the last connection has ended.
    pub(super) async fn run(self: Rc<Self>, endpoint: Endpoint) {
        loop {
            tokio::select! {
                biased;
                () = self.gone.cancelled() => break,
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.take(incoming),
                    None => return,
                },
            }
        }
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    // It goes on with TCP at once.
                    Some(incoming) => incoming.refuse(),
                    None => return,
                },
                () = endpoint.wait_idle() => return,
            }
        }
    }

    /// Lets a client in, or has it come again with proof of its address, or turns it away.
    fn take(self: &Rc<Self>, incoming: Incoming) {
        let client = sock::canonical(incoming.remote_address());
        let budget = &self.source.pod.budget;
        let most = budget.usage().max_handshakes;
        let begun = self.worker.node.gateways.handshakes().begin(client.ip(), most);
        let crowded = Rc::strong_count(&self.under_way) > (most / CROWD).max(1) as usize;
        if !incoming.remote_address_validated() && (crowded || begun.is_none()) {
            // It was just said that it may.
            let _ = incoming.retry();
            return;
        }
        let Some(begun) = begun else {
            incoming.refuse();
            return self.note(client, None, Reason::LimitHandshakes);
        };
        let slot = match budget.connection() {
            Ok(slot) => slot,
            Err(reason) => {
                incoming.refuse();
                let workload = self.source.workload(&self.worker.node.store.load());
                return self.worker.observer.shed(&workload, ListenerRole::Outbound, reason);
            }
        };
        let Some(load) = self.worker.workers.get(self.worker.index).map(|handle| handle.take_load()) else { return };
        let front = Rc::clone(self);
        // Counted from now on: of many that come at once, the next is looked at before the task of this one runs.
        let begun = (begun, Rc::clone(&self.under_way));
        spawn_local(async move {
            let _panics = CountPanic { worker: &front.worker, workload: &front.source };
            front.serve(incoming, client, begun, (slot, load)).await;
        });
    }

    async fn serve(&self, incoming: Incoming, client: SocketAddr, begun: Begun, _counted: Counted) {
        let local = self.local(&incoming);
        let since = Instant::now();
        let shaken = {
            let _begun = begun;
            Box::pin(timeout(HANDSHAKE, self.shake(incoming))).await.unwrap_or(Err(Reason::TlsHandshake))
        };
        // QUIC has no other version (RFC 9001, section 4.2), and doesn't tell the suite.
        let negotiated = shaken.as_ref().map(|_| ("TLSv1.3", "unknown")).map_err(|reason| *reason);
        tell(&self.worker, &self.source, negotiated, since.elapsed());
        match shaken {
            Ok((connection, listener)) => {
                let (source, bind) = (Rc::clone(&self.source), self.tcp);
                let at = GatewayConnection { source, client, local, bind, listener: Some(listener) };
                let quic = QuicConnection { connection, leaving: self.gone.clone() };
                self.worker.http.http3(quic, at).await;
            }
            Err(reason) => self.note(client, Some(local), reason),
        }
    }

    /// In turn with the Gateway's other handshakes, as far as it is done at once: its first step costs most.
    async fn shake(&self, incoming: Incoming) -> Result<(Connection, Arc<Listener>), Reason> {
        let client = incoming.remote_address();
        let failed = |error: quinn::ConnectionError| {
            tracing::debug!(%client, bind = %self.tcp, "QUIC handshake failed: {error}");
            Reason::TlsHandshake
        };
        let _turn = self.source.pod.budget.handshake().await?;
        let connecting = self.worker.turns.take(async { incoming.accept() }).await.map_err(failed)?;
        let connection = connecting.await.map_err(failed)?;
        let chosen = connection.handshake_data().and_then(|data| data.downcast::<Chosen>().ok());
        let listener = chosen.and_then(|chosen| chosen.0.downcast::<Listener>().ok());
        Ok((connection, listener.ok_or(Reason::TlsHandshake)?))
    }

    /// The address that a client asked at.
    fn local(&self, incoming: &Incoming) -> SocketAddr {
        let any = || sock::unspecified(incoming.remote_address().ip());
        let address = incoming.local_ip().or(self.tcp.address).unwrap_or_else(any);
        sock::canonical(SocketAddr::new(address, self.tcp.port.get()))
    }

    fn note(&self, client: SocketAddr, local: Option<SocketAddr>, reason: Reason) {
        let any = || SocketAddr::new(sock::unspecified(client.ip()), self.tcp.port.get());
        let (source, bind) = (Rc::clone(&self.source), self.tcp);
        let at = GatewayConnection { source, client, local: local.unwrap_or_else(any), bind, listener: None };
        note(&self.worker, &at, reason);
    }
}
