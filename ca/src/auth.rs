//! Who calls, and what they may ask for.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use weft_core::identity::SpiffeId;
use weft_core::ids::NodeName;

/// A caller that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The proxy of a node: asks on behalf of the node's pods.
    Node(NodeName),
    /// A workload, such as a gateway: asks for itself.
    Workload(SpiffeId),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Workload(identity) => write!(f, "workload {identity}"),
        }
    }
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// It is nobody's, or no longer.
    #[error("the token is not valid")]
    Invalid,
    /// It is nobody's, or not good enough; the text says why.
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// Who could tell cannot be reached.
    #[error("the token cannot be checked now: {0}")]
    Unavailable(String),
}

/// Tells who a bearer token belongs to.
pub trait Authenticator: Send + Sync + 'static {
    /// The caller of this token.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, Unauthenticated>> + Send + 'a>>;
}

/// Why a caller may not have an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pod of the node runs as it.
    #[error("no pod bound to node {node} runs as {identity}")]
    NotOnNode {
        /// The caller.
        node: NodeName,
        /// What it asked for.
        identity: SpiffeId,
    },
    /// A workload asks for another's.
    #[error("{caller} may only ask for itself, not for {identity}")]
    NotOwn {
        /// The caller.
        caller: SpiffeId,
        /// What it asked for.
        identity: SpiffeId,
    },
    /// Who runs where is not known yet.
    #[error("which pods are bound to node {0} is not known yet; try again")]
    Unread(NodeName),
}

impl Refusal {
    /// Whether another answer may follow within moments: the pod was bound a moment ago, and the news is on its way.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::NotOnNode { .. } | Self::Unread(_))
    }
}

/// Decides whether a caller may have a certificate of an identity, at this moment.
pub trait IssueRule: Send + Sync + 'static {
    /// `Ok` if it may.
    fn may_issue(&self, caller: &Caller, identity: &SpiffeId) -> Result<(), Refusal>;

    /// Ticks when the next answer may differ. Without it a refusal is final.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }
}

/// The rule of the mesh: a node may ask for an identity while a pod that uses it is bound to that node; everybody else
/// for their own. Fed by whoever watches pods.
#[derive(Debug)]
pub struct Bindings {
    nodes: RwLock<HashMap<NodeName, HashMap<SpiffeId, usize>>>,
    /// Whether the first look at the pods is still to come.
    unread: AtomicBool,
    changed: watch::Sender<()>,
}

impl Default for Bindings {
    fn default() -> Self {
        Self { nodes: RwLock::default(), unread: AtomicBool::new(false), changed: watch::Sender::new(()) }
    }
}

impl Bindings {
    /// Bindings that are not known yet: nodes are put off until [`set_read`](Self::set_read).
    pub fn unread() -> Self {
        Self { unread: AtomicBool::new(true), ..Self::default() }
    }

    /// All pods there are have been bound.
    pub fn set_read(&self) {
        self.unread.store(false, Ordering::Release);
        self.changed.send_replace(());
    }

    /// Whether all pods there are have been bound once.
    pub fn is_read(&self) -> bool {
        !self.unread.load(Ordering::Acquire)
    }

    /// A pod that runs as `identity` is bound to `node`.
    pub fn bind(&self, node: &NodeName, identity: &SpiffeId) {
        {
            let mut nodes = self.nodes.write();
            let pods = nodes.entry(node.clone()).or_default().entry(identity.clone()).or_default();
            *pods = pods.saturating_add(1);
        }
        self.changed.send_replace(());
    }

    /// Such a pod is gone.
    pub fn unbind(&self, node: &NodeName, identity: &SpiffeId) {
        let mut nodes = self.nodes.write();
        let Some(identities) = nodes.get_mut(node) else { return };
        if let Some(pods) = identities.get_mut(identity) {
            *pods = pods.saturating_sub(1);
            if *pods == 0 {
                identities.remove(identity);
            }
        }
        if identities.is_empty() {
            nodes.remove(node);
        }
    }
}

impl IssueRule for Bindings {
    fn may_issue(&self, caller: &Caller, identity: &SpiffeId) -> Result<(), Refusal> {
        match caller {
            Caller::Node(node) => {
                let bound = self.nodes.read().get(node).is_some_and(|identities| identities.contains_key(identity));
                match bound {
                    true => Ok(()),
                    false if !self.is_read() => Err(Refusal::Unread(node.clone())),
                    false => Err(Refusal::NotOnNode { node: node.clone(), identity: identity.clone() }),
                }
            }
            Caller::Workload(own) if own == identity => Ok(()),
            Caller::Workload(own) => Err(Refusal::NotOwn { caller: own.clone(), identity: identity.clone() }),
        }
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changed.subscribe())
    }
}

/// Tokens known beforehand: those a standalone primary gave to its nodes. Only their hashes are kept.
#[derive(Default)]
pub struct StaticTokens(RwLock<Vec<([u8; 32], Caller)>>);

impl StaticTokens {
    /// Accepts `token` as `caller`'s.
    pub fn accept(&self, token: &str, caller: Caller) {
        self.accept_hash(Sha256::digest(token).into(), caller);
    }

    /// Accepts the token that has this SHA-256.
    pub fn accept_hash(&self, hash: [u8; 32], caller: Caller) {
        self.0.write().push((hash, caller));
    }

    /// Accepts no token of this caller any more.
    pub fn revoke(&self, caller: &Caller) {
        self.0.write().retain(|(_, known)| known != caller);
    }

    fn find(&self, token: &str) -> Option<Caller> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.0.read().iter().find(|(known, _)| bool::from(known.ct_eq(&hash))).map(|(_, caller)| caller.clone())
    }
}

impl Authenticator for StaticTokens {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, Unauthenticated>> + Send + 'a>> {
        Box::pin(async move { self.find(token).ok_or(Unauthenticated::Invalid) })
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.0.read().len())
    }
}
