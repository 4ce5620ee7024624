//! What the proxy tells about itself: metrics and the access log.
//!
//! Metrics: each worker records into series of its own ([`Recorder`]), which the scrape adds up ([`Registry`]); labels
//! name workloads, Services and rules, never what a client sends, and go when those go ([`Alive`]). There are only so many
//! ([`DEFAULT_SERIES`]). What belongs to the whole process is looked up when the scrape comes ([`ProcessMetrics`]). The
//! crate `metrics`, which the other components use, locks and looks a series up by its labels each time: too dear for a
//! request.

mod access_log;
mod alive;
mod audit;
mod budget;
mod exemplar;
pub mod families;
mod istio;
mod labels;
mod numbers;
mod observer;
mod page;
mod process;
mod render;
mod security;
mod series;
mod shard;
#[cfg(test)]
mod tests;

pub(crate) use access_log::METHODS;
pub use access_log::{AccessLog, Entry, Lines, LogFormat, LogPolicy, LogQueue, is_failure, milliseconds, start_lines};
pub use alive::Alive;
pub(crate) use alive::DESTINATION_SERVICE;
#[cfg(test)]
use alive::POLICY;
pub use exemplar::TraceId;
pub use labels::{ConnectionLabels, EventLabels, RequestLabels, RoleLabel, WorkloadLabel};
pub use numbers::Counter;
pub use observer::WorkerTelemetry;
pub use process::ProcessMetrics;
pub use render::Wanted;
pub use security::Security;
pub use series::{ConnectionSeries, EventSeries, RequestMeasure, RequestOutcome, RequestSeries};
pub use shard::{DEFAULT_SERIES, Recorder, Registry};
