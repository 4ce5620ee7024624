//! Controller, authority and agents.

use crate::Needs;
use crate::grafana::{Board, Bounds, Dashboard, Panel, Row, Unit, View};
use crate::promql::{chosen, quantile, rates, sum};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::ControlPlane,
        questions: vec![
            "Does an edit reach every node, and how fast?",
            "Does anybody refuse configuration?",
            "Are certificates issued, and when do the authority's own end?",
            "Are all pods of the mesh enrolled?",
        ],
        variables: Vec::new(),
        rows: vec![
            Row { title: "Configuration", panels: configuration() },
            Row { title: "The authority", panels: authority() },
            Row { title: "Enrolment", panels: enrolment() },
            Row { title: "Kubernetes", panels: kubernetes() },
        ],
    }
}

fn number(title: &'static str, answers: &'static str, bounds: Option<Bounds>, unit: Unit) -> Panel {
    Panel::new(title, answers, View::Number(bounds), unit).sized(6, 4)
}

fn in_cluster(panels: Vec<Panel>) -> Vec<Panel> {
    let unless_event = |mut panel: Panel| {
        panel.queries.iter_mut().filter(|it| it.needs == Needs::Traffic).for_each(|it| it.needs = Needs::Cluster);
        panel
    };
    panels.into_iter().map(unless_event).collect()
}

fn configuration() -> Vec<Panel> {
    let push = "weft_controller_push_to_ack_seconds";
    let more = |red, green| Some(Bounds { red, green });
    let mut panels = in_cluster(vec![
        number("Leaders of the controller", "Does one replica write statuses?", more("1", "1"), Unit::Count)
            .ask("leaders", sum("", &chosen("weft_controller_leader", ""))),
        number("Proxies that follow", "How many proxies are connected?", None, Unit::Count)
            .ask("proxies", sum("", &chosen("weft_controller_clients", ""))),
        number("Refused resources", "Does a node refuse anything?", more("1", "0.5"), Unit::Count)
            .ask("refused", format!("max({})", chosen("weft_controller_refused_resources", ""))),
        number("Unreadable objects", "Is there an object that can't be read?", more("1", "0.5"), Unit::Count)
            .ask("unreadable", format!("max({})", chosen("weft_controller_unreadable_objects", ""))),
        Panel::new(
            "From a change to the last acknowledgement",
            "How long until an edit is everywhere?",
            View::Lines,
            Unit::Seconds,
        )
        .ask("50 %", quantile("0.5", "", push, ""))
        .ask("99 %", quantile("0.99", "", push, "")),
        Panel::new("Work on a change", "How long does the controller take for a change?", View::Lines, Unit::Seconds)
            .ask("99 %", quantile("0.99", "", "weft_controller_commit_seconds", "")),
        Panel::new("Objects and resources", "How large is the mesh?", View::Lines, Unit::Count)
            .ask("{{kind}}", format!("max by (kind) ({})", chosen("weft_controller_objects", "")))
            .ask("resources", format!("max({})", chosen("weft_controller_resources", ""))),
    ]);
    panels.push(
        Panel::new(
            "Changes that proxies applied and refused",
            "Do proxies take what they are sent?",
            View::Lines,
            Unit::PerSecond,
        )
        .sized(12, 8)
        .ask("applied", rates("", "weft_config_changes_total", ""))
        .ask("refused", rates("", "weft_config_rejections_total", "")),
    );
    panels.push(
        Panel::new(
            "Refusals by type, and clients turned away",
            "What is refused, and who isn't let in?",
            View::Lines,
            Unit::PerSecond,
        )
        .sized(12, 8)
        .ask("{{type}}", rates("type", "weft_controller_nacks_total", ""))
        .when(Needs::Event("a resource that a node can't use"))
        .ask("clients refused", rates("", "weft_controller_clients_refused_total", ""))
        .when(Needs::Event("a client with no valid token")),
    );
    panels
}

fn authority() -> Vec<Panel> {
    let until = |metric: &str| format!("min({} > 0) - time()", chosen(metric, ""));
    let days = |red, green| Some(Bounds { red, green });
    let mut panels = in_cluster(vec![
        number("The authority's root ends in", "When does the root end?", days("2592000", "7776000"), Unit::Seconds)
            .ask("root", until("weft_ca_root_expiry_timestamp_seconds")),
        number("Its intermediate ends in", "When does what signs leaves end?", days("86400", "259200"), Unit::Seconds)
            .ask("intermediate", until("weft_ca_intermediate_expiry_timestamp_seconds")),
        number("Stage of the rotation", "Is a rotation of the root under way?", None, Unit::Count)
            .ask("{{stage}}", format!("max by (stage) ({}) > 0", chosen("weft_ca_rotation_stage", ""))),
        number("Leaders of the authority", "Does one replica keep the Secret?", days("1", "1"), Unit::Count)
            .ask("leaders", sum("", &chosen("weft_ca_leader", ""))),
        Panel::new("Certificates issued", "Are certificates issued?", View::Lines, Unit::PerSecond)
            .ask("{{caller}}", rates("caller", "weft_ca_issued_total", "")),
        Panel::new("Generation of the trust bundle", "Do all replicas have the same roots?", View::Lines, Unit::Count)
            .ask("{{pod}}", format!("max by (pod) ({})", chosen("weft_ca_bundle_generation", ""))),
    ]);
    panels.push(
        Panel::new(
            "Refused requests, unusable Secrets",
            "Who gets no certificate, and why?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("{{reason}}", rates("reason", "weft_ca_refused_total", ""))
        .when(Needs::Event("a request for an identity that its node has no pod of"))
        .ask("{{secret}} can't be used", format!("max by (secret) ({})", chosen("weft_ca_bad_secret", "")))
        .when(Needs::Event("a Secret of the authority that can't be read")),
    );
    panels
}

fn enrolment() -> Vec<Panel> {
    let mut panels = in_cluster(vec![
        Panel::new("Pods by protection", "Are all pods of the mesh protected?", View::Stack, Unit::Count)
            .ask("{{protection}}", sum("protection", &chosen("weft_agent_pods", ""))),
        Panel::new("Agents", "Is every node ready to take pods?", View::Lines, Unit::Count)
            .ask("ready", sum("", &chosen("weft_agent_ready", "")))
            .ask("with a proxy", format!("sum({} > bool 0)", chosen("weft_agent_proxies", ""))),
        Panel::new(
            "Installations of the plugin",
            "Does something undo the CNI configuration?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("{{result}}", rates("result", "weft_agent_installs_total", "")),
    ]);
    panels.push(
        Panel::new(
            "Probes of the data plane",
            "Does traffic pass through the node's data plane?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("{{result}}", rates("result", "weft_agent_probes_total", ""))
        .when(Needs::Event("an agent that starts")),
    );
    panels
}

fn kubernetes() -> Vec<Panel> {
    let event = Needs::Event("an API server that doesn't answer");
    vec![
        Panel::new("Errors of the API server", "Does Kubernetes answer us?", View::Lines, Unit::PerSecond)
            .ask("watching {{resource}}", rates("resource", "weft_kube_watch_errors_total", ""))
            .when(event)
            .ask("controller: {{what}}", rates("what", "weft_controller_api_errors_total", ""))
            .when(event)
            .ask("agents: {{call}}", rates("call", "weft_agent_api_errors_total", ""))
            .when(event)
            .ask("lease {{lease}}", rates("lease", "weft_kube_lease_errors_total", ""))
            .when(event),
        Panel::new("Statuses written", "Are statuses written?", View::Lines, Unit::PerSecond)
            .ask("{{result}}", rates("result", "weft_controller_status_writes_total", ""))
            .when(Needs::Event("an object whose status changes")),
        Panel::new("Tokens reviewed", "Does Kubernetes vouch for our components?", View::Lines, Unit::PerSecond)
            .ask("{{result}}", rates("result", "weft_kube_token_reviews_total", ""))
            .all_when(Needs::Cluster),
    ]
}
