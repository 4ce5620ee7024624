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

mod address;
mod certificate;
mod client_address;
mod conflict;
mod features;
mod front;
mod frontend;
mod http3;
mod infrastructure;
mod limits;
mod listener;
mod overlap;
mod set;
mod spec;
mod status;
pub(crate) mod trust;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use gateway_api::experimental::gateways::GatewayDefaultScope;
use gateway_api::experimental::listenersets::ListenerSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weft_core::gateway::{Certificate, ClientAddress, ClientValidation, GatewayConfig, Listener, ListenerProtocol};
use weft_core::ids::{
    CertificateKey, GatewayKey, ListenerKey, ListenerSetKey, Namespace, PolicyKey, Port, RouteKind, SecretKey,
    SectionName,
};
use weft_core::route::HostnameMatch;

use super::labels::{self, Labels};
use super::{Problem, Reason};
use crate::object::{Gateway, GatewayParameters, GatewayParametersSpec, created_seconds};
use certificate::Holder;
use frontend::Frontend;

pub use certificate::KeyPairCheck;
pub use conflict::claim_ports;
pub use features::GATEWAY_FEATURES;
pub use front::{WENT_BY, WentBy};
pub use http3::Http3;
pub use infrastructure::{GatewayPlan, Infrastructure, Unmade, parameters_of_class, services};
pub use listener::RESERVED_PORTS;
pub use set::{SetView, parent_of_set, set_key, set_status};
pub use status::{InCluster, OnMachine, Served, status};

/// The class of Gateways that need no GatewayClass where there is no cluster.
pub const DEFAULT_CLASS: &str = "weft";

/// How Gateways are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where they are served.
    pub place: Place,
    /// Tells a certificate that can be served from one that can't.
    pub check: KeyPairCheck,
}

/// Where Gateways are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// All on this machine, whose ports they share.
    Machine {
        /// Addresses that clients reach the machine at, for the status of Gateways that ask for none.
        addresses: Vec<IpAddr>,
    },
    /// Each by pods of its own, which listen on all that they have; a Service has the addresses.
    Cluster,
}

/// What a Gateway needs to know of other objects.
pub trait Lookup {
    /// `GatewayParameters` of a namespace, by their name.
    fn parameters(&self, namespace: &str, name: &str) -> Option<&GatewayParameters>;
    /// What the class of a Gateway says of its parameters.
    ///
    /// # Errors
    /// They can't be had.
    fn class_parameters(&self, class: &str) -> Result<GatewayParametersSpec, Problem>;
    /// What the listeners of this incarnation of a Gateway went by when its parameters were last in force, if that is known.
    fn went_by(&self, gateway: &GatewayKey, uid: &str, class: &str) -> Option<WentBy>;
    /// A Secret.
    fn secret(&self, key: &SecretKey) -> Option<&Secret>;
    /// A ConfigMap.
    fn config_map(&self, namespace: &Namespace, name: &str) -> Option<&ConfigMap>;
    /// The ListenerSets that name a Gateway, in any order.
    fn listener_sets(&self, gateway: &GatewayKey) -> Vec<&ListenerSet>;
    /// The AuthorizationPolicies that name a listener, its Gateway or its ListenerSet, by key.
    fn policies(&self, listener: &ListenerKey) -> Vec<PolicyKey>;
    /// The labels of a namespace, if it is known.
    fn namespace_labels(&self, namespace: &Namespace) -> Option<&Labels>;
    /// Whether a ReferenceGrant lets objects of a kind (of the Gateway API) and a namespace refer to one of the core
    /// group, given by kind, namespace and name.
    fn permitted(&self, from: (&str, &Namespace), to: (&str, &Namespace, &str)) -> bool;
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
    /// Its class.
    pub class: String,
    /// Which incarnation; empty where there are none.
    pub uid: String,
    /// The addresses that it asks for.
    pub requested: Vec<IpAddr>,
    /// What its objects in a cluster are like.
    pub infrastructure: Infrastructure,
    /// Whether its listeners are on the addresses that it asks for, not on all that there are.
    pub binds_requested: bool,
    /// Its listeners, in the order of precedence: its own as they are written, then those of the ListenerSets that it
    /// allows.
    pub listeners: Vec<ListenerView>,
    /// How many of them are its own.
    pub own_count: usize,
    /// The ListenerSets that name it, older ones first, and where each is in the list.
    pub sets: Vec<SetView>,
    set_places: HashMap<ListenerSetKey, usize>,
    /// What its listeners present, and it itself.
    pub certificates: BTreeMap<CertificateKey, Certificate>,
    /// What it presents to backends that ask for a certificate.
    pub client_certificate: Option<CertificateKey>,
    /// Whose word it takes for who its clients are.
    pub client_address: ClientAddress,
    /// Whether answers carry the request's id.
    pub answers_request_id: bool,
    /// What its listeners go by, or went by when its parameters were last in force, if that is known.
    pub went_by: Option<WentBy>,
    /// References of its own that don't hold.
    pub unresolved: Vec<Problem>,
    /// Whether clients without a valid certificate are let through where one is asked for.
    pub insecure_frontend: bool,
    /// Whether routes may attach that don't name it (GEP-3793).
    pub is_default: bool,
    /// What is wrong with the Gateway as a whole: it has no listeners then.
    pub refused: Option<Problem>,
    /// What is wrong with what it says of its pods and Services. Those that are there serve on, new ones are not made: else
    /// parameters that somebody deletes would end all traffic.
    pub frozen: Option<Problem>,
}

/// A listener, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerView {
    /// The ListenerSet that holds it, if it isn't the Gateway itself.
    pub set: Option<ListenerSetKey>,
    /// The namespace of its holder.
    pub namespace: Namespace,
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
    /// What is asked of clients' certificates.
    pub client_validation: Option<ClientValidation>,
    /// Whether HTTP/3 is spoken beside it.
    pub http3: Http3,
    /// The AuthorizationPolicies that judge its clients.
    pub policies: Vec<PolicyKey>,
    /// Another listener whose TLS is for some of the same names: a note, it is served.
    pub overlaps: Option<String>,
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
    /// The own: that of the Gateway, or of the ListenerSet that has the listener.
    Same,
    /// All.
    All,
    /// Those with these labels.
    Selector(Box<LabelSelector>),
    /// None: the selector can't be understood.
    None,
}

impl AllowedNamespaces {
    /// Whether what is in a namespace with these labels may attach to what is in namespace `own`.
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

    /// Its key at a Gateway.
    pub fn key(&self, gateway: &GatewayKey) -> ListenerKey {
        ListenerKey { gateway: gateway.clone(), set: self.set.clone(), name: self.name.clone() }
    }

    /// All that is wrong with it.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.refused.iter().chain(&self.conflict).chain(&self.unresolved)
    }
}

impl GatewayView {
    /// The listeners that are served.
    pub fn programmed(&self) -> impl Iterator<Item = Listener> + '_ {
        let served = self.listeners.iter().filter(|it| self.refused.is_none() && it.is_programmed());
        served.filter_map(|it| {
            Some(Listener {
                key: it.key(&self.key),
                addresses: if self.binds_requested { self.requested.clone() } else { Vec::new() },
                port: it.port?,
                hostname: it.hostname.clone(),
                protocol: it.serves.clone()?,
                kinds: it.kinds.clone(),
                client_validation: it.client_validation.clone(),
                http3: it.http3 == Http3::Spoken,
                policies: it.policies.clone(),
            })
        })
    }

    /// The listeners that it holds itself.
    pub fn own(&self) -> &[ListenerView] {
        self.listeners.get(..self.own_count).unwrap_or_default()
    }

    /// A ListenerSet that names it.
    pub fn set(&self, key: &ListenerSetKey) -> Option<&SetView> {
        self.sets.get(*self.set_places.get(key)?)
    }

    /// Whether nothing is wrong with the whole of it; single listeners may be.
    pub const fn is_accepted(&self) -> bool {
        self.refused.is_none() && self.frozen.is_none()
    }

    /// What the data plane has to know of it besides its listeners, if there is anything.
    pub fn config(&self) -> Option<GatewayConfig> {
        let config = GatewayConfig {
            key: self.key.clone(),
            client_certificate: self.client_certificate.clone(),
            client_address: self.client_address.clone(),
            answers_request_id: self.answers_request_id,
        };
        let is_plain = config.client_certificate.is_none()
            && config.client_address == ClientAddress::default()
            && !config.answers_request_id;
        (self.refused.is_none() && !is_plain).then_some(config)
    }

    /// All that is wrong with it, not with what ListenerSets add.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let whole = self.refused.iter().chain(&self.frozen).chain(&self.unresolved);
        whole.chain(self.own().iter().flat_map(ListenerView::problems))
    }
}

/// Understands a Gateway by itself; see [`claim_ports`] for those of one machine.
pub fn view(gateway: &Gateway, lookup: &dyn Lookup) -> GatewayView {
    let meta = &gateway.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    let key = GatewayKey::new(namespace, meta.name.as_deref().unwrap_or_default());
    let mut certificates = BTreeMap::new();
    let (holder, listeners) = (Holder::gateway(&key), gateway.spec.listeners.iter().enumerate());
    let mut listeners: Vec<_> =
        listeners.map(|(i, spec)| listener::listener(holder, i, spec, lookup, &mut certificates)).collect();
    let own_count = listeners.len();
    let sets = set::attach(gateway, &key, lookup, &mut listeners, &mut certificates);
    let set_places = sets.iter().enumerate().map(|(place, set)| (set.key.clone(), place)).collect();
    let frontend = Frontend::of(gateway, &key, lookup);
    listeners.iter_mut().for_each(|listener| frontend.apply(&key, listener));
    conflict::within(&mut listeners);
    overlap::note(&mut listeners);
    let mut unresolved = Vec::new();
    let client_certificate = client_certificate(gateway, holder, lookup, &mut certificates, &mut unresolved);
    let (requested, wrong_address) = address::requested(gateway, &lookup.settings().place);
    let (infrastructure, now, of_class) = infrastructure::of(gateway, lookup);
    let (class, uid) = (gateway.spec.gateway_class_name.clone(), meta.uid.clone().unwrap_or_default());
    let front = front::decide(now, lookup.went_by(&key, &uid, &class), of_class.as_ref());
    http3::decide(&mut listeners, &front.parameters);
    listeners.iter_mut().for_each(|listener| listener.policies = lookup.policies(&listener.key(&key)));
    let (in_cluster, wrong) = (lookup.settings().place == Place::Cluster, wrong_address.or(front.wrong));
    let request_id = front.parameters.request_id.unwrap_or_default();
    // On one machine nothing is made of parameters but what listeners go by: wrong ones end no traffic either.
    let is_known = |problem: &Problem| problem.reason == Reason::InvalidParameters && front.went_by.is_some();
    let serves_on = in_cluster || wrong.as_ref().is_some_and(is_known);
    let (refused, frozen) = if serves_on { (None, wrong) } else { (wrong, None) };
    GatewayView {
        created: created_seconds(meta),
        generation: meta.generation.unwrap_or(0),
        class,
        uid,
        requested,
        infrastructure,
        binds_requested: !in_cluster,
        listeners,
        own_count,
        sets,
        set_places,
        certificates,
        client_certificate,
        client_address: front.client_address,
        went_by: front.went_by,
        answers_request_id: request_id.in_responses.unwrap_or_default(),
        unresolved,
        insecure_frontend: frontend.is_insecure(),
        is_default: gateway.spec.default_scope == Some(GatewayDefaultScope::All),
        refused,
        frozen,
        key,
    }
}

/// What `spec.tls.backend` presents to backends (GEP-3155). Without it they are spoken to as by anybody.
fn client_certificate(
    gateway: &Gateway,
    holder: Holder<'_>,
    lookup: &dyn Lookup,
    certificates: &mut BTreeMap<CertificateKey, Certificate>,
    unresolved: &mut Vec<Problem>,
) -> Option<CertificateKey> {
    let backend = gateway.spec.tls.as_ref()?.backend.as_ref()?;
    let (wanted, field) = (backend.client_certificate_ref.as_ref()?, "spec.tls.backend.clientCertificateRef");
    match certificate::certificate(holder, field, wanted.into(), Reason::InvalidClientCertificateRef, lookup) {
        Ok(found) => {
            let key = found.key.clone();
            certificates.insert(key.clone(), found);
            Some(key)
        }
        Err(problem) => {
            unresolved.push(problem);
            None
        }
    }
}
