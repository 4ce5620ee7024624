//! Strict: who is refused, and what the kubelet may still do.

use anyhow::{Result, ensure};
use weft_tests::cluster::{
    Cluster, Echo, PATIENCE, STRICT, SYSTEM, TestNamespace, echo_service, eventually, repository,
};

fn policy(ns: &TestNamespace, kind: &str, name: &str, spec: &str) -> Result<()> {
    ns.apply(&format!(
        "apiVersion: weftmesh.io/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name}, namespace: \"@NS@\" }}\nspec: {spec}"
    ))?;
    ns.cluster.wait_accepted(&ns.name, &format!("{}/{name}", kind.to_lowercase()))
}

fn outcome(ns: &TestNamespace, from: &str, url: &str) -> Result<usize> {
    let answers = ns.ask(from, &[url, "--count=10", "--timeout=3s"])?;
    Ok(answers.with_status(200))
}

/// Probes of every kind keep a Strict pod Ready; everybody else without an identity is refused, also from the same
/// address as the kubelet. Each of them got through before.
#[test]
#[ignore = "needs a cluster"]
fn the_kubelet_probes_a_strict_pod_and_nobody_else_gets_in() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-strict", true)?;
    let outside = cluster.namespace("t-strict-outside", false)?;
    ns.apply(&echo_service("server"))?;
    let often = r#""periodSeconds": 1, "failureThreshold": 2"#;
    let probes = [
        ("http", format!(r#"{{"httpGet": {{"path": "/healthz", "port": 8080}}, {often}}}"#)),
        ("tcp", format!(r#"{{"tcpSocket": {{"port": 9090}}, {often}}}"#)),
        ("grpc", format!(r#"{{"grpc": {{"port": 7070}}, {often}}}"#)),
        ("exec", format!(r#"{{"exec": {{"command": ["/usr/local/bin/server", "--help"]}}, {often}}}"#)),
    ];
    let probes = probes.map(|(name, probe)| (name, format!(r#""livenessProbe": {probe}"#)));
    let probed =
        probes.iter().map(|(name, probe)| Echo { container: probe, ..Echo::new(name).behind("server").on("node2") });
    ns.run(&probed.chain([Echo::new("client").on("node1")]).collect::<Vec<_>>())?;
    outside.run(&[
        Echo {
            spec: r#""hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet""#,
            container: "",
            ..Echo::new("host").on("node2")
        },
        Echo::new("client").on("node2"),
    ])?;
    // A NodePort client arrives with a node's address.
    cluster.k(&["-n", &ns.name, "patch", "service", "server", "-p", r#"{"spec": {"type": "NodePort"}}"#])?;
    let service = cluster.json(&["-n", &ns.name, "service/server"])?;
    let port = service["spec"]["ports"][0]["nodePort"].to_string();
    let (_, ip, node) = ns.pod("http")?;
    let address = cluster.json(&[&format!("node/{node}")])?["status"]["addresses"][0]["address"].clone();
    let urls = [
        format!("http://{ip}:8080/"),
        "http://server.t-strict/".to_owned(),
        format!("http://{ip}:8080/healthz/other"),
        format!("http://{}:{port}/", address.as_str().unwrap_or_default()),
    ];
    let callers = || ["client", "host"].into_iter().flat_map(|from| urls.iter().map(move |url| (from, url)));
    for (from, url) in callers() {
        eventually(&format!("{from} to reach {url} while plaintext is taken"), PATIENCE, || {
            outside.served(from, url, 10)
        })?;
    }
    policy(&ns, "MeshPolicy", "strict", "{ mode: Strict }")?;
    for (from, url) in callers() {
        eventually(&format!("{from} to be kept from {url}"), PATIENCE, || outside.refused(from, url))?;
    }
    ensure!(outcome(&ns, "client", "http://server/")? == 10, "the mesh is refused");
    std::thread::sleep(std::time::Duration::from_secs(5));
    for (from, url) in callers() {
        outside.refused(from, url)?;
    }
    for (app, _) in &probes {
        let (pod, ..) = ns.pod(app)?;
        let status = cluster.json(&["-n", &ns.name, &format!("pod/{pod}")])?["status"]["containerStatuses"][0].clone();
        ensure!(status["ready"] == true && status["restartCount"] == 0, "{app}: {status}");
    }
    Ok(())
}

/// Takes policies of the root namespace away, also when a test fails.
struct OfRoot<'a>(&'a Cluster, &'a [&'a str]);

impl OfRoot<'_> {
    fn remove(&self) -> Result<()> {
        self.0.k(&[&["-n", SYSTEM, "delete", "meshpolicy", "--ignore-not-found"], self.1].concat())?;
        Ok(())
    }
}

impl Drop for OfRoot<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("policies of this test stay: {error:#}");
        }
    }
}

/// The manual's exceptions as they stand in it: the caller that each is for gets through, at that port only. That of the
/// operator is from what is enforced, and for that namespace's pods alone.
#[test]
#[ignore = "needs a cluster"]
fn every_exception_of_the_manual_opens_its_port_and_no_other() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-exceptions", true)?;
    let outside = cluster.namespace("t-exceptions-outside", false)?;
    let other = cluster.namespace("t-exceptions-other", true)?;
    let of_root = OfRoot(&cluster, &["t-exceptions", "shop-web-from-ingress"]);
    ns.apply(STRICT)?;
    other.apply(STRICT)?;
    ns.run(&[Echo::new("web"), Echo::new("webhook")])?;
    other.run(&[Echo::new("web")])?;
    outside.run(&[Echo::new("client")])?;
    let (_, client, _) = outside.pod("client")?;
    // Which caller is which doesn't matter to the mesh; the echo server has other ports than a webhook or metrics.
    let blocks = repository().join("docs/exceptions.md");
    let blocks = std::fs::read_to_string(blocks)?;
    let blocks = blocks.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks = blocks.map(|block| {
        let named =
            block.replace("namespace: shop", "namespace: \"@NS@\"").replace("namespace: policy", "namespace: \"@NS@\"");
        let named = named.replace("10.20.0.0/24", &client).replace("\"shop\"", "\"@NS@\"");
        ["9443", "9090", "8443"].iter().fold(named, |text, port| text.replace(port, "8080"))
    });
    let blocks: Vec<_> = blocks.collect();
    ensure!(blocks.len() == 5, "{} blocks", blocks.len());
    let open_in = |ns: &TestNamespace, app: &str, port: &str| -> Result<bool> {
        let (_, ip, _) = ns.pod(app)?;
        let url = if port == "8080" { format!("http://{ip}:8080/") } else { format!("grpc://{ip}:{port}") };
        Ok(outcome(&outside, "client", &url)? == 10)
    };
    let open = |app: &str, port: &str| open_in(&ns, app, port);
    for (block, app) in blocks.iter().zip(["web", "web", "webhook", "web", "web"]) {
        if block.contains("enforced: true") {
            cluster.apply(&format!(
                r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "metadata": {{"name": "t-exceptions", "namespace": "{SYSTEM}"}},
                "spec": {{"targetRefs": [{{"kind": "Namespace", "name": "t-exceptions"}}], "mode": "Strict", "enforced": true}}}}"#
            ))?;
            cluster.wait_accepted(SYSTEM, "meshpolicy/t-exceptions")?;
        }
        eventually("Strict", PATIENCE, || {
            ensure!(!open(app, "8080")?, "{app} is open before\n{block}");
            Ok(())
        })?;
        ns.apply(block)?;
        eventually("the exception", PATIENCE, || {
            ensure!(open(app, "8080")?, "{app} stays closed with\n{block}");
            Ok(())
        })?;
        ensure!(!open(app, "7070")?, "another port of {app} is open, too, with\n{block}");
        ensure!(!open_in(&other, "web", "8080")?, "the same labels elsewhere are open, too, with\n{block}");
        of_root.remove()?;
        ns.cluster.k(&["-n", &ns.name, "delete", "meshpolicies,authorizationpolicies", "--all"])?;
        ns.apply(STRICT)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn permissive_takes_plaintext_and_strict_for_one_port_takes_it_on_the_others() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-port", true)?;
    let outside = cluster.namespace("t-port-outside", false)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server")])?;
    outside.run(&[Echo::new("client")])?;
    ensure!(outcome(&outside, "client", "http://server.t-port/")? == 10, "Permissive is the default");
    policy(&ns, "MeshPolicy", "strict", "{ mode: Strict, portModes: [{ port: 7070, mode: Permissive }] }")?;
    eventually("Strict to be enforced", PATIENCE, || {
        let served = outcome(&outside, "client", "http://server.t-port/")?;
        ensure!(served == 0, "{served} of 10 served");
        Ok(())
    })?;
    ensure!(outcome(&outside, "client", "grpc://server.t-port:7070")? == 10, "the exception for one port");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_policy_names_who_may_call() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-authz", true)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server"), Echo::new("friend"), Echo::new("stranger")])?;
    ensure!(outcome(&ns, "stranger", "http://server/")? == 10, "no policy, no refusal");
    policy(
        &ns,
        "AuthorizationPolicy",
        "friends",
        r#"{ targetRefs: [{ group: "", kind: Pod, selector: { matchLabels: { app: server } } }], action: ALLOW,
        rules: [{ from: [{ identities: ["spiffe://cluster.local/ns/t-authz/sa/friend"] }] }] }"#,
    )?;
    eventually("the policy to be enforced", PATIENCE, || {
        let served = outcome(&ns, "stranger", "http://server/")?;
        ensure!(served == 0, "{served} of 10 served");
        Ok(())
    })?;
    for _ in 0..5 {
        ensure!(outcome(&ns, "friend", "http://server/")? == 10, "the friend is refused");
        ensure!(outcome(&ns, "stranger", "http://server/")? == 0, "the stranger is served");
    }
    Ok(())
}
