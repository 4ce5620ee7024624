//! backendRef -> [`BackendTarget`].

use weft_core::backend_kind::BackendKind;
use weft_core::ids::{Port, RouteKind, ServiceKey, ServicePortKey};
use weft_core::route::{BackendTarget, InvalidBackend, Parent};
use weft_core::service::{AppProtocol, ServiceKind};

use super::RuleContext;
use crate::object::route::BackendReference;
use crate::translate::{Problem, Reason};

/// Highest weight of the API.
const MAX_WEIGHT: i64 = 1_000_000;

/// Resolves a reference. Whether it may be followed is asked before whether it exists, so that a route can't
/// find out what there is in other namespaces.
pub(super) fn target(
    ctx: &RuleContext<'_>,
    field: &str,
    wanted: &BackendReference,
    problems: &mut Vec<Problem>,
) -> BackendTarget {
    let key = wanted.key(&ctx.view.key.namespace);
    match resolve(ctx, field, &key, wanted) {
        Ok(port) => BackendTarget::Service(port),
        Err((reason, problem)) => {
            problems.push(problem);
            let kind = wanted.kind.as_deref().unwrap_or("Service");
            let port = wanted.port.map(|p| format!(":{p}")).unwrap_or_default();
            let reference = format!("{kind} {}/{}{port}", key.namespace, wanted.name);
            BackendTarget::Invalid { reference, reason }
        }
    }
}

/// Whether the reference may be followed.
fn may_refer(
    ctx: &RuleContext<'_>,
    field: &str,
    key: &ServiceKey,
    wanted: &BackendReference,
) -> Result<(), (InvalidBackend, Problem)> {
    let group = wanted.group.as_deref().unwrap_or_default();
    let kind = wanted.kind.as_deref().unwrap_or("Service");
    if wanted.backend_kind().is_none() {
        let message = format!("a backend can't be of kind {kind:?} in group {group:?}");
        let remedy = "refer to a Service of the core group, a ServiceImport of multicluster.x-k8s.io, or an XBackend";
        let problem = Problem::new(format!("{field}.kind"), Reason::InvalidKind, message, remedy);
        return Err((InvalidBackend::InvalidKind, problem));
    }
    // A name that no object can have would stand for one of another kind, past the grants for that.
    if wanted.name.contains(':') {
        let message = format!("{:?} is not the name of an object", wanted.name);
        let problem = Problem::new(format!("{field}.name"), Reason::BackendNotFound, message, "correct it");
        return Err((InvalidBackend::NotFound, problem));
    }
    let described = key.described();
    let route = &ctx.view.key;
    let foreign = key.namespace != route.namespace;
    // A consumer route may send back to the very Service it is attached to: its clients could call it anyway.
    // Those of a Gateway could not.
    let at_gateway = ctx.parents.iter().any(|parent| matches!(parent, Parent::Listener(_)));
    let own_parent = || !at_gateway && ctx.view.parent_services().any(|parent| parent == *key);
    if foreign && !own_parent() && !ctx.lookup.permitted(route.kind, &route.namespace, key) {
        let message = format!("{described} is in another namespace and no ReferenceGrant there permits it");
        let remedy = format!(
            "create a ReferenceGrant in namespace {} from {} in {} to {kind} {}",
            key.namespace,
            route.kind.as_str(),
            route.namespace,
            wanted.name
        );
        let problem = Problem::new(format!("{field}.namespace"), Reason::RefNotPermitted, message, remedy);
        return Err((InvalidBackend::NotPermitted, problem));
    }
    Ok(())
}

fn resolve(
    ctx: &RuleContext<'_>,
    field: &str,
    key: &ServiceKey,
    wanted: &BackendReference,
) -> Result<ServicePortKey, (InvalidBackend, Problem)> {
    may_refer(ctx, field, key, wanted)?;
    let (route, described) = (&ctx.view.key, key.described());
    let not_found = |reason, part: &str, message: String, remedy: String| {
        Err((reason, Problem::new(format!("{field}{part}"), Reason::BackendNotFound, message, remedy)))
    };
    let is_external = key.object().0 == BackendKind::XBackend;
    if is_external && let Some(refused) = ctx.lookup.refused_backend(key) {
        let remedy = "correct it, or refer to another one".to_owned();
        return not_found(InvalidBackend::NotFound, ".name", format!("{described} can't be used: {refused}"), remedy);
    }
    let Some(service) = ctx.lookup.service(key) else {
        let remedy = "create it, or correct the name".to_owned();
        return not_found(InvalidBackend::NotFound, ".name", format!("{described} does not exist"), remedy);
    };
    if is_external && ctx.parents.iter().any(|parent| matches!(parent, Parent::Service { .. })) {
        let message =
            format!("{described} can be sent to from Gateways only, and the route is attached to a Service, too");
        let problem = Problem::new(field, Reason::InvalidKind, message, "give the Gateway a route of its own");
        return Err((InvalidBackend::InvalidKind, problem));
    }
    if !is_external && let ServiceKind::ExternalName(_) = service.kind {
        let message = format!("Service {key} is an ExternalName, which has no endpoints");
        let remedy = "refer to a Service with a selector or EndpointSlices".to_owned();
        return not_found(InvalidBackend::NotFound, ".name", message, remedy);
    }
    let ports = service.ports.iter().map(|p| p.port.to_string()).collect::<Vec<_>>().join(", ");
    let remedy = format!("use one of its ports: {ports}");
    // Of an XBackend, which has one, it need not be said.
    let only = service.ports.first().map(|port| i64::from(port.port.get())).filter(|_| is_external);
    let Some(number) = wanted.port.or(only) else {
        let message = format!("a reference to a {} needs a port", key.object().0.as_str());
        return not_found(InvalidBackend::UnsupportedPort, ".port", message, remedy);
    };
    let port = u16::try_from(number).ok().and_then(Port::new);
    let Some(found) = service.ports.iter().find(|p| Some(p.port) == port) else {
        return not_found(
            InvalidBackend::UnsupportedPort,
            ".port",
            format!("{described} has no port {number}"),
            remedy,
        );
    };
    // Datagrams and connections don't mix.
    let is_udp = match route.kind {
        RouteKind::Udp => found.protocol == AppProtocol::Udp || ctx.lookup.is_open_for_both(key, found.port),
        _ => found.protocol == AppProtocol::Udp,
    };
    if is_udp != (route.kind == RouteKind::Udp) {
        let (speaks, remedy) = if route.kind == RouteKind::Udp {
            ("doesn't speak UDP", "use a UDP port")
        } else {
            ("speaks UDP", "use a TCP port")
        };
        let message = format!("port {number} of {described} {speaks}");
        let problem = Problem::new(format!("{field}.port"), Reason::UnsupportedProtocol, message, remedy);
        return Err((InvalidBackend::UnsupportedPort, problem));
    }
    Ok(ServicePortKey { service: key.clone(), port: found.port })
}

/// The weight, 1 by default.
pub(super) fn weight(field: &str, weight: Option<i64>) -> Result<u32, Problem> {
    match weight.unwrap_or(1) {
        ok @ 0..=MAX_WEIGHT => Ok(u32::try_from(ok).unwrap_or(0)),
        other => Err(Problem::value(
            format!("{field}.weight"),
            format!("{other} is not a weight"),
            format!("use 0 to {MAX_WEIGHT}; 0 sends nothing there"),
        )),
    }
}
