//! What is migrated: Ingresses, and what they refer to, from files or from a cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::{Level, Report};

/// A namespace and a name.
pub type Key = (String, String);

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// In the order of their age, then of their names: the order in which controllers prefer them.
    pub ingresses: Vec<Ingress>,
    pub classes: Vec<IngressClass>,
    pub services: BTreeMap<Key, Service>,
    pub config_maps: BTreeMap<Key, ConfigMap>,
    /// Names of Secrets, never what they hold; `None` if nobody told.
    pub secrets: Option<BTreeSet<Key>>,
}

/// The namespace of an object, `default` if it has none.
pub fn namespace_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    meta.namespace.clone().unwrap_or_else(|| "default".to_owned())
}

/// The namespace and name of an object.
pub fn key_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    (namespace_of(meta), meta.name.clone().unwrap_or_default())
}

/// An Ingress as reports name it.
pub fn label_of(ingress: &Ingress) -> String {
    let (namespace, name) = key_of(&ingress.metadata);
    format!("Ingress {namespace}/{name}")
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

impl Inputs {
    /// Takes an object; passes over those of kinds that have no part in this.
    pub fn add(&mut self, value: Value, report: &mut Report) {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        let of = |field: &str| value.pointer(field).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (of("/metadata/namespace"), of("/metadata/name"));
        let object = match namespace {
            "" => format!("{kind} {name}"),
            namespace => format!("{kind} {namespace}/{name}"),
        };
        if kind == "List" || kind == "IngressList" || kind == "ServiceList" {
            let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            items.into_iter().for_each(|item| self.add(item, report));
            return;
        }
        if let Err(why) = self.take(&version, &kind, value) {
            let remedy = "correct it; what it asks for is in none of the objects made";
            report.say(Level::LeftOut, (&object, "the object", ""), why, remedy);
        }
    }

    fn take(&mut self, version: &str, kind: &str, value: Value) -> Result<(), String> {
        match (version, kind) {
            ("networking.k8s.io/v1", "Ingress") => self.ingresses.push(typed(value)?),
            ("networking.k8s.io/v1", "IngressClass") => self.classes.push(typed(value)?),
            ("extensions/v1beta1" | "networking.k8s.io/v1beta1", "Ingress") => {
                return Err(format!("{version} is a version of Ingress that no API server has had since 1.22"));
            }
            ("v1", "Service") => {
                let service: Service = typed(value)?;
                self.services.insert(key_of(&service.metadata), service);
            }
            ("v1", "ConfigMap") => {
                let map: ConfigMap = typed(value)?;
                self.config_maps.insert(key_of(&map.metadata), map);
            }
            ("v1", "Secret") => {
                let meta = value.get("metadata").cloned().unwrap_or_default();
                let key = key_of(&typed(meta)?);
                self.secrets.get_or_insert_default().insert(key);
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts Ingresses into the order in which controllers prefer them, and takes out those that are there twice.
    pub fn sort(&mut self) {
        let age = |it: &Ingress| it.metadata.creation_timestamp.as_ref().map(|t| t.0);
        self.ingresses.sort_by_key(|it| (age(it), key_of(&it.metadata)));
        let mut seen = BTreeSet::new();
        self.ingresses.retain(|ingress| seen.insert(key_of(&ingress.metadata)));
    }

    /// The Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether a Secret is known not to be there.
    pub fn lacks_secret(&self, namespace: &str, name: &str) -> bool {
        self.secrets.as_ref().is_some_and(|known| !known.contains(&(namespace.to_owned(), name.to_owned())))
    }
}
