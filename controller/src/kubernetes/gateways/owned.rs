//! The kinds of object that are made for Gateways, their names, and who makes them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::Value;
use weft_kube::kube::core::ApiResource;

/// Who applies them (server-side apply).
pub const MANAGER: &str = "weft-gateways";

/// A kind of object that is made for Gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owned {
    /// Who its pods are.
    ServiceAccount,
    /// Whom they trust.
    ConfigMap,
    /// Who may reach them.
    NetworkPolicy,
    /// How clients reach them.
    Service,
    /// The pods.
    Deployment,
    /// How many of them may be away.
    DisruptionBudget,
    /// How many there are.
    Autoscaler,
}

impl Owned {
    /// Whether a Gateway is served without it where somebody else's object has its name: pods and their address are there all the
    /// same, and whoever made that object may have meant it for them.
    pub const fn is_spared(self) -> bool {
        matches!(self, Self::NetworkPolicy | Self::DisruptionBudget)
    }

    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::NetworkPolicy,
        Self::Service,
        Self::Deployment,
        Self::DisruptionBudget,
        Self::Autoscaler,
    ];

    /// It as a resource of the API.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::DisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Autoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        }
    }
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its kind.
    pub kind: Owned,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Id {
    /// The name of an object as JSON; `None` if it isn't of a kind that is made for Gateways.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let kind = text("/kind")?;
        let kind = Owned::ALL.into_iter().find(|owned| owned.resource().kind == kind)?;
        Some(Self {
            kind,
            namespace: text("/metadata/namespace")?.to_owned(),
            name: text("/metadata/name")?.to_owned(),
        })
    }
}
