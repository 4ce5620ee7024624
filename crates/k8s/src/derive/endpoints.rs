//! A Service and its pods -> EndpointSlices, as the endpoint slice controller of Kubernetes does it.
//!
//! A pod stays in its slice when others come and go: slices are buckets of the hash of pod names, so that one
//! changed pod is one changed slice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use crate::translate::endpoints::SERVICE_LABEL;
use crate::translate::labels;
use crate::translate::workload::ZONE_LABEL;

/// Endpoints that a slice is made for; by chance it may hold somewhat more.
const PER_SLICE: usize = 64;
/// The value of the label `endpointslice.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "weftmesh.io/standalone";

/// A kind of slice: one address family and one set of endpoint ports (pods may give a port's name other numbers).
type Shape = (&'static str, Vec<(String, String, Option<String>, i32)>);

/// The slices of a Service; none if it has no selector (its slices are then given by hand) or is an ExternalName.
///
/// `pods` may hold any pods; those of other namespaces and labels are passed over.
pub fn endpoint_slices<'a>(service: &Service, pods: impl IntoIterator<Item = &'a Pod>) -> Vec<EndpointSlice> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let Some(selector) = spec.selector.as_ref().filter(|s| !s.is_empty()) else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
    let mut shapes: BTreeMap<Shape, BTreeMap<&str, Endpoint>> = BTreeMap::new();
    for pod in pods {
        let meta = &pod.metadata;
        let same_namespace = meta.namespace.as_deref().unwrap_or("default") == namespace;
        let selected = meta.labels.as_ref().is_some_and(|l| labels::has_all(selector, l));
        if !same_namespace || !selected || has_ended(pod) {
            continue;
        }
        for family in families(spec) {
            if let Some(address) = address(pod, family) {
                let endpoint = endpoint(service, spec, pod, address);
                let shape = (family, ports(spec, pod));
                shapes.entry(shape).or_default().insert(meta.name.as_deref().unwrap_or_default(), endpoint);
            }
        }
    }
    shapes.into_iter().flat_map(|(shape, endpoints)| slices(service, &shape, endpoints)).collect()
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The families that a Service asks for, by its fields or its addresses; both if it says nothing.
fn families(spec: &ServiceSpec) -> Vec<&'static str> {
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let of_addresses: Vec<_> =
        addresses.filter_map(|a| a.parse().ok()).map(|a: std::net::IpAddr| a.is_ipv4()).collect();
    let says = |v4: bool| match &spec.ip_families {
        Some(families) => families.iter().any(|f| f == if v4 { "IPv4" } else { "IPv6" }),
        None => of_addresses.is_empty() || of_addresses.contains(&v4),
    };
    [("IPv4", true), ("IPv6", false)].into_iter().filter(|(_, v4)| says(*v4)).map(|(name, _)| name).collect()
}

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    listed.find(|ip| ip.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_ipv4() == (family == "IPv4"))).cloned()
}

/// Name, protocol, appProtocol and number on the pod of each port of the Service that the pod has.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<(String, String, Option<String>, i32)> {
    let one = |p: &ServicePort| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((p.name.clone().unwrap_or_default(), protocol, p.app_protocol.clone(), target_port(p, pod)?))
    };
    spec.ports.iter().flatten().filter_map(one).collect()
}

/// The number on the pod that a Service port leads to; `None` if no container has a port of that name.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    // Restartable init containers (sidecars) may serve ports too.
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut named = containers.flat_map(|c| c.ports.iter().flatten());
    let found = named.find(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
    found.map(|p| p.container_port)
}

fn endpoint(service: &Service, spec: &ServiceSpec, pod: &Pod, address: String) -> Endpoint {
    let meta = &pod.metadata;
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let serving = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let terminating = meta.deletion_timestamp.is_some();
    let pod_spec = pod.spec.as_ref();
    let in_domain = pod_spec.and_then(|s| s.subdomain.as_ref()) == service.metadata.name.as_ref();
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(spec.publish_not_ready_addresses == Some(true) || (serving && !terminating)),
            serving: Some(spec.publish_not_ready_addresses == Some(true) || serving),
            terminating: Some(terminating),
        }),
        hostname: pod_spec.and_then(|s| s.hostname.clone()).filter(|_| in_domain),
        node_name: pod_spec.and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: meta.labels.as_ref().and_then(|l| l.get(ZONE_LABEL)).cloned(),
        ..Endpoint::default()
    }
}

fn slices(service: &Service, shape: &Shape, endpoints: BTreeMap<&str, Endpoint>) -> Vec<EndpointSlice> {
    let buckets = endpoints.len().div_ceil(PER_SLICE).next_power_of_two();
    let mut filled: BTreeMap<usize, Vec<Endpoint>> = BTreeMap::new();
    for (name, endpoint) in endpoints {
        filled.entry(bucket(name, buckets)).or_default().push(endpoint);
    }
    filled.into_iter().map(|(i, endpoints)| slice(service, shape, i, endpoints)).collect()
}

fn bucket(name: &str, buckets: usize) -> usize {
    hash(name.as_bytes()) as usize & (buckets - 1)
}

fn hash(bytes: &[u8]) -> u32 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(4).fold(0, |n, b| (n << 8) | u32::from(*b))
}

fn slice(service: &Service, shape: &Shape, bucket: usize, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let (family, ports) = shape;
    let name = service.metadata.name.clone().unwrap_or_default();
    // The ports are part of the name, because pods that differ in them are in slices of their own.
    let tag = hash(format!("{ports:?}").as_bytes());
    let port = |(name, protocol, app_protocol, number): &(String, String, Option<String>, i32)| EndpointPort {
        name: Some(name.clone()),
        port: Some(*number),
        protocol: Some(protocol.clone()),
        app_protocol: app_protocol.clone(),
    };
    let labels = [
        (SERVICE_LABEL.to_owned(), name.clone()),
        ("endpointslice.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned()),
    ];
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}-{tag:08x}-{bucket}", family.to_lowercase())),
            namespace: Some(service.metadata.namespace.clone().unwrap_or_else(|| "default".into())),
            labels: Some(labels.into_iter().collect()),
            ..ObjectMeta::default()
        },
        address_type: (*family).to_owned(),
        endpoints,
        ports: Some(ports.iter().map(port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_norway::from_str(text).unwrap()
    }

    fn pod(name: &str) -> Pod {
        read(&format!(
            "metadata: {{name: {name}, namespace: shop, labels: {{app: cart}}}}\nspec: {{nodeName: n1, containers: [{{name: c, \
             ports: [{{name: web, containerPort: 8080}}]}}]}}\nstatus: {{phase: Running, podIPs: [{{ip: 10.0.0.1}}, {{ip: 'fd00::1'}}], \
             conditions: [{{type: Ready, status: 'True'}}]}}"
        ))
    }

    fn service(more: &str) -> Service {
        read(&format!(
            "metadata: {{name: cart, namespace: shop}}\nspec: {{selector: {{app: cart}}, ports: [{{name: http, port: 80, \
             targetPort: web}}], clusterIP: 10.96.0.1{more}}}"
        ))
    }

    fn only(slices: &[EndpointSlice]) -> &EndpointSlice {
        assert_eq!(slices.len(), 1, "{slices:?}");
        &slices[0]
    }

    #[test]
    fn a_named_target_port_is_the_number_of_each_pod() {
        let mut other = pod("b");
        other.spec.as_mut().unwrap().containers[0].ports.as_mut().unwrap()[0].container_port = 9090;
        let slices = endpoint_slices(&service(""), &[pod("a"), other]);
        let numbers: Vec<_> = slices.iter().map(|s| s.ports.as_ref().unwrap()[0].port.unwrap()).collect();
        assert_eq!(numbers, [8080, 9090]);
    }

    #[test]
    fn families_are_those_of_the_service() {
        assert_eq!(only(&endpoint_slices(&service(""), &[pod("a")])).address_type, "IPv4");
        assert_eq!(only(&endpoint_slices(&service(", ipFamilies: [IPv6]"), &[pod("a")])).address_type, "IPv6");
        let headless: Service =
            read("metadata: {name: cart, namespace: shop}\nspec: {clusterIP: None, selector: {app: cart}}");
        assert_eq!(endpoint_slices(&headless, &[pod("a")]).len(), 2);
    }

    #[test]
    fn readiness_follows_the_pod_unless_the_service_publishes_all() {
        let state = |service: &Service, pod: Pod| {
            let slices = endpoint_slices(service, &[pod]);
            let c = only(&slices).endpoints[0].conditions.clone().unwrap();
            (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
        };
        let mut unready = pod("a");
        unready.status.as_mut().unwrap().conditions = None;
        let mut terminating = pod("a");
        terminating.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(state(&service(""), pod("a")), (true, true, false));
        assert_eq!(state(&service(""), unready.clone()), (false, false, false));
        assert_eq!(state(&service(""), terminating.clone()), (false, true, true));
        assert_eq!(state(&service(", publishNotReadyAddresses: true"), unready), (true, true, false));
        assert_eq!(state(&service(", publishNotReadyAddresses: true"), terminating), (true, true, true));
    }

    #[test]
    fn pods_that_ended_or_have_other_labels_or_namespaces_are_no_endpoints() {
        let mut ended = pod("a");
        ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
        let mut foreign = pod("b");
        foreign.metadata.namespace = Some("other".into());
        let mut unlabelled = pod("c");
        unlabelled.metadata.labels = None;
        assert!(endpoint_slices(&service(""), &[ended, foreign, unlabelled]).is_empty());
    }

    #[test]
    fn one_more_pod_touches_one_slice() {
        let pods: Vec<_> = (0..200).map(|i| pod(&format!("p{i}"))).collect();
        let before = endpoint_slices(&service(""), &pods[..199]);
        let after = endpoint_slices(&service(""), &pods);
        assert_eq!(after.iter().map(|s| s.endpoints.len()).sum::<usize>(), 200);
        assert_eq!(after.iter().filter(|s| !before.contains(s)).count(), 1);
    }
}
