//! Who may what, and what is encrypted.

use super::SECURED_ENDS;
use crate::Needs;
use crate::grafana::{Board, Bounds, Dashboard, Panel, Row, Unit, View};
use crate::promql::{chosen, quantile, rates, sum};

const TO: &str = r#"destination_namespace=~"$namespace""#;
const LOCAL: &str = r#"namespace=~"$namespace""#;
const CLEAR: &str = r#"connection_security=~"plaintext|passthrough""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Security,
        questions: vec![
            "What is not encrypted, between whom, and since when?",
            "Who is denied by which policy?",
            "Which certificates end soon, and are handshakes failing?",
            "What would break if a namespace became Strict?",
        ],
        variables: Vec::new(),
        rows: vec![
            Row { title: "Encryption", panels: encryption() },
            Row { title: "Authorization", panels: authorization() },
            Row { title: "Certificates and handshakes", panels: certificates() },
        ],
    }
}

fn encryption() -> Vec<Panel> {
    let by = "source_namespace, source_workload, destination_namespace, destination_workload, connection_security";
    let of = |series: &str, labels: &str| sum(by, &chosen(series, &format!("{TO}, {labels}")));
    let to_workload = [("namespace", "destination_namespace"), ("workload", "destination_workload")];
    vec![
        Panel::new("Requests by connection", "How much is encrypted, and since when?", View::Stack, Unit::Requests)
            .ask("{{connection_security}}", sum("connection_security", &chosen("weft:edge_requests:rate5m", TO))),
        Panel::new(
            "In the clear",
            "Which connections are not encrypted, from whom to whom?",
            View::Table(SECURED_ENDS.into()),
            Unit::PerSecond,
        )
        .sized(16, 8)
        .ask("Connections", of("weft:edge_connections:rate5m", CLEAR))
        .column("Bytes", Unit::BytesPerSecond, of("weft:edge_bytes:rate5m", CLEAR))
        .link(Board::Workload, "Callee", "Callee", &to_workload),
        Panel::new(
            "Every edge",
            "Is the connection from this caller to that callee encrypted?",
            View::Table(SECURED_ENDS.into()),
            Unit::Requests,
        )
        .sized(16, 9)
        .ask("Requests", sum(by, &chosen("weft:edge_requests:rate5m", TO)))
        .link(Board::Workload, "Callee", "Callee", &to_workload),
        Panel::new(
            "What Strict would refuse, and probes in the clear",
            "What would break if a namespace became Strict?",
            View::Lines,
            Unit::PerSecond,
        )
        .sized(8, 9)
        .ask("StrictAudit: {{workload}}", rates("workload", "weft_strict_audit_total", LOCAL))
        .when(Needs::Event("plaintext to a workload with the mode StrictAudit"))
        .ask("probes: {{workload}}", rates("workload", "weft_node_plaintext_connections_total", LOCAL))
        .when(Needs::Event("a probe from the node's own address to a pod of the mesh")),
    ]
}

fn authorization() -> Vec<Panel> {
    let policies = [
        ("namespace", "Namespace"),
        ("workload", "Workload"),
        ("policy", "Policy"),
        ("decision", "Decision"),
        ("mode", "Mode"),
    ];
    let by = "namespace, workload, policy, decision, mode";
    vec![
        Panel::new(
            "Decisions by policy",
            "Which policy allows or denies whom to call what?",
            View::Table(policies.into()),
            Unit::PerSecond,
        )
        .sized(16, 8)
        .ask("Decisions", rates(by, "weft_authorization_decisions_total", LOCAL))
        .link(Board::Workload, "Workload", "Workload", &[("namespace", "namespace"), ("workload", "workload")]),
        Panel::new("Denied", "Since when is somebody denied?", View::Lines, Unit::PerSecond)
            .ask(
                "{{workload}} {{policy}}",
                rates(
                    "workload, policy",
                    "weft_authorization_decisions_total",
                    &format!(r#"{LOCAL}, decision="deny""#),
                ),
            )
            .when(Needs::Event("a call that a policy denies"))
            .link(Board::Workload, "Workload", "", &[("workload", "workload")]),
        Panel::new("Plaintext and others refused", "Whom do Strict workloads turn away?", View::Lines, Unit::PerSecond)
            .sized(12, 7)
            .ask(
                "{{workload}}: {{reason}}",
                rates(
                    "workload, reason",
                    "weft_tcp_connections_refused_total",
                    &format!(r#"{LOCAL}, reason=~"plaintext_refused|policy_denied|policy_revoked|not_a_probe""#),
                ),
            )
            .when(Needs::Event("plaintext to a Strict workload")),
        Panel::new("External authorizers", "Do authorizers answer?", View::Lines, Unit::PerSecond)
            .sized(12, 7)
            .ask(
                "{{destination_service}}: {{result}}",
                rates("destination_service, result", "weft_external_auth_checks_total", LOCAL),
            )
            .when(Needs::Event("a route with an ExternalAuth filter")),
    ]
}

fn certificates() -> Vec<Panel> {
    let identities = [("identity", "Identity"), ("node", "Node")];
    let ends = chosen("weft_certificate_expiry_timestamp_seconds", "");
    let number =
        |title, answers, bounds| Panel::new(title, answers, View::Number(Some(bounds)), Unit::Seconds).sized(6, 4);
    vec![
        number("The next root ends in", "When does a trusted root end?", Bounds { red: "2592000", green: "7776000" })
            .ask("root", format!("min({}) - time()", chosen("weft_trusted_root_expiry_timestamp_seconds", ""))),
        number(
            "The next certificate ends in",
            "When does a workload's certificate end?",
            Bounds { red: "600", green: "3600" },
        )
        .ask("certificate", format!("min({ends} > 0) - time()")),
        Panel::new("Roots trusted", "Is a rotation of the root under way?", View::Number(None), Unit::Count)
            .sized(6, 4)
            .ask("{{trust_domain}}", format!("max by (trust_domain) ({})", chosen("weft_trusted_roots", ""))),
        Panel::new(
            "Renewals that failed",
            "Does anybody get no certificate?",
            View::Number(Some(Bounds { red: "3", green: "1" })),
            Unit::Count,
        )
        .sized(6, 4)
        .ask("failed", format!("max({})", chosen("weft_certificate_renewal_failures", ""))),
        Panel::new(
            "Certificates",
            "Which identity's certificate ends next, and on which node?",
            View::Table(identities.into()),
            Unit::Seconds,
        )
        .ask("Ends in", format!("min by (identity, node) ({ends} > 0) - time()"))
        .link(Board::NodeProxy, "Node", "Node", &[("node", "node")]),
        Panel::new(
            "Handshakes by result, version and cipher",
            "Do handshakes succeed, and how strong are they?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask(
            "{{role}}: {{result}} {{tls_version}} {{cipher}}",
            rates("role, result, tls_version, cipher", "weft_tls_handshakes_total", LOCAL),
        ),
        Panel::new("Duration of handshakes", "How long do handshakes take?", View::Lines, Unit::Seconds)
            .ask("{{role}}, 99 %", quantile("0.99", "role", "weft_tls_handshake_duration_seconds", "")),
    ]
}
