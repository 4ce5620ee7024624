//! The Deployment of a Gateway. Nothing in it depends on listeners, so that no edit of one restarts a pod.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use serde_json::{Map, Value, json};
use weft_core::gateway::object_name;
use weft_k8s::object::ENROLMENT_LABEL;
use weft_k8s::translate::gateway::GatewayPlan;

use super::objects::{labels, roots_name, selector};
use super::settings::PodSettings;

/// How many pods, unless somebody says otherwise.
pub const REPLICAS: i32 = 2;
/// What a pod requests of a processor, unless somebody says otherwise.
const CPU: &str = "50m";
/// How long a pod that is told to end goes on to accept, and how long open connections may go on after that, unless somebody
/// says otherwise; in seconds.
const SHUTDOWN: (i32, i32) = (10, 25);
/// For the rest of the end, in seconds.
const REST: i32 = 10;
/// How long a rollout may get no further before it counts as failed, in seconds, as is usual.
const PROGRESS: i32 = 600;
/// The user of the process.
const USER: u32 = 65532;
/// Where it answers probes and Prometheus.
pub const STATUS: u16 = 15021;
const CONTAINER: &str = "weft-gateway";

/// The Deployment; `metadata` is what all objects of the Gateway have.
pub fn deployment(plan: &GatewayPlan, settings: &PodSettings, metadata: Map<String, Value>) -> Value {
    let parameters = &plan.infrastructure.parameters;
    let mut spec = Map::new();
    // With an autoscaler the number is its business alone.
    if parameters.autoscaling.is_none() {
        spec.insert("replicas".into(), json!(parameters.replicas.unwrap_or(REPLICAS)));
    }
    spec.insert("selector".into(), json!({ "matchLabels": selector(plan) }));
    if let Some(seconds) = parameters.min_ready_seconds.filter(|seconds| *seconds > 0) {
        spec.insert("minReadySeconds".into(), json!(seconds));
        // It has to be longer than that.
        spec.insert("progressDeadlineSeconds".into(), json!(seconds.saturating_add(PROGRESS)));
    }
    // A new pod serves before an old one ends.
    let rolling = json!({ "maxSurge": "25%", "maxUnavailable": 0 });
    spec.insert("strategy".into(), json!({ "type": "RollingUpdate", "rollingUpdate": rolling }));
    spec.insert("template".into(), json!({ "metadata": pod_metadata(plan), "spec": pod_spec(plan, settings) }));
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec })
}

fn pod_metadata(plan: &GatewayPlan) -> Value {
    let template = plan.infrastructure.parameters.pod_template.clone().unwrap_or_default();
    let mut all = template.labels;
    all.extend(labels(plan));
    // What comes out of it is in the mesh by itself; nothing that goes in or out may be redirected.
    all.insert(ENROLMENT_LABEL.to_owned(), "disabled".to_owned());
    let port = STATUS.to_string();
    let scraped = [("scrape", "true"), ("port", port.as_str()), ("path", "/metrics")];
    let scraped = scraped.map(|(name, value)| (format!("prometheus.io/{name}"), value.to_owned()));
    let mut annotations: BTreeMap<_, _> = scraped.into();
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), CONTAINER.to_owned());
    annotations.extend(plan.infrastructure.annotations.clone());
    annotations.extend(template.annotations);
    json!({ "labels": all, "annotations": annotations })
}

fn pod_spec(plan: &GatewayPlan, settings: &PodSettings) -> Map<String, Value> {
    let name = object_name(plan.key.name.as_str(), &plan.class);
    let template = plan.infrastructure.parameters.pod_template.clone().unwrap_or_default();
    let mut spec = Map::new();
    let mut set = |field: &str, value: Value| spec.insert(field.to_owned(), value);
    set("serviceAccountName", json!(name));
    set("automountServiceAccountToken", json!(false));
    // Variables with the addresses of all Services of the namespace: nobody reads them.
    set("enableServiceLinks", json!(false));
    let (linger, drain) = shutdown(plan);
    set("terminationGracePeriodSeconds", json!(linger.saturating_add(drain).saturating_add(REST)));
    let context = json!({
        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "seccompProfile": { "type": "RuntimeDefault" },
        // Ports below 1024 without a right for them; of the namespace of the pod only, and safe in Kubernetes' own list.
        "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }],
    });
    set("securityContext", context);
    set("topologySpreadConstraints", spread(plan, template.topology_spread_constraints));
    if let Some(class) = template.priority_class_name.filter(|class| !class.is_empty()) {
        set("priorityClassName", json!(class));
    }
    let mut nodes = template.node_selector;
    nodes.entry("kubernetes.io/os".to_owned()).or_insert_with(|| "linux".to_owned());
    set("nodeSelector", json!(nodes));
    if let Some(tolerations) = template.tolerations {
        set("tolerations", tolerations);
    }
    if let Some(affinity) = template.affinity {
        set("affinity", affinity);
    }
    let own = template.image_pull_secrets.into_iter().flatten().map(|secret| secret.name);
    // Each once, or the API server refuses them; in this order, in which they are tried.
    let secrets: IndexSet<_> = settings.pull_secrets.iter().cloned().chain(own).collect();
    if !secrets.is_empty() {
        set("imagePullSecrets", secrets.into_iter().map(|name| json!({ "name": name })).collect());
    }
    set("containers", json!([container(plan, settings, &name)]));
    let token = json!({ "serviceAccountToken": { "path": "weft", "audience": settings.token_audience, "expirationSeconds": 3600 } });
    // Not optional: nothing starts that couldn't know whom to trust.
    let roots = json!({ "name": "trust", "configMap": { "name": roots_name(&name) } });
    set("volumes", json!([{ "name": "token", "projected": { "sources": [token] } }, roots]));
    spec
}

/// How the pods are spread: as somebody says, or evenly over nodes and zones as far as that goes.
fn spread(plan: &GatewayPlan, wanted: Option<Value>) -> Value {
    let own = json!({ "matchLabels": selector(plan) });
    let even = |key: &str| {
        json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": own,
            "matchLabelKeys": ["pod-template-hash"] })
    };
    let Some(Value::Array(mut wanted)) = wanted else {
        return json!([even("kubernetes.io/hostname"), even("topology.kubernetes.io/zone")]);
    };
    for constraint in wanted.iter_mut().filter_map(Value::as_object_mut) {
        // Without one Kubernetes counts no pods, and a class can't say the labels of its Gateways.
        let counted = constraint.entry("labelSelector").or_insert(Value::Null);
        if counted.is_null() {
            *counted = own.clone();
        }
    }
    Value::Array(wanted)
}

fn container(plan: &GatewayPlan, settings: &PodSettings, name: &str) -> Map<String, Value> {
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let probe = |path: &str| json!({ "path": path, "port": "http-status" });
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let mut container = Map::new();
    let mut set = |field: &str, value: Value| container.insert(field.to_owned(), value);
    set("name", json!(CONTAINER));
    set("image", json!(settings.image));
    if !settings.pull_policy.is_empty() {
        set("imagePullPolicy", json!(settings.pull_policy));
    }
    set("args", json!(arguments(plan, settings, name)));
    set(
        "env",
        json!([
            field("WEFT_POD_NAME", "metadata.name"),
            field("WEFT_NODE_NAME", "spec.nodeName"),
            { "name": "WEFT_LOG", "value": settings.log },
            // Of the allocator: with huge pages a process at rest has a third more memory than it needs.
            { "name": "MIMALLOC_ALLOW_THP", "value": "0" },
        ]),
    );
    // Those of listeners aren't named, and need not be.
    set("ports", json!([{ "name": "http-status", "containerPort": STATUS, "protocol": "TCP" }]));
    set("readinessProbe", json!({ "httpGet": probe("/readyz"), "periodSeconds": 2 }));
    set("livenessProbe", json!({ "httpGet": probe("/healthz"), "periodSeconds": 10, "failureThreshold": 6 }));
    set("resources", resources(plan));
    set(
        "securityContext",
        json!({ "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] } }),
    );
    set("volumeMounts", json!([mount("token", "/var/run/secrets/tokens"), mount("trust", "/var/run/secrets/weft")]));
    container
}

fn resources(plan: &GatewayPlan) -> Value {
    let parameters = &plan.infrastructure.parameters;
    let Some(mut wanted) = parameters.resources.clone() else {
        // It sizes itself by the limit. No CPU limit: a proxy that is throttled delays everybody behind it.
        return json!({ "requests": { "cpu": CPU, "memory": "64Mi" }, "limits": { "memory": "1Gi" } });
    };
    let has_cpu = ["/requests/cpu", "/limits/cpu"].iter().any(|place| wanted.pointer(place).is_some());
    // An autoscaler counts in shares of what is requested; without, it would never scale.
    if parameters.autoscaling.is_some() && !has_cpu {
        let requests = wanted.as_object_mut().map(|all| all.entry("requests").or_insert_with(|| json!({})));
        if let Some(requests) = requests.and_then(Value::as_object_mut) {
            requests.insert("cpu".into(), json!(CPU));
        }
    }
    wanted
}

/// How long a pod that is told to end goes on to accept, and its connections after that, in seconds.
fn shutdown(plan: &GatewayPlan) -> (i32, i32) {
    let wanted = plan.infrastructure.parameters.shutdown.unwrap_or_default();
    (wanted.linger_seconds.unwrap_or(SHUTDOWN.0).max(0), wanted.drain_seconds.unwrap_or(SHUTDOWN.1).max(0))
}

fn arguments(plan: &GatewayPlan, settings: &PodSettings, name: &str) -> Vec<String> {
    let account = |(namespace, account): &super::super::settings::Account| format!("{namespace}/{account}");
    let (linger, drain) = shutdown(plan);
    let mut arguments = vec![
        "gateway".to_owned(),
        format!("--gateway={}", plan.key),
        format!("--service-account={name}"),
        format!("--control={}", settings.control),
        format!("--control-account={}", account(&settings.control_account)),
        format!("--ca={}", settings.ca),
        format!("--ca-account={}", account(&settings.ca_account)),
        format!("--trust-domain={}", settings.trust_domain),
        format!("--status-listen=[::]:{STATUS}"),
        format!("--tap-listen=[::]:{}", weft_core::tap::PORT),
        format!("--linger={linger}s"),
        format!("--drain-deadline={drain}s"),
    ];
    arguments.extend(settings.trust_domain_aliases.iter().map(|alias| format!("--trust-domain-alias={alias}")));
    arguments.extend(settings.arguments.iter().cloned());
    arguments
}
