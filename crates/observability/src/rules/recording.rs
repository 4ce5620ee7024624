//! Series that Prometheus keeps ready: edges of the service graph, Services and routes. Dashboards and alerts read them, so that a
//! mesh with many workloads isn't added up anew for every panel.

use super::{Group, Recording};
use crate::Needs;
use crate::promql::{EDGE, REQUESTS, SERVICE, failed, sum};

/// Requests as clients saw them: the one end that counts every request.
const SOURCE: &str = r#"reporter="source""#;
/// Connections whose ends are named: the others are named elsewhere, by requests or by the other end.
const NAMED: &str = r#"source_workload!="various", destination_workload!="various""#;

/// All recording rules.
pub fn groups() -> Vec<Group<Recording>> {
    vec![
        Group { name: "weft-edges", rules: edges() },
        Group { name: "weft-services", rules: services() },
        Group { name: "weft-mesh", rules: mesh() },
    ]
}

fn record(name: &'static str, expr: String) -> Recording {
    Recording { name, expr, needs: Needs::Traffic }
}

fn edges() -> Vec<Recording> {
    let rate = |by: &str, counter: &str, labels: &str| format!("sum by ({by}) (rate({counter}{{{labels}}}[5m]))");
    let secured = format!("{EDGE}, connection_security");
    vec![
        record("weft:edge_requests:rate5m", rate(&secured, REQUESTS, SOURCE)),
        record(
            "weft:edge_errors:rate5m",
            format!("{} or 0 * sum by ({EDGE}) (weft:edge_requests:rate5m)", sum(EDGE, &failed(SOURCE, "5m"))),
        ),
        record(
            "weft:edge_request_duration_seconds:mean5m",
            format!(
                "{} / (sum by ({EDGE}) (weft:edge_requests:rate5m) > 0)",
                rate(EDGE, "weft_http_request_time_seconds_total", SOURCE)
            ),
        ),
        record("weft:edge_connections:rate5m", rate(&secured, "weft_tcp_connections_opened_total", NAMED)),
        record(
            "weft:edge_bytes:rate5m",
            format!(
                "{} + {}",
                rate(&secured, "weft_tcp_received_bytes_total", NAMED),
                rate(&secured, "weft_tcp_sent_bytes_total", NAMED)
            ),
        ),
    ]
}

fn services() -> Vec<Recording> {
    let called = format!(r#"{SOURCE}, destination_service!="""#);
    let requests = format!("sum by ({SERVICE}) (rate({REQUESTS}{{{called}}}[5m]))");
    let errors = sum(SERVICE, &failed(&called, "5m"));
    let buckets = format!("sum by ({SERVICE}, le) (rate(weft_http_request_duration_seconds_bucket{{{called}}}[5m]))");
    let routed = format!(r#"{SOURCE}, route!="""#);
    let by_route = "cluster, route, rule, destination_namespace, destination_workload";
    vec![
        record("weft:service_requests:rate5m", requests),
        record("weft:service_errors:rate5m", format!("{errors} or 0 * weft:service_requests:rate5m")),
        record("weft:service_request_duration_seconds_bucket:rate5m", buckets),
        record(
            "weft:service_request_duration_seconds:p99_5m",
            "histogram_quantile(0.99, weft:service_request_duration_seconds_bucket:rate5m)".to_owned(),
        ),
        record("weft:route_requests:rate5m", format!("sum by ({by_route}) (rate({REQUESTS}{{{routed}}}[5m]))")),
        record(
            "weft:route_errors:rate5m",
            format!("{} or 0 * weft:route_requests:rate5m", sum(by_route, &failed(&routed, "5m"))),
        ),
    ]
}

fn mesh() -> Vec<Recording> {
    let encrypted = r#"connection_security=~"mutual_tls|local""#;
    // Requests that came to no connection are neither.
    let answered = r#"connection_security!="none""#;
    vec![
        record("weft:mesh_requests:rate5m", "sum by (cluster) (weft:edge_requests:rate5m)".to_owned()),
        record("weft:mesh_errors:rate5m", "sum by (cluster) (weft:edge_errors:rate5m)".to_owned()),
        record(
            "weft:mesh_encrypted:ratio5m",
            format!(
                "sum by (cluster) (weft:edge_requests:rate5m{{{encrypted}}}) / (sum by (cluster) \
                 (weft:edge_requests:rate5m{{{answered}}}) > 0)"
            ),
        ),
    ]
}
