//! What happens when there is no room for more series.

use std::sync::Arc;

use weft_core::ids::*;

use super::*;

fn service(name: &str) -> ServicePortKey {
    ServicePortKey { service: ServiceKey::new("shop", name), port: Port::new(80).unwrap() }
}

fn alive(names: &[&str]) -> Alive {
    let mut alive = Alive::default();
    alive
        .workloads
        .extend(names.iter().map(|name| WorkloadLabel { namespace: "shop".into(), workload: (*name).into() }));
    alive
}

/// Room for one request's series and few more: those of the requests, of the duration, and of the sizes.
const ONE: usize = 2 + 12 + 12;

#[test]
fn what_is_new_without_room_is_counted_as_overflow() {
    let registry = Registry::with_budget(ONE);
    let workers = [registry.recorder(), registry.recorder()];
    for worker in &workers {
        worker.requests(&labels("web")).record(OK, &measure(1));
    }
    let of_route = RequestLabels {
        service: Some(service("cart")),
        rule: Some(RuleKey {
            route: RouteKey { kind: RouteKind::Http, namespace: "shop".into(), name: "r".into() },
            index: 0,
        }),
        ..labels("job")
    };
    workers[0].requests(&of_route).record(OK, &measure(1));
    workers[1].requests(&labels("late")).record(OK, &measure(1));
    // What has series keeps them.
    workers[1].requests(&labels("web")).record(OK, &measure(1));
    let RequestLabels { reporter, source, destination, service, security, .. } = of_route.clone();
    let tcp = ConnectionLabels { reporter, source, destination, service, security };
    workers[0].connections(&tcp).opened.add(1);
    let more = vec![(POLICY, Arc::from("shop/p")), ("decision", Arc::from("deny")), ("mode", Arc::from("enforce"))];
    let workload = Some(tcp.source.clone());
    workers[0].event(&EventLabels { family: &families::DECISIONS, workload, more }, 1);

    let text = registry.render();
    assert_eq!(weft_metrics::check(&text, weft_metrics::Component::Proxy), [""; 0]);
    let overflow =
        |name: &str| text.lines().find(|l| l.starts_with(name) && l.contains("overflow")).unwrap_or_default();
    assert_eq!(value(&text, "weft_http_requests_total", &["source_workload=\"web\""]), Some(3.0));
    assert_eq!(
        overflow("weft_http_requests_total"),
        "weft_http_requests_total{reporter=\"source\",source_namespace=\"overflow\",source_workload=\"overflow\",\
         destination_namespace=\"overflow\",destination_workload=\"overflow\",destination_service_namespace=\"overflow\",\
         destination_service=\"overflow\",destination_port=\"overflow\",route=\"overflow\",rule=\"overflow\",\
         connection_security=\"mutual_tls\",protocol=\"http1\",response_class=\"2xx\",reason=\"ok\",grpc_status=\"\"} 2"
    );
    assert!(overflow("weft_tcp_connections_opened_total").ends_with(" 1"), "{text}");
    let decision = overflow("weft_authorization_decisions_total");
    assert!(decision.contains("policy=\"overflow\",decision=\"deny\",mode=\"enforce\""), "{decision}");
    for absent in ["\"job\"", "\"late\"", "HTTPRoute/shop/r", "shop/p"] {
        assert!(!text.contains(absent), "{absent}");
    }
    let single = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<usize>().ok());
    assert_eq!(single("weft_telemetry_series "), Some(ONE));
    assert_eq!(single("weft_telemetry_series_limit "), Some(ONE));
    assert!(single("weft_telemetry_series_overflowed_total ") >= Some(4));
}

#[test]
fn what_goes_makes_room() {
    let registry = Registry::with_budget(ONE);
    let worker = registry.recorder();
    worker.requests(&labels("web")).record(OK, &measure(1));
    worker.requests(&labels("job")).record(OK, &measure(1));
    assert!(!registry.render().contains("\"job\""));
    let now = || alive(&["job"]);
    registry.retain(&alive(&["web", "job", "cart"]));
    registry.retain(&now());
    registry.retain(&now());
    assert_eq!(registry.budget.used(), 0);
    let of_job = RequestLabels { destination: labels("job").source, ..labels("job") };
    worker.requests(&of_job).record(OK, &measure(1));
    let text = registry.render();
    assert_eq!(value(&text, "weft_http_requests_total", &["source_workload=\"job\""]), Some(1.0));
    // Nobody's series stay: a counter never falls while the process runs.
    assert_eq!(value(&text, "weft_http_requests_total", &["source_workload=\"overflow\""]), Some(1.0));
    assert_eq!(registry.budget.used(), ONE);
}

/// As many callers as anybody likes: the page and what a worker holds have an end.
#[test]
fn a_crowd_of_callers_makes_no_more_series_than_there_may_be() {
    let registry = Registry::with_budget(500);
    let worker = registry.recorder();
    for n in 0..5_000 {
        worker.requests(&labels(&format!("w{n}"))).record(OK, &measure(1));
    }
    let text = registry.render();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 500 + ONE + 3, "{series}");
    assert!(worker.len() < 500, "{}", worker.len());
    let all: f64 = text
        .lines()
        .filter(|line| line.starts_with("weft_http_requests_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!((all - 5_000.0).abs() < f64::EPSILON, "{all}");
}
