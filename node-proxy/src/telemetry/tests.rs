use std::time::Duration;

use weft_core::reason::Reason;

use super::*;

mod budget;
mod cardinality;
mod istio;

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
    assert_eq!(bucket("le=\"1.0\""), Some(3.0));
    assert_eq!(bucket("le=\"+Inf\""), Some(3.0));
    assert_eq!(value(&text, "weft_http_request_duration_seconds_sum", &[]), Some(0.704));
    assert_eq!(value(&text, "weft_http_request_time_seconds_total", &["source_workload=\"web\""]), Some(0.704));
    assert_eq!(value(&text, "weft_http_response_body_bytes_sum", &["workload=\"web\""]), Some(3000.0));
}

/// Callers share the histogram of their destination, and their workload's sizes go by the caller.
#[test]
fn histograms_do_not_tell_pairs_apart() {
    let registry = Registry::default();
    let worker = registry.recorder();
    for caller in ["web", "job"] {
        worker.requests(&labels(caller)).record(OK, &measure(3));
    }
    let text = registry.render();
    assert_eq!(value(&text, "weft_http_request_duration_seconds_count", &["destination_workload=\"cart\""]), Some(2.0));
    assert!(!text.lines().any(|l| l.starts_with("weft_http_request_duration_seconds") && l.contains("web")), "{text}");
    for caller in ["workload=\"web\"", "workload=\"job\""] {
        assert_eq!(value(&text, "weft_http_response_body_bytes_count", &[caller]), Some(1.0));
    }
}

#[test]
fn only_openmetrics_has_exemplars_and_of_several_workers_the_latest() {
    let registry = Registry::default();
    let traced = |ms, id| RequestMeasure { trace: TraceId::new(id), ..measure(ms) };
    let workers = [registry.recorder(), registry.recorder()];
    workers[0].requests(&labels("web")).record(OK, &traced(3, 0xab));
    workers[0].requests(&labels("web")).record(OK, &measure(4));
    workers[0].requests(&labels("web")).record(OK, &traced(60_000, 0xcd));
    let begun = std::time::SystemTime::now();
    while std::time::SystemTime::now().duration_since(begun).unwrap_or_default() < Duration::from_millis(2) {
        std::hint::spin_loop();
    }
    workers[1].requests(&labels("web")).record(OK, &traced(4, 0xef));
    assert!(!registry.render().contains("trace_id"));
    let text = registry.page(Wanted { exemplars: true });
    let bucket = |le: &str| {
        let is_it = |l: &&str| l.starts_with("weft_http_request_duration_seconds_bucket") && l.contains(le);
        text.lines().find(is_it).unwrap().split_once(" # ").map(|(_, exemplar)| exemplar.to_owned())
    };
    let newest = bucket("le=\"0.005\"").unwrap();
    assert!(newest.starts_with("{trace_id=\"000000000000000000000000000000ef\"} 0.004 "), "{newest}");
    let above = bucket("le=\"+Inf\"").unwrap();
    assert!(above.starts_with("{trace_id=\"000000000000000000000000000000cd\"} 60 "), "{above}");
    let seconds: f64 = above.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds > 1e9, "{above}");
    assert_eq!(bucket("le=\"0.001\""), None);
}

#[test]
fn what_an_application_makes_up_is_no_label() {
    let registry = Registry::default();
    let worker = registry.recorder();
    for status in [5, 17, 200, 255] {
        worker.requests(&labels("web")).record(RequestOutcome { grpc_status: Some(status), ..OK }, &measure(1));
    }
    let text = registry.render();
    assert_eq!(value(&text, "weft_http_requests_total", &["grpc_status=\"5\""]), Some(1.0));
    assert_eq!(value(&text, "weft_http_requests_total", &["grpc_status=\"2\""]), Some(3.0));
}

#[test]
fn series_go_with_their_workload_and_come_back_with_it() {
    let registry = Registry::default();
    let worker = registry.recorder();
    let kept = worker.requests(&labels("web"));
    kept.record(OK, &measure(1));
    worker.requests(&labels("job")).record(OK, &measure(1));
    let alive = |names: &[&str]| {
        let mut alive = Alive::default();
        alive
            .workloads
            .extend(names.iter().map(|name| WorkloadLabel { namespace: "shop".into(), workload: (*name).into() }));
        alive
    };
    registry.retain(&alive(&["web", "job", "cart"]));
    registry.retain(&alive(&["job", "cart"]));
    assert!(!kept.is_retired(), "a scrape sees the last of it");
    registry.retain(&alive(&["job", "cart"]));
    assert!(kept.is_retired());
    let text = registry.render();
    assert!(!text.contains("source_workload=\"web\""), "{text}");
    assert!(text.contains("source_workload=\"job\""));
    worker.requests(&labels("web")).record(OK, &measure(1));
    assert_eq!(value(&registry.render(), "weft_http_requests_total", &["source_workload=\"web\""]), Some(1.0));
}

/// What several series share may go at an earlier look than the youngest of them.
#[test]
fn no_request_is_counted_in_what_nobody_reads_any_more() {
    let (registry, nobody) = (Registry::default(), Alive::default());
    let worker = registry.recorder();
    worker.requests(&labels("web")).record(OK, &measure(1));
    registry.retain(&nobody);
    let younger = worker.requests(&labels("job"));
    registry.retain(&nobody);
    assert!(younger.is_retired(), "its histogram has gone");
    worker.requests(&labels("job")).record(OK, &measure(1));
    assert_eq!(value(&registry.render(), "weft_http_request_duration_seconds_count", &[]), Some(1.0));
}

#[test]
fn label_values_are_escaped() {
    let registry = Registry::default();
    registry
        .recorder()
        .event(&EventLabels { family: &families::PANICS, workload: None, more: vec![("a", "q\"\\\n".into())] }, 2);
    assert!(registry.render().contains("weft_panics_total{a=\"q\\\"\\\\\\n\"} 2"));
}

/// A thousand Services with a workload each come, are used and go.
#[test]
fn series_do_not_grow_with_what_was() {
    use std::sync::Arc;
    use weft_core::ids::*;

    let registry = Registry::default();
    let worker = registry.recorder();
    worker.requests(&labels("web")).record(OK, &measure(1));
    let base = || {
        let mut alive = Alive::default();
        let label = |name: &str| WorkloadLabel { namespace: "shop".into(), workload: name.into() };
        alive.workloads.extend(["web", "cart"].map(label));
        alive
    };
    for batch in 0..10 {
        let mut alive = base();
        for n in 0..100 {
            let name = format!("s{batch}-{n}");
            let workload = WorkloadLabel { namespace: "shop".into(), workload: name.as_str().into() };
            let service =
                ServicePortKey { service: ServiceKey::new("shop", name.as_str()), port: Port::new(80).unwrap() };
            let route = RouteKey { kind: RouteKind::Http, namespace: "shop".into(), name: name.as_str().into() };
            let rule = RuleKey { route, index: 0 };
            alive.workloads.insert(workload.clone());
            alive.services.insert(service.clone());
            alive.service_names.insert(service.to_string());
            alive.rules.insert(rule.clone());
            alive.policy_names.insert(format!("shop/{name}"));
            let requests = RequestLabels {
                service: Some(service.clone()),
                rule: Some(rule),
                destination: workload.clone(),
                ..labels("web")
            };
            worker.requests(&requests).record(OK, &measure(1));
            let RequestLabels { reporter, source, destination, security, .. } = requests;
            let tcp = ConnectionLabels { reporter, source, destination, service: Some(service.clone()), security };
            worker.connections(&tcp).opened.add(1);
            let more = vec![(DESTINATION_SERVICE, service.to_string().into())];
            worker.event(&EventLabels { family: &families::ENDPOINT_EJECTIONS, workload: None, more }, 1);
            let more = vec![(POLICY, Arc::from(format!("shop/{name}")))];
            worker.event(&EventLabels { family: &families::DECISIONS, workload: Some(workload), more }, 1);
        }
        registry.retain(&alive);
        assert!(registry.len() <= 1 + 2 * 400, "{} after {batch}", registry.len());
    }
    registry.retain(&base());
    registry.retain(&base());
    assert_eq!(registry.len(), 1, "what stays");
    // The worker's own map follows when it next makes a series.
    worker.event(&EventLabels::plain(&families::PANICS), 1);
    assert!(worker.len() < 1000, "{}", worker.len());
}
