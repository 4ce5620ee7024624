//! Traffic by workload, Service, rule or caller.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use weft_view::count::{Histogram, counts_for_security, has_failed, is_secure, service, workload};
use weft_view::{Filter, Sample, Window, rounded};

use super::{By, Sort};
use crate::table;

/// A row. What isn't known, or of which there was none, is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub name: String,
    pub requests_per_second: f64,
    /// 0 to 1, of the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// Tries beyond the first.
    pub retries_per_second: f64,
    /// 0 to 1: requests, or connections, over mutual TLS or within a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<f64>,
    /// To the workload that is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in_per_second: Option<f64>,
    /// From it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out_per_second: Option<f64>,
}

/// All rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stat {
    /// How long was counted.
    pub seconds: f64,
    #[serde(skip)]
    by: By,
    pub rows: Vec<Row>,
}

/// What is added up for a row.
#[derive(Default)]
struct Sums {
    requests: f64,
    failed: f64,
    time: f64,
    retries: f64,
    secure: f64,
    securable: f64,
    received: Option<f64>,
    sent: Option<f64>,
    latency: Histogram,
}

impl By {
    /// The row that a sample of requests belongs to.
    fn name(self, sample: &Sample) -> Option<String> {
        match self {
            Self::Workload => Some(workload(sample, "destination")),
            Self::Caller => Some(workload(sample, "source")),
            Self::Service => service(sample),
            Self::Route => {
                let route = sample.label("route");
                (!route.is_empty()).then(|| format!("{} rule {}", route.replacen('/', " ", 1), sample.label("rule")))
            }
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Workload => "WORKLOAD",
            Self::Service => "SERVICE",
            Self::Route => "ROUTE",
            Self::Caller => "CALLER",
        }
    }
}

impl Stat {
    /// Of what was counted. Requests are those that callers' proxies and Gateways have counted, so that none counts twice.
    pub fn of(window: &Window, by: By, filter: &Filter) -> Self {
        let mut sums = BTreeMap::<String, Sums>::new();
        let mut add = |metric: &str, to: &dyn Fn(&mut Sums, &Sample)| {
            let of_callers = window.of(metric).filter(|sample| sample.label("reporter") == "source");
            for sample in of_callers.filter(|sample| sample.value > 0.0 && filter.has(sample)) {
                if let Some(name) = by.name(sample) {
                    to(sums.entry(name).or_default(), sample);
                }
            }
        };
        add("weft_http_requests_total", &|sums, sample| {
            sums.requests += sample.value;
            sums.failed += if has_failed(sample) { sample.value } else { 0.0 };
            sums.protected(sample);
        });
        add("weft_http_request_time_seconds_total", &|sums, sample| sums.time += sample.value);
        add("weft_http_retries_total", &|sums, sample| sums.retries += sample.value);
        if by != By::Caller && filter.from.is_none() {
            add("weft_http_request_duration_seconds_bucket", &|sums, sample| sums.latency.add(sample));
        }
        bytes(window, by, filter, &mut sums);
        let rows = sums.into_iter().map(|(name, sums)| sums.row(name, window.seconds)).collect();
        let mut stat = Self { seconds: window.seconds, by, rows };
        stat.sort(Sort::Rps);
        stat
    }

    fn sort(&mut self, by: Sort) {
        let key = |row: &Row| match by {
            Sort::Rps => row.requests_per_second,
            Sort::Failures => row.success.map_or(-1.0, |success| 1.0 - success),
            Sort::Latency => row.p99_seconds.or(row.mean_seconds).unwrap_or(-1.0),
        };
        self.rows.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.name.cmp(&b.name)));
    }

    /// So many rows, as they are asked for.
    pub fn first(mut self, by: Sort, rows: usize) -> Self {
        self.sort(by);
        self.rows.truncate(rows);
        self
    }
}

impl Sums {
    fn protected(&mut self, sample: &Sample) {
        if counts_for_security(sample) {
            self.securable += sample.value;
            self.secure += if is_secure(sample) { sample.value } else { 0.0 };
        }
    }

    fn row(self, name: String, seconds: f64) -> Row {
        let rate = |count: f64| if seconds > 0.0 { rounded(count / seconds) } else { 0.0 };
        let of = |part: f64, whole: f64| (whole > 0.0).then(|| rounded(part / whole));
        Row {
            name,
            requests_per_second: rate(self.requests),
            success: of(self.requests - self.failed, self.requests),
            mean_seconds: of(self.time, self.requests).filter(|_| self.time > 0.0),
            p50_seconds: self.latency.quantile(0.5).map(rounded),
            p95_seconds: self.latency.quantile(0.95).map(rounded),
            p99_seconds: self.latency.quantile(0.99).map(rounded),
            retries_per_second: rate(self.retries),
            mtls: of(self.secure, self.securable),
            bytes_in_per_second: self.received.map(rate),
            bytes_out_per_second: self.sent.map(rate),
        }
    }
}

/// Bytes and connections of workloads, which their own proxies count. Who is at the other end isn't always named there, so that
/// a filter by it leaves them out; Services and rules have none of their own.
fn bytes(window: &Window, by: By, filter: &Filter, sums: &mut BTreeMap<String, Sums>) {
    let (reporter, side, others) = match by {
        By::Workload => ("destination", "destination", filter.from.is_some()),
        By::Caller => ("source", "source", filter.to.is_some()),
        By::Service | By::Route => return,
    };
    if others || filter.service.is_some() {
        return;
    }
    for (metric, is_received) in [("weft_tcp_received_bytes_total", true), ("weft_tcp_sent_bytes_total", false)] {
        let own = window.of(metric).filter(|sample| sample.label("reporter") == reporter);
        for sample in own.filter(|sample| sample.value > 0.0 && filter.has(sample)) {
            let sums = sums.entry(workload(sample, side)).or_default();
            // What a proxy receives is what the client sends.
            let towards_named = is_received == (by == By::Workload);
            let bytes = if towards_named { &mut sums.received } else { &mut sums.sent };
            *bytes.get_or_insert_default() += sample.value;
        }
    }
    // Callers outside of the mesh have no proxy that would count their requests.
    let opened = window.of("weft_tcp_connections_opened_total").filter(|sample| sample.label("reporter") == reporter);
    for sample in opened.filter(|sample| sample.value > 0.0 && filter.has(sample)) {
        let sums = sums.entry(workload(sample, side)).or_default();
        let from_outside = by == By::Workload && sample.label("connection_security") == "plaintext";
        if from_outside || sums.requests <= 0.0 {
            sums.protected(sample);
        }
    }
}

/// A number as people read it; nothing for what isn't known.
fn shown(value: Option<f64>, words: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), words)
}

pub(super) fn percent(value: Option<f64>) -> String {
    shown(
        value,
        |share| if share >= 1.0 { "100%".to_owned() } else { format!("{:.1}%", (share * 1000.0).floor() / 10.0) },
    )
}

pub(super) fn seconds(value: Option<f64>) -> String {
    shown(value, |time| match time {
        time if time < 0.01 => format!("{:.1}ms", time * 1e3),
        time if time < 1.0 => format!("{:.0}ms", time * 1e3),
        time => format!("{time:.1}s"),
    })
}

pub(super) fn rate(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn bytes_per_second(value: Option<f64>) -> String {
    shown(value, |bytes| match bytes {
        bytes if bytes < 1024.0 => format!("{bytes:.0}B"),
        bytes if bytes < 1024.0 * 1024.0 => format!("{:.1}KiB", bytes / 1024.0),
        bytes => format!("{:.1}MiB", bytes / 1024.0 / 1024.0),
    })
}

impl fmt::Display for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return writeln!(f, "no traffic in {:.0} s", self.seconds);
        }
        let rows = self.rows.iter().map(|row| {
            vec![
                row.name.clone(),
                rate(row.requests_per_second),
                percent(row.success),
                seconds(row.mean_seconds),
                seconds(row.p50_seconds),
                seconds(row.p95_seconds),
                seconds(row.p99_seconds),
                rate(row.retries_per_second),
                percent(row.mtls),
                bytes_per_second(row.bytes_in_per_second),
                bytes_per_second(row.bytes_out_per_second),
            ]
        });
        let header =
            [self.by.title(), "RPS", "SUCCESS", "MEAN", "P50", "P95", "P99", "RETRIES", "MTLS", "IN/S", "OUT/S"];
        write!(f, "{}", table(&header, rows))
    }
}
