//! Delta xDS client and server, generic over the resource.
//!
//! A resource is a name, a version and bytes: what the bytes mean is the caller's affair. The server side is a
//! [`server::Publisher`] that many streams read from; the client side applies updates through a [`client::Sink`]
//! and rejects single resources without losing the others (NACK with the reason of each).
//!
//! Invariants: per type at most one response waits for its ACK, and what changes meanwhile is merged, so a slow
//! client costs the server a set of names and never a queue; a client isn't in sync before it has every piece of every type; versions are made of content, so a client that
//! reconnects to another replica, or after a restart, is sent only what differs; a rejected resource isn't held.

pub mod client;
mod resource;
pub mod server;
#[cfg(test)]
mod tests;

pub use resource::{Encoded, ResourceName, TypeUrl, Update, Version};
pub use weft_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Ends the version of a response after which more of its type follows at once: what a client has then is a part. Other
/// servers and clients don't know it, and need not.
pub(crate) const MORE: &str = "+";
/// The name that subscribes to all resources of a type.
pub(crate) const WILDCARD: &str = "*";
