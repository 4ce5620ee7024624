//! A node's proxy.

use crate::Needs;
use crate::grafana::{Board, Bounds, Dashboard, Panel, Row, Unit, Variable, View};
use crate::promql::{WINDOW, chosen, rates};

/// `node` is a label of the scrape: which machine the proxy is on.
const IT: &str = r#"node=~"$node""#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::NodeProxy,
        questions: vec![
            "Is this node's proxy well, and does it have today's configuration?",
            "Is the node near a limit?",
            "Which version runs, and since when?",
        ],
        variables: vec![Variable {
            name: "node",
            label: "Node",
            of: r#"weft_pods{cluster=~"$cluster"}"#.to_owned(),
            values: "node",
        }],
        rows: vec![
            Row { title: "State", panels: state() },
            Row { title: "What it holds", panels: holdings() },
            Row { title: "The process", panels: process() },
            Row { title: "What went wrong", panels: faults() },
        ],
    }
}

fn by_node(metric: &str) -> String {
    format!("max by (node) ({})", chosen(metric, IT))
}

fn state() -> Vec<Panel> {
    let versions = [("node", "Node"), ("version", "Version"), ("component", "Program")];
    let number = |title, answers, bounds, unit| Panel::new(title, answers, View::Number(bounds), unit).sized(6, 4);
    vec![
        number(
            "Connected to the controller",
            "Does it hear of changes?",
            Some(Bounds { red: "1", green: "1" }),
            Unit::Count,
        )
        .ask("{{node}}", by_node("weft_config_connected")),
        number(
            "Configuration complete",
            "Does it have everything?",
            Some(Bounds { red: "1", green: "1" }),
            Unit::Count,
        )
        .ask("{{node}}", by_node("weft_config_synced")),
        number("Since the configuration changed", "Since when does it have what it has?", None, Unit::Seconds)
            .ask("{{node}}", by_node("weft_config_age_seconds")),
        number("Up for", "Since when does it run?", None, Unit::Seconds)
            .ask("{{node}}", format!("time() - max by (node) ({})", chosen("process_start_time_seconds", IT))),
        Panel::new("Versions", "Which version runs on which node?", View::Table(versions.into()), Unit::Count)
            .ask("Processes", format!("count by (node, version, component) ({})", chosen("weft_build_info", IT))),
        Panel::new(
            "Changes applied and refused",
            "When did configuration come, and was any refused?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("{{node}} applied", rates("node", "weft_config_changes_total", IT))
        .ask("{{node}} refused", rates("node", "weft_config_rejections_total", IT)),
        Panel::new(
            "Since the controller was heard",
            "Is the connection to the controller alive?",
            View::Lines,
            Unit::Seconds,
        )
        .ask("{{node}}", by_node("weft_config_heard_age_seconds")),
    ]
}

fn holdings() -> Vec<Panel> {
    vec![
        Panel::new("Connections against the limit", "Is the node near its limit?", View::Lines, Unit::Count)
            .ask("{{node}} open", by_node("weft_node_connections"))
            .ask("{{node}} limit", by_node("weft_node_connections_limit")),
        Panel::new("Tunnels", "How many tunnels to other nodes, with how many streams?", View::Lines, Unit::Count)
            .ask("{{node}} tunnels", by_node("weft_tunnels"))
            .ask("{{node}} streams", by_node("weft_tunnel_streams"))
            .ask("{{node}} being dialled", by_node("weft_tunnel_dials")),
        Panel::new("HTTP connections", "How many connections of clients and to endpoints?", View::Lines, Unit::Count)
            .ask("{{node}} clients", by_node("weft_http_downstream_connections"))
            .ask("{{node}} idle, HTTP/1", by_node("weft_http_upstream_idle_connections"))
            .ask("{{node}} HTTP/2", by_node("weft_http2_upstream_connections")),
        Panel::new("Pods", "How many pods does it serve?", View::Lines, Unit::Count)
            .ask("{{node}}", by_node("weft_pods")),
        Panel::new("Endpoints out of balancing", "Are endpoints taken out for failing?", View::Lines, Unit::Count)
            .ask("{{node}}", by_node("weft_endpoints_ejected")),
        Panel::new("Series of metrics", "Is the budget of series used up?", View::Lines, Unit::Count)
            .ask("{{node}} series", by_node("weft_telemetry_series"))
            .ask("{{node}} limit", by_node("weft_telemetry_series_limit")),
    ]
}

fn process() -> Vec<Panel> {
    let cpu = format!("sum by (node) (rate({}[{WINDOW}]))", chosen("process_cpu_seconds_total", IT));
    vec![
        Panel::new("CPU", "How many CPUs does it use?", View::Lines, Unit::Count).ask("{{node}}", cpu),
        Panel::new("Memory", "How much memory does it use?", View::Lines, Unit::Bytes)
            .ask("{{node}}", by_node("process_resident_memory_bytes")),
        Panel::new("File descriptors", "Is it running out of file descriptors?", View::Lines, Unit::Share).ask(
            "{{node}}",
            format!("max by (node) ({} / {})", chosen("process_open_fds", IT), chosen("process_max_fds", IT)),
        ),
    ]
}

fn faults() -> Vec<Panel> {
    vec![
        Panel::new(
            "Refused and shed",
            "Why do connections come to nothing on this node?",
            View::Lines,
            Unit::PerSecond,
        )
        .ask("{{node}} refused: {{reason}}", rates("node, reason", "weft_tcp_connections_refused_total", IT))
        .when(Needs::Event("a connection that is refused"))
        .ask("{{node}} shed: {{reason}}", rates("node, reason", "weft_tcp_connections_shed_total", IT))
        .when(Needs::Event("a budget that is used up")),
        Panel::new("Failures to accept", "Does the kernel hand over connections?", View::Lines, Unit::PerSecond)
            .ask("{{node}}: {{class}}", rates("node, class", "weft_accept_failures_total", IT))
            .when(Needs::Event("a node out of file descriptors or memory"))
            .ask("{{node}} listeners reopened", rates("node", "weft_listeners_reopened_total", IT))
            .when(Needs::Event("a listener that breaks")),
        Panel::new("Panics", "Is there a bug of ours?", View::Lines, Unit::PerSecond)
            .ask("{{node}}", rates("node", "weft_panics_total", IT))
            .when(Needs::Event("a bug: a panic ends one connection or request")),
    ]
}
