//! The agent as it runs on a node of a cluster: an API server in memory, real namespaces, a proxy that only relays.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test fails"
)]

#[path = "support/proxy.rs"]
mod fake;
mod support;

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use fake::FakeProxy;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use support::{SOON, app, block_on, dial, refused, soon, sys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_cni::agent::sources_towards;
use weft_cni::kubernetes::settings::RunSettings;
use weft_cni::kubernetes::traces::Traces;
use weft_cni::kubernetes::{leave, run};
use weft_kube_fake::{FakeApi, Reply};
use weft_testkit::{Netns, Pod, World, netns_tests};

netns_tests! {
    a_running_pod_joins_and_leaves_without_restart,
    without_a_file_the_process_holds_the_namespace,
    rules_of_an_agent_whose_state_is_lost_are_found,
    a_new_sandbox_of_the_same_pod,
    the_taint_goes_after_a_probe_through_the_data_plane,
    the_mesh_leaves_the_node,
    an_agent_that_starts_while_the_mesh_leaves_installs_nothing,
    without_an_api_server_what_is_known_stays,
    what_is_remembered_takes_no_running_pod_out,
    where_the_nodes_traffic_comes_from,
}

const PODS: &str = "/api/v1/namespaces/shop/pods";
const MAPS: &str = "/api/v1/namespaces/weft-system/configmaps";
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp"}]}"#;
const UID: &str = "7c1f0d7e-3f0b-4c55-9a44-2b9a6d1e0f01";
const CONTAINER: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";

#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(flatten)]
    settings: RunSettings,
}

/// A node with two pods, an API server, and directories as a node has them.
struct Bench {
    world: World,
    api: FakeApi,
    dir: tempfile::TempDir,
    port: AtomicU32,
}

/// An agent at work, until dropped.
struct Running {
    task: tokio::task::JoinHandle<Result<()>>,
    port: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    async fn stop(mut self, bench: &Bench) -> Result<()> {
        self.task.abort();
        let _aborted = (&mut self.task).await;
        let path = bench.path("run/proxy.sock");
        soon("the agent stops", async {
            while path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        })
        .await
    }

    async fn page(&self, path: &str) -> Result<String> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port as u16)).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Waits until a page has a text.
    async fn says(&self, path: &str, text: &str) -> Result<()> {
        let mut last = String::new();
        let wait = async {
            loop {
                last = self.page(path).await.unwrap_or_else(|e| e.to_string());
                if last.contains(text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let done = tokio::time::timeout(SOON, wait).await;
        done.with_context(|| format!("{path} doesn't say {text:?}: {last}"))
    }
}

impl Bench {
    fn new() -> Result<Self> {
        let world = World::builder().node("n").pod("n", "a").pod("n", "b").build()?;
        let bench = Self { world, api: FakeApi::new(), dir: tempfile::tempdir()?, port: AtomicU32::new(17000) };
        for dir in ["run", "net.d", "bin", "proc"] {
            std::fs::create_dir(bench.path(dir))?;
        }
        std::fs::write(bench.path("net.d/10-net.conflist"), NETWORK)?;
        std::fs::write(bench.path("weft-cni"), "the plugin")?;
        Netns::here().exec("ip link set lo up")?;
        bench.namespace("weft-system", "");
        bench.namespace("shop", "");
        Ok(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn namespace(&self, name: &str, label: &str) {
        let labels = if label.is_empty() { json!({}) } else { json!({ "weftmesh.io/mesh": label }) };
        self.api.put("/api/v1/namespaces", json!({ "metadata": { "name": name, "labels": labels } }));
    }

    /// The pod as the API server has it.
    fn object(&self, pod: &Pod, uid: &str) {
        let ips: Vec<_> = pod.ips().iter().map(|ip| json!({ "ip": ip })).collect();
        self.api.put(
            PODS,
            json!({
                "metadata": { "namespace": "shop", "name": pod.pod_name(), "uid": uid },
                "spec": { "nodeName": "n1", "serviceAccountName": "cart", "containers": [{ "name": "app" }] },
                "status": { "phase": "Running", "podIPs": ips },
            }),
        );
    }

    /// A process in the pod, shown in a `/proc` where its cgroup is the pod's.
    fn process(&self, netns: &Netns, uid: &str) -> Result<Process> {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").stdin(Stdio::null());
        let child = netns.run(|| sleep.spawn())?;
        let dir = self.path("proc").join(child.id().to_string());
        std::fs::create_dir_all(dir.join("ns"))?;
        let slice = uid.replace('-', "_");
        std::fs::write(
            dir.join("cgroup"),
            format!("0::/kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-{CONTAINER}.scope\n"),
        )?;
        std::fs::copy(format!("/proc/{}/stat", child.id()), dir.join("stat"))?;
        symlink(format!("/proc/{}/ns/net", child.id()), dir.join("ns/net"))?;
        Ok(Process { child, dir })
    }

    fn start(&self, more: &[&str]) -> Running {
        let port = self.port.fetch_add(1, Ordering::Relaxed);
        let option = |name: &str, dir: &str| format!("--{name}={}", self.path(dir).display());
        let arguments = [
            "agent".to_owned(),
            "--node=n1".to_owned(),
            "--namespace=weft-system".to_owned(),
            format!("--health=127.0.0.1:{port}"),
            option("run-dir", "run"),
            option("state-dir", "state"),
            option("cni-conf-dir", "net.d"),
            option("cni-bin-dir", "bin"),
            option("plugin", "weft-cni"),
            option("proc", "proc"),
        ];
        let arguments = arguments.into_iter().chain(more.iter().map(|s| (*s).to_owned()));
        let settings = Arguments::parse_from(arguments).settings;
        settings.validate().unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let traces = Traces::new(&settings);
        Running { task: tokio::spawn(run(settings, self.api.client(), metrics, traces)), port }
    }

    async fn proxy(&self) -> Result<FakeProxy> {
        FakeProxy::relaying(&self.path("run/proxy.sock")).await
    }

    fn chain(&self) -> Vec<String> {
        let text = std::fs::read(self.path("net.d/10-net.conflist")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&text).unwrap_or_default();
        config["plugins"].as_array().unwrap().iter().map(|p| p["type"].as_str().unwrap().to_owned()).collect()
    }

    async fn plugin(&self, command: &str, container: &str, pod: &Pod, uid: &str) -> Result<Value> {
        self.plugin_as(command, container, pod, (pod.pod_name(), uid)).await
    }

    async fn plugin_as(&self, command: &str, container: &str, pod: &Pod, who: (&str, &str)) -> Result<Value> {
        let (name, uid) = who;
        let path = |name: &str| self.path("run").join(name);
        let ips: Vec<_> = pod.ips().iter().map(|ip| json!({ "address": format!("{ip}/24") })).collect();
        let config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "weft-cni", "agentSocket": path("agent.sock"),
            "enrolmentFile": path("enrolment.json"), "missedDir": path("missed"), "meshNamespace": "weft-system",
            "prevResult": { "cniVersion": "1.0.0", "ips": ips },
        });
        let mut plugin = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft-cni"));
        plugin.env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", pod.path());
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let mut child = plugin.env("CNI_ARGS", args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(config.to_string().as_bytes()).await?;
        let out = tokio::time::timeout(SOON, child.wait_with_output()).await.context("the plugin hangs")??;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "{command}: {text}");
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }
}

/// Ends, and is no longer shown, when dropped.
struct Process {
    child: std::process::Child,
    dir: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn ruleset(pod: &Netns) -> Result<String> {
    pod.exec("nft list ruleset")
}

async fn until_rules(pod: &Netns, there: bool) -> Result<()> {
    soon(if there { "redirected" } else { "rules are gone" }, async {
        while ruleset(pod)?.contains("redirect to :15001") != there {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    })
    .await
}

fn a_running_pod_joins_and_leaves_without_restart() -> Result<()> {
    let bench = Bench::new()?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    let here = Netns::here();
    here.exec("ip addr add 10.99.0.1/32 dev lo")?;
    here.exec(&format!("ip route add {}/32 dev lo src 10.99.0.1", a.ipv4()))?;
    block_on(async {
        let _process = bench.process(&a, UID)?;
        bench.object(&a, UID);
        let running = bench.start(&[]);
        let mut proxy = bench.proxy().await?;
        let server = app(&sys(&a)?, a.addr(8080))?;
        let mut older = dial(&sys(&b)?, a.addr(8080)).await?;
        let mut accepted = soon("accept", server.accept()).await?.0;
        ensure!(!ruleset(&a)?.contains("weft"), "untouched while nobody asks");

        bench.namespace("shop", "enabled");
        until_rules(&a, true).await?;
        proxy.until("the proxy has it", |pods| pods.contains_key(CONTAINER)).await?;
        {
            let pods = proxy.pods.lock().unwrap();
            let (workload, netns, _) = &pods[CONTAINER];
            ensure!(*netns == sys(&a)? && workload.service_account == "cart", "{workload:?}");
            ensure!(workload.node_addresses == ["10.99.0.1"], "{workload:?}");
        }
        support::carries(&mut older, &mut accepted).await.context("connections older than the enrolment go on")?;
        // As containerd calls it when the pod ends: the sandbox is the one that was found.
        bench.namespace("shop", "");
        until_rules(&a, false).await?;
        proxy.until("the proxy lets go", |pods| pods.is_empty()).await?;
        support::carries(&mut older, &mut accepted).await?;
        bench.namespace("shop", "enabled");
        until_rules(&a, true).await?;
        bench.plugin("DEL", CONTAINER, &a, UID).await?;
        until_rules(&a, false).await?;
        drop(running);
        Ok(())
    })
}

fn without_a_file_the_process_holds_the_namespace() -> Result<()> {
    let bench = Bench::new()?;
    let a = bench.world.pod("a");
    block_on(async {
        let process = bench.process(&a, UID)?;
        bench.object(&a, UID);
        bench.namespace("shop", "enabled");
        let nowhere = format!("--netns-dir={}", bench.path("nowhere").display());
        let running = bench.start(&[&nowhere]);
        let mut proxy = bench.proxy().await?;
        proxy.until("the proxy has it", |pods| pods.contains_key(CONTAINER)).await?;
        until_rules(&a, true).await?;
        running.stop(&bench).await?;
        drop(proxy);

        // The record leads to the process, which is still the pod's: the first snapshot has the pod.
        let record = std::fs::read_to_string(bench.path(&format!("state/{CONTAINER}.json")))?;
        ensure!(record.contains(&format!("proc/{}/ns/net", process.child.id())), "{record}");
        let running = bench.start(&[&nowhere]);
        let mut proxy = bench.proxy().await?;
        proxy.until("the proxy has it again", |pods| pods.contains_key(CONTAINER)).await?;
        running.stop(&bench).await?;
        drop(proxy);

        // Another pod's process has the number by now.
        let cgroup = process.dir.join("cgroup");
        let other = std::fs::read_to_string(&cgroup)?.replace("7c1f0d7e", "00000000");
        std::fs::write(&cgroup, other)?;
        let running = bench.start(&[&nowhere]);
        let mut proxy = bench.proxy().await?;
        proxy.until("the probe came and went", |pods| pods.is_empty()).await?;
        running.says("/readyz", "200 OK").await?;
        ensure!(proxy.held().is_empty(), "{:?}", proxy.held());
        Ok(())
    })
}

fn rules_of_an_agent_whose_state_is_lost_are_found() -> Result<()> {
    let bench = Bench::new()?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        let _process = bench.process(&a, UID)?;
        bench.object(&a, UID);
        bench.namespace("shop", "enabled");
        let running = bench.start(&[]);
        let proxy = bench.proxy().await?;
        until_rules(&a, true).await?;
        running.stop(&bench).await?;
        drop(proxy);
        ensure!(bench.chain() == ["ptp", "weft-cni"], "an end alone removes nothing");
        soon("redirected still, and nobody listens", async {
            while let Err(_serves) = refused(&sys(&b)?, a.addr(8080)).await {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        })
        .await?;

        std::fs::remove_dir_all(bench.path("state"))?;
        bench.namespace("shop", "disabled");
        let _running = bench.start(&[]);
        until_rules(&a, false).await.context("nobody knew of these rules")
    })
}

fn a_new_sandbox_of_the_same_pod() -> Result<()> {
    let bench = Bench::new()?;
    let (a, c) = (bench.world.pod("a"), bench.world.add_pod("n", "c")?);
    block_on(async {
        bench.namespace("shop", "enabled");
        let running = bench.start(&[]);
        let mut proxy = bench.proxy().await?;
        bench.object(&a, UID);
        bench.plugin("ADD", "first", &a, UID).await?;
        proxy.until("protected", |pods| pods.contains_key("first")).await?;

        // The pause process died: the kubelet makes a new sandbox, with a namespace and an address of its own, for the
        // same pod. DEL of the old one may come before, after, or with an empty CNI_NETNS.
        let mut config = bench.api.get(&format!("{PODS}/a")).unwrap();
        config["status"]["podIPs"] = json!([{ "ip": c.ipv4() }]);
        let second = bench.plugin_as("ADD", "second", &c, ("a", UID)).await?;
        ensure!(second["ips"][0]["address"] == format!("{}/24", c.ips()[0]), "{second}");
        bench.api.put(PODS, config);
        until_rules(&c, true).await?;
        bench.plugin("DEL", "first", &a, UID).await?;
        until_rules(&a, false).await?;
        proxy.until("the new one alone", |pods| pods.len() == 1 && pods.contains_key("second")).await?;
        ensure!(ruleset(&c)?.contains("redirect to :15001"), "the new one stays");
        bench.api.remove(&format!("{PODS}/a"));
        bench.plugin_as("DEL", "second", &c, ("a", UID)).await?;
        proxy.until("none", |pods| pods.is_empty()).await?;
        drop(running);
        Ok(())
    })
}

fn the_taint_goes_after_a_probe_through_the_data_plane() -> Result<()> {
    let bench = Bench::new()?;
    let node = || bench.api.get("/api/v1/nodes/n1").unwrap()["spec"]["taints"].as_array().unwrap().len();
    block_on(async {
        let taint = json!([{ "key": "weftmesh.io/agent-not-ready", "effect": "NoSchedule" }]);
        bench.api.put("/api/v1/nodes", json!({ "metadata": { "name": "n1" }, "spec": { "taints": taint } }));
        std::fs::remove_file(bench.path("net.d/10-net.conflist"))?;
        let running = bench.start(&[]);
        running.says("/readyz", "the primary CNI plugin isn't installed yet").await?;
        running.says("/readyz", "no node proxy is connected").await?;
        std::fs::write(bench.path("net.d/10-net.conflist"), NETWORK)?;

        // One that takes pods and serves none.
        let deaf = FakeProxy::connect(&bench.path("run/proxy.sock"), None).await?;
        running.says("/readyz", "longer than 5s").await?;
        ensure!(node() == 1, "the taint is there while the probe fails");
        drop(deaf);
        let broken = FakeProxy::connect(&bench.path("run/proxy.sock"), Some("out of descriptors")).await?;
        running.says("/readyz", "out of descriptors").await?;
        drop(broken);

        let mut proxy = bench.proxy().await?;
        running.says("/readyz", "200 OK").await?;
        soon("the taint goes", async {
            while node() == 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        proxy.until("nothing is left of the probe", |pods| pods.is_empty()).await?;
        ensure!(bench.chain() == ["ptp", "weft-cni"]);
        drop(proxy);
        running.says("/readyz", "no node proxy is connected").await
    })
}

fn the_mesh_leaves_the_node() -> Result<()> {
    let bench = Bench::new()?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    let rules_before = a.exec("ip rule")?;
    block_on(async {
        let _process = bench.process(&a, UID)?;
        bench.object(&a, UID);
        bench.namespace("shop", "enabled");
        let running = bench.start(&[]);
        let mut proxy = bench.proxy().await?;
        until_rules(&a, true).await?;
        bench.plugin("ADD", "second", &b, "uid-b").await.err().context("the cluster doesn't know b yet")?;
        bench.object(&b, "uid-b");
        bench.plugin("ADD", "second", &b, "uid-b").await?;
        running.says("/readyz", "200 OK").await?;

        let selector = json!({ "matchLabels": { "app": "agent" } });
        let set = json!({ "metadata": { "name": "weft-agent" }, "spec": { "selector": selector, "template": {} } });
        bench.api.put("/apis/apps/v1/namespaces/weft-system/daemonsets", set);
        let agent = json!({
            "metadata": { "name": "weft-agent-x", "labels": { "app": "agent" } },
            "spec": { "nodeName": "n1", "hostNetwork": true, "containers": [] },
        });
        bench.api.put("/api/v1/namespaces/weft-system/pods", agent);
        let namespace = "weft-system".into();
        let hook = leave::uninstall(bench.api.client(), &namespace, "weft-agent", SOON);
        soon("the hook", hook).await?;
        for pod in [&a, &b] {
            ensure!(ruleset(pod)?.is_empty(), "{}", ruleset(pod)?);
        }
        ensure!(a.exec("ip rule")? == rules_before);
        ensure!(bench.chain() == ["ptp"] && !bench.path("bin/weft-cni").exists());
        proxy.until("the proxy lets go", |pods| pods.is_empty()).await?;
        ensure!(bench.api.get(&format!("{MAPS}/weft-uninstall")).is_none());

        // Helm takes a while to delete the agents. What happens meanwhile brings nothing back.
        std::fs::write(bench.path("net.d/10-net.conflist"), NETWORK)?;
        bench.namespace("shop", "");
        bench.namespace("shop", "enabled");
        running.says("/readyz", "being removed").await?;
        tokio::time::sleep(support::A_WHILE).await;
        ensure!(bench.chain() == ["ptp"] && ruleset(&a)?.is_empty());
        let server = app(&sys(&a)?, a.addr(8080))?;
        dial(&sys(&b)?, a.addr(8080)).await.context("in the clear")?;
        soon("in the clear", server.accept()).await.map(drop)
    })
}

fn an_agent_that_starts_while_the_mesh_leaves_installs_nothing() -> Result<()> {
    let bench = Bench::new()?;
    block_on(async {
        bench.api.put(MAPS, json!({ "metadata": { "name": "weft-uninstall" } }));
        let _running = bench.start(&[]);
        soon("it says so", async {
            while bench.api.get(&format!("{MAPS}/weft-uninstall")).unwrap()["data"]["n1"] != "done" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        ensure!(bench.chain() == ["ptp"] && !bench.path("bin/weft-cni").exists());
        Ok(())
    })
}

/// A pod is enrolled; then its agent ends, and the API server answers nobody any more.
async fn enrolled_and_then_alone(bench: &Bench, pod: &Pod) -> Result<()> {
    bench.namespace("shop", "enabled");
    bench.object(pod, UID);
    let running = bench.start(&[]);
    let proxy = bench.proxy().await?;
    bench.plugin("ADD", "first", pod, UID).await?;
    running.says("/readyz", "200 OK").await?;
    running.stop(bench).await?;
    drop(proxy);
    bench.api.answer(|_| Some(Reply::error(500, "InternalError")));
    bench.api.disconnect(true);
    Ok(())
}

fn without_an_api_server_what_is_known_stays() -> Result<()> {
    let bench = Bench::new()?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        enrolled_and_then_alone(&bench, &a).await?;
        let file = bench.path("run/enrolment.json");
        let before = std::fs::read_to_string(&file)?;
        let running = bench.start(&[]);
        let mut proxy = bench.proxy().await?;
        proxy.until("the pod is served", |pods| pods.contains_key("first")).await?;
        until_rules(&a, true).await?;
        running.says("/readyz", "haven't been read from the API server").await?;
        ensure!(std::fs::read_to_string(&file)? == before, "what the plugin may pass is not forgotten");
        let text = bench.plugin("ADD", "second", &b, "uid-b").await.err().context("b may be enrolled")?.to_string();
        ensure!(text.contains("API server"), "{text}");
        Ok(())
    })
}

fn what_is_remembered_takes_no_running_pod_out() -> Result<()> {
    let bench = Bench::new()?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        enrolled_and_then_alone(&bench, &a).await?;
        // As it was before the namespace got its label: a node's disk that was full, or put back.
        std::fs::write(bench.path("run/enrolment.json"), r#"{"version":1,"namespacesOutside":["shop"]}"#)?;
        let _running = bench.start(&[]);
        let mut proxy = bench.proxy().await?;
        proxy.until("the pod is served", |pods| pods.contains_key("first")).await?;
        bench.plugin("ADD", "second", &b, "uid-b").await.context("as without an agent")?;
        ensure!(ruleset(&a)?.contains("redirect to :15001"), "it runs, and stays what it was");
        ensure!(ruleset(&b)?.is_empty() && !proxy.held().contains(&"second".to_owned()), "{:?}", proxy.held());
        Ok(())
    })
}

fn where_the_nodes_traffic_comes_from() -> Result<()> {
    let world = World::two_nodes()?;
    let (near, far) = (world.pod("a"), world.pod("c"));
    let node = world.node("n1");
    block_on(async {
        let home = sys(node)?;
        let bridge = node.exec("ip -o addr show dev pods scope global")?;
        let found = sources_towards(&home, &near.ips()).await?;
        ensure!(found.len() == 2 && found.iter().all(|ip| bridge.contains(&format!("{ip}/"))), "{found:?}: {bridge}");
        let found = sources_towards(&home, &far.ips()).await?;
        ensure!(found == [std::net::IpAddr::from(node.ipv4()), node.ipv6().into()], "{found:?}");
        let found = sources_towards(&home, &[near.ipv4().into(), "203.0.113.1".parse()?]).await?;
        ensure!(found.len() == 1, "one that has no route adds none: {found:?}");
        let error = sources_towards(&home, &["203.0.113.1".parse()?]).await.err().context("no route")?;
        ensure!(error.to_string().contains("203.0.113.1"), "{error}");
        Ok(())
    })
}
