//! Pages of the Grafana dashboards with the numbers of a real Prometheus, for `make pictures`: tests/pictures/render.py draws what
//! it answers. Left out unless `WEFT_PICTURES` names a folder. The dashboard of the control plane is drawn on the test cluster,
//! since nobody without Kubernetes has a controller to scrape.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_observability::{Needs, dashboards};
use weft_testkit::clients::{Grpc, Load, banner, get};
use weft_testkit::netns_tests;
use weft_tests::{Mesh, NODES, Observatory, SHOP_GATEWAY, STATUS_LISTEN, eventually, shop};

netns_tests! {
    every_dashboard_is_drawn_with_real_numbers,
}

/// How long the shop is busy: what the pictures show. The harness ends a test after three minutes.
const BUSY: Duration = Duration::from_secs(100);
/// The dashboard that needs a cluster.
const OF_CLUSTER: &str = "weft-control-plane";

/// A round of what happens in a shop; `fails`: the catalogue, for a while.
fn round(mesh: &Mesh, fails: bool) -> Result<()> {
    let (web, batch, nightly) = (&mesh.pod("web").netns, &mesh.pod("batch").netns, &mesh.pod("nightly").netns);
    let [catalog, cart, orders] = ["catalog", "cart", "orders"].map(|name| mesh.service(&format!("shop/{name}"), 80));
    let (catalog, cart, orders) = (catalog?, cart?, orders?);
    let load = |to, requests| Load { requests, connections: 2, ..Load::new(to) };
    web.block_on(load(catalog, 120).run())?;
    web.block_on(load(cart, 40).run())?;
    nightly.block_on(load(catalog, 10).run())?;
    for n in 0..8 {
        web.block_on(get(orders, &format!("/orders/{n}")))?;
    }
    for _ in 0..if fails { 12 } else { 0 } {
        web.block_on(get(catalog, "/status/503"))?;
    }
    web.block_on(get(orders, "/elsewhere"))?;
    let payments = mesh.service("shop/payments", 9000)?;
    web.block_on(async move { Grpc::connect(payments).await?.unary("/shop.Payments/Pay", &[], b"42").await })?;
    web.block_on(banner(mesh.service("shop/ledger", 5432)?))?;
    // From outside of the mesh: in the clear, to who takes that and to who doesn't, and through the Gateway.
    batch.block_on(get(mesh.pod("catalog-v1").addr(8080)?, "/"))?;
    ensure!(batch.block_on(get(mesh.pod("payments").addr(9000)?, "/")).is_err());
    let gateway = (mesh.world.node(NODES[0]).ipv4(), 80).into();
    for path in ["/catalog", "/catalog", "/catalog", "/elsewhere"] {
        mesh.world.wire().block_on(get(gateway, path))?;
    }
    Ok(())
}

fn every_dashboard_is_drawn_with_real_numbers() -> Result<()> {
    let Some(folder) = std::env::var_os("WEFT_PICTURES") else {
        eprintln!("LEFT OUT: `make pictures` says where to put pictures");
        return Ok(());
    };
    let mesh = shop(&STATUS_LISTEN)?;
    std::fs::write(mesh.manifests().join("90-gateway.yaml"), SHOP_GATEWAY)?;
    let wire = mesh.wire_address()?;
    let gateway = (mesh.world.node(NODES[0]).ipv4(), 80).into();
    let answers = || Ok(mesh.world.wire().block_on(get(gateway, "/catalog")).is_ok_and(|it| it.status == 200));
    eventually("the Gateway answers", answers)?;
    let prometheus = Observatory::of_mesh(&mesh, wire)?;
    let since = Instant::now();
    while since.elapsed() < BUSY {
        round(&mesh, since.elapsed() > BUSY / 2 && since.elapsed() < BUSY * 3 / 4)?;
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut render = Command::new("python3");
    render.arg(repository.join("tests/pictures/render.py")).arg(format!("http://{}", prometheus.address()));
    render.arg(repository.join("charts/weft/files/dashboards")).arg(&folder);
    render.args(["--minutes", "1.8", "--without", OF_CLUSTER]);
    let output = mesh.world.wire().output(&mut render)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    all_are_drawn(&String::from_utf8(output.stdout)?)
}

/// Every panel of every dashboard, with data where it needs no more than traffic.
fn all_are_drawn(said: &str) -> Result<()> {
    let said: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let named = |it: &Value| Some((it["dashboard"].as_str()?.to_owned(), it["panel"].as_str()?.to_owned()));
    let drawn: BTreeSet<_> = said.iter().filter_map(named).collect();
    let with_data: BTreeSet<_> = said.iter().filter(|it| it["data"] == true).filter_map(named).collect();
    for board in dashboards::all().iter().filter(|board| board.board.uid() != OF_CLUSTER) {
        for panel in board.panels() {
            let it = (board.board.uid().to_owned(), panel.title.to_owned());
            ensure!(drawn.contains(&it), "{it:?} isn't drawn");
            let needs_traffic = panel.queries.iter().any(|query| query.needs == Needs::Traffic);
            ensure!(!needs_traffic || with_data.contains(&it), "{it:?} has no data");
        }
    }
    let boards: BTreeSet<_> = drawn.iter().map(|(board, _)| board).collect();
    ensure!(boards.len() == 8, "{boards:?}");
    said.first().context("nothing was drawn").map(drop)
}
