//! The connector of one worker: every way to an endpoint.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use weft_core::ids::WorkloadUid;
use weft_core::inpod::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};
use weft_core::snapshot::Snapshot;
use weft_tls::CertStore;

use super::application::is_pressure;
use super::{ConnectError, Dial, Target, Transport, Tunnels, UpstreamStream};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::observe::Holdings;
use crate::pipeline::InboundHalf;
use crate::worker::Pods;
use weft_core::ids::SandboxId;

/// Opens streams to endpoints on behalf of the worker's pods.
pub struct Connector {
    pods: Rc<Pods>,
    tunnels: Tunnels,
    inbound: Rc<InboundHalf>,
    connect_limit: Duration,
}

impl Connector {
    /// A connector over the worker's tunnels and inbound half.
    pub fn new(pods: Rc<Pods>, tunnels: Tunnels, inbound: Rc<InboundHalf>, connect_limit: Duration) -> Self {
        Self { pods, tunnels, inbound, connect_limit }
    }

    /// The roots have changed; see [`Tunnels::recheck_trust`].
    pub fn recheck_trust(&self, certificates: &CertStore) {
        self.tunnels.recheck_trust(certificates);
    }

    /// See [`Tunnels::forget_peers`].
    pub fn forget_peers(&self) {
        self.tunnels.forget_peers();
    }

    /// See [`Tunnels::doubt_gone`].
    pub fn doubt_gone(&self, snapshot: &Snapshot) {
        self.tunnels.doubt_gone(snapshot);
    }

    /// No new streams on the tunnels of a pod that stand now: it has a new certificate.
    pub fn renew_tunnels_of(&self, sandbox: &SandboxId) {
        self.tunnels.renew_pod(sandbox);
    }

    /// What there is of tunnels.
    pub fn holdings(&self) -> Holdings {
        let stats = self.tunnels.stats();
        Holdings {
            tunnels: stats.tunnels,
            tunnel_streams: stats.streams,
            tunnel_dials: stats.dialling,
            ..Holdings::default()
        }
    }

    /// Ends the tunnels of a pod that is gone.
    pub fn forget_pod(&self, sandbox: &SandboxId) {
        self.tunnels.forget_pod(sandbox);
    }

    /// TCP to an address as the pod itself would connect, from `source` if that is one of its own addresses.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn plain(
        &self,
        pod: &LocalWorkload,
        source: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<UpstreamStream, ConnectError> {
        let tcp = |error: std::io::Error| {
            if is_pressure(&error) { ConnectError::NodeExhausted } else { ConnectError::Tcp { to, kind: error.kind() } }
        };
        let outgoing = pod.pod.net.outgoing(source, to).map_err(tcp)?;
        match tokio::time::timeout(self.connect_limit, outgoing.socket.connect(outgoing.to)).await {
            Ok(connected) => connected.map(UpstreamStream::Tcp).map_err(tcp),
            Err(_) => Err(ConnectError::Timeout { to }),
        }
    }

    /// The in-memory path: the destination's policy on a first-hand identity, then its application.
    async fn local(
        &self,
        source: &LocalWorkload,
        uid: &WorkloadUid,
        to: SocketAddr,
    ) -> Result<UpstreamStream, ConnectError> {
        let workload = self.pods.by_uid(uid).ok_or(ConnectError::WorkloadGone { to })?;
        let address = source.pod.address_like(to).ok_or(ConnectError::WorkloadGone { to })?;
        let peer =
            Peer { identity: PeerIdentity::FirstHand(source.identity().clone()), address: SocketAddr::new(address, 0) };
        self.inbound.local(workload, peer, to).await
    }
}

impl Dial for Connector {
    fn dial<'a>(
        &'a self,
        source: &'a Rc<LocalWorkload>,
        target: &'a Target,
    ) -> LocalBoxFuture<'a, Result<UpstreamStream, ConnectError>> {
        Box::pin(async move {
            let to = target.address;
            match &target.transport {
                Transport::Hbone { .. } | Transport::Local { .. } if is_own_port(to.port()) => {
                    Err(ConnectError::Loop { to })
                }
                Transport::Hbone { .. } | Transport::Local { .. } if !source.pod.net.in_mesh() => {
                    Err(ConnectError::Outsider { to, client: source.uid().clone() })
                }
                Transport::Hbone { expected } => {
                    self.tunnels.open(source, to, expected).await.map(UpstreamStream::Tunnel)
                }
                Transport::Local { uid } => self.local(source, uid, to).await,
                Transport::Plain => self.plain(source, None, to).await,
                Transport::Unknown => Err(ConnectError::UnknownWorkload { to }),
            }
        })
    }
}

/// Whether a port inside an enrolled pod is one of the proxy's.
fn is_own_port(port: u16) -> bool {
    matches!(port, OUTBOUND_PORT | INBOUND_PLAINTEXT_PORT | HBONE_PORT)
}
