//! Types and names of resources. A name reads back to the key it was made of.

use crate::change::ResourceKey;
use crate::ids::{
    CertificateKey, GatewayKey, GatewayRuleKey, ListenerKey, ListenerSetKey, Port, RouteKey, RouteKind, RuleKey,
    SecretKey, ServiceKey, ServicePortKey,
};

/// Why a name is not one of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No such type of resource.
    #[error("unknown resource type {0:?}")]
    UnknownType(String),
    /// The name has another form.
    #[error("not a name of its type: {0:?}")]
    Form(String),
}

/// The type of a workload.
const WORKLOAD: &str = "type.googleapis.com/weft.config.v1.Workload";
const SERVICE: &str = "type.googleapis.com/weft.config.v1.Service";
const ENDPOINT_SLICE: &str = "type.googleapis.com/weft.config.v1.EndpointSlice";
const RULE: &str = "type.googleapis.com/weft.config.v1.Rule";
const AUTHORIZATION: &str = "type.googleapis.com/weft.config.v1.AuthorizationPolicy";
const MESH_POLICY: &str = "type.googleapis.com/weft.config.v1.MeshPolicy";
const TELEMETRY: &str = "type.googleapis.com/weft.config.v1.TelemetryPolicy";
/// The type of listeners.
pub const LISTENER: &str = "type.googleapis.com/weft.config.v1.Listener";
const CERTIFICATE: &str = "type.googleapis.com/weft.config.v1.Certificate";
const GATEWAY_RULE: &str = "type.googleapis.com/weft.config.v1.GatewayRule";
const GATEWAY_CONFIG: &str = "type.googleapis.com/weft.config.v1.GatewayConfig";
const BACKEND_TLS: &str = "type.googleapis.com/weft.config.v1.BackendTls";
const MESH: &str = "type.googleapis.com/weft.config.v1.MeshConfig";

/// All types, in an order in which a receiver meets what a resource refers to before the resource.
pub const TYPE_URLS: [&str; 13] = [
    MESH,
    AUTHORIZATION,
    MESH_POLICY,
    TELEMETRY,
    WORKLOAD,
    SERVICE,
    ENDPOINT_SLICE,
    BACKEND_TLS,
    CERTIFICATE,
    GATEWAY_CONFIG,
    RULE,
    GATEWAY_RULE,
    LISTENER,
];

/// What a node without Gateways asks for, in the same order.
pub const NODE_TYPE_URLS: [&str; 8] = all_but(&GATEWAY_TYPE_URLS);

/// What the pod of a Gateway asks for, in the same order: routes of Services apply to none of its backends, because those
/// are endpoints.
pub const GATEWAY_CLIENT_TYPE_URLS: [&str; 12] = all_but(&[RULE]);

/// Types that only gateways may see; all but the first are one Gateway's each ([`owner`]).
pub const GATEWAY_TYPE_URLS: [&str; 5] = [BACKEND_TLS, LISTENER, CERTIFICATE, GATEWAY_RULE, GATEWAY_CONFIG];

/// All types but some, in the order of all. It has as many as are left, or nothing is compiled.
#[expect(clippy::indexing_slicing, reason = "done by the compiler, which says so if it can't be")]
const fn all_but<const N: usize>(left_out: &[&str]) -> [&'static str; N] {
    let (mut made, mut from, mut to) = ([""; N], 0, 0);
    while from < TYPE_URLS.len() {
        if !contains(left_out, TYPE_URLS[from]) {
            made[to] = TYPE_URLS[from];
            to += 1;
        }
        from += 1;
    }
    assert!(to == N, "as many as are left");
    made
}

#[expect(clippy::indexing_slicing, reason = "as above")]
const fn contains(list: &[&str], wanted: &str) -> bool {
    let (wanted, mut of) = (wanted.as_bytes(), 0);
    while of < list.len() {
        let (one, mut at) = (list[of].as_bytes(), 0);
        while at < one.len() && at < wanted.len() && one[at] == wanted[at] {
            at += 1;
        }
        if at == one.len() && at == wanted.len() {
            return true;
        }
        of += 1;
    }
    false
}

/// The name of the one resource of its type.
const MESH_NAME: &str = "mesh";

/// The type of a resource.
pub const fn type_url(key: &ResourceKey) -> &'static str {
    match key {
        ResourceKey::Workload(_) => WORKLOAD,
        ResourceKey::Service(_) => SERVICE,
        ResourceKey::EndpointSlice(_) => ENDPOINT_SLICE,
        ResourceKey::Rule(_) => RULE,
        ResourceKey::Authorization(_) => AUTHORIZATION,
        ResourceKey::MeshPolicy(_) => MESH_POLICY,
        ResourceKey::Telemetry(_) => TELEMETRY,
        ResourceKey::Listener(_) => LISTENER,
        ResourceKey::Certificate(_) => CERTIFICATE,
        ResourceKey::GatewayRule(_) => GATEWAY_RULE,
        ResourceKey::GatewayConfig(_) => GATEWAY_CONFIG,
        ResourceKey::BackendTls(_) => BACKEND_TLS,
        ResourceKey::Mesh => MESH,
    }
}

/// Whether a client may see a resource: the pod of a Gateway, of the types that it asks for, what is its own and what is
/// nobody's in particular; a node (`None`) what a node asks for, and nothing of Gateways.
pub fn may_see(gateway: Option<&GatewayKey>, type_url: &str, name: &str) -> bool {
    match gateway {
        _ if !may_see_some(gateway, type_url) => false,
        Some(gateway) if GATEWAY_TYPE_URLS.contains(&type_url) && type_url != BACKEND_TLS => {
            owner(type_url, name).as_ref() == Some(gateway)
        }
        _ => true,
    }
}

/// Whether there may be a resource of a type that a client may not see.
pub fn is_restricted(gateway: Option<&GatewayKey>, type_url: &str) -> bool {
    GATEWAY_TYPE_URLS.contains(&type_url) || !may_see_some(gateway, type_url)
}

fn may_see_some(gateway: Option<&GatewayKey>, type_url: &str) -> bool {
    let types = if gateway.is_some() { &GATEWAY_CLIENT_TYPE_URLS[..] } else { &NODE_TYPE_URLS };
    types.contains(&type_url)
}

/// The Gateway that a resource is of alone, by its name; `None` for what is no single Gateway's, and for what is no name.
pub fn owner(type_url: &str, name: &str) -> Option<GatewayKey> {
    parse_name(type_url, name).ok()?.gateway().cloned()
}

/// The name of a resource within its type: `namespace/name`, for a rule `kind/namespace/name/index`, for a listener
/// `namespace/gateway/listener`. All that is one Gateway's alone starts with the `namespace/name` of that.
pub fn name(key: &ResourceKey) -> String {
    match key {
        ResourceKey::Workload(uid) => uid.to_string(),
        ResourceKey::Service(key) => key.to_string(),
        ResourceKey::EndpointSlice(key) => format!("{}/{}", key.namespace, key.name),
        ResourceKey::Rule(key) => format!("{}/{}", key.route, key.index),
        ResourceKey::Authorization(key) | ResourceKey::MeshPolicy(key) | ResourceKey::Telemetry(key) => key.to_string(),
        ResourceKey::Listener(key) => key.to_string(),
        ResourceKey::Certificate(key) => key.to_string(),
        ResourceKey::GatewayRule(key) => format!("{}/{}/{}", key.gateway, key.rule.route, key.rule.index),
        ResourceKey::GatewayConfig(key) => key.to_string(),
        ResourceKey::BackendTls(key) => format!("{}/{}", key.service, key.port),
        ResourceKey::Mesh => MESH_NAME.to_owned(),
    }
}

/// The key of a resource with this type and name.
///
/// # Errors
/// [`InvalidName`].
pub fn parse_name(type_url: &str, name: &str) -> Result<ResourceKey, InvalidName> {
    let object = || match name.split('/').collect::<Vec<_>>()[..] {
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => Some((namespace.to_owned(), name.to_owned())),
        _ => None,
    };
    let key = match type_url {
        WORKLOAD => (!name.is_empty()).then(|| ResourceKey::Workload(name.into())),
        SERVICE => object().map(|(ns, name)| ResourceKey::Service(ServiceKey::new(ns, name))),
        ENDPOINT_SLICE => object().map(|(ns, name)| {
            ResourceKey::EndpointSlice(crate::service::SliceKey { namespace: ns.into(), name: name.into() })
        }),
        RULE => parse_rule(name).map(ResourceKey::Rule),
        AUTHORIZATION => object().map(|(ns, name)| ResourceKey::Authorization(crate::ids::PolicyKey::new(ns, name))),
        MESH_POLICY => object().map(|(ns, name)| ResourceKey::MeshPolicy(crate::ids::PolicyKey::new(ns, name))),
        TELEMETRY => object().map(|(ns, name)| ResourceKey::Telemetry(crate::ids::PolicyKey::new(ns, name))),
        LISTENER => parse_listener(name).map(ResourceKey::Listener),
        CERTIFICATE => parse_certificate(name).map(ResourceKey::Certificate),
        GATEWAY_RULE => parse_gateway_rule(name).map(ResourceKey::GatewayRule),
        GATEWAY_CONFIG => object().map(|(ns, name)| ResourceKey::GatewayConfig(GatewayKey::new(ns, name))),
        BACKEND_TLS => parse_service_port(name).map(ResourceKey::BackendTls),
        MESH => (name == MESH_NAME).then_some(ResourceKey::Mesh),
        _ => return Err(InvalidName::UnknownType(type_url.to_owned())),
    };
    key.ok_or_else(|| InvalidName::Form(name.to_owned()))
}

/// The parts of a name, none of them empty.
fn parts(name: &str) -> Option<Vec<&str>> {
    let parts: Vec<_> = name.split('/').collect();
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

fn parse_listener(name: &str) -> Option<ListenerKey> {
    match parts(name)?[..] {
        [namespace, gateway, listener] => Some(ListenerKey::new(GatewayKey::new(namespace, gateway), listener)),
        [namespace, gateway, set_namespace, set, listener] => {
            let set = ListenerSetKey::new(set_namespace, set);
            Some(ListenerKey::of_set(GatewayKey::new(namespace, gateway), set, listener))
        }
        _ => None,
    }
}

fn parse_certificate(name: &str) -> Option<CertificateKey> {
    let [namespace, gateway, secret_namespace, secret] = parts(name)?[..] else { return None };
    Some(CertificateKey::new(GatewayKey::new(namespace, gateway), SecretKey::new(secret_namespace, secret)))
}

fn parse_gateway_rule(name: &str) -> Option<GatewayRuleKey> {
    let (namespace, rest) = name.split_once('/')?;
    let (gateway, rule) = rest.split_once('/')?;
    let rule = parse_rule(rule).filter(|_| !namespace.is_empty() && !gateway.is_empty())?;
    Some(GatewayRuleKey { gateway: GatewayKey::new(namespace, gateway), rule })
}

fn parse_service_port(name: &str) -> Option<ServicePortKey> {
    let [namespace, service, port] = parts(name)?[..] else { return None };
    let number = port.parse().ok().and_then(Port::new)?;
    // One name for one key: no `+1`, no `01`.
    let canonical = number.to_string() == port;
    canonical.then(|| ServicePortKey { service: ServiceKey::new(namespace, service), port: number })
}

fn parse_rule(name: &str) -> Option<RuleKey> {
    let [kind, namespace, name, index] = name.split('/').collect::<Vec<_>>()[..] else { return None };
    let kinds = [RouteKind::Grpc, RouteKind::Http, RouteKind::Tls, RouteKind::Tcp, RouteKind::Udp];
    let kind = kinds.into_iter().find(|it| it.as_str() == kind)?;
    let number: u16 = index.parse().ok()?;
    // One name for one key: no `+1`, no `01`.
    let canonical = !namespace.is_empty() && !name.is_empty() && number.to_string() == index;
    let route = RouteKey { kind, namespace: namespace.into(), name: name.into() };
    canonical.then_some(RuleKey { route, index: number })
}
