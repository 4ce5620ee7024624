//! What Gateways are served by in a cluster (GEP-1762).
//!
//! ```text
//!  World --plans--> objects: one Gateway -> its objects --wanted--\
//!                                                                  table: what to do --apply--> API server
//!  watches of our objects ------------------------------seen------/
//! ```
//!
//! - `objects`: what a Gateway's objects are. Pure. `pods`: its Deployment. `settings`: what all have in common.
//! - `owned`: their kinds and names.
//! - `table`: what is wanted, what is there, what is to be done next. No I/O. `fixed`: what nobody can change about it.
//! - `compare`: whether what is there is what is wanted. `quantity`: amounts of resources.
//! - `apply`: the task that does it, while this replica leads. `fault`: what of its failures is told.
//!
//! Objects go with their Gateway by their owner reference. Nothing depends on an event being seen: the same comparison is
//! made of whatever is there.

mod apply;
mod compare;
mod fault;
mod fixed;
mod objects;
mod owned;
mod pods;
mod quantity;
mod settings;
mod table;

use std::collections::BTreeSet;

use weft_core::ids::GatewayKey;
use weft_k8s::translate::gateway::GatewayPlan;

pub use apply::{Provisioner, run};
pub use objects::{MANAGED_BY, objects};
pub use settings::PodSettings;

/// All Gateways, as far as what serves them is concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plans {
    /// Those that are ours.
    pub ours: Vec<GatewayPlan>,
    /// Those of a class of somebody else: what is there of ours is to go.
    pub foreign: BTreeSet<GatewayKey>,
}

#[cfg(test)]
mod tests;
