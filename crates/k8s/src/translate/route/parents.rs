//! Which Service ports a route asks for, and which of them it gets.
//!
//! GEP-1426: a parentRef without a port means all ports that the kind of route can serve; one port is served by one
//! kind of route (GRPCRoute before HTTPRoute before TLSRoute before TCPRoute), separately for the routes of the
//! Service's own namespace (producers) and those of each other namespace (consumers).

use weft_core::backend_kind::BackendKind;
use weft_core::ids::{Namespace, Port, RouteKey, RouteKind, ServiceKey, ServicePortKey};
use weft_core::route::Parent;
use weft_core::service::{AppProtocol, Service, ServiceKind, ServicePort};

use super::{Lookup, RouteView};
use crate::object::route::ParentReference;
use crate::translate::{Problem, Reason};

/// A Service port and an audience: what one kind of route holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The port.
    pub port: ServicePortKey,
    /// The clients' namespace for a consumer route; all clients otherwise.
    pub consumer: Option<Namespace>,
}

/// What one parentRef asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The reference as the route has it.
    pub reference: ParentReference,
    /// `spec.parentRefs[n]`
    pub field: String,
    /// The ports, or why there is none.
    pub claims: Result<Vec<Claim>, Problem>,
}

/// What one parentRef got.
pub(super) struct Decided {
    pub reference: ParentReference,
    pub parents: Vec<Parent>,
    pub refused: Option<(Reason, String)>,
    pub problems: Vec<Problem>,
}

/// The Service a parentRef names.
pub(super) fn service_key(route: &RouteKey, parent: &ParentReference) -> ServiceKey {
    ServiceKey::new(parent.namespace.as_deref().unwrap_or(route.namespace.as_str()), parent.name.as_str())
}

/// What each Service parentRef of a route asks for.
pub fn bind(view: &RouteView<'_>, lookup: &dyn Lookup) -> Vec<Binding> {
    let services = view.parent_refs.iter().enumerate().filter(|(_, p)| p.is_service());
    services
        .map(|(i, reference)| {
            let field = format!("spec.parentRefs[{i}]");
            let claims = claims(view, reference, &field, lookup);
            Binding { reference: reference.clone(), field, claims }
        })
        .collect()
}

fn claims(
    view: &RouteView<'_>,
    parent: &ParentReference,
    field: &str,
    lookup: &dyn Lookup,
) -> Result<Vec<Claim>, Problem> {
    let refuse = |field: String, message: String, remedy: &str| {
        Err(Problem::new(field, Reason::NoMatchingParent, message, remedy))
    };
    let key = service_key(&view.key, parent);
    if view.key.kind == RouteKind::Udp {
        let message = "UDP is not carried by the mesh: a UDPRoute can't attach to a Service".to_owned();
        return refuse(field.into(), message, "attach it to a Gateway, or remove it");
    }
    // A name that no Service can have stands for an object of another kind.
    let named = lookup.service(&key).filter(|_| key.object().0 == BackendKind::Service);
    let Some(service) = named else {
        return refuse(field.into(), format!("Service {key} does not exist"), "create it, or correct the parentRef");
    };
    if let ServiceKind::ExternalName(_) = service.kind {
        let message = format!("Service {key} is an ExternalName: it has no frontend");
        return refuse(field.into(), message, "attach the route to a Service with a ClusterIP");
    }
    let named = named_ports(parent, service).map_err(|(part, message)| {
        let known = service.ports.iter().map(|p| format!("{} {}", p.port, p.name)).collect::<Vec<_>>().join(", ");
        let remedy = format!("ports of the Service: {known}");
        Problem::new(format!("{field}{part}"), Reason::NoMatchingParent, format!("Service {key} {message}"), remedy)
    })?;
    let explicit = parent.port.is_some() || parent.section_name.is_some();
    let mut ports: Vec<_> = named.into_iter().filter(|p| admits(view.key.kind, p.protocol, explicit)).collect();
    ports.sort_by_key(|p| p.port);
    if ports.is_empty() {
        let kind = view.key.kind.as_str();
        let message = format!("no port of Service {key} that the parentRef names can carry {kind}");
        return refuse(
            field.into(),
            message,
            "set appProtocol on the Service port, or use the kind of route it speaks",
        );
    }
    let consumer = (view.key.namespace != key.namespace).then(|| view.key.namespace.clone());
    let claim = |p: &ServicePort| Claim {
        port: ServicePortKey { service: key.clone(), port: p.port },
        consumer: consumer.clone(),
    };
    Ok(ports.into_iter().map(claim).collect())
}

/// The ports that `port` and `sectionName` leave; both must agree if both are given.
fn named_ports<'a>(
    parent: &ParentReference,
    service: &'a Service,
) -> Result<Vec<&'a ServicePort>, (&'static str, String)> {
    let mut ports: Vec<&ServicePort> = service.ports.iter().collect();
    if let Some(number) = parent.port {
        let wanted = u16::try_from(number).ok().and_then(Port::new);
        ports.retain(|p| Some(p.port) == wanted);
        if ports.is_empty() {
            return Err((".port", format!("has no port {number}")));
        }
    }
    if let Some(section) = &parent.section_name {
        ports.retain(|p| p.name.as_str() == section);
        if ports.is_empty() {
            let and = parent.port.map(|n| format!(" with the number {n}")).unwrap_or_default();
            return Err((".sectionName", format!("has no port named {section:?}{and}")));
        }
    }
    Ok(ports)
}

/// Whether a kind of route can serve a port that says what it speaks. Naming the port makes up for a port that
/// says nothing, and for one that says only TCP where the route is a TLSRoute; never for one that says it is
/// something else.
fn admits(kind: RouteKind, protocol: AppProtocol, explicit: bool) -> bool {
    match kind {
        RouteKind::Http | RouteKind::Grpc => protocol.admits_http_route(),
        RouteKind::Tls => match protocol {
            AppProtocol::Tls => true,
            AppProtocol::Tcp | AppProtocol::Unspecified => explicit,
            _ => false,
        },
        RouteKind::Tcp => match protocol {
            AppProtocol::Tcp | AppProtocol::Tls | AppProtocol::Unspecified => true,
            AppProtocol::Udp => false,
            _ => explicit,
        },
        RouteKind::Udp => false,
    }
}

impl Binding {
    /// Which of the ports the route gets.
    pub(super) fn decide(&self, kind: RouteKind, lookup: &dyn Lookup) -> Decided {
        let mut decided =
            Decided { reference: self.reference.clone(), parents: Vec::new(), refused: None, problems: Vec::new() };
        let claims = match &self.claims {
            Ok(claims) => claims,
            Err(problem) => {
                decided.refused = Some((problem.reason, problem.to_string()));
                decided.problems.push(problem.clone());
                return decided;
            }
        };
        let mut lost = Vec::new();
        for claim in claims {
            match lookup.holder(&claim.port, claim.consumer.as_ref()).filter(|holder| *holder != kind) {
                Some(holder) => lost.push((claim, holder)),
                None => {
                    decided.parents.push(Parent::Service { port: claim.port.clone(), consumer: claim.consumer.clone() })
                }
            }
        }
        if !lost.is_empty() {
            let which =
                lost.iter().map(|(c, k)| format!("{} has {}", c.port, k.as_str())).collect::<Vec<_>>().join(", ");
            let message =
                format!("one Service port takes one kind of route, and {} comes later: {which}", kind.as_str());
            if decided.parents.is_empty() {
                decided.refused = Some((Reason::Conflicted, message.clone()));
            }
            let remedy = "name another port in the parentRef, or remove one of the routes";
            decided.problems.push(Problem::new(&self.field, Reason::Conflicted, message, remedy));
        }
        decided
    }
}
