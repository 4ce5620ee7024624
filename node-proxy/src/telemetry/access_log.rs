//! One line for each request or connection that is worth one, written off the request path.
//!
//! Workers hand entries to a writer thread through a bounded channel; when it is full the entry is dropped and counted:
//! a slow disk never slows traffic. Lines for a collector go the same way to another thread.
//!
//! Which requests get a line, how it looks and what is in it is a TelemetryPolicy's, else the process's settings. The fields
//! are those of [`weft_core::telemetry::LOG_FIELDS`]; docs/access-log.md says what each means.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::telemetry::{self as terms, Defaults, LogFields, LogMode, Share};

use super::audit::AuditEntry;
use crate::otlp::Owner;
use crate::store::Store;
use crate::tap::Taps;
use crate::trace::Spans;

mod export;

pub(crate) use export::METHODS;
pub use export::{Lines, start as start_lines};
pub use weft_core::telemetry::LogFormat;

/// Entries that may wait for the writer.
const QUEUE: usize = 4096;

/// Which requests get a line where no policy says so, as a person gives it at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LogPolicy {
    /// None.
    Off,
    /// Those that failed.
    #[default]
    Errors,
    /// Errors, and this share of the others.
    Sampled(f64),
    /// All.
    All,
}

impl LogPolicy {
    /// As a policy would say it.
    fn terms(self, format: LogFormat) -> terms::AccessLog {
        let (mode, sampling) = match self {
            Self::Off => (LogMode::Disabled, Share::ALL),
            Self::Errors => (LogMode::Errors, Share::ALL),
            Self::Sampled(share) => (LogMode::All, Share::of(share).unwrap_or(Share::ALL)),
            Self::All => (LogMode::All, Share::ALL),
        };
        let audit = mode != LogMode::Disabled;
        terms::AccessLog { mode, sampling, format, audit, ..terms::AccessLog::default() }
    }
}

/// Whether a request or connection failed, for the log: a status of 500 and up, or a reason that is a proxy's or the network's.
pub fn is_failure(status: u16, reason: Reason) -> bool {
    status >= 500 || !matches!(reason, Reason::Ok | Reason::Redirect | Reason::CorsPreflight)
}

/// One line; see the module for the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the module's table documents the fields")]
pub struct Entry {
    pub time: String,
    pub direction: &'static str,
    pub reporter: &'static str,
    pub source: String,
    pub source_identity: String,
    pub source_address: String,
    pub destination: String,
    pub destination_identity: String,
    pub endpoint: String,
    pub service: String,
    pub route: String,
    pub rule: String,
    pub protocol: &'static str,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub status: u16,
    pub grpc_status: String,
    pub reason: &'static str,
    pub made_by: &'static str,
    pub detail: String,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration_ms: f64,
    pub upstream_ms: f64,
    pub tries: u32,
    pub connection_security: &'static str,
    pub client_tls: bool,
    pub request_id: String,
    pub trace_id: String,
    #[serde(skip)]
    pub span_id: Option<u64>,
}

/// An entry on its way to the writer.
#[derive(Debug)]
struct Line {
    content: Content,
    format: LogFormat,
    fields: LogFields,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content {
    Access(Box<Entry>),
    Audit(Box<AuditEntry>),
}

impl Content {
    /// How long the texts are that peers have the length of.
    fn texts(&self) -> usize {
        match self {
            Self::Access(it) => it.method.len() + it.authority.len() + it.path.len() + it.detail.len(),
            Self::Audit(it) => it.texts(),
        }
    }
}

/// A duration as the log shows it: milliseconds with three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The workers' end of the log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    defaults: Defaults,
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    store: Option<Arc<Store>>,
    spans: Spans,
    lines: Lines,
    taps: Taps,
}

/// The writer's end.
#[derive(Debug)]
pub struct LogQueue {
    lines: Receiver<Line>,
}

impl AccessLog {
    /// A log and the queue that [`LogQueue::write_to`] empties. `policy` and `format` hold where no TelemetryPolicy says
    /// anything else.
    pub fn new(policy: LogPolicy, format: LogFormat) -> (Self, LogQueue) {
        let (queue, lines) = sync_channel(QUEUE);
        let defaults = Defaults { access_log: policy.terms(format), ..Defaults::default() };
        let (dropped, spans, taps) = (Arc::default(), Spans::default(), Taps::default());
        let log = Self { defaults, queue, dropped, store: None, spans, lines: Lines::default(), taps };
        (log, LogQueue { lines })
    }

    /// Follows the policies of a configuration, also for connections that are relayed as bytes.
    #[must_use]
    pub fn following(self, store: Arc<Store>) -> Self {
        Self { store: Some(store), ..self }
    }

    /// Sends spans too. `has_collector`: some go to a collector without a policy saying so, of this share of requests.
    #[must_use]
    pub fn sending(self, spans: Spans, has_collector: bool, sampling: Share) -> Self {
        Self { spans, defaults: Defaults { has_collector, sampling, ..self.defaults }, ..self }
    }

    /// Sends lines to collectors too. `has_collector`: all go to one instead of the standard output, unless a policy says
    /// otherwise.
    #[must_use]
    pub fn exporting(mut self, lines: Lines, has_collector: bool) -> Self {
        self.defaults.access_log.collector = has_collector.then_some(terms::Collector::Default);
        Self { lines, ..self }
    }

    /// Who looks on.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    /// Where spans go.
    pub(crate) fn spans(&self) -> &Spans {
        &self.spans
    }

    /// What holds where no policy says anything else.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The configuration as it is now, if policies of it say what is logged.
    pub(super) fn policies(&self) -> Option<Arc<Snapshot>> {
        let snapshot = self.store.as_ref()?.load();
        snapshot.has_telemetry_policies().then(|| Arc::clone(&snapshot))
    }

    /// Queues a line, or drops and counts it. `owner`: whose it is, for a collector.
    pub(crate) fn write(&self, terms: &terms::AccessLog, mut entry: Box<Entry>, owner: impl FnOnce() -> Owner) {
        let at = SystemTime::now();
        entry.time = rfc3339(at);
        let line = Line { content: Content::Access(entry), format: terms.format, fields: terms.fields };
        self.queue(line, terms, at, owner);
    }

    /// The same of a decision of a policy. All its fields are always there.
    pub(super) fn audit(&self, terms: &terms::AccessLog, mut entry: AuditEntry, owner: impl FnOnce() -> Owner) {
        let at = SystemTime::now();
        entry.time = rfc3339(at);
        let content = Content::Audit(Box::new(entry));
        self.queue(Line { content, format: terms.format, fields: LogFields::ALL }, terms, at, owner);
    }

    fn queue(&self, line: Line, terms: &terms::AccessLog, at: SystemTime, owner: impl FnOnce() -> Owner) {
        if let Some(collector) = &terms.collector {
            return self.lines.send(line, collector.clone(), owner(), at);
        }
        if self.queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("weft_access_log_dropped_lines_total").increment(1);
        }
    }

    /// Lines that were dropped because the writer was slow or gone.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl LogQueue {
    /// Writes lines until all logs are gone; for a thread of its own.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(self, mut out: impl Write) -> std::io::Result<()> {
        while let Ok(first) = self.lines.recv() {
            // A burst is written at once.
            for line in std::iter::once(first).chain(self.lines.try_iter()) {
                out.write_all(line.text().as_bytes())?;
            }
            out.flush()?;
        }
        Ok(())
    }

    /// The entries that wait.
    #[cfg(test)]
    pub(crate) fn take_now(&self) -> Vec<Entry> {
        let of = |line: Line| match line.content {
            Content::Access(entry) => Some(*entry),
            Content::Audit(_) => None,
        };
        self.lines.try_iter().filter_map(of).collect()
    }

    /// The lines that wait.
    #[cfg(test)]
    pub(crate) fn lines_now(&self) -> Vec<String> {
        self.lines.try_iter().map(|line| line.text()).collect()
    }
}

/// RFC 3339, UTC.
fn rfc3339(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

impl Line {
    fn text(&self) -> String {
        let mut line = match (self.format, self.fields == LogFields::ALL) {
            (LogFormat::Json, true) => serde_json::to_string(&self.content).unwrap_or_default(),
            (LogFormat::Json, false) => serde_json::Value::Object(self.chosen()).to_string(),
            (LogFormat::Text, _) => words(&self.chosen()),
        };
        line.push('\n');
        line
    }

    /// The fields that are asked for, in the order of the line.
    fn chosen(&self) -> serde_json::Map<String, serde_json::Value> {
        let Ok(serde_json::Value::Object(mut all)) = serde_json::to_value(&self.content) else {
            return Default::default();
        };
        if self.fields != LogFields::ALL {
            all.retain(|name, _| self.fields.has(name));
        }
        all
    }
}

/// The fields of the JSON form, as `name=value`.
fn words(fields: &serde_json::Map<String, serde_json::Value>) -> String {
    let quoted = |value: &serde_json::Value| match value {
        // The value of a peer may hold anything: quoting keeps it on its line and in its field.
        serde_json::Value::String(text) if !text.is_empty() && text.bytes().all(is_bare) => text.clone(),
        other => other.to_string(),
    };
    fields.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect::<Vec<_>>().join(" ")
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\')
}

#[cfg(test)]
mod tests;
