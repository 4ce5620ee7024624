//! The metrics of all components: one typed catalogue, from which pages are described, checked and documented.
//!
//! Names follow OpenTelemetry's words in Prometheus' form: base units (seconds, bytes) as the last word, `_total` after
//! that for what only grows. Labels name what configuration names (workloads, namespaces, Services, routes, policies) and
//! closed sets of codes, never what a client chooses: no path, no host, no header.
//!
//! - [`families`] is the catalogue; `docs/metrics.md` is made from it.
//! - [`describe`] explains it to the recorder of the `metrics` crate.
//! - [`check`] compares a page with it.
//! - [`process`] is the part of a page that all components have.
//! - [`openmetrics`] turns a page into OpenMetrics for who asks for that.

mod catalogue;
mod check;
mod describe;
#[cfg(test)]
mod docs;
mod family;
pub mod openmetrics;
pub mod process;
#[cfg(test)]
mod recorded;

pub use catalogue::{agent, ca, controller, everywhere, families, find, istio, kube, of, proxy};
pub use check::check;
pub use describe::{SECONDS, describe};
pub use family::{Component, Family, Kind, Unit};
