//! From a frontend and its L4 routes to the frontend whose endpoints take the connection.

use std::sync::Arc;

use weft_core::matching::{L4Table, pick_weighted};
use weft_core::reason::Reason;
use weft_core::route::BackendTarget;
use weft_core::snapshot::{Frontend, Snapshot};

/// The frontend whose endpoints take the connection: a backend of the route for `server_name` by weight, or without
/// routes the one that was dialled.
pub(crate) fn frontend_of(
    snapshot: &Snapshot,
    dialled: &Arc<Frontend>,
    table: Option<&L4Table>,
    server_name: Option<&str>,
) -> Result<Arc<Frontend>, Reason> {
    match table {
        Some(table) => backend_of(snapshot, table, server_name),
        None => Ok(Arc::clone(dialled)),
    }
}

/// The frontend whose endpoints take the connection: a backend of the route for `server_name` by weight.
pub(crate) fn backend_of(
    snapshot: &Snapshot,
    table: &L4Table,
    server_name: Option<&str>,
) -> Result<Arc<Frontend>, Reason> {
    let rule = table.find(server_name).ok_or(Reason::NoRoute)?;
    let weights = rule.backends.iter().map(|backend| backend.weight);
    let picked = pick_weighted(weights, fastrand::u64(..)).and_then(|index| rule.backends.get(index));
    match &picked.ok_or(Reason::NoBackend)?.target {
        BackendTarget::Service(key) => snapshot.frontend(key).cloned().ok_or(Reason::InvalidBackend),
        BackendTarget::Invalid { .. } => Err(Reason::InvalidBackend),
    }
}
