//! What the proxy tells about itself: metrics and the access log.
//!
//! Metrics: each worker records into series of its own ([`Recorder`]), which the scrape adds up ([`Registry`]); labels
//! name workloads, Services and rules, never what a client sends, and go when their workload goes. Events that are rare
//! and belong to the whole process go through the `metrics` crate instead.

mod access_log;
mod labels;
mod observer;
mod render;
mod series;
mod shard;
#[cfg(test)]
mod tests;

pub use access_log::{AccessLog, Entry, LogFormat, LogPolicy, LogQueue, milliseconds};
pub use labels::{ConnectionLabels, EventLabels, RequestLabels, Security, WorkloadLabel};
pub use observer::WorkerTelemetry;
pub use series::{ConnectionSeries, Counter, EventSeries, RequestMeasure, RequestOutcome, RequestSeries};
pub use shard::{Recorder, Registry};
