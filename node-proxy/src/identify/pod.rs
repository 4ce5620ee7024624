//! The pods of this node.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use weft_core::identity::SpiffeId;
use weft_core::ids::{SandboxId, WorkloadUid};
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;
use weft_tls::{CertManager, IdentityLease};

use crate::budget::Budget;
use crate::inpod::PodNet;

/// How long a pod that the configuration names no more is judged by what was known of it last. The API server forgets a pod
/// before its processes have ended, and clients hear of that later than we do.
const REMEMBERED: Duration = Duration::from_secs(30);

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
    /// What the configuration said of it last.
    last: ArcSwapOption<Last>,
}

/// What the configuration said of a pod.
#[derive(Debug)]
struct Last {
    workload: Arc<Workload>,
    /// When it was found to say nothing more.
    gone: Option<Instant>,
}

/// What calls to a pod are judged by.
#[derive(Debug)]
pub enum Known<'a> {
    /// The configuration names the pod. No counter that cores share is touched for it.
    Now(&'a Workload),
    /// It did until a moment ago.
    Last(Arc<Workload>),
}

impl Deref for Known<'_> {
    type Target = Workload;

    fn deref(&self) -> &Workload {
        match self {
            Self::Now(workload) => workload,
            Self::Last(workload) => workload,
        }
    }
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
        let (node_addresses, last) = (ArcSwap::default(), ArcSwapOption::empty());
        Self { sandbox, uid, identity, net, lease, budget, announced, node_addresses, last }
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

    /// Remembers what the configuration says of the pod. To be called with every snapshot.
    pub fn remember(&self, snapshot: &Snapshot) {
        let last = self.last.load();
        let next = match (self.configured(snapshot), last.as_deref()) {
            (Some(now), Some(Last { workload, gone: None })) if Arc::ptr_eq(now, workload) => return,
            (Some(now), _) => Last { workload: Arc::clone(now), gone: None },
            (None, Some(Last { workload, gone: None })) => {
                Last { workload: Arc::clone(workload), gone: Some(Instant::now()) }
            }
            (None, _) => return,
        };
        self.last.store(Some(Arc::new(next)));
    }

    /// The workload that calls to the pod are judged by: as the configuration has it, or for half a minute as it had it last.
    /// Policies are those of now in both cases.
    pub fn judged_as<'a>(&self, snapshot: &'a Snapshot) -> Option<Known<'a>> {
        if let Some(workload) = self.configured(snapshot) {
            return Some(Known::Now(workload));
        }
        let last = self.last.load();
        // None: whoever remembers hears of this snapshot in a moment.
        let fresh = last.as_deref().filter(|last| last.gone.is_none_or(|gone| gone.elapsed() < REMEMBERED));
        fresh.map(|last| Known::Last(Arc::clone(&last.workload)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::change::{Change, Resource, ResourceKey};
    use weft_core::workload::Enrolment;

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_named_no_more_is_judged_by_the_last_word_for_half_a_minute() {
        let pod = crate::plain::fixed_pod();
        let before = Workload { network_policy: true, enrolment: Enrolment::Enrolled, ..(**pod.announced()).clone() };
        let named = Snapshot::default().apply(&[Change::Upsert(Resource::Workload(Arc::new(before)))]);
        let unnamed = named.apply(&[Change::Remove(ResourceKey::Workload(pod.uid.clone()))]);
        assert!(pod.judged_as(&unnamed).is_none(), "it was never named");
        pod.remember(&unnamed);
        assert!(pod.judged_as(&unnamed).is_none());

        pod.remember(&named);
        assert!(matches!(pod.judged_as(&named), Some(Known::Now(_))));
        assert!(pod.judged_as(&unnamed).is_some_and(|it| it.network_policy), "before anybody else heard of it");
        pod.remember(&unnamed);
        tokio::time::advance(Duration::from_secs(29)).await;
        pod.remember(&unnamed);
        assert!(pod.judged_as(&unnamed).is_some_and(|it| it.network_policy));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(pod.judged_as(&unnamed).is_none(), "what is remembered gets too old");
        pod.remember(&named);
        pod.remember(&unnamed);
        assert!(pod.judged_as(&unnamed).is_some(), "named again in between");
    }

    #[tokio::test]
    async fn another_pod_of_the_same_name_is_not_this_one() {
        let pod = crate::plain::fixed_pod();
        let mut other = (**pod.announced()).clone();
        other.identity = SpiffeId::new(weft_core::identity::TrustDomain::default(), "elsewhere", "other");
        let named = Snapshot::default().apply(&[Change::Upsert(Resource::Workload(Arc::new(other)))]);
        pod.remember(&named);
        assert!(pod.judged_as(&named).is_none());
    }
}
