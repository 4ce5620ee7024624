//! Gateways -> [`Listener`](weft_core::gateway::Listener)s, certificates and status.
//!
//! ```text
//!  Gateway --view()--> GatewayView --claim_ports()--> the same, of several Gateways on one machine
//!                        |      \--routes attach (translate::route)--> how many
//!                        \--listeners, certificates         \--status()--> conditions
//! ```
//!
//! A listener that is wrong costs its neighbours nothing: it is left out, and its conditions say why. A Gateway that is
//! wrong as a whole has no listeners.

mod certificate;
mod conflict;
mod listener;
mod status;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weft_core::gateway::{Certificate, Listener, ListenerProtocol};
use weft_core::ids::{CertificateKey, GatewayKey, ListenerKey, Namespace, Port, RouteKind, SectionName};
use weft_core::route::HostnameMatch;

use super::labels::{self, Labels};
use super::{Problem, Reason};
use crate::object::{Gateway, created_seconds};

pub use certificate::KeyPairCheck;
pub use conflict::claim_ports;
pub use status::status;

/// The class of Gateways that need no GatewayClass where there is no cluster.
pub const DEFAULT_CLASS: &str = "weft";

/// How Gateways are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Addresses that clients reach the machine at, for the status of Gateways that ask for none.
    pub addresses: Vec<IpAddr>,
    /// Tells a certificate that can be served from one that can't.
    pub check: KeyPairCheck,
}

/// What a Gateway needs to know of other objects.
pub trait Lookup {
    /// A Secret.
    fn secret(&self, key: &CertificateKey) -> Option<&Secret>;
    /// Whether a ReferenceGrant lets Gateways of a namespace refer to the Secret.
    fn permitted(&self, from: &Namespace, to: &CertificateKey) -> bool;
    /// How Gateways are served.
    fn settings(&self) -> &GatewaySettings;
}

/// A Gateway, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayView {
    /// Its key.
    pub key: GatewayKey,
    /// When it was made: where two want the same, the older one has it.
    pub created: i64,
    /// `metadata.generation`
    pub generation: i64,
    /// The addresses that it asks for.
    pub requested: Vec<IpAddr>,
    /// Its listeners, in order.
    pub listeners: Vec<ListenerView>,
    /// What its listeners present.
    pub certificates: Vec<Certificate>,
    /// What is wrong with the Gateway as a whole: it has no listeners then.
    pub refused: Option<Problem>,
}

/// A listener, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerView {
    /// Its name.
    pub name: SectionName,
    /// `spec.listeners[n]`
    pub field: String,
    /// The port, if it is one.
    pub port: Option<Port>,
    /// The protocol as it is written.
    pub protocol: String,
    /// Its hostname.
    pub hostname: Option<HostnameMatch>,
    /// The kinds of route that it takes.
    pub kinds: Vec<RouteKind>,
    /// The namespaces that it takes routes of.
    pub namespaces: AllowedNamespaces,
    /// What is done on it; `None` if nothing can be.
    pub serves: Option<ListenerProtocol>,
    /// Why it is not accepted: values, protocol, port.
    pub refused: Option<Problem>,
    /// Why it can't be told from another one.
    pub conflict: Option<Problem>,
    /// References that don't hold.
    pub unresolved: Vec<Problem>,
}

/// `allowedRoutes.namespaces`
#[derive(Clone, Debug, PartialEq)]
pub enum AllowedNamespaces {
    /// The Gateway's own.
    Same,
    /// All.
    All,
    /// Those with these labels.
    Selector(Box<LabelSelector>),
    /// None: the selector can't be understood.
    None,
}

impl AllowedNamespaces {
    /// Whether routes of a namespace with these labels may attach to a Gateway of namespace `own`.
    pub fn allow(&self, own: &Namespace, namespace: &Namespace, of_namespace: Option<&Labels>) -> bool {
        match self {
            Self::Same => own == namespace,
            Self::All => true,
            // A namespace always has its name as a label; one without an object has nothing else.
            Self::Selector(selector) => {
                let mut known = of_namespace.cloned().unwrap_or_default();
                known.insert("kubernetes.io/metadata.name".into(), namespace.to_string());
                labels::matches(selector, &known)
            }
            Self::None => false,
        }
    }
}

impl ListenerView {
    /// Whether routes may attach: it is accepted and told from all others. A certificate that is missing keeps nobody from
    /// attaching.
    pub fn takes_routes(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none()
    }

    /// Whether it is served.
    pub fn is_programmed(&self) -> bool {
        self.takes_routes() && self.serves.is_some()
    }
}

impl GatewayView {
    /// The listeners that are served.
    pub fn programmed(&self) -> impl Iterator<Item = Listener> + '_ {
        let served = self.listeners.iter().filter(|it| self.refused.is_none() && it.is_programmed());
        served.filter_map(|it| {
            Some(Listener {
                key: ListenerKey { gateway: self.key.clone(), name: it.name.clone() },
                addresses: self.requested.clone(),
                port: it.port?,
                hostname: it.hostname.clone(),
                protocol: it.serves.clone()?,
                kinds: it.kinds.clone(),
            })
        })
    }

    /// All that is wrong with it.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let of_listeners =
            self.listeners.iter().flat_map(|it| it.refused.iter().chain(&it.conflict).chain(&it.unresolved));
        self.refused.iter().chain(of_listeners)
    }
}

/// Understands a Gateway by itself; see [`claim_ports`] for those of one machine.
pub fn view(gateway: &Gateway, lookup: &dyn Lookup) -> GatewayView {
    let meta = &gateway.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    let key = GatewayKey::new(namespace, meta.name.as_deref().unwrap_or_default());
    let mut certificates = Vec::new();
    let listeners = gateway.spec.listeners.iter().enumerate();
    let mut listeners: Vec<_> =
        listeners.map(|(i, spec)| listener::listener(&key, i, spec, lookup, &mut certificates)).collect();
    conflict::within(&mut listeners);
    let (requested, wrong_address) = addresses(gateway);
    let refused = wrong_address.or_else(|| unsupported(gateway));
    GatewayView {
        key,
        created: created_seconds(meta),
        generation: meta.generation.unwrap_or(0),
        requested,
        listeners,
        certificates,
        refused,
    }
}

/// The addresses asked for. An entry without a value leaves the choice to us.
fn addresses(gateway: &Gateway) -> (Vec<IpAddr>, Option<Problem>) {
    let mut requested = Vec::new();
    for (i, address) in gateway.spec.addresses.iter().flatten().enumerate() {
        let field = format!("spec.addresses[{i}]");
        let wrong = |part: &str, message: String| {
            let remedy = "ask for an IPAddress that this machine has, or for none: then all of them are listened on";
            Problem::new(format!("{field}{part}"), Reason::UnsupportedAddress, message, remedy)
        };
        let kind = address.r#type.as_deref().unwrap_or("IPAddress");
        if kind != "IPAddress" {
            return (Vec::new(), Some(wrong(".type", format!("{kind:?} is not a type of address that can be given"))));
        }
        match address.value.as_deref().filter(|value| !value.is_empty()).map(str::parse::<IpAddr>) {
            Some(Ok(ip)) if !requested.contains(&ip) => requested.push(ip),
            Some(Ok(_)) | None => {}
            Some(Err(_)) => {
                let value = address.value.as_deref().unwrap_or_default();
                return (Vec::new(), Some(wrong(".value", format!("{value:?} is not an address"))));
            }
        }
    }
    (requested, None)
}

/// What the Gateway asks for that isn't done: to leave it out silently would be to serve something else.
fn unsupported(gateway: &Gateway) -> Option<Problem> {
    if let Some(wanted) = gateway.spec.infrastructure.as_ref().and_then(|it| it.parameters_ref.as_ref()) {
        let field = "spec.infrastructure.parametersRef";
        let message = format!("{}/{} is not a kind of parameters that is known", wanted.group, wanted.kind);
        return Some(Problem::new(field, Reason::InvalidParameters, message, "remove it"));
    }
    let tls = gateway.spec.tls.as_ref()?;
    if tls.frontend.is_some() {
        let message = "clients' certificates are not asked for yet, so nobody may be let in by them";
        return Some(Problem::value("spec.tls.frontend", message, "remove it"));
    }
    let message = "the Gateway presents no certificate to its backends yet";
    tls.backend.is_some().then(|| Problem::value("spec.tls.backend", message, "remove it"))
}
