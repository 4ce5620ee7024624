//! The pods of this node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use weft_core::identity::SpiffeId;
use weft_core::ids::{SandboxId, WorkloadUid};
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;
use weft_tls::{CertManager, IdentityLease};

use crate::budget::Budget;
use crate::inpod::PodNet;

/// A pod that this node proxy serves, as all workers share it.
#[derive(Debug)]
pub struct Pod {
    /// The key of everything that belongs to this pod.
    pub sandbox: SandboxId,
    /// The workload's id.
    pub uid: WorkloadUid,
    /// The identity that its connections carry; fixed for the pod's life.
    pub identity: SpiffeId,
    /// Sockets in its namespace.
    pub net: Arc<dyn PodNet>,
    /// The right to its certificate.
    pub lease: IdentityLease,
    /// What it may use of the node.
    pub budget: Arc<Budget>,
    /// What the node agent said of it, for the time before the configuration names it.
    announced: Arc<Workload>,
    /// Where the node's own traffic to it comes from, by the agent's word.
    node_addresses: ArcSwap<Vec<IpAddr>>,
}

impl Pod {
    /// A pod as the node agent announces it.
    pub fn new(
        sandbox: SandboxId,
        announced: Arc<Workload>,
        net: Arc<dyn PodNet>,
        identities: &CertManager,
        budget: Arc<Budget>,
    ) -> Self {
        let (uid, identity) = (announced.uid.clone(), announced.identity.clone());
        let lease = identities.lease(&identity);
        let node_addresses = ArcSwap::default();
        Self { sandbox, uid, identity, net, lease, budget, announced, node_addresses }
    }

    /// Sets where the node's own traffic to the pod comes from.
    pub fn set_node_addresses(&self, addresses: &[IpAddr]) {
        self.node_addresses.store(Arc::new(addresses.iter().map(IpAddr::to_canonical).collect()));
    }

    /// Where the node's own traffic to the pod comes from.
    pub fn node_addresses(&self) -> Arc<Vec<IpAddr>> {
        self.node_addresses.load_full()
    }

    /// Whether an address is one that the node itself uses towards the pod. It isn't the node's alone: traffic that is
    /// masqueraded has it too.
    pub fn is_node_address(&self, ip: IpAddr) -> bool {
        self.node_addresses.load().contains(&ip)
    }

    /// Whether the node agent still says the same of the pod.
    pub fn is_as_announced(&self, workload: &Workload) -> bool {
        *self.announced == *workload
    }

    /// The workload as the configuration has it.
    pub fn configured<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Workload>> {
        snapshot.workload(&self.uid).filter(|workload| workload.identity == self.identity)
    }

    /// The workload as the configuration has it, else as the node agent announced it.
    pub fn workload(&self, snapshot: &Snapshot) -> Arc<Workload> {
        Arc::clone(self.configured(snapshot).unwrap_or(&self.announced))
    }

    /// Whether a NetworkPolicy selects it; also as long as the configuration doesn't know it, and so can't say.
    pub fn under_network_policy(&self, snapshot: &Snapshot) -> bool {
        self.configured(snapshot).is_none_or(|workload| workload.network_policy)
    }

    /// What the node agent said of it.
    pub fn announced(&self) -> &Arc<Workload> {
        &self.announced
    }

    /// Whether an address is the pod's own, by the node agent's word: first-hand, unlike the configuration.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.announced.addresses.contains(&ip)
    }

    /// The pod's address of the same family as `like`, if it has one.
    pub fn address_like(&self, like: SocketAddr) -> Option<IpAddr> {
        self.announced.addresses.iter().copied().find(|ip| ip.is_ipv4() == like.is_ipv4())
    }
}

/// A pod as one worker sees it. One `Rc` per worker, so that what belongs to connections is counted without atomics.
#[derive(Debug)]
pub struct LocalWorkload {
    /// What all workers share.
    pub pod: Arc<Pod>,
    /// Cancelled when the worker drains, or the pod is gone: its tunnels take no more streams.
    pub leaving: CancellationToken,
}

impl LocalWorkload {
    /// This worker's side of a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { pod, leaving: CancellationToken::new() }
    }

    /// The same, leaving when the worker drains.
    #[must_use]
    pub fn within(self, drain: &CancellationToken) -> Self {
        Self { leaving: drain.child_token(), ..self }
    }

    /// The workload's id.
    pub fn uid(&self) -> &WorkloadUid {
        &self.pod.uid
    }

    /// The identity that its connections carry.
    pub fn identity(&self) -> &SpiffeId {
        &self.pod.identity
    }

    /// Whether it stands for a Gateway.
    pub fn is_gateway(&self) -> bool {
        self.pod.uid.as_str().starts_with(weft_core::telemetry::GATEWAY_UID)
    }

    /// The workload as the configuration has it, else as the node agent announced it.
    pub fn workload(&self, snapshot: &Snapshot) -> Arc<Workload> {
        self.pod.workload(snapshot)
    }
}
