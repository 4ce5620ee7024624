//! The inbound stages that tunnels, plaintext and the in-memory path share: authorize, then connect.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use weft_core::reason::Reason;

use crate::authorize::{self, Granted, HttpPermit, Inbound, Permit, ProbePermit, Registry};
use crate::connect::{Application, ConnectError, LocalStream, UpstreamStream, connect_application};
use crate::identify::{LocalWorkload, Peer};
use crate::observe::{Connection, Direction, Observer};
use crate::relay::front::{ByteStream, HttpRelay};
use crate::worker::Node;
use weft_core::ids::SandboxId;

/// Bytes in flight between the two halves of an in-memory HTTP connection.
const PIPE_BYTES: usize = 64 << 10;

/// Authorization and the way to applications, of one worker.
pub struct InboundHalf {
    node: Arc<Node>,
    registry: Registry,
    observer: Rc<dyn Observer>,
    /// Weak: the engine holds us.
    http: OnceCell<Weak<dyn HttpRelay>>,
}

/// What an inbound connection may do, done.
pub(super) enum Opened {
    /// The application is connected.
    Bytes(Application),
    /// Requests are to be parsed.
    Http(HttpPermit),
    /// It has to show that it is a probe first.
    Probe(ProbePermit),
}

impl InboundHalf {
    pub(crate) fn new(node: Arc<Node>, observer: Rc<dyn Observer>) -> Self {
        Self { node, registry: Registry::new(Rc::clone(&observer)), observer, http: OnceCell::new() }
    }

    pub(crate) fn set_http(&self, http: &Rc<dyn HttpRelay>) {
        // Set once, by the worker that makes both.
        let _ = self.http.set(Rc::downgrade(http));
    }

    /// Open inbound connections.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) async fn recheck_policy(&self) {
        self.registry.recheck_policy(&self.node.store).await;
    }

    pub(crate) async fn end_expired(&self) {
        self.registry.end_expired(&self.node.certificates).await;
    }

    pub(crate) async fn recheck_trust(&self) {
        self.registry.recheck_trust(&self.node.certificates).await;
    }

    pub(crate) fn forget_pod(&self, sandbox: &SandboxId) {
        let (registry, sandbox) = (self.registry.clone(), sandbox.clone());
        tokio::task::spawn_local(async move { registry.revoke_pod(&sandbox, Reason::WorkloadGone).await });
    }

    /// Authorizes and connects.
    pub(super) async fn open(&self, inbound: Inbound, record: &Connection) -> Result<Opened, Reason> {
        match authorize::inbound(&self.node.store, &self.registry, inbound).await? {
            Granted::Http(permit) => Ok(Opened::Http(permit)),
            Granted::Probe(permit) => Ok(Opened::Probe(permit)),
            Granted::Bytes(permit) => Ok(Opened::Bytes(self.connect(permit, record).await?)),
        }
    }

    /// Connects to the application.
    pub(super) async fn connect(&self, permit: Permit, record: &Connection) -> Result<Application, Reason> {
        let application = connect_application(permit, self.node.limits.connect).await?;
        if !application.source_kept {
            self.observer.source_not_kept(record);
        }
        Ok(application)
    }

    /// Runs the HTTP engine on a connection until it ends.
    pub(super) async fn http(&self, io: Box<dyn ByteStream>, permit: HttpPermit) {
        // Without an engine (the worker ends) the connection ends too.
        if let Some(http) = self.http.get().and_then(Weak::upgrade) {
            http.inbound(io, permit).await;
        }
    }

    /// The description of a connection for telemetry.
    pub(super) fn record(&self, inbound: &Inbound) -> Connection {
        let snapshot = self.node.store.load();
        let identity = inbound.peer.identity.spiffe().cloned();
        Connection {
            direction: Direction::Inbound,
            workload: inbound.workload.workload(&snapshot),
            remote: snapshot.workload_at(inbound.peer.address.ip()).cloned(),
            identity,
            service: None,
            client: inbound.peer.address,
            destination: inbound.destination,
            endpoint: None,
            transport: inbound.peer.identity.transport(),
            http: false,
        }
    }

    /// The in-memory path: a stream to an application of this node, with the destination's policy as always.
    pub(crate) async fn local(
        self: &Rc<Self>,
        workload: Rc<LocalWorkload>,
        peer: Peer,
        to: SocketAddr,
    ) -> Result<UpstreamStream, ConnectError> {
        let slot = workload.pod.budget.connection().map_err(ConnectError::Limit)?;
        let inbound = Inbound { workload, peer, destination: to };
        let record = self.record(&inbound);
        match self.open(inbound, &record).await {
            Ok(Opened::Bytes(application)) => {
                let record = Connection { endpoint: Some(to), ..record };
                let stream = LocalStream::new(application, record, Rc::clone(&self.observer), slot);
                Ok(UpstreamStream::Local(stream))
            }
            Ok(Opened::Http(permit)) => {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let half = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let _slot = slot;
                    half.http(Box::new(theirs), permit).await;
                });
                Ok(UpstreamStream::Pipe(ours))
            }
            // Nobody comes from the node's own address in memory.
            Ok(Opened::Probe(_)) => Err(self.refused(&record, Reason::NotAProbe)),
            Err(reason) => Err(self.refused(&record, reason)),
        }
    }

    fn refused(&self, record: &Connection, reason: Reason) -> ConnectError {
        self.observer.refused(record, reason);
        local_error(reason, record.destination)
    }
}

/// The refusal of a destination on this node, as its client sees it: the same as through a tunnel.
fn local_error(reason: Reason, to: SocketAddr) -> ConnectError {
    match reason {
        Reason::PolicyDenied => ConnectError::Denied { to },
        Reason::ConnectTimeout => ConnectError::Timeout { to },
        Reason::NodeExhausted => ConnectError::NodeExhausted,
        Reason::Loop => ConnectError::Loop { to },
        Reason::UnknownDestination => ConnectError::UnknownWorkload { to },
        _ => ConnectError::Tcp { to, kind: std::io::ErrorKind::ConnectionRefused },
    }
}
