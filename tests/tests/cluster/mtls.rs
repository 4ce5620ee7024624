//! What goes over the wire between two nodes.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, SECRET, TestNamespace, echo_service, eventually};

/// Text of the last call that a capture has to see.
const LAST: &str = "the-capture-may-end";

/// All packets of a node's cable, as text.
pub(crate) struct Capture {
    child: Child,
    file: std::path::PathBuf,
}

impl Capture {
    pub(crate) fn start(cluster: &Cluster, node: &str) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("weft-capture-{}", std::process::id()));
        let mut command =
            cluster.on_node(node, &["tcpdump", "-i", "eth0", "-s0", "-U", "--immediate-mode", "-nn", "-A", "tcp"]);
        let out = std::fs::File::create(&file)?;
        let mut child = command.stdout(out).stderr(Stdio::piped()).spawn().context("tcpdump")?;
        // It says so when it listens.
        let mut said = std::io::BufReader::new(child.stderr.take().context("no stderr")?);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(std::io::BufRead::read_line(&mut said, &mut line)? > 0, "tcpdump ended");
        }
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Ok(Self { child, file })
    }

    /// There were tunnels, and nothing of what they carried was readable.
    pub(crate) fn shows_no_request(self, ns: &TestNamespace) -> Result<()> {
        let wire = self.end(ns)?;
        ensure!(wire.contains(".15008"), "no tunnel was seen");
        ensure!(!wire.contains(SECRET), "a request went over the wire in the clear");
        Ok(())
    }

    /// All that was seen until now: the last is a call to the other node's kube-proxy, in the clear.
    pub(crate) fn end(mut self, ns: &TestNamespace) -> Result<String> {
        let (_, _, other) = ns.pod("server")?;
        let node = ns.cluster.json(&[&format!("node/{other}")])?;
        let address = node["status"]["addresses"][0]["address"].as_str().context("no address")?.to_owned();
        let call = format!("exec 3<>/dev/tcp/{address}/10256; printf 'GET /{LAST} HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        ns.cluster.on_node("node1", &["bash", "-c", &call]).stdout(Stdio::null()).status()?;
        eventually("the last call to be seen", Duration::from_secs(10), || {
            let seen = String::from_utf8_lossy(&std::fs::read(&self.file)?).contains(LAST);
            ensure!(seen, "not yet");
            Ok(())
        })?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id().try_into()?),
            nix::sys::signal::Signal::SIGINT,
        )?;
        self.child.wait()?;
        let text = String::from_utf8_lossy(&std::fs::read(&self.file)?).into_owned();
        std::fs::remove_file(&self.file)?;
        Ok(text)
    }
}

fn pair(name: &str, enrolled: bool) -> Result<TestNamespace> {
    let ns = Cluster::open()?.namespace(name, enrolled)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server").on("node2"), Echo::new("client").on("node1")])?;
    // Outside of the mesh it's kube-proxy that has to hear of the endpoints.
    eventually("the first answers", PATIENCE, || ns.served("client", "http://server/", 20))?;
    Ok(ns)
}

fn talk(ns: &TestNamespace) -> Result<()> {
    let (_, client, _) = ns.pod("client")?;
    let header = format!("X-Secret: {SECRET}");
    for url in ["http://server/", "grpc://server:7070"] {
        let answers = ns.ask("client", &[url, "-H", &header, "--count=40"])?;
        ensure!(answers.list.len() == 40, "{url}: {}", answers.error);
        let kept = answers.list.iter().filter(|a| a.client == client || a.client.is_empty()).count();
        ensure!(kept == 40, "{url}: the server saw {:?} instead of {client}", answers.list.first());
    }
    let answers = ns.ask("client", &["tcp://server:9090", "--msg", SECRET, "--count=20"])?;
    ensure!(answers.list.len() == 20, "tcp: {}", answers.error);
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn between_nodes_nothing_is_in_the_clear() -> Result<()> {
    if !Cluster::open()?.has_nodes() {
        eprintln!("not run: this cluster's nodes can't be entered");
        return Ok(());
    }
    let ns = pair("t-wire", true)?;
    let capture = Capture::start(&ns.cluster, "node1")?;
    talk(&ns)?;
    capture.shows_no_request(&ns)?;
    // The same without the mesh, so that the capture is known to see it.
    let plain = pair("t-wire-plain", false)?;
    let capture = Capture::start(&plain.cluster, "node1")?;
    talk(&plain)?;
    ensure!(capture.end(&plain)?.contains(SECRET), "the capture sees nothing at all");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn both_families_work() -> Result<()> {
    let ns = pair("t-dual", true)?;
    ns.cluster.k(&[
        "-n",
        &ns.name,
        "patch",
        "service",
        "server",
        "-p",
        r#"{"spec": {"ipFamilyPolicy": "PreferDualStack"}}"#,
    ])?;
    let service = ns.cluster.json(&["-n", &ns.name, "service/server"])?;
    let addresses: Vec<_> =
        service["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(|v| v.as_str()).collect();
    let (pod, ..) = ns.pod("server")?;
    let pod = ns.cluster.json(&["-n", &ns.name, &format!("pod/{pod}")])?;
    let pods: Vec<_> =
        pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|v| v["ip"].as_str()).collect();
    if addresses.len() < 2 {
        eprintln!("only {addresses:?}: this cluster has one family");
    }
    let urls = addresses.iter().map(|ip| (ip, 80)).chain(pods.iter().map(|ip| (ip, 8080)));
    for (ip, port) in urls {
        let host = if ip.contains(':') { format!("[{ip}]") } else { (*ip).to_owned() };
        eventually(&format!("{host}:{port}"), Duration::from_secs(20), || {
            let answers = ns.ask("client", &[&format!("http://{host}:{port}/"), "--count=20"])?;
            ensure!(answers.with_status(200) == 20, "{}", answers.error);
            Ok(())
        })?;
    }
    Ok(())
}
