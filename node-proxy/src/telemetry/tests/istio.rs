//! The same counts by Istio's names.

use weft_core::ids::*;

use super::*;

fn of(text: &str, name: &str, needles: &[&str]) -> Vec<f64> {
    let is_it = |l: &&str| l.starts_with(&format!("{name}{{")) && needles.iter().all(|needle| l.contains(needle));
    text.lines().filter(is_it).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

fn called() -> RequestLabels {
    let service = ServicePortKey { service: ServiceKey::new("shop", "cart"), port: Port::new(80).unwrap() };
    RequestLabels { service: Some(service), ..labels("web") }
}

#[test]
fn tools_find_what_they_ask_for() {
    let registry = Registry::default();
    let worker = registry.recorder();
    worker.requests(&called()).record(OK, &measure(3));
    // What Istio has no label for is added up.
    worker.requests(&RequestLabels { protocol: "http2", ..called() }).record(OK, &measure(3));
    let failed = RequestOutcome { class: 5, reason: Reason::NoEndpoint, grpc_status: None };
    worker.requests(&called()).record(failed, &measure(1));
    let text = registry.render_istio("cluster.local");
    assert_eq!(weft_metrics::check(&text, weft_metrics::Component::Proxy), [""; 0]);
    // Flagger, Argo Rollouts and Kiali ask like this, some for one reporter, some for the other.
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        let to = [
            reporter,
            "destination_workload=\"cart\"",
            "destination_workload_namespace=\"shop\"",
            "destination_service_name=\"cart\"",
            "destination_service=\"cart.shop.svc.cluster.local\"",
        ];
        let with = |more: &[&'static str]| [&to[..], more].concat();
        let good = with(&["response_code=\"200\"", "source_workload=\"web\"", "request_protocol=\"http\""]);
        assert_eq!(of(&text, "istio_requests_total", &good), [2.0], "{reporter}");
        let bad =
            with(&["response_code=\"500\"", "response_flags=\"UH\"", "connection_security_policy=\"mutual_tls\""]);
        assert_eq!(of(&text, "istio_requests_total", &bad), [1.0], "{reporter}");
        let below = with(&["le=\"5.0\""]);
        assert_eq!(of(&text, "istio_request_duration_milliseconds_bucket", &below), [3.0], "{reporter}");
        assert_eq!(of(&text, "istio_request_duration_milliseconds_sum", &to), [7.0], "{reporter}");
    }
    assert_eq!(of(&text, "istio_response_bytes_sum", &["source_workload=\"web\""]), [3000.0]);
}

/// A request that both proxies counted is one.
#[test]
fn nothing_is_told_twice() {
    let registry = Registry::default();
    let worker = registry.recorder();
    worker.requests(&called()).record(OK, &measure(3));
    worker.requests(&RequestLabels { reporter: "destination", ..labels("web") }).record(OK, &measure(2));
    let outside = RequestLabels { reporter: "destination", security: Security::Plaintext, ..labels("old") };
    worker.requests(&outside).record(OK, &measure(2));
    let text = registry.render_istio("cluster.local");
    let destination = of(&text, "istio_requests_total", &["reporter=\"destination\""]);
    assert_eq!(destination, [1.0, 1.0], "one of the caller's word, one of a caller that has none");
    assert_eq!(of(&text, "istio_requests_total", &["reporter=\"source\""]), [1.0]);
}

#[test]
fn connections_are_those_of_bytes() {
    let registry = Registry::default();
    let worker = registry.recorder();
    let RequestLabels { reporter, source, destination, service, security, .. } = called();
    let bytes = ConnectionLabels { reporter, source, destination, service, security };
    let series = worker.connections(&bytes);
    series.opened.add(2);
    series.closed.add(1);
    series.received.add(10);
    let http = ConnectionLabels { destination: WorkloadLabel::various(), service: None, ..bytes };
    worker.connections(&http).opened.add(5);
    let text = registry.render_istio("cluster.local");
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        assert_eq!(of(&text, "istio_tcp_connections_opened_total", &[reporter]), [2.0]);
        assert_eq!(of(&text, "istio_tcp_connections_closed_total", &[reporter]), [1.0]);
        assert_eq!(of(&text, "istio_tcp_received_bytes_total", &[reporter, "request_protocol=\"tcp\""]), [10.0]);
    }
}
