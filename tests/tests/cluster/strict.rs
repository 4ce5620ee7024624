//! Strict: who is refused, and what the kubelet may still do.

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, TestNamespace, echo_service, eventually};

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
/// address as the kubelet.
#[test]
#[ignore = "needs a cluster"]
fn the_kubelet_probes_a_strict_pod_and_nobody_else_gets_in() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-strict", true)?;
    let outside = cluster.namespace("t-strict-outside", false)?;
    policy(&ns, "MeshPolicy", "strict", "{ mode: Strict }")?;
    ns.apply(&echo_service("server"))?;
    let probed = |name, probe| Echo { container: probe, ..Echo::new(name).behind("server").on("node2") };
    let http = probed(
        "http",
        r#""livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2}"#,
    );
    let tcp =
        probed("tcp", r#""livenessProbe": {"tcpSocket": {"port": 9090}, "periodSeconds": 1, "failureThreshold": 2}"#);
    let exec = probed(
        "exec",
        r#""livenessProbe": {"exec": {"command": ["/usr/local/bin/server", "--help"]}, "periodSeconds": 5, "failureThreshold": 2}"#,
    );
    ns.run(&[http, tcp, exec, Echo::new("client").on("node1")])?;
    outside.run(&[
        Echo {
            spec: r#""hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet""#,
            container: "",
            ..Echo::new("host").on("node2")
        },
        Echo::new("client").on("node2"),
    ])?;
    ensure!(outcome(&ns, "client", "http://server/")? == 10, "the mesh is refused");
    let (_, ip, _) = ns.pod("http")?;
    for from in ["client", "host"] {
        for url in [
            format!("http://{ip}:8080/"),
            "http://server.t-strict/".to_owned(),
            format!("http://{ip}:8080/healthz/other"),
        ] {
            ensure!(outcome(&outside, from, &url)? == 0, "{from} got through to {url}");
        }
    }
    // A NodePort client arrives with a node's address.
    cluster.k(&["-n", &ns.name, "patch", "service", "server", "-p", r#"{"spec": {"type": "NodePort"}}"#])?;
    let service = cluster.json(&["-n", &ns.name, "service/server"])?;
    let port = service["spec"]["ports"][0]["nodePort"].to_string();
    let node =
        cluster.json(&["node/node2"])?["status"]["addresses"][0]["address"].as_str().unwrap_or_default().to_owned();
    ensure!(outcome(&outside, "client", &format!("http://{node}:{port}/"))? == 0, "a NodePort client got through");

    std::thread::sleep(std::time::Duration::from_secs(5));
    for app in ["http", "tcp", "exec"] {
        let (pod, ..) = ns.pod(app)?;
        let status = cluster.json(&["-n", &ns.name, &format!("pod/{pod}")])?["status"]["containerStatuses"][0].clone();
        ensure!(status["ready"] == true && status["restartCount"] == 0, "{app}: {status}");
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
