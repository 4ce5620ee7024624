//! Types and names of resources. A name reads back to the key it was made of.

use crate::change::ResourceKey;
use crate::ids::{CertificateKey, GatewayKey, ListenerKey, RouteKey, RouteKind, RuleKey};

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
const LISTENER: &str = "type.googleapis.com/weft.config.v1.Listener";
const CERTIFICATE: &str = "type.googleapis.com/weft.config.v1.Certificate";
const MESH: &str = "type.googleapis.com/weft.config.v1.MeshConfig";

/// All types, in an order in which a receiver meets what a resource refers to before the resource.
pub const TYPE_URLS: [&str; 9] =
    [MESH, AUTHORIZATION, MESH_POLICY, WORKLOAD, SERVICE, ENDPOINT_SLICE, CERTIFICATE, RULE, LISTENER];

/// Types that only the node of a gateway may see: what it has to listen on, and the keys for that.
pub const GATEWAY_TYPE_URLS: [&str; 2] = [LISTENER, CERTIFICATE];

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
        ResourceKey::Listener(_) => LISTENER,
        ResourceKey::Certificate(_) => CERTIFICATE,
        ResourceKey::Mesh => MESH,
    }
}

/// The name of a resource within its type: `namespace/name`, for a rule `kind/namespace/name/index`, for a listener
/// `namespace/gateway/listener`.
pub fn name(key: &ResourceKey) -> String {
    match key {
        ResourceKey::Workload(uid) => uid.to_string(),
        ResourceKey::Service(key) => key.to_string(),
        ResourceKey::EndpointSlice(key) => format!("{}/{}", key.namespace, key.name),
        ResourceKey::Rule(key) => format!("{}/{}", key.route, key.index),
        ResourceKey::Authorization(key) | ResourceKey::MeshPolicy(key) => key.to_string(),
        ResourceKey::Listener(key) => key.to_string(),
        ResourceKey::Certificate(key) => key.to_string(),
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
        SERVICE => object().map(|(ns, name)| ResourceKey::Service(crate::ids::ServiceKey::new(ns, name))),
        ENDPOINT_SLICE => object().map(|(ns, name)| {
            ResourceKey::EndpointSlice(crate::service::SliceKey { namespace: ns.into(), name: name.into() })
        }),
        RULE => parse_rule(name).map(ResourceKey::Rule),
        AUTHORIZATION => object().map(|(ns, name)| ResourceKey::Authorization(crate::ids::PolicyKey::new(ns, name))),
        MESH_POLICY => object().map(|(ns, name)| ResourceKey::MeshPolicy(crate::ids::PolicyKey::new(ns, name))),
        LISTENER => parse_listener(name).map(ResourceKey::Listener),
        CERTIFICATE => object().map(|(ns, name)| ResourceKey::Certificate(CertificateKey::new(ns, name))),
        MESH => (name == MESH_NAME).then_some(ResourceKey::Mesh),
        _ => return Err(InvalidName::UnknownType(type_url.to_owned())),
    };
    key.ok_or_else(|| InvalidName::Form(name.to_owned()))
}

fn parse_listener(name: &str) -> Option<ListenerKey> {
    let [namespace, gateway, listener] = name.split('/').collect::<Vec<_>>()[..] else { return None };
    let whole = !namespace.is_empty() && !gateway.is_empty() && !listener.is_empty();
    whole.then(|| ListenerKey { gateway: GatewayKey::new(namespace, gateway), name: listener.into() })
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
