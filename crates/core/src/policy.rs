//! Policies: who may call (`AuthorizationPolicy`) and whether plaintext is taken (`MeshPolicy`).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ids::{Namespace, PolicyKey, Port};

/// What a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Every workload.
    Mesh,
    /// Every workload of a namespace.
    Namespace(Namespace),
    /// The workloads that list the policy in their `policies`.
    Selected,
}

/// An `AuthorizationPolicy`.
///
/// Evaluation: any matching DENY denies. Else, if the workload has ALLOW policies, one of them must match. AUDIT
/// never decides: a match is counted and logged. A policy in audit mode is evaluated as it would be, counted
/// and logged, and never decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationPolicy {
    /// Its key.
    pub key: PolicyKey,
    /// What it applies to.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// `mode: Audit`: count and log what it would deny, decide nothing.
    pub dry_run: bool,
    /// Any of these. No rule matches nothing: an ALLOW policy without rules denies everything.
    pub rules: Vec<AuthorizationRule>,
}

/// What a matching policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Allows; with at least one such policy whatever none of them matches is denied.
    Allow,
    /// Denies.
    Deny,
    /// Counts and logs.
    Audit,
}

/// All the parts that are given must match; an absent part matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRule {
    /// Any of these sources.
    pub from: Vec<Source>,
    /// Any of these operations.
    pub to: Vec<Operation>,
}

/// Who calls: all the lists that are not empty must have a member that matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// SPIFFE IDs: `spiffe://...` or without the scheme; exact, `prefix*`, `*suffix` or `*` (any identity).
    pub identities: Vec<GlobMatch>,
    /// None of these.
    pub not_identities: Vec<GlobMatch>,
    /// Namespaces of the identity.
    pub namespaces: Vec<GlobMatch>,
    /// None of these.
    pub not_namespaces: Vec<GlobMatch>,
    /// Addresses of the connection itself.
    pub addresses: Vec<IpNet>,
    /// None of these.
    pub not_addresses: Vec<IpNet>,
}

/// What is called: all the lists that are not empty must have a member that matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Ports of the destination pod.
    pub ports: Vec<Port>,
    /// None of these.
    pub not_ports: Vec<Port>,
    /// HTTP methods, upper case.
    pub methods: Vec<GlobMatch>,
    /// None of these.
    pub not_methods: Vec<GlobMatch>,
    /// HTTP paths, without the query, normalised.
    pub paths: Vec<GlobMatch>,
    /// None of these.
    pub not_paths: Vec<GlobMatch>,
    /// HTTP hosts, lower case, without the port.
    pub hosts: Vec<GlobMatch>,
    /// None of these.
    pub not_hosts: Vec<GlobMatch>,
    /// Headers: each must have a value that matches.
    pub headers: Vec<HeaderCondition>,
}

/// A header that must be there, with any of the values (or any value at all, if there are none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderCondition {
    /// The name, lower case.
    pub name: String,
    /// Any of these; a header with several values matches if one of them does.
    pub values: Vec<GlobMatch>,
    /// None of these.
    pub not_values: Vec<GlobMatch>,
}

/// A text with at most one `*`, at its start or end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GlobMatch {
    /// `*`: anything that is there.
    Any,
    /// Equal.
    Exact(String),
    /// `text*`
    Prefix(String),
    /// `*text`
    Suffix(String),
}

impl GlobMatch {
    /// Reads the user's notation.
    pub fn new(text: &str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Any,
            (_, Some(prefix)) => Self::Prefix(prefix.into()),
            (Some(suffix), _) => Self::Suffix(suffix.into()),
            _ => Self::Exact(text.into()),
        }
    }

    /// Whether `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
        }
    }
}

/// A `MeshPolicy`: how workloads take traffic from outside the mesh, and their budgets.
///
/// For each setting the most specific policy that gives it wins: workload, namespace, mesh; among equals the
/// older, then the name. What enforced policies come to among themselves is the least that holds in any case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPolicy {
    /// Its key.
    pub key: PolicyKey,
    /// What it applies to.
    pub scope: Scope,
    /// When it was made, seconds since the Unix epoch.
    pub created_unix_seconds: i64,
    /// Whether plaintext is taken.
    pub mode: Option<Mode>,
    /// By port of the pod, over `mode`.
    pub port_modes: Vec<(Port, Mode)>,
    /// Whether other policies can make a workload only stricter than this one says, and its budgets only smaller. Set in
    /// the root namespace alone.
    pub enforced: bool,
    /// What the workload may use of the node.
    pub limits: WorkloadLimits,
}

/// Whether a workload takes plaintext from outside the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Plaintext is taken and counted.
    #[default]
    Permissive,
    /// Plaintext TCP is refused.
    Strict,
    /// As `Permissive`, but what `Strict` would refuse is counted and logged.
    StrictAudit,
}

/// Budgets of one workload on its node; `None` leaves the node's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadLimits {
    /// Connections open at once, in and out.
    pub max_connections: Option<u32>,
    /// TLS handshakes under way at once.
    pub max_handshakes: Option<u32>,
    /// Bytes of buffers.
    pub max_buffer_bytes: Option<u64>,
}
