use std::time::Duration;

use weft_core::reason::Reason;

use super::*;

fn labels(source: &str) -> RequestLabels {
    let workload = |name: &str| WorkloadLabel { namespace: "shop".into(), workload: name.into() };
    RequestLabels {
        reporter: "source",
        source: workload(source),
        destination: workload("cart"),
        service: None,
        rule: None,
        security: Security::Mtls,
        protocol: "http1",
    }
}

const OK: RequestOutcome = RequestOutcome { class: 2, reason: Reason::Ok, grpc_status: None };

fn measure(ms: u64) -> RequestMeasure {
    RequestMeasure { took: Duration::from_millis(ms), response_bytes: 1000, ..RequestMeasure::default() }
}

fn value(text: &str, name: &str, needles: &[&str]) -> Option<f64> {
    let line = text.lines().find(|l| l.starts_with(&format!("{name}{{")) && needles.iter().all(|n| l.contains(n)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_scrape_adds_up_the_workers() {
    let registry = Registry::default();
    let workers = [registry.recorder(), registry.recorder()];
    for (worker, ms) in workers.iter().zip([3, 700]) {
        worker.requests(&labels("web")).record(OK, &measure(ms));
    }
    let timeout = RequestOutcome { class: 5, reason: Reason::RequestTimeout, grpc_status: None };
    workers[0].requests(&labels("web")).record(timeout, &measure(1));
    let text = registry.render();
    let requests = |needles: &[&str]| value(&text, "weft_http_requests_total", needles);
    assert_eq!(requests(&["response_class=\"2xx\"", "reason=\"ok\""]), Some(2.0));
    assert_eq!(requests(&["response_class=\"5xx\"", "reason=\"request_timeout\""]), Some(1.0));
    let bucket = |le| value(&text, "weft_http_request_duration_seconds_bucket", &[le]);
    assert_eq!(bucket("le=\"0.005\""), Some(2.0));
    assert_eq!(bucket("le=\"1\""), Some(3.0));
    assert_eq!(bucket("le=\"+Inf\""), Some(3.0));
    assert_eq!(value(&text, "weft_http_request_duration_seconds_sum", &[]), Some(0.704));
    assert_eq!(value(&text, "weft_http_response_body_bytes_sum", &[]), Some(3000.0));
}

#[test]
fn series_go_with_their_workload_and_come_back_with_it() {
    let registry = Registry::default();
    let worker = registry.recorder();
    let kept = worker.requests(&labels("web"));
    kept.record(OK, &measure(1));
    worker.requests(&labels("job")).record(OK, &measure(1));
    registry.retain(|workload| &*workload.workload != "web");
    assert!(kept.is_retired());
    let text = registry.render();
    assert!(!text.contains("source_workload=\"web\""), "{text}");
    assert!(text.contains("source_workload=\"job\""));
    worker.requests(&labels("web")).record(OK, &measure(1));
    assert_eq!(value(&registry.render(), "weft_http_requests_total", &["source_workload=\"web\""]), Some(1.0));
}

#[test]
fn label_values_are_escaped() {
    let registry = Registry::default();
    registry.recorder().event(&EventLabels { name: "x", workload: None, more: vec![("a", "q\"\\\n".into())] }, 2);
    assert!(registry.render().contains("weft_x_total{a=\"q\\\"\\\\\\n\"} 2"));
}
