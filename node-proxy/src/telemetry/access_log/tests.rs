//! How lines look, and which there are.

use weft_api::opentelemetry::proto::common::v1::any_value;
use weft_api::opentelemetry::proto::logs::v1::{LogRecord, SeverityNumber};
use weft_core::change::{Change, Resource};
use weft_core::ids::PolicyKey;
use weft_core::policy::Scope;
use weft_core::telemetry::{AccessLogPolicy, Collector, LOG_FIELDS, TelemetryPolicy, TracingPolicy};

use super::export::{ATTRIBUTES, record};
use super::*;
use crate::otlp::QUEUE as RECORDS;

fn line(format: LogFormat, fields: LogFields, entry: Entry) -> String {
    Line { content: Content::Access(Box::new(entry)), format, fields }.text()
}

fn names(json: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn a_line_has_the_fields_that_are_documented_in_their_order() {
    assert_eq!(names(&line(LogFormat::Json, LogFields::ALL, Entry::default())), LOG_FIELDS);
    let docs = include_str!("../../../../docs/access-log.md");
    let docs = docs.split("## Decisions").next().unwrap();
    let rows: Vec<_> = docs.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`')).collect();
    assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), LOG_FIELDS, "docs/access-log.md");
}

#[test]
fn a_value_of_a_peer_cannot_leave_its_field() {
    let entry = Entry { path: "/a reason=ok\nb\"".into(), reason: "no_route", ..Entry::default() };
    let text = line(LogFormat::Text, LogFields::ALL, entry);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.contains(r#"path="/a reason=ok\nb\"""#), "{text}");
}

#[test]
fn a_line_has_what_is_asked_for_and_nothing_else() {
    let entry = || Entry { path: "/a".into(), status: 503, reason: "no_endpoint", ..Entry::default() };
    let fields = LogFields::named(["status", "path", "unheard of"]);
    assert_eq!(line(LogFormat::Json, fields, entry()), "{\"path\":\"/a\",\"status\":503}\n");
    assert_eq!(line(LogFormat::Text, fields, entry()), "path=/a status=503\n");
}

#[test]
fn errors_only_by_default_and_a_full_queue_drops() {
    let wants = |policy: LogPolicy, status, reason, random| {
        policy.terms(LogFormat::Json).wants(is_failure(status, reason), random)
    };
    let policy = LogPolicy::default();
    assert!(wants(policy, 503, Reason::Ok, 0));
    assert!(wants(policy, 404, Reason::NoRoute, 0));
    assert!(!wants(policy, 404, Reason::Ok, 0));
    assert!(!wants(LogPolicy::Off, 503, Reason::NoRoute, 0));
    assert!(wants(LogPolicy::Sampled(0.5), 200, Reason::Ok, u64::MAX / 4));
    assert!(!wants(LogPolicy::Sampled(0.5), 200, Reason::Ok, u64::MAX / 4 * 3));
    let (log, queue) = AccessLog::new(LogPolicy::All, LogFormat::Json);
    let terms = log.defaults().access_log.clone();
    for _ in 0..QUEUE + 3 {
        log.write(&terms, Box::default(), Owner::default);
    }
    assert_eq!(log.dropped(), 3);
    drop(log);
    let mut out = Vec::new();
    queue.write_to(&mut out).unwrap();
    assert_eq!(out.iter().filter(|b| **b == b'\n').count(), QUEUE);
    let first: serde_json::Value = serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert!(first["time"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_decision_has_a_line_of_its_own_whatever_fields_others_have() {
    use weft_core::authorize::{CallFacts, HttpFacts};

    let (log, queue) = AccessLog::new(LogPolicy::Errors, LogFormat::Json);
    let pod = crate::plain::fixed_pod();
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    let http = HttpFacts { method: &method, host: "a.shop", path: "/x", ambiguous_path: false, headers: &headers };
    let call = CallFacts {
        identity: None,
        trust_domains: &Default::default(),
        peer_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        dst_port: weft_core::ids::Port::new(80).unwrap(),
        http: Some(http),
    };
    let key = PolicyKey::new("shop", "none");
    let word = crate::observe::PolicyWord { policy: Some(&key), said: "would_deny", enforced: false };
    let terms = terms::AccessLog { fields: LogFields::named(["status"]), ..log.defaults().access_log.clone() };
    log.audit(&terms, AuditEntry::new(pod.announced(), &"127.0.0.1:4000", &call, word), Owner::default);
    let line: serde_json::Value = serde_json::from_str(&queue.lines_now()[0]).unwrap();
    for (field, value) in [
        ("audit", "authorization"),
        ("decision", "would_deny"),
        ("mode", "audit"),
        ("policy", "shop/none"),
        ("source_address", "127.0.0.1:4000"),
        ("path", "/x"),
    ] {
        assert_eq!(line[field], value);
    }
    assert_eq!(line["port"], 80);

    // A collector gets it in its own words.
    let (lines, mut records) = Lines::bare();
    let terms = terms::AccessLog { collector: Some(Collector::Default), ..terms };
    let refused = crate::observe::PolicyWord { policy: Some(&key), said: "deny", enforced: true };
    let log = log.exporting(lines, false);
    log.audit(&terms, AuditEntry::new(pod.announced(), &"127.0.0.1:4000", &call, refused), Owner::default);
    assert_eq!(queue.lines_now(), Vec::<String>::new(), "there and nowhere else");
    let made = records.try_recv().unwrap().told();
    assert_eq!((made.event_name.as_str(), made.severity_text.as_str()), ("weft.authorization", "WARN"));
    for (key, value) in [
        ("weft.decision", "deny"),
        ("weft.policy_mode", "enforce"),
        ("weft.policy", "shop/none"),
        ("client.address", "127.0.0.1"),
        ("client.port", "4000"),
        ("server.port", "80"),
        ("url.path", "/x"),
    ] {
        assert_eq!(said(&made, key).as_deref(), Some(value), "{key}");
    }
}

/// What a record says of something, as text.
fn said(record: &LogRecord, key: &str) -> Option<String> {
    let found = record.attributes.iter().filter(|it| it.key == key).collect::<Vec<_>>();
    assert!(found.len() < 2, "{key} is there twice");
    Some(match found.first()?.value.clone()?.value? {
        any_value::Value::StringValue(text) => text,
        any_value::Value::BoolValue(is) => is.to_string(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
    })
}

fn told(entry: Entry, fields: LogFields) -> LogRecord {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    record(&Line { content: Content::Access(Box::new(entry)), format: LogFormat::Json, fields }, at)
}

#[test]
fn every_field_is_documented_with_its_attribute() {
    let docs = include_str!("../../../../docs/access-log.md");
    let docs = docs.split("## To a collector").nth(1).unwrap().split("\n## ").next().unwrap();
    let row = |row: &str| {
        let mut cells = row.strip_prefix("| `")?.split('`').step_by(2).map(str::to_owned);
        Some((cells.next()?, cells.next()?))
    };
    let rows: Vec<_> = docs.lines().filter_map(row).collect();
    let known: Vec<_> = ATTRIBUTES.iter().map(|(field, key)| ((*field).to_owned(), (*key).to_owned())).collect();
    assert_eq!(rows, known, "docs/access-log.md");
    for field in LOG_FIELDS {
        let is_special = ["time", "trace_id", "source_address", "method"].contains(&field);
        assert!(is_special || ATTRIBUTES.iter().any(|(known, _)| *known == field), "{field}");
    }
}

#[test]
fn a_collector_gets_the_fields_by_the_names_of_the_conventions() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let entry = || Entry {
        source_address: "[2001:db8::1]:5000".into(),
        method: "GET".into(),
        path: "/a b".into(),
        status: 503,
        grpc_status: "14".into(),
        reason: "no_endpoint",
        protocol: "http1",
        request_bytes: 3,
        duration_ms: 1.5,
        client_tls: true,
        trace_id: trace.into(),
        span_id: Some(7),
        ..Entry::default()
    };
    let all = told(entry(), LogFields::ALL);
    for (key, value) in [
        ("client.address", Some("2001:db8::1")),
        ("client.port", Some("5000")),
        ("http.request.method", Some("GET")),
        ("url.path", Some("/a b")),
        ("http.response.status_code", Some("503")),
        ("rpc.grpc.status_code", Some("14")),
        ("weft.reason", Some("no_endpoint")),
        ("http.request.body.size", Some("3")),
        ("weft.duration_ms", Some("1.5")),
        ("weft.client_tls", Some("true")),
        ("weft.tries", None),
        ("weft.route", None),
    ] {
        assert_eq!(said(&all, key).as_deref(), value, "{key}");
    }
    assert_eq!((all.time_unix_nano, all.event_name.as_str()), (7_000_000_000, "weft.access"));
    assert_eq!(all.trace_id, u128::from_str_radix(trace, 16).unwrap().to_be_bytes());
    assert_eq!((all.span_id, all.flags), (vec![0, 0, 0, 0, 0, 0, 0, 7], 1));
    let few = told(entry(), LogFields::named(["path", "status"]));
    let body = few.body.clone().and_then(|body| body.value);
    assert_eq!(body, Some(any_value::Value::StringValue(r#"path="/a b" status=503"#.into())));
    assert_eq!((few.attributes.len(), few.trace_id.len()), (2, 16), "and the trace is the record's own");

    // A connection has no request, and a method of the client's no name of its own.
    let bytes = Entry { protocol: "tcp", request_bytes: 3, ..Entry::default() };
    let of_bytes = told(bytes, LogFields::ALL);
    assert_eq!(said(&of_bytes, "weft.request_bytes").as_deref(), Some("3"));
    assert_eq!((said(&of_bytes, "http.request.body.size"), of_bytes.flags), (None, 0));
    let odd = told(Entry { method: "FROB".into(), ..Entry::default() }, LogFields::ALL);
    assert_eq!(said(&odd, "http.request.method").as_deref(), Some("_OTHER"));
    assert_eq!(said(&odd, "http.request.method_original").as_deref(), Some("FROB"));
}

#[test]
fn how_bad_it_is_follows_from_the_status_else_from_the_reason() {
    for (status, reason, expected) in [
        (200, "ok", SeverityNumber::Info),
        (302, "redirect", SeverityNumber::Info),
        (404, "ok", SeverityNumber::Warn),
        (403, "policy_denied", SeverityNumber::Warn),
        (503, "ok", SeverityNumber::Error),
        (200, "upstream_reset", SeverityNumber::Error),
        (0, "connect_failed", SeverityNumber::Error),
        (0, "ok", SeverityNumber::Info),
    ] {
        let made = told(Entry { status, reason, ..Entry::default() }, LogFields::ALL);
        assert_eq!(made.severity_number, i32::from(expected), "{status} {reason}");
    }
}

#[test]
fn a_collector_that_is_slow_costs_its_own_lines_and_no_time() {
    let (lines, mut records) = Lines::bare();
    let (log, queue) = AccessLog::new(LogPolicy::All, LogFormat::Json);
    let log = log.exporting(lines, true);
    let terms = log.defaults().access_log.clone();
    assert_eq!(terms.collector, Some(Collector::Default));
    for _ in 0..RECORDS + 3 {
        log.write(&terms, Box::default(), Owner::default);
    }
    let mut taken = 0;
    while records.try_recv().is_ok() {
        taken += 1;
    }
    assert_eq!((taken, queue.take_now().len(), log.dropped()), (RECORDS, 0, 0));
    // The standard output isn't concerned.
    let terms = terms::AccessLog { collector: None, ..terms };
    log.write(&terms, Box::default(), Owner::default);
    assert_eq!(queue.take_now().len(), 1);
}

#[tokio::test]
async fn a_policy_of_the_configuration_counts_before_the_settings() {
    let store = Arc::<Store>::default();
    let (log, _queue) = AccessLog::new(LogPolicy::Errors, LogFormat::Json);
    let log = log.following(Arc::clone(&store));
    let telemetry =
        crate::telemetry::WorkerTelemetry::new(std::rc::Rc::new(crate::telemetry::Registry::default().recorder()), log);
    let pod = crate::plain::fixed_pod();
    assert_eq!(telemetry.terms_for(pod.announced()).mode, LogMode::Errors);
    let policy = TelemetryPolicy {
        key: PolicyKey::new("root", "all"),
        scope: Scope::Mesh,
        gateways: Vec::new(),
        created_unix_seconds: 0,
        access_log: AccessLogPolicy { mode: Some(LogMode::All), ..AccessLogPolicy::default() },
        tracing: TracingPolicy::default(),
    };
    store.apply(&[Change::Upsert(Resource::Telemetry(Arc::new(policy.clone())))]);
    let terms = telemetry.terms_for(pod.announced());
    assert_eq!((terms.mode, terms.format), (LogMode::All, LogFormat::Json));
    assert!(std::rc::Rc::ptr_eq(&terms, &telemetry.terms_for(pod.announced())), "worked out once");
    let access_log = AccessLogPolicy { mode: Some(LogMode::Disabled), ..AccessLogPolicy::default() };
    store.apply(&[Change::Upsert(Resource::Telemetry(Arc::new(TelemetryPolicy { access_log, ..policy })))]);
    assert_eq!(telemetry.terms_for(pod.announced()).mode, LogMode::Disabled, "until there is another configuration");
}

#[tokio::test]
async fn a_namespace_that_logs_nothing_hides_no_refusal() {
    use weft_core::authorize::CallFacts;

    use crate::observe::{Observer, PolicyWord};
    use crate::telemetry::{Registry, WorkerTelemetry};

    let store = Arc::<Store>::default();
    let (log, queue) = AccessLog::new(LogPolicy::All, LogFormat::Json);
    let log = log.following(Arc::clone(&store));
    let telemetry = WorkerTelemetry::new(std::rc::Rc::new(Registry::default().recorder()), log);
    let pod = crate::plain::fixed_pod();
    let refuse = || {
        let (peer_ip, dst_port) = (std::net::Ipv4Addr::LOCALHOST.into(), weft_core::ids::Port::new(80).unwrap());
        let call = CallFacts { identity: None, trust_domains: &Default::default(), peer_ip, dst_port, http: None };
        let word = PolicyWord { policy: None, said: "deny", enforced: true };
        telemetry.audited(pod.announced(), &"127.0.0.1:4000", &call, word);
        queue.lines_now().len()
    };
    assert_eq!(refuse(), 1);
    for (scope, lines) in [(Scope::Namespace(pod.announced().namespace.clone()), 1), (Scope::Mesh, 0)] {
        let policy = TelemetryPolicy {
            key: PolicyKey::new("root", "none"),
            scope,
            gateways: Vec::new(),
            created_unix_seconds: 0,
            access_log: AccessLogPolicy { mode: Some(LogMode::Disabled), ..AccessLogPolicy::default() },
            tracing: TracingPolicy::default(),
        };
        store.apply(&[Change::Upsert(Resource::Telemetry(Arc::new(policy)))]);
        assert_eq!(refuse(), lines);
    }
}
