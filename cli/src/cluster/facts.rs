//! What was read of a cluster. Checks and views are functions of this; reading is [`super::read`]'s.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use super::metrics::Metrics;

/// Something that was to be read.
pub type Read<T> = Result<T, Unread>;

/// What couldn't be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unread {
    /// What: a kind of objects, a page of a pod.
    pub what: String,
    /// As the API server or the connection has it.
    pub why: String,
}

/// The API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// As it says itself, with its `v`.
    pub version: String,
    /// Its clock, to the second; `None` if it doesn't tell.
    pub date: Option<SystemTime>,
    /// Ours, halfway between question and answer.
    pub now: SystemTime,
}

/// A CustomResourceDefinition, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crd {
    pub group: String,
    pub kind: String,
    pub plural: String,
    /// The version to read objects in: the first that is served.
    pub version: String,
    /// Annotations of the Gateway API.
    pub channel: Option<String>,
    pub bundle: Option<String>,
}

/// One thing that the caller may or may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
    /// Where; `None` is the whole cluster.
    pub namespace: Option<String>,
    pub allowed: bool,
}

/// What a pod of the mesh says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Pages {
    /// What it misses; empty if it is ready.
    pub missing: Read<Vec<String>>,
    pub metrics: Read<Metrics>,
}

/// A route or policy with what we said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshObject {
    pub kind: String,
    pub object: Value,
}

/// Everything that was read. What wasn't asked for is empty.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The mesh's namespace.
    pub mesh: String,
    pub server: Server,
    pub nodes: Read<Vec<Node>>,
    pub namespaces: Read<Vec<Namespace>>,
    pub pods: Read<Vec<Pod>>,
    pub services: Read<Vec<Service>>,
    pub network_policies: Read<Vec<NetworkPolicy>>,
    /// ConfigMap kube-system/cilium-config.
    pub cilium: Read<Option<ConfigMap>>,
    /// Calico's FelixConfiguration `default`.
    pub felix: Read<Option<Value>>,
    pub crds: Read<Vec<Crd>>,
    pub rights: Read<Vec<Right>>,
    /// Of the mesh's namespace.
    pub deployments: Read<Vec<Deployment>>,
    pub daemon_sets: Read<Vec<DaemonSet>>,
    pub leases: Read<Vec<Lease>>,
    /// ConfigMap weft-trust.
    pub trust: Read<Option<ConfigMap>>,
    /// ConfigMap weft-refusals.
    pub refusals: Read<Option<ConfigMap>>,
    /// By the names of the mesh's pods.
    pub pages: BTreeMap<String, Pages>,
    pub objects: Read<Vec<MeshObject>>,
}

impl Facts {
    /// Nothing read yet.
    pub fn new(mesh: &str, server: Server) -> Self {
        Self {
            mesh: mesh.to_owned(),
            server,
            nodes: Ok(Vec::new()),
            namespaces: Ok(Vec::new()),
            pods: Ok(Vec::new()),
            services: Ok(Vec::new()),
            network_policies: Ok(Vec::new()),
            cilium: Ok(None),
            felix: Ok(None),
            crds: Ok(Vec::new()),
            rights: Ok(Vec::new()),
            deployments: Ok(Vec::new()),
            daemon_sets: Ok(Vec::new()),
            leases: Ok(Vec::new()),
            trust: Ok(None),
            refusals: Ok(None),
            pages: BTreeMap::new(),
            objects: Ok(Vec::new()),
        }
    }

    /// Pods of a component of the mesh, in the order of their nodes and names. One that is being deleted counts no more: a
    /// proxy that was replaced stays until its last connection has ended, not ready and of an older version.
    pub fn component<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.component_with_replaced(name).filter(|pod| pod.metadata.deletion_timestamp.is_none())
    }

    /// The same with those that are being deleted.
    pub fn component_with_replaced<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Pod> {
        let mut pods: Vec<_> = self
            .pods
            .iter()
            .flatten()
            .filter(|pod| {
                pod.metadata.namespace.as_deref() == Some(self.mesh.as_str()) && component_of(pod) == Some(name)
            })
            .collect();
        pods.sort_by_key(|pod| (node_of(pod).to_owned(), name_of(&pod.metadata).to_owned()));
        pods.into_iter()
    }
}

/// The parts of the mesh and the port of each that shows metrics and readiness.
pub const COMPONENTS: [(&str, u16); 4] =
    [("weft-controller", 15014), ("weft-ca", 15014), ("weft-agent", 15024), ("weft-node-proxy", 15021)];

/// Which part of the mesh a pod is.
pub fn component_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("app.kubernetes.io/name").map(String::as_str)
}

/// The node of a pod; empty until it has one.
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// An object's name.
pub fn name_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// An object's namespace.
pub fn namespace_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether a pod has ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
