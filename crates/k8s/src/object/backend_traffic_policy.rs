//! `XBackendTrafficPolicy`, `gateway.networking.x-k8s.io` (GEP-3388, GEP-1619): what is asked for of the traffic to backends.
//!
//! Numbers are wide and all fields may be absent: a value outside of what the API allows is named in the status.
#![allow(missing_docs, reason = "kube's derive makes the root type; its spec is documented")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::PolicyStatus;
use super::route::SessionPersistence;

/// `spec` of an XBackendTrafficPolicy.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.x-k8s.io",
    version = "v1alpha1",
    kind = "XBackendTrafficPolicy",
    root = "BackendTrafficPolicy",
    plural = "xbackendtrafficpolicies"
)]
#[kube(namespaced, status = "PolicyStatus", derive = "PartialEq", derive = "Default")]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTrafficPolicySpec {
    /// What it is for: Services, and what else can be a backend.
    pub target_refs: Vec<BackendTargetRef>,
    /// How many of the requests may be retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_constraint: Option<RetryConstraintSpec>,
    /// Sessions of requests to it, where a rule doesn't ask for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// `targetRefs[]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BackendTargetRef {
    /// The group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// `retryConstraint`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryConstraintSpec {
    /// The share of retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudgetSpec>,
    /// What is allowed whatever their share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_rate: Option<RequestRateSpec>,
}

/// `budget`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RetryBudgetSpec {
    /// Of all requests, 0 to 100; 20 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// How long a request counts, 1s to 1h; 10s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

/// `minRetryRate`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequestRateSpec {
    /// 1 to 1,000,000; 10 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// Up to 1h; 1s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}
