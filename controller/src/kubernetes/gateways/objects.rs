//! One Gateway -> the objects that serve it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use weft_core::gateway::{Transport, label_value, object_name};
use weft_core::ids::Port;
use weft_core::tap;
use weft_k8s::index::GATEWAY_NAME_LABEL;
use weft_k8s::object::{GATEWAY_GROUP, GatewayService, GatewayServiceType};
use weft_k8s::translate::gateway::{GatewayPlan, RESERVED_PORTS, WENT_BY, services};

use super::pods;
use super::settings::PodSettings;

/// The label of a Gateway's objects that names its class (GEP-1762).
pub const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
/// The label that tells our objects from those of other implementations, and from people's own.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "weft-controller");
/// What the name of the copy of the roots has besides that of the other objects.
const ROOTS: &str = "-trust";
/// A Service has to have a port. Behind this one nobody listens, unless a listener has it.
const NO_LISTENER: u16 = 65535;

/// Everything that serves a Gateway, in the order in which it is made. `roots` are the mesh's, as PEM.
pub fn objects(plan: &GatewayPlan, settings: &PodSettings, roots: &str) -> Vec<Value> {
    let name = object_name(plan.key.name.as_str(), &plan.class);
    let made = Maker { plan, name: &name };
    let mut objects = vec![made.account(), made.roots(roots)];
    objects.extend(made.network_policy(settings));
    objects.extend(services(&name, &plan.requested).into_iter().map(|(name, ip)| made.service(&name, ip)));
    objects.push(pods::deployment(plan, settings, made.metadata(&name)));
    objects.push(made.disruption_budget());
    objects.extend(made.autoscaler());
    objects
}

/// What the pods of a Gateway are selected by; never changes, since the class is a part of the name.
pub fn selector(plan: &GatewayPlan) -> BTreeMap<String, String> {
    let name = label_value(plan.key.name.as_str());
    [(GATEWAY_NAME_LABEL.to_owned(), name), (CLASS_LABEL.to_owned(), label_value(&plan.class))].into()
}

/// The name of the copy of the roots.
pub fn roots_name(object: &str) -> String {
    format!("{object}{ROOTS}")
}

/// The Gateway's objects that a copy of the roots is of, by its name.
pub fn of_roots(name: &str) -> Option<&str> {
    name.strip_suffix(ROOTS)
}

/// Labels of every object; ours win over those of the Gateway, since objects are found by them.
pub fn labels(plan: &GatewayPlan) -> BTreeMap<String, String> {
    let mut labels = plan.infrastructure.labels.clone();
    labels.extend(selector(plan));
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels
}

struct Maker<'a> {
    plan: &'a GatewayPlan,
    name: &'a str,
}

impl Maker<'_> {
    fn metadata(&self, name: &str) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("name".into(), json!(name));
        metadata.insert("namespace".into(), json!(self.plan.key.namespace));
        metadata.insert("labels".into(), json!(labels(self.plan)));
        let annotations = &self.plan.infrastructure.annotations;
        if !annotations.is_empty() {
            metadata.insert("annotations".into(), json!(annotations));
        }
        // Without blockOwnerDeletion, which takes the right to change finalizers of Gateways in some clusters.
        let owner = json!({ "apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": "Gateway", "name": self.plan.key.name,
            "uid": self.plan.uid, "controller": true });
        metadata.insert("ownerReferences".into(), json!([owner]));
        metadata
    }

    fn account(&self) -> Value {
        let mut annotations = self.plan.infrastructure.annotations.clone();
        // What is said there is ours alone to say.
        annotations.remove(WENT_BY);
        annotations.extend(self.plan.remembered.clone().map(|text| (WENT_BY.to_owned(), text)));
        let mut metadata = self.metadata(self.name);
        metadata.remove("annotations");
        if !annotations.is_empty() {
            metadata.insert("annotations".into(), json!(annotations));
        }
        // It never speaks to the API server: no rights, no token for it.
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata,
            "automountServiceAccountToken": false })
    }

    /// A ConfigMap can only be mounted in its own namespace.
    fn roots(&self, roots: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": self.metadata(&roots_name(self.name)),
            "data": { "root.pem": roots } })
    }

    fn service(&self, name: &str, requested: Option<IpAddr>) -> Value {
        let wanted = self.plan.infrastructure.parameters.service.clone().unwrap_or_default();
        let mut metadata = self.metadata(name);
        if !wanted.annotations.is_empty() {
            let mut annotations = self.plan.infrastructure.annotations.clone();
            annotations.extend(wanted.annotations.clone());
            metadata.insert("annotations".into(), json!(annotations));
        }
        let spec = self.service_spec(&wanted, requested);
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })
    }

    fn service_spec(&self, wanted: &GatewayService, requested: Option<IpAddr>) -> Map<String, Value> {
        let kind = wanted.kind.unwrap_or_default();
        let mut spec = Map::new();
        spec.insert("type".into(), json!(kind.as_str()));
        spec.insert("selector".into(), json!(selector(self.plan)));
        spec.insert("ports".into(), self.ports());
        // One address that is asked for decides about the family.
        if requested.is_none() {
            spec.insert("ipFamilyPolicy".into(), json!("PreferDualStack"));
        }
        if kind == GatewayServiceType::LoadBalancer {
            if let Some(ip) = requested {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                spec.insert("loadBalancerIP".into(), json!(ip));
                spec.insert("ipFamilyPolicy".into(), json!("SingleStack"));
                spec.insert("ipFamilies".into(), json!([family]));
            }
            if let Some(class) = &wanted.load_balancer_class {
                spec.insert("loadBalancerClass".into(), json!(class));
            }
        }
        // The API server refuses it on a Service that nobody outside reaches.
        if kind != GatewayServiceType::ClusterIP
            && let Some(policy) = wanted.external_traffic_policy
        {
            spec.insert("externalTrafficPolicy".into(), json!(policy));
        }
        spec
    }

    /// The process listens on the very ports of the Gateway.
    fn ports(&self) -> Value {
        let port = |name: &str, port: u16, protocol: &str| json!({ "name": name, "port": port, "targetPort": port, "protocol": protocol });
        let ports = self.open().map(|(number, transport)| match transport {
            Transport::Tcp => port(&format!("tcp-{number}"), number.get(), "TCP"),
            Transport::Udp => port(&format!("udp-{number}"), number.get(), "UDP"),
        });
        let ports: Vec<_> = ports.collect();
        if ports.is_empty() { json!([port("no-listener", NO_LISTENER, "TCP")]) } else { json!(ports) }
    }

    /// The ports of listeners; the process's own must not be made reachable.
    fn open(&self) -> impl Iterator<Item = &(Port, Transport)> {
        self.plan.ports.iter().filter(|(number, _)| !RESERVED_PORTS.contains(&number.get()))
    }

    /// What is listened on may be reached by whoever may reach the Gateway, and nothing else but metrics, and taps by the
    /// controller. Who may send where is the routes' business, so that nothing is said of that unless somebody wants it to be
    /// allowed.
    fn network_policy(&self, settings: &PodSettings) -> Option<Value> {
        let wanted = self.plan.infrastructure.parameters.network_policy.clone().unwrap_or_default();
        wanted.enabled.unwrap_or(true).then_some(())?;
        let port = |port: u16, protocol: &str| json!({ "port": port, "protocol": protocol });
        let listened = self.open().map(|(number, transport)| match transport {
            Transport::Tcp => port(number.get(), "TCP"),
            Transport::Udp => port(number.get(), "UDP"),
        });
        let listened: Vec<_> = listened.collect();
        let mut metrics = Map::new();
        metrics.insert("ports".into(), json!([port(pods::STATUS, "TCP")]));
        if let Some(peers) = wanted.metrics_from.filter(|peers| peers.as_array().is_some_and(|all| !all.is_empty())) {
            metrics.insert("from".into(), peers);
        }
        let mesh = json!({ "matchLabels": { "kubernetes.io/metadata.name": settings.control_account.0 } });
        let controller = json!({ "matchLabels": { "app.kubernetes.io/name": "weft-controller" } });
        let taps = json!({
            "ports": [port(tap::PORT, "TCP"), port(pods::STATUS, "TCP")],
            "from": [{ "namespaceSelector": mesh, "podSelector": controller }],
        });
        let mut ingress = vec![Value::Object(metrics), taps];
        // A rule without ports would be one for all of them.
        if !listened.is_empty() {
            ingress.insert(0, json!({ "ports": listened }));
        }
        let mut spec = Map::new();
        spec.insert("podSelector".into(), json!({ "matchLabels": selector(self.plan) }));
        spec.insert("ingress".into(), json!(ingress));
        let sends = wanted.allow_egress.unwrap_or(false);
        spec.insert("policyTypes".into(), if sends { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        if sends {
            spec.insert("egress".into(), json!([{}]));
        }
        let metadata = self.metadata(self.name);
        Some(
            json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec }),
        )
    }

    fn disruption_budget(&self) -> Value {
        let spec = json!({
            "maxUnavailable": 1,
            // A pod that isn't ready protects nobody: it must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": { "matchLabels": selector(self.plan) },
        });
        json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": self.metadata(self.name), "spec": spec })
    }

    fn autoscaler(&self) -> Option<Value> {
        let wanted = self.plan.infrastructure.parameters.autoscaling.as_ref()?;
        let most = wanted.max_replicas;
        let cpu = json!({ "type": "Resource", "resource": { "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": wanted.cpu_utilization.unwrap_or(70) } } });
        let spec = json!({
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": self.name },
            "minReplicas": wanted.min_replicas.unwrap_or(pods::REPLICAS.min(most)),
            "maxReplicas": most,
            "metrics": [cpu],
        });
        let metadata = self.metadata(self.name);
        Some(
            json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec }),
        )
    }
}
