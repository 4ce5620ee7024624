//! Routes attached to Services. The conformance suite retries until it has seen what it wants, and part of it passes
//! without a mesh; here every single answer has to be right, and there are enough of them that luck doesn't help.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, TestNamespace, echo_service, eventually};

/// Two versions behind one Service, each behind a Service of its own, and a client.
fn shop(name: &str) -> Result<TestNamespace> {
    let ns = Cluster::open()?.namespace(name, true)?;
    for service in ["cart", "cart-v1", "cart-v2"] {
        ns.apply(&echo_service(service))?;
    }
    // Pods of both are behind `cart` as well as behind their own.
    ns.apply(r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart-v1", "namespace": "@NS@"}, "spec": {
        "selector": {"app": "cart-v1"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 7070}]}}"#)?;
    ns.apply(r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart-v2", "namespace": "@NS@"}, "spec": {
        "selector": {"app": "cart-v2"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 7070}]}}"#)?;
    ns.run(&[Echo::new("cart-v1").behind("cart"), Echo::new("cart-v2").behind("cart"), Echo::new("client")])?;
    // A rollout is over when its pods are ready: the EndpointSlice that says so to others, and the way from there to the client's
    // node, may come after that on a machine that is busy.
    for version in ["cart-v1", "cart-v2"] {
        for url in [format!("http://{version}/"), format!("grpc://{version}:7070")] {
            eventually(&format!("{url} to be served"), PATIENCE, || ns.ask("client", &[&url])?.all(1, 200))?;
        }
    }
    Ok(ns)
}

fn route(ns: &TestNamespace, kind: &str, name: &str, spec: &str) -> Result<()> {
    ns.apply(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{ name: {name}, namespace: \"@NS@\" }}\nspec: {spec}"
    ))?;
    ns.cluster.wait_accepted(&ns.name, &format!("{}/{name}", kind.to_lowercase()))
}

/// A share of `count` answers that is within four standard deviations of what it should be: one run in 16,000 is not.
fn about(share: f64, seen: usize, count: usize) -> Result<()> {
    let n = count as f64;
    let deviation = 4.0 * (n * share * (1.0 - share)).sqrt();
    ensure!((seen as f64 - n * share).abs() <= deviation, "{seen} of {count} instead of about {}", n * share);
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn traffic_is_split_by_weight() -> Result<()> {
    let ns = shop("t-split")?;
    route(
        &ns,
        "HTTPRoute",
        "split",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart", "port": 80}], "rules": [
        {"backendRefs": [{"name": "cart-v1", "port": 80, "weight": 90}, {"name": "cart-v2", "port": 80, "weight": 10}]}]}"#,
    )?;
    route(
        &ns,
        "GRPCRoute",
        "split",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart", "port": 7070}], "rules": [
        {"backendRefs": [{"name": "cart-v1", "port": 7070, "weight": 30}, {"name": "cart-v2", "port": 7070, "weight": 70}]}]}"#,
    )?;
    for (url, share) in [("http://cart/", 0.1), ("grpc://cart:7070", 0.7)] {
        let answers = ns.ask("client", &[url, "--count=1000", "--qps=0"])?;
        answers.all(1000, 200).context(url)?;
        about(share, answers.from("cart-v2"), 1000)?;
        ensure!(answers.from("cart-v1") + answers.from("cart-v2") == 1000, "somebody else answered");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_header_decides_every_time() -> Result<()> {
    let ns = shop("t-header")?;
    route(
        &ns,
        "HTTPRoute",
        "canary",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": [
        {"matches": [{"headers": [{"name": "x-canary", "value": "yes"}]}],
         "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-route", "value": "canary"}]}}],
         "backendRefs": [{"name": "cart-v2", "port": 80}]},
        {"backendRefs": [{"name": "cart-v1", "port": 80}]}]}"#,
    )?;
    let canary = ns.ask("client", &["http://cart/", "-H", "X-Canary: yes", "--count=300"])?;
    ensure!(canary.from("cart-v2") == 300, "{} of 300 from v2; {}", canary.from("cart-v2"), canary.error);
    let marked = canary.list.iter().filter(|a| a.response.iter().any(|h| h.eq_ignore_ascii_case("x-route:canary")));
    ensure!(marked.count() == 300, "the filter's header is missing");
    for other in ["no", "yes "] {
        let plain = ns.ask("client", &["http://cart/", "-H", &format!("X-Canary: x{other}"), "--count=300"])?;
        ensure!(plain.from("cart-v1") == 300, "{} of 300 from v1; {}", plain.from("cart-v1"), plain.error);
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_route_is_for_the_service_and_not_for_its_pods() -> Result<()> {
    let ns = shop("t-frontend")?;
    route(
        &ns,
        "HTTPRoute",
        "teapot",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart-v1"}], "rules": [
        {"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "elsewhere.example", "statusCode": 301}}]}]}"#,
    )?;
    let to_service = ns.ask("client", &["http://cart-v1/", "--count=200"])?;
    ensure!(to_service.with_status(301) == 200, "{:?}", to_service.list.first());
    let (_, ip, _) = ns.pod("cart-v1")?;
    // The name that the client gives doesn't matter: where it connects to does.
    for host in ["cart-v1", "cart-v1.t-frontend.svc.cluster.local", "anything"] {
        let to_pod =
            ns.ask("client", &[&format!("http://{ip}:8080/"), "-H", &format!("Host: {host}"), "--count=100"])?;
        ensure!(to_pod.with_status(200) == 100, "Host {host}: {:?} {}", to_pod.list.first(), to_pod.error);
        let to_v2 = ns.ask("client", &["http://cart-v2/", "-H", &format!("Host: {host}"), "--count=100"])?;
        ensure!(to_v2.with_status(200) == 100, "Host {host}: {:?}", to_v2.list.first());
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_consumer_route_is_for_clients_of_its_own_namespace() -> Result<()> {
    let ns = shop("t-producer")?;
    let consumers = ns.cluster.namespace("t-consumer", true)?;
    consumers.run(&[Echo::new("client")])?;
    route(
        &consumers,
        "HTTPRoute",
        "mine",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart-v1", "namespace": "t-producer"}], "rules": [
        {"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-mine", "value": "yes"}]}}],
         "backendRefs": [{"name": "cart-v1", "namespace": "t-producer", "port": 80}]}]}"#,
    )?;
    let marked = |ns: &TestNamespace| -> Result<usize> {
        let answers = ns.ask("client", &["http://cart-v1.t-producer/", "--count=200"])?;
        ensure!(answers.with_status(200) == 200, "{:?} {}", answers.list.first(), answers.error);
        Ok(answers.list.iter().filter(|a| a.response.iter().any(|h| h.eq_ignore_ascii_case("x-mine:yes"))).count())
    };
    ensure!(marked(&consumers)? == 200, "the route applies to its own namespace");
    ensure!(marked(&ns)? == 0, "and to no other");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn an_edit_is_live_soon_and_costs_no_request() -> Result<()> {
    let ns = shop("t-edit")?;
    let to = |version: &str| {
        format!(
            r#"{{"parentRefs": [{{"group": "", "kind": "Service", "name": "cart"}}], "rules": [{{"backendRefs": [{{"name": "{version}", "port": 80}}]}}]}}"#
        )
    };
    route(&ns, "HTTPRoute", "edited", &to("cart-v1"))?;
    let load = ns.load("http://cart/", 2000, 100, None)?;
    for round in 0..8 {
        let version = if round % 2 == 0 { "cart-v2" } else { "cart-v1" };
        route(&ns, "HTTPRoute", "edited", &to(version))?;
        eventually("the edit to be live", Duration::from_secs(5), || {
            let answers = ns.ask("client", &["http://cart/", "--count=20"])?;
            ensure!(answers.from(version) == 20, "{} of 20 from {version}", answers.from(version));
            Ok(())
        })?;
    }
    load.all_answered()
}

#[test]
#[ignore = "needs a cluster"]
fn what_is_wrong_with_a_route_stands_in_its_status_and_costs_nothing_else() -> Result<()> {
    let ns = shop("t-status")?;
    ns.apply(r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "half", "namespace": "@NS@"}, "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/gone"}}], "backendRefs": [{"name": "nowhere", "port": 80}]},
        {"backendRefs": [{"name": "cart-v1", "port": 80}]}]}}"#)?;
    let (status, reason, message) =
        eventually("a status", PATIENCE, || ns.cluster.condition(&ns.name, "httproute/half", "ResolvedRefs"))?;
    ensure!(
        status == "False" && reason == "BackendNotFound" && message.contains("nowhere"),
        "{status} {reason} {message}"
    );
    let bad = ns.ask("client", &["http://cart/gone", "--count=50"])?;
    ensure!(bad.with_status(500) == 50, "{:?}", bad.list.first());
    let good = ns.ask("client", &["http://cart/", "--count=50"])?;
    ensure!(good.from("cart-v1") == 50 && good.with_status(200) == 50, "{:?}", good.list.first());
    // Deleted and made again under the same name: the new one counts.
    ns.cluster.k(&["-n", &ns.name, "delete", "httproute", "half"])?;
    route(
        &ns,
        "HTTPRoute",
        "half",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": [
        {"backendRefs": [{"name": "cart-v2", "port": 80}]}]}"#,
    )?;
    eventually("the new route", Duration::from_secs(5), || {
        let answers = ns.ask("client", &["http://cart/gone", "--count=50"])?;
        ensure!(answers.from("cart-v2") == 50, "{:?}", answers.list.first());
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn what_is_no_session_leads_nowhere_and_the_older_of_two_traffic_policies_holds() -> Result<()> {
    let ns = shop("t-session")?;
    route(
        &ns,
        "HTTPRoute",
        "sticky",
        r#"{"parentRefs": [{"group": "", "kind": "Service", "name": "cart", "port": 80}], "rules": [
        {"sessionPersistence": {"type": "Header", "sessionName": "x-shop"},
         "backendRefs": [{"name": "cart-v1", "port": 80}, {"name": "cart-v2", "port": 80}]}]}"#,
    )?;
    // Nobody's session: the weights decide, as without any.
    let foreign = format!("x-shop: {}", "0".repeat(40));
    let answers = ns.ask("client", &["http://cart/", "-H", &foreign, "--count=400", "--qps=0"])?;
    ensure!(answers.error.is_empty() && answers.with_status(200) == 400, "{}", answers.error);
    about(0.5, answers.from("cart-v1"), 400)?;
    for (name, percent) in [("first", 20), ("second", 30)] {
        ns.apply(&format!(
            r#"{{"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy",
            "metadata": {{"name": "{name}", "namespace": "@NS@"}}, "spec": {{
            "targetRefs": [{{"group": "", "kind": "Service", "name": "cart-v1"}}],
            "retryConstraint": {{"budget": {{"percent": {percent}}}}}}}}}"#
        ))?;
    }
    // Made within one second perhaps: then the name decides, to the same end.
    ns.cluster.wait_accepted(&ns.name, "xbackendtrafficpolicy/first")?;
    eventually("the second policy to be refused", PATIENCE, || {
        let (status, reason, message) = ns.cluster.condition(&ns.name, "xbackendtrafficpolicy/second", "Accepted")?;
        ensure!(status == "False" && reason == "Conflicted", "{status} {reason} {message}");
        Ok(())
    })?;
    ns.cluster.k(&["-n", &ns.name, "delete", "xbackendtrafficpolicy", "first"])?;
    ns.cluster.wait_accepted(&ns.name, "xbackendtrafficpolicy/second")
}
