//! Who takes spans, or lines of the access log: `provider.backendRef`.

use weft_core::ids::{Namespace, Port, ServiceKey, ServicePortKey};

use super::Lookup;
use crate::object::TelemetryBackend;
use crate::translate::{Problem, Reason};

/// The port of OTLP over gRPC.
const OTLP: i64 = 4317;

/// The port of the Service that a provider names; `part` of the policy is `tracing` or `accessLog`.
pub(super) fn collector(
    part: &str,
    spec: &TelemetryBackend,
    own: &Namespace,
    lookup: &dyn Lookup,
) -> Result<ServicePortKey, Problem> {
    let problem = |field: &str, reason, message: String, remedy: &str| {
        Err(Problem::new(format!("spec.{part}.provider.backendRef.{field}"), reason, message, remedy))
    };
    let kind = spec.kind.as_deref().unwrap_or("Service");
    if !spec.group.is_empty() || kind != "Service" {
        let message = format!("{kind} of group {:?} can't be a collector", spec.group);
        return problem("kind", Reason::InvalidKind, message, "name a Service of the core group");
    }
    let number = spec.port.unwrap_or(OTLP);
    let Some(port) = u16::try_from(number).ok().and_then(Port::new) else {
        return problem("port", Reason::Invalid, format!("{number} is not a port"), "use 1 to 65535");
    };
    let namespace = spec.namespace.as_deref().map_or_else(|| own.clone(), Namespace::new);
    let key = ServiceKey::new(namespace.clone(), spec.name.as_str());
    if namespace != *own && !lookup.permitted(own, &key) {
        let message = format!("Service {key} is of another namespace, which permits no TelemetryPolicy of {own}");
        let remedy = "make a ReferenceGrant there, from kind TelemetryPolicy of group weftmesh.io";
        return problem("namespace", Reason::RefNotPermitted, message, remedy);
    }
    let Some(service) = lookup.raw_service(&key) else {
        let message = format!("Service {key} does not exist");
        return problem("name", Reason::BackendNotFound, message, "create it, or correct the name");
    };
    let mut ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    if !ports.any(|it| it.port == i32::from(port.get())) {
        let message = format!("Service {key} has no port {port}");
        return problem("port", Reason::BackendNotFound, message, "name a port that it has, that of OTLP over gRPC");
    }
    Ok(ServicePortKey { service: key, port })
}
