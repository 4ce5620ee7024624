//! What is watched: which kinds, under which names and versions.

use weft_k8s::object::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, Kind, MULTICLUSTER_GROUP, WEFT_GROUP};
use weft_kube::kube::core::ApiResource;

use super::foreign::ForeignPolicy;

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// One that the index reads.
    Object(Kind),
    /// The cluster's `XMesh`.
    Mesh,
    /// The ranges of the cluster's Services.
    ServiceCidr,
    /// A policy that the network enforces.
    ForeignPolicy(ForeignPolicy),
}

/// Where a kind comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every API server has it.
    BuiltIn,
    /// Newer API servers have it.
    Newer,
    /// A CustomResourceDefinition, which may come, change its versions and go.
    Custom,
}

impl Subject {
    /// All that are watched.
    pub const ALL: [Self; 37] = [
        Self::Object(Kind::Namespace),
        Self::Object(Kind::Node),
        Self::Object(Kind::Service),
        Self::Object(Kind::EndpointSlice),
        Self::Object(Kind::Pod),
        Self::Object(Kind::ServiceAccount),
        Self::Object(Kind::NetworkPolicy),
        Self::Object(Kind::Secret),
        Self::Object(Kind::ConfigMap),
        Self::Object(Kind::GatewayClass),
        Self::Object(Kind::Gateway),
        Self::Object(Kind::ListenerSet),
        Self::Object(Kind::HttpRoute),
        Self::Object(Kind::GrpcRoute),
        Self::Object(Kind::TlsRoute),
        Self::Object(Kind::TcpRoute),
        Self::Object(Kind::UdpRoute),
        Self::Object(Kind::ReferenceGrant),
        Self::Object(Kind::ServiceImport),
        Self::Object(Kind::XBackend),
        Self::Object(Kind::BackendTlsPolicy),
        Self::Object(Kind::BackendTrafficPolicy),
        Self::Object(Kind::MeshPolicy),
        Self::Object(Kind::AuthorizationPolicy),
        Self::Object(Kind::GatewayParameters),
        Self::Object(Kind::TelemetryPolicy),
        Self::Mesh,
        Self::ServiceCidr,
        Self::ForeignPolicy(ForeignPolicy::Admin),
        Self::ForeignPolicy(ForeignPolicy::BaselineAdmin),
        Self::ForeignPolicy(ForeignPolicy::Cluster),
        Self::ForeignPolicy(ForeignPolicy::Cilium),
        Self::ForeignPolicy(ForeignPolicy::CiliumClusterwide),
        Self::ForeignPolicy(ForeignPolicy::Calico),
        Self::ForeignPolicy(ForeignPolicy::CalicoGlobal),
        Self::ForeignPolicy(ForeignPolicy::Antrea),
        Self::ForeignPolicy(ForeignPolicy::AntreaCluster),
    ];

    /// Its group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.group(),
            Self::Mesh => "gateway.networking.x-k8s.io",
            Self::ServiceCidr => "networking.k8s.io",
            Self::ForeignPolicy(kind) => kind.group(),
        }
    }

    /// Its kind, as `HTTPRoute`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.as_str(),
            Self::Mesh => "XMesh",
            Self::ServiceCidr => "ServiceCIDR",
            Self::ForeignPolicy(kind) => kind.kind(),
        }
    }

    /// Its name in paths, as `httproutes`.
    pub fn plural(self) -> String {
        match self.kind() {
            // It is a plural already.
            kind @ "GatewayParameters" => kind.to_lowercase(),
            kind if kind.ends_with('y') && !kind.ends_with("ay") => {
                format!("{}ies", kind.trim_end_matches('y').to_lowercase())
            }
            kind if kind.ends_with('s') || kind.ends_with("sh") => format!("{}es", kind.to_lowercase()),
            kind => format!("{}s", kind.to_lowercase()),
        }
    }

    /// The versions that can be read, the best first. Older ones have the same fields, or fewer.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Object(Kind::HttpRoute | Kind::ReferenceGrant | Kind::GatewayClass | Kind::Gateway) => {
                &["v1", "v1beta1"]
            }
            Self::Object(Kind::TlsRoute) => &["v1", "v1alpha3", "v1alpha2"],
            Self::Object(Kind::BackendTlsPolicy) => &["v1", "v1alpha3"],
            Self::Object(Kind::GrpcRoute | Kind::TcpRoute | Kind::UdpRoute) => &["v1", "v1alpha2"],
            Self::Object(
                Kind::MeshPolicy | Kind::AuthorizationPolicy | Kind::GatewayParameters | Kind::TelemetryPolicy,
            )
            | Self::Object(Kind::ServiceImport | Kind::XBackend | Kind::BackendTrafficPolicy)
            | Self::Mesh => &["v1alpha1"],
            Self::Object(_) | Self::ServiceCidr => &["v1"],
            Self::ForeignPolicy(kind) => kind.versions(),
        }
    }

    /// Where it comes from.
    pub fn origin(self) -> Origin {
        match self {
            Self::ServiceCidr => Origin::Newer,
            Self::Mesh | Self::ForeignPolicy(_) => Origin::Custom,
            Self::Object(kind)
                if [GATEWAY_GROUP, WEFT_GROUP, MULTICLUSTER_GROUP, EXPERIMENTAL_GROUP].contains(&kind.group()) =>
            {
                Origin::Custom
            }
            Self::Object(_) => Origin::BuiltIn,
        }
    }

    /// It as a resource of the API, in one of its versions.
    pub fn resource(self, version: &str) -> ApiResource {
        let (group, kind) = (self.group().to_owned(), self.kind().to_owned());
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource { group, version: version.to_owned(), api_version, kind, plural: self.plural() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths() {
        let plurals: Vec<_> = Subject::ALL.iter().map(|s| s.plural()).collect();
        let expected = "namespaces nodes services endpointslices pods serviceaccounts networkpolicies secrets configmaps gatewayclasses gateways \
            listenersets httproutes grpcroutes tlsroutes tcproutes udproutes referencegrants serviceimports xbackends backendtlspolicies xbackendtrafficpolicies meshpolicies \
            authorizationpolicies gatewayparameters telemetrypolicies xmeshes servicecidrs adminnetworkpolicies \
            baselineadminnetworkpolicies clusternetworkpolicies ciliumnetworkpolicies ciliumclusterwidenetworkpolicies \
            networkpolicies globalnetworkpolicies networkpolicies clusternetworkpolicies";
        assert_eq!(plurals.join(" "), expected);
    }

    #[test]
    fn what_can_be_missing() {
        let custom = |s: &&Subject| s.origin() == Origin::Custom;
        assert_eq!(Subject::ALL.iter().filter(custom).count(), 18 + ForeignPolicy::ALL.len());
        assert_eq!(Subject::Object(Kind::Pod).resource("v1").api_version, "v1");
        assert_eq!(Subject::Mesh.resource("v1alpha1").api_version, "gateway.networking.x-k8s.io/v1alpha1");
    }
}
