//! What a Prometheus sees of a cluster, with the scrape configuration of the evaluation bundle.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use weft_observability::grafana::Board;
use weft_observability::{Needs, dashboards, with_all_chosen};
use weft_tests::cluster::{Cluster, PATIENCE, TestNamespace, eventually, strict_pair};

use crate::prometheus::Prometheus;

#[test]
#[ignore = "needs a cluster"]
fn the_dashboard_of_the_control_plane_has_data_in_every_panel_that_needs_no_fault() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("LEFT OUT: pods of this cluster can't be reached from here");
        return Ok(());
    }
    let ns = strict_pair("observed")?;
    let prometheus = Prometheus::start(&cluster)?;
    let queries: Vec<_> = dashboards::all()
        .iter()
        .flat_map(|board| board.panels().map(move |panel| (board.board, panel.clone())))
        .flat_map(|(board, panel)| panel.queries.into_iter().map(move |query| (board, panel.title, query)))
        .filter(|(board, _, query)| {
            query.needs == Needs::Cluster || *board == Board::ControlPlane && query.needs == Needs::Traffic
        })
        .collect();
    ensure!(queries.len() > 15, "{} queries", queries.len());
    eventually("every query to return data", 2 * PATIENCE, || {
        ns.served("client", "http://server/", 5)?;
        for (_, panel, query) in &queries {
            let found = prometheus.query(&with_all_chosen(&query.expr)).with_context(|| (*panel).to_owned())?;
            ensure!(!found.is_empty(), "{panel}: {}: nothing", query.expr);
        }
        Ok(())
    })?;
    // What rules and dashboards know programs and machines by.
    for job in ["weft-node-proxy", "weft-agent", "weft-controller", "weft-ca"] {
        let up = prometheus.query(&format!(r#"up{{job="{job}", node!=""}} == 1"#))?;
        ensure!(!up.is_empty(), "no {job} is scraped");
    }
    if Prometheus::draws() {
        keep_busy(&cluster, &ns)?;
    }
    prometheus.draw(Board::ControlPlane.uid())
}

/// Changes, new certificates and traffic for as long as a picture shows.
fn keep_busy(cluster: &Cluster, ns: &TestNamespace) -> Result<()> {
    let until = Instant::now() + Prometheus::SHOWN;
    for turn in 0.. {
        if Instant::now() >= until {
            break;
        }
        let annotation = format!("example.com/turn={turn}");
        cluster.k(&["-n", &ns.name, "annotate", "--overwrite", "service/server", &annotation])?;
        let replicas = format!("--replicas={}", 1 + turn / 4 % 2);
        cluster.k(&["-n", &ns.name, "scale", "deployment/server", &replicas])?;
        ns.served("client", "http://server/", 50)?;
    }
    Ok(())
}
