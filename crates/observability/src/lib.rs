//! The one source of Weft's Grafana dashboards, Prometheus rules, their tests and runbooks.
//!
//! Dashboards ([`dashboards`]), recording rules and alerts ([`rules`]) are values. [`files`] writes them as the files of the
//! repository that people and charts use; a test holds those equal to this source, `UPDATE=1` writes them. Queries of all of
//! them run in `tests/tests/netns_observability.rs` against a Prometheus that scraped a mesh with traffic.

pub mod dashboards;
mod files;
pub mod grafana;
mod promql;
pub mod questions;
pub mod rules;
#[cfg(test)]
mod tests;

pub use files::{GeneratedFile, files};
pub use promql::{metric_names, with_all_chosen};

/// When a query returns data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// As soon as there is traffic.
    Traffic,
    /// Once something has happened that a healthy mesh without it never shows: what it is.
    Event(&'static str),
    /// Where the components of a cluster are scraped (controller, authority, agent): none of them runs by itself without
    /// Kubernetes.
    Cluster,
}
