//! NetworkPolicies in the index: whom they select. What they allow is the network's business.

use std::collections::BTreeSet;

use weft_core::ids::{Name, Namespace};

use super::{Index, pod_key};
use crate::object::{Kind, Object};
use crate::translate::labels::{self, Labels};

impl Index {
    /// Whether a NetworkPolicy selects a pod with these labels, for either direction.
    pub(super) fn under_network_policy(&self, namespace: &Namespace, labels: Option<&Labels>) -> bool {
        self.enforced.contains(namespace)
            || self.in_namespace(Kind::NetworkPolicy, namespace).any(|(_, policy)| selects(policy, labels))
    }

    /// Namespaces whose pods are all taken for selected, as the network enforces policies there that aren't in the index;
    /// takes effect with the next [`Index::commit`].
    pub fn set_enforced(&mut self, namespaces: BTreeSet<Namespace>) {
        let before = std::mem::replace(&mut self.enforced, namespaces);
        for namespace in before.symmetric_difference(&self.enforced) {
            let pods: Vec<_> =
                self.in_namespace(Kind::Pod, namespace).map(|(reference, _)| pod_key(reference)).collect();
            self.dirty.pods.extend(pods);
        }
    }

    /// The pods that a NetworkPolicy selects.
    pub(super) fn selected_by(&self, policy: &Object) -> Vec<(Namespace, Name)> {
        let namespace = policy.reference().namespace;
        let pods = self.in_namespace(Kind::Pod, &namespace);
        let selected = pods.filter(|(_, pod)| selects(policy, pod.meta().labels.as_ref()));
        selected.map(|(reference, _)| pod_key(reference)).collect()
    }
}

fn selects(policy: &Object, labels: Option<&Labels>) -> bool {
    matches!(policy, Object::NetworkPolicy(policy) if labels::under_network_policy(policy, labels))
}
