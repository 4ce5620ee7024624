//! A team's namespace.

use super::{SOURCE, graph};
use crate::Needs;
use crate::grafana::{Board, Dashboard, Panel, Row, Unit, View};
use crate::promql::{chosen, rates, sum};

const TO: &str = r#"destination_namespace=~"$namespace""#;
const FROM: &str = r#"source_namespace=~"$namespace""#;
const OURS: &str = r#"namespace=~"$namespace""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Namespace,
        questions: vec![
            "Which of my workloads and Services fails or is slow?",
            "Who from other namespaces calls us, and whom do we call?",
            "Are my pods near their limits?",
        ],
        variables: Vec::new(),
        rows: vec![
            Row { title: "What is called here", panels: called() },
            Row { title: "Across the border", panels: border() },
            Row { title: "Pods", panels: pods() },
        ],
    }
}

fn called() -> Vec<Panel> {
    let workloads = [("destination_namespace", "Namespace"), ("destination_workload", "Workload")];
    let by = "destination_namespace, destination_workload";
    let of = |series: &str| sum(by, &chosen(series, TO));
    let requests = of("weft:edge_requests:rate5m");
    let to = format!("{SOURCE}, {TO}");
    vec![
        Panel::new("Workloads", "Which workload fails or is slow?", View::Table(workloads.into()), Unit::Requests)
            .sized(8, 9)
            .column("Failed", Unit::Share, format!("{} / ({requests} > 0)", of("weft:edge_errors:rate5m")))
            .ask("Requests", requests)
            .column(
                "p99",
                Unit::Seconds,
                crate::promql::quantile("0.99", by, "weft_http_request_duration_seconds", &to),
            )
            .link(
                Board::Workload,
                "Workload",
                "Workload",
                &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
            ),
        Panel::new("Failed requests by workload", "Since when does which workload fail?", View::Lines, Unit::Requests)
            .sized(8, 9)
            .ask("{{destination_workload}}", sum("destination_workload", &chosen("weft:edge_errors:rate5m", TO)))
            .link(Board::Workload, "Workload", "", &[("workload", "destination_workload")]),
        Panel::new("Requests by route", "Which routes are used?", View::Stack, Unit::Requests)
            .sized(8, 9)
            .ask("{{route}}", sum("route", &chosen("weft:route_requests:rate5m", TO)))
            .link(Board::Route, "Route", "", &[("route", "route")]),
        graph("Service graph of the namespace", "Who calls whom here?", TO),
    ]
}

fn border() -> Vec<Panel> {
    let ends = super::ENDS;
    let by = "source_namespace, source_workload, destination_namespace, destination_workload";
    vec![
        Panel::new("Callers", "Which workloads of which namespaces call us?", View::Table(ends.into()), Unit::Requests)
            .sized(12, 9)
            .ask("Requests", sum(by, &chosen("weft:edge_requests:rate5m", TO)))
            .column("Failed", Unit::Requests, sum(by, &chosen("weft:edge_errors:rate5m", TO)))
            .link(
                Board::Workload,
                "Caller",
                "Caller",
                &[("namespace", "source_namespace"), ("workload", "source_workload")],
            ),
        Panel::new(
            "Callees",
            "Whom do our workloads call, and who of them fails us?",
            View::Table(ends.into()),
            Unit::Requests,
        )
        .sized(12, 9)
        .ask("Requests", sum(by, &chosen("weft:edge_requests:rate5m", FROM)))
        .column("Failed", Unit::Requests, sum(by, &chosen("weft:edge_errors:rate5m", FROM)))
        .link(
            Board::Workload,
            "Callee",
            "Callee",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        ),
    ]
}

fn pods() -> Vec<Panel> {
    let share = |of: &str| {
        format!(
            "max by (namespace, pod) ({}) / (max by (namespace, pod) ({}) > 0)",
            chosen(&format!("weft_budget_{of}"), OURS),
            chosen(&format!("weft_budget_{of}_limit"), OURS)
        )
    };
    vec![
        Panel::new("Budget of connections", "Which pod is near its limit of connections?", View::Lines, Unit::Share)
            .ask("{{pod}}", share("connections")),
        Panel::new("Budget of buffers", "Which pod has clients slower than itself?", View::Lines, Unit::Share)
            .ask("{{pod}}", share("buffer_bytes")),
        Panel::new("Connections reset for a budget", "Was anybody turned away?", View::Lines, Unit::PerSecond)
            .ask("{{workload}} {{reason}}", rates("workload, reason", "weft_tcp_connections_shed_total", OURS))
            .when(Needs::Event("more connections to a pod than its limit")),
    ]
}
