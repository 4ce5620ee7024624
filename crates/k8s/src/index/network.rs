//! NetworkPolicies in the index: whom they select. What they allow is the network's business.

use weft_core::ids::{Name, Namespace};

use super::{Index, pod_key};
use crate::object::{Kind, Object};
use crate::translate::labels::{self, Labels};

impl Index {
    /// Whether a NetworkPolicy selects a pod with these labels, for either direction.
    pub(super) fn under_network_policy(&self, namespace: &Namespace, labels: Option<&Labels>) -> bool {
        self.in_namespace(Kind::NetworkPolicy, namespace).any(|(_, policy)| selects(policy, labels))
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
