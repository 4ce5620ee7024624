//! Who calls whom.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use weft_view::count::{has_failed, names_both_ends, service, workload};
use weft_view::{Filter, Sample, Window, rounded};

use super::rows::{percent, rate, seconds};
use crate::table;

/// A caller and whom it calls, by which Service, and how that is protected.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    pub source: String,
    pub destination: String,
    /// `namespace/name:port`; empty: the workload itself was dialled, or it isn't known by what.
    pub service: String,
    /// `mutual_tls`, `local`, `plaintext`, ...
    pub security: String,
    pub requests_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_seconds: Option<f64>,
    /// Connections that are relayed as bytes, or come from outside of the mesh, and are open now.
    pub open_connections: u64,
    /// Of those, opened each second.
    pub opened_per_second: f64,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edges {
    /// How long was counted.
    pub seconds: f64,
    pub edges: Vec<Edge>,
}

#[derive(Default)]
struct Sums {
    requests: f64,
    failed: f64,
    time: f64,
    open: f64,
    opened: f64,
}

type Key = (String, String, String, String);

fn key(sample: &Sample) -> Key {
    let security = sample.label("connection_security").to_owned();
    (workload(sample, "source"), workload(sample, "destination"), service(sample).unwrap_or_default(), security)
}

impl Edges {
    /// Of what was counted.
    pub fn of(window: &Window, filter: &Filter) -> Self {
        let mut sums = BTreeMap::<Key, Sums>::new();
        let requests = |name| window.of(name).filter(|sample| sample.label("reporter") == "source");
        let wanted = |sample: &&Sample| sample.value > 0.0 && filter.has(sample);
        for sample in requests("weft_http_requests_total").filter(wanted) {
            let sums = sums.entry(key(sample)).or_default();
            sums.requests += sample.value;
            sums.failed += if has_failed(sample) { sample.value } else { 0.0 };
        }
        for sample in requests("weft_http_request_time_seconds_total").filter(wanted) {
            sums.entry(key(sample)).or_default().time += sample.value;
        }
        for sample in window.gauge("weft_tcp_connections").filter(wanted).filter(|sample| names_both_ends(sample)) {
            sums.entry(key(sample)).or_default().open += sample.value;
        }
        for sample in
            window.of("weft_tcp_connections_opened_total").filter(wanted).filter(|sample| names_both_ends(sample))
        {
            sums.entry(key(sample)).or_default().opened += sample.value;
        }
        let per_second = |count: f64| if window.seconds > 0.0 { rounded(count / window.seconds) } else { 0.0 };
        let edges = sums.into_iter().map(|((source, destination, service, security), sums)| Edge {
            source,
            destination,
            service,
            security,
            requests_per_second: per_second(sums.requests),
            success: (sums.requests > 0.0).then(|| rounded((sums.requests - sums.failed) / sums.requests)),
            mean_seconds: (sums.requests > 0.0 && sums.time > 0.0).then(|| rounded(sums.time / sums.requests)),
            open_connections: sums.open as u64,
            opened_per_second: per_second(sums.opened),
        });
        Self { seconds: window.seconds, edges: edges.collect() }
    }
}

impl fmt::Display for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.edges.is_empty() {
            return writeln!(f, "no traffic in {:.0} s", self.seconds);
        }
        let rows = self.edges.iter().map(|edge| {
            vec![
                edge.source.clone(),
                edge.destination.clone(),
                edge.service.clone(),
                edge.security.clone(),
                rate(edge.requests_per_second),
                percent(edge.success),
                seconds(edge.mean_seconds),
                edge.open_connections.to_string(),
                rate(edge.opened_per_second),
            ]
        });
        let header = ["FROM", "TO", "SERVICE", "SECURITY", "RPS", "SUCCESS", "MEAN", "OPEN", "OPENED/S"];
        write!(f, "{}", table(&header, rows))
    }
}
