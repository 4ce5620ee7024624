//! Who is in the mesh, and how one gets in and out.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, STRICT, TestNamespace, echo_service, eventually};

/// The server's pod as it was made, to see that it's still the same one.
fn incarnation(ns: &TestNamespace, app: &str) -> Result<String> {
    let (pod, ..) = ns.pod(app)?;
    let pod = ns.cluster.json(&["-n", &ns.name, &format!("pod/{pod}")])?;
    let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
    Ok(format!("{} {restarts}", pod["metadata"]["uid"]))
}

#[test]
#[ignore = "needs a cluster"]
fn a_label_enrols_running_pods_and_its_removal_lets_them_go() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-enrol", false)?;
    let outside = cluster.namespace("t-enrol-outside", false)?;
    ns.apply(&echo_service("server"))?;
    ns.apply(STRICT)?;
    ns.run(&[Echo::new("server").on("node2"), Echo::new("client").on("node1")])?;
    outside.run(&[Echo::new("client")])?;
    let url = "http://server.t-enrol/";
    ns.served("client", url, 20)?;
    outside.served("client", url, 20)?;
    let before = incarnation(&ns, "server")?;

    cluster.k(&["label", "namespace", "t-enrol", "weftmesh.io/mesh=enabled"])?;
    eventually("the outside to be refused", PATIENCE, || outside.refused("client", url))?;
    eventually("the inside to be served", PATIENCE, || ns.served("client", url, 20))?;
    ns.served("client", url, 200)?;
    outside.refused("client", url)?;

    cluster.k(&["label", "namespace", "t-enrol", "weftmesh.io/mesh-"])?;
    eventually("the outside to be served", PATIENCE, || outside.served("client", url, 20))?;
    ns.served("client", url, 50)?;
    ensure!(incarnation(&ns, "server")? == before, "the pod was replaced or restarted");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn a_pod_can_stay_out_of_an_enrolled_namespace_or_be_the_only_one_in() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-optout", true)?;
    let outside = cluster.namespace("t-optin", false)?;
    for ns in [&ns, &outside] {
        ns.apply(STRICT)?;
        ns.apply(&echo_service("in"))?;
        ns.apply(&echo_service("out"))?;
    }
    let (yes, no) = (r#""weftmesh.io/mesh": "enabled""#, r#""weftmesh.io/mesh": "disabled""#);
    ns.run(&[Echo::new("in"), Echo { labels: no, ..Echo::new("out") }, Echo { labels: no, ..Echo::new("client") }])?;
    outside.run(&[Echo { labels: yes, ..Echo::new("in") }, Echo::new("out"), Echo::new("client")])?;
    for (from, server) in [(&ns, "t-optout"), (&outside, "t-optin")] {
        let out = format!("http://out.{server}/");
        // Neither end is in the mesh, so that only kube-proxy can know the way, and it learns of it some time after the rollout.
        eventually("kube-proxy to know the Service", PATIENCE, || from.served("client", &out, 1))?;
        from.served("client", &out, 50)?;
        eventually("a plaintext client to be refused", PATIENCE, || {
            from.refused("client", &format!("http://in.{server}/"))
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn pods_that_have_another_proxy_are_left_alone_and_an_event_says_why() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-sidecar", true)?;
    ns.apply(STRICT)?;
    ns.apply(&echo_service("server"))?;
    let sidecar = r#""initContainers": [{"name": "istio-proxy", "image": "localhost/echo:1", "restartPolicy": "Always", "args": ["--port=1", "--grpc=2", "--tcp=3"]}]"#;
    ns.run(&[Echo { spec: sidecar, ..Echo::new("server") }, Echo::new("client")])?;
    let outside = ns.cluster.namespace("t-sidecar-outside", false)?;
    outside.run(&[Echo::new("client")])?;
    outside.served("client", "http://server.t-sidecar/", 20)?;
    // Nor is a client in the mesh told to open a tunnel that nobody would accept.
    ns.served("client", "http://server/", 20)?;
    let (pod, ..) = ns.pod("server")?;
    eventually("an Event", PATIENCE, || {
        let events = ns.cluster.k(&["-n", &ns.name, "describe", "pod", &pod])?;
        ensure!(events.contains("NotEnrolled") && events.contains("istio"), "{events}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn init_containers_and_jobs_are_in_the_mesh_from_their_first_byte() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-jobs", true)?;
    ns.apply(STRICT)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server")])?;
    // The server is Strict: without the mesh these could not succeed. No retry: the first connection counts.
    ns.apply(
        r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "@NS@"}, "spec": {"backoffLimit": 0, "template": {"spec": {
        "restartPolicy": "Never",
        "initContainers": [{"name": "init", "image": "localhost/echo:1", "command": ["/usr/local/bin/client", "http://server/", "--count=20"]}],
        "containers": [{"name": "main", "image": "localhost/echo:1", "command": ["/usr/local/bin/client", "http://server/", "--count=20"]}]}}}}"#,
    )?;
    eventually("the Job", PATIENCE, || {
        let job = ns.cluster.json(&["-n", &ns.name, "job/job"])?;
        let logs = || ns.cluster.k(&["-n", "t-jobs", "logs", "job/job", "--all-containers"]).unwrap_or_default();
        ensure!(job["status"]["succeeded"] == 1, "{} {}", job["status"], logs());
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn a_flood_of_new_pods_is_enrolled_without_a_plain_packet() -> Result<()> {
    let ns = Cluster::open()?.namespace("t-many", true)?;
    ns.apply(STRICT)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo { replicas: 8, ..Echo::new("server") }, Echo { replicas: 4, ..Echo::new("client") }])?;
    eventually("every endpoint to answer", Duration::from_secs(20), || {
        let answers = ns.ask("client", &["http://server/", "--count=200", "--new-connection-per-request"])?;
        let mut pods: Vec<_> = answers.list.iter().map(|a| a.hostname.clone()).collect();
        pods.sort();
        pods.dedup();
        ensure!(pods.len() == 8 && answers.with_status(200) == 200, "{} pods, {}", pods.len(), answers.error);
        Ok(())
    })
}
