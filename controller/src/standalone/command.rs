//! What the primary's task is asked to do, and the handle that asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weft_core::identity::SpiffeId;
use weft_core::ids::{Name, Namespace, NodeName, PodUid, ServiceAccount, Zone};
use weft_core::snapshot::Snapshot;
use weft_xds::server::Publisher;

use super::listening::{Bound, Listening};

/// A pod's network as its node reports it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub name: Name,
    /// The incarnation, when the runtime says so.
    pub uid: Option<PodUid>,
    /// The node.
    pub node: NodeName,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether its traffic can flow.
    pub ready: bool,
}

/// A request to the primary's task.
#[derive(Debug)]
pub enum Command {
    /// A node's agent is (again) there, with all the pods it has.
    NodeUp {
        /// The node.
        node: NodeName,
        /// Its zone.
        zone: Option<Zone>,
        /// Everything attached there.
        pods: Vec<Attachment>,
    },
    /// A node's agent is gone; its pods stay for a while.
    NodeDown(NodeName),
    /// A pod got its network.
    Attached(Attachment),
    /// A pod lost its network.
    Detached {
        /// The node that says so; another node's word doesn't count.
        node: NodeName,
        /// The pod's namespace.
        namespace: Namespace,
        /// The pod's name.
        name: Name,
    },
    /// Whether a pod is to be enrolled.
    Decide {
        /// The node that asks.
        node: NodeName,
        /// The pod's namespace.
        namespace: Namespace,
        /// The pod's name.
        name: Name,
        /// Where the answer goes.
        reply: oneshot::Sender<Verdict>,
    },
}

/// Whether a pod is enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Enrolled {
        /// Whose identity it has.
        service_account: ServiceAccount,
        /// Connections older than its enrolment are closed (Strict).
        close_older_flows: bool,
    },
    /// Neither it nor its namespace is labelled.
    NotLabelled,
    /// It says no.
    Disabled,
    /// Not known yet.
    Undecided(String),
}

/// What agents are told of enrolment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnrolmentView {
    /// Changes whenever a decision may have.
    pub revision: u64,
    /// Namespaces that are wholly outside.
    pub namespaces_outside: Vec<Namespace>,
}

/// The primary's task, from outside; cheap to clone.
#[derive(Clone, Debug)]
pub struct PrimaryHandle {
    pub(super) commands: mpsc::Sender<Command>,
    /// What agents are told of enrolment.
    pub enrolment: watch::Receiver<EnrolmentView>,
    /// The configuration as it is published.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What is served over delta xDS.
    pub publisher: Publisher,
    /// Where the primary is told how far the proxy is that listens for Gateways.
    pub listening: watch::Sender<Listening>,
    /// What is bound of the listeners of Gateways, as statuses have it.
    pub bound: watch::Receiver<Bound>,
    pub(super) expected: Arc<Mutex<HashMap<(NodeName, SpiffeId), Instant>>>,
}

/// How long a node may have an identity for a pod that it is only just making.
const EXPECTED_FOR: Duration = Duration::from_secs(60);

impl PrimaryHandle {
    /// Asks for something. False if the primary's task is gone.
    pub async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// A node is making a pod that uses this identity: its certificate is needed before the pod is reported, so that
    /// its first connection doesn't wait.
    pub(super) fn expect(&self, node: &NodeName, identity: SpiffeId) {
        let mut expected = self.expected.lock();
        expected.retain(|_, since| since.elapsed() < EXPECTED_FOR);
        expected.insert((node.clone(), identity), Instant::now());
    }

    /// Whether a pod that uses an identity is bound to a node at this moment, or is being made there: what a node may
    /// have certificates for.
    pub fn is_bound(&self, node: &NodeName, identity: &SpiffeId) -> bool {
        let expected = self.expected.lock().get(&(node.clone(), identity.clone())).copied();
        expected.is_some_and(|since| since.elapsed() < EXPECTED_FOR)
            || self.snapshot.load().workloads().any(|w| w.node == *node && w.identity == *identity)
    }
}
