//! Pod -> [`core::Workload`](weft_core::workload::Workload).

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as k8s;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{Name, Namespace, NodeName, PolicyKey, WorkloadUid, Zone};
use weft_core::workload::{Enrolment, Owner, Workload};

use super::enrolment::enrolment;
use super::labels::Labels;
use super::probe::probes;
use super::{Problem, suggestion};
use crate::object::ENROLMENT_LABEL;

/// The label of a zone on nodes, and on pods where the cluster copies it.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The uid of a pod's workload; the same for all incarnations of its name.
pub fn pod_uid(namespace: &Namespace, name: &str) -> WorkloadUid {
    WorkloadUid::from(format!("Kubernetes//Pod/{namespace}/{name}"))
}

/// What a workload depends on besides its pod.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// Of the identities.
    pub trust_domain: TrustDomain,
    /// The mesh's own namespace, whose pods are never in it.
    pub mesh_namespace: Namespace,
    /// Labels of the pod's namespace.
    pub namespace_labels: Option<&'a Labels>,
    /// Labels of the pod's node.
    pub node_labels: Option<&'a Labels>,
    /// Policies that select the pod.
    pub policies: Vec<PolicyKey>,
    /// Whether a NetworkPolicy selects the pod.
    pub network_policy: bool,
    /// Telemetry policies that select it.
    pub telemetry: Vec<PolicyKey>,
}

/// Translates a pod; `None` while it has no address or node, and once it has ended.
pub fn workload(pod: &k8s::Pod, around: Surroundings<'_>) -> Option<Workload> {
    let meta = &pod.metadata;
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let addresses = addresses(status);
    let node = spec.node_name.as_deref().filter(|n| !n.is_empty())?;
    if addresses.is_empty() {
        return None;
    }
    let namespace = Namespace::new(meta.namespace.as_deref().unwrap_or("default"));
    let name = meta.name.as_deref().unwrap_or_default();
    let account = spec.service_account_name.as_deref().filter(|a| !a.is_empty()).unwrap_or("default");
    let enrolment = enrolment(pod, around.namespace_labels, &around.mesh_namespace);
    let probes = match enrolment {
        Enrolment::Enrolled => probes(spec, &addresses),
        Enrolment::Outside | Enrolment::HostNetwork => Vec::new(),
    };
    let zone_of = |labels: Option<&Labels>| labels.and_then(|l| l.get(ZONE_LABEL)).map(Zone::new);
    Some(Workload {
        uid: pod_uid(&namespace, name),
        identity: SpiffeId::new(around.trust_domain, namespace.clone(), account),
        addresses,
        node: NodeName::new(node),
        zone: zone_of(meta.labels.as_ref()).or_else(|| zone_of(around.node_labels)),
        enrolment,
        owner: owner(pod),
        policies: around.policies,
        probes,
        network_policy: around.network_policy,
        telemetry: around.telemetry,
        namespace,
        name: Name::new(name),
    })
}

fn addresses(status: &k8s::PodStatus) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    for ip in listed.filter_map(|text| text.parse().ok()) {
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// A value of the enrolment label that says nothing.
pub fn check_enrolment_label(labels: Option<&Labels>) -> Option<Problem> {
    let value = labels?.get(ENROLMENT_LABEL)?;
    if matches!(value.as_str(), "enabled" | "disabled") {
        return None;
    }
    Some(Problem::value(
        format!("metadata.labels[{ENROLMENT_LABEL}]"),
        format!("{value:?} enrols nothing: the label is ignored"),
        suggestion(value, &["enabled", "disabled"]),
    ))
}

/// The controller of the pod, with the hash of a ReplicaSet taken off to give its Deployment.
fn owner(pod: &k8s::Pod) -> Owner {
    let meta = &pod.metadata;
    let label = |names: [&str; 2]| {
        let labels = meta.labels.as_ref()?;
        names.into_iter().find_map(|n| labels.get(n)).cloned()
    };
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|o| o.controller == Some(true)).or(owners.first());
    let (kind, name) = match controller {
        None => ("Pod".to_owned(), meta.name.clone().unwrap_or_default()),
        Some(o) if o.kind == "ReplicaSet" => {
            let hash = meta.labels.as_ref().and_then(|l| l.get("pod-template-hash"));
            match hash.and_then(|h| o.name.strip_suffix(h.as_str())).and_then(|n| n.strip_suffix('-')) {
                Some(deployment) => ("Deployment".to_owned(), deployment.to_owned()),
                None => (o.kind.clone(), o.name.clone()),
            }
        }
        Some(o) => (o.kind.clone(), o.name.clone()),
    };
    Owner {
        app: label(["app.kubernetes.io/name", "app"]).unwrap_or_else(|| name.clone()),
        version: label(["app.kubernetes.io/version", "version"]).unwrap_or_default(),
        kind,
        name: Name::from(name),
    }
}
