//! Workers: current-thread runtimes that share nothing on the path of a byte.
//!
//! A pod's listeners live on one worker, so that sockets and tunnels don't multiply with cores; an accepted connection
//! goes to the least loaded worker and stays there.

pub(crate) mod coalesce;
mod handle;
mod pods;
mod run;
mod turns;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_core::ids::NodeName;
use weft_hbone::{ServerLimits, TunnelLimits};
use weft_tls::CertStore;

use crate::balance::Balancers;
use crate::budget::NodeBudget;
use crate::connect::{BackendClients, Connector};
use crate::gateway::Gateways;
use crate::observe::Observer;
use crate::pipeline::InboundHalf;
use crate::relay::front::HttpRelay;
use crate::store::Store;

pub(crate) use handle::least_loaded;
pub use handle::{Accepted, Command, Done, LoadSlot, WorkerHandle, Workers, tell_all};
pub use pods::Pods;
pub(crate) use run::CountPanic;
pub use run::{Engine, EngineParts};
pub use turns::Turns;

/// Times that bound what a connection may keep others waiting for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long connecting may take.
    pub connect: Duration,
    /// How long a client may take to say which TLS name it wants, where a TLSRoute asks.
    pub client_hello: Duration,
    /// A connection without a byte for so long is closed; `None`: never, as without a mesh.
    pub idle: Option<Duration>,
    /// A client of QUIC that answers nothing for so long is gone.
    pub quic_silence: Duration,
    /// Whether handshakes rest between their steps, because applications run on the same cores.
    pub handshakes_rest: bool,
    /// Tunnels, client side.
    pub tunnel: TunnelLimits,
    /// Tunnels, server side.
    pub server: ServerLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            client_hello: Duration::from_secs(5),
            idle: None,
            quic_silence: Duration::from_secs(60),
            handshakes_rest: true,
            tunnel: TunnelLimits::default(),
            server: ServerLimits::default(),
        }
    }
}

/// What all workers share.
#[derive(Debug)]
pub struct Node {
    /// The node's name.
    pub name: NodeName,
    /// Configuration.
    pub store: Arc<Store>,
    /// Certificates and trust bundle.
    pub certificates: CertStore,
    /// Connections of the whole node.
    pub budget: Arc<NodeBudget>,
    /// Addresses of the node itself. Plaintext from them is the kubelet's, or of whoever else has them: taken also where
    /// the mode is Strict, and where no ALLOW policy matches.
    pub addresses: Vec<IpAddr>,
    /// The Gateways that it listens for.
    pub gateways: Gateways,
    /// Times and sizes.
    pub limits: Limits,
}

/// One worker, as its tasks see it.
pub struct Worker {
    /// What all workers share.
    pub node: Arc<Node>,
    /// The pods of the node.
    pub pods: Rc<Pods>,
    /// Choice of endpoints for connections that are relayed as bytes.
    pub balancers: Balancers,
    /// Ways to endpoints.
    pub connector: Rc<Connector>,
    /// TLS to endpoints that speak it themselves.
    pub(crate) backends: BackendClients,
    /// Authorization and the way to applications.
    pub inbound: Rc<InboundHalf>,
    /// Handshakes, one step at a time.
    pub turns: Rc<Turns>,
    /// The HTTP engine.
    pub http: Rc<dyn HttpRelay>,
    /// Telemetry.
    pub observer: Rc<dyn Observer>,
    /// Cancelled when the worker drains.
    pub drain: CancellationToken,
    pub(crate) workers: Arc<[WorkerHandle]>,
    pub(crate) index: usize,
}
