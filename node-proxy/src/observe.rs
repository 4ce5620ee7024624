//! What the connection pipelines tell telemetry, once for each thing that happens.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_core::authorize::CallFacts;
use weft_core::identity::SpiffeId;
use weft_core::ids::{PolicyKey, ServicePortKey};
use weft_core::reason::Reason;
use weft_core::workload::Workload;

use crate::inpod::ListenerRole;

/// Which side of a connection the local pod is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The local pod dialled.
    Outbound,
    /// The local pod was dialled.
    Inbound,
}

impl Direction {
    /// As logs and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// A connection that is relayed as bytes, or was refused before anything was relayed.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Which side the local pod is on.
    pub direction: Direction,
    /// The local pod.
    pub workload: Arc<Workload>,
    /// The workload at the other end, if it is known.
    pub remote: Option<Arc<Workload>>,
    /// The identity of the other end, if it was proven.
    pub identity: Option<SpiffeId>,
    /// The Service that was dialled, if one was.
    pub service: Option<ServicePortKey>,
    /// The client's address.
    pub client: SocketAddr,
    /// What was dialled.
    pub destination: SocketAddr,
    /// The endpoint that was connected, if one was.
    pub endpoint: Option<SocketAddr>,
    /// `hbone`, `local`, `plain`, `plaintext`, `node` or `passthrough`; `none` when it didn't get so far.
    pub transport: &'static str,
    /// Its requests are parsed, and have log lines of their own.
    pub http: bool,
}

/// How much went through a connection, and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Why it ended.
    pub reason: Reason,
}

impl Ended {
    /// An end before a byte was relayed.
    pub const fn refused(reason: Reason) -> Self {
        Self { received: 0, sent: 0, reason }
    }
}

/// Why accepting a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcceptFailure {
    /// The connection was gone before it was taken.
    Connection,
    /// File descriptors or memory ran out; accepting pauses.
    Pressure,
    /// The listener is broken; it is opened anew.
    Listener,
}

impl AcceptFailure {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Pressure => "pressure",
            Self::Listener => "listener",
        }
    }
}

/// Which end of a TLS handshake we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeRole {
    /// A local pod dialled.
    Client,
    /// A local pod was dialled.
    Server,
    /// A client came to a Gateway.
    Gateway,
}

impl HandshakeRole {
    /// As metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Gateway => "gateway",
        }
    }
}

/// A TLS handshake that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Which end we are.
    pub role: HandshakeRole,
    /// `Ok`, or why it failed.
    pub result: Reason,
    /// With the wait for its turn.
    pub took: Duration,
    /// What was agreed on, such as `TLSv1.3`; empty if nothing was.
    pub version: &'static str,
    /// The cipher suite, by its IANA name; empty if none was agreed on, or it can't be told.
    pub cipher: &'static str,
}

impl Handshake {
    /// One that failed.
    pub const fn failed(role: HandshakeRole, reason: Reason, took: Duration) -> Self {
        Self { role, result: reason, took, version: "", cipher: "" }
    }
}

/// What a policy said about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyWord<'a> {
    /// The policy; `None`: there are ALLOW policies and none matched, or there is none and nothing denied.
    pub policy: Option<&'a PolicyKey>,
    /// `allow`, `deny`, `matched` (an AUDIT policy), `would_allow` or `would_deny`.
    pub said: &'static str,
    /// Whether it counts; else it is an AUDIT policy, or one in audit mode.
    pub enforced: bool,
}

/// What a worker holds now, for gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Tunnels that take streams.
    pub tunnels: usize,
    /// Streams on them.
    pub tunnel_streams: usize,
    /// Tunnels being dialled.
    pub tunnel_dials: usize,
    /// Endpoints out of balancing.
    pub ejected: usize,
}

/// Telemetry of one worker, as the pipelines see it. Calls must be cheap and never block.
pub trait Observer {
    /// Bytes start to flow.
    fn opened(&self, connection: &Connection);

    /// A connection that was opened has ended.
    fn closed(&self, connection: &Connection, ended: &Ended, lasted: Duration);

    /// A connection ended before bytes could flow.
    fn refused(&self, connection: &Connection, reason: Reason);

    /// The same, with more on why, for people.
    fn refused_because(&self, connection: &Connection, reason: Reason, _detail: &str) {
        self.refused(connection, reason);
    }

    /// A connection of a local pod was shed before anything was known of it.
    fn shed(&self, workload: &Workload, role: ListenerRole, reason: Reason);

    /// `accept` failed on a local pod's listener.
    fn accept_failed(&self, workload: &Workload, role: ListenerRole, class: AcceptFailure);

    /// The task of a connection of a local pod panicked; only that connection ended.
    fn panicked(&self, workload: &Workload);

    /// A plaintext connection that Strict would refuse was let through by `StrictAudit`.
    fn strict_audit(&self, connection: &Connection);

    /// An inbound connection could not be made from its client's address, because the families differ.
    fn source_not_kept(&self, connection: &Connection);

    /// A TLS handshake of a tunnel, or with a client of a Gateway, has ended.
    fn handshake(&self, _workload: &Workload, _handshake: Handshake) {}

    /// A policy of a local pod had something to say.
    fn decided(&self, _workload: &Workload, _word: PolicyWord<'_>) {}

    /// A policy refused a call, or said of one what it would have done; for the audit log.
    fn audited(&self, _workload: &Workload, _address: &dyn Display, _call: &CallFacts<'_>, _word: PolicyWord<'_>) {}

    /// An endpoint failed too often to be picked for a while.
    fn ejected(&self, _service: &ServicePortKey) {}

    /// A broken listener of a local pod works again.
    fn reopened(&self, _workload: &Workload, _role: ListenerRole) {}

    /// Plaintext from one of the node's own addresses.
    fn node_plaintext(&self, _connection: &Connection) {}

    /// Every few seconds.
    fn holds(&self, _holdings: Holdings) {}
}
