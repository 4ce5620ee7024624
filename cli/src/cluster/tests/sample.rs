//! A cluster of two nodes with a healthy mesh and one enrolled namespace; tests break one thing each.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::facts::{Crd, Facts, MeshObject, Pages, Right, Server};
use crate::cluster::metrics::Metrics;

/// 2026-11-21T10:00:00Z
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_255_200)
}

/// An object of any type.
pub fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn node(name: &str, kernel: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "kubernetes.io/os": "linux" } }, "spec": {}, "status": { "nodeInfo": {
        "kernelVersion": kernel, "containerRuntimeVersion": "containerd://2.1.4", "operatingSystem": "linux",
        "architecture": "amd64", "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "v1.34.2", "machineID": "",
        "osImage": "", "systemUUID": "" } } })
}

pub fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
        "spec": { "nodeName": node, "containers": [{ "name": "app", "image": "localhost/app:1" }] },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": "True" }] } })
}

fn part(component: &str, image: &str, name: &str, node: &str) -> Pod {
    let mut pod = pod("weft-system", name, node);
    pod["metadata"]["labels"] = json!({ "app.kubernetes.io/name": component });
    pod["spec"]["containers"] = json!([{ "name": component, "image": format!("localhost/{image}:0.1.0") }]);
    object(pod)
}

fn crd(group: &str, kind: &str, plural: &str, version: &str) -> Crd {
    let gateway = group.starts_with("gateway");
    Crd {
        group: group.into(),
        kind: kind.into(),
        plural: plural.into(),
        version: version.into(),
        channel: gateway.then(|| "standard".into()),
        bundle: gateway.then(|| "v1.6.3".into()),
    }
}

pub fn route(name: &str, accepted: bool) -> MeshObject {
    let (status, reason, message) = if accepted {
        ("True", "Accepted", "")
    } else {
        ("False", "NoMatchingParent", "there is no Service shop/cart")
    };
    let condition =
        json!({ "type": "Accepted", "status": status, "reason": reason, "message": message, "observedGeneration": 1 });
    MeshObject {
        kind: "HTTPRoute".into(),
        object: json!({
            "metadata": { "namespace": "shop", "name": name, "generation": 1 },
            "spec": { "parentRefs": [{ "kind": "Service", "group": "", "name": "cart" }] },
            "status": { "parents": [
                { "controllerName": "example.com/other", "conditions": [{ "type": "Accepted", "status": "False" }] },
                { "controllerName": "weftmesh.io/gateway-controller", "conditions": [condition] },
            ] },
        }),
    }
}

/// An agent's page: the pods of its node with their state and why.
pub fn agent(pods: &[(&str, &str, &str)]) -> Pages {
    let line = |(pod, state, why): &(&str, &str, &str)| {
        format!("weft_agent_pod{{namespace=\"shop\",pod=\"{pod}\",state=\"{state}\",why=\"{why}\"}} 1\n")
    };
    ready(&pods.iter().map(line).collect::<String>())
}

pub fn ready(metrics: &str) -> Pages {
    Pages { missing: Ok(Vec::new()), metrics: Ok(Metrics::parse(metrics)) }
}

pub fn proxy(identity: &str, end: SystemTime, failures: u32) -> Pages {
    let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    ready(&format!(
        "weft_certificate_expiry_timestamp_seconds{{identity=\"{identity}\"}} {end}\nweft_certificate_renewal_failures{{identity=\"{identity}\"}} {failures}\n"
    ))
}

/// A root that ends on 2036-11-18.
pub const ROOT: &str = include_str!("root.pem");

fn installed(facts: &mut Facts) {
    let set = |name: &str| {
        object(json!({ "metadata": { "name": name }, "spec": { "selector": {}, "template": { "spec": {
            "containers": [], "nodeSelector": { "kubernetes.io/os": "linux" } } } },
            "status": { "numberReady": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberMisscheduled": 0 } }))
    };
    let deployment = |name: &str| {
        let spec = json!({ "replicas": 2, "selector": {}, "template": {} });
        object(json!({ "metadata": { "name": name }, "spec": spec, "status": { "readyReplicas": 2 } }))
    };
    let lease = |name: &str, holder: &str| {
        object(json!({ "metadata": { "name": name }, "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15,
            "renewTime": "2026-11-21T09:59:55.000000Z" } }))
    };
    facts.daemon_sets = Ok(vec![set("weft-agent"), set("weft-node-proxy")]);
    facts.deployments = Ok(vec![deployment("weft-controller"), deployment("weft-ca")]);
    facts.leases = Ok(vec![lease("weft-controller", "weft-controller-a"), lease("weft-ca", "weft-ca-b")]);
    facts.trust = Ok(Some(object(json!({ "metadata": { "name": "weft-trust" }, "data": { "root.pem": ROOT } }))));
    let hour = Duration::from_secs(3600);
    facts.pages = [
        ("weft-controller-a", ready("")),
        ("weft-controller-b", ready("")),
        ("weft-ca-a", ready("weft_ca_intermediate_expiry_timestamp_seconds 1826791200\n")),
        ("weft-ca-b", ready("")),
        ("weft-agent-1", agent(&[("cart", "protected", "")])),
        ("weft-agent-2", agent(&[("web", "protected", "")])),
        ("weft-node-proxy-1", proxy("spiffe://cluster.local/ns/shop/sa/cart", now() + hour * 20, 0)),
        ("weft-node-proxy-2", proxy("spiffe://cluster.local/ns/shop/sa/web", now() + hour * 12, 0)),
    ]
    .into_iter()
    .map(|(name, pages)| (name.to_owned(), pages))
    .collect();
}

/// All is well.
pub fn healthy() -> Facts {
    let server = Server { version: "v1.34.2".into(), date: Some(now()), now: now() };
    let mut facts = Facts::new("weft-system", server);
    facts.nodes = Ok(vec![object(node("n1", "6.8.0-49-generic")), object(node("n2", "5.15.0-1051-gke"))]);
    let enabled = json!({ "weftmesh.io/mesh": "enabled" });
    facts.namespaces = Ok(vec![
        object(json!({ "metadata": { "name": "shop", "labels": enabled } })),
        object(json!({ "metadata": { "name": "default" } })),
        object(json!({ "metadata": { "name": "weft-system" } })),
    ]);
    facts.pods = Ok(vec![
        object(pod("shop", "cart", "n1")),
        object(pod("shop", "web", "n2")),
        object(pod("default", "old", "n2")),
        part("weft-controller", "weft-controller", "weft-controller-a", "n1"),
        part("weft-controller", "weft-controller", "weft-controller-b", "n2"),
        part("weft-ca", "weft-ca", "weft-ca-a", "n1"),
        part("weft-ca", "weft-ca", "weft-ca-b", "n2"),
        part("weft-agent", "weft-cni", "weft-agent-1", "n1"),
        part("weft-agent", "weft-cni", "weft-agent-2", "n2"),
        part("weft-node-proxy", "weft-node-proxy", "weft-node-proxy-1", "n1"),
        part("weft-node-proxy", "weft-node-proxy", "weft-node-proxy-2", "n2"),
    ]);
    facts.services = Ok(vec![object(json!({ "metadata": { "namespace": "shop", "name": "cart" },
        "spec": { "ports": [{ "port": 80, "name": "http" }, { "port": 6379, "appProtocol": "redis" }] } }))]);
    facts.crds = Ok(vec![
        crd("gateway.networking.k8s.io", "HTTPRoute", "httproutes", "v1"),
        crd("gateway.networking.k8s.io", "GRPCRoute", "grpcroutes", "v1"),
        crd("weftmesh.io", "MeshPolicy", "meshpolicies", "v1alpha1"),
        crd("weftmesh.io", "AuthorizationPolicy", "authorizationpolicies", "v1alpha1"),
    ]);
    facts.objects = Ok(vec![route("canary", true)]);
    facts.rights = Ok(vec![Right {
        verb: "create",
        group: "apps",
        resource: "daemonsets",
        namespace: Some("weft-system".into()),
        allowed: true,
    }]);
    installed(&mut facts);
    facts
}
