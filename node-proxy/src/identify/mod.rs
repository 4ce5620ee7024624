//! Who calls: the pod that owns the listener's namespace, or the peer of a tunnel by its certificate.
//!
//! Never by an address: addresses move between pods, namespaces and keys don't.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use weft_core::identity::SpiffeId;
use weft_core::ids::{PodUid, WorkloadUid};
use weft_core::workload::Workload;

use crate::inpod::PodNet;

/// A pod that this node proxy serves, as all workers share it.
#[derive(Debug)]
pub struct Pod {
    /// The workload's id, the key of everything that belongs to this pod.
    pub uid: WorkloadUid,
    /// Which incarnation of the pod.
    pub incarnation: PodUid,
    /// The identity that its connections carry; fixed for the pod's life.
    pub identity: SpiffeId,
    /// Sockets in its namespace.
    pub net: Arc<dyn PodNet>,
    /// The workload as the latest snapshot has it; before one has, what the node agent said.
    workload: ArcSwap<Workload>,
}

impl Pod {
    /// A pod as the node agent announces it.
    pub fn new(incarnation: PodUid, workload: Arc<Workload>, net: Arc<dyn PodNet>) -> Self {
        Self {
            uid: workload.uid.clone(),
            incarnation,
            identity: workload.identity.clone(),
            net,
            workload: ArcSwap::new(workload),
        }
    }

    /// The latest description of the workload.
    pub fn workload(&self) -> Arc<Workload> {
        self.workload.load_full()
    }

    /// Takes a newer description over.
    pub fn set_workload(&self, workload: Arc<Workload>) {
        self.workload.store(workload);
    }
}

/// A pod as one worker sees it: what is shared, and this worker's own state for it. One `Rc` per worker.
#[derive(Debug)]
pub struct LocalWorkload {
    /// What all workers share.
    pub pod: Arc<Pod>,
}

impl LocalWorkload {
    /// This worker's side of a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }

    /// The workload's id.
    pub fn uid(&self) -> &WorkloadUid {
        &self.pod.uid
    }

    /// The identity that its connections carry.
    pub fn identity(&self) -> &SpiffeId {
        &self.pod.identity
    }

    /// The latest description of the workload.
    pub fn workload(&self) -> Arc<Workload> {
        self.pod.workload()
    }
}

/// Who is at the other end of an inbound connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Proven identity, or why there is none.
    pub identity: PeerIdentity,
    /// The connection's own source address.
    pub address: SocketAddr,
}

/// The identity of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerIdentity {
    /// By the certificate of a tunnel.
    Certificate(SpiffeId),
    /// A pod of this node, whose connection we accepted inside its own namespace.
    FirstHand(SpiffeId),
    /// Plaintext: nobody vouches for the peer.
    Unidentified,
}

impl PeerIdentity {
    /// The identity, if there is one.
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        match self {
            Self::Certificate(id) | Self::FirstHand(id) => Some(id),
            Self::Unidentified => None,
        }
    }
}
