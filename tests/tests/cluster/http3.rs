//! HTTP/3 by way of a Service: datagrams that kube-proxy sends to one of several pods, and a load balancer's address with ports of
//! both kinds. Two clients that aren't ours: one in a pod (quic-go), one outside of the cluster (aioquic).

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::cluster::{
    Answers, Cluster, Echo, PATIENCE, STRICT, TestNamespace, echo_service, eventually, repository,
};
use weft_tests::edge::Certificate;
use weft_tests::installed;

use crate::gateway::{LABEL, address, route};
use crate::provisioned::{gateway, parameters, pods};

/// The host of the listener.
const HOST: &str = "site.example";

/// Waits until these ports, as `UDP 443`, are open in the Service and in the NetworkPolicy, and no other.
fn opens(ns: &TestNamespace, expected: &[&str]) -> Result<()> {
    eventually(&format!("{expected:?} to be open"), PATIENCE, || {
        for (object, place) in [("service", "/spec/ports"), ("networkpolicy", "/spec/ingress/0/ports")] {
            let found = ns.cluster.json(&["-n", &ns.name, &format!("{object}/edge-weft")])?;
            let ports = found.pointer(place).and_then(Value::as_array).context("no ports")?;
            let ports =
                ports.iter().map(|it| format!("{} {}", it["protocol"].as_str().unwrap_or_default(), it["port"]));
            let ports: BTreeSet<_> = ports.collect();
            ensure!(ports.iter().eq(expected), "{object}: {ports:?}");
        }
        Ok(())
    })
}

fn https() -> Value {
    let tls = json!({ "certificateRefs": [{ "name": "site" }] });
    json!({ "name": "https", "port": 443, "protocol": "HTTPS", "hostname": HOST, "tls": tls })
}

/// The host's certificate in a Secret; what clients have to believe.
fn site(ns: &TestNamespace) -> Result<String> {
    let Certificate { chain, key } = Certificate::of(HOST)?;
    let (metadata, data) =
        (json!({ "name": "site", "namespace": "@NS@" }), json!({ "tls.crt": chain, "tls.key": key }));
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata,
        "stringData": data });
    ns.apply(&secret.to_string())?;
    Ok(chain)
}

/// Twenty requests for the host, each on a connection of its own.
fn ask(outside: &TestNamespace, address: &str, more: &[&str]) -> Result<Answers> {
    let url = if address.contains(':') { format!("https://[{address}]/") } else { format!("https://{address}/") };
    let (host, name) = (format!("Host: {HOST}"), format!("--server-name={HOST}"));
    let usual = [&url[..], "-H", &host, &name, "--insecure-skip-verify", "--count=20", "--timeout=5s"];
    outside.ask("client", &[&usual[..], &["--new-connection-per-request"], more].concat())
}

/// Answers that name HTTP/3 as another way to the same.
fn naming_http_3(answers: &Answers) -> usize {
    let names = |header: &String| header.eq_ignore_ascii_case(r#"alt-svc:h3=":443"; ma=86400"#);
    answers.list.iter().filter(|answer| answer.response.iter().any(names)).count()
}

/// Whether each of the Gateway's pods is among those that the server was asked by: they ask from their own addresses.
fn by_every_pod<'a>(ns: &TestNamespace, clients: impl Iterator<Item = &'a str>) -> Result<()> {
    let clients: BTreeSet<_> = clients.collect();
    let pods = ns.cluster.json(&["-n", &ns.name, "pods", "-l", LABEL])?;
    let pods = pods["items"].as_array().context("no pods")?;
    ensure!(pods.len() == 2, "{} pods", pods.len());
    for pod in pods {
        let mut ips = pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|it| it["ip"].as_str());
        ensure!(ips.any(|ip| clients.contains(ip)), "{} is not among {clients:?}", pod["status"]["podIPs"]);
    }
    Ok(())
}

/// The same with a client of another make, from outside of the cluster, by way of a node.
fn from_outside_of_the_cluster(ns: &TestNamespace, address: &str, roots: &str) -> Result<()> {
    if !ns.cluster.has_nodes() {
        eprintln!("LEFT OUT: HTTP/3 from outside of the cluster, whose load balancers can't be reached from here");
        return Ok(());
    }
    let Some(python) = installed("aioquic/bin/python3") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, roots)?;
    let script = repository().join("tests/tests/http3/service.py");
    let [python, script, file] = [python, script, file].map(|path| path.display().to_string());
    eventually(&format!("HTTP/3 at {address} from outside of the cluster"), PATIENCE, || {
        // -B: nothing is left beside the script.
        let words = [&python[..], "-B", &script, address, "443", &file, HOST, "12"];
        let output = ns.cluster.beside(&words).context("not a cluster of ours")?.output()?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        let seen: Value = serde_json::from_slice(&output.stdout).with_context(said)?;
        let told = seen["alt-svc"].as_array().context("nothing was told")?;
        ensure!(told.len() == 12 && told.iter().all(|it| *it == r#"h3=":443"; ma=86400"#), "{seen:#}");
        let answers = seen["answers"].as_array().context("no answers")?;
        ensure!(answers.len() == 12 && answers.iter().all(|it| it["status"] == "200"), "{seen:#}");
        let lines = answers.iter().flat_map(|it| it["body"].as_str().unwrap_or_default().lines());
        by_every_pod(ns, lines.filter_map(|line| line.strip_prefix("IP=")))
    })
}

#[test]
#[ignore = "needs a cluster"]
fn http_3_is_spoken_by_every_pod_behind_the_service_and_comes_and_goes_without_another_pod() -> Result<()> {
    let cluster = Cluster::open()?;
    let (ns, outside) = (cluster.namespace("t-http3", true)?, cluster.namespace("t-http3-out", false)?);
    ns.apply(STRICT)?;
    ns.apply(&echo_service("server"))?;
    let roots = site(&ns)?;
    parameters(&ns, "own", &json!({ "http3": true }))?;
    gateway(&ns, "weft", Some("own"), &https())?;
    ns.run(&[Echo::new("server")])?;
    outside.run(&[Echo::new("client")])?;
    route(&ns, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    address(&ns)?;
    cluster.wait_rollout(&ns.name, "deploy/edge-weft")?;
    let before = pods(&ns)?;
    opens(&ns, &["TCP 443", "UDP 443"])?;
    // Of each family that the cluster has.
    let status = cluster.json(&["-n", &ns.name, "gateway/edge"])?["status"]["addresses"].clone();
    let addresses: Vec<_> = status.as_array().into_iter().flatten().filter_map(|it| it["value"].as_str()).collect();
    ensure!(!addresses.is_empty(), "no addresses");
    for address in &addresses {
        eventually(&format!("every pod to tell of HTTP/3 at {address}"), PATIENCE, || {
            let answers = ask(&outside, address, &[])?;
            answers.all(20, 200)?;
            ensure!(naming_http_3(&answers) == 20, "{:?}", answers.list.first());
            Ok(())
        })?;
        eventually(&format!("HTTP/3 at {address}"), PATIENCE, || {
            let answers = ask(&outside, address, &["--http3"])?;
            answers.all(20, 200)?;
            by_every_pod(&ns, answers.list.iter().map(|it| it.client.as_str()))
        })?;
        from_outside_of_the_cluster(&ns, address, &roots)?;
    }

    parameters(&ns, "own", &json!({ "http3": false }))?;
    opens(&ns, &["TCP 443"])?;
    for address in &addresses {
        eventually(&format!("nobody to tell of HTTP/3 at {address}"), PATIENCE, || {
            let answers = ask(&outside, address, &[])?;
            answers.all(20, 200)?;
            ensure!(naming_http_3(&answers) == 0, "{:?}", answers.list.first());
            Ok(())
        })?;
        let answers = ask(&outside, address, &["--http3", "--count=2", "--timeout=2s"])?;
        ensure!(answers.list.is_empty(), "{:?}", answers.list.first());
    }
    ensure!(pods(&ns)? == before, "other pods than before");
    Ok(())
}
