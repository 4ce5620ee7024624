//! The controller in a cluster.
//!
//! ```text
//!  watches (intake) --facts--> task: World --changes--> Publisher --delta xDS over TLS--> node proxies
//!                                    \--statuses, notes--> (leader only) status writer, Events
//! ```
//!
//! - [`subject`]: what is watched. `intake`: watches, and CustomResourceDefinitions that come and go. `seen`: one object
//!   as it is kept. [`foreign`]: policies that the network enforces.
//! - `world`: facts in, effects out, without I/O. `task`: batches of facts. `statuses`: read, merge, write, in the order
//!   of `turns`.
//! - `access`: who may follow the configuration. `serve`: the process.
//! - [`gateways`]: the objects that serve Gateways.
//! - `ending`: proxies that end are let go of by their DaemonSet.
//! - [`refusals`]: what nodes refuse. [`bound`]: what the pods of Gateways have bound. [`board`]: how replicas tell each other.
//!
//! Every replica watches and serves; one leads and writes. Nothing depends on the wall clock.

mod access;
pub mod board;
pub mod bound;
mod desired;
mod ending;
pub mod foreign;
pub mod gateways;
mod intake;
mod ranges;
pub mod refusals;
mod seen;
mod serve;
mod settings;
mod statuses;
pub mod subject;
pub(crate) mod task;
mod turns;
mod world;

pub use desired::{MESH_CONTROLLER_NAME, MESH_FEATURES};
pub use serve::run;
pub use settings::{Args, Mistakes, Settings};

#[cfg(test)]
mod tests;
