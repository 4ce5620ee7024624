//! Routes, policies and Services, as their authors see them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use serde::Serialize;
use serde_json::Value;
use weft_controller::kubernetes::board;
use weft_controller::kubernetes::refusals::{Refused, merged};
use weft_core::service::AppProtocol;
use weft_k8s::object::{CONTROLLER_NAME, ObjectRef};
use weft_k8s::translate::enrolment::says;
use weft_k8s::translate::service::app_protocol;

use crate::cluster::facts::{MeshObject, name_of, namespace_of};
use crate::cluster::finding::{Check, Finding, Severity};
use crate::cluster::pods::labels_of;

/// Nodes refuse what was made of the object.
const PROGRAMMED: &str = "weftmesh.io/Programmed";
/// Lets objects of other namespaces refer to its own.
const GRANT: &str = "ReferenceGrant";

/// A condition that says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// `HTTPRoute shop/cart`
    pub object: String,
    /// Its condition: `Accepted=False`.
    pub condition: String,
    pub reason: String,
    pub message: String,
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn object_of(object: &MeshObject) -> String {
    format!(
        "{} {}/{}",
        object.kind,
        text(&object.object, "/metadata/namespace"),
        text(&object.object, "/metadata/name")
    )
}

/// Our entries in an object's status.
fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/status/parents", "/status/ancestors"].into_iter();
    let lists = lists.filter_map(|path| object.pointer(path).and_then(Value::as_array));
    lists.flatten().filter(|entry| text(entry, "/controllerName") == CONTROLLER_NAME)
}

/// Whether somebody expects our word: a policy, or a route with a Service among its parents. Grants have no status.
fn is_ours(object: &MeshObject) -> bool {
    let parents = object.object.pointer("/spec/parentRefs").and_then(Value::as_array);
    let of_service = || parents.into_iter().flatten().any(|p| text(p, "/kind") == "Service");
    object.kind != GRANT && (!object.kind.ends_with("Route") || of_service())
}

/// Conditions of ours that say no.
pub fn refusals(objects: &[MeshObject]) -> Vec<Refusal> {
    let mut found = Vec::new();
    for object in objects {
        let conditions = entries(&object.object).filter_map(|e| e.get("conditions")?.as_array()).flatten();
        for condition in conditions {
            let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
            let bad = match kind {
                "Accepted" | "ResolvedRefs" | PROGRAMMED => status == "False",
                "PartiallyInvalid" | "PartiallyEnforced" => status == "True",
                _ => false,
            };
            let refusal = Refusal {
                object: object_of(object),
                condition: format!("{kind}={status}"),
                reason: text(condition, "/reason").to_owned(),
                message: text(condition, "/message").to_owned(),
            };
            if bad && !found.contains(&refusal) {
                found.push(refusal);
            }
        }
    }
    found
}

/// Routes and policies that the controller hasn't taken.
pub fn accepted(objects: &[MeshObject]) -> Check {
    let mut findings: Vec<_> = refusals(objects)
        .into_iter()
        // Told by a check of its own, with objects that have no such condition.
        .filter(|r| !r.condition.starts_with(PROGRAMMED))
        .map(|r| {
            let severity = if r.condition.starts_with("Partially") { Severity::Warning } else { Severity::Error };
            let (kind, name) = r.object.split_once(' ').unwrap_or((&r.object, ""));
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            let remedy = format!("mend it (kubectl -n {namespace} get {} {name} -o yaml)", kind.to_ascii_lowercase());
            Finding::new(severity, r.object.clone(), format!("{}, {}: {}", r.condition, r.reason, r.message))
                .remedy(remedy)
        })
        .collect();
    let ours: Vec<_> = objects.iter().filter(|o| is_ours(o)).collect();
    for object in &ours {
        let generation = object.object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let conditions = entries(&object.object).filter_map(|e| e.get("conditions")?.as_array()).flatten();
        let seen = conditions.filter_map(|c| c.get("observedGeneration")?.as_i64()).max();
        if seen.is_none_or(|seen| seen < generation) {
            let what = if seen.is_none() {
                "the controller hasn't looked at it"
            } else {
                "the controller hasn't looked at its last edit"
            };
            let finding = Finding::new(Severity::Warning, object_of(object), what);
            findings.push(finding.remedy("see whether a controller leads (`weft status`), and ask again in a moment"));
        }
    }
    Check::new("routes and policies", format!("{} for the mesh", ours.len()), findings)
}

/// ReferenceGrants that let in more than one kind of one namespace, or to more than one kind: what is in one by mistake is
/// hard to see there, and whoever needs one part of it gets all.
pub fn grants(objects: &[MeshObject]) -> Check {
    let all: Vec<_> = objects.iter().filter(|object| object.kind == GRANT).collect();
    let findings: Vec<_> = all.iter().filter_map(|grant| wide(grant)).collect();
    Check::new("reference grants", format!("{}, {} of them wide", all.len(), findings.len()), findings)
}

fn wide(grant: &MeshObject) -> Option<Finding> {
    let entries = |path: &str| grant.object.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let kind = |entry: &Value| match text(entry, "/group") {
        "" => text(entry, "/kind").to_owned(),
        group => format!("{}.{group}", text(entry, "/kind")),
    };
    let namespaces: BTreeSet<_> = entries("/spec/from").map(|entry| text(entry, "/namespace").to_owned()).collect();
    let from: BTreeSet<_> = entries("/spec/from").map(kind).collect();
    let to: BTreeSet<_> = entries("/spec/to").map(kind).collect();
    if [&namespaces, &from, &to].iter().all(|set| set.len() <= 1) {
        return None;
    }
    let list = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let what = format!("it lets {} of {} refer to {}", list(&from), list(&namespaces), list(&to));
    let finding = Finding::new(Severity::Note, object_of(grant), what);
    Some(finding.remedy("make one grant for each namespace and kind, and give the names in spec.to[].name"))
}

/// Objects that node proxies refuse at the moment, by what the controllers tell each other.
pub fn refused(map: Option<&ConfigMap>) -> Check {
    let reports = map.map(board::read).unwrap_or_default();
    let all = merged(reports.values());
    let finding = |(object, refused): (&ObjectRef, &Refused)| {
        let remedy = "compare the versions of weft-controller and weft-node-proxy (`weft version`): one doesn't understand the \
                      other; the proxies keep what they had until the object changes or they are upgraded";
        Finding::new(Severity::Error, format!("{object}"), refused.message()).remedy(remedy)
    };
    let summary =
        if all.is_empty() { "nothing is refused".to_owned() } else { format!("{} objects are refused", all.len()) };
    Check::new("configuration on nodes", summary, all.iter().map(finding).collect())
}

/// Ports of Services of the mesh that don't say what they speak.
pub fn protocols(services: &[Service], namespaces: &[Namespace]) -> Check {
    let labels: BTreeMap<_, _> = labels_of(namespaces);
    let enrolled = |service: &&Service| says(labels.get(namespace_of(&service.metadata)).copied()) == Some(true);
    let mut findings = Vec::new();
    let mut looked = 0;
    for service in services.iter().filter(enrolled) {
        let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else {
            continue;
        };
        looked += 1;
        let silent: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .filter(|p| {
                let (protocol, name) = (p.protocol.as_deref().unwrap_or("TCP"), p.name.as_deref().unwrap_or_default());
                protocol != "SCTP"
                    && app_protocol(protocol, p.app_protocol.as_deref(), name) == AppProtocol::Unspecified
            })
            .map(|p| p.port.to_string())
            .collect();
        if !silent.is_empty() {
            let object = format!("Service {}/{}", namespace_of(&service.metadata), name_of(&service.metadata));
            let what = format!(
                "ports without a protocol: {}; they are relayed as bytes unless an HTTPRoute or GRPCRoute is attached",
                silent.join(", ")
            );
            findings.push(
                Finding::new(Severity::Note, object, what)
                    .remedy("set appProtocol: http, kubernetes.io/h2c, grpc or tcp"),
            );
        }
    }
    Check::new("protocols of ports", format!("{looked} Services"), findings)
}
