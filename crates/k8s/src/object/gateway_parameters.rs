//! `GatewayParameters`, `weftmesh.io/v1alpha1`: what the objects of a Gateway are like in a cluster.
#![allow(missing_docs, reason = "kube's derive makes the root type; its spec is documented")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GatewayClientAddress, GatewayLimits, GatewayRequestId};

/// What the pods and the Service of a Gateway are like.
///
/// A GatewayClass refers to one for all its Gateways (`spec.parametersRef`, with a namespace), a Gateway to one of its own
/// namespace (`spec.infrastructure.parametersRef`). What the Gateway's gives wins over what the class's gives.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(group = "weftmesh.io", version = "v1alpha1", kind = "GatewayParameters", plural = "gatewayparameters")]
#[kube(namespaced, shortname = "gwparams", category = "weft")]
#[kube(doc = "What the pods and the Service of a Gateway are like.", derive = "PartialEq", derive = "Default")]
#[kube(printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".spec.replicas"}"#)]
#[kube(printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.service.type"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct GatewayParametersSpec {
    /// How many pods; 2 if left out. With autoscaling it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// How the number of pods follows the load; left out, it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<GatewayAutoscaling>,
    /// What a pod may use (`resources` of a container).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources_schema")]
    pub resources: Option<Value>,
    /// Whether HTTPS listeners speak HTTP/3, too, on the UDP ports of the same numbers; they don't if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http3: Option<bool>,
    /// Whose word is taken for who clients are; of nobody if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<GatewayClientAddress>,
    /// Ids of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<GatewayRequestId>,
    /// The Service that clients reach the Gateway by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<GatewayService>,
    /// How long a pod that is told to end goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<GatewayShutdown>,
    /// How long a new pod has to be ready before an old one ends, in seconds; 0 if left out. As long as load balancers take to send
    /// to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: Option<i32>,
    /// What is added to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<GatewayPodTemplate>,
    /// Who may reach the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<GatewayNetworkPolicy>,
    /// How far Gateways of the class may go with parameters of their own. For those that a GatewayClass refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<GatewayLimits>,
}

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas", "minReplicas must not be more than maxReplicas"))]
pub struct GatewayAutoscaling {
    /// Fewest pods; 2 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// How much of the CPU that they ask for the pods should use on average, in percent; 70 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub cpu_utilization: Option<i32>,
}

/// How clients reach the Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayService {
    /// LoadBalancer, NodePort or ClusterIP; LoadBalancer if left out. The last two have addresses of the cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<GatewayServiceType>,
    /// Which load balancer is to serve it (`spec.loadBalancerClass`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// Cluster or Local. With Local, pods see the addresses of clients, and nodes without a pod get no traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Annotations of the Service only, for whoever makes load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Types of Services that a Gateway can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayServiceType {
    /// With an address from a load balancer.
    #[default]
    LoadBalancer,
    /// With a port of every node; its address is that of the cluster.
    NodePort,
    /// With an address of the cluster.
    ClusterIP,
}

impl GatewayServiceType {
    /// As a Service has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIP => "ClusterIP",
        }
    }
}

/// `spec.externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalTrafficPolicy {
    /// Every node takes traffic and passes it on to some pod.
    Cluster,
    /// Every node passes traffic on to its own pods only.
    Local,
}

/// How long a pod that is told to end goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayShutdown {
    /// How long it accepts new connections, in seconds; 10 if left out. As long as load balancers take to leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub linger_seconds: Option<i32>,
    /// How long connections that are open may go on after that, in seconds; 25 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub drain_seconds: Option<i32>,
}

/// The NetworkPolicy of the pods: whoever may reach the listeners' ports, and nobody any other port but that of metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayNetworkPolicy {
    /// Whether there is one; true if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Who may read metrics (port 15021), as NetworkPolicyPeers; everybody if left out or empty. The kubelet's probes pass in
    /// any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "peers_schema")]
    pub metrics_from: Option<Value>,
    /// Whether the pods may send to anywhere, which a policy of the namespace that denies it would else forbid: a Gateway sends
    /// to wherever its routes do. False if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_egress: Option<bool>,
}

/// What is added to the pods of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPodTemplate {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the nodes that they may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they tolerate (`tolerations` of a pod).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerations_schema")]
    pub tolerations: Option<Value>,
    /// Which nodes and which neighbours they prefer or need (`affinity` of a pod).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "affinity_schema")]
    pub affinity: Option<Value>,
    /// How they are spread (`topologySpreadConstraints` of a pod), in place of evenly over nodes and zones as far as it goes; a constraint
    /// without labelSelector counts the Gateway's pods. Not at all if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "spread_schema")]
    pub topology_spread_constraints: Option<Value>,
    /// Their PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets of the Gateway's namespace for pulling the image, besides those that the chart names for all Gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Option<Vec<GatewayPullSecret>>,
}

/// A Secret for pulling images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPullSecret {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl GatewayParametersSpec {
    /// What holds if `self` is of a Gateway and `class` of its class: what the Gateway gives, else what the class gives.
    /// Of maps, each key by itself.
    #[must_use]
    pub fn over(&self, class: &Self) -> Self {
        let (own, of_class) = (self.clone(), class.clone());
        Self {
            replicas: own.replicas.or(of_class.replicas),
            autoscaling: own.autoscaling.or(of_class.autoscaling),
            resources: own.resources.or(of_class.resources),
            http3: own.http3.or(of_class.http3),
            client_address: both(own.client_address, of_class.client_address, GatewayClientAddress::over),
            request_id: both(own.request_id, of_class.request_id, |own, class| GatewayRequestId {
                in_responses: own.in_responses.or(class.in_responses),
            }),
            service: both(own.service, of_class.service, |own, class| GatewayService {
                kind: own.kind.or(class.kind),
                load_balancer_class: own.load_balancer_class.or(class.load_balancer_class),
                external_traffic_policy: own.external_traffic_policy.or(class.external_traffic_policy),
                annotations: merged(class.annotations, own.annotations),
            }),
            shutdown: both(own.shutdown, of_class.shutdown, |own, class| GatewayShutdown {
                linger_seconds: own.linger_seconds.or(class.linger_seconds),
                drain_seconds: own.drain_seconds.or(class.drain_seconds),
            }),
            min_ready_seconds: own.min_ready_seconds.or(of_class.min_ready_seconds),
            pod_template: both(own.pod_template, of_class.pod_template, |own, class| GatewayPodTemplate {
                labels: merged(class.labels, own.labels),
                annotations: merged(class.annotations, own.annotations),
                node_selector: merged(class.node_selector, own.node_selector),
                tolerations: own.tolerations.or(class.tolerations),
                affinity: own.affinity.or(class.affinity),
                topology_spread_constraints: own.topology_spread_constraints.or(class.topology_spread_constraints),
                priority_class_name: own.priority_class_name.or(class.priority_class_name),
                image_pull_secrets: own.image_pull_secrets.or(class.image_pull_secrets),
            }),
            network_policy: both(own.network_policy, of_class.network_policy, |own, class| GatewayNetworkPolicy {
                enabled: own.enabled.or(class.enabled),
                metrics_from: own.metrics_from.or(class.metrics_from),
                allow_egress: own.allow_egress.or(class.allow_egress),
            }),
            limits: of_class.limits,
        }
    }
}

fn both<T>(own: Option<T>, class: Option<T>, merge: impl FnOnce(T, T) -> T) -> Option<T> {
    match (own, class) {
        (Some(own), Some(class)) => Some(merge(own, class)),
        (own, class) => own.or(class),
    }
}

fn merged(mut under: BTreeMap<String, String>, over: BTreeMap<String, String>) -> BTreeMap<String, String> {
    under.extend(over);
    under
}

/// What the API server checks where it ends up: here it would only be copied, and age.
fn as_in_a_pod(kind: &str, description: &str) -> schemars::Schema {
    schemars::json_schema!({
        "description": description, "type": kind, "nullable": true, "x-kubernetes-preserve-unknown-fields": true
    })
}

fn resources_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    as_in_a_pod("object", "What a pod may use (`resources` of a container).")
}

fn affinity_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    as_in_a_pod("object", "Which nodes and which neighbours they prefer or need (`affinity` of a pod).")
}

/// As [`as_in_a_pod`], of a list.
fn all_as_in_a_pod(description: &str) -> schemars::Schema {
    schemars::json_schema!({
        "description": description,
        "type": "array",
        "nullable": true,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

fn peers_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    all_as_in_a_pod(
        "Who may read metrics (port 15021), as NetworkPolicyPeers; everybody if left out or empty. The kubelet's \
            probes pass in any case.",
    )
}

fn tolerations_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    all_as_in_a_pod("Taints that they tolerate (`tolerations` of a pod).")
}

fn spread_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    all_as_in_a_pod(
        "How they are spread (`topologySpreadConstraints` of a pod), in place of evenly over nodes and zones as far as \
            it goes; a constraint without labelSelector counts the Gateway's pods. Not at all if empty.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: Value) -> GatewayParametersSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_the_gateway_gives_wins_over_its_class_field_by_field() {
        let class = spec(json!({
            "replicas": 3, "resources": { "limits": { "memory": "1Gi" } },
            "service": { "type": "ClusterIP", "externalTrafficPolicy": "Local", "annotations": { "a": "class", "b": "class" } },
            "podTemplate": { "nodeSelector": { "pool": "edge" }, "tolerations": [{ "operator": "Exists" }],
                "priorityClassName": "class", "imagePullSecrets": [{ "name": "class" }] },
            "shutdown": { "lingerSeconds": 60, "drainSeconds": 60 }, "minReadySeconds": 10
        }));
        let own = spec(json!({
            "replicas": 5, "service": { "type": "LoadBalancer", "annotations": { "a": "own" } }, "podTemplate": { "labels": { "l": "own" },
                "priorityClassName": "own", "topologySpreadConstraints": [] },
            "shutdown": { "lingerSeconds": 0 }
        }));
        let expected = spec(json!({
            "replicas": 5, "resources": { "limits": { "memory": "1Gi" } },
            "service": { "type": "LoadBalancer", "externalTrafficPolicy": "Local", "annotations": { "a": "own", "b": "class" } },
            "podTemplate": { "labels": { "l": "own" }, "nodeSelector": { "pool": "edge" }, "tolerations": [{ "operator": "Exists" }],
                "priorityClassName": "own", "topologySpreadConstraints": [], "imagePullSecrets": [{ "name": "class" }] },
            "shutdown": { "lingerSeconds": 0, "drainSeconds": 60 }, "minReadySeconds": 10
        }));
        assert_eq!(own.over(&class), expected);
        assert_eq!(own.over(&GatewayParametersSpec::default()), own);
        assert_eq!(GatewayParametersSpec::default().over(&class), class);
    }
}
