//! A workload as server and client.

use super::SOURCE;
use crate::Needs;
use crate::grafana::{Board, Dashboard, Panel, Row, Unit, Variable, View};
use crate::promql::{REQUESTS, chosen, failures, quantile, rates, sum};

const SERVED: &str = r#"reporter="source", destination_namespace=~"$namespace", destination_workload=~"$workload""#;
const CALLED: &str = r#"reporter="source", source_namespace=~"$namespace", source_workload=~"$workload""#;
const LOCAL: &str = r#"namespace=~"$namespace", workload=~"$workload""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Workload,
        questions: vec![
            "Who calls this workload, and is it encrypted?",
            "Whom does it call, and who of them fails it?",
            "On which node is it, and since when is it unwell?",
        ],
        variables: vec![Variable {
            name: "workload",
            label: "Workload",
            of: format!(
                r#"{{__name__=~"{REQUESTS}|weft_tcp_connections_opened_total", cluster=~"$cluster", {SOURCE}, destination_namespace=~"$namespace"}}"#
            ),
            values: "destination_workload",
        }],
        rows: vec![
            Row { title: "As a server", panels: server() },
            Row { title: "As a client", panels: client() },
            Row { title: "Connections, certificates and policies", panels: connections() },
        ],
    }
}

fn server() -> Vec<Panel> {
    let callers =
        [("source_namespace", "Namespace"), ("source_workload", "Caller"), ("connection_security", "Connection")];
    let by = "source_namespace, source_workload, connection_security";
    let duration = "weft_http_request_duration_seconds";
    vec![
        Panel::new("Requests by class of answer", "Since when does it fail?", View::Stack, Unit::Requests)
            .ask("{{response_class}}", rates("response_class", REQUESTS, SERVED)),
        Panel::new("Duration", "How long do its answers take?", View::Lines, Unit::Seconds)
            .ask("50 %", quantile("0.5", "", duration, SERVED))
            .ask("99 %", quantile("0.99", "", duration, SERVED)),
        Panel::new("Callers", "Who calls it, and is it encrypted?", View::Table(callers.into()), Unit::Requests)
            .ask("Requests", rates(by, REQUESTS, SERVED))
            .link(
                Board::Workload,
                "Caller",
                "Caller",
                &[("namespace", "source_namespace"), ("workload", "source_workload")],
            ),
    ]
}

fn client() -> Vec<Panel> {
    let callees = [("destination_namespace", "Namespace"), ("destination_workload", "Callee"), ("route", "Route")];
    let by = "destination_namespace, destination_workload, route";
    let requests = rates(by, REQUESTS, CALLED);
    vec![
        Panel::new(
            "Callees",
            "Whom does it call by which route, and who of them fails it?",
            View::Table(callees.into()),
            Unit::Requests,
        )
        .sized(12, 8)
        .ask("Requests", requests.clone())
        .column("Failed", Unit::Share, format!("({} or 0 * {requests}) / ({requests} > 0)", failures(by, CALLED)))
        .link(
            Board::Workload,
            "Callee",
            "Callee",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        )
        .link(Board::Route, "Route", "Route", &[("route", "route")]),
        Panel::new(
            "Requests it sends, by class of answer",
            "Since when do its calls fail?",
            View::Stack,
            Unit::Requests,
        )
        .sized(6, 8)
        .ask("{{response_class}}", rates("response_class", REQUESTS, CALLED)),
        Panel::new("Bodies", "How large are its requests and answers?", View::Lines, Unit::Bytes)
            .sized(6, 8)
            .ask("requests, 95 %", quantile("0.95", "", "weft_http_request_body_bytes", LOCAL))
            .ask("answers, 95 %", quantile("0.95", "", "weft_http_response_body_bytes", LOCAL)),
    ]
}

fn connections() -> Vec<Panel> {
    let either = [SERVED, CALLED].map(|labels| labels.replace(r#"reporter="source", "#, ""));
    let rate = |counter: &str, labels: &str| rates("connection_security", counter, labels);
    vec![
        Panel::new(
            "Connections opened to and by it",
            "How many connections, and are they encrypted?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("to it, {{connection_security}}", rate("weft_tcp_connections_opened_total", &either[0]))
        .ask("by it, {{connection_security}}", rate("weft_tcp_connections_opened_total", &either[1])),
        Panel::new("TLS handshakes by result", "Do its handshakes succeed?", View::Lines, Unit::PerSecond)
            .ask("{{role}}: {{result}}", rates("role, result", "weft_tls_handshakes_total", LOCAL)),
        Panel::new("Decisions of policies", "Which policy allows or denies?", View::Lines, Unit::PerSecond).ask(
            "{{decision}} {{policy}} {{mode}}",
            rates("decision, policy, mode", "weft_authorization_decisions_total", LOCAL),
        ),
        Panel::new(
            "Connections refused by reason",
            "Why do connections come to nothing?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("{{direction}}: {{reason}}", rates("direction, reason", "weft_tcp_connections_refused_total", LOCAL))
        .when(Needs::Event("a connection that is refused, such as plaintext to a Strict workload")),
        Panel::new(
            "Nodes",
            "On which nodes are its pods served?",
            View::Table([("node", "Node"), ("workload", "Workload")].into()),
            Unit::PerSecond,
        )
        .ask("Handshakes", rates("node, workload", "weft_tls_handshakes_total", LOCAL))
        .link(Board::NodeProxy, "Node", "Node", &[("node", "node")]),
        Panel::new("Connections open", "How many are open now?", View::Lines, Unit::Count)
            .ask("to it", sum("", &chosen("weft_tcp_connections", &either[0])))
            .ask("by it", sum("", &chosen("weft_tcp_connections", &either[1]))),
    ]
}
