//! Who may ask the primary for what: nodes by their tokens. And how far each has come, with the listeners of Gateways too.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;
use weft_ca::{Authenticator, Caller, IssueRule, Refusal, Unauthenticated};
use weft_control::PROCESS_SINCE;
use weft_controller::standalone::{Listening, PrimaryHandle, Streams, Tokens, bearer};
use weft_core::identity::SpiffeId;
use weft_core::ids::NodeName;
use weft_core::wire::{GATEWAY_TYPE_URLS, LISTENER};
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
    /// The streams of the own node's proxies.
    listening: Mutex<Streams>,
    /// Who is told of the listeners that they have bound.
    told: watch::Sender<Listening>,
    clients: AtomicU64,
}

/// A proxy, or another part of a node, that was let in.
#[derive(Debug)]
pub struct Client {
    /// Tells its stream from others, of the same node too.
    stream: u64,
    node: NodeName,
    /// When its process was started, as it says; 0 if it doesn't.
    since: u64,
}

#[derive(Debug, Default)]
struct Seen {
    view: NodeView,
    /// What the stream that was heard of last has been told up to.
    told: Sequence,
}

impl NodeAccess {
    /// Lets nodes in by these tokens; Gateways and their private keys are for the node `own` alone, and what its proxy has
    /// bound of them is told to the primary.
    pub fn new(tokens: Arc<Tokens>, own: NodeName, primary: &PrimaryHandle) -> Self {
        let (publisher, told) = (primary.publisher.clone(), primary.listening.clone());
        let (nodes, listening, clients) = (Mutex::default(), Mutex::default(), AtomicU64::default());
        Self { tokens, own, publisher, nodes, listening, told, clients }
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

    /// Takes in what is heard of a proxy of the own node.
    fn hear(&self, client: &Client, edit: impl FnOnce(&mut Streams)) {
        if client.node != self.own {
            return;
        }
        // Told under the lock: the last word is of the last event.
        let mut streams = self.listening.lock();
        edit(&mut streams);
        let heard = streams.listening(Instant::now());
        self.told.send_if_modified(|told| {
            let differs = *told != heard;
            *told = heard;
            differs
        });
    }

    fn hear_event(&self, client: &Client, event: &Event) {
        let stream = client.stream;
        match event {
            Event::Connected => {}
            Event::Disconnected => self.hear(client, |streams| streams.leave(stream, Instant::now())),
            Event::Synced(sequence) => self.hear(client, |streams| streams.synced(stream, *sequence)),
            Event::Nacked { type_url, refused, .. } => {
                self.hear(client, |streams| streams.refuse(stream, type_url.as_str(), refused));
            }
            Event::Mended { type_url, names } => {
                let names = names.iter().map(|name| &**name);
                self.hear(client, |streams| streams.mend(stream, type_url.as_str(), names));
            }
        }
    }
}

impl Access for NodeAccess {
    type Client = Client;

    async fn admit(&self, metadata: &MetadataMap, _extensions: &tonic::Extensions) -> Result<Client, Status> {
        let token = bearer(metadata).ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        let node = self.tokens.node_of(token).ok_or_else(|| Status::unauthenticated("the token is not valid"))?;
        let since = metadata.get(PROCESS_SINCE).and_then(|since| since.to_str().ok()?.parse().ok());
        let stream = self.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Client { stream, node, since: since.unwrap_or_default() })
    }

    fn on_type(&self, client: &Client, type_url: &TypeUrl) -> Result<(), Status> {
        if type_url.as_str() == LISTENER {
            self.hear(client, |streams| streams.join(client.stream, client.since));
        }
        Ok(())
    }

    fn is_restricted(&self, client: &Client, type_url: &TypeUrl) -> bool {
        client.node != self.own && GATEWAY_TYPE_URLS.contains(&type_url.as_str())
    }

    fn may_see(&self, client: &Client, type_url: &TypeUrl, _name: &str) -> bool {
        !self.is_restricted(client, type_url)
    }

    fn on_event(&self, client: &Client, event: Event) {
        self.hear_event(client, &event);
        let node = &client.node;
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

#[cfg(test)]
mod tests;
