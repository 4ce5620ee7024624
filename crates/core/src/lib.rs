//! Domain of Weft: identities, workloads, services, routes, policies, snapshots and pure matching.
//!
//! No I/O, no clock, no async: whatever depends on time gets it as an argument.

pub mod authorize;
pub mod backend_kind;
pub mod change;
pub mod filter;
pub mod gateway;
pub mod identity;
pub mod ids;
pub mod inpod;
pub mod matching;
pub mod normalize;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod route;
pub mod service;
mod sharded;
pub mod snapshot;
pub mod tap;
pub mod telemetry;
pub mod traffic;
pub mod wire;
pub mod workload;
