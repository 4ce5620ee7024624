//! The cluster: ten Services and their hundred pods in each namespace, for each Service ten pods, an EndpointSlice and an
//! HTTPRoute that splits its traffic with the next Service, for each namespace an AuthorizationPolicy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, Kind};
use crate::store;

const fn core(kind: &'static str, plural: &'static str) -> Kind {
    Kind { group: "", version: "v1", kind, plural }
}

pub const NAMESPACE: Kind = core("Namespace", "namespaces");
pub const NODE: Kind = core("Node", "nodes");
pub const SERVICE_ACCOUNT: Kind = core("ServiceAccount", "serviceaccounts");
pub const SERVICE: Kind = core("Service", "services");
pub const POD: Kind = core("Pod", "pods");
pub const CONFIG_MAP: Kind = core("ConfigMap", "configmaps");
pub const SLICE: Kind =
    Kind { group: "discovery.k8s.io", version: "v1", kind: "EndpointSlice", plural: "endpointslices" };
pub const ROUTE: Kind =
    Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "HTTPRoute", plural: "httproutes" };
pub const GATEWAY_CLASS: Kind =
    Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "GatewayClass", plural: "gatewayclasses" };
pub const GATEWAY: Kind =
    Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "Gateway", plural: "gateways" };
pub const LISTENER_SET: Kind =
    Kind { group: "gateway.networking.k8s.io", version: "v1", kind: "ListenerSet", plural: "listenersets" };
pub const POLICY: Kind =
    Kind { group: "weftmesh.io", version: "v1alpha1", kind: "AuthorizationPolicy", plural: "authorizationpolicies" };

/// The namespace of the mesh.
pub const MESH: &str = "weft-system";
/// Services in a namespace, and pods of a Service.
const SERVICES: usize = 10;
const PODS: usize = 10;

/// How large a cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub services: usize,
    pub pods: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: expected SERVICESxPODS with ten pods for each Service, such as 100x1000");
        let (services, pods) = text.split_once('x').ok_or_else(wrong)?;
        let size = Self { services: services.parse().map_err(|_| wrong())?, pods: pods.parse().map_err(|_| wrong())? };
        let whole = size.services > 0 && size.services.is_multiple_of(SERVICES) && size.pods == size.services * PODS;
        if whole { Ok(size) } else { Err(wrong()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Services, {} pods", self.services, self.pods)
    }
}

pub fn namespace_of(service: usize) -> String {
    format!("shop-{}", service / SERVICES)
}

pub fn service_name(service: usize) -> String {
    format!("cart-{service}")
}

pub fn pod_name(service: usize, pod: usize) -> String {
    // As a ReplicaSet makes them.
    format!("cart-{service}-6d4cf56db6-{pod:05}")
}

pub fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// An address in 10.0.0.0/9 for each pod, and a second one to move to.
pub fn pod_address(service: usize, pod: usize, moved: bool) -> String {
    let number = service * PODS + pod;
    format!("10.{}.{}.{}", number / 62_500 + if moved { 64 } else { 0 }, number / 250 % 250, number % 250 + 2)
}

/// What is there before any Service: nodes, the mesh's namespace and accounts, a pod of the proxy for each node.
pub async fn base(api: &Api, nodes: usize) -> anyhow::Result<()> {
    let account = |name: &str| json!({ "metadata": { "name": name, "namespace": MESH } });
    let namespaces = [json!({ "metadata": { "name": MESH } })].into_iter().map(|o| (NAMESPACE, o));
    api.create_all(namespaces).await?;
    let accounts = ["default", "weft-ca", "weft-controller", "weft-node-proxy"].map(account);
    api.create_all(accounts.into_iter().map(|o| (SERVICE_ACCOUNT, o))).await?;
    api.create_all((0..nodes).map(|n| (NODE, node(n)))).await?;
    let proxies = (0..nodes).map(|n| own_pod("weft-node-proxy", n));
    let others = ["weft-ca", "weft-controller"].map(|name| own_pod(name, 0));
    api.create_all(proxies.chain(others).map(|o| (POD, o))).await
}

/// Adds what a larger cluster has more, and waits until the API server shows it.
pub async fn grow(api: &Api, from: Size, to: Size, nodes: usize) -> anyhow::Result<()> {
    let services = from.services..to.services;
    let namespaces = services.clone().step_by(SERVICES).map(namespace_of);
    let labels = |name: &str| json!({ "weftmesh.io/mesh": "enabled", "kubernetes.io/metadata.name": name });
    let namespace = |name: String| {
        let (labels, spec) = (labels(&name), json!({ "finalizers": ["kubernetes"] }));
        (
            NAMESPACE,
            json!({ "metadata": { "name": name, "labels": labels }, "spec": spec, "status": { "phase": "Active" } }),
        )
    };
    store::put_all(namespaces.clone().map(namespace)).await?;
    store::put_all(namespaces.map(|ns| (POLICY, policy(&ns)))).await?;
    store::put_all(services.clone().map(|s| (SERVICE, service(s)))).await?;
    store::put_all(services.clone().flat_map(|s| (0..PODS).map(move |p| (POD, pod(s, p, nodes))))).await?;
    store::put_all(services.clone().map(|s| (SLICE, slice(s, nodes)))).await?;
    store::put_all(services.map(|s| (ROUTE, route(s, 90)))).await?;
    let last = namespace_of(to.services - 1);
    for (kind, count) in
        [(POLICY, 1), (SERVICE, SERVICES), (POD, SERVICES * PODS), (SLICE, SERVICES), (ROUTE, SERVICES)]
    {
        while api.cached(kind, &last).await? < count {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

fn node(number: usize) -> Value {
    json!({
        "metadata": { "name": node_name(number), "labels": {
            "kubernetes.io/os": "linux", "kubernetes.io/hostname": node_name(number),
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3) } },
        "spec": { "podCIDR": format!("10.{}.{}.0/24", 128 + number / 250, number % 250) },
        "status": { "addresses": [{ "type": "InternalIP", "address": format!("172.16.{}.{}", number / 250, number % 250 + 1) }],
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }] },
    })
}

/// A pod of the mesh itself, for a token to be bound to.
fn own_pod(account: &str, number: usize) -> Value {
    json!({
        "metadata": { "name": format!("{account}-{number}"), "namespace": MESH,
            "labels": { "app.kubernetes.io/name": account } },
        "spec": { "serviceAccountName": account, "nodeName": node_name(number), "hostNetwork": false,
            "containers": [{ "name": account, "image": format!("localhost/{account}:0.1.0") }] },
        "status": { "phase": "Running" },
    })
}

fn service(number: usize) -> Value {
    let (name, address) = (service_name(number), format!("10.96.{}.{}", 100 + number / 250, number % 250 + 1));
    json!({
        "metadata": { "name": name, "namespace": namespace_of(number), "labels": { "app": name } },
        "spec": { "selector": { "app": name }, "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http" }] },
    })
}

/// The `spec` of a route, with this share for the Service itself.
pub fn route_spec(number: usize, weight: usize) -> Value {
    let next = number - number % SERVICES + (number + 1) % SERVICES;
    json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": service_name(number), "port": 80 }],
        "rules": [{
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "backendRefs": [
                { "name": service_name(number), "port": 80, "weight": weight },
                { "name": service_name(next), "port": 80, "weight": 100 - weight },
            ],
        }],
    })
}

fn route(number: usize, weight: usize) -> Value {
    json!({ "metadata": { "name": service_name(number), "namespace": namespace_of(number) }, "spec": route_spec(number, weight) })
}

fn policy(namespace: &str) -> Value {
    let spec = json!({ "action": "ALLOW", "rules": [{ "from": [{ "namespaces": [namespace] }] }] });
    json!({ "metadata": { "name": "own", "namespace": namespace }, "spec": spec })
}

/// A pod as they are: most of it nobody here reads.
fn pod(service: usize, number: usize, nodes: usize) -> Value {
    let (name, address) = (service_name(service), pod_address(service, number, false));
    let environment: Vec<_> =
        (0..12).map(|n| json!({ "name": format!("SETTING_{n}"), "value": format!("value-of-{name}-{n}") })).collect();
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": 8080 }, "periodSeconds": 10 });
    json!({
        "metadata": { "name": pod_name(service, number), "namespace": namespace_of(service),
            "labels": { "app": name, "pod-template-hash": "6d4cf56db6", "version": "v1", "team": namespace_of(service) },
            "annotations": { "prometheus.io/scrape": "true", "prometheus.io/port": "9090" },
            "ownerReferences": [{ "blockOwnerDeletion": true, "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-6d4cf56db6"),
                "uid": format!("00000000-0000-0000-0000-{service:012}"), "controller": true }] },
        "spec": { "serviceAccountName": "cart", "nodeName": node_name((service * PODS + number) % nodes),
            "containers": [{ "name": "app", "image": "registry.example.com/shop/cart:v1.2.3", "env": environment,
                "ports": [{ "name": "http", "containerPort": 8080 }, { "name": "metrics", "containerPort": 9090 }],
                "livenessProbe": probe("/healthz"), "readinessProbe": probe("/ready"),
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
            "volumes": [{ "name": "data", "emptyDir": {} }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "172.16.0.1",
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "PodScheduled", "status": "True" }] },
    })
}

/// The endpoints of a Service; the first is ready or not.
pub fn endpoints(service: usize, nodes: usize, first: bool) -> Value {
    let endpoint = |pod: usize| {
        json!({ "addresses": [pod_address(service, pod, false)], "nodeName": node_name((service * PODS + pod) % nodes),
            "zone": format!("zone-{}", (service * PODS + pod) % nodes % 3),
            "conditions": { "ready": first || pod > 0, "serving": first || pod > 0, "terminating": false },
            "targetRef": { "kind": "Pod", "name": pod_name(service, pod), "namespace": namespace_of(service) } })
    };
    (0..PODS).map(endpoint).collect()
}

/// The name of the slice of a Service.
pub fn slice_name(service: usize) -> String {
    format!("{}-abcde", service_name(service))
}

fn slice(service: usize, nodes: usize) -> Value {
    json!({
        "metadata": { "name": slice_name(service), "namespace": namespace_of(service),
            "labels": { "kubernetes.io/service-name": service_name(service) } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http" }],
        "endpoints": endpoints(service, nodes, true),
    })
}
