//! Lines on their way to a collector: log records of OTLP, their attributes named by OpenTelemetry's conventions, with
//! `weft.` before what is the mesh's own.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tonic::transport::Channel;
use weft_api::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use weft_api::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use weft_api::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value};
use weft_api::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use weft_core::ids::NodeName;
use weft_core::reason::Reason;
use weft_core::telemetry::Collector;

use super::{Content, Entry, Line, is_failure, words};
use crate::otlp::{self, ExportSettings, Owner, Queue, SCHEMA, Signal, nanoseconds, number, text};
use crate::store::Store;

/// Methods that have names of their own (RFC 9110, section 9, and PATCH); clients may make up others.
pub(crate) const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The attribute of each field that is no part of the record itself, nor several attributes (`source_address`, `method`).
pub(super) const ATTRIBUTES: [(&str, &str); 32] = [
    ("direction", "weft.direction"),
    ("reporter", "weft.reporter"),
    ("source", "weft.source.workload"),
    ("source_identity", "weft.source.identity"),
    ("destination", "weft.destination.workload"),
    ("destination_identity", "weft.destination.identity"),
    ("endpoint", "weft.endpoint"),
    ("service", "weft.service"),
    ("route", "weft.route"),
    ("rule", "weft.rule"),
    ("protocol", "weft.protocol"),
    ("authority", "server.address"),
    ("path", "url.path"),
    ("status", "http.response.status_code"),
    ("grpc_status", "rpc.grpc.status_code"),
    ("reason", "weft.reason"),
    ("made_by", "weft.made_by"),
    ("detail", "weft.detail"),
    ("request_bytes", "http.request.body.size"),
    ("response_bytes", "http.response.body.size"),
    ("duration_ms", "weft.duration_ms"),
    ("upstream_ms", "weft.upstream_ms"),
    ("tries", "weft.tries"),
    ("connection_security", "weft.connection_security"),
    ("client_tls", "weft.client_tls"),
    ("request_id", "weft.request_id"),
    ("decision", "weft.decision"),
    ("mode", "weft.policy_mode"),
    ("policy", "weft.policy"),
    ("workload", "weft.destination.workload"),
    ("workload_identity", "weft.destination.identity"),
    ("port", "server.port"),
];

/// What a record has beside the texts that peers have the length of, in bytes, somewhat more than it is.
const FIXED: usize = 3072;

/// A line for a collector.
#[derive(Debug)]
pub(super) struct Record {
    collector: Collector,
    owner: Owner,
    at: SystemTime,
    line: Line,
}

impl Record {
    /// What a collector is told.
    pub(super) fn told(&self) -> LogRecord {
        record(&self.line, self.at)
    }
}

impl Signal for Record {
    const NAME: &'static str = "lines of the access log";
    const THREAD: &'static str = "otlp-lines";

    fn collector(&self) -> &Collector {
        &self.collector
    }

    fn size(&self) -> usize {
        // In the body and in attributes.
        2 * self.line.content.texts() + FIXED
    }

    fn dropped(reason: &'static str, count: usize) {
        metrics::counter!("weft_access_log_records_dropped_total", "reason" => reason).increment(count as u64);
    }

    fn export(
        batch: Vec<Self>,
        node: &NodeName,
        channel: Channel,
    ) -> impl Future<Output = Result<i64, tonic::Status>> + Send + 'static + use<> {
        let request = request(batch, node);
        async move {
            let answer = LogsServiceClient::new(channel).export(request).await?.into_inner();
            Ok(answer.partial_success.map_or(0, |partial| partial.rejected_log_records))
        }
    }
}

/// The workers' end of the queue of lines for collectors; the default one takes nothing.
#[derive(Clone, Debug, Default)]
pub struct Lines(Queue<Record>);

impl Lines {
    pub(super) fn send(&self, line: Line, collector: Collector, owner: Owner, at: SystemTime) {
        self.0.send(Box::new(Record { collector, owner, at, line }));
    }

    /// A queue that is emptied by hand.
    #[cfg(test)]
    pub(super) fn bare() -> (Self, tokio::sync::mpsc::Receiver<Box<Record>>) {
        let (queue, records) = Queue::bare();
        (Self(queue), records)
    }
}

/// Starts the thread that sends lines. It ends when nobody can send it anything any more.
///
/// # Errors
/// A thread that can't be made.
pub fn start(settings: ExportSettings, store: Arc<Store>) -> io::Result<Lines> {
    otlp::start(settings, store).map(Lines)
}

/// One request of lines, by whose they are.
fn request(batch: Vec<Record>, node: &NodeName) -> ExportLogsServiceRequest {
    let records = otlp::by_owner(batch.into_iter().map(|it| (it.owner.clone(), it.told())));
    let logs = records.into_iter().map(|(owner, log_records)| ResourceLogs {
        resource: Some(owner.resource(node)),
        scope_logs: vec![ScopeLogs { scope: Some(otlp::scope()), log_records }],
        schema_url: SCHEMA.into(),
    });
    ExportLogsServiceRequest { resource_logs: logs.collect() }
}

pub(super) fn record(line: &Line, at: SystemTime) -> LogRecord {
    let (severity, event) = match &line.content {
        Content::Access(entry) => (severity(entry), "weft.access"),
        Content::Audit(entry) if entry.is_refusal() => (SeverityNumber::Warn, "weft.authorization"),
        Content::Audit(_) => (SeverityNumber::Info, "weft.authorization"),
    };
    let (trace, span) = match &line.content {
        Content::Access(entry) => (u128::from_str_radix(&entry.trace_id, 16).ok(), entry.span_id),
        Content::Audit(_) => (None, None),
    };
    let fields = line.chosen();
    let is_connection = matches!(&line.content, Content::Access(entry) if entry.protocol == "tcp");
    LogRecord {
        time_unix_nano: nanoseconds(at),
        observed_time_unix_nano: nanoseconds(at),
        severity_number: severity.into(),
        severity_text: name(severity).into(),
        body: Some(otlp::words(words(&fields))),
        attributes: fields.into_iter().flat_map(|(field, value)| attributes(&field, value, is_connection)).collect(),
        flags: u32::from(span.is_some()),
        trace_id: trace.map(|trace| trace.to_be_bytes().to_vec()).unwrap_or_default(),
        span_id: span.map(|span| span.to_be_bytes().to_vec()).unwrap_or_default(),
        event_name: event.into(),
    }
}

/// By the status; what has none, or was broken off after one that is well, by the reason.
fn severity(entry: &Entry) -> SeverityNumber {
    match entry.status {
        400..=499 => SeverityNumber::Warn,
        status if is_failure(status, Reason::of_code(entry.reason).unwrap_or(Reason::Ok)) => SeverityNumber::Error,
        _ => SeverityNumber::Info,
    }
}

const fn name(severity: SeverityNumber) -> &'static str {
    match severity {
        SeverityNumber::Error => "ERROR",
        SeverityNumber::Warn => "WARN",
        SeverityNumber::Info | SeverityNumber::Unspecified => "INFO",
    }
}

/// The attributes of a field; none of one that isn't known.
fn attributes(field: &str, value: Value, is_connection: bool) -> Vec<KeyValue> {
    match (field, value) {
        (_, Value::String(text)) if text.is_empty() => Vec::new(),
        ("status" | "tries", Value::Number(number)) if number.as_i64() == Some(0) => Vec::new(),
        ("source_address", Value::String(address)) => client(&address),
        ("method", Value::String(method)) => match METHODS.contains(&method.as_str()) {
            true => vec![text("http.request.method", method)],
            false => vec![text("http.request.method", "_OTHER"), text("http.request.method_original", method)],
        },
        ("grpc_status", Value::String(code)) => {
            code.parse::<i64>().ok().map(|code| number("rpc.grpc.status_code", code)).into_iter().collect()
        }
        ("request_bytes", Value::Number(bytes)) if is_connection => vec![number("weft.request_bytes", whole(&bytes))],
        ("response_bytes", Value::Number(bytes)) if is_connection => vec![number("weft.response_bytes", whole(&bytes))],
        (field, value) => {
            let known = ATTRIBUTES.iter().find(|(known, _)| *known == field);
            known.and_then(|(_, key)| attribute(key, value)).into_iter().collect()
        }
    }
}

/// An address with its port, or what else is known of who called.
fn client(address: &str) -> Vec<KeyValue> {
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) => vec![text("client.address", address.ip().to_string()), number("client.port", address.port())],
        Err(_) => vec![text("client.address", address)],
    }
}

fn whole(number: &serde_json::Number) -> i64 {
    number.as_i64().unwrap_or(i64::MAX)
}

fn attribute(key: &str, value: Value) -> Option<KeyValue> {
    let value = match value {
        Value::String(text) => any_value::Value::StringValue(text),
        Value::Bool(is) => any_value::Value::BoolValue(is),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(real) => any_value::Value::DoubleValue(real),
            None => any_value::Value::IntValue(whole(&number)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) })
}
