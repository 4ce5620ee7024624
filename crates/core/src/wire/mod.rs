//! Domain to wire and back: one message of `weft.config.v1` for each resource.
//!
//! Encoding and decoding of a type stand side by side, so that `decode(encode(x)) == x` is easy to see and held by a
//! property test. Decoding is the edge: what it returns needs no further check, and an error names the field.

mod common;
mod convert;
mod gateway;
mod name;
mod policy;
mod route;
mod service;
mod telemetry;
mod traffic;
mod workload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prost::Message;
use weft_api::weft::config::v1 as proto;

use self::convert::Wire;
use crate::change::{Resource, ResourceKey};

pub use self::convert::{InvalidField, Problem};
pub use self::name::{
    GATEWAY_CLIENT_TYPE_URLS, GATEWAY_TYPE_URLS, InvalidName, LISTENER, NODE_TYPE_URLS, TYPE_URLS, is_restricted,
    may_see, name, owner, parse_name, type_url,
};

/// Why bytes are not the resource they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResource {
    /// The bytes are no message of the type.
    #[error("not a message of its type: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field is wrong.
    #[error(transparent)]
    Field(#[from] InvalidField),
    /// The name is not one of its type.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The name belongs to another resource.
    #[error("the resource says that its name is {actual}")]
    OtherName {
        /// The name that its content gives.
        actual: String,
    },
}

/// The message of a resource, encoded. The same resource gives the same bytes.
pub fn encode(resource: &Resource) -> Vec<u8> {
    match resource {
        Resource::Workload(it) => it.to_wire().encode_to_vec(),
        Resource::Service(it) => it.to_wire().encode_to_vec(),
        Resource::EndpointSlice(it) => it.to_wire().encode_to_vec(),
        Resource::Rule(it) => it.to_wire().encode_to_vec(),
        Resource::Authorization(it) => it.to_wire().encode_to_vec(),
        Resource::MeshPolicy(it) => it.to_wire().encode_to_vec(),
        Resource::Telemetry(it) => it.to_wire().encode_to_vec(),
        Resource::Listener(it) => it.to_wire().encode_to_vec(),
        Resource::Certificate(it) => it.to_wire().encode_to_vec(),
        Resource::GatewayRule(it) => it.to_wire().encode_to_vec(),
        Resource::GatewayConfig(it) => it.to_wire().encode_to_vec(),
        Resource::BackendTls(it) => it.to_wire().encode_to_vec(),
        Resource::Mesh(it) => it.to_wire().encode_to_vec(),
    }
}

/// Reads a resource that came with a type and a name.
///
/// # Errors
/// [`InvalidResource`]: refuse this one resource.
pub fn decode(type_url: &str, name: &str, body: &[u8]) -> Result<Resource, InvalidResource> {
    let key = parse_name(type_url, name)?;
    let resource = match key {
        ResourceKey::Workload(_) => Resource::Workload(message::<_, proto::Workload>(body)?),
        ResourceKey::Service(_) => Resource::Service(message::<_, proto::Service>(body)?),
        ResourceKey::EndpointSlice(_) => Resource::EndpointSlice(message::<_, proto::EndpointSlice>(body)?),
        ResourceKey::Rule(_) => Resource::Rule(message::<_, proto::Rule>(body)?),
        ResourceKey::Authorization(_) => Resource::Authorization(message::<_, proto::AuthorizationPolicy>(body)?),
        ResourceKey::MeshPolicy(_) => Resource::MeshPolicy(message::<_, proto::MeshPolicy>(body)?),
        ResourceKey::Telemetry(_) => Resource::Telemetry(message::<_, proto::TelemetryPolicy>(body)?),
        ResourceKey::Listener(_) => Resource::Listener(message::<_, proto::Listener>(body)?),
        ResourceKey::Certificate(_) => Resource::Certificate(message::<_, proto::Certificate>(body)?),
        ResourceKey::GatewayRule(_) => Resource::GatewayRule(message::<_, proto::GatewayRule>(body)?),
        ResourceKey::GatewayConfig(_) => Resource::GatewayConfig(message::<_, proto::GatewayConfig>(body)?),
        ResourceKey::BackendTls(_) => Resource::BackendTls(message::<_, proto::BackendTls>(body)?),
        ResourceKey::Mesh => Resource::Mesh(message::<_, proto::MeshConfig>(body)?),
    };
    let actual = resource.key();
    if actual != key {
        return Err(InvalidResource::OtherName { actual: self::name(&actual) });
    }
    Ok(resource)
}

fn message<T: Wire<Message = M>, M: Message + Default>(body: &[u8]) -> Result<Arc<T>, InvalidResource> {
    Ok(Arc::new(T::from_wire(M::decode(body)?)?))
}
