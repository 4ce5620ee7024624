//! Kinds that nothing is made of, and the labels by which namespaces and pods are in Istio.

use serde_json::{Value, json};

use super::super::report::{Level, Report};
use super::context::Context;
use super::input::{Labels, Workload};

/// Kinds that are translated elsewhere.
const TRANSLATED: [(&str, &str); 4] = [
    ("networking.istio.io", "DestinationRule"),
    ("networking.istio.io", "VirtualService"),
    ("security.istio.io", "AuthorizationPolicy"),
    ("security.istio.io", "PeerAuthentication"),
];

/// Kinds that nothing is made of: why, and what to do.
const UNTRANSLATED: &[(&str, &str, &str)] = &[
    (
        "EnvoyFilter",
        "there is no Envoy to configure; if it protects something, that protection is gone",
        "look what it does, and whether a route, a policy or the application can",
    ),
    (
        "Gateway",
        "gateways of Istio's stay there",
        "write a Gateway, beside the old one, and move its hosts by DNS (docs/migrate.md, from step 2 on)",
    ),
    ("ProxyConfig", "there is no proxy of a pod's own to configure", ""),
    (
        "RequestAuthentication",
        "tokens of requests (JWT) are not checked: what they protect has to be protected otherwise",
        "let the application or a Gateway's ExternalAuth check them, before the namespace leaves Istio",
    ),
    (
        "ServiceEntry",
        "hosts outside are reached without being named; REGISTRY_ONLY has no counterpart",
        "where others must not be reached, write a NetworkPolicy for egress; for routes at a Gateway, an XBackend",
    ),
    (
        "Sidecar",
        "no configuration is cut to what a pod needs; where it keeps pods from reaching others, nothing does any more",
        "write a NetworkPolicy for egress, or AuthorizationPolicies at the destinations",
    ),
    (
        "Telemetry",
        "access logs and traces are set elsewhere",
        "write a TelemetryPolicy (docs/telemetry.md, docs/access-log.md); metrics have no settings",
    ),
    (
        "WasmPlugin",
        "proxies run no code of others; if it protects something, that protection is gone",
        "let the application do it, or a Gateway's ExternalAuth",
    ),
    ("WorkloadEntry", "machines outside the cluster are not in this mesh", "leave them in Istio"),
    ("WorkloadGroup", "machines outside the cluster are not in this mesh", "leave them in Istio"),
];

/// Names every object of a kind that nothing is made of.
pub fn report_kinds(context: &Context<'_>, report: &mut Report) {
    for source in &context.inputs.objects {
        if TRANSLATED.contains(&(source.group.as_str(), source.kind.as_str())) {
            continue;
        }
        let known = UNTRANSLATED.iter().find(|(kind, ..)| *kind == source.kind);
        let (_, why, remedy) = known.copied().unwrap_or((
            "",
            "is of a kind that is not known here",
            "look what it does, and whether something here does it",
        ));
        let level = if remedy.is_empty() { Level::Unneeded } else { Level::LeftOut };
        let at = format!("the {}", source.kind);
        report.say(level, (&source.label(), &at, ""), why, remedy);
    }
}

/// Whether labels ask for Istio; `None`: they say nothing.
fn asks(labels: &Labels) -> Option<(&str, &str, bool)> {
    let get = |key: &'static str| labels.get(key).map(|value| (key, value.as_str()));
    let injection = get("istio-injection").map(|(key, value)| (key, value, value == "enabled"));
    let revision = get("istio.io/rev").map(|(key, value)| (key, value, true));
    let ambient = get("istio.io/dataplane-mode").map(|(key, value)| (key, value, value == "ambient"));
    // One that is in Istio by any of them is.
    let all = || [injection, revision, ambient].into_iter().flatten();
    all().find(|(.., asks)| *asks).or_else(|| all().next())
}

/// Namespaces that are in Istio, with the label that puts them into Weft.
pub fn namespaces(context: &Context<'_>, report: &mut Report) -> Vec<Value> {
    let mut made = Vec::new();
    for (name, labels) in &context.inputs.namespaces {
        let Some((key, value, asks)) = asks(labels) else { continue };
        let label = format!("Namespace {name}");
        if *name == context.options.root || *name == context.options.mesh {
            report.say(Level::Unneeded, (&label, key, value), "is the namespace of a mesh itself", "");
        } else if asks {
            report.say(Level::Translated, (&label, key, value), "label weftmesh.io/mesh: enabled", "");
            made.push(json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": name, "labels": { "weftmesh.io/mesh": "enabled" } } }));
        } else {
            report.say(Level::Unneeded, (&label, key, value), "its pods are in neither mesh", "");
        }
    }
    made
}

/// Names what pods' own labels and annotations say to Istio.
pub fn workloads(context: &Context<'_>, report: &mut Report) {
    for workload in &context.inputs.workloads {
        enrolment(workload, context, report);
        for (key, value) in &workload.annotations {
            annotation(workload, (key, value), report);
        }
    }
    for ((namespace, name), service) in &context.inputs.services {
        let annotations = service.metadata.annotations.iter().flatten();
        for (key, value) in annotations.filter(|(key, _)| is_of_istio(key)) {
            let label = format!("Service {namespace}/{name}");
            let why = "is read by Istio only";
            report.say(Level::LeftOut, (&label, key, value), why, "see whether the Service needs what it says");
        }
    }
}

fn is_of_istio(key: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, _)| prefix == "istio.io" || prefix.ends_with(".istio.io"))
}

fn enrolment(workload: &Workload, context: &Context<'_>, report: &mut Report) {
    let namespace = context.inputs.namespaces.get(&workload.namespace);
    let of_namespace = namespace.and_then(asks).is_some_and(|(.., asks)| asks);
    let inject = "sidecar.istio.io/inject";
    let told = workload.labels.get(inject).or_else(|| workload.annotations.get(inject));
    let injects = told.map(|value| (inject, value.as_str(), value == "true"));
    let Some((key, value, asks)) = injects.or_else(|| asks(&workload.labels)) else { return };
    let (level, why, remedy) = match (of_namespace, asks) {
        (true, false) => (
            Level::LeftOut,
            "its pods are not in Istio, and would be in Weft with their namespace",
            "label its pods' template weftmesh.io/mesh: disabled",
        ),
        (false, true) => (
            Level::LeftOut,
            "its pods are in Istio although their namespace is not",
            "label its pods' template weftmesh.io/mesh: enabled",
        ),
        _ => (Level::Unneeded, "says what its namespace says", ""),
    };
    report.say(level, (&workload.label, key, value), why, remedy);
}

/// Annotations about a sidecar that isn't there any more.
const OF_SIDECAR: [&str; 12] = [
    "sidecar.istio.io/agentLogLevel",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/interceptionMode",
    "sidecar.istio.io/logLevel",
    "sidecar.istio.io/nativeSidecar",
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyCPULimit",
    "sidecar.istio.io/proxyImage",
    "sidecar.istio.io/proxyMemory",
    "sidecar.istio.io/proxyMemoryLimit",
    "sidecar.istio.io/rewriteAppHTTPProbers",
];

fn annotation(workload: &Workload, (key, value): (&str, &str), report: &mut Report) {
    if !is_of_istio(key) {
        return;
    }
    let at = (workload.label.as_str(), key, value);
    if OF_SIDECAR.contains(&key) {
        if key != "sidecar.istio.io/inject" {
            report.say(Level::Unneeded, at, "there is no sidecar", "");
        }
        return;
    }
    let (why, remedy) = match key {
        _ if key.starts_with("traffic.sidecar.istio.io/") && key.contains("Inbound") => (
            "no port of a pod is left out of the mesh",
            "let the port take plaintext where it has to: MeshPolicy, portModes (docs/exceptions.md)",
        ),
        _ if key.starts_with("traffic.sidecar.istio.io/") => (
            "all connections of a pod go through the mesh; what isn't for a Service or pod of it passes as it is",
            "see whether anything is missing",
        ),
        "proxy.istio.io/config" => (
            "there is no sidecar to configure; holdApplicationUntilProxyStarts isn't needed: a pod is in the mesh from its first byte",
            "see whether it says anything else",
        ),
        _ => ("is read by Istio only", "see whether the pods need what it says"),
    };
    report.say(Level::LeftOut, at, why, remedy);
}
