//! What a Gateway's objects in a cluster are like: `spec.infrastructure` (GEP-1867), parameters of it and of its class, and
//! what its Services are called.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gateway_api::gatewayclasses::GatewayClass;
use weft_core::gateway::{Transport, further_name, object_name};
use weft_core::ids::{GatewayKey, Port};

use super::limits::{Asked, exceeded};
use super::{GatewayView, Http3, ListenerView, Lookup, WentBy};
use crate::object::{Gateway, GatewayParameters, GatewayParametersSpec, Kind, WEFT_GROUP};
use crate::translate::{Problem, Reason};

/// What a Gateway's objects are like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Infrastructure {
    /// Labels of all of them (`spec.infrastructure.labels`).
    pub labels: BTreeMap<String, String>,
    /// Annotations of all of them (`spec.infrastructure.annotations`).
    pub annotations: BTreeMap<String, String>,
    /// The Gateway's parameters over those of its class.
    pub parameters: GatewayParametersSpec,
}

/// What a Gateway needs to be served by pods of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayPlan {
    /// Its key.
    pub key: GatewayKey,
    /// Which incarnation.
    pub uid: String,
    /// Its class.
    pub class: String,
    /// Whether it is accepted. Of one that isn't, what is there stays as it is, and nothing new is made.
    pub accepted: bool,
    /// The addresses that it asks for.
    pub requested: Vec<IpAddr>,
    /// The ports of its listeners that are accepted.
    pub ports: BTreeSet<(Port, Transport)>,
    /// What its objects are like.
    pub infrastructure: Infrastructure,
    /// What its ServiceAccount remembers of its parameters ([`super::WENT_BY`]), if there is anything.
    pub remembered: Option<String>,
}

/// An object of a Gateway's that can't be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// Which, and why, for people.
    pub why: String,
    /// Whether the Gateway is served without it.
    pub serves: bool,
}

impl GatewayView {
    /// What it takes to serve it in a cluster.
    pub fn plan(&self) -> GatewayPlan {
        GatewayPlan {
            key: self.key.clone(),
            uid: self.uid.clone(),
            class: self.class.clone(),
            accepted: self.refused.is_none() && self.frozen.is_none(),
            requested: self.requested.clone(),
            ports: self.ports(),
            infrastructure: self.infrastructure.clone(),
            remembered: self.went_by.as_ref().and_then(WentBy::to_json),
        }
    }

    /// The ports of listeners that are accepted, also of those that can't be served for want of a certificate.
    fn ports(&self) -> BTreeSet<(Port, Transport)> {
        let accepted = self.listeners.iter().filter(|listener| listener.takes_routes());
        let transport = |protocol: &str| if protocol == "UDP" { Transport::Udp } else { Transport::Tcp };
        let ports = |listener: &ListenerView| {
            let number = listener.port?;
            let http3 = (listener.http3 == Http3::Spoken).then_some((number, Transport::Udp));
            Some(std::iter::once((number, transport(&listener.protocol))).chain(http3))
        };
        accepted.filter_map(ports).flatten().collect()
    }

    /// The names of its Services, each with the address that is asked for.
    pub fn services(&self) -> Vec<(String, Option<IpAddr>)> {
        services(&object_name(self.key.name.as_str(), &self.class), &self.requested)
    }
}

/// The names of a Gateway's Services: one that has the name of its objects, and one more for each further address that is
/// asked for, since a Service can ask for one only.
pub fn services(object: &str, requested: &[IpAddr]) -> Vec<(String, Option<IpAddr>)> {
    let mut names = vec![(object.to_owned(), requested.first().copied())];
    let further = requested.iter().enumerate().skip(1);
    names.extend(further.map(|(at, ip)| (further_name(object, &(at + 1).to_string()), Some(*ip))));
    names
}

/// Reads `spec.infrastructure`; with what listeners go by, or what is wrong with it or with the parameters of the class, and with
/// these if they can be had.
pub(super) fn of(
    gateway: &Gateway,
    lookup: &dyn Lookup,
) -> (Infrastructure, Result<WentBy, Problem>, Option<GatewayParametersSpec>) {
    let spec = gateway.spec.infrastructure.as_ref();
    let own = spec.and_then(|it| it.parameters_ref.as_ref()).map(|wanted| {
        let namespace = gateway.metadata.namespace.as_deref().unwrap_or("default");
        let found = |name: &str| lookup.parameters(namespace, name);
        let field = "spec.infrastructure.parametersRef";
        find(field, (&wanted.group, &wanted.kind), (namespace, &wanted.name), found)
    });
    let class = lookup.class_parameters(&gateway.spec.gateway_class_name).map_err(|wrong| {
        let message = format!("the class's own parameters can't be had: {}", wrong.message);
        let remedy = "whoever keeps the GatewayClass has to correct its spec.parametersRef";
        Problem::new("spec.gatewayClassName", Reason::InvalidParameters, message, remedy)
    });
    let (own, class) = match (own.transpose(), class) {
        (Ok(own), Ok(class)) => (own, class),
        (Err(problem), class) => return (Infrastructure::default(), Err(problem), class.ok()),
        (Ok(_), Err(problem)) => return (Infrastructure::default(), Err(problem), None),
    };
    let infrastructure = Infrastructure {
        labels: spec.and_then(|it| it.labels.clone()).unwrap_or_default(),
        annotations: spec.and_then(|it| it.annotations.clone()).unwrap_or_default(),
        parameters: own.as_ref().map_or_else(|| class.clone(), |own| own.over(&class)),
    };
    let name = spec.and_then(|it| it.parameters_ref.as_ref()).map_or("", |wanted| wanted.name.as_str());
    let namespace = gateway.metadata.namespace.as_deref().unwrap_or("default");
    let asked = Asked {
        class: &gateway.spec.gateway_class_name,
        parameters: own.as_ref().map(|own| (namespace, name, own)),
        labels: (!infrastructure.labels.is_empty(), !infrastructure.annotations.is_empty()),
    };
    match exceeded(&asked, class.limits.as_ref()) {
        Some(problem) => {
            let infrastructure = Infrastructure { parameters: class.clone(), ..Infrastructure::default() };
            (infrastructure, Err(problem), Some(class))
        }
        None => {
            let went_by = WentBy::new(&own.unwrap_or_default(), &infrastructure.parameters);
            (infrastructure, Ok(went_by), Some(class))
        }
    }
}

/// What a class says of its Gateways' parameters (`spec.parametersRef`); `found` looks them up by namespace and name.
///
/// # Errors
/// The reference is to another kind, or to nothing.
pub fn parameters_of_class<'a>(
    class: &GatewayClass,
    found: impl Fn(&str, &str) -> Option<&'a GatewayParameters>,
) -> Result<GatewayParametersSpec, Problem> {
    let Some(wanted) = &class.spec.parameters_ref else { return Ok(GatewayParametersSpec::default()) };
    let field = "spec.parametersRef";
    let Some(namespace) = wanted.namespace.as_deref().filter(|namespace| !namespace.is_empty()) else {
        let message = "has no namespace, and GatewayParameters are in one";
        return Err(Problem::new(format!("{field}.namespace"), Reason::InvalidParameters, message, "add it"));
    };
    let found = |name: &str| found(namespace, name);
    find(field, (&wanted.group, &wanted.kind), (namespace, &wanted.name), found)
}

fn find<'a>(
    field: &str,
    (group, kind): (&str, &str),
    (namespace, name): (&str, &str),
    found: impl Fn(&str) -> Option<&'a GatewayParameters>,
) -> Result<GatewayParametersSpec, Problem> {
    let wrong = |part: &str, message: String, remedy: &str| {
        Problem::new(format!("{field}{part}"), Reason::InvalidParameters, message, remedy)
    };
    if (group, kind) != (WEFT_GROUP, Kind::GatewayParameters.as_str()) {
        let message = format!("{group}/{kind} is not a kind of parameters that is known");
        return Err(wrong("", message, "use GatewayParameters of weftmesh.io, or remove it"));
    }
    let parameters = found(name).ok_or_else(|| {
        let message = format!("GatewayParameters {namespace}/{name} does not exist");
        wrong(".name", message, "create it, or correct the name")
    })?;
    Ok(parameters.spec.clone())
}
