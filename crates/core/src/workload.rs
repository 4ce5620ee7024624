//! Workloads: whatever has an address and perhaps an identity; in Kubernetes a pod.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{SpiffeId, TrustDomains};
use crate::ids::{Name, Namespace, NodeName, PolicyKey, Port, WorkloadUid, Zone};

/// A workload as every node knows it: enough to find it by address, to reach it and to verify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its unique id.
    pub uid: WorkloadUid,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name (the pod's).
    pub name: Name,
    /// The identity its certificate must carry.
    pub identity: SpiffeId,
    /// Its addresses, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// The node it runs on.
    pub node: NodeName,
    /// The zone of that node, if known.
    pub zone: Option<Zone>,
    /// Whether a node proxy serves it.
    pub enrolment: Enrolment,
    /// What owns it, for metrics and logs.
    pub owner: Owner,
    /// Policies that select this workload by label or name. Those for its namespace or the mesh apply
    /// without being listed.
    pub policies: Vec<PolicyKey>,
    /// What the kubelet of its node calls it for, sorted. Empty for what isn't enrolled: nobody asks there.
    pub probes: Vec<Probe>,
    /// Whether a NetworkPolicy selects it. The network enforces those on packets, so traffic from and to it is never handed
    /// over in memory.
    #[serde(default)]
    pub network_policy: bool,
    /// Telemetry policies that select this workload. Apart from `policies`, without which nothing may pass: what is told of
    /// a call never decides about it.
    #[serde(default)]
    pub telemetry: Vec<PolicyKey>,
}

impl Workload {
    /// The same with its identity under the name that we have for its trust domain.
    #[must_use]
    pub fn normal(self: Arc<Self>, domains: &TrustDomains) -> Arc<Self> {
        match domains.name_of(&self.identity.trust_domain) == &self.identity.trust_domain {
            true => self,
            false => Arc::new(Self { identity: domains.normal(&self.identity), ..(*self).clone() }),
        }
    }
}

/// A call over the network that a pod declares for its node's kubelet: a probe, or a hook of its lifecycle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// The port of the pod.
    pub port: Port,
    /// What is asked there.
    pub call: ProbeCall,
}

/// What the kubelet asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbeCall {
    /// `GET` over HTTP/1 without TLS.
    Http {
        /// The target as the kubelet sends it: the path, and the query if there is one.
        target: String,
    },
    /// `GET` over TLS, which nobody in between can read.
    Https,
    /// Whether a connection is taken; no byte is sent.
    Tcp,
    /// `grpc.health.v1.Health/Check` without TLS.
    Grpc {
        /// The service asked for; empty for the server as a whole.
        service: String,
    },
}

/// Whether a workload takes part in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Enrolment {
    /// A node proxy intercepts its traffic: it is reached through HBONE.
    Enrolled,
    /// Outside: it is reached as it would be without a mesh.
    Outside,
    /// On the host's network: never enrolled, and its address is its node's.
    HostNetwork,
}

/// The controller of a pod, as metrics name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, `Job`, `Pod`...
    pub kind: String,
    /// Its name.
    pub name: Name,
    /// `app.kubernetes.io/name` or `app`, else the owner's name.
    pub app: String,
    /// `app.kubernetes.io/version` or `version`, else empty.
    pub version: String,
}
