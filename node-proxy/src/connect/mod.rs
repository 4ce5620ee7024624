//! From a decision to a byte stream: tunnels, the in-memory path on one node, plain TCP.

mod application;
mod backend_tls;
mod connector;
mod error;
pub(crate) mod http_pool;
mod local;
mod resolve;
mod stream;
mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use weft_core::identity::SpiffeId;
use weft_core::ids::WorkloadUid;
use weft_core::workload::Workload;
use weft_tls::BackendClient;

use crate::identify::LocalWorkload;
pub use crate::proxy_protocol::ProxyHeader;

pub use application::{Application, connect as connect_application};
pub(crate) use backend_tls::{BackendClients, open};
pub use connector::Connector;
pub use error::{ConnectError, Retry};
pub use http_pool::PoolSettings;
pub use local::LocalStream;
pub(crate) use resolve::to_workload;
pub use resolve::{Standing, resolve};
pub use stream::UpstreamStream;
pub use tunnel::{TunnelKey, Tunnels};

/// Endpoints that one request or connection passes by because nobody knows who has their address.
const MAX_SKIPPED: usize = 64;

/// An endpoint chosen, with how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The application's address, as the endpoint has it.
    pub address: SocketAddr,
    /// How to get there.
    pub transport: Transport,
    /// The workload behind it, if known.
    pub workload: Option<Arc<Workload>>,
    /// TLS that the application itself speaks there, as a BackendTLSPolicy has it.
    pub tls: Option<BackendClient>,
    /// What the application is told of the connection before everything else, also before TLS.
    pub proxy: Option<ProxyHeader>,
}

impl Target {
    /// Whether dialling it fails without a packet: the list of endpoints is older than what is known of pods. That costs
    /// nothing, so it is none of the few tries that whoever looks for an endpoint has; `tried` are those it has been to.
    pub(crate) fn is_skipped(&self, tried: &[SocketAddr]) -> bool {
        self.transport == Transport::Unknown && tried.len() < MAX_SKIPPED && !tried.contains(&self.address)
    }
}

/// How to get to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Through a tunnel to the node proxy inside the destination's pod.
    Hbone {
        /// The identity that the destination's certificate must carry.
        expected: SpiffeId,
    },
    /// The destination pod is on this node: in memory.
    Local {
        /// The destination.
        uid: WorkloadUid,
    },
    /// Not in the mesh: bytes as they are.
    Plain,
    /// Inside the cluster, but whether it is in the mesh is not known (yet): dialling it fails, because plaintext to a
    /// workload of the mesh would be a leak.
    Unknown,
}

impl Transport {
    /// As logs and metrics name it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Hbone { .. } => "hbone",
            Self::Local { .. } => "local",
            Self::Plain => "plain",
            Self::Unknown => "unknown",
        }
    }
}

/// Byte streams to an endpoint on behalf of a local workload. Implemented by the connector of each worker; tests
/// implement it over pipes.
pub trait Dial {
    /// Opens a stream from `source` to `target`. Bounded in time.
    fn dial<'a>(
        &'a self,
        source: &'a Rc<LocalWorkload>,
        target: &'a Target,
    ) -> LocalBoxFuture<'a, Result<UpstreamStream, ConnectError>>;
}
