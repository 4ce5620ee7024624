//! Records as lines of columns. They come one by one, so that widths are fixed; what is longer pushes the rest.

use std::fmt;

use weft_core::tap::Record;

/// Names and widths.
const COLUMNS: [(&str, usize); 10] = [
    ("TIME", 12),
    ("SEEN BY", 11),
    ("FROM", 22),
    ("TO", 22),
    ("STATUS", 15),
    ("MS", 8),
    ("SECURITY", 10),
    ("ROUTE", 24),
    ("ENDPOINT", 20),
    ("REQUEST", 0),
];

/// The names of the columns.
pub(super) fn header() -> String {
    line(COLUMNS.map(|(name, _)| name.to_owned()))
}

fn line(cells: [String; 10]) -> String {
    let padded = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| format!("{cell:<width$}"));
    format!("  {}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
}

/// Text of a peer, without what a terminal takes for an order.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A record.
pub(super) struct Row<'a>(pub(super) &'a Record);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        let cells = [
            clock(&it.time),
            it.reporter.clone(),
            pod(&it.source_namespace, &it.source_pod, &it.source_address),
            pod(&it.destination_namespace, &it.destination_pod, &it.service),
            self.status(),
            format!("{:.1}", it.duration_ms),
            it.connection_security.clone(),
            self.route(),
            it.endpoint.clone(),
            self.request(),
        ];
        f.write_str(&line(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) })))
    }
}

impl Row<'_> {
    /// `200`, `200 grpc 14`, `503 no_endpoint`
    fn status(&self) -> String {
        let it = self.0;
        let mut text = if it.status > 0 { it.status.to_string() } else { String::new() };
        if !it.grpc_status.is_empty() {
            text += &format!(" grpc {}", it.grpc_status);
        }
        if it.reason != "ok" {
            text += &format!(" {}", it.reason);
        }
        text.trim_start().to_owned()
    }

    /// `shop/canary rule 1`
    fn route(&self) -> String {
        match self.0.route.split_once('/') {
            Some((_kind, name)) => format!("{name} rule {}", self.0.rule),
            None => String::new(),
        }
    }

    /// `GET cart.shop/items`, or bytes of what isn't HTTP.
    fn request(&self) -> String {
        let it = self.0;
        match it.method.is_empty() {
            true => format!("{} {} B in, {} B out", it.protocol, it.request_bytes, it.response_bytes),
            false => format!("{} {}{}", it.method, it.authority, it.path),
        }
    }
}

fn pod(namespace: &str, pod: &str, otherwise: &str) -> String {
    match pod.is_empty() {
        true => otherwise.to_owned(),
        false => format!("{namespace}/{pod}"),
    }
}

/// `10:00:00.120` of `2026-11-22T10:00:00.12Z`
fn clock(time: &str) -> String {
    let clock = time.split_once('T').map_or(time, |(_, clock)| clock).trim_end_matches('Z');
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    format!("{seconds}.{digits}")
}
