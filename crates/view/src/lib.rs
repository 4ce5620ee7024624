//! What a mesh's proxies count and are configured with, in the form in which people look at it. Everything here is a function of
//! pages of metrics and a snapshot; who reads those, and who may see what comes of it, is said elsewhere.
//!
//! ```text
//!   pages of now and a while ago --> Window --> Graph, Failures      \
//!   snapshot ------------------------+--------> Routes, Certificates  >-- through a Lens, as JSON
//! ```
//!
//! Nothing leaves without a [`Lens`]: it knows which namespaces a reader may view.

pub mod certificates;
pub mod count;
pub mod failures;
pub mod graph;
mod history;
mod lens;
pub mod metrics;
pub mod routes;
#[cfg(test)]
mod tests;
pub mod words;

pub use self::certificates::Certificates;
pub use self::count::{Filter, Window};
pub use self::failures::Failures;
pub use self::graph::Graph;
pub use self::history::History;
pub use self::lens::Lens;
pub use self::metrics::{Metrics, Sample};
pub use self::routes::Routes;

/// To a millionth, which is finer than anything is counted.
pub fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// The metrics that [`Graph`], [`Routes`], [`Failures`] and [`Certificates`] are made of.
const NAMES: [&str; 12] = [
    "weft_http_requests_total",
    "weft_http_request_time_seconds_total",
    "weft_http_request_duration_seconds_bucket",
    "weft_tcp_connections",
    "weft_tcp_connections_opened_total",
    "weft_tcp_connections_refused_total",
    "weft_tcp_connections_shed_total",
    "weft_certificate_expiry_timestamp_seconds",
    "weft_certificate_renewal_failures",
    "weft_trusted_root_expiry_timestamp_seconds",
    "weft_ca_root_expiry_timestamp_seconds",
    "weft_ca_intermediate_expiry_timestamp_seconds",
];

/// Whether a line of a page is of use: most of a page isn't.
pub fn is_of_use(line: &str) -> bool {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    NAMES.contains(&name)
}
