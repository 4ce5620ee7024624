//! Our own kinds, `weftmesh.io/v1alpha1`: `MeshPolicy` and `AuthorizationPolicy`.
//!
//! The CRDs are generated from these types ([`crds`]); what CEL refuses there, the translation refuses again, so
//! that a directory of manifests is held to the same rules as an API server.
#![allow(missing_docs, reason = "kube's derive makes the root types; their specs are documented")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a policy applies to (GEP-713; a Pod selector as in GEP-3779).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("self.kind == 'Pod' ? has(self.selector) && !has(self.name) : !has(self.selector)", "kind Pod takes a selector and no name; other kinds take no selector"))]
#[x_kube(validation = ("!has(self.sectionName) || self.kind in ['Gateway', 'ListenerSet']", "only kinds Gateway and ListenerSet take a sectionName"))]
#[x_kube(validation = ("self.kind == 'Pod' || has(self.name)", "name is required for other kinds than Pod"))]
#[x_kube(validation = ("self.kind == 'Pod' || !has(self.__namespace__)", "only kind Pod takes a namespace"))]
pub struct TargetRef {
    /// The group: empty, the core group; gateway.networking.k8s.io for kinds Gateway and ListenerSet.
    #[serde(default)]
    pub group: String,
    /// `Namespace`, `Service` or `Pod`; of AuthorizationPolicies also `Gateway` and `ListenerSet`, of TelemetryPolicies
    /// `Gateway`.
    pub kind: String,
    /// The name, of other kinds than Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whose pods, for the kind `Pod`: in the root namespace any namespace, and left out the pods of all of them; elsewhere
    /// only the policy's own, which is what is meant if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which pods, for the kind `Pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Which listener, for kinds Gateway and ListenerSet; left out: all of them.
    #[serde(default, rename = "sectionName", skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// The status of our policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyStatus {
    /// One entry for each target.
    #[schemars(schema_with = "ancestors_schema")]
    pub ancestors: Vec<serde_json::Value>,
}

/// What an AuthorizationPolicy does with a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PolicyAction {
    /// Allows; what no ALLOW policy of a workload matches is denied.
    #[default]
    Allow,
    /// Denies.
    Deny,
    /// Counts and logs.
    Audit,
}

/// Whether a policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyMode {
    /// It decides.
    #[default]
    Enforce,
    /// What it would have decided is counted and logged.
    Audit,
}

/// Who may call which workloads.
///
/// Without targetRefs it applies to its namespace; in the root namespace, to the mesh.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(group = "weftmesh.io", version = "v1alpha1", kind = "AuthorizationPolicy", plural = "authorizationpolicies")]
#[kube(namespaced, status = "PolicyStatus", shortname = "authz", category = "weft")]
#[kube(doc = "Who may call which workloads.", derive = "PartialEq", derive = "Default")]
#[kube(printcolumn = r#"{"name":"Action","type":"string","jsonPath":".spec.action"}"#)]
#[kube(printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#)]
#[kube(
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// What it applies to: kinds Namespace, Service and Pod, where callers are judged at the destination; kinds Gateway and
    /// ListenerSet, where clients from outside are judged at the Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Option<Vec<TargetRef>>,
    /// What a match means: ALLOW, DENY or AUDIT.
    pub action: PolicyAction,
    /// Enforce, or Audit to only count and log.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Any of these. None: nothing matches, so an ALLOW policy without rules denies everything.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub rules: Vec<PolicyRule>,
}

/// A rule: all parts that are given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct PolicyRule {
    /// Any of these sources; absent means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub from: Option<Vec<PolicySource>>,
    /// Any of these operations; absent means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub to: Option<Vec<PolicyOperation>>,
}

/// Who calls: all the lists that are given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.identities) || has(self.notIdentities) || has(self.namespaces) || has(self.notNamespaces) || has(self.addresses) || has(self.notAddresses)", "a source needs at least one condition"))]
pub struct PolicySource {
    /// SPIFFE IDs, with or without `spiffe://`; exact, `prefix*`, `*suffix` or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub identities: Option<Vec<String>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub not_identities: Option<Vec<String>>,
    /// Namespaces of the caller's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub namespaces: Option<Vec<String>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub not_namespaces: Option<Vec<String>>,
    /// Addresses or CIDR ranges of the connection; at a Gateway, of the client as its clientAddress parameters have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub addresses: Option<Vec<String>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub not_addresses: Option<Vec<String>>,
}

/// What is called: all the lists that are given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.ports) || has(self.notPorts) || has(self.methods) || has(self.notMethods) || has(self.paths) || has(self.notPaths) || has(self.hosts) || has(self.notHosts) || has(self.headers)", "an operation needs at least one condition"))]
pub struct PolicyOperation {
    /// Ports of the destination pod; at a Gateway, of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub ports: Option<Vec<i64>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub not_ports: Option<Vec<i64>>,
    /// HTTP methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub methods: Option<Vec<String>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub not_methods: Option<Vec<String>>,
    /// HTTP paths without the query; exact, `prefix*` or `*suffix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub paths: Option<Vec<String>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub not_paths: Option<Vec<String>>,
    /// HTTP hosts without the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub hosts: Option<Vec<String>>,
    /// None of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub not_hosts: Option<Vec<String>>,
    /// Headers, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub headers: Option<Vec<PolicyHeader>>,
}

/// A header that must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyHeader {
    /// The name.
    pub name: String,
    /// Any of these; absent means any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub values: Option<Vec<String>>,
    /// None of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub not_values: Option<Vec<String>>,
}

/// Whether a workload takes plaintext from outside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficMode {
    /// Plaintext is taken and counted.
    Permissive,
    /// Plaintext TCP is refused.
    Strict,
    /// As Permissive; what Strict would refuse is counted and logged.
    StrictAudit,
}

/// How workloads take traffic from outside the mesh, and their budgets.
///
/// Without targetRefs it applies to its namespace; in the root namespace, to the mesh. The most specific policy
/// that gives a setting wins: workload, namespace, mesh; but none is more open than what is enforced.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(group = "weftmesh.io", version = "v1alpha1", kind = "MeshPolicy", plural = "meshpolicies")]
#[kube(namespaced, status = "PolicyStatus", shortname = "meshpol", category = "weft")]
#[kube(
    doc = "How workloads take traffic from outside the mesh, and their budgets.",
    derive = "PartialEq",
    derive = "Default"
)]
#[kube(printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#)]
#[kube(
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicySpec {
    /// What it applies to: kinds Namespace and Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Option<Vec<TargetRef>>,
    /// Permissive, Strict or StrictAudit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TrafficMode>,
    /// Modes of single ports of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub port_modes: Option<Vec<PortMode>>,
    /// Whether policies of other namespaces can make its targets only stricter than it says, and limits only smaller; an
    /// exception is a more specific policy that is enforced too. Only in the root namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<bool>,
    /// What each workload may use of its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// The mode of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PortMode {
    /// The port of the pod.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i64,
    /// Its mode.
    pub mode: TrafficMode,
}

/// Budgets of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections open at once, in and out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295_i64))]
    pub max_connections: Option<i64>,
    /// TLS handshakes under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295_i64))]
    pub max_handshakes: Option<i64>,
    /// Bytes of buffers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 65536))]
    pub max_buffer_bytes: Option<i64>,
}

/// The entries of a status as GEP-713 gives them; their values are [`super::status`]'s, written by the controller.
fn ancestors_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "One entry for each target.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "description": "What became of one target.",
            "type": "object",
            "required": ["ancestorRef", "controllerName", "conditions"],
            "properties": {
                "ancestorRef": {
                    "description": "The target; for a policy without one its namespace, or in the root namespace the mesh.",
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true
                },
                "controllerName": {
                    "description": "Who wrote the entry.",
                    "type": "string"
                },
                "conditions": conditions_schema()
            }
        }
    })
}

/// `metav1.Condition`, whose fields are the same for every kind of Kubernetes.
fn conditions_schema() -> serde_json::Value {
    let text = |description: &str| serde_json::json!({ "description": description, "type": "string" });
    let status = serde_json::json!({
        "description": "True, False or Unknown.", "type": "string", "enum": ["True", "False", "Unknown"]
    });
    let generation = serde_json::json!({
        "description": "The metadata.generation of the policy that was looked at.", "type": "integer", "format": "int64"
    });
    let time = serde_json::json!({
        "description": "When the status last changed.", "type": "string", "format": "date-time"
    });
    serde_json::json!({
        "description": "Accepted: the policy is understood and in force. ResolvedRefs: what it refers to was found.",
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One finding.",
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": text("What is found."),
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": time,
                "reason": text("Why, in one word, as the Gateway API defines it."),
                "message": text("Why, for people; with a remedy where there is one.")
            }
        }
    })
}

/// The CustomResourceDefinitions of our group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![AuthorizationPolicy::crd(), super::GatewayParameters::crd(), MeshPolicy::crd(), super::TelemetryPolicy::crd()]
}
