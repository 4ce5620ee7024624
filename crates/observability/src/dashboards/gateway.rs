//! A Gateway and its clients from outside.

use crate::Needs;
use crate::grafana::{Board, Dashboard, Panel, Row, Unit, Variable, View};
use crate::promql::{REQUESTS, chosen, failures, quantile, rates, sum};

/// Gateways count as callers that dialled no Service.
const IT: &str =
    r#"reporter="source", destination_service="", source_namespace=~"$namespace", source_workload=~"$gateway""#;
const LOCAL: &str = r#"namespace=~"$namespace", workload=~"$gateway""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Gateway,
        questions: vec![
            "Do clients from outside get answers?",
            "Which of the Gateway's routes fails, and is it the Gateway or the backend?",
            "Who is turned away, and why?",
        ],
        variables: vec![Variable {
            name: "gateway",
            label: "Gateway",
            of: format!(
                r#"{REQUESTS}{{cluster=~"$cluster", reporter="source", destination_service="", route!="", source_namespace=~"$namespace"}}"#
            ),
            values: "source_workload",
        }],
        rows: vec![
            Row { title: "What clients get", panels: clients() },
            Row { title: "Routes and backends", panels: routes() },
            Row { title: "Connections", panels: connections() },
        ],
    }
}

fn clients() -> Vec<Panel> {
    vec![
        Panel::new(
            "Requests by class of answer",
            "Do clients get answers, and since when not?",
            View::Stack,
            Unit::Requests,
        )
        .ask("{{response_class}}", rates("response_class", REQUESTS, IT)),
        Panel::new("Requests by protocol", "What do clients speak?", View::Stack, Unit::Requests)
            .ask("{{protocol}}", rates("protocol", REQUESTS, IT)),
        Panel::new(
            "Requests that the Gateway ended, by reason",
            "Is it the Gateway that fails, and why?",
            View::Lines,
            Unit::Requests,
        )
        .ask("{{reason}}", rates("reason", REQUESTS, &format!(r#"{IT}, reason!="ok""#)))
        .when(Needs::Event("a request that the Gateway ends itself, such as one for no listener's host")),
    ]
}

fn routes() -> Vec<Panel> {
    let backends = [
        ("route", "Route"),
        ("destination_namespace", "Namespace"),
        ("destination_workload", "Backend"),
        ("connection_security", "Connection"),
    ];
    let by = "route, destination_namespace, destination_workload, connection_security";
    let requests = rates(by, REQUESTS, IT);
    let routed = format!(r#"{}, route!="""#, r#"reporter="source", destination_service="""#);
    vec![
        Panel::new(
            "Routes and backends",
            "Which route and backend answers, and which of them fails?",
            View::Table(backends.into()),
            Unit::Requests,
        )
        .sized(16, 9)
        .ask("Requests", requests.clone())
        .column("Failed", Unit::Share, format!("({} or 0 * {requests}) / ({requests} > 0)", failures(by, IT)))
        .link(Board::Route, "Route", "Route", &[("route", "route")])
        .link(
            Board::Workload,
            "Backend",
            "Backend",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        ),
        Panel::new("Duration by route, 99th percentile", "Which route is slow?", View::Lines, Unit::Seconds)
            .sized(8, 9)
            .ask("{{route}}", quantile("0.99", "route", "weft_http_request_duration_seconds", &routed))
            .link(Board::Route, "Route", "", &[("route", "route")]),
    ]
}

fn connections() -> Vec<Panel> {
    let open = r#"namespace=~"$namespace", pod=~"$gateway.*""#;
    vec![
        Panel::new("Connections of clients", "How near is the Gateway to its limit?", View::Lines, Unit::Count)
            .ask("open", sum("", &chosen("weft_budget_connections", open)))
            .ask("limit", sum("", &chosen("weft_budget_connections_limit", open))),
        Panel::new("Clients turned away", "Is anybody reset on arrival?", View::Lines, Unit::PerSecond)
            .ask("{{listener}}: {{reason}}", rates("listener, reason", "weft_tcp_connections_shed_total", LOCAL))
            .when(Needs::Event("more clients than a limit lets in"))
            .ask("{{direction}}: {{reason}}", rates("direction, reason", "weft_tcp_connections_refused_total", LOCAL))
            .when(Needs::Event("a client whose connection comes to nothing")),
        Panel::new(
            "Authorizers and hosts outside",
            "Do external authorizers and names of backends answer?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask(
            "authorizer {{destination_service}}: {{result}}",
            rates("destination_service, result", "weft_external_auth_checks_total", LOCAL),
        )
        .when(Needs::Event("a route with an ExternalAuth filter"))
        .ask("names: {{reason}}", rates("reason", "weft_gateway_dns_failures_total", ""))
        .when(Needs::Event("a backend's name that can't be resolved")),
    ]
}
