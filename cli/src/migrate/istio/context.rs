//! What the user said, and what is known of names.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use weft_core::service::AppProtocol;
use weft_k8s::translate::service::app_protocol;

use super::fields::Lost;
use super::input::{Inputs, Key};

/// What the user wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// Istio's namespace, whose policies hold for its whole mesh.
    pub root: String,
    /// Weft's.
    pub mesh: String,
    /// The trust domain of Weft's identities.
    pub trust_domain: String,
    /// Those of Istio's, besides `cluster.local`, which stands for its own whatever that is.
    pub istio_trust_domains: Vec<String>,
    /// What the names of Services end with.
    pub cluster_domain: String,
}

/// What was read and what the user wants.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub inputs: &'a Inputs,
    pub options: &'a Options,
}

impl Context<'_> {
    /// The namespace of what is made of an object: policies for the mesh are in Weft's own.
    pub fn namespace<'b>(&'b self, own: &'b str) -> &'b str {
        if own == self.options.root { &self.options.mesh } else { own }
    }

    /// The Service that a host means to an object of a namespace, as Istio reads it: a name, or all of its DNS name.
    ///
    /// # Errors
    /// Why it means none.
    pub fn service(&self, field: &str, host: &str, own: &str) -> Result<Key, Lost> {
        if !host.contains(['.', '*']) && !host.is_empty() {
            return Ok((own.to_owned(), host.to_owned()));
        }
        let labels = host.strip_suffix(self.options.cluster_domain.as_str()).and_then(|it| it.strip_suffix(".svc."));
        match labels.map(|it| it.split('.').collect::<Vec<_>>()).as_deref() {
            Some([name, namespace]) if !host.contains('*') => Ok(((*namespace).to_owned(), (*name).to_owned())),
            _ => {
                let why = "is not a Service, and in the mesh routes are for Services";
                let remedy = format!(
                    "if a Service is meant, write NAME.NAMESPACE.svc.{}; else leave it with what serves it",
                    self.options.cluster_domain
                );
                Err(Lost::new(field, host, why, remedy))
            }
        }
    }

    /// A Service among what was read.
    ///
    /// # Errors
    /// That it isn't.
    pub fn known(&self, field: &str, key: &Key) -> Result<&Service, Lost> {
        self.inputs.services.get(key).ok_or_else(|| {
            let why = "the Service is not among what was read";
            let remedy = "add its manifest, or read the cluster with --from-cluster";
            Lost::new(field, format!("{}/{}", key.0, key.1), why, remedy)
        })
    }
}

/// The ports of a Service that carry TCP, in their order.
pub fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
}

/// Whether a port may carry HTTP, as far as it says what it carries.
pub fn admits_http(port: &ServicePort) -> bool {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol: AppProtocol = app_protocol("TCP", port.app_protocol.as_deref(), name);
    protocol.admits_http_route()
}
