//! A route, its backends side by side.

use super::SOURCE;
use crate::Needs;
use crate::grafana::{Board, Dashboard, Panel, Row, Unit, Variable, View};
use crate::promql::{REQUESTS, failures, quantile, rates};

/// Routes' own namespaces are in their names; the variable `namespace` is of those who answer, and chooses nothing here.
const IT: &str = r#"reporter="source", route=~"$route""#;
const DURATION: &str = "weft_http_request_duration_seconds";
const BACKENDS: [(&str, &str); 3] =
    [("destination_namespace", "Namespace"), ("destination_workload", "Backend"), ("rule", "Rule")];

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Route,
        questions: vec![
            "Is the canary worse than what it replaces?",
            "Does traffic split as the weights say?",
            "Which rule matches, and which of them fails since when?",
        ],
        variables: vec![Variable {
            name: "route",
            label: "Route",
            of: format!(r#"{REQUESTS}{{cluster=~"$cluster", {SOURCE}, route!=""}}"#),
            values: "route",
        }],
        rows: vec![
            Row { title: "Backends side by side", panels: side_by_side() },
            Row { title: "Rules", panels: rules() },
            Row { title: "What the route adds", panels: extras() },
        ],
    }
}

fn side_by_side() -> Vec<Panel> {
    let by = "destination_namespace, destination_workload, rule";
    let requests = rates(by, REQUESTS, IT);
    let errors = failures(by, IT);
    let workload = "destination_workload";
    let share = |of: &str| format!("{of} / ignoring ({workload}) group_left () (sum without ({workload}) ({of}) > 0)");
    vec![
        Panel::new(
            "Backends",
            "Which backend gets which share, fails how often, and how slow is it?",
            View::Table(BACKENDS.into()),
            Unit::Requests,
        )
        .sized(24, 7)
        .ask("Requests", requests.clone())
        .column("Failed", Unit::Share, format!("({errors} or 0 * {requests}) / ({requests} > 0)"))
        .column("p50", Unit::Seconds, quantile("0.5", by, DURATION, IT))
        .column("p99", Unit::Seconds, quantile("0.99", by, DURATION, IT))
        .link(
            Board::Workload,
            "Workload",
            "Backend",
            &[("namespace", "destination_namespace"), ("workload", "destination_workload")],
        ),
        Panel::new("Share of requests", "Does traffic split as the weights say?", View::Stack, Unit::Share)
            .ask("{{destination_workload}} rule {{rule}}", share(&rates("destination_workload, rule", REQUESTS, IT))),
        Panel::new(
            "Share of failures",
            "Does one backend fail more than the other, and since when?",
            View::Lines,
            Unit::Share,
        )
        .ask(
            "{{destination_workload}}",
            format!("({} or 0 * {all}) / ({all} > 0)", failures(workload, IT), all = rates(workload, REQUESTS, IT)),
        )
        .link(Board::Workload, "Workload", "", &[("workload", "destination_workload")]),
        Panel::new(
            "Duration, 99th percentile",
            "Is one backend slower than the other, and since when?",
            View::Lines,
            Unit::Seconds,
        )
        .ask("{{destination_workload}}", quantile("0.99", workload, DURATION, IT)),
    ]
}

fn rules() -> Vec<Panel> {
    vec![
        Panel::new("Requests by rule", "Which rule matches?", View::Stack, Unit::Requests)
            .sized(12, 8)
            .ask("{{route}} rule {{rule}}", rates("route, rule", REQUESTS, IT)),
        Panel::new("Failed requests by rule and reason", "Which rule fails, and why?", View::Lines, Unit::Requests)
            .sized(12, 8)
            .ask("{{route}} rule {{rule}}: {{reason}}", failures("route, rule, reason", IT))
            .when(Needs::Event("a request that fails")),
    ]
}

fn extras() -> Vec<Panel> {
    let callers = [("source_namespace", "Namespace"), ("source_workload", "Caller")];
    vec![
        Panel::new("Callers", "Who uses the route?", View::Table(callers.into()), Unit::Requests)
            .ask("Requests", rates("source_namespace, source_workload", REQUESTS, IT))
            .link(
                Board::Workload,
                "Caller",
                "Caller",
                &[("namespace", "source_namespace"), ("workload", "source_workload")],
            ),
        Panel::new("Retries", "How many requests need more than one try?", View::Lines, Unit::Requests)
            .ask("{{route}} rule {{rule}}", rates("route, rule", "weft_http_retries_total", IT))
            .when(Needs::Event("a retry")),
        Panel::new("Timeouts", "How many requests run out of time?", View::Lines, Unit::Requests)
            .ask(
                "{{reason}}",
                rates("reason", REQUESTS, &format!(r#"{IT}, reason=~"request_timeout|backend_timeout""#)),
            )
            .when(Needs::Event("a request that runs out of its route's time")),
    ]
}
