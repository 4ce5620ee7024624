//! `ServiceImport`, `multicluster.x-k8s.io` (KEP-1645): a Service of a whole set of clusters, as this one knows it.
#![allow(missing_docs, reason = "kube's derive makes the root type; its spec is documented")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The group of the Multi-Cluster Services API.
pub const MULTICLUSTER_GROUP: &str = "multicluster.x-k8s.io";

/// `spec` of a ServiceImport, as far as it is of use for a backend.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "multicluster.x-k8s.io", version = "v1alpha1", kind = "ServiceImport", plural = "serviceimports")]
#[kube(namespaced, derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceImportSpec {
    /// `ClusterSetIP` or `Headless`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its ports.
    pub ports: Vec<ImportedPort>,
    /// Addresses of the frontend: clients dial them, routes don't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ips: Option<Vec<String>>,
    /// `ClientIP` or `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
    /// How long `ClientIP` holds (`sessionAffinityConfig` of a Service).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<serde_json::Value>,
    /// Which of a client's IP families are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<Vec<String>>,
    /// `internalTrafficPolicy` of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    /// `trafficDistribution` of a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
}

/// `ports[]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImportedPort {
    /// Its name, which is that of the endpoints' port, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `TCP` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// What is spoken on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// The number.
    pub port: i32,
}
