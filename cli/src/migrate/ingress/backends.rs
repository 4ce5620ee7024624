//! Where paths go: Services, their ports by number.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::{Map, Value, json};

use super::input::{Inputs, Key};
use super::parts::{Part, PathItem};
use super::settings::{Action, Protocol, Redirect, Settings};

/// The port name by which the AWS Load Balancer Controller is told to look at its annotations.
const BY_ANNOTATION: &str = "use-annotation";

/// One of `backendRefs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    /// Left out where there is one backend.
    pub weight: Option<u32>,
}

impl Backend {
    /// As a reference of an object in a namespace.
    pub fn reference(&self, from: &str) -> Value {
        let mut made = Map::new();
        made.insert("name".to_owned(), json!(self.name));
        if self.namespace != from {
            made.insert("namespace".to_owned(), json!(self.namespace));
        }
        made.insert("port".to_owned(), json!(self.port));
        if let Some(weight) = self.weight {
            made.insert("weight".to_owned(), json!(weight));
        }
        Value::Object(made)
    }

    /// The Service.
    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }
}

/// What is done with the requests of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Backends(Vec<Backend>),
    Redirect(Redirect),
    /// The report has it already.
    Nothing,
}

/// Where a path goes.
///
/// # Errors
/// Why it can't be said, and what to do.
pub fn destination(part: &Part, item: &PathItem, inputs: &Inputs) -> Result<Destination, (String, String)> {
    let Some(service) = &item.backend.service else {
        let kind = item.backend.resource.as_ref().map_or("nothing", |resource| resource.kind.as_str());
        return Err((format!("its backend is {kind}, not a Service"), "put a Service before it".to_owned()));
    };
    let port = service.port.as_ref();
    if port.and_then(|port| port.name.as_deref()) == Some(BY_ANNOTATION) {
        return match part.settings.actions.get(&service.name) {
            Some(Action::Redirect(redirect)) => Ok(Destination::Redirect(redirect.clone())),
            Some(Action::Forward(targets)) => forward(part, targets, inputs).map(Destination::Backends),
            Some(Action::LeftOut) => Ok(Destination::Nothing),
            None => Err((
                format!("there is no annotation actions.{}", service.name),
                "add it, or name a Service".to_owned(),
            )),
        };
    }
    let text = port.and_then(|port| port.name.clone().or_else(|| port.number.map(|number| number.to_string())));
    let port = resolve(&part.namespace, &service.name, text.as_deref().unwrap_or_default(), inputs)?;
    let (namespace, name) = (part.namespace.clone(), service.name.clone());
    Ok(Destination::Backends(vec![Backend { namespace, name, port, weight: None }]))
}

fn forward(part: &Part, targets: &[(String, String, u32)], inputs: &Inputs) -> Result<Vec<Backend>, (String, String)> {
    let one = |(name, port, weight): &(String, String, u32)| {
        let port = resolve(&part.namespace, name, port, inputs)?;
        Ok(Backend { namespace: part.namespace.clone(), name: name.clone(), port, weight: Some(*weight) })
    };
    targets.iter().map(one).collect()
}

/// The number of a Service's port.
fn resolve(namespace: &str, name: &str, port: &str, inputs: &Inputs) -> Result<u16, (String, String)> {
    let service = inputs.service(namespace, name);
    if service.is_some_and(|service| kind_of(service) == Some("ExternalName")) {
        let why = format!("Service {namespace}/{name} is an ExternalName, which has no endpoints here");
        return Err((why, "write an XBackend for its host, or give the Service EndpointSlices".to_owned()));
    }
    if let Some(number) = port.parse().ok().filter(|number| *number > 0) {
        return Ok(number);
    }
    let known = service.map(|service| ports(service).find(|it| it.name.as_deref() == Some(port)).map(|it| it.port));
    match known {
        Some(Some(number)) => {
            u16::try_from(number).map_err(|_| (format!("{number} is not a port"), "correct the Service".to_owned()))
        }
        Some(None) => {
            Err((format!("Service {namespace}/{name} has no port {port:?}"), "name one that it has".to_owned()))
        }
        None => {
            let why = format!(
                "Service {namespace}/{name} is not among what was read, so the number of port {port:?} isn't known"
            );
            Err((why, "give its file too, or use --from-cluster".to_owned()))
        }
    }
}

fn kind_of(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.type_.as_deref()
}

fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// Whether HTTP/2 is spoken to a port, as far as is known.
pub fn speaks_http2(backend: &Backend, inputs: &Inputs) -> bool {
    let port = inputs.service(&backend.namespace, &backend.name);
    let port = port.and_then(|service| ports(service).find(|port| port.port == i32::from(backend.port)));
    port.and_then(|port| port.app_protocol.as_deref()).is_some_and(|name| name == "kubernetes.io/h2c" || name == "grpc")
}

/// What annotations of Services say.
pub type OfServices = BTreeMap<Key, Settings>;

/// What is spoken to a backend: by the Ingress, or by the Service itself.
pub fn protocol_of(part: &Part, backend: &Backend, services: &OfServices) -> Protocol {
    match services.get(&backend.key()) {
        Some(own) if own.protocol != Protocol::Http => own.protocol,
        _ => part.settings.protocol,
    }
}
