//! What the proxy tells about itself: metrics and the access log.
//!
//! Metrics: each worker records into series of its own ([`Recorder`]), which the scrape adds up ([`Registry`]); labels
//! name workloads, Services and rules, never what a client sends, and go when those go ([`Alive`]). What belongs to the
//! whole process is looked up when the scrape comes ([`ProcessMetrics`]).

mod access_log;
mod alive;
pub mod families;
mod labels;
mod observer;
mod process;
mod render;
mod series;
mod shard;
#[cfg(test)]
mod tests;

pub use access_log::{AccessLog, Entry, LogFormat, LogPolicy, LogQueue, milliseconds};
pub use alive::Alive;
pub(crate) use alive::DESTINATION_SERVICE;
#[cfg(test)]
use alive::POLICY;
pub use families::{Family, Kind};
pub use labels::{ConnectionLabels, EventLabels, RequestLabels, Security, WorkloadLabel};
pub use observer::WorkerTelemetry;
pub use process::ProcessMetrics;
pub use series::{ConnectionSeries, Counter, EventSeries, RequestMeasure, RequestOutcome, RequestSeries};
pub use shard::{Recorder, Registry};
