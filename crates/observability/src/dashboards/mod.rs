//! The dashboards themselves, and the service graph.

mod control_plane;
mod gateway;
mod namespace;
mod node_proxy;
mod overview;
mod route;
mod security;
mod service;
mod workload;

use crate::grafana::{Board, Dashboard, Panel, Unit, View};
use crate::promql::chosen;

/// The label that says who counted: requests are counted by clients' proxies and Gateways, all of them and once.
pub(crate) const SOURCE: &str = r#"reporter="source""#;
/// The two ends of an edge, as tables show them.
pub(crate) const ENDS: [(&str, &str); 4] = [
    ("source_namespace", "Caller's namespace"),
    ("source_workload", "Caller"),
    ("destination_namespace", "Callee's namespace"),
    ("destination_workload", "Callee"),
];
/// And what the connection between them is.
pub(crate) const SECURED_ENDS: [(&str, &str); 5] =
    [ENDS[0], ENDS[1], ENDS[2], ENDS[3], ("connection_security", "Connection")];

/// All of them, in the order of [`Board::ALL`].
pub fn all() -> Vec<Dashboard> {
    Board::ALL.into_iter().map(dashboard).collect()
}

/// One of them.
pub fn dashboard(board: Board) -> Dashboard {
    match board {
        Board::Overview => overview::dashboard(),
        Board::Namespace => namespace::dashboard(),
        Board::Service => service::dashboard(),
        Board::Workload => workload::dashboard(),
        Board::Route => route::dashboard(),
        Board::Gateway => gateway::dashboard(),
        Board::NodeProxy => node_proxy::dashboard(),
        Board::ControlPlane => control_plane::dashboard(),
        Board::Security => security::dashboard(),
    }
}

/// A graph of who calls whom by HTTP: edges with requests per second; nodes with requests per second, the mean time of an
/// answer, and a ring of what succeeded and failed. `edges` are more matchers of the edges.
pub fn graph(title: &'static str, answers: &'static str, edges: &str) -> Panel {
    // Grafana takes a frame with a source for edges and another one for nodes; both need an id.
    let place = |text: &str, label: &str, end: &str| {
        format!(r#"label_join({text}, "{label}", "/", "{end}_namespace", "{end}_workload")"#)
    };
    let of = |series: &str| chosen(series, edges);
    let edge = format!(
        "sum by (source_namespace, source_workload, destination_namespace, destination_workload) ({})",
        of("weft:edge_requests:rate5m")
    );
    let edge = place(&place(&edge, "source", "source"), "target", "destination");
    let node = |series: &str, end: &str| {
        let sum = format!("sum by ({end}_namespace, {end}_workload) ({})", of(series));
        format!("sum by (id) ({})", place(&sum, "id", end))
    };
    let served = |series: &str| {
        format!("({} or 0 * {})", node(series, "destination"), node("weft:edge_requests:rate5m", "source"))
    };
    let (requests, errors) = (served("weft:edge_requests:rate5m"), served("weft:edge_errors:rate5m"));
    // Who isn't called has failed nothing.
    let failed = format!("({errors} / ({requests} > 0) or 0 * {requests})");
    let title_of = |text: &str| {
        format!(
            r#"label_replace(label_replace({text}, "title", "$2", "id", "(.*)/(.*)"), "subtitle", "$1", "id", "(.*)/(.*)")"#
        )
    };
    Panel::new(title, answers, View::Graph, Unit::Requests)
        .sized(24, 16)
        .ask("mainstat", format!(r#"label_join({edge}, "id", " to ", "source", "target")"#))
        .ask("mainstat", title_of(&requests))
        .column("arc__failed", Unit::Share, failed.clone())
        .column("arc__ok", Unit::Share, format!("1 - {failed}"))
        .link(Board::Workload, "Workload", "", &[("namespace", "subtitle"), ("workload", "title")])
        .link(Board::Namespace, "Namespace", "", &[("namespace", "subtitle")])
}

#[cfg(test)]
mod tests;
