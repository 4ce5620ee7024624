//! Typed Kubernetes objects: one [`Object`] for whatever the index knows.
//!
//! Built-in kinds come from `k8s-openapi`, Gateway API kinds that are only kept from `gateway-api`. Routes are our
//! own serde types: one set of parent, backend and filter types for all five kinds, lenient where a wrong value
//! must cost one rule and not the object (enumerations and numbers are checked by the translation).

mod backend_traffic_policy;
mod gateway;
mod gateway_client;
mod gateway_limits;
mod gateway_parameters;
mod listener_set;
mod merge;
pub mod policy;
pub mod route;
mod service_import;
mod status;
mod telemetry_policy;
mod xbackend;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use weft_core::ids::{Name, Namespace};

pub use backend_traffic_policy::{
    BackendTargetRef, BackendTrafficPolicy, BackendTrafficPolicySpec, RequestRateSpec, RetryBudgetSpec,
    RetryConstraintSpec,
};
pub use gateway::{GatewayAddress, GatewayStatus, ListenerStatus};
pub use gateway_api::experimental::gateways::Gateway;
pub use gateway_client::{
    GatewayClientAddress, GatewayForwardedHeader, GatewayProxyProtocol, GatewayProxyProtocolMode, GatewayRequestId,
};
pub use gateway_limits::{GatewayField, GatewayLimits};
pub use gateway_parameters::{
    ExternalTrafficPolicy, GatewayAutoscaling, GatewayNetworkPolicy, GatewayParameters, GatewayParametersSpec,
    GatewayPodTemplate, GatewayPullSecret, GatewayService, GatewayServiceType, GatewayShutdown,
};
pub use listener_set::ListenerSetStatus;
pub use policy::{AuthorizationPolicy, MeshPolicy};
pub use route::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute, UdpRoute};
pub use service_import::{ImportedPort, MULTICLUSTER_GROUP, ServiceImport};
pub use status::{
    CONTROLLER_NAME, Condition, ConditionType, ObjectStatus, PolicyAncestorStatus, RouteParentStatus, StatusUpdate,
};
pub use telemetry_policy::{
    AccessLogFormat, AccessLogMode, AccessLogSpec, FractionSpec, ParentBasedSampling, TelemetryBackend,
    TelemetryPolicy, TelemetryPolicySpec, TelemetryProvider, TracingAttribute, TracingAttributeType, TracingMode,
    TracingSpec,
};
pub use xbackend::{EXPERIMENTAL_GROUP, ExternalHostname, XBackend, XBackendPort, XBackendTls};

/// The group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Our own group.
pub const WEFT_GROUP: &str = "weftmesh.io";
/// The label that enrols a namespace or a pod: `enabled` or `disabled`; the pod's wins.
pub const ENROLMENT_LABEL: &str = "weftmesh.io/mesh";

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

macro_rules! kinds {
    ($($variant:ident $group:literal $version:literal $kind:literal $placement:ident $type:ty;)+) => {
        /// A kind of object that the index knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind {$(
            #[doc = concat!("`", $kind, "`")]
            $variant,
        )+}

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The kind as manifests spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $kind),+ }
            }

            /// The API group; empty for the core group.
            pub const fn group(self) -> &'static str {
                match self { $(Self::$variant => $group),+ }
            }

            /// The API version that is read, without the group.
            pub const fn version(self) -> &'static str {
                match self { $(Self::$variant => $version),+ }
            }

            /// Whether it lives in a namespace.
            pub const fn placement(self) -> Placement {
                match self { $(Self::$variant => Placement::$placement),+ }
            }

            /// The JSON schema of the type behind it, for "did you mean".
            pub(crate) fn schema(self) -> schemars::Schema {
                match self { $(Self::$variant => schemars::schema_for!($type)),+ }
            }
        }

        /// An object of any kind that the index knows.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {$(
            #[doc = concat!("A `", $kind, "`.")]
            $variant(Arc<$type>),
        )+}

        impl Object {
            /// Its kind.
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$variant(_) => Kind::$variant),+ }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$variant(it) => &it.metadata),+ }
            }

            /// Its metadata, to be completed by a source.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$variant(it) => &mut Arc::make_mut(it).metadata),+ }
            }

            /// The object as JSON, without `apiVersion` and `kind` for built-in kinds.
            pub fn to_json(&self) -> serde_json::Value {
                match self { $(Self::$variant(it) => serde_json::to_value(&**it).unwrap_or_default()),+ }
            }

            /// Reads an object of a known kind.
            ///
            /// # Errors
            /// Those of the deserializer.
            pub fn deserialize<'de, D: serde::Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
                Ok(match kind {
                    $(Kind::$variant => Self::$variant(Arc::new(<$type as Deserialize>::deserialize(from)?)),)+
                })
            }
        }

        $(impl From<$type> for Object {
            fn from(it: $type) -> Self {
                Self::$variant(Arc::new(it))
            }
        })+
    };
}

kinds! {
    Namespace "" "v1" "Namespace" Cluster core::Namespace;
    Node "" "v1" "Node" Cluster core::Node;
    Service "" "v1" "Service" Namespaced core::Service;
    EndpointSlice "discovery.k8s.io" "v1" "EndpointSlice" Namespaced discovery::EndpointSlice;
    Pod "" "v1" "Pod" Namespaced core::Pod;
    ServiceAccount "" "v1" "ServiceAccount" Namespaced core::ServiceAccount;
    NetworkPolicy "networking.k8s.io" "v1" "NetworkPolicy" Namespaced networking::NetworkPolicy;
    Secret "" "v1" "Secret" Namespaced core::Secret;
    ConfigMap "" "v1" "ConfigMap" Namespaced core::ConfigMap;
    GatewayClass "gateway.networking.k8s.io" "v1" "GatewayClass" Cluster gateway_api::gatewayclasses::GatewayClass;
    Gateway "gateway.networking.k8s.io" "v1" "Gateway" Namespaced Gateway;
    ListenerSet "gateway.networking.k8s.io" "v1" "ListenerSet" Namespaced gateway_api::experimental::listenersets::ListenerSet;
    HttpRoute "gateway.networking.k8s.io" "v1" "HTTPRoute" Namespaced HttpRoute;
    GrpcRoute "gateway.networking.k8s.io" "v1" "GRPCRoute" Namespaced GrpcRoute;
    TlsRoute "gateway.networking.k8s.io" "v1" "TLSRoute" Namespaced TlsRoute;
    TcpRoute "gateway.networking.k8s.io" "v1" "TCPRoute" Namespaced TcpRoute;
    UdpRoute "gateway.networking.k8s.io" "v1" "UDPRoute" Namespaced UdpRoute;
    ReferenceGrant "gateway.networking.k8s.io" "v1" "ReferenceGrant" Namespaced gateway_api::referencegrants::ReferenceGrant;
    ServiceImport "multicluster.x-k8s.io" "v1alpha1" "ServiceImport" Namespaced ServiceImport;
    XBackend "gateway.networking.x-k8s.io" "v1alpha1" "XBackend" Namespaced XBackend;
    BackendTlsPolicy "gateway.networking.k8s.io" "v1" "BackendTLSPolicy" Namespaced gateway_api::backendtlspolicies::BackendTlsPolicy;
    BackendTrafficPolicy "gateway.networking.x-k8s.io" "v1alpha1" "XBackendTrafficPolicy" Namespaced BackendTrafficPolicy;
    MeshPolicy "weftmesh.io" "v1alpha1" "MeshPolicy" Namespaced MeshPolicy;
    AuthorizationPolicy "weftmesh.io" "v1alpha1" "AuthorizationPolicy" Namespaced AuthorizationPolicy;
    GatewayParameters "weftmesh.io" "v1alpha1" "GatewayParameters" Namespaced GatewayParameters;
    TelemetryPolicy "weftmesh.io" "v1alpha1" "TelemetryPolicy" Namespaced TelemetryPolicy;
}

impl Kind {
    /// The kind by group and name.
    pub fn find(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.group() == group && k.as_str() == kind)
    }

    /// The `apiVersion` that manifests have to name.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }
}

/// Names one object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for an object of the cluster.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
}

impl ObjectRef {
    /// A reference; for an object of the cluster give an empty namespace.
    pub fn new(kind: Kind, namespace: impl Into<Namespace>, name: impl Into<Name>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind.as_str(), self.name),
            ns => write!(f, "{} {ns}/{}", self.kind.as_str(), self.name),
        }
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Object {
    /// Names it.
    pub fn reference(&self) -> ObjectRef {
        let meta = self.meta();
        let namespace = match self.kind().placement() {
            Placement::Cluster => "",
            Placement::Namespaced => meta.namespace.as_deref().unwrap_or("default"),
        };
        ObjectRef::new(self.kind(), namespace, meta.name.as_deref().unwrap_or_default())
    }

    /// `metadata.generation`, 0 if it has none.
    pub fn generation(&self) -> i64 {
        self.meta().generation.unwrap_or(0)
    }
}

/// When an object was made, seconds since the Unix epoch; 0 if it does not say.
pub fn created_seconds(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second())
}
