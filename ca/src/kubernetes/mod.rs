//! The authority in a Kubernetes cluster: several replicas that issue under one root.
//!
//! ```text
//!                       +--watch--> every replica: Authority (issues from what the Secret holds, nothing else)
//!  Secret weft-ca <-----+
//!        ^              +--watch--> the leader: decide (pure) --replace, with resourceVersion--> Secret weft-ca
//!        |                                  ^
//!  order (annotation)                       |
//!        |                  Secret of cert-manager, or Istio's cacerts (another's CA certificates)
//!  weft-ca rotate
//!                       the leader: bundle of the Secret ------------------------------> ConfigMap weft-trust
//! ```
//!
//! - The Secret is the one place where state changes. A replica takes over what its watch delivers, its own writes
//!   included; two that both think they lead cannot both win, because each write names the version it replaces.
//! - A Secret that is gone is written again from memory; one that cannot be read is left alone and reported, and what
//!   was read before goes on.
//! - Nothing is issued under a new root before the ConfigMap has shown it for the propagation time.

mod command;
mod decide;
mod keeper;
mod pods;
mod reviews;
mod secret;
mod trust;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use weft_core::ids::{Name, Namespace, ServiceAccount};
use weft_kube::kube::{Api, Client};
use weft_kube::{KnownPods, Leadership, LeaseSettings, OfflineReview};
use weft_tls::Clock;

pub use self::command::{CommandError, rotate, show};
pub use self::reviews::TokenReviews;
use crate::auth::Bindings;
use crate::authority::{Authority, AuthoritySettings};

/// The Lease, the Secret and the label of everything of ours.
const NAME: &str = "weft-ca";
/// The ConfigMap that has the roots.
const TRUST: &str = "weft-trust";
/// How long a leader that is gone keeps the others from leading.
const LEASE: Duration = Duration::from_secs(15);
/// How long the API server has to answer a call.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the CA certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// The authority makes its own root.
    Own,
    /// A Secret of type `kubernetes.io/tls` with an intermediate CA in `tls.crt` and `tls.key`, its roots in `ca.crt`.
    Issuer(Name),
    /// Istio's: a Secret with `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem` and `root-cert.pem`.
    Cacerts(Name),
}

/// How a replica takes part.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The namespace of the mesh.
    pub namespace: Namespace,
    /// The name of this replica; no other has it.
    pub replica: String,
    /// Where the CA certificates come from.
    pub source: RootSource,
    /// The authority's.
    pub authority: AuthoritySettings,
    /// The audiences that callers' tokens may have; the first is tried first.
    pub audiences: Vec<String>,
    /// The ServiceAccounts of node proxies, which may ask for the identities of their nodes' pods.
    pub node_accounts: Vec<(Namespace, ServiceAccount)>,
}

/// A replica that takes part: its tasks, and what serving needs.
#[must_use = "its tasks end with it"]
pub struct Replica {
    leadership: Leadership,
    authority: watch::Receiver<Option<Arc<Authority>>>,
    trouble: watch::Receiver<Option<String>>,
    bindings: Arc<Bindings>,
    reviews: Arc<TokenReviews>,
    clock: Clock,
    tasks: JoinSet<()>,
    /// Closed when a task ends.
    alive: mpsc::Sender<()>,
}

impl Replica {
    /// Starts to take part.
    pub fn start(client: &Client, settings: ClusterSettings, clock: Clock) -> Self {
        let lease = LeaseSettings {
            namespace: settings.namespace.to_string(),
            name: NAME.into(),
            identity: settings.replica.clone(),
            duration: LEASE,
        };
        let leadership = Leadership::start(client.clone(), lease);
        let bindings = Arc::new(Bindings::unread());
        let known = Arc::new(KnownPods::default());
        let offline = Arc::new(OfflineReview::new(client.clone(), Arc::clone(&known)));
        let reviews = Arc::new(TokenReviews::new(client, &settings, &offline));
        let (published, publication) = watch::channel(None);
        let (keeper, authority, trouble) =
            keeper::Keeper::new(client, &settings, clock, leadership.is_leader(), publication);
        let publisher = trust::Publisher::new(client, &settings, clock, leadership.is_leader(), authority.clone());
        let own = settings.authority.trust_domains.own().clone();
        let pods = pods::follow(client.clone(), own, Arc::clone(&bindings), known);
        let (mut tasks, (alive, ends)) = (JoinSet::new(), mpsc::channel(1));
        tasks.spawn(async move {
            // Dropped with the first task that ends, and with all of them when one panics.
            let _ends = ends;
            tokio::select! {
                () = keeper.run() => {}
                () = publisher.run(published) => {}
                () = pods => {}
                () = offline.follow() => {}
            }
        });
        Self { leadership, authority, trouble, bindings, reviews, clock, tasks, alive }
    }

    /// The authority, as soon as there is one: saved, and read back.
    pub async fn authority(&self) -> Arc<Authority> {
        let mut authority = self.authority.clone();
        loop {
            if let Some(authority) = &*authority.borrow_and_update() {
                return Arc::clone(authority);
            }
            if authority.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Who may have what.
    pub fn bindings(&self) -> Arc<Bindings> {
        Arc::clone(&self.bindings)
    }

    /// Who calls.
    pub fn reviews(&self) -> Arc<TokenReviews> {
        Arc::clone(&self.reviews)
    }

    /// What keeps the replica from issuing, computed anew with each call.
    pub fn missing(&self) -> impl Fn() -> Vec<String> + Send + Sync + 'static {
        let (authority, trouble) = (self.authority.clone(), self.trouble.clone());
        let (bindings, clock) = (Arc::clone(&self.bindings), self.clock);
        move || {
            let status = authority.borrow().as_ref().map(|authority| authority.status());
            let issue = match status {
                None => Some(trouble.borrow().clone().unwrap_or_else(|| "no root yet: none is saved".to_owned())),
                Some(Err(error)) => Some(error.to_string()),
                Some(Ok(status)) => expired(status.intermediate_not_after, clock.now()),
            };
            let pods = (!bindings.is_read()).then(|| "the pods have not been read yet".to_owned());
            issue.into_iter().chain(pods).collect()
        }
    }

    /// Ends if the replica has stopped to follow the cluster, by a fault of ours: then it must not go on to serve.
    pub async fn failed(&self) {
        self.alive.closed().await;
    }

    /// Leaves, so that another replica can lead at once.
    pub async fn leave(mut self) {
        self.tasks.shutdown().await;
        self.leadership.release().await;
    }
}

fn expired(end: SystemTime, now: SystemTime) -> Option<String> {
    let ago = now.duration_since(end).ok()?;
    Some(format!("the certificate that issues expired {} s ago; renew it where it comes from", ago.as_secs()))
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("authority", &*self.authority.borrow()).finish_non_exhaustive()
    }
}

fn secrets(client: &Client, namespace: &Namespace) -> Api<Secret> {
    Api::namespaced(client.clone(), namespace.as_str())
}

fn config_maps(client: &Client, namespace: &Namespace) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), namespace.as_str())
}

/// A watch of one object by its name, which is all that a Role can allow by name.
fn only(name: &str) -> weft_kube::kube::runtime::watcher::Config {
    weft_kube::kube::runtime::watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// The answer to a call, or an error when there is none in time: a leader that waits is no leader.
async fn within<T>(call: impl Future<Output = Result<T, weft_kube::kube::Error>>) -> Result<T, weft_kube::kube::Error> {
    let late = |_| weft_kube::kube::Error::Service(format!("no answer within {PATIENCE:?}").into());
    tokio::time::timeout(PATIENCE, call).await.map_err(late)?
}

/// Whether an API error says that somebody else was first.
fn is_race(error: &weft_kube::kube::Error) -> bool {
    // 409 is both AlreadyExists and Conflict; 404 is an object that was removed before it was replaced.
    matches!(error, weft_kube::kube::Error::Api(status) if status.code == 409 || status.code == 404)
}
