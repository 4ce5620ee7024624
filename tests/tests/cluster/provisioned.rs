//! What GatewayParameters make of a Gateway's objects, judged by a real API server and by the controllers behind it: the rungs below
//! compare what is asked for with what is applied, and nobody there fills in, refuses, counts or scales anything.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, TestNamespace, echo_service, eventually};

use crate::gateway::{LABEL, address, route};

/// The class of a test's own, and what serves Gateway `edge` of it.
const CLASS: &str = "t-parameters";
const DEPLOYMENT: &str = "deploy/edge-t-parameters";
const SERVICE: &str = "service/edge-t-parameters";

/// Objects of the cluster, which go with the value.
pub(crate) struct OfCluster<'a>(pub(crate) &'a Cluster, pub(crate) &'a [&'a str]);

impl Drop for OfCluster<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.k(&[&["delete", "--ignore-not-found", "--wait=false"], self.1].concat()) {
            eprintln!("objects of this test stay: {error:#}");
        }
    }
}

pub(crate) fn parameters(ns: &TestNamespace, name: &str, spec: &Value) -> Result<()> {
    let metadata = json!({ "name": name, "namespace": "@NS@" });
    let object = json!({ "apiVersion": "weftmesh.io/v1alpha1", "kind": "GatewayParameters", "metadata": metadata,
        "spec": spec });
    ns.apply(&object.to_string())
}

/// Gateway `edge`, with parameters of its own if it names some.
pub(crate) fn gateway(ns: &TestNamespace, class: &str, own: Option<&str>, listener: &Value) -> Result<()> {
    let mut spec = json!({ "gatewayClassName": class, "listeners": [listener] });
    if let Some(name) = own {
        let reference = json!({ "group": "weftmesh.io", "kind": "GatewayParameters", "name": name });
        spec["infrastructure"] = json!({ "parametersRef": reference });
    }
    let metadata = json!({ "name": "edge", "namespace": "@NS@" });
    let object = json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata,
        "spec": spec });
    ns.apply(&object.to_string())
}

pub(crate) fn http() -> Value {
    json!({ "name": "http", "port": 80, "protocol": "HTTP" })
}

/// Waits until an object has these values in these places (RFC 6901); null: nothing is there.
pub(crate) fn becomes(ns: &TestNamespace, object: &str, fields: &[(&str, Value)]) -> Result<()> {
    eventually(&format!("{object} to be as it should"), PATIENCE, || {
        let found = ns.cluster.json(&["-n", &ns.name, object])?;
        for (place, wanted) in fields {
            let is = found.pointer(place).unwrap_or(&Value::Null);
            ensure!(is == wanted, "{place} is {is} instead of {wanted}");
        }
        Ok(())
    })
}

/// The names of the Gateway's pods.
pub(crate) fn pods(ns: &TestNamespace) -> Result<String> {
    ns.cluster.k(&["-n", &ns.name, "get", "pods", "-o", "name", "-l", LABEL])
}

/// The Gateway's condition `Accepted`: status, reason and message.
fn accepted(ns: &TestNamespace) -> Result<(String, String, String)> {
    let gateway = ns.cluster.json(&["-n", &ns.name, "gateway/edge"])?;
    let conditions = gateway["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|it| it["type"] == "Accepted").context("no condition")?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("reason"), text("message")))
}

/// A class with parameters and limits; its Service has an annotation with this value.
fn class(ns: &TestNamespace, annotation: &str) -> Result<()> {
    let spec = json!({
        "replicas": 1,
        "minReadySeconds": 1,
        "resources": { "requests": { "cpu": "20m", "memory": "48Mi" }, "limits": { "memory": "512Mi" } },
        "service": { "type": "ClusterIP", "annotations": { "of-class": annotation } },
        "shutdown": { "lingerSeconds": 12, "drainSeconds": 8 },
        "podTemplate": { "labels": { "tier": "class" }, "annotations": { "note": "class" } },
        "limits": {
            "maxReplicas": 2, "serviceTypes": ["ClusterIP", "NodePort"],
            "fields": ["replicas", "resources", "service", "podTemplate.labels", "podTemplate.priorityClassName"],
        },
    });
    parameters(ns, "class", &spec)?;
    let metadata = json!({ "name": CLASS });
    let reference =
        json!({ "group": "weftmesh.io", "kind": "GatewayParameters", "namespace": "@NS@", "name": "class" });
    let spec = json!({ "controllerName": "weftmesh.io/gateway-controller", "parametersRef": reference });
    let class = json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": metadata,
        "spec": spec });
    ns.apply(&class.to_string())?;
    let priority = json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata,
        "value": 1000, "preemptionPolicy": "Never" });
    ns.apply(&priority.to_string())
}

/// Waits until what serves the Gateway is what its class says and nothing else; the annotation's value is this.
fn is_of_class(ns: &TestNamespace, annotation: &str) -> Result<()> {
    let resources = json!({ "requests": { "cpu": "20m", "memory": "48Mi" }, "limits": { "memory": "512Mi" } });
    becomes(
        ns,
        DEPLOYMENT,
        &[
            ("/spec/replicas", json!(1)),
            ("/spec/minReadySeconds", json!(1)),
            ("/spec/template/metadata/labels/tier", json!("class")),
            ("/spec/template/metadata/annotations/note", json!("class")),
            ("/spec/template/spec/priorityClassName", Value::Null),
            // As long as both of `shutdown`, and ten seconds more.
            ("/spec/template/spec/terminationGracePeriodSeconds", json!(30)),
            ("/spec/template/spec/containers/0/resources", resources),
        ],
    )?;
    becomes(
        ns,
        SERVICE,
        &[
            ("/spec/type", json!("ClusterIP")),
            ("/spec/externalTrafficPolicy", Value::Null),
            ("/spec/ports/0/nodePort", Value::Null),
            ("/metadata/annotations/of-class", json!(annotation)),
            ("/metadata/annotations/of-gateway", Value::Null),
        ],
    )?;
    ns.cluster.wait_rollout(&ns.name, DEPLOYMENT)
}

/// What the Gateway asks for by itself.
fn usual() -> (&'static str, &'static str, Value) {
    ("", "replicas", json!(2))
}

/// The Gateway's own parameters, the usual ones but for one field of an object in them.
fn own(ns: &TestNamespace, (place, field, value): (&str, &str, Value)) -> Result<()> {
    let mut spec = json!({
        "replicas": 2,
        "resources": { "requests": { "cpu": "30m" } },
        "service": { "type": "NodePort", "externalTrafficPolicy": "Local", "annotations": { "of-gateway": "1" } },
        "podTemplate": { "labels": { "tier": "gateway" }, "priorityClassName": CLASS },
    });
    spec.pointer_mut(place).context("no such place")?[field] = value;
    parameters(ns, "own", &spec)
}

/// Waits until what serves the Gateway is what it asks for by itself, over what its class says.
fn is_of_gateway(ns: &TestNamespace) -> Result<()> {
    becomes(
        ns,
        DEPLOYMENT,
        &[
            ("/spec/replicas", json!(2)),
            ("/spec/minReadySeconds", json!(1)),
            ("/spec/template/metadata/labels/tier", json!("gateway")),
            ("/spec/template/metadata/annotations/note", json!("class")),
            ("/spec/template/spec/priorityClassName", json!(CLASS)),
            // Of what can't be merged nothing of the class's is left.
            ("/spec/template/spec/containers/0/resources", json!({ "requests": { "cpu": "30m" } })),
        ],
    )?;
    becomes(
        ns,
        SERVICE,
        &[
            ("/spec/type", json!("NodePort")),
            ("/spec/externalTrafficPolicy", json!("Local")),
            ("/metadata/annotations/of-class", json!("2")),
            ("/metadata/annotations/of-gateway", json!("1")),
        ],
    )?;
    ns.cluster.wait_rollout(&ns.name, DEPLOYMENT)?;
    let pods = ns.cluster.json(&["-n", &ns.name, "pods", "-l", &format!("{LABEL},tier=gateway")])?;
    let pods = pods["items"].as_array().context("no pods")?;
    ensure!(pods.len() == 2 && pods.iter().all(|pod| pod["spec"]["priority"] == 1000), "{pods:?}");
    Ok(())
}

/// What goes further than the class allows is named in the Gateway's status, and nothing of it is done.
fn stays_within_limits(ns: &TestNamespace) -> Result<()> {
    let generation =
        || -> Result<Value> { Ok(ns.cluster.json(&["-n", &ns.name, DEPLOYMENT])?["metadata"]["generation"].clone()) };
    let before = generation()?;
    for (asked, told) in [
        (("", "replicas", json!(3)), "spec.replicas is 3, and class t-parameters allows 2 at most"),
        (("/service", "type", json!("LoadBalancer")), "spec.service.type is LoadBalancer"),
        (("/podTemplate", "nodeSelector", json!({ "pool": "none" })), "spec.podTemplate.nodeSelector is set"),
    ] {
        own(ns, asked)?;
        eventually(told, PATIENCE, || {
            let (status, reason, message) = accepted(ns)?;
            let is_told = status == "False" && reason == "InvalidParameters" && message.contains(told);
            ensure!(is_told, "{status} {reason}: {message}");
            Ok(())
        })?;
    }
    own(ns, usual())?;
    eventually("the Gateway to be accepted again", PATIENCE, || {
        let (status, reason, message) = accepted(ns)?;
        ensure!(status == "True", "{reason}: {message}");
        Ok(())
    })?;
    ensure!(generation()? == before, "something of it was done");
    is_of_gateway(ns)
}

#[test]
#[ignore = "needs a cluster"]
fn parameters_of_a_class_and_of_a_gateway_shape_its_objects_and_their_changes_cost_no_request() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-parameters", true)?;
    let outside = cluster.namespace("t-parameters-out", false)?;
    let _classes = OfCluster(&cluster, &["gatewayclass/t-parameters", "priorityclass/t-parameters"]);
    class(&ns, "1")?;
    gateway(&ns, CLASS, None, &http())?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server")])?;
    outside.run(&[Echo::new("client")])?;
    route(&ns, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    let url = format!("http://{}/", address(&ns)?);
    eventually("the route to be live", PATIENCE, || outside.served("client", &url, 20))?;
    is_of_class(&ns, "1")?;
    class(&ns, "2")?;
    is_of_class(&ns, "2")?;

    own(&ns, usual())?;
    gateway(&ns, CLASS, Some("own"), &http())?;
    is_of_gateway(&ns)?;
    stays_within_limits(&ns)?;
    outside.served("client", &url, 20)?;

    // Other pods, then the class's own again, of which there is one, behind a Service of another type.
    let load = outside.load(&url, 3000, 50, None)?;
    own(&ns, ("/podTemplate/labels", "tier", json!("changed")))?;
    becomes(&ns, DEPLOYMENT, &[("/spec/template/metadata/labels/tier", json!("changed"))])?;
    cluster.wait_rollout(&ns.name, DEPLOYMENT)?;
    gateway(&ns, CLASS, None, &http())?;
    is_of_class(&ns, "2")?;
    load.goes_on()?;
    load.all_answered()
}

/// Waits until the cluster counts what a PodDisruptionBudget leaves of so many pods.
fn spares_one(ns: &TestNamespace, pods: u32) -> Result<()> {
    becomes(
        ns,
        "poddisruptionbudget/edge-weft",
        &[
            ("/spec/maxUnavailable", json!(1)),
            ("/spec/unhealthyPodEvictionPolicy", json!("AlwaysAllow")),
            ("/status/expectedPods", json!(pods)),
            ("/status/currentHealthy", json!(pods)),
            ("/status/desiredHealthy", json!(pods - 1)),
            ("/status/disruptionsAllowed", json!(1)),
        ],
    )
}

/// Whether the number of pods is the controller's word.
fn is_fixed(deployment: &Value) -> bool {
    let fields = deployment["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut ours = fields.filter(|it| it["manager"] == "weft-gateways");
    ours.any(|it| it.pointer("/fieldsV1/f:spec/f:replicas").is_some())
}

/// There are no metrics here, so that the autoscaler knows its bounds alone; within them a person scales in its place.
#[test]
#[ignore = "needs a cluster"]
fn with_an_autoscaler_the_number_of_pods_is_its_business_alone() -> Result<()> {
    const DEPLOYMENT: &str = "deploy/edge-weft";
    const AUTOSCALER: &str = "horizontalpodautoscalers.v2.autoscaling/edge-weft";
    let ns = Cluster::open()?.namespace("t-autoscaler", false)?;
    let k = |args: &[&str]| ns.cluster.k(&[&["-n", &ns.name], args].concat());
    let service = json!({ "type": "ClusterIP" });
    parameters(&ns, "own", &json!({ "replicas": 4, "service": service }))?;
    gateway(&ns, "weft", Some("own"), &http())?;
    address(&ns)?;
    ns.cluster.wait_rollout(&ns.name, DEPLOYMENT)?;
    spares_one(&ns, 4)?;
    let before = pods(&ns)?;

    let scaling = json!({ "minReplicas": 3, "maxReplicas": 5, "cpuUtilization": 60 });
    parameters(&ns, "own", &json!({ "autoscaling": scaling, "service": service }))?;
    let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "edge-weft" });
    becomes(
        &ns,
        AUTOSCALER,
        &[
            ("/spec/scaleTargetRef", target),
            ("/spec/minReplicas", json!(3)),
            ("/spec/maxReplicas", json!(5)),
            ("/spec/metrics/0/resource/name", json!("cpu")),
            ("/spec/metrics/0/resource/target/averageUtilization", json!(60)),
        ],
    )?;
    eventually("the number of pods to be nobody's word", PATIENCE, || {
        let deployment = ns.cluster.json(&["-n", &ns.name, DEPLOYMENT, "--show-managed-fields"])?;
        ensure!(!is_fixed(&deployment), "{}", deployment["metadata"]["managedFields"]);
        Ok(())
    })?;
    becomes(&ns, DEPLOYMENT, &[("/spec/replicas", json!(4))])?;
    ensure!(pods(&ns)? == before, "the number of pods was another one for a while");

    // What is put right of the Deployment is what somebody changed, and not their number.
    k(&["scale", DEPLOYMENT, "--replicas=3"])?;
    let surge = r#"{"spec": {"strategy": {"rollingUpdate": {"maxSurge": "50%"}}}}"#;
    k(&["patch", DEPLOYMENT, "--type=merge", "-p", surge])?;
    becomes(&ns, DEPLOYMENT, &[("/spec/strategy/rollingUpdate/maxSurge", json!("25%")), ("/spec/replicas", json!(3))])?;
    spares_one(&ns, 3)?;

    // Below its bound the autoscaler, which looks every fifteen seconds, puts it right by itself.
    k(&["scale", DEPLOYMENT, "--replicas=1"])?;
    eventually("the autoscaler to find the Deployment", PATIENCE, || {
        let scaled = ns.cluster.json(&["-n", &ns.name, AUTOSCALER])?["status"]["lastScaleTime"].is_string();
        ensure!(scaled, "{}", k(&["describe", AUTOSCALER])?);
        Ok(())
    })?;
    becomes(&ns, DEPLOYMENT, &[("/spec/replicas", json!(3))])?;

    parameters(&ns, "own", &json!({ "replicas": 2, "service": service }))?;
    becomes(&ns, DEPLOYMENT, &[("/spec/replicas", json!(2))])?;
    eventually("the autoscaler to go", PATIENCE, || {
        let left = k(&["get", AUTOSCALER, "--ignore-not-found", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    spares_one(&ns, 2)
}
