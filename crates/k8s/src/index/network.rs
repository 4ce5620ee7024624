//! NetworkPolicies in the index: whom they select. What they allow is the network's business.

use weft_core::ids::{Name, Namespace};

use super::{Index, pod_key};
use crate::object::{Kind, Object};
use crate::translate::labels::{self, Labels};

impl Index {
    /// Whether a NetworkPolicy selects a pod with these labels, for either direction.
    pub(super) fn under_network_policy(&self, namespace: &Namespace, labels: Option<&Labels>) -> bool {
        let none = Labels::new();
        let labels = labels.unwrap_or(&none);
        self.in_namespace(Kind::NetworkPolicy, namespace).any(|(_, policy)| selects(policy, labels))
    }

    /// The pods that a NetworkPolicy selects.
    pub(super) fn selected_by(&self, policy: &Object) -> Vec<(Namespace, Name)> {
        let (none, namespace) = (Labels::new(), policy.reference().namespace);
        let pods = self.in_namespace(Kind::Pod, &namespace);
        let selected = pods.filter(|(_, pod)| selects(policy, pod.meta().labels.as_ref().unwrap_or(&none)));
        selected.map(|(reference, _)| pod_key(reference)).collect()
    }
}

/// An empty selector selects every pod of the namespace, and so does one that isn't there.
fn selects(policy: &Object, labels: &Labels) -> bool {
    let Object::NetworkPolicy(policy) = policy else { return false };
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    selector.is_none_or(|selector| labels::matches(selector, labels))
}
