//! Who is in the mesh: asked of a source that knows labels, which the agent itself doesn't.

use std::fmt;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weft_api::weft::agent::v1 as wire;
use weft_core::ids::{Name, Namespace, PodUid, ServiceAccount, WorkloadUid};

use crate::rules::OlderFlows;

/// One pod, as the container runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// Its incarnation, when the runtime says so.
    pub uid: Option<PodUid>,
}

impl PodRef {
    /// The id its workload has for everybody else.
    pub fn workload_uid(&self) -> WorkloadUid {
        WorkloadUid::of_pod(&self.namespace, &self.name)
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<wire::PodRef> for PodRef {
    fn from(wire: wire::PodRef) -> Self {
        let uid = (!wire.uid.is_empty()).then(|| wire.uid.into());
        Self { namespace: wire.namespace.into(), name: wire.name.into(), uid }
    }
}

impl From<&PodRef> for wire::PodRef {
    fn from(pod: &PodRef) -> Self {
        Self {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: pod.uid.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

/// Whether a pod is in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Its traffic goes through the proxy.
    Enrolled(Enrolled),
    /// It is left alone.
    Outside(Outside),
}

/// What the agent needs to know of a pod in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Whose identity it has.
    pub service_account: ServiceAccount,
    /// What happens to connections older than its enrolment.
    #[serde(default)]
    pub older_flows: OlderFlows,
    /// Whether it refuses plaintext, on whichever of its ports; none where that isn't known.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// Why a pod is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outside {
    /// Neither its namespace nor itself asks for the mesh.
    NotLabelled,
    /// The pod itself says no.
    Disabled,
    /// It is part of the mesh's own machinery.
    Infrastructure,
    /// It has the node's own network namespace, which must never get rules.
    HostNetwork,
    /// It is a gateway's, which terminates its traffic itself.
    Gateway,
    /// Istio has its traffic, by a sidecar or by ztunnel.
    Istio,
    /// Istio is asked to take its traffic by ztunnel.
    IstioAmbient,
    /// A Linkerd proxy has its traffic.
    Linkerd,
    /// The mesh is being removed from the cluster.
    Uninstalling,
}

impl Outside {
    /// Whether the pod stays outside although its labels, or its namespace's, ask for the mesh.
    pub const fn overrides_labels(self) -> bool {
        !matches!(self, Self::NotLabelled | Self::Disabled)
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLabelled => "neither the pod nor its namespace is labelled weftmesh.io/mesh=enabled",
            Self::Disabled => "the pod is labelled weftmesh.io/mesh=disabled",
            Self::Infrastructure => "the pod belongs to the mesh's own machinery",
            Self::HostNetwork => "the pod has the node's network; traffic of the node itself is never redirected",
            Self::Gateway => {
                "the pod is a gateway's (label gateway.networking.k8s.io/gateway-name), which terminates traffic itself"
            }
            Self::Istio => "Istio already has the pod's traffic; remove it from the pod and restart the pod",
            Self::IstioAmbient => {
                "the pod, or its namespace, is labelled istio.io/dataplane-mode=ambient, so that Istio takes its traffic; \
                 remove that label"
            }
            Self::Linkerd => "a Linkerd proxy already has the pod's traffic; remove it and restart the pod",
            Self::Uninstalling => "the mesh is being removed from the cluster",
        })
    }
}

/// Why there is no decision. The pod's ADD fails, and the runtime tries again.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// The source doesn't know the pod, yet.
    #[error("pod {0} is not known yet")]
    UnknownPod(PodRef),
    /// The source hasn't got its data.
    #[error("enrolment is not known yet: {0}")]
    NotReady(String),
}

/// Knows who is in the mesh.
pub trait EnrolmentSource: Send + Sync + 'static {
    /// Waits until there is news of a pod that is only just being made. The agent calls it before it decides such a pod,
    /// and has a deadline. A source that is asked over a wire waits in [`decide`](Self::decide) instead.
    fn arrived<'a>(&'a self, _pod: &'a PodRef) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Decides one pod, at once or after an answer over a wire; the agent has a deadline.
    fn decide<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Decision, Undecided>>;

    /// Why a pod that starts now is taken for outside while the source can't decide it, if it is: by what was known of
    /// its namespace before this source had any data. It says nothing about pods that run already: those stay what they
    /// were.
    fn presumed(&self, _pod: &PodRef) -> Option<Outside> {
        None
    }

    /// Changes whenever a decision may have changed; the agent then asks again for each of its pods.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The namespaces that are known to be wholly outside, where neither the namespace nor any pod of it asks for the
    /// mesh, on whichever node: what the plugin lets pass when the agent is down. A namespace that isn't listed, such
    /// as a new one, waits for the agent.
    fn namespaces_outside(&self) -> Vec<Namespace>;
}
