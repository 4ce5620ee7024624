//! Who may ask the primary for what: nodes by their tokens.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::metadata::MetadataMap;
use weft_ca::{Authenticator, Caller, IssueRule, Refusal, Unauthenticated};
use weft_controller::standalone::{PrimaryHandle, Tokens, bearer};
use weft_core::identity::SpiffeId;
use weft_core::ids::NodeName;
use weft_core::wire::GATEWAY_TYPE_URLS;
use weft_node_proxy::gateway::identity_of;
use weft_xds::TypeUrl;
use weft_xds::server::{Access, Event, Publisher, Sequence};

/// How far a node's proxy follows the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// Streams that are open: its proxy, its resolver, and a proxy that drains.
    pub streams: usize,
    /// Whether it has everything that is published.
    pub synced: bool,
    /// Refusals since the primary started.
    pub nacks: u64,
    /// The last refusal.
    pub last_nack: Option<String>,
}

/// What the primary's service of configuration needs.
#[derive(Debug)]
pub struct NodeAccess {
    tokens: Arc<Tokens>,
    /// The primary's own node, which is the Gateways' as well.
    own: NodeName,
    publisher: Publisher,
    nodes: Mutex<BTreeMap<NodeName, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    view: NodeView,
    /// What the stream that was heard of last has been told up to.
    told: Sequence,
}

impl NodeAccess {
    /// Lets nodes in by these tokens; Gateways and their private keys are for the node `own` alone.
    pub fn new(tokens: Arc<Tokens>, own: NodeName, publisher: Publisher) -> Self {
        Self { tokens, own, publisher, nodes: Mutex::default() }
    }

    /// The primary's own node.
    pub const fn own(&self) -> &NodeName {
        &self.own
    }

    /// The nodes seen so far.
    pub fn nodes(&self) -> BTreeMap<NodeName, NodeView> {
        let newest = self.publisher.sequence();
        let view = |seen: &Seen| NodeView { synced: seen.told >= newest, ..seen.view.clone() };
        self.nodes.lock().iter().map(|(node, seen)| (node.clone(), view(seen))).collect()
    }
}

impl Access for NodeAccess {
    type Client = NodeName;

    async fn admit(&self, metadata: &MetadataMap, _extensions: &tonic::Extensions) -> Result<NodeName, Status> {
        let token = bearer(metadata).ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        self.tokens.node_of(token).ok_or_else(|| Status::unauthenticated("the token is not valid"))
    }

    fn is_restricted(&self, node: &NodeName, type_url: &TypeUrl) -> bool {
        *node != self.own && GATEWAY_TYPE_URLS.contains(&type_url.as_str())
    }

    fn may_see(&self, node: &NodeName, type_url: &TypeUrl, _name: &str) -> bool {
        !self.is_restricted(node, type_url)
    }

    fn on_event(&self, node: &NodeName, event: Event) {
        let mut nodes = self.nodes.lock();
        let Seen { view, told } = nodes.entry(node.clone()).or_default();
        match event {
            Event::Connected => view.streams += 1,
            Event::Disconnected => view.streams = view.streams.saturating_sub(1),
            Event::Synced(sequence) => *told = sequence,
            Event::Nacked { type_url, reason, .. } => {
                tracing::error!(%node, %type_url, reason, "a node refuses configuration");
                view.nacks += 1;
                view.last_nack = Some(format!("{type_url}: {reason}"));
            }
            Event::Mended { type_url, names } => {
                tracing::info!(%node, %type_url, ?names, "a node takes what it refused")
            }
        }
    }
}

/// Knows nodes by their tokens.
#[derive(Debug)]
pub struct NodeTokens(pub Arc<Tokens>);

impl Authenticator for NodeTokens {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, Unauthenticated>> + Send + 'a>> {
        let node = self.0.node_of(token).map(Caller::Node).ok_or(Unauthenticated::Invalid);
        Box::pin(std::future::ready(node))
    }
}

/// A node may have an identity while a pod that uses it is there; the primary's own node also those of the Gateways that it
/// listens for.
#[derive(Debug)]
pub struct BoundPods {
    /// The primary.
    pub primary: PrimaryHandle,
    /// Its own node.
    pub own: NodeName,
}

impl BoundPods {
    /// Whether a node listens for a Gateway with an identity.
    fn is_of_gateway(&self, node: &NodeName, identity: &SpiffeId) -> bool {
        let snapshot = self.primary.snapshot.load();
        let domain = snapshot.mesh().trust_domains.own();
        *node == self.own && snapshot.listeners().any(|it| identity_of(domain, &it.key.gateway) == *identity)
    }
}

impl IssueRule for BoundPods {
    fn may_issue(&self, caller: &Caller, identity: &SpiffeId) -> Result<(), Refusal> {
        match caller {
            Caller::Node(node) if self.primary.is_bound(node, identity) => Ok(()),
            Caller::Node(node) if self.is_of_gateway(node, identity) => Ok(()),
            Caller::Node(node) => Err(Refusal::NotOnNode { node: node.clone(), identity: identity.clone() }),
            Caller::Workload(own) => Err(Refusal::NotOwn { caller: own.clone(), identity: identity.clone() }),
        }
    }
}
