//! Where a collector is.

use std::net::SocketAddr;

use weft_core::ids::ServicePortKey;
use weft_core::service::EndpointHealth;
use weft_core::snapshot::Snapshot;

/// An endpoint of a Service that takes what is told; `last`, if it is still one.
pub(super) fn endpoint(snapshot: &Snapshot, port: &ServicePortKey, last: Option<SocketAddr>) -> Option<SocketAddr> {
    let frontend = snapshot.frontend(port)?;
    let ready = || frontend.endpoints.entries.iter().filter(|entry| entry.health == EndpointHealth::Ready);
    if let Some(kept) = last.filter(|last| ready().any(|entry| entry.address == *last)) {
        return Some(kept);
    }
    let count = ready().count();
    if count == 0 {
        return None;
    }
    ready().nth(fastrand::usize(..count)).map(|entry| entry.address)
}
