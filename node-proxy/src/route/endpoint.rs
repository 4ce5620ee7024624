//! From a frontend and its L4 routes to endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_core::ids::NodeName;
use weft_core::matching::{L4Table, pick_weighted};
use weft_core::reason::Reason;
use weft_core::route::BackendTarget;
use weft_core::service::EndpointHealth;
use weft_core::snapshot::{EndpointEntry, Frontend, Snapshot};

/// The frontend whose endpoints take the connection: a backend of the route for `server_name` by weight, or without
/// routes the one that was dialled.
pub(crate) fn frontend_of(
    snapshot: &Snapshot,
    dialled: &Arc<Frontend>,
    table: Option<&L4Table>,
    server_name: Option<&str>,
) -> Result<Arc<Frontend>, Reason> {
    let Some(table) = table else { return Ok(Arc::clone(dialled)) };
    let rule = table.find(server_name).ok_or(Reason::NoRoute)?;
    let weights = rule.backends.iter().map(|backend| backend.weight);
    let picked = pick_weighted(weights, fastrand::u64(..)).and_then(|index| rule.backends.get(index));
    match &picked.ok_or(Reason::NoBackend)?.target {
        BackendTarget::Service(key) => snapshot.frontend(key).cloned().ok_or(Reason::InvalidBackend),
        BackendTarget::Invalid { .. } => Err(Reason::InvalidBackend),
    }
}

/// The endpoints of a frontend that one connection may try, each once.
pub(crate) struct Candidates<'a> {
    frontend: &'a Frontend,
    node: &'a NodeName,
    tried: Vec<SocketAddr>,
}

impl<'a> Candidates<'a> {
    /// All endpoints that may be picked.
    pub(crate) fn new(frontend: &'a Frontend, node: &'a NodeName) -> Self {
        Self { frontend, node, tried: Vec::new() }
    }

    /// One that was not tried yet: a ready one, else a draining one.
    pub(crate) fn next(&mut self) -> Option<EndpointEntry> {
        let entry = self.any(EndpointHealth::Ready).or_else(|| self.any(EndpointHealth::Draining))?.clone();
        self.tried.push(entry.address);
        Some(entry)
    }

    fn any(&self, health: EndpointHealth) -> Option<&'a EndpointEntry> {
        let here = |entry: &EndpointEntry| entry.node.as_ref() == Some(self.node);
        let usable = |entry: &&'a EndpointEntry| {
            entry.health == health
                && !self.tried.contains(&entry.address)
                && (!self.frontend.service.node_local_only || here(entry))
        };
        let entries = &self.frontend.endpoints.entries;
        let count = entries.iter().filter(usable).count();
        if count == 0 {
            return None;
        }
        entries.iter().filter(usable).nth(fastrand::usize(0..count))
    }
}
