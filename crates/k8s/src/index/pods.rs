//! Pods in the index: what becomes of them depends on their namespace, their node and the policies that select them.

use std::sync::Arc;

use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{Name, Namespace, NodeName};

use super::Index;
use crate::object::{Kind, Object, ObjectRef};
use crate::translate::workload;

impl Index {
    pub(super) fn node_changed(&mut self, reference: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        let zone = |o: Option<&Object>| o.and_then(|o| o.meta().labels.as_ref()?.get(workload::ZONE_LABEL).cloned());
        if zone(old) != zone(new)
            && let Some(pods) = self.pods_by_node.get(reference.name.as_str())
        {
            self.dirty.pods.extend(pods.iter().cloned());
        }
    }

    pub(super) fn pod_changed(&mut self, reference: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        let node = |o: Option<&Object>| match o {
            Some(Object::Pod(pod)) => pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).map(NodeName::new),
            _ => None,
        };
        let key = pod_key(reference);
        if let Some(node) = node(old)
            && let Some(pods) = self.pods_by_node.get_mut(&node)
        {
            pods.remove(&key);
            if pods.is_empty() {
                self.pods_by_node.remove(&node);
            }
        }
        if let Some(node) = node(new) {
            self.pods_by_node.entry(node).or_default().insert(key.clone());
        }
        self.note_label_problem(reference, new);
        self.dirty.pods.insert(key);
    }

    pub(super) fn commit_pod(&mut self, key: &(Namespace, Name)) {
        let (namespace, name) = key;
        let reference = ObjectRef::new(Kind::Pod, namespace.clone(), name.clone());
        let made = match self.objects.get(&reference) {
            Some(Object::Pod(pod)) => {
                let labels = |kind, name: &str| {
                    self.objects.get(&ObjectRef::new(kind, "", name)).and_then(|o| o.meta().labels.as_ref())
                };
                let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
                let around = workload::Surroundings {
                    trust_domain: self.config.mesh.trust_domains.own().clone(),
                    mesh_namespace: self.config.mesh_namespace.clone(),
                    namespace_labels: labels(Kind::Namespace, namespace.as_str()),
                    node_labels: node.and_then(|n| labels(Kind::Node, n)),
                    policies: self.policies.selecting(namespace, pod.metadata.labels.as_ref()),
                    telemetry: self.telemetry.selecting(namespace, pod.metadata.labels.as_ref()),
                    network_policy: self.under_network_policy(namespace, pod.metadata.labels.as_ref()),
                };
                workload::workload(pod, around)
            }
            _ => None,
        };
        let uid = workload::pod_uid(namespace, name.as_str());
        self.emitted.set(ResourceKey::Workload(uid), made.map(|m| Resource::Workload(Arc::new(m))));
    }
}

pub(super) fn pod_key(reference: &ObjectRef) -> (Namespace, Name) {
    (reference.namespace.clone(), reference.name.clone())
}
