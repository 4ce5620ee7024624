//! EndpointSlice -> [`core::EndpointSlice`](weft_core::service::EndpointSlice).

use k8s_openapi::api::discovery::v1 as k8s;
use weft_core::backend_kind::BackendKind;
use weft_core::ids::{Name, Namespace, NodeName, Port, SectionName, ServiceKey, Zone};
use weft_core::service::{Endpoint, EndpointHealth, EndpointSlice, SliceKey, SlicePort};

use super::workload::pod_uid;

/// The label that names the Service of a slice.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Translates a slice; `None` if it belongs to no Service or holds names instead of addresses.
pub fn endpoint_slice(object: &k8s::EndpointSlice) -> Option<EndpointSlice> {
    let meta = &object.metadata;
    let service = meta.labels.as_ref()?.get(SERVICE_LABEL).filter(|s| !s.is_empty())?;
    let namespace = Namespace::new(meta.namespace.as_deref().unwrap_or("default"));
    slice_of(object, &namespace, ServiceKey::new(namespace.clone(), service.as_str()))
}

fn slice_of(object: &k8s::EndpointSlice, namespace: &Namespace, service: ServiceKey) -> Option<EndpointSlice> {
    if object.address_type == "FQDN" {
        return None;
    }
    let ports = object.ports.iter().flatten().filter_map(|p| {
        let port = Port::new(u16::try_from(p.port?).ok()?)?;
        Some(SlicePort { name: SectionName::new(p.name.as_deref().unwrap_or_default()), port })
    });
    Some(EndpointSlice {
        key: SliceKey {
            namespace: namespace.clone(),
            name: Name::new(object.metadata.name.as_deref().unwrap_or_default()),
        },
        service,
        ports: ports.collect(),
        endpoints: object.endpoints.iter().filter_map(|e| endpoint(namespace, e)).collect(),
    })
}

/// The label that names the ServiceImport of a slice.
pub const IMPORT_LABEL: &str = "multicluster.kubernetes.io/service-name";

/// Translates a slice of a ServiceImport; `None` if it is of none, or holds names instead of addresses. It may be of a Service,
/// too, and has another key then.
pub fn imported_slice(object: &k8s::EndpointSlice) -> Option<EndpointSlice> {
    let meta = &object.metadata;
    let import = meta.labels.as_ref()?.get(IMPORT_LABEL).filter(|name| !name.is_empty())?;
    let namespace = Namespace::new(meta.namespace.as_deref().unwrap_or("default"));
    let mut made =
        slice_of(object, &namespace, ServiceKey::of_kind(BackendKind::ServiceImport, namespace.clone(), import))?;
    made.key.name = Name::new(imported_name(made.key.name.as_str()));
    // Pods of other clusters may have the names of pods here. Whose an address is follows from the address.
    made.endpoints.iter_mut().for_each(|endpoint| endpoint.workload = None);
    Some(made)
}

/// The name of a slice as that of a ServiceImport.
pub fn imported_name(slice: &str) -> String {
    format!("{}:{slice}", BackendKind::ServiceImport.as_str())
}

/// One endpoint; of its addresses, which the API calls interchangeable, the first.
fn endpoint(namespace: &Namespace, e: &k8s::Endpoint) -> Option<Endpoint> {
    let address = e.addresses.first()?.parse().ok()?;
    // A slice can only speak for pods of its own namespace.
    let pod = e.target_ref.as_ref().filter(|t| {
        t.kind.as_deref() == Some("Pod") && t.namespace.as_deref().is_none_or(|ns| ns == namespace.as_str())
    });
    Some(Endpoint {
        address,
        workload: pod.and_then(|t| t.name.as_deref()).map(|name| pod_uid(namespace, name)),
        health: health(e.conditions.as_ref()),
        node: e.node_name.as_deref().map(NodeName::new),
        zone: e.zone.as_deref().map(Zone::new),
    })
}

/// Absent conditions mean ready and not terminating (EndpointConditions of discovery/v1).
fn health(conditions: Option<&k8s::EndpointConditions>) -> EndpointHealth {
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => EndpointHealth::Ready,
        (false, true) => EndpointHealth::Draining,
        (false, false) => EndpointHealth::NotReady,
    }
}
