//! `make demo`: the shop on two nodes without Kubernetes, traffic through it, and what a mesh has to show under change;
//! with `OBSERVE=1` as a real Prometheus sees it, too.
//!
//! Everything lives in namespaces of its own, which end with this process: nothing of the host is touched.

#![allow(clippy::indexing_slicing, reason = "looking into JSON")]

mod gateway;
mod observe;
mod show;
mod stages;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use weft_testkit::harness;
use weft_tests::{Mesh, Observatory, shop};

use crate::show::Board;

fn main() -> ExitCode {
    if let Err(error) = harness::enter() {
        eprintln!("no private namespaces (root or unprivileged user namespaces are needed): {error:#}");
        return ExitCode::FAILURE;
    }
    match demo() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as it should be.
fn demo() -> Result<bool> {
    let since = Instant::now();
    println!("Two nodes, twelve pods in namespaces of their own, manifests of examples/shop, no Kubernetes.\n");
    let mut board = Board::default();
    let mesh = board.step("starting two nodes and the pods", || shop(observe::options()))?;
    let wire = mesh.wire_address()?;
    let prometheus = observe::start(&mesh, wire, &mut board)?;
    stages::traffic(&mesh, &mut board)?;
    stages::edits(&mesh, &mut board)?;
    stages::replacement(&mesh, &mut board)?;
    stages::flood(&mesh, &mut board)?;
    gateway::show(&mesh, wire, &mut board)?;
    stages::explanations(&mesh, &mut board)?;
    if let Some(prometheus) = &prometheus {
        observe::show(prometheus, &mut board)?;
    }
    board.print();
    println!("\n{:.0} s in all.", since.elapsed().as_secs_f64());
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        keep(&mesh, prometheus.as_ref())?;
    }
    Ok(board.all_well())
}

/// Leaves the mesh up for as long as a shell in its namespaces runs.
fn keep(mesh: &Mesh, prometheus: Option<&Observatory>) -> Result<()> {
    let run = &mesh.node("node-a").run;
    println!(
        "\nThe mesh stays up until this shell ends. Try:\n  weft status\n  weft explain shop/web catalog.shop --method DELETE\n  \
         ip netns exec w1-web curl -s http://{}/\n  $EDITOR {}/30-routes.yaml\n",
        mesh.service("shop/catalog", 80)?,
        mesh.manifests().display()
    );
    if let Some(prometheus) = prometheus {
        let wire = mesh.world.wire().name();
        println!(
            "  ip netns exec {wire} curl -s 'http://{}/api/v1/query?query=weft:edge_requests:rate5m'\n",
            prometheus.address()
        );
    }
    let path = mesh.programs.directory().display().to_string() + ":" + &std::env::var("PATH").unwrap_or_default();
    let config = mesh.node("node-a").state.join("config");
    let mut shell = Command::new(std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()));
    shell.env("PATH", path).env("WEFT_RUN", run).env("WEFT_CONFIG_COPY", config).env("PS1", "weft demo> ");
    shell.status().context("a shell")?;
    Ok(())
}
