//! What is migrated: Istio's objects, and what they speak of, from files or from a cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use super::super::report::{Level, Report};

/// A namespace and a name.
pub type Key = (String, String);
/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// One of Istio's objects.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// As the API server writes it, so that it sorts; empty if nobody told.
    pub created: String,
    pub annotations: Labels,
    pub spec: Value,
}

impl Source {
    /// As reports name it.
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Something that makes pods, or a pod.
#[derive(Clone, Debug)]
pub struct Workload {
    /// As reports name it.
    pub label: String,
    pub namespace: String,
    /// Of its pods.
    pub labels: Labels,
    pub annotations: Labels,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// In the order of their age, then of their names: the order in which Istio prefers them.
    pub objects: Vec<Source>,
    pub services: BTreeMap<Key, Service>,
    pub namespaces: BTreeMap<String, Labels>,
    pub workloads: Vec<Workload>,
    /// Gateways of the Gateway API, with their classes.
    pub gateways: BTreeMap<Key, String>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn labels(value: &Value, pointer: &str) -> Labels {
    let map = value.pointer(pointer).and_then(Value::as_object);
    let pairs = map.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The namespace and name of an object.
pub fn key_of(value: &Value) -> Key {
    let namespace = text(value, "/metadata/namespace");
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    (namespace.to_owned(), text(value, "/metadata/name").to_owned())
}

/// Where the pod of a workload is in its object.
fn pod_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

impl Inputs {
    /// Takes an object; passes over those of kinds that have no part in this.
    pub fn add(&mut self, value: &Value, report: &mut Report) {
        let (version, kind) = (text(value, "/apiVersion"), text(value, "/kind"));
        if kind == "List" || kind.ends_with("List") && value.get("items").is_some() {
            let items = value.get("items").and_then(Value::as_array);
            items.into_iter().flatten().for_each(|item| self.add(item, report));
            return;
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let key = key_of(value);
        if group == "istio.io" || group.ends_with(".istio.io") {
            self.objects.push(Source {
                group: group.to_owned(),
                kind: kind.to_owned(),
                namespace: key.0,
                name: key.1,
                created: text(value, "/metadata/creationTimestamp").to_owned(),
                annotations: labels(value, "/metadata/annotations"),
                spec: value.get("spec").cloned().unwrap_or_default(),
            });
        } else if version == "v1" && kind == "Service" {
            match serde_json::from_value::<Service>(value.clone()) {
                Ok(service) => drop(self.services.insert(key, service)),
                Err(why) => {
                    let at = (format!("Service {}/{}", key.0, key.1), "the object");
                    report.say(Level::LeftOut, (&at.0, at.1, ""), why.to_string(), "correct it");
                }
            }
        } else if version == "v1" && kind == "Namespace" {
            self.namespaces.insert(key.1, labels(value, "/metadata/labels"));
        } else if group == "gateway.networking.k8s.io" && kind == "Gateway" {
            self.gateways.insert(key, text(value, "/spec/gatewayClassName").to_owned());
        } else if let Some(pod) = pod_of(kind) {
            let owned = value.pointer("/metadata/ownerReferences").is_some();
            // What made it is there too, and is what has to be changed.
            if !owned {
                self.workloads.push(Workload {
                    label: format!("{kind} {}/{}", key.0, key.1),
                    namespace: key.0,
                    labels: labels(value, &format!("{pod}/metadata/labels")),
                    annotations: labels(value, &format!("{pod}/metadata/annotations")),
                });
            }
        }
    }

    /// Puts objects into the order in which Istio prefers them, and takes out those that are there twice.
    pub fn sort(&mut self) {
        let of = |it: &Source| (it.created.clone(), it.namespace.clone(), it.name.clone(), it.kind.clone());
        self.objects.sort_by_key(of);
        let mut seen = BTreeSet::new();
        self.objects.retain(|it| seen.insert((it.group.clone(), it.label())));
        self.workloads.sort_by(|a, b| a.label.cmp(&b.label));
    }

    /// The objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Source> {
        self.objects.iter().filter(move |it| it.kind == kind)
    }

    /// Leaves what is in one of these namespaces, or in one of those that hold for the whole mesh.
    pub fn only(&mut self, namespaces: &[String], root: &str) {
        let wanted = |namespace: &String| namespaces.contains(namespace);
        self.objects.retain(|it| wanted(&it.namespace) || it.namespace == root);
        self.namespaces.retain(|name, _| wanted(name));
        self.workloads.retain(|it| wanted(&it.namespace));
    }
}
