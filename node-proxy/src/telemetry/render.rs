//! The Prometheus text exposition of a registry.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::labels::{Labels, pair};
use super::series::{DURATIONS, HistogramTotal, RequestOutcome, RequestSeries, SIZES};
use super::shard::Registry;

/// What a family says about itself.
struct Head<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
}

impl Registry {
    /// All series, in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.render_requests(&mut out);
        self.render_connections(&mut out);
        self.render_events(&mut out);
        out
    }

    fn render_requests(&self, out: &mut String) {
        let all = self.gather(|shard| &shard.requests);
        head(out, &Head { name: "weft_http_requests_total", kind: "counter", help: "HTTP requests by outcome." });
        for (labels, series) in &all {
            let mut outcomes: BTreeMap<RequestOutcome, u64> = BTreeMap::new();
            for (outcome, count) in series.iter().flat_map(|series| series.outcomes()) {
                *outcomes.entry(outcome).or_default() += count;
            }
            for (outcome, count) in outcomes {
                let mut text = text_of(labels);
                pair(&mut text, "response_class", CLASSES.get(usize::from(outcome.class)).copied().unwrap_or("none"));
                pair(&mut text, "reason", outcome.reason.as_str());
                pair(&mut text, "grpc_status", &outcome.grpc_status.map(|code| code.to_string()).unwrap_or_default());
                line(out, "weft_http_requests_total", &text, count);
            }
        }
        head(out, &Head { name: "weft_http_retries_total", kind: "counter", help: "Tries after the first." });
        for (labels, series) in &all {
            let retries = series.iter().map(|series| series.retries.get()).sum::<u64>();
            if retries > 0 {
                line(out, "weft_http_retries_total", &text_of(labels), retries);
            }
        }
        let of = |pick: fn(&RequestSeries, &mut HistogramTotal)| {
            move |series: &Vec<Arc<RequestSeries>>| {
                let mut total = HistogramTotal::default();
                series.iter().for_each(|series| pick(series, &mut total));
                total
            }
        };
        let duration = of(|series, total| series.duration.add_to(total));
        let request = of(|series, total| series.request_bytes.add_to(total));
        let response = of(|series, total| series.response_bytes.add_to(total));
        let sizes = |name, help| Head { name, kind: "histogram", help };
        let took = Head {
            name: "weft_http_request_duration_seconds",
            kind: "histogram",
            help: "From the head of the request to the end of the answer.",
        };
        histograms(out, &took, &all, (&DURATIONS, 1e9), duration);
        let family = sizes("weft_http_request_body_bytes", "Bodies of requests.");
        histograms(out, &family, &all, (&SIZES, 1.0), request);
        let family = sizes("weft_http_response_body_bytes", "Bodies of answers.");
        histograms(out, &family, &all, (&SIZES, 1.0), response);
    }

    fn render_connections(&self, out: &mut String) {
        let all = self.gather(|shard| &shard.connections);
        let sum = |pick: fn(&super::series::ConnectionSeries) -> u64| {
            move |series: &[Arc<_>]| -> u64 { series.iter().map(|series| pick(series)).sum() }
        };
        type Sum<'a> = Box<dyn Fn(&[Arc<super::series::ConnectionSeries>]) -> u64 + 'a>;
        let families: [(Head<'_>, Sum<'_>); 4] = [
            (
                Head { name: "weft_tcp_connections_opened_total", kind: "counter", help: "Connections opened." },
                Box::new(sum(|s| s.opened.get())),
            ),
            (
                Head { name: "weft_tcp_connections", kind: "gauge", help: "Connections open now." },
                Box::new(sum(|s| s.opened.get().saturating_sub(s.closed.get()))),
            ),
            (
                Head { name: "weft_tcp_received_bytes_total", kind: "counter", help: "Bytes from clients." },
                Box::new(sum(|s| s.received.get())),
            ),
            (
                Head { name: "weft_tcp_sent_bytes_total", kind: "counter", help: "Bytes to clients." },
                Box::new(sum(|s| s.sent.get())),
            ),
        ];
        for (family, value) in families {
            head(out, &family);
            for (labels, series) in &all {
                line(out, family.name, &text_of(labels), value(series));
            }
        }
    }

    fn render_events(&self, out: &mut String) {
        let mut last = None;
        for (labels, series) in self.gather(|shard| &shard.events) {
            let family = labels.family;
            let name = family.full_name();
            if last != Some(family) {
                head(out, &Head { name: &name, kind: family.kind.as_str(), help: family.help });
                last = Some(family);
            }
            line(out, &name, &text_of(&labels), series.iter().map(|series| series.count.get()).sum());
        }
    }
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

fn head(out: &mut String, family: &Head<'_>) {
    let Head { name, kind, help } = family;
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn text_of(labels: &impl Labels) -> String {
    let mut text = String::with_capacity(256);
    labels.write(&mut text);
    text
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

fn histograms<L: Labels, S>(
    out: &mut String,
    family: &Head<'_>,
    all: &BTreeMap<L, Vec<Arc<S>>>,
    (bounds, unit): (&[(u64, &str)], f64),
    total: impl Fn(&Vec<Arc<S>>) -> HistogramTotal,
) {
    head(out, family);
    let name = family.name;
    for (labels, series) in all {
        let (total, text) = (total(series), text_of(labels));
        let mut below = 0;
        for ((_, le), count) in bounds.iter().zip(&total.buckets) {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{{text},le=\"{le}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_bucket{{{text},le=\"+Inf\"}} {}", total.count);
        let _ = writeln!(out, "{name}_sum{{{text}}} {}", total.sum as f64 / unit);
        let _ = writeln!(out, "{name}_count{{{text}}} {}", total.count);
    }
}
