//! How lines look, and which there are.

use weft_core::change::{Change, Resource};
use weft_core::ids::PolicyKey;
use weft_core::policy::Scope;
use weft_core::telemetry::{AccessLogPolicy, LOG_FIELDS, TelemetryPolicy, TracingPolicy};

use super::*;

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
    let terms = log.defaults().access_log;
    for _ in 0..QUEUE + 3 {
        log.write(&terms, Box::default());
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
        peer_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        dst_port: weft_core::ids::Port::new(80).unwrap(),
        http: Some(http),
    };
    let key = PolicyKey::new("shop", "none");
    let word = crate::observe::PolicyWord { policy: Some(&key), said: "would_deny", enforced: false };
    let terms = terms::AccessLog { fields: LogFields::named(["status"]), ..log.defaults().access_log };
    log.audit(&terms, AuditEntry::new(pod.announced(), &"127.0.0.1:4000", &call, word));
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
}

#[tokio::test]
async fn a_policy_of_the_configuration_counts_before_the_settings() {
    let store = Arc::<Store>::default();
    let (log, _queue) = AccessLog::new(LogPolicy::Errors, LogFormat::Json);
    let log = log.following(Arc::clone(&store));
    let pod = crate::plain::fixed_pod();
    assert_eq!(log.terms_for(pod.announced()).mode, LogMode::Errors);
    let policy = TelemetryPolicy {
        key: PolicyKey::new("root", "all"),
        scope: Scope::Mesh,
        gateways: Vec::new(),
        created_unix_seconds: 0,
        access_log: AccessLogPolicy { mode: Some(LogMode::All), ..AccessLogPolicy::default() },
        tracing: TracingPolicy::default(),
    };
    store.apply(&[Change::Upsert(Resource::Telemetry(Arc::new(policy)))]);
    let terms = log.terms_for(pod.announced());
    assert_eq!((terms.mode, terms.format), (LogMode::All, LogFormat::Json));
}
