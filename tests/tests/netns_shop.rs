//! The shop of the examples on two nodes without Kubernetes: the programs as people run them, manifests as the only
//! input, real packets.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use http::{Method, StatusCode, Version};
use weft_testkit::clients::{Connection, Grpc, Load, Reply, banner, get, request};
use weft_testkit::{Capture, netns_tests};
use weft_tests::{Mesh, eventually, shop};

netns_tests! {
    the_shop_follows_its_routes,
    policies_hold_and_nothing_crosses_in_the_clear,
    names_statuses_and_explanations,
    the_id_of_a_call_that_failed_leads_to_what_decided,
    a_tap_shows_route_and_endpoint_of_what_passes,
    mistakes_in_manifests_disturb_nothing,
    the_primary_restarts_with_the_same_addresses,
}

/// What `weft why` says on a node, if its proxy knows the request.
fn why(mesh: &Mesh, node: &str, id: &str) -> Result<Option<serde_json::Value>> {
    let mut command = mesh.programs.weft();
    command.args(["why", id, "--admin", "127.0.0.1:15000", "-o", "json"]);
    let output = mesh.world.node(node).output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(Some(serde_json::from_slice(&output.stdout)?)),
        Some(1) => Ok(None),
        _ => bail!("weft why: {said}"),
    }
}

fn the_id_of_a_call_that_failed_leads_to_what_decided() -> Result<()> {
    let mesh = shop(&[])?;
    let web = &mesh.pod("web").netns;
    let header = |reply: &Reply, name: &str| reply.header(name).unwrap_or_default().to_owned();
    let denied = web.block_on(send(mesh.service("shop/catalog", 80)?, Method::DELETE, "/items", &[]))?;
    ensure!(
        denied.status == StatusCode::FORBIDDEN && header(&denied, "x-weft-reason") == "policy_denied",
        "{denied:?}"
    );
    ensure!(header(&denied, "x-weft-by").starts_with("destination shop/catalog-"), "{denied:?}");
    let lost = web.block_on(send(mesh.service("shop/orders", 80)?, Method::GET, "/elsewhere", &[]))?;
    ensure!(
        header(&lost, "x-weft-reason") == "no_route" && header(&lost, "x-weft-by") == "source shop/web",
        "{lost:?}"
    );
    for (reply, object) in [(&denied, "AuthorizationPolicy shop/catalog-read-only"), (&lost, "Service shop/orders:80")]
    {
        let id = header(reply, "x-request-id");
        eventually("a proxy knows why", || {
            let told = [why(&mesh, "node-a", &id)?, why(&mesh, "node-b", &id)?];
            Ok(told.iter().flatten().any(|story| story["object"] == object && story["remedy"] != ""))
        })?;
    }
    ensure!(why(&mesh, "node-a", "nobodys")?.is_none());
    Ok(())
}

fn a_tap_shows_route_and_endpoint_of_what_passes() -> Result<()> {
    let mesh = shop(&[])?;
    let (web, catalog) = (mesh.pod("web"), mesh.service("shop/catalog", 80)?);
    let socket = mesh.node(&web.manifest.node).run.join("tap.sock");
    let mut command = mesh.programs.weft();
    command.args(["tap", "-n", "shop", "pod/web", "--direction", "out", "--path", "/tapped", "--status", "2xx"]);
    command.args(["-o", "json", "--count", "1", "--for", "1m", "--socket"]).arg(socket);
    let output = std::thread::scope(|scope| {
        let tapping = scope.spawn(|| command.output());
        // Until one is seen, or the tap is over.
        while !tapping.is_finished() {
            web.netns.block_on(get(catalog, "/tapped?card=4711"))?;
        }
        tapping.join().map_err(|_| anyhow::anyhow!("the tap panicked"))?.map_err(anyhow::Error::from)
    })?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = |field: &str| seen[field].as_str().unwrap_or_default().to_owned();
    ensure!(text("route") == "HTTPRoute/shop/catalog-canary" && text("rule") == "0", "{seen:#}");
    ensure!(text("source_pod") == "web" && text("path") == "/tapped" && seen["status"] == 200, "{seen:#}");
    let endpoint: SocketAddr = text("endpoint").parse()?;
    let answered = mesh.pods().find(|pod| pod.ips.contains(&endpoint.ip()));
    ensure!(answered.is_some_and(|pod| pod.manifest.name == text("destination_pod")), "{seen:#}");
    Ok(())
}

async fn send(to: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
    Connection::open(to, Version::HTTP_11).await?.send(request(method, path, headers, "")).await
}

fn the_shop_follows_its_routes() -> Result<()> {
    let mesh = shop(&[])?;
    let web = &mesh.pod("web").netns;
    let catalog = mesh.service("shop/catalog", 80)?;
    let report = web.block_on(Load { requests: 2000, connections: 8, ..Load::new(catalog) }.run())?;
    ensure!(report.failed() == 0, "{report:?}");
    let share = report.pods.get("catalog-v2").copied().unwrap_or_default() as f64 / 2000.0;
    ensure!((0.07..=0.13).contains(&share), "canary: {:?}", report.pods);
    let echo = web.block_on(get(catalog, "/"))?.echo()?;
    ensure!(mesh.pod("web").ips.contains(&echo.peer.ip()), "the application sees {}", echo.peer);

    let cart = mesh.service("shop/cart", 80)?;
    let tester = web.block_on(send(cart, Method::GET, "/", &[("x-tester", "yes")]))?.echo()?;
    ensure!(tester.pod == "cart-beta" && web.block_on(get(cart, "/"))?.echo()?.pod == "cart-stable", "{tester:?}");

    let orders = mesh.service("shop/orders", 80)?;
    let old = web.block_on(get(orders, "/v1/orders/7?x=1"))?.echo()?;
    ensure!((old.path.as_str(), old.query.as_deref()) == ("/orders/7", Some("x=1")), "{old:?}");
    let audited = || mesh.pod("audit").server.as_ref().map_or(0, |server| server.peers().len());
    let before = audited();
    ensure!(web.block_on(get(orders, "/orders/8"))?.echo()?.pod == "orders");
    eventually("the order is mirrored", || Ok(audited() > before))?;
    ensure!(web.block_on(get(orders, "/elsewhere"))?.status == StatusCode::NOT_FOUND);

    let payments = mesh.service("shop/payments", 9000)?;
    let call = |path: &'static str| async move { Grpc::connect(payments).await?.unary(path, &[], b"42").await };
    let paid = web.block_on(call("/shop.Payments/Pay"))?;
    ensure!(paid.status == 0 && paid.messages == ["42"], "{paid:?}");
    ensure!(web.block_on(call("/shop.Other/Pay"))?.status == 12, "any other method is UNIMPLEMENTED");

    let nightly = &mesh.pod("nightly").netns;
    let reply = nightly.block_on(get(catalog, "/"))?;
    ensure!(reply.header("x-served-for") == Some("reports") && reply.echo()?.pod == "catalog-v1", "{reply:?}");
    ensure!(
        web.block_on(get(catalog, "/"))?.header("x-served-for").is_none(),
        "a consumer route is the consumer's own"
    );

    let ledger = mesh.service("shop/ledger", 5432)?;
    ensure!(web.block_on(banner(ledger))? == "220 ledger");
    Ok(())
}

fn policies_hold_and_nothing_crosses_in_the_clear() -> Result<()> {
    let mesh = shop(&[])?;
    let (web, batch) = (&mesh.pod("web").netns, &mesh.pod("batch").netns);
    let capture = Capture::start(mesh.world.node("node-a"), "eth0")?;
    let catalog = mesh.service("shop/catalog", 80)?;
    let secret = [("x-secret", "never-in-the-clear")];
    let reply = web.block_on(send(catalog, Method::GET, "/never-in-the-clear", &secret))?;
    ensure!(reply.status == StatusCode::OK);
    let denied = web.block_on(send(catalog, Method::DELETE, "/", &secret))?;
    ensure!(denied.status == StatusCode::FORBIDDEN, "{denied:?}");

    let payments = mesh.service("shop/payments", 9000)?;
    let pay =
        || async move { Grpc::connect(payments).await?.unary("/shop.Payments/Pay", &[], b"never-in-the-clear").await };
    ensure!(web.block_on(pay())?.status == 0);
    let stranger = mesh.pod("nightly").netns.block_on(pay());
    ensure!(!stranger.as_ref().is_ok_and(|reply| reply.status == 0), "nightly may not pay: {stranger:?}");
    // Outside the mesh: refused by the Strict pod, under either address; taken by the others.
    ensure!(batch.block_on(pay()).is_err(), "plaintext was taken by a Strict pod");
    let direct = mesh.pod("payments").addr(9000)?;
    ensure!(batch.block_on(get(direct, "/")).is_err(), "plaintext was taken by a Strict pod");
    let open = mesh.pod("catalog-v1").addr(8080)?;
    ensure!(batch.block_on(get(open, "/in-the-clear"))?.status == StatusCode::OK);

    let packets = capture.stop()?;
    ensure!(packets.contains(b"in-the-clear"), "the capture shows what is in the clear");
    packets.assert_no_plaintext(b"never-in-the-clear");
    Ok(())
}

fn names_statuses_and_explanations() -> Result<()> {
    let mesh = shop(&[])?;
    let catalog = mesh.service("shop/catalog", 80)?;
    let web = mesh.pod("web");
    let resolver = SocketAddr::from(([10, 244, 1, 1], 53));
    for name in ["catalog.shop.svc.cluster.local.", "catalog.shop.svc.cluster.local"] {
        let answer = web.netns.block_on(weft_tests::resolve(resolver, name))?;
        ensure!(answer == [catalog.ip()], "{name}: {answer:?}");
    }
    // A node that joined answers, too.
    let far = SocketAddr::from(([10, 244, 2, 1], 53));
    eventually("the member's resolver knows the Service", || {
        Ok(mesh.pod("orders").netns.block_on(weft_tests::resolve(far, "cart.shop.svc.cluster.local."))?.len() == 1)
    })?;

    let status = mesh.manifests().join(".weft/status");
    eventually("the route's status is beside it", || {
        let all = weft_tests::read_all(&status)?;
        Ok(all.contains("catalog-canary") && all.contains("Accepted") && all.contains("ResolvedRefs"))
    })?;
    let text = mesh.weft(&["status", "--run"], &mesh.node("node-a").run)?;
    for part in ["node-a (primary)", "shop/catalog", "protected", "shop/web", "in step"] {
        ensure!(text.contains(part), "{part} in\n{text}");
    }

    let config = mesh.node("node-a").state.join("config");
    eventually("the proxy has saved its configuration", || Ok(config.exists()))?;
    let explain = |arguments: &[&str]| -> Result<String> {
        let output = mesh.programs.weft().arg("explain").args(arguments).arg("--config").arg(&config).output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let denied = explain(&["shop/web", "catalog.shop", "--method", "DELETE"])?;
    ensure!(denied.contains("catalog-read-only"), "{denied}");
    // The file is from time to time what the proxy has: the first may be older than the endpoints of the node that joined.
    eventually("the rule of the route and its rewrite are explained", || {
        let rewritten = explain(&["shop/web", "orders.shop", "--path", "/v1/orders/7"])?;
        Ok(rewritten.contains("old-path") && rewritten.contains("/orders/7"))
    })
}

fn mistakes_in_manifests_disturb_nothing() -> Result<()> {
    let mesh = shop(&[])?;
    let web = &mesh.pod("web").netns;
    let catalog = mesh.service("shop/catalog", 80)?;
    let findings = |what: &'static str| {
        mesh.wait_status("node-a", what, |s| s["findings"].to_string().contains(what))
            .map(|s| s["findings"].to_string())
    };
    mesh.edit("30-routes.yaml", "weight: 90", "weight: many")?;
    let said = findings("weight")?;
    ensure!(said.contains("30-routes.yaml:13") && said.contains("HTTPRoute shop/catalog-canary"), "{said}");
    std::fs::write(mesh.manifests().join("99-broken.yaml"), "kind: [")?;
    findings("99-broken.yaml")?;
    let old =
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: { name: x, namespace: shop }\n";
    std::fs::write(mesh.manifests().join("98-old.yaml"), old)?;
    let said = findings("98-old.yaml")?;
    ensure!(said.contains("gateway.networking.k8s.io/v1"), "{said}");
    let report = web.block_on(Load { requests: 500, ..Load::new(catalog) }.run())?;
    ensure!(report.failed() == 0 && report.pods.len() == 2, "the route as it was: {report:?}");
    // Corrected, it counts.
    mesh.edit("30-routes.yaml", "weight: many", "weight: 0")?;
    eventually("the corrected weight", || {
        let report = web.block_on(Load { requests: 50, ..Load::new(catalog) }.run())?;
        Ok(report.pods.keys().all(|pod| pod == "catalog-v2"))
    })
}

fn the_primary_restarts_with_the_same_addresses() -> Result<()> {
    let mut mesh = shop(&[])?;
    let before = mesh.service("shop/catalog", 80)?;
    let roots = mesh.status("node-a")?["roots"].clone();
    let web = mesh.pod("web").netns.clone();
    // Killed, it leaves its proxy: traffic goes on without it.
    mesh.kill_node("node-a")?;
    let report = web.block_on(Load { requests: 200, reconnect: true, ..Load::new(before) }.run())?;
    ensure!(report.failed() == 0, "without the primary: {report:?}");
    mesh.restart_node("node-a")?;
    mesh.wait_endpoints()?;
    ensure!(mesh.service("shop/catalog", 80)? == before && mesh.status("node-a")?["roots"] == roots);
    let load = Load { requests: 500, rate: Some(500.0), ..Load::new(before) };
    let report = web.block_on(load.run())?;
    ensure!(report.failed() == 0, "after the restart: {report:?}");
    // The pods' node is told of edits again.
    mesh.edit("30-routes.yaml", "weight: 90", "weight: 0")?;
    eventually("an edit after the restart", || {
        let report = web.block_on(Load { requests: 20, ..Load::new(before) }.run())?;
        Ok(report.pods.keys().all(|pod| pod == "catalog-v2"))
    })?;
    Ok(())
}
