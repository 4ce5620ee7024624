//! Who may follow the configuration: node proxies and the pods of Gateways, by the tokens of their pods; what each may
//! see; and how far each has come.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;
use weft_core::change::ResourceKey;
use weft_core::ids::{GatewayKey, Name, Namespace, NodeName, ServiceAccount};
use weft_core::wire;
use weft_k8s::object::ObjectRef;
use weft_kube::{ReviewError, Reviewed, Reviewer};
use weft_xds::server::{Access, Event, Publisher, Refusal, Sequence};
use weft_xds::{TypeUrl, Update};

use super::board::Own;
use super::bound::{Bound, Fingerprint};
use super::refusals::object_of;
use crate::standalone::bearer;

/// Publications whose time is remembered.
const REMEMBERED: usize = 1024;

/// The ServiceAccounts of Gateways' pods, and whose each is.
pub type Accounts = BTreeMap<(Namespace, ServiceAccount), GatewayKey>;

/// A configuration that a proxy refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The proxy.
    pub who: Who,
    /// The object that the refused resource was made of.
    pub object: ObjectRef,
    /// The proxy's words.
    pub reason: String,
}

/// A proxy that follows the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The proxy of a node.
    Node(NodeName),
    /// A pod of a Gateway.
    Gateway {
        /// The Gateway.
        gateway: GatewayKey,
        /// The name of the pod, in the namespace of the Gateway.
        pod: Name,
    },
}

impl Who {
    /// The Gateway that it is of.
    pub const fn gateway(&self) -> Option<&GatewayKey> {
        match self {
            Self::Node(_) => None,
            Self::Gateway { gateway, .. } => Some(gateway),
        }
    }

    /// By which its refusals are told: the node, or the pod of the Gateway as if it were one.
    fn as_node(&self) -> NodeName {
        match self {
            Self::Node(node) => node.clone(),
            Self::Gateway { gateway, pod } => NodeName::new(format!("{}/{pod}", gateway.namespace)),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "the proxy of node {node}"),
            Self::Gateway { gateway, pod } => write!(f, "pod {pod} of Gateway {gateway}"),
        }
    }
}

/// A proxy that was let in.
#[derive(Debug)]
pub struct Client {
    /// Tells its stream from others, of the same proxy too.
    id: u64,
    who: Who,
    told: AtomicU64,
    /// Whether it asks for listeners: who doesn't has bound none, however far it has come.
    listens: AtomicBool,
}

/// Lets proxies in.
#[derive(Debug)]
pub struct ProxyAccess {
    reviewer: Reviewer,
    account: (Namespace, ServiceAccount),
    gateways: ArcSwap<Accounts>,
    publisher: Publisher,
    published: Mutex<VecDeque<(Sequence, Instant)>>,
    nacks: mpsc::Sender<Nack>,
    refused: Own,
    bound: Own<Bound>,
    clients: AtomicU64,
}

impl ProxyAccess {
    /// Lets pods of `account` in as nodes, and those of Gateways. What they refuse goes to `nacks` once, and is in `refused` as
    /// long as they do; what Gateways have bound is in `bound`.
    pub fn new(
        reviewer: Reviewer,
        account: (Namespace, ServiceAccount),
        publisher: Publisher,
        (nacks, refused, bound): (mpsc::Sender<Nack>, Own, Own<Bound>),
    ) -> Self {
        let (gateways, published, clients) = (ArcSwap::default(), Mutex::default(), AtomicU64::default());
        Self { reviewer, account, gateways, publisher, published, nacks, refused, bound, clients }
    }

    /// Says which Gateways there are.
    pub fn set_gateways(&self, accounts: Arc<Accounts>) {
        self.gateways.store(accounts);
    }

    /// The Gateway whose pods run as this ServiceAccount.
    pub fn gateway_of(&self, namespace: &Namespace, account: &ServiceAccount) -> Option<GatewayKey> {
        self.gateways.load().get(&(namespace.clone(), account.clone())).cloned()
    }

    /// Publishes changes, after which Gateways have other listeners. One caller at a time.
    pub fn publish(&self, updates: Vec<Update>, listeners: &[(GatewayKey, Option<Fingerprint>)]) {
        if updates.is_empty() {
            let now = self.publisher.sequence();
            return self.bound.edit(|bound| note_listeners(bound, now, listeners));
        }
        // Before the publication: a pod may answer at once.
        let expected = Sequence(self.publisher.sequence().0.saturating_add(1));
        self.bound.edit(|bound| note_listeners(bound, expected, listeners));
        let sequence = self.publisher.publish(updates);
        if sequence != expected {
            self.bound.edit(|bound| {
                bound.correct(expected, sequence);
                false
            });
        }
        self.note_published(sequence);
    }

    /// Notes when something was published.
    fn note_published(&self, sequence: Sequence) {
        let mut published = self.published.lock();
        published.push_back((sequence, Instant::now()));
        if published.len() > REMEMBERED {
            published.pop_front();
        }
    }

    async fn who(&self, token: &str) -> Result<Who, Status> {
        let failed = |error: ReviewError| match error {
            ReviewError::Invalid(why) => Status::unauthenticated(why),
            ReviewError::Unavailable(_) => Status::unavailable(error.to_string()),
        };
        let reviewed = self.reviewer.review(token).await.map_err(failed)?;
        let (namespace, account) = &self.account;
        if (&reviewed.namespace, &reviewed.service_account) == (namespace, account) {
            return self.reviewer.node(token, &reviewed).await.map(Who::Node).map_err(failed);
        }
        let Reviewed { namespace: of, service_account, pod, .. } = reviewed;
        let gateways = self.gateways.load();
        match gateways.get(&(of.clone(), service_account.clone())) {
            Some(gateway) => Ok(Who::Gateway { gateway: gateway.clone(), pod }),
            None => Err(Status::permission_denied(format!(
                "{of}/{service_account} may not follow the configuration: only {namespace}/{account} and the \
                 ServiceAccounts of Gateways of this mesh may"
            ))),
        }
    }

    /// Notes how long the client took for everything between what it had and what it has now.
    fn synced(&self, client: &Client, now: Sequence) {
        let before = Sequence(client.told.swap(now.0, Ordering::Relaxed));
        let published = self.published.lock();
        for (_, at) in published.iter().filter(|(sequence, _)| *sequence > before && *sequence <= now) {
            metrics::histogram!("weft_controller_push_to_ack_seconds").record(at.elapsed().as_secs_f64());
        }
    }

    fn nacked(&self, client: &Client, type_url: &TypeUrl, reason: &str, mut refused: Vec<Refusal>) {
        tracing::error!(client = %client.who, %type_url, reason, "a proxy refuses configuration");
        // Whoever can read the token of one Gateway must not speak ill of what others have, too.
        if let Some(gateway) = client.who.gateway() {
            refused.retain(|it| wire::owner(type_url.as_str(), &it.name).as_ref() == Some(gateway));
        }
        metrics::counter!("weft_controller_nacks_total", "type" => type_url.as_str().to_owned()).increment(1);
        self.refused.edit(|all| {
            all.refuse(client.id, &client.who.as_node(), type_url, &refused);
            !refused.is_empty()
        });
        let listeners = refused.iter().filter(|it| is_listener(type_url, &it.name));
        let listeners = listeners.map(|it| (it.name.to_string(), it.reason.clone()));
        self.bound.edit(|bound| bound.refuse(client.id, listeners));
        for Refusal { name, reason } in refused {
            let Some(object) = object_of(type_url, &name) else { continue };
            // With more than can be told of, some are only in the log.
            let _ = self.nacks.try_send(Nack { who: client.who.clone(), object, reason });
        }
    }

    fn mended(&self, client: &Client, type_url: &TypeUrl, names: &[Arc<str>]) {
        tracing::info!(client = %client.who, %type_url, ?names, "a proxy takes what it refused");
        self.refused.edit(|all| {
            names.iter().for_each(|name| all.mend(client.id, type_url, name));
            true
        });
        let listeners = names.iter().filter(|name| is_listener(type_url, name));
        self.bound.edit(|bound| bound.mend(client.id, listeners.map(|name| &**name)));
    }
}

/// Nothing new can be told before a pod has answered.
fn note_listeners(bound: &mut Bound, at: Sequence, listeners: &[(GatewayKey, Option<Fingerprint>)]) -> bool {
    bound.publish(at, listeners);
    false
}

fn is_listener(type_url: &TypeUrl, name: &str) -> bool {
    matches!(wire::parse_name(type_url.as_str(), name), Ok(ResourceKey::Listener(_)))
}

impl Access for ProxyAccess {
    type Client = Client;

    async fn admit(&self, metadata: &MetadataMap, _extensions: &tonic::Extensions) -> Result<Client, Status> {
        let token = bearer(metadata).ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        let who = self.who(token).await.inspect_err(|status| {
            tracing::warn!(code = ?status.code(), reason = status.message(), "a client is not let in");
            metrics::counter!("weft_controller_clients_refused_total").increment(1);
        })?;
        let id = self.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Client { id, who, told: AtomicU64::new(self.publisher.sequence().0), listens: AtomicBool::default() })
    }

    fn on_type(&self, client: &Client, type_url: &TypeUrl) -> Result<(), Status> {
        if !wire::TYPE_URLS.contains(&type_url.as_str()) {
            return Err(Status::invalid_argument(format!("{type_url} is not a type that this controller knows")));
        }
        if type_url.as_str() == wire::LISTENER {
            client.listens.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_restricted(&self, client: &Client, type_url: &TypeUrl) -> bool {
        wire::is_restricted(client.who.gateway(), type_url.as_str())
    }

    fn may_see(&self, client: &Client, type_url: &TypeUrl, name: &str) -> bool {
        wire::may_see(client.who.gateway(), type_url.as_str(), name)
    }

    fn on_event(&self, client: &Client, event: Event) {
        match event {
            Event::Connected => {
                metrics::gauge!("weft_controller_clients").increment(1.0);
                tracing::info!(client = %client.who, "a proxy follows the configuration");
                if let Some(gateway) = client.who.gateway() {
                    self.bound.edit(|bound| {
                        bound.join(client.id, gateway);
                        false
                    });
                }
            }
            Event::Disconnected => {
                metrics::gauge!("weft_controller_clients").decrement(1.0);
                tracing::info!(client = %client.who, "a proxy went away");
                let now = Instant::now();
                self.refused.edit(|refusals| refusals.leave(client.id, now));
                self.bound.edit(|bound| {
                    bound.leave(client.id, now);
                    false
                });
            }
            Event::Synced(sequence) => {
                self.synced(client, sequence);
                if client.listens.load(Ordering::Relaxed) {
                    self.bound.edit(|bound| bound.synced(client.id, sequence));
                }
            }
            Event::Nacked { type_url, reason, refused } => self.nacked(client, &type_url, &reason, refused),
            Event::Mended { type_url, names } => self.mended(client, &type_url, &names),
        }
    }
}

#[cfg(test)]
#[path = "tests/access.rs"]
mod tests;
