//! A real Kubernetes with Weft on it, driven by kubectl.
//!
//! Which one: `WEFT_CLUSTER` names the folder of a test cluster of `tests/cluster`; else `KUBECONFIG` says.

mod answers;
mod apps;
mod load;
mod namespace;
mod process;
mod usage;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::mesh::Programs;

pub use answers::{Answer, Answers};
pub use apps::{ECHO_IMAGE, Echo, LOAD_IMAGE, STRICT, echo_service, served};
pub use load::{Load, Mix, Outcome, SECRET, failures};
pub use namespace::TestNamespace;
pub use process::Process;
pub use usage::{Quantity, Samples};

/// How long anything may take that isn't given a time of its own.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The namespace of the mesh's own parts.
pub const SYSTEM: &str = "weft-system";

/// Two enrolled echo workloads in Strict, `client` on one node and `server` on another.
///
/// # Errors
/// When they don't come up.
pub fn strict_pair(name: &str) -> Result<TestNamespace> {
    let ns = Cluster::open()?.namespace(name, true)?;
    ns.apply(&echo_service("server"))?;
    ns.apply(STRICT)?;
    ns.run(&[Echo::new("server").on("node2"), Echo::new("client").on("node1")])?;
    Ok(ns)
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The folder of a cluster of `tests/cluster`; none for one that somebody else runs.
    dir: Option<PathBuf>,
}

impl Cluster {
    /// The cluster that the environment names.
    ///
    /// # Errors
    /// When it names none, or that one doesn't answer.
    pub fn open() -> Result<Self> {
        let dir = std::env::var_os("WEFT_CLUSTER").map(PathBuf::from);
        ensure!(
            dir.is_some() || std::env::var_os("KUBECONFIG").is_some(),
            "no cluster: run `make cluster-up` and set WEFT_CLUSTER to the folder it prints, or set KUBECONFIG"
        );
        let cluster = Self { dir };
        cluster.k(&["get", "--raw", "/readyz"]).context("the cluster doesn't answer")?;
        Ok(cluster)
    }

    /// Whether commands can be run on its nodes.
    pub fn has_nodes(&self) -> bool {
        self.dir.is_some()
    }

    fn kubectl(&self) -> Command {
        match &self.dir {
            Some(dir) => Command::new(dir.join("k")),
            None => Command::new("kubectl"),
        }
    }

    /// The network from which pods of a test cluster can be reached; none for a cluster that somebody else runs.
    pub fn network(&self) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/run/netns/{}-cp", self.name()?)))
    }

    /// The name of a test cluster.
    fn name(&self) -> Option<&str> {
        self.dir.as_ref()?.file_name()?.to_str()?.strip_prefix("weft-cluster-")
    }

    /// A command in the network from which pods of a test cluster can be reached, with its `KUBECONFIG`; none for a cluster
    /// that somebody else runs.
    pub fn beside(&self, command: &[&str]) -> Option<Command> {
        let mut built = Command::new(self.dir.as_ref()?.join("in-cp"));
        built.args(command);
        Some(built)
    }

    /// A command on a node: its mounts, network and host name.
    pub fn on_node(&self, node: &str, command: &[&str]) -> Command {
        let dir = self.dir.clone().unwrap_or_default();
        let mut built = Command::new(dir.join(format!("in-{node}")));
        built.args(command);
        built
    }

    /// What `node1` and `node2` of the tests are called here: on a cluster of somebody else its first two nodes that take
    /// any pod, or the only one.
    fn node(&self, name: &str) -> Result<String> {
        if self.has_nodes() {
            return Ok(name.to_owned());
        }
        let nodes = self.json(&["nodes"])?;
        let is_free = |node: &&Value| {
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            taints.into_iter().all(|taint| taint["effect"] != "NoSchedule" && taint["effect"] != "NoExecute")
        };
        let free = nodes["items"].as_array().into_iter().flatten().filter(is_free);
        let mut names: Vec<_> =
            free.filter_map(|node| node["metadata"]["labels"]["kubernetes.io/hostname"].as_str()).collect();
        names.sort_unstable();
        let number = usize::from(name != "node1");
        let found = names.get(number).or(names.first()).context("no node takes any pod")?;
        Ok((*found).to_owned())
    }

    /// Kills a part of a test cluster, such as `apiserver`, and starts it again.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn restart(&self, component: &str) -> Result<()> {
        self.script("restart.sh", &[component])
    }

    /// Pulls a node's plug and starts it again.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn reboot(&self, node: &str) -> Result<()> {
        self.script("reboot.sh", &[node])
    }

    fn script(&self, script: &str, arguments: &[&str]) -> Result<()> {
        let name = self.name().context("not a cluster of ours")?;
        let program = repository().join("tests/cluster").join(script);
        let mut command = Command::new(program);
        let status = command.arg(name).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{script} {name} {arguments:?}: {status}");
        Ok(())
    }

    /// Helm, in the repository's root.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = match &self.dir {
            Some(dir) => Command::new(dir.join("in-cp")),
            None => Command::new("env"),
        };
        let output =
            command.arg("helm").args(args).current_dir(repository()).stdin(Stdio::null()).output().context("helm")?;
        said(&format!("helm {}", args.join(" ")), &output)
    }

    /// The `weft` command that was built with this test, on this cluster.
    ///
    /// # Errors
    /// When it wasn't built. Whatever it ends with is its output.
    pub fn weft(&self, args: &[&str]) -> Result<Output> {
        let program = Programs::find()?.directory().join("weft");
        let mut command = match &self.dir {
            Some(dir) => Command::new(dir.join("in-cp")),
            None => Command::new("env"),
        };
        command.arg(program).args(args).stdin(Stdio::null()).output().context("weft")
    }

    /// kubectl.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn k(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl().args(args).stdin(Stdio::null()).output().context("kubectl")?;
        said(&format!("kubectl {}", args.join(" ")), &output)
    }

    /// kubectl that is expected to be refused: what it said.
    ///
    /// # Errors
    /// When it goes through.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        match self.k(args) {
            Ok(said) => bail!("kubectl {} was not refused: {said}", args.join(" ")),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// An object, or a list, as JSON.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.k(&[&["get", "-o", "json"], args].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        use std::io::Write as _;
        let mut child = self
            .kubectl()
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no input")?.write_all(manifests.as_bytes())?;
        said("kubectl apply", &child.wait_with_output()?).with_context(|| manifests.to_owned())?;
        Ok(())
    }

    /// A fresh namespace, which goes with the value.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn namespace(&self, name: &str, enrolled: bool) -> Result<TestNamespace> {
        // What a test that was stopped left behind.
        self.k(&["delete", "namespace", name, "--ignore-not-found", "--timeout=60s"])?;
        self.k(&["create", "namespace", name])?;
        if enrolled {
            self.k(&["label", "namespace", name, "weftmesh.io/mesh=enabled"])?;
        }
        Ok(TestNamespace { cluster: self.clone(), name: name.to_owned() })
    }

    /// Runs a command in a pod, or in the first pod of `deploy/NAME`. Its output is given whether it succeeds or not.
    ///
    /// # Errors
    /// When kubectl can't be started.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<Output> {
        let args = [&["-n", namespace, "exec", pod, "--"], command].concat();
        self.kubectl().args(args).stdin(Stdio::null()).output().context("kubectl exec")
    }

    /// The status of a condition that our controller wrote on a route or policy, with its reason and message.
    ///
    /// # Errors
    /// When kubectl fails or nobody wrote it.
    pub fn condition(&self, namespace: &str, object: &str, kind: &str) -> Result<(String, String, String)> {
        let object = self.json(&["-n", namespace, object])?;
        let status = &object["status"];
        let lists = [&status["parents"], &status["ancestors"]];
        let entries = lists.iter().filter_map(|l| l.as_array()).flatten();
        let conditions = entries.filter_map(|e| e["conditions"].as_array()).flatten();
        let found = conditions.into_iter().find(|c| c["type"] == kind);
        let found = found.with_context(|| format!("no condition {kind} in {status}"))?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("reason"), text("message")))
    }

    /// Waits until a route or policy is accepted.
    ///
    /// # Errors
    /// When it isn't, in time.
    pub fn wait_accepted(&self, namespace: &str, object: &str) -> Result<()> {
        eventually(&format!("{object} to be accepted"), PATIENCE, || {
            let (status, reason, message) = self.condition(namespace, object, "Accepted")?;
            ensure!(status == "True", "{reason}: {message}");
            Ok(())
        })
    }

    /// The pod of a part of the mesh on a node.
    ///
    /// # Errors
    /// When it has none there.
    pub fn part(&self, part: &str, node: &str) -> Result<String> {
        let (label, node) = (format!("app.kubernetes.io/name={part}"), format!("spec.nodeName={}", self.node(node)?));
        let pods = self.json(&["-n", SYSTEM, "pods", "-l", &label, "--field-selector", &node])?;
        let live =
            pods["items"].as_array().into_iter().flatten().find(|p| p["metadata"]["deletionTimestamp"].is_null());
        let name = live.and_then(|pod| pod["metadata"]["name"].as_str());
        name.map(str::to_owned).with_context(|| format!("no {part} with {node}"))
    }

    /// What a node's proxy counts, in the text format.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn proxy_metrics(&self, node: &str) -> Result<String> {
        self.metrics(SYSTEM, &self.part("weft-node-proxy", node)?, 15021)
    }

    /// What a pod counts, in the text format, at a port of it.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn metrics(&self, namespace: &str, pod: &str, port: u16) -> Result<String> {
        self.k(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics")])
    }

    /// Whether no container of a part of the mesh was ever started again.
    ///
    /// # Errors
    /// With the pod in which one was.
    pub fn never_restarted(&self, part: &str) -> Result<()> {
        let pods = self.json(&["-n", SYSTEM, "pods", "-l", &format!("app.kubernetes.io/name={part}")])?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let count = &pod["status"]["containerStatuses"][0]["restartCount"];
            ensure!(*count == 0, "{} was started again {count} times", pod["metadata"]["name"]);
        }
        Ok(())
    }

    /// Waits for the rollout of a workload, such as `deploy/echo`.
    ///
    /// # Errors
    /// When it doesn't come up; with what its pods say.
    pub fn wait_rollout(&self, namespace: &str, workload: &str) -> Result<()> {
        self.k(&["-n", namespace, "rollout", "status", workload, "--timeout=120s"])
            .map(drop)
            .with_context(|| self.k(&["-n", namespace, "describe", "pods"]).unwrap_or_default())
    }
}

/// Tries until it succeeds.
///
/// # Errors
/// The last one, when time is up.
pub fn eventually<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if started.elapsed() > patience => {
                return Err(error.context(format!("waited {} s for {what}", patience.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Where charts, documents and scripts are.
pub fn repository() -> &'static std::path::Path {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn said(what: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{what}: {}{text}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}
