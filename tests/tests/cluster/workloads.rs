//! The kinds of Services and workloads that a cluster has.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, TestNamespace, echo_service, eventually};

fn served(ns: &TestNamespace, url: &str, count: usize) -> Result<()> {
    eventually(url, Duration::from_secs(20), || ns.served("client", url, count))
}

#[test]
#[ignore = "needs a cluster"]
fn every_kind_of_service_works() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-services", true)?;
    let outside = cluster.namespace("t-services-outside", false)?;
    ns.apply(&echo_service("server"))?;
    outside.apply(&echo_service("plain"))?;
    outside.run(&[Echo::new("plain")])?;
    ns.run(&[Echo::new("server").on("node2"), Echo::new("client").on("node1")])?;
    let (_, ip, _) = ns.pod("server")?;
    ns.apply(&format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{ name: headless, namespace: "@NS@" }}
spec: {{ clusterIP: None, selector: {{ service: server }}, ports: [{{ name: http, port: 8080 }}] }}
---
apiVersion: v1
kind: Service
metadata: {{ name: alias, namespace: "@NS@" }}
spec: {{ type: ExternalName, externalName: server.t-services.svc.cluster.local }}
---
apiVersion: v1
kind: Service
metadata: {{ name: manual, namespace: "@NS@" }}
spec: {{ ports: [{{ name: http, port: 80, targetPort: 8080 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: manual-1, namespace: "@NS@", labels: {{ kubernetes.io/service-name: manual }} }}
addressType: IPv4
ports: [{{ name: http, port: 8080 }}]
endpoints: [{{ addresses: ["{ip}"] }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: sticky, namespace: "@NS@" }}
spec: {{ selector: {{ service: many }}, sessionAffinity: ClientIP, ports: [{{ name: http, port: 80, targetPort: 8080 }}] }}
"#
    ))?;
    ns.run(&[Echo { replicas: 4, ..Echo::new("many") }])?;
    for url in [
        "http://server/",
        "http://headless:8080/",
        "http://alias/",
        "http://manual/",
        "http://plain.t-services-outside/",
    ] {
        served(&ns, url, 50)?;
    }
    served(&ns, &format!("http://{ip}:8080/"), 50)?;
    let sticky = ns.ask("client", &["http://sticky/", "--count=100", "--new-connection-per-request"])?;
    let first = sticky.list.first().map(|a| a.hostname.clone()).unwrap_or_default();
    ensure!(sticky.from(&first) == 100, "affinity: {} of 100 went to {first}; {}", sticky.from(&first), sticky.error);
    Ok(())
}

/// Each node is a zone of its own. While the near pod is there nobody else is asked, and without it the far one is.
#[test]
#[ignore = "needs a cluster"]
fn a_service_that_prefers_close_endpoints_stays_in_the_zone_while_it_can() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-zones", true)?;
    let zone = |node: &str| -> Result<String> {
        let node = ns.cluster.json(&[&format!("node/{node}")])?;
        Ok(node["metadata"]["labels"]["topology.kubernetes.io/zone"].to_string())
    };
    ns.apply(&echo_service("server"))?;
    let near = Echo::new("near").behind("server").on("node1");
    ns.run(&[near, Echo::new("far").behind("server").on("node2"), Echo::new("client").on("node1")])?;
    let ((_, _, here), (_, _, there)) = (ns.pod("near")?, ns.pod("far")?);
    if zone(&here)? == zone(&there)? {
        eprintln!("not run: the nodes of this cluster are in one zone");
        return Ok(());
    }
    eventually("both to be asked", PATIENCE, || ns.shared("far"))?;
    let close = r#"{"spec": {"trafficDistribution": "PreferClose"}}"#;
    ns.cluster.k(&["-n", &ns.name, "patch", "service", "server", "-p", close])?;
    eventually("only the near one to be asked", PATIENCE, || {
        let answers = ns.ask("client", &["http://server/", "--count=40", "--timeout=5s"])?;
        ensure!(answers.from("near") == 40, "{} of 40: {}", answers.from("near"), answers.error);
        Ok(())
    })?;
    ns.cluster.k(&["-n", &ns.name, "scale", "deploy/near", "--replicas=0"])?;
    eventually("the far one to be asked", PATIENCE, || {
        let answers = ns.ask("client", &["http://server/", "--count=40", "--timeout=5s"])?;
        ensure!(answers.from("far") == 40, "{} of 40: {}", answers.from("far"), answers.error);
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn a_stateful_set_keeps_its_names() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-stateful", true)?;
    ns.run(&[Echo::new("client")])?;
    ns.apply(
        r#"
apiVersion: v1
kind: Service
metadata: { name: db, namespace: "@NS@" }
spec: { clusterIP: None, selector: { app: db }, ports: [{ name: http, port: 8080 }] }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db, namespace: "@NS@" }
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{ name: echo, image: "localhost/echo:1", args: [--port=8080] }]
"#,
    )?;
    ns.cluster.wait_rollout(&ns.name, "statefulset/db")?;
    for name in ["db-0", "db-1"] {
        served(&ns, &format!("http://{name}.db:8080/"), 30)?;
        let answers = ns.ask("client", &[&format!("http://{name}.db:8080/"), "--count=30"])?;
        ensure!(answers.from(name) == 30, "{} of 30 from {name}", answers.from(name));
    }
    // The same name, another pod and another address.
    ns.cluster.k(&["-n", &ns.name, "delete", "pod", "db-1"])?;
    ns.cluster.wait_rollout(&ns.name, "statefulset/db")?;
    served(&ns, "http://db-1.db:8080/", 30)
}

#[test]
#[ignore = "needs a cluster"]
fn pods_come_and_go_without_a_failed_request() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-rollout", true)?;
    ns.apply(&echo_service("server"))?;
    // As everywhere: a pod goes on serving while the news of its end travels.
    let graceful = r#""lifecycle": {"preStop": {"sleep": {"seconds": 3}}}"#;
    let server = Echo {
        replicas: 3,
        container: graceful,
        spec: r#""terminationGracePeriodSeconds": 10"#,
        ..Echo::new("server")
    };
    ns.run(&[server])?;
    let load = ns.load("http://server/", 1500, 75, None)?;
    ns.cluster.k(&["-n", &ns.name, "rollout", "restart", "deploy/server"])?;
    ns.cluster.wait_rollout(&ns.name, "deploy/server")?;
    load.all_answered()
}

/// The proxy's memory is no way around a NetworkPolicy. Whether the network enforces it is the CNI plugin's business.
#[test]
#[ignore = "needs a cluster"]
fn what_a_network_policy_selects_talks_over_the_network_on_one_node_too() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-netpol", true)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server").on("node1"), Echo::new("client").on("node1")])?;
    let talk = || {
        let answers = ns.ask("client", &["tcp://server:9090", "--count=20"])?;
        ensure!(answers.list.len() == 20 || answers.error.is_empty(), "{}", answers.error);
        Ok(())
    };
    let opened = |security: &str| -> Result<f64> {
        let metrics = ns.cluster.proxy_metrics("node1")?;
        let name = "weft_tcp_connections_opened_total{";
        let security = format!("connection_security=\"{security}\"");
        let lines = metrics.lines().filter(|l| l.starts_with(name) && l.contains("t-netpol") && l.contains(&security));
        Ok(lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    eventually("connections in memory", Duration::from_secs(20), || {
        talk()?;
        let (local, wire) = (opened("local")?, opened("mutual_tls")?);
        ensure!(local > 0.0, "{local} in memory, {wire} over the network");
        Ok(())
    })?;
    let wire = opened("mutual_tls")?;
    ns.apply(r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "all", "namespace": "@NS@"}, "spec": {
        "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{}]}}"#)?;
    eventually("connections over the network", Duration::from_secs(20), || {
        talk()?;
        ensure!(opened("mutual_tls")? > wire, "still in memory");
        Ok(())
    })?;
    let before = opened("local")?;
    talk()?;
    ensure!(opened("local")? == before, "some went through memory");
    Ok(())
}
