//! A Service, by whoever answers.

use super::{ENDS, SOURCE};
use crate::Needs;
use crate::grafana::{Board, Dashboard, Panel, Row, Unit, Variable, View};
use crate::promql::{REQUESTS, failures, quantile, rates};

const IT: &str = r#"reporter="source", destination_service_namespace=~"$namespace", destination_service=~"$service""#;
const DURATION: &str = "weft_http_request_duration_seconds";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Service,
        questions: vec![
            "Which caller sees errors of this Service?",
            "Which version and route answers, and which of them fails?",
            "Which node's clients see it, and since when?",
        ],
        variables: vec![Variable {
            name: "service",
            label: "Service",
            of: format!(
                r#"{REQUESTS}{{cluster=~"$cluster", {SOURCE}, destination_service_namespace=~"$namespace", destination_service!=""}}"#
            ),
            values: "destination_service",
        }],
        rows: vec![
            Row { title: "How it is", panels: signals() },
            Row { title: "Who calls, who answers", panels: ends() },
            Row { title: "Why it fails", panels: reasons() },
        ],
    }
}

fn signals() -> Vec<Panel> {
    vec![
        Panel::new("Requests by class of answer", "Since when does it fail?", View::Stack, Unit::Requests)
            .ask("{{response_class}}", rates("response_class", REQUESTS, IT)),
        Panel::new("Duration", "How long do answers take?", View::Lines, Unit::Seconds)
            .ask("50 %", quantile("0.5", "", DURATION, IT))
            .ask("95 %", quantile("0.95", "", DURATION, IT))
            .ask("99 %", quantile("0.99", "", DURATION, IT)),
        Panel::new(
            "Failed requests by the caller's node",
            "Which node's clients see it fail?",
            View::Lines,
            Unit::Requests,
        )
        .ask("{{node}}", failures("node", IT))
        .when(Needs::Event("a request that fails"))
        .link(Board::NodeProxy, "Node", "", &[("node", "node")]),
    ]
}

fn ends() -> Vec<Panel> {
    let by = "source_namespace, source_workload, destination_namespace, destination_workload";
    let requests = rates(by, REQUESTS, IT);
    let answers = [
        ("destination_namespace", "Namespace"),
        ("destination_workload", "Version"),
        ("route", "Route"),
        ("rule", "Rule"),
        ("connection_security", "Connection"),
    ];
    let answered = "destination_namespace, destination_workload, route, rule, connection_security";
    vec![
        Panel::new(
            "Callers",
            "Which caller is it, and how often does it fail for whom?",
            View::Table(ENDS.into()),
            Unit::Requests,
        )
        .sized(12, 9)
        .ask("Requests", requests.clone())
        .column("Failed", Unit::Share, format!("({} or 0 * {requests}) / ({requests} > 0)", failures(by, IT)))
        .link(
            Board::Workload,
            "Caller",
            "Caller",
            &[("namespace", "source_namespace"), ("workload", "source_workload")],
        ),
        Panel::new(
            "Who answers, by which route",
            "Which version answers by which route and rule, and is the way there encrypted?",
            View::Table(answers.into()),
            Unit::Requests,
        )
        .sized(12, 9)
        .ask("Requests", rates(answered, REQUESTS, IT))
        .link(Board::Route, "Route", "Route", &[("route", "route")])
        .link(
            Board::Workload,
            "Workload",
            "Version",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        ),
    ]
}

fn reasons() -> Vec<Panel> {
    vec![
        Panel::new(
            "Requests that a proxy ended, by reason",
            "Why does it fail, if not by the application?",
            View::Lines,
            Unit::Requests,
        )
        .ask("{{reason}}", rates("reason", REQUESTS, &format!(r#"{IT}, reason!="ok""#)))
        .when(Needs::Event("a request that a proxy ends itself")),
        Panel::new("Calls of gRPC by status", "Which status do gRPC calls end with?", View::Stack, Unit::Requests)
            .ask("{{grpc_status}}", rates("grpc_status", REQUESTS, &format!(r#"{IT}, protocol="grpc""#))),
        Panel::new(
            "Retries and ejections",
            "Does the mesh hide failures of single endpoints?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("retries", rates("", "weft_http_retries_total", IT))
        .when(Needs::Event("a retry"))
        .ask(
            "ejected {{destination_service}}",
            rates(
                "destination_service",
                "weft_endpoint_ejections_total",
                r#"destination_service_namespace=~"$namespace", destination_service=~"$service""#,
            ),
        )
        .when(Needs::Event("an endpoint that is taken out for failing")),
    ]
}
