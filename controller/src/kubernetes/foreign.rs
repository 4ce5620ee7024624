//! Policies of the network that aren't `NetworkPolicy` objects. What they allow is the network's business; whom they may
//! concern is ours: traffic of those never stays in a proxy's memory, where nobody would enforce them.

use std::collections::BTreeSet;

use weft_core::ids::Namespace;

use super::seen::Seen;

/// A kind of policy that some network enforces. Their selectors are languages of their own, so that an object concerns
/// its whole namespace or, if it is one of the cluster, everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForeignPolicy {
    /// Of the network policy API.
    Admin,
    /// Of the network policy API: what holds where nothing else does.
    BaselineAdmin,
    /// Of the network policy API: what follows both.
    Cluster,
    /// Cilium's, of a namespace.
    Cilium,
    /// Cilium's, of the cluster.
    CiliumClusterwide,
    /// Calico's, of a namespace.
    Calico,
    /// Calico's, of the cluster.
    CalicoGlobal,
    /// Antrea's, of a namespace.
    Antrea,
    /// Antrea's, of the cluster.
    AntreaCluster,
}

impl ForeignPolicy {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Admin,
        Self::BaselineAdmin,
        Self::Cluster,
        Self::Cilium,
        Self::CiliumClusterwide,
        Self::Calico,
        Self::CalicoGlobal,
        Self::Antrea,
        Self::AntreaCluster,
    ];

    /// Its group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Admin | Self::BaselineAdmin | Self::Cluster => "policy.networking.k8s.io",
            Self::Cilium | Self::CiliumClusterwide => "cilium.io",
            // As it is stored; its own API server, where there is one, shows the same objects under another group.
            Self::Calico | Self::CalicoGlobal => "crd.projectcalico.org",
            Self::Antrea | Self::AntreaCluster => "crd.antrea.io",
        }
    }

    /// Its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Admin => "AdminNetworkPolicy",
            Self::BaselineAdmin => "BaselineAdminNetworkPolicy",
            Self::Cluster | Self::AntreaCluster => "ClusterNetworkPolicy",
            Self::Cilium => "CiliumNetworkPolicy",
            Self::CiliumClusterwide => "CiliumClusterwideNetworkPolicy",
            Self::Calico | Self::Antrea => "NetworkPolicy",
            Self::CalicoGlobal => "GlobalNetworkPolicy",
        }
    }

    /// The versions that can be read: of an object only its name and namespace matter, so that all can.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Admin | Self::BaselineAdmin => &["v1alpha1"],
            Self::Cluster => &["v1alpha2", "v1alpha1", "v1beta1", "v1"],
            Self::Cilium | Self::CiliumClusterwide => &["v2"],
            Self::Calico | Self::CalicoGlobal => &["v1"],
            Self::Antrea | Self::AntreaCluster => &["v1beta1", "v1alpha1"],
        }
    }
}

/// All such policies.
#[derive(Debug, Default)]
pub struct ForeignPolicies {
    known: BTreeSet<(ForeignPolicy, String, String)>,
}

impl ForeignPolicies {
    /// Takes all of a kind; others are gone.
    pub fn list(&mut self, kind: ForeignPolicy, all: &[Seen]) {
        self.known.retain(|(known, ..)| *known != kind);
        all.iter().for_each(|seen| self.apply(kind, seen));
    }

    /// Takes one.
    pub fn apply(&mut self, kind: ForeignPolicy, seen: &Seen) {
        self.known.insert((kind, seen.namespace.clone(), seen.name.clone()));
    }

    /// Forgets one.
    pub fn delete(&mut self, kind: ForeignPolicy, seen: &Seen) {
        self.known.remove(&(kind, seen.namespace.clone(), seen.name.clone()));
    }

    /// Whether one of them is of the cluster, and the namespaces of the others.
    pub fn concerned(&self) -> (bool, BTreeSet<Namespace>) {
        let (cluster, namespaced): (Vec<_>, Vec<_>) =
            self.known.iter().partition(|(_, namespace, _)| namespace.is_empty());
        let namespaces = namespaced.iter().map(|(_, namespace, _)| Namespace::new(namespace.as_str()));
        (!cluster.is_empty(), namespaces.collect())
    }
}
