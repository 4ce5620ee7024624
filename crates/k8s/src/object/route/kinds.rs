//! The root objects of the five route kinds.
#![allow(missing_docs, reason = "kube's derive makes the root types; their specs are documented")]

use super::{GrpcRouteRule, HttpRouteRule, L4RouteRule, ParentReference, RouteStatus};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `spec` of an HTTPRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    root = "HttpRoute",
    plural = "httproutes"
)]
#[kube(namespaced, status = "RouteStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteSpec {
    /// What it attaches to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// `All`: it attaches to default Gateways, too (GEP-3793).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Hosts (SNI names of a TLSRoute); without meaning at a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostnames: Option<Vec<String>>,
    /// Its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<HttpRouteRule>>,
}

/// `spec` of a GRPCRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GRPCRoute",
    root = "GrpcRoute",
    plural = "grpcroutes"
)]
#[kube(namespaced, status = "RouteStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    /// What it attaches to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// `All`: it attaches to default Gateways, too (GEP-3793).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Hosts (SNI names of a TLSRoute); without meaning at a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostnames: Option<Vec<String>>,
    /// Its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<GrpcRouteRule>>,
}

/// `spec` of a TLSRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "TLSRoute", root = "TlsRoute", plural = "tlsroutes")]
#[kube(namespaced, status = "RouteStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRouteSpec {
    /// What it attaches to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// `All`: it attaches to default Gateways, too (GEP-3793).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Hosts (SNI names of a TLSRoute); without meaning at a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostnames: Option<Vec<String>>,
    /// Its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<L4RouteRule>>,
}

/// `spec` of a TCPRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "TCPRoute", root = "TcpRoute", plural = "tcproutes")]
#[kube(namespaced, status = "RouteStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRouteSpec {
    /// What it attaches to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// `All`: it attaches to default Gateways, too (GEP-3793).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<L4RouteRule>>,
}

/// `spec` of a UDPRoute.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "UDPRoute", root = "UdpRoute", plural = "udproutes")]
#[kube(namespaced, status = "RouteStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct UdpRouteSpec {
    /// What it attaches to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_refs: Option<Vec<ParentReference>>,
    /// `All`: it attaches to default Gateways, too (GEP-3793).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<String>,
    /// Its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<L4RouteRule>>,
}
