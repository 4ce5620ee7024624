//! Kubernetes objects in, [`weft_core::change::Change`]s and statuses out.
//!
//! ```text
//!  kube watch ----\                       /--> changes (core resources)
//!                  > Object -> index::Index
//!  source::dir ---/  ^                    \--> statuses (conditions)
//!                    parse (YAML, JSON)
//! ```
//!
//! - [`object`]: typed objects. [`parse`]: text to objects, with positions.
//! - [`translate`]: pure functions from objects to core resources, with every problem as a value.
//! - [`index`]: keeps objects, recomputes only what depends on a change, reports differences.
//! - [`derive`]: what a cluster's own controllers would make (EndpointSlices, ClusterIPs), for standalone mode.
//! - [`source`]: a directory of manifests.
//!
//! No Kubernetes client and no xDS here. Only [`source`] does I/O.

pub mod derive;
pub mod index;
pub mod object;
pub mod parse;
pub mod source;
pub mod translate;
