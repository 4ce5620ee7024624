//! The unit of configuration: resources, and changes to them.
//!
//! The same list of [`Change`]s goes to the in-process store and over delta xDS.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::gateway::{BackendTls, Certificate, GatewayConfig, GatewayRule, Listener};
use crate::identity::TrustDomains;
use crate::ids::{
    CertificateKey, GatewayKey, GatewayRuleKey, ListenerKey, PolicyKey, RuleKey, ServiceKey, ServicePortKey,
    WorkloadUid,
};
use crate::policy::{AuthorizationPolicy, MeshPolicy};
use crate::route::RouteRule;
use crate::service::{EndpointSlice, Service, SliceKey};
use crate::telemetry::TelemetryPolicy;
use crate::workload::Workload;

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A workload.
    Workload(Arc<Workload>),
    /// A Service.
    Service(Arc<Service>),
    /// A part of a Service's endpoints.
    EndpointSlice(Arc<EndpointSlice>),
    /// One rule of a route, attached to Services.
    Rule(Arc<RouteRule>),
    /// Who may call.
    Authorization(Arc<AuthorizationPolicy>),
    /// Modes and budgets.
    MeshPolicy(Arc<MeshPolicy>),
    /// What is told of requests.
    Telemetry(Arc<TelemetryPolicy>),
    /// A listener of a Gateway.
    Listener(Arc<Listener>),
    /// A certificate that a Gateway presents.
    Certificate(Arc<Certificate>),
    /// One rule of a route, attached to listeners of one Gateway.
    GatewayRule(Arc<GatewayRule>),
    /// What a Gateway has besides its listeners.
    GatewayConfig(Arc<GatewayConfig>),
    /// How Gateways speak TLS to a Service port.
    BackendTls(Arc<BackendTls>),
    /// Mesh-wide settings; exactly one.
    Mesh(Arc<MeshConfig>),
}

/// The key of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKey {
    /// Of a workload.
    Workload(WorkloadUid),
    /// Of a Service.
    Service(ServiceKey),
    /// Of a part of a Service's endpoints.
    EndpointSlice(SliceKey),
    /// Of one rule of a route.
    Rule(RuleKey),
    /// Of an `AuthorizationPolicy`.
    Authorization(PolicyKey),
    /// Of a `MeshPolicy`.
    MeshPolicy(PolicyKey),
    /// Of a `TelemetryPolicy`.
    Telemetry(PolicyKey),
    /// Of a listener of a Gateway.
    Listener(ListenerKey),
    /// Of a certificate.
    Certificate(CertificateKey),
    /// Of one rule of a route at one Gateway.
    GatewayRule(GatewayRuleKey),
    /// Of what a Gateway has besides its listeners.
    GatewayConfig(GatewayKey),
    /// Of how Gateways speak TLS to a Service port.
    BackendTls(ServicePortKey),
    /// Of the mesh-wide settings.
    Mesh,
}

impl ResourceKey {
    /// The Gateway whose resource this is alone; nobody else may see it.
    pub fn gateway(&self) -> Option<&GatewayKey> {
        match self {
            Self::Listener(key) => Some(&key.gateway),
            Self::Certificate(key) => Some(&key.gateway),
            Self::GatewayRule(key) => Some(&key.gateway),
            Self::GatewayConfig(key) => Some(key),
            Self::Workload(_)
            | Self::Service(_)
            | Self::EndpointSlice(_)
            | Self::Rule(_)
            | Self::Authorization(_)
            | Self::MeshPolicy(_)
            | Self::Telemetry(_)
            | Self::BackendTls(_)
            | Self::Mesh => None,
        }
    }
}

impl Resource {
    /// Its key.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Workload(it) => ResourceKey::Workload(it.uid.clone()),
            Self::Service(it) => ResourceKey::Service(it.key.clone()),
            Self::EndpointSlice(it) => ResourceKey::EndpointSlice(it.key.clone()),
            Self::Rule(it) => ResourceKey::Rule(it.key().clone()),
            Self::Authorization(it) => ResourceKey::Authorization(it.key.clone()),
            Self::MeshPolicy(it) => ResourceKey::MeshPolicy(it.key.clone()),
            Self::Telemetry(it) => ResourceKey::Telemetry(it.key.clone()),
            Self::Listener(it) => ResourceKey::Listener(it.key.clone()),
            Self::Certificate(it) => ResourceKey::Certificate(it.key.clone()),
            Self::GatewayRule(it) => ResourceKey::GatewayRule(it.key()),
            Self::GatewayConfig(it) => ResourceKey::GatewayConfig(it.key.clone()),
            Self::BackendTls(it) => ResourceKey::BackendTls(it.port.clone()),
            Self::Mesh(_) => ResourceKey::Mesh,
        }
    }
}

/// A change of one resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// New or different.
    Upsert(Resource),
    /// Gone.
    Remove(ResourceKey),
}

/// Mesh-wide settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshConfig {
    /// The trust domain of every identity the mesh issues, and its other names while it is changed.
    pub trust_domains: TrustDomains,
    /// The DNS suffix of Services, `cluster.local` by default.
    pub cluster_domain: String,
    /// Ranges of pods and Services: an address in one of them that no resource names is waited for, then refused.
    pub cluster_ranges: Vec<ipnet::IpNet>,
    /// Same-node traffic goes through the tunnel too.
    pub force_wire: bool,
    /// Addresses of nodes and API servers, neighbours merged: Gateways send to none of them as to a host outside.
    pub node_addresses: Vec<ipnet::IpNet>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domains: TrustDomains::default(),
            cluster_domain: "cluster.local".into(),
            cluster_ranges: Vec::new(),
            force_wire: false,
            node_addresses: Vec::new(),
        }
    }
}
