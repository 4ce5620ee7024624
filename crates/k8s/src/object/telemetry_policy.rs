//! `TelemetryPolicy`, `weftmesh.io/v1alpha1`: traces in the shape of GEP-4768, and the access log beside them.
#![allow(missing_docs, reason = "kube's derive makes the root type; its spec is documented")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{PolicyStatus, TargetRef};

/// What is told of requests and connections: the access log, and traces.
///
/// Without targetRefs it applies to its namespace; in the root namespace, to the mesh. The most specific policy
/// that gives a setting wins: workload or Gateway, namespace, mesh.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(group = "weftmesh.io", version = "v1alpha1", kind = "TelemetryPolicy", plural = "telemetrypolicies")]
#[kube(namespaced, status = "PolicyStatus", shortname = "telpol", category = "weft")]
#[kube(
    doc = "What is told of requests and connections: the access log, and traces.",
    derive = "PartialEq",
    derive = "Default"
)]
#[kube(printcolumn = r#"{"name":"Log","type":"string","jsonPath":".spec.accessLog.mode"}"#)]
#[kube(printcolumn = r#"{"name":"Tracing","type":"string","jsonPath":".spec.tracing.mode"}"#)]
#[kube(
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct TelemetryPolicySpec {
    /// What it applies to: kinds Namespace, Service, Pod and Gateway. Of two policies with the same target the older is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Option<Vec<TargetRef>>,
    /// Which requests and connections get a line in the access log, and what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogSpec>,
    /// Spans, sent by OTLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSpec>,
}

/// Which requests get a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessLogMode {
    /// None.
    Disabled,
    /// Those that failed.
    Errors,
    /// All; with a samplingRate those that failed, and that share of the others.
    All,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessLogFormat {
    /// One JSON object.
    #[serde(rename = "JSON")]
    Json,
    /// Words `field=value`.
    Text,
}

/// `accessLog`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.mode) || self.mode != 'Disabled' || !has(self.provider)", "provider must be empty when mode is Disabled"))]
#[x_kube(validation = ("!has(self.samplingRate) || !has(self.mode) || self.mode == 'All'", "samplingRate is for mode All: failures are always logged unless mode is Disabled"))]
pub struct AccessLogSpec {
    /// Disabled, Errors or All. Errors is what the mesh begins with: a status of 500 and up, and whatever a proxy ended or
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccessLogMode>,
    /// With mode All: how many of the requests that didn't fail; all of them if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<FractionSpec>,
    /// JSON or Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<AccessLogFormat>,
    /// The names of the fields that a line has; all of them if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub fields: Option<Vec<String>>,
    /// Who takes the lines, by OTLP over gRPC without TLS, instead of the proxy's standard output; if it is left out, whom a
    /// less specific policy or the mesh's values name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<TelemetryProvider>,
}

/// A share: so many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.numerator <= (has(self.denominator) ? self.denominator : 100)", "numerator must be less than or equal to denominator"))]
pub struct FractionSpec {
    /// So many.
    #[schemars(range(min = 0, max = 1000000))]
    pub numerator: i64,
    /// Of so many; 100 if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub denominator: Option<i64>,
}

/// Whether there are traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TracingMode {
    /// There are, if a collector is known: from here, a less specific policy, or the mesh's values.
    Enabled,
    /// There are none.
    Disabled,
    /// As if it were left out: a less specific policy says so, or the mesh.
    ImplementationDefault,
}

/// `tracing`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.mode) || self.mode != 'Disabled' || !has(self.provider)", "provider must be empty when mode is Disabled"))]
pub struct TracingSpec {
    /// Enabled, Disabled or ImplementationDefault, which is what it is if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TracingMode>,
    /// Who takes spans, by OTLP over gRPC without TLS; if it is left out, whom a less specific policy or the mesh's values name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<TelemetryProvider>,
    /// How many requests begin a trace; 1 of 100 unless the mesh's values say something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<FractionSpec>,
    /// What becomes of requests that are part of a trace already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_based_sampling: Option<ParentBasedSampling>,
    /// service.name of the spans; the name of the workload or Gateway if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_name: Option<String>,
    /// Said on every span.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub attributes: Option<Vec<TracingAttribute>>,
}

/// `tracing.provider`, `accessLog.provider`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TelemetryProvider {
    /// The Service.
    pub backend_ref: TelemetryBackend,
}

/// `provider.backendRef`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TelemetryBackend {
    /// The core group: empty.
    #[serde(default)]
    pub group: String,
    /// Service, which is what it is if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name.
    pub name: String,
    /// The namespace; the policy's own if it is left out. Another one needs a ReferenceGrant there, from kind TelemetryPolicy of
    /// group weftmesh.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The port of the Service; 4317 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
}

/// `tracing.parentBasedSampling`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentBasedSampling {
    /// Enabled: what was sampled where the trace began is here, and nothing else of it. Disabled: samplingRate decides.
    /// ImplementationDefault, which is what it is if it is left out: Enabled for pods, Disabled for the clients of Gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TracingMode>,
    /// With mode Enabled: how many of those; all of them if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<FractionSpec>,
}

/// Where the value of an attribute comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TracingAttributeType {
    /// literalValue
    #[default]
    Literal,
    /// The header headerName of the request.
    Header,
}

/// `tracing.attributes[]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.type == 'Literal' ? has(self.literalValue) : !has(self.literalValue)", "literalValue is required when type is Literal, and must be empty otherwise"))]
#[x_kube(validation = ("self.type == 'Header' ? has(self.headerName) : !has(self.headerName)", "headerName is required when type is Header, and must be empty otherwise"))]
pub struct TracingAttribute {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Literal or Header.
    #[serde(rename = "type")]
    pub kind: TracingAttributeType,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub literal_value: Option<String>,
    /// The name of the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header_name: Option<String>,
}
