//! `XBackend`, `gateway.networking.x-k8s.io/v1alpha1` (GEP-4152): a host outside that routes send to.
#![allow(missing_docs, reason = "kube's derive makes the root type; its spec is documented")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::route::RouteStatus;

/// The group of what the Gateway API tries out.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

/// `spec` of an XBackend.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "gateway.networking.x-k8s.io", version = "v1alpha1", kind = "XBackend", plural = "xbackends")]
#[kube(namespaced, status = "RouteStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendSpec {
    /// `ExternalHostname`: there is no other one yet.
    #[serde(rename = "type")]
    pub kind: String,
    /// The port.
    pub port: XBackendPort,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_hostname: Option<ExternalHostname>,
    /// `HTTP`, `HTTP11`, `HTTP2`, `H2C`, `GRPC` or `TCP`; left out, what the route says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// TLS towards it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<XBackendTls>,
}

/// `port`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct XBackendPort {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number.
    pub port: i64,
}

/// `externalHostname`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExternalHostname {
    /// The name that is resolved.
    pub hostname: String,
}

/// `tls`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendTls {
    /// `None`, `ServerOnly` or `ClientAndServer`.
    pub mode: String,
    /// The certificate of `ClientAndServer`, which isn't supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<Value>,
    /// Whose certificate is taken: `validation` of a BackendTLSPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Value>,
}
