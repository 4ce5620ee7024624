//! Which identities are on which node: from the pods of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{Name, Namespace, NodeName};
use weft_kube::kube::runtime::watcher;
use weft_kube::kube::{Api, Client};
use weft_kube::{KnownPods, Seat, Watched};

use crate::auth::Bindings;
use crate::metrics;

/// Of a pod, what matters here: of thousands of them the rest would be most of this process.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Pod {
    #[serde(default, deserialize_with = "names")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    phase: Option<String>,
}

/// Names and versions, and its end, without annotations and managed fields.
fn names<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, .. } = ObjectMeta::deserialize(from)?;
    Ok(ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, ..ObjectMeta::default() })
}

impl k8s_openapi::Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

type Key = (Namespace, Name);
type Binding = (NodeName, SpiffeId);

impl Pod {
    fn key(&self) -> Option<Key> {
        let ObjectMeta { name, namespace, .. } = &self.metadata;
        Some((Namespace::new(namespace.as_ref()?), Name::new(name.as_ref()?)))
    }

    /// What a token of it says, from when it is bound.
    fn seat(&self) -> Option<Seat<'_>> {
        let ObjectMeta { name, namespace, uid, .. } = &self.metadata;
        Some(Seat {
            namespace: namespace.as_deref()?,
            pod: name.as_deref()?,
            uid: uid.as_deref()?,
            service_account: self.service_account(),
            node: self.spec.node_name.as_deref().filter(|node| !node.is_empty())?,
            ends: self.metadata.deletion_timestamp.as_ref().map(|at| at.0.into()),
        })
    }

    fn service_account(&self) -> &str {
        // The API server fills it in; `default` is what it fills in.
        self.spec.service_account_name.as_deref().filter(|a| !a.is_empty()).unwrap_or("default")
    }

    /// Whose identity this pod gives to which node: from when it is bound until its object is gone, unless it is on the
    /// node's own network, where nobody could tell its traffic from the node's, or has finished.
    fn binding(&self, trust_domain: &TrustDomain) -> Option<Binding> {
        let node = self.spec.node_name.as_deref().filter(|node| !node.is_empty())?;
        let finished = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if self.spec.host_network || finished {
            return None;
        }
        let namespace = self.metadata.namespace.as_deref()?;
        Some((NodeName::new(node), SpiffeId::new(trust_domain.clone(), namespace, self.service_account())))
    }
}

/// The pods that are bound, so that each is counted once.
struct Pods {
    trust_domain: TrustDomain,
    bound: HashMap<Key, Binding>,
    bindings: Arc<Bindings>,
    known: Arc<KnownPods>,
}

impl Pods {
    fn apply(&mut self, event: Watched<Pod>) {
        match &event {
            Watched::Applied(pod) => match pod.seat() {
                Some(seat) => self.known.see(&seat),
                None => pod.key().iter().for_each(|(ns, name)| self.known.forget(ns.as_str(), name.as_str())),
            },
            Watched::Deleted(pod) => {
                pod.key().iter().for_each(|(ns, name)| self.known.forget(ns.as_str(), name.as_str()))
            }
            Watched::Restarted(pods) => self.known.replace(pods.iter().filter_map(Pod::seat)),
        }
        match event {
            Watched::Applied(pod) => {
                let binding = pod.binding(&self.trust_domain);
                pod.key().into_iter().for_each(|key| self.set(key, binding.clone()));
            }
            Watched::Deleted(pod) => pod.key().into_iter().for_each(|key| self.set(key, None)),
            Watched::Restarted(pods) => {
                let now: HashMap<Key, Binding> =
                    pods.iter().filter_map(|pod| Some((pod.key()?, pod.binding(&self.trust_domain)?))).collect();
                let gone: Vec<Key> = self.bound.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
                now.into_iter().for_each(|(key, binding)| self.set(key, Some(binding)));
                gone.into_iter().for_each(|key| self.set(key, None));
                self.bindings.set_read();
            }
        }
        metrics::bound_pods(self.bound.len());
    }

    /// The new one is bound before the old one goes: a pod that is both is never neither.
    fn set(&mut self, key: Key, binding: Option<Binding>) {
        if self.bound.get(&key) == binding.as_ref() {
            return;
        }
        let old = match &binding {
            Some((node, identity)) => {
                self.bindings.bind(node, identity);
                self.bound.insert(key, (node.clone(), identity.clone()))
            }
            None => self.bound.remove(&key),
        };
        if let Some((node, identity)) = old {
            self.bindings.unbind(&node, &identity);
        }
    }
}

/// Feeds `bindings` and what is `known` from the pods of the cluster, for ever.
pub(super) async fn follow(client: Client, trust_domain: TrustDomain, bindings: Arc<Bindings>, known: Arc<KnownPods>) {
    // Finished pods can be many; a pod that finishes leaves this selection, which the API server tells as its end.
    let config = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let mut events = Box::pin(weft_kube::watch(Api::<Pod>::all(client), config));
    let mut pods = Pods { trust_domain, bound: HashMap::new(), bindings, known };
    while let Some(event) = events.next().await {
        pods.apply(event);
    }
}

#[cfg(test)]
mod tests;
