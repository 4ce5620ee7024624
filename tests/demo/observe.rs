//! `OBSERVE=1`: a real Prometheus beside the mesh, and what dashboards would show, as text.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use weft_observability::questions::{follow, questions};
use weft_observability::with_all_chosen;
use weft_tests::{Mesh, Observatory, STATUS_LISTEN, eventually};

use crate::show::Board;

/// Whether somebody asked for it.
pub fn is_wanted() -> bool {
    std::env::var("OBSERVE").is_ok_and(|wanted| wanted == "1")
}

/// What the nodes' proxies need for it.
pub fn options() -> &'static [&'static str] {
    if is_wanted() { &STATUS_LISTEN } else { &[] }
}

/// Starts it, if somebody asked for it.
pub fn start(mesh: &Mesh, wire: IpAddr, board: &mut Board) -> Result<Option<Observatory>> {
    if !is_wanted() {
        return Ok(None);
    }
    board.step("a Prometheus beside the mesh", || Observatory::of_mesh(mesh, wire)).map(Some)
}

/// The edges of the service graph, and what the panels say that answer the questions of somebody on call.
pub fn show(prometheus: &Observatory, board: &mut Board) -> Result<()> {
    let edges = r#"sort_desc(sum by (source_workload, destination_workload, connection_security) (weft:edge_requests:rate5m) > 0)"#;
    let mut lines = Vec::new();
    eventually("Prometheus has recorded edges", || {
        lines = prometheus
            .query(edges)?
            .iter()
            .map(|edge| {
                let label = |name: &str| edge["metric"][name].as_str().unwrap_or("nobody").to_owned();
                let rate: f64 = edge["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
                let [from, to, how] = ["source_workload", "destination_workload", "connection_security"].map(label);
                format!("{from} -> {to}: {rate:.1}/s, {how}")
            })
            .collect();
        Ok(!lines.is_empty())
    })?;
    board.note("the service graph", lines.join("\n"), true);
    for question in questions() {
        let panel = follow(&question).map_err(anyhow::Error::msg)?;
        let mut seen = BTreeSet::new();
        for query in &panel.queries {
            let result = prometheus.query(&with_all_chosen(&query.expr))?;
            seen.extend(result.iter().filter_map(|it| Some(it["metric"][question.label()].as_str()?.to_owned())));
        }
        let answer = seen.into_iter().collect::<Vec<_>>().join(", ");
        board.note(
            question.asks,
            format!("{answer}\n{} clicks from the overview: {:?}", question.clicks.len(), panel.title),
            true,
        );
    }
    Ok(())
}
