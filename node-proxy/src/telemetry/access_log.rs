//! One line for each request or connection that is worth one, written off the request path.
//!
//! Workers hand entries to a writer thread through a bounded channel; when it is full the entry is dropped and counted:
//! a slow disk never slows traffic.
//!
//! The fields of a JSON line, all of them always there (an unknown one is empty or 0), in this order:
//!
//! | field | meaning |
//! |---|---|
//! | `time` | when the request ended, RFC 3339, UTC |
//! | `reporter` | `source` or `destination`: which end's proxy wrote the line |
//! | `source`, `source_identity`, `source_address` | namespace/workload, SPIFFE ID, socket address of the client; at a Gateway the workload is the Gateway, and the address that of the client as its parameters have it |
//! | `destination`, `destination_identity`, `endpoint` | the same of the endpoint that was picked |
//! | `service`, `route`, `rule` | what was dialled, and the rule that matched |
//! | `protocol`, `method`, `authority`, `path`, `status`, `grpc_status` | the request and its answer |
//! | `reason` | a code of the closed set; `ok` when the application answered |
//! | `detail` | more on the reason; where a Gateway's policies deny, which |
//! | `request_bytes`, `response_bytes`, `duration_ms`, `upstream_ms` | bodies; whole time; time to the answer's head |
//! | `tries`, `connection_security`, `request_id` | tries, protection upstream, the request's `x-request-id` |

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use weft_core::reason::Reason;

/// Entries that may wait for the writer.
const QUEUE: usize = 4096;

/// Which requests get a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LogPolicy {
    /// None.
    Off,
    /// Those that failed: a reason of ours, or a status of 500 and up.
    #[default]
    Errors,
    /// Errors, and this share of the others.
    Sampled(f64),
    /// All.
    All,
}

impl LogPolicy {
    /// Whether a request gets a line; `random` is uniform.
    pub fn wants(self, status: u16, reason: Reason, random: u64) -> bool {
        let failed = status >= 500 || !matches!(reason, Reason::Ok | Reason::Redirect | Reason::CorsPreflight);
        match self {
            Self::Off => false,
            Self::Errors => failed,
            Self::Sampled(share) => failed || (random as f64) < share * u64::MAX as f64,
            Self::All => true,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// `field=value` separated by spaces, values quoted where needed.
    Text,
}

/// One line; see the module for the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the module's table documents the fields")]
pub struct Entry {
    pub time: String,
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
    pub detail: String,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration_ms: f64,
    pub upstream_ms: f64,
    pub tries: u32,
    pub connection_security: &'static str,
    pub request_id: String,
}

/// A duration as the log shows it: milliseconds with three decimals.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The workers' end of the log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    policy: LogPolicy,
    queue: SyncSender<Box<Entry>>,
    dropped: Arc<AtomicU64>,
}

/// The writer's end.
#[derive(Debug)]
pub struct LogQueue {
    entries: Receiver<Box<Entry>>,
    format: LogFormat,
}

impl AccessLog {
    /// A log and the queue that [`LogQueue::write_to`] empties.
    pub fn new(policy: LogPolicy, format: LogFormat) -> (Self, LogQueue) {
        let (queue, entries) = sync_channel(QUEUE);
        (Self { policy, queue, dropped: Arc::default() }, LogQueue { entries, format })
    }

    /// Which requests get a line.
    pub fn policy(&self) -> LogPolicy {
        self.policy
    }

    /// Queues a line, or drops and counts it.
    pub fn write(&self, mut entry: Box<Entry>) {
        let now = time::OffsetDateTime::from(SystemTime::now());
        entry.time = now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
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
        while let Ok(first) = self.entries.recv() {
            // A burst is written at once.
            for entry in std::iter::once(first).chain(self.entries.try_iter()) {
                out.write_all(self.line(&entry).as_bytes())?;
            }
            out.flush()?;
        }
        Ok(())
    }

    /// The entries that wait.
    #[cfg(test)]
    pub(crate) fn take_now(&self) -> Vec<Entry> {
        self.entries.try_iter().map(|entry| *entry).collect()
    }

    fn line(&self, entry: &Entry) -> String {
        let mut line = match self.format {
            LogFormat::Json => serde_json::to_string(entry).unwrap_or_default(),
            LogFormat::Text => text(entry),
        };
        line.push('\n');
        line
    }
}

/// The fields of the JSON form, as `name=value`.
fn text(entry: &Entry) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(entry) else { return String::new() };
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
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_peer_cannot_leave_its_field() {
        let (_log, queue) = AccessLog::new(LogPolicy::All, LogFormat::Text);
        let entry = Entry { path: "/a reason=ok\nb\"".into(), reason: "no_route", ..Entry::default() };
        let line = queue.line(&entry);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#"path="/a reason=ok\nb\"""#), "{line}");
    }

    #[test]
    fn errors_only_by_default_and_a_full_queue_drops() {
        let policy = LogPolicy::default();
        assert!(policy.wants(503, Reason::Ok, 0));
        assert!(policy.wants(404, Reason::NoRoute, 0));
        assert!(!policy.wants(404, Reason::Ok, 0));
        assert!(LogPolicy::Sampled(0.5).wants(200, Reason::Ok, u64::MAX / 4));
        assert!(!LogPolicy::Sampled(0.5).wants(200, Reason::Ok, u64::MAX / 4 * 3));
        let (log, queue) = AccessLog::new(LogPolicy::All, LogFormat::Json);
        for _ in 0..QUEUE + 3 {
            log.write(Box::default());
        }
        assert_eq!(log.dropped(), 3);
        drop(log);
        let mut out = Vec::new();
        queue.write_to(&mut out).unwrap();
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), QUEUE);
        let first: serde_json::Value = serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
        assert!(first["time"].as_str().unwrap().ends_with('Z'));
    }
}
