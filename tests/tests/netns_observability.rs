//! A real Prometheus that scraped the shop with real traffic: every query of every panel and every recording rule returns
//! data, and what the panels say is what happened.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use http::{Method, Version};
use weft_observability::grafana::{Dashboard, Query};
use weft_observability::{Needs, dashboards, questions, rules, with_all_chosen};
use weft_testkit::clients::{Connection, Grpc, Load, banner, get, request};
use weft_testkit::netns_tests;
use weft_tests::{Mesh, NODES, Observatory, SHOP_GATEWAY, STATUS_LISTEN, eventually, installed, shop};

netns_tests! {
    every_query_returns_data_and_every_question_its_answer,
}

/// Panels whose event this test makes happen. Those of other events are only asked, and stay without an answer.
const MADE: [&str; 8] = [
    "Requests that a proxy ended, by reason and route",
    "Requests that a proxy ended, by reason",
    "Requests that the Gateway ended, by reason",
    "Failed requests by the caller's node",
    "Failed requests by rule and reason",
    "Connections refused by reason",
    "Denied",
    "Plaintext and others refused",
];

/// A round of what happens in a shop.
fn traffic(mesh: &Mesh) -> Result<()> {
    let (web, batch) = (&mesh.pod("web").netns, &mesh.pod("batch").netns);
    let catalog = mesh.service("shop/catalog", 80)?;
    let report = web.block_on(Load { requests: 300, connections: 4, ..Load::new(catalog) }.run())?;
    ensure!(report.failed() == 0, "{report:?}");
    let (cart, orders) = (mesh.service("shop/cart", 80)?, mesh.service("shop/orders", 80)?);
    web.block_on(send(cart, Method::GET, "/", &[("x-tester", "yes")]))?;
    web.block_on(get(cart, "/"))?;
    web.block_on(get(orders, "/orders/8"))?;
    let payments = mesh.service("shop/payments", 9000)?;
    web.block_on(async move { Grpc::connect(payments).await?.unary("/shop.Payments/Pay", &[], b"42").await })?;
    mesh.pod("nightly").netns.block_on(get(catalog, "/"))?;
    web.block_on(banner(mesh.service("shop/ledger", 5432)?))?;
    // From outside of the mesh, in the clear.
    batch.block_on(get(mesh.pod("catalog-v1").addr(8080)?, "/"))?;
    // What goes wrong: an answer of the application, no route, a policy, plaintext to a Strict workload.
    ensure!(web.block_on(get(catalog, "/status/503"))?.status == 503);
    ensure!(web.block_on(get(orders, "/elsewhere"))?.status == 404);
    ensure!(web.block_on(send(catalog, Method::DELETE, "/", &[]))? == 403);
    ensure!(batch.block_on(get(mesh.pod("payments").addr(9000)?, "/")).is_err());
    // A Gateway's clients.
    let gateway = (mesh.world.node(NODES[0]).ipv4(), 80).into();
    ensure!(mesh.world.wire().block_on(get(gateway, "/catalog"))?.status == 200);
    ensure!(mesh.world.wire().block_on(get(gateway, "/elsewhere"))?.status == 404);
    Ok(())
}

async fn send(to: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<u16> {
    let reply = Connection::open(to, Version::HTTP_11).await?.send(request(method, path, headers, "")).await?;
    Ok(reply.status.as_u16())
}

/// Whether a query has to return data here.
fn must(panel: &str, query: &Query) -> bool {
    match query.needs {
        Needs::Traffic => true,
        // Nobody scrapes a cluster's own components here: there is no cluster.
        Needs::Cluster => false,
        Needs::Event(_) => MADE.contains(&panel),
    }
}

/// Queries that should return data and don't.
fn missing(prometheus: &Observatory, boards: &[Dashboard]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for board in boards {
        for panel in board.panels() {
            for query in &panel.queries {
                let found = prometheus
                    .query(&with_all_chosen(&query.expr))
                    .with_context(|| format!("{:?} {}", board.board, panel.title))?;
                if found.is_empty() && must(panel.title, query) {
                    missing.push(format!("{:?} / {} / {}: {}", board.board, panel.title, query.legend, query.expr));
                }
            }
        }
        for variable in &board.variables {
            let values = prometheus
                .query(&with_all_chosen(&format!(r#"count by ({0}) ({1})"#, variable.values, variable.of)))?;
            if !values.iter().any(|it| it["metric"][variable.values].as_str().is_some_and(|value| !value.is_empty())) {
                missing.push(format!("{:?} ${}: {}", board.board, variable.name, variable.of));
            }
        }
    }
    for rule in rules::recordings().iter().flat_map(|group| &group.rules) {
        if rule.needs == Needs::Traffic && prometheus.query(rule.name)?.is_empty() {
            missing.push(format!("{}: {}", rule.name, rule.expr));
        }
    }
    Ok(missing)
}

fn every_query_returns_data_and_every_question_its_answer() -> Result<()> {
    if installed("bin/prometheus").is_none() {
        return Ok(());
    }
    let mesh = shop(&STATUS_LISTEN)?;
    std::fs::write(mesh.manifests().join("90-gateway.yaml"), SHOP_GATEWAY)?;
    let wire = mesh.wire_address()?;
    let gateway: SocketAddr = (mesh.world.node(NODES[0]).ipv4(), 80).into();
    let answers = || Ok(mesh.world.wire().block_on(get(gateway, "/catalog")).is_ok_and(|it| it.status == 200));
    eventually("the Gateway answers", answers)?;
    let prometheus = Observatory::of_mesh(&mesh, wire)?;
    let boards = dashboards::all();
    let mut left = Vec::new();
    let all = eventually("every query returns data", || {
        traffic(&mesh)?;
        left = missing(&prometheus, &boards)?;
        Ok(left.is_empty())
    });
    all.with_context(|| format!("without data: {left:#?}"))?;
    panels_tell_what_happened(&prometheus)?;
    answers_are_right(&prometheus)
}

fn panels_tell_what_happened(prometheus: &Observatory) -> Result<()> {
    let share = r#"sum(weft:route_requests:rate5m{route="HTTPRoute/shop/catalog-canary", destination_workload="catalog-v2"}) / sum(weft:route_requests:rate5m{route="HTTPRoute/shop/catalog-canary"})"#;
    let canary = prometheus.value(share)?;
    ensure!((0.05..=0.15).contains(&canary), "the canary has {canary}");
    let encrypted = prometheus.value("weft:mesh_encrypted:ratio5m")?;
    ensure!(encrypted > 0.999, "requests between pods of the mesh are encrypted: {encrypted}");
    // Beside: whoever calls in the clear is on the list.
    let clear = prometheus
        .query(r#"weft:edge_connections:rate5m{connection_security="plaintext", source_workload="batch"}"#)?;
    ensure!(!clear.is_empty(), "batch calls in the clear, and nothing tells it");
    // No label is anything that a client has chosen.
    let paths = prometheus.query(r#"{__name__=~"weft_.*", route!~"|(HTTP|GRPC|TCP)Route/.*"}"#)?;
    ensure!(paths.is_empty(), "{paths:?}");
    Ok(())
}

/// The ten questions, asked of what was broken: the catalog answered 503 to web.
fn answers_are_right(prometheus: &Observatory) -> Result<()> {
    let read = |name: &str| -> Result<BTreeSet<String>> {
        let question = questions::questions().into_iter().find(|it| it.asks == name).context("no such question")?;
        let panel = questions::follow(&question).map_err(anyhow::Error::msg)?;
        let mut seen = BTreeSet::new();
        for query in &panel.queries {
            let result = prometheus.query(&with_all_chosen(&query.expr))?;
            seen.extend(result.iter().filter_map(|it| Some(it["metric"][question.label()].as_str()?.to_owned())));
        }
        Ok(seen)
    };
    for (asks, answer) in [
        ("Which Service fails?", "catalog"),
        ("Since when?", "5xx"),
        ("Which caller sees it?", "web"),
        ("On which route?", "HTTPRoute/shop/catalog-canary"),
        ("Which version answers with errors?", "catalog-v1"),
        ("Why: which reason?", "no_route"),
        ("Which node's clients see it?", "node-a"),
        ("On which node does the callee run?", "node-b"),
        ("Is the connection encrypted?", "mutual_tls"),
        ("Does every node have the configuration of now?", "node-b"),
    ] {
        let seen = read(asks)?;
        ensure!(seen.contains(answer), "{asks} {seen:?}");
    }
    ensure!(questions::questions().len() == 10);
    Ok(())
}
