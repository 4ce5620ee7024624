//! Who is in the mesh, from an API server: watches pods of this node, namespaces and MeshPolicies; and, for what the
//! plugin may let pass without an agent, the names of pods of any node that ask for the mesh themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::core::v1 as core;
use tokio::sync::watch;
use weft_core::ids::{Namespace, NodeName};
use weft_k8s::object::{ENROLMENT_LABEL, Kind, MeshPolicy, ObjectRef};
use weft_kube::kube::api::ListParams;
use weft_kube::kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{self, Api, Client};
use weft_kube::{Events, Severity, Watched, watch as watched, watch_as};

use super::policy::SeenPolicy;
use super::world::{Picture, Refused, RunningPod, World};
use crate::agent::{Decision, EnrolmentSource, Outside, PodRef, Undecided};

/// Between two questions whether the cluster has MeshPolicies at all, and how long an answer may take.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The source. Feed it with [`follow`](Self::follow).
pub struct ClusterSource {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

struct State {
    world: World,
    picture: Picture,
    /// Refusals that were told already.
    told: BTreeSet<String>,
}

impl fmt::Debug for ClusterSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSource").field("revision", &*self.revision.borrow()).finish_non_exhaustive()
    }
}

impl ClusterSource {
    /// Around a world.
    pub fn new(world: World) -> Self {
        let picture = world.picture();
        let state = State { world, picture, told: BTreeSet::new() };
        Self { state: Mutex::new(state), revision: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the world. Says so to the agent if anything follows, and returns refusals that weren't told before.
    pub fn change(&self, change: impl FnOnce(&mut World)) -> Vec<Refused> {
        let mut state = self.lock();
        let was_listed = state.world.is_listed();
        change(&mut state.world);
        let picture = state.world.picture();
        let moved = picture != state.picture || was_listed != state.world.is_listed();
        state.picture = picture;
        let refused = if state.world.is_listed() { state.world.refused() } else { Vec::new() };
        let key = |refused: &Refused| format!("{:?} {:?}", refused.pod.uid, refused.why);
        let keys: BTreeSet<_> = refused.iter().map(key).collect();
        let told = std::mem::replace(&mut state.told, keys);
        drop(state);
        if moved {
            self.revision.send_modify(|revision| *revision += 1);
        }
        refused.into_iter().filter(|refused| !told.contains(&key(refused))).collect()
    }

    /// Whether everything has been listed once.
    pub fn is_listed(&self) -> bool {
        self.lock().world.is_listed()
    }

    /// Waits until everything has been listed once.
    pub async fn listed(&self) {
        let mut revision = self.revision.subscribe();
        while !self.is_listed() {
            // The sender lives in `self`.
            let _never_closed = revision.changed().await;
        }
    }

    /// Pods of this node that have a network of their own.
    pub fn running(&self) -> Vec<RunningPod> {
        self.lock().world.running()
    }

    /// Whether the cluster no longer has a pod.
    pub fn is_gone(&self, pod: &PodRef) -> bool {
        self.lock().world.is_gone(pod)
    }

    /// From now on no pod is in the mesh.
    pub fn leave(&self) {
        self.change(World::leave);
    }

    fn asking(&self, news: Watched<ObjectRef>) -> Vec<Refused> {
        // Whatever happens to a pod is news of it; what is known already costs nothing here.
        let is_known = match &news {
            Watched::Applied(pod) => self.lock().world.is_asking(pod),
            Watched::Restarted(_) | Watched::Deleted(_) => false,
        };
        if is_known { Vec::new() } else { self.change(|world| world.asking(news)) }
    }

    /// Watches the API server, for ever; refusals become events of their pods.
    pub async fn follow(&self, client: Client, node: &NodeName, events: &Events) {
        let of_node = Config::default().fields(&format!("spec.nodeName={node}"));
        let mut pods = std::pin::pin!(watched(Api::<core::Pod>::all(client.clone()), of_node));
        let mut namespaces = std::pin::pin!(watched(Api::<core::Namespace>::all(client.clone()), Config::default()));
        // Of any node, and there may be many of them: no more than their metadata is sent.
        let labelled = Config::default().labels(&format!("{ENROLMENT_LABEL}=enabled"));
        let everywhere = Api::<PartialObjectMeta<core::Pod>>::all(client.clone());
        let mut asking = std::pin::pin!(watch_as(everywhere, labelled, name_of));
        // Not as their type: one that can't be read would keep all others from being listed.
        let all = Api::<DynamicObject>::all_with(client, &ApiResource::erase::<MeshPolicy>(&()));
        let mut policies = std::pin::pin!(watch_as(all.clone(), Config::default(), SeenPolicy::of));
        let mut no_policies = std::pin::pin!(not_served(&all));
        let mut waiting = true;
        loop {
            let refused = tokio::select! {
                Some(news) = pods.next() => self.change(|world| world.pods(news)),
                Some(news) = namespaces.next() => self.change(|world| world.namespaces(news)),
                Some(news) = asking.next() => self.asking(news),
                Some(news) = policies.next() => {
                    waiting = false;
                    self.change(|world| world.policies(news))
                }
                () = &mut no_policies, if waiting => {
                    waiting = false;
                    self.change(World::no_policies)
                }
            };
            for Refused { pod, why } in refused {
                events.publish(pod, Severity::Warning, "NotEnrolled", &format!("Not in the mesh: {why}"));
            }
        }
    }
}

impl EnrolmentSource for ClusterSource {
    fn arrived<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, ()> {
        async move {
            let mut revision = self.revision.subscribe();
            while !self.lock().world.has_news_of(pod) {
                let _never_closed = revision.changed().await;
            }
        }
        .boxed()
    }

    fn decide<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Decision, Undecided>> {
        std::future::ready(self.lock().world.decide(pod)).boxed()
    }

    fn presumed(&self, pod: &PodRef) -> Option<Outside> {
        self.lock().world.presumed(pod)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn namespaces_outside(&self) -> Vec<Namespace> {
        self.lock().world.namespaces_outside()
    }
}

fn name_of(pod: PartialObjectMeta<core::Pod>) -> ObjectRef {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    ObjectRef::new(Kind::Pod, namespace.unwrap_or("default"), name.unwrap_or_default())
}

/// Ends when the API server says that it doesn't have the kind: the pods of such a cluster must start. Any other error
/// says nothing about which policies there are, and taking them for gone would open what they close.
async fn not_served(policies: &Api<DynamicObject>) {
    let one = ListParams::default().limit(1);
    loop {
        match tokio::time::timeout(ASK_AGAIN, policies.list(&one)).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return,
            // What there is, and what goes wrong, is told by the watch.
            _ => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// For whoever shares it with the agent.
pub type Shared = Arc<ClusterSource>;

#[cfg(test)]
mod tests;
