//! Who is in the mesh: one rule for the agent that redirects pods, for the configuration that their callers get, and for
//! the command that explains both. Where two of them differed, callers would dial tunnels that nobody accepts.

use k8s_openapi::api::core::v1 as k8s;
use weft_core::ids::Namespace;
use weft_core::workload::Enrolment;

use super::labels::Labels;
use crate::object::ENROLMENT_LABEL;

/// The label of a gateway's pods (GEP-1762).
pub const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// What Istio writes on a pod that has a sidecar.
pub const ISTIO_SIDECAR: &str = "sidecar.istio.io/status";
/// What Istio writes on a pod whose traffic its ztunnel has.
pub const ISTIO_AMBIENT: (&str, &str) = ("ambient.istio.io/redirection", "enabled");
/// The label by which a namespace's pods, or a pod, ask for Istio's ztunnel; on a pod `none` refuses it. Istio's CNI plugin takes a
/// new pod in the same moment as ours, and writes its annotation only afterwards, so that the label has to be enough.
pub const ISTIO_DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// The annotations that are looked at here: who keeps less of a pod than all of it must keep these.
pub const ANNOTATIONS: [&str; 2] = [ISTIO_SIDECAR, ISTIO_AMBIENT.0];

/// Why a pod is never in the mesh, whatever labels say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// It has the node's own network.
    HostNetwork,
    /// It is in the mesh's own namespace.
    Infrastructure,
    /// It is a gateway's.
    Gateway,
    /// Istio has its traffic.
    Istio,
    /// Istio is asked to take its traffic, by [`ISTIO_DATAPLANE_MODE`].
    IstioAmbient,
    /// A Linkerd proxy has its traffic.
    Linkerd,
}

/// Whether labels say that a pod, or a namespace's pods, are in the mesh; `None`: nothing.
pub fn says(labels: Option<&Labels>) -> Option<bool> {
    match labels?.get(ENROLMENT_LABEL)?.as_str() {
        "enabled" => Some(true),
        "disabled" => Some(false),
        _ => None,
    }
}

/// Whether a pod's own labels, else its namespace's, ask for the mesh.
pub fn asks(pod: &k8s::Pod, namespace_labels: Option<&Labels>) -> bool {
    says(pod.metadata.labels.as_ref()).or_else(|| says(namespace_labels)) == Some(true)
}

/// Whether a pod's own label, else its namespace's, asks for Istio's ztunnel.
fn asks_for_ambient(pod: &k8s::Pod, namespace_labels: Option<&Labels>) -> bool {
    let of = |labels: Option<&Labels>| match labels?.get(ISTIO_DATAPLANE_MODE)?.as_str() {
        "ambient" => Some(true),
        "none" => Some(false),
        _ => None,
    };
    of(pod.metadata.labels.as_ref()).or_else(|| of(namespace_labels)) == Some(true)
}

/// Why a pod is never in the mesh, if it isn't. Of two meshes that would both redirect a pod, the other one has it.
pub fn exempt(pod: &k8s::Pod, namespace_labels: Option<&Labels>, mesh_namespace: &Namespace) -> Option<Exempt> {
    let meta = &pod.metadata;
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str);
    let spec = pod.spec.as_ref();
    let has_container = |name: &str| {
        let containers = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        containers.into_iter().any(|container| container.name == name)
    };
    if spec.and_then(|s| s.host_network) == Some(true) {
        Some(Exempt::HostNetwork)
    } else if meta.namespace.as_deref().unwrap_or("default") == mesh_namespace.as_str() {
        Some(Exempt::Infrastructure)
    } else if meta.labels.as_ref().is_some_and(|labels| labels.contains_key(GATEWAY_LABEL)) {
        Some(Exempt::Gateway)
    } else if annotation(ISTIO_SIDECAR).is_some()
        || annotation(ISTIO_AMBIENT.0) == Some(ISTIO_AMBIENT.1)
        || has_container("istio-proxy")
    {
        Some(Exempt::Istio)
    } else if has_container("linkerd-proxy") {
        Some(Exempt::Linkerd)
    } else if asks_for_ambient(pod, namespace_labels) {
        Some(Exempt::IstioAmbient)
    } else {
        None
    }
}

/// Whether a pod takes part.
pub fn enrolment(pod: &k8s::Pod, namespace_labels: Option<&Labels>, mesh_namespace: &Namespace) -> Enrolment {
    match exempt(pod, namespace_labels, mesh_namespace) {
        Some(Exempt::HostNetwork) => Enrolment::HostNetwork,
        None if asks(pod, namespace_labels) => Enrolment::Enrolled,
        _ => Enrolment::Outside,
    }
}
