//! A flood of connections at one pod, and its neighbour on the same node.

use anyhow::Result;
use hdrhistogram::Histogram;
use weft_testkit::clients::{Load, Report};

use crate::Mesh;

/// Connections that the flood opens in a second.
const FLOOD: f64 = 1000.0;
/// Requests of the neighbour's client in a second.
const QUIET: f64 = 200.0;
/// Requests of one window.
const WINDOW: u64 = 300;

/// What was measured.
#[derive(Debug)]
pub struct Flood {
    /// Microseconds of the neighbour's requests without a flood.
    pub quiet: Histogram<u64>,
    /// And with one.
    pub flooded: Histogram<u64>,
    /// Requests of the neighbour that failed.
    pub failed: u64,
    /// Connections per second of the flood.
    pub rate: f64,
    /// Those of them that were served.
    pub served: u64,
    /// Those that were refused.
    pub refused: u64,
}

/// Measures windows with and without a flood in turn: `orders`, which may have 64 connections, is asked for 200 at a time,
/// each held for 200 ms; `cart-stable` on the same node is asked as always.
///
/// # Errors
/// When a load can't run.
pub fn flood(mesh: &Mesh, windows: u32) -> Result<Flood> {
    let neighbour = mesh.pod("cart-stable").addr(8080)?;
    let orders = mesh.pod("orders").addr(8080)?;
    let web = &mesh.pod("web").netns;
    let calm = || Load { requests: WINDOW, rate: Some(QUIET), connections: 4, ..Load::new(neighbour) };
    let mut all =
        Flood { quiet: Histogram::new(3)?, flooded: Histogram::new(3)?, failed: 0, rate: 0.0, served: 0, refused: 0 };
    let add = |to: &mut Histogram<u64>, report: Report, failed: &mut u64| -> Result<()> {
        *failed += report.failed();
        Ok(to.add(&report.latency)?)
    };
    for _ in 0..windows {
        add(&mut all.quiet, web.block_on(calm().run())?, &mut all.failed)?;
        let rush = Load {
            requests: (FLOOD * WINDOW as f64 / QUIET) as u64,
            rate: Some(FLOOD),
            connections: 300,
            reconnect: true,
            target: "/?delay=200".to_owned(),
            ..Load::new(orders)
        };
        let rush = mesh.pod("nightly").netns.spawn(rush.run());
        add(&mut all.flooded, web.block_on(calm().run())?, &mut all.failed)?;
        let rush = rush.join()??;
        all.rate += (rush.ok + rush.failed()) as f64 / rush.elapsed.as_secs_f64() / f64::from(windows);
        all.served += rush.ok;
        all.refused += rush.failed();
    }
    Ok(all)
}
