//! What the demo does, one thing after the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Method, Version};
use serde_json::Value;
use weft_testkit::Capture;
use weft_testkit::clients::{Connection, Grpc, Load, Report, banner, get, request};
use weft_testkit::servers::{Behaviour, any, tcp};
use weft_tests::{Mesh, NODES, chatter};

use crate::show::{Board, ms};

/// What must never be read on the wire between the nodes.
const SECRET: &str = "x-card-number-4242";

fn load(to: SocketAddr, rate: f64, seconds: u32, connections: usize) -> Load {
    let requests = (rate * f64::from(seconds)) as u64;
    Load { requests, rate: Some(rate), connections, ..Load::new(to) }
}

fn percentiles(report: &Report) -> String {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| ms(report.quantile(share)));
    format!("{:.0}/s, p50 {p50}, p90 {p90}, p99 {p99}", report.rate())
}

/// Routes, policies and identities, with a capture between the nodes.
pub fn traffic(mesh: &Mesh, board: &mut Board) -> Result<()> {
    let capture = Capture::start(mesh.world.node(NODES[0]), "eth0")?;
    let report = board.step("traffic along the routes", || {
        let mut load = load(mesh.service("shop/catalog", 80)?, 400.0, 5, 8);
        load.headers.push(("x-secret".to_owned(), SECRET.to_owned()));
        mesh.pod("web").netns.block_on(load.run())
    })?;
    let count = |pod: &str| report.pods.get(pod).copied().unwrap_or_default();
    let (v1, v2) = (count("catalog-v1"), count("catalog-v2"));
    let share = 100.0 * v2 as f64 / (v1 + v2).max(1) as f64;
    board.note("canary 90/10", format!("{v1} to v1, {v2} to v2 ({share:.1} %)"), (7.0..=13.0).contains(&share));
    board.note("failed requests", report.failed().to_string(), report.failed() == 0);
    board.note("latency through both nodes", percentiles(&report), true);
    let seen = named(mesh)?;
    seen.into_iter().for_each(|(what, (seen, well))| board.note(what, seen, well));
    denials(mesh, board)?;
    let (identities, encrypted) = identities(mesh)?;
    board.note("identities seen", identities, encrypted);
    let packets = capture.stop()?;
    let clear = packets.contains(SECRET.as_bytes());
    board.note(
        "between the nodes",
        format!("{} packets captured, plaintext in {}", packets.len(), u8::from(clear)),
        !clear,
    );
    Ok(())
}

/// One call along each of the other routes.
fn named(mesh: &Mesh) -> Result<Vec<(&'static str, (String, bool))>> {
    let web = &mesh.pod("web").netns;
    let mut seen = Vec::new();
    let cart = mesh.service("shop/cart", 80)?;
    let tester = web.block_on(call(cart, Method::GET, "/", &[("x-tester", "yes")]))?;
    seen.push(("header route", (format!("x-tester: yes -> {tester}"), tester == "200 cart-beta")));
    let old = web.block_on(get(mesh.service("shop/orders", 80)?, "/v1/orders/7"))?.echo()?;
    seen.push(("rewrite", (format!("/v1/orders/7 -> {}", old.path), old.path == "/orders/7")));
    let audit = mesh.pod("audit").server.as_ref().context("audit has no server")?;
    let mirrored = web.block_on(get(mesh.service("shop/orders", 80)?, "/orders/8"))?.echo()?;
    weft_tests::eventually("the mirrored order", || Ok(!audit.peers().is_empty()))?;
    seen.push(("mirror", (format!("answered by {}, copied to audit", mirrored.pod), mirrored.pod == "orders")));
    let paid = web.block_on(pay(mesh.service("shop/payments", 9000)?))?;
    seen.push(("gRPC", (format!("shop.Payments/Pay -> status {paid}"), paid == 0)));
    let nightly = mesh.pod("nightly").netns.block_on(get(mesh.service("shop/catalog", 80)?, "/"))?;
    let marked = nightly.header("x-served-for").unwrap_or("nobody").to_owned();
    seen.push(("consumer route", (format!("reports/nightly is served for {marked}"), marked == "reports")));
    let first = web.block_on(banner(mesh.service("shop/ledger", 5432)?))?;
    seen.push(("TCP, server speaks first", (first.clone(), first == "220 ledger")));
    Ok(seen)
}

async fn call(to: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<String> {
    let reply = Connection::open(to, Version::HTTP_11).await?.send(request(method, path, headers, "")).await?;
    Ok(format!("{} {}", reply.status.as_u16(), reply.header("x-echo-pod").unwrap_or("by the proxy")))
}

async fn pay(payments: SocketAddr) -> Result<u32> {
    Ok(Grpc::connect(payments).await?.unary("/shop.Payments/Pay", &[], SECRET.as_bytes()).await?.status)
}

fn denials(mesh: &Mesh, board: &mut Board) -> Result<()> {
    let catalog = mesh.service("shop/catalog", 80)?;
    let deleted = mesh.pod("web").netns.block_on(call(catalog, Method::DELETE, "/", &[]))?;
    board.note("denied: DELETE from the catalog", deleted.clone(), deleted.starts_with("403"));
    let payments = mesh.service("shop/payments", 9000)?;
    let stranger = mesh.pod("nightly").netns.block_on(pay(payments));
    let said = stranger.as_ref().map_or_else(|error| format!("{error}"), |status| format!("gRPC status {status}"));
    board.note("denied: nightly pays", said, !stranger.is_ok_and(|status| status == 0));
    let direct = mesh.pod("payments").addr(9000)?;
    let plain = mesh.pod("batch").netns.block_on(get(direct, "/"));
    let said = plain.as_ref().map_or_else(|error| format!("refused: {error}"), |reply| reply.status.to_string());
    board.note("denied: plaintext to a Strict pod", said, plain.is_err());
    Ok(())
}

/// Who called whom, from the access logs; and whether nothing of it was in the clear.
fn identities(mesh: &Mesh) -> Result<(String, bool)> {
    let mut seen = BTreeMap::<String, u64>::new();
    let mut encrypted = true;
    for node in NODES {
        for line in mesh.node(node).process.log()?.lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let (from, to) = (text("source_identity"), text("destination_identity"));
            if text("reporter") == "source" && !from.is_empty() && !to.is_empty() {
                // On one node two pods meet in the proxy's memory: there is no wire to protect.
                encrypted &= ["mutual_tls", "local"].contains(&text("connection_security"));
                let short =
                    |id: &str| id.rsplit_once("/ns/").map_or(id.to_owned(), |(_, rest)| rest.replace("/sa/", "/"));
                *seen.entry(format!("{} -> {}", short(from), short(to))).or_default() += 1;
            }
        }
    }
    let lines: Vec<_> = seen.iter().map(|(pair, count)| format!("{pair}: {count}")).collect();
    let found = !lines.is_empty();
    Ok((
        lines.join("\n") + if encrypted { "\nall of it over mutual TLS, or within one node's proxy" } else { "" },
        encrypted && found,
    ))
}

/// A weight edited while requests run.
pub fn edits(mesh: &Mesh, board: &mut Board) -> Result<()> {
    let report = board.step("editing weights under traffic", || {
        let load = mesh.pod("web").netns.spawn(load(mesh.service("shop/catalog", 80)?, 400.0, 4, 8).run());
        let mut weight = 90;
        for next in [50, 10, 0, 90, 50, 10, 0, 90] {
            let line = |weight: i32| format!("catalog-v1, port: 80, weight: {weight} }}");
            mesh.edit("30-routes.yaml", &line(weight), &line(next))?;
            weight = next;
            std::thread::sleep(Duration::from_millis(400));
        }
        load.join()?
    })?;
    board.note(
        "8 edits of a weight",
        format!("{} requests, failed: {}", report.ok, report.failed()),
        report.failed() == 0,
    );
    Ok(())
}

/// Both proxies replaced while connections are open.
pub fn replacement(mesh: &Mesh, board: &mut Board) -> Result<()> {
    let _echo = tcp(&mesh.pod("ledger").netns, "ledger", any(6003), Behaviour::Echo)?;
    let (broken, report) = board.step("replacing both proxies under 50 TCP connections and HTTP", || {
        let (stop, connections) = chatter(mesh, mesh.pod("ledger").addr(6003)?, 50);
        let load = mesh.pod("web").netns.spawn(load(mesh.service("shop/catalog", 80)?, 200.0, 4, 8).run());
        for node in NODES {
            std::thread::sleep(Duration::from_secs(1));
            mesh.replace_proxy(node)?;
        }
        let report = load.join()??;
        stop.send(true)?;
        Ok((connections.join()??, report))
    })?;
    let seen = format!("TCP connections broken: {broken}, requests failed: {} of {}", report.failed(), report.ok);
    board.note("2 proxies replaced", seen, broken == 0 && report.failed() == 0);
    Ok(())
}

/// One pod flooded; what its neighbour on the same node feels.
pub fn flood(mesh: &Mesh, board: &mut Board) -> Result<()> {
    let flood = board.step("flooding one pod", || weft_tests::flood(mesh, 3))?;
    let [before, during] =
        [&flood.quiet, &flood.flooded].map(|times| Duration::from_micros(times.value_at_quantile(0.99)));
    let ratio = during.as_secs_f64() / before.as_secs_f64();
    let seen = format!(
        "{:.0} connections/s at one pod that may have 64: {} served, {} refused\nits neighbour's p99 {} before, {} during \
         ({ratio:.1}x), failed: {}",
        flood.rate,
        flood.served,
        flood.refused,
        ms(before),
        ms(during),
        flood.failed
    );
    board.note("a flood next door", seen, flood.failed == 0 && flood.refused > 0);
    Ok(())
}

/// A denied and a misrouted call told by `weft explain`.
pub fn explanations(mesh: &Mesh, board: &mut Board) -> Result<()> {
    let config = mesh.node(NODES[0]).state.join("config");
    let mut explain = |what: &str, arguments: &[&str], expected: &str| -> Result<()> {
        let mut command = mesh.programs.weft();
        let output = command.arg("explain").args(arguments).arg("--config").arg(&config).output()?;
        let text = String::from_utf8(output.stdout)?;
        let shown = format!("$ weft explain {}\n{}", arguments.join(" "), text.trim_end());
        board.note(what, shown, text.contains(expected));
        Ok(())
    };
    explain("why was it denied?", &["shop/web", "catalog.shop", "--method", "DELETE"], "catalog-read-only")?;
    explain("why 404?", &["shop/web", "orders.shop", "--path", "/order/7"], "404")?;
    Ok(())
}
