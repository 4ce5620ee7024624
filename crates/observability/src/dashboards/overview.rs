//! The whole mesh; where one begins.

use super::{ENDS, SECURED_ENDS, SOURCE, graph};
use crate::Needs;
use crate::grafana::{Board, Bounds, Dashboard, Panel, Row, Unit, View};
use crate::promql::{chosen, quantile, rates, sum};

const TO: &str = r#"destination_namespace=~"$namespace""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Overview,
        questions: vec![
            "Is the mesh well?",
            "Who talks to whom, and how fast?",
            "Where does it fail, and since when?",
            "Is it encrypted?",
            "Where do I look next?",
        ],
        variables: Vec::new(),
        rows: vec![
            Row { title: "How the mesh is", panels: numbers() },
            Row { title: "Who talks to whom", panels: edges() },
            Row { title: "Where it fails, and since when", panels: failures() },
        ],
    }
}

fn numbers() -> Vec<Panel> {
    let requests = sum("", &chosen("weft:edge_requests:rate5m", TO));
    let errors = sum("", &chosen("weft:edge_errors:rate5m", TO));
    let encrypted =
        sum("", &chosen("weft:edge_requests:rate5m", &format!(r#"{TO}, connection_security=~"mutual_tls|local""#)));
    let connected = sum("", &chosen("weft:edge_requests:rate5m", &format!(r#"{TO}, connection_security!="none""#)));
    let number = |title, answers, bounds, unit| Panel::new(title, answers, View::Number(bounds), unit).sized(4, 4);
    let more = |red, green| Some(Bounds { red, green });
    vec![
        number("Requests", "How much traffic is there?", None, Unit::Requests).ask("requests", requests.clone()),
        number(
            "Failed",
            "Which share of requests fails, by a 5xx, a gRPC status or without an answer?",
            more("0.05", "0.01"),
            Unit::Share,
        )
        .ask("failed", format!("{errors} / ({requests} > 0)"))
        .link(Board::Namespace, "By namespace", "", &[]),
        number("99th percentile", "How long do the slow requests take?", None, Unit::Seconds)
            .ask("p99", quantile("0.99", "", "weft_http_request_duration_seconds", &format!("{SOURCE}, {TO}"))),
        number(
            "Encrypted",
            "Which share of requests travels by mutual TLS, or within one node's memory?",
            more("0.9", "0.999"),
            Unit::Share,
        )
        .ask("encrypted", format!("{encrypted} / ({connected} > 0)"))
        .link(Board::Security, "What is not", "", &[]),
        number("Nodes with a proxy", "Does every node have its proxy?", None, Unit::Count)
            .ask("nodes", format!("count({})", chosen("weft_pods", "")))
            .link(Board::NodeProxy, "Node proxies", "", &[]),
        number("Alerts", "What fires?", more("1", "0.5"), Unit::Count)
            .ask("alerts", r#"count(ALERTS{alertname=~"Weft.*", alertstate="firing"}) or vector(0)"#),
    ]
}

fn edges() -> Vec<Panel> {
    let by = "source_namespace, source_workload, destination_namespace, destination_workload";
    let of = |series: &str| sum(by, &chosen(series, TO));
    let requests = of("weft:edge_requests:rate5m");
    let secured = format!("{by}, connection_security");
    vec![
        graph("Service graph", "Who calls whom by HTTP, how often, and who fails?", TO),
        Panel::new(
            "Calls",
            "Which caller calls which callee, how fast, and how often does it fail?",
            View::Table(ENDS.into()),
            Unit::Requests,
        )
        .sized(14, 10)
        .ask("Requests", requests.clone())
        .column("Failed", Unit::Share, format!("{} / ({requests} > 0)", of("weft:edge_errors:rate5m")))
        .column(
            "Mean time",
            Unit::Seconds,
            format!("max by ({by}) ({})", chosen("weft:edge_request_duration_seconds:mean5m", TO)),
        )
        .link(
            Board::Workload,
            "Caller",
            "Caller",
            &[("namespace", "source_namespace"), ("workload", "source_workload")],
        )
        .link(
            Board::Workload,
            "Callee",
            "Callee",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        )
        .link(Board::Namespace, "Namespace", "Callee's namespace", &[("namespace", "destination_namespace")]),
        Panel::new(
            "Connections that are no HTTP, or from outside of the mesh",
            "Who else connects, and is it encrypted?",
            View::Table(SECURED_ENDS.into()),
            Unit::PerSecond,
        )
        .sized(10, 10)
        .ask("Opened", sum(&secured, &chosen("weft:edge_connections:rate5m", TO)))
        .column("Bytes", Unit::BytesPerSecond, sum(&secured, &chosen("weft:edge_bytes:rate5m", TO)))
        .link(
            Board::Workload,
            "Callee",
            "Callee",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        ),
    ]
}

fn failures() -> Vec<Panel> {
    let services = [("destination_service_namespace", "Namespace"), ("destination_service", "Service")];
    let by = "destination_service_namespace, destination_service";
    let within = r#"destination_service_namespace=~"$namespace""#;
    let of = |series: &str| sum(by, &chosen(series, within));
    let requests = of("weft:service_requests:rate5m");
    let to = format!("{SOURCE}, {TO}");
    vec![
        Panel::new("Services", "Which Service fails or is slow?", View::Table(services.into()), Unit::Requests)
            .sized(8, 9)
            .column("Failed", Unit::Share, format!("{} / ({requests} > 0)", of("weft:service_errors:rate5m")))
            .ask("Requests", requests)
            .column(
                "p99",
                Unit::Seconds,
                format!("max by ({by}) ({})", chosen("weft:service_request_duration_seconds:p99_5m", within)),
            )
            .link(
                Board::Service,
                "Service",
                "Service",
                &[("namespace", "destination_service_namespace"), ("service", "destination_service")],
            ),
        Panel::new("Requests by class of answer", "Since when does it fail?", View::Stack, Unit::Requests)
            .sized(8, 9)
            .ask("{{response_class}}", rates("response_class", "weft_http_requests_total", &to)),
        Panel::new(
            "Requests that a proxy ended, by reason and route",
            "Why, and on which route?",
            View::Lines,
            Unit::Requests,
        )
        .sized(8, 9)
        .ask(
            "{{reason}} {{route}}",
            rates("reason, route", "weft_http_requests_total", &format!(r#"{to}, reason!="ok""#)),
        )
        .when(Needs::Event("a request that a proxy ends itself, such as one without a route"))
        .link(Board::Route, "Route", "", &[("route", "route")]),
    ]
}
