//! What a cluster's own controllers make of Services and pods, as pure functions: for standalone mode.

pub mod endpoints;
pub mod ipam;
