//! A mesh of two nodes without Kubernetes, as people run it: the `weft` and `weft-cni` programs, manifests in a
//! directory, a CNI chain on each node.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_testkit::process::Process;
use weft_testkit::{Attachment, CniChain, World};

use crate::PATIENCE;
use crate::pods::{PodManifest, RunningPod, ips, pod_manifests};
use crate::setup::{Invitation, Setup};

/// The primary's node, and the one that joins.
pub const NODES: [&str; 2] = ["node-a", "node-b"];

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    weft: PathBuf,
    plugin: PathBuf,
}

impl Programs {
    /// Those that were built with this one.
    ///
    /// # Errors
    /// When they weren't.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe()?;
        let built = |dir: &&Path| dir.join("weft").is_file() && dir.join("weft-cni").is_file();
        let dir = own.ancestors().skip(1).take(2).find(built);
        let dir =
            dir.context("weft and weft-cni aren't built: cargo build --bins, or run all tests of the workspace")?;
        Ok(Self { weft: dir.join("weft"), plugin: dir.join("weft-cni") })
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        self.weft.parent().unwrap_or(Path::new("."))
    }

    /// The `weft` command.
    pub fn weft(&self) -> Command {
        Command::new(&self.weft)
    }
}

/// One node of the mesh.
#[derive(Debug)]
pub struct MeshNode {
    /// `weft standalone`.
    pub process: Process,
    /// Its directory of sockets.
    pub run: PathBuf,
    /// Its state.
    pub state: PathBuf,
    chain: CniChain,
    arguments: Vec<OsString>,
}

/// The mesh. Dropping it ends everything.
#[derive(Debug)]
pub struct Mesh {
    // In the order in which they go.
    pods: BTreeMap<String, RunningPod>,
    nodes: BTreeMap<&'static str, MeshNode>,
    /// The network below.
    pub world: World,
    /// The programs.
    pub programs: Programs,
    manifests: PathBuf,
    folder: tempfile::TempDir,
}

impl Mesh {
    /// Two nodes on a copy of the manifests, without pods yet.
    ///
    /// # Errors
    /// When something doesn't come up; with its log.
    pub fn start(manifests: &Path, setup: Setup<'_>) -> Result<Self> {
        let programs = Programs::find()?;
        let machines = NODES.iter().chain(setup.machines);
        let world = machines.fold(World::builder(), |builder, name| builder.node(name)).build()?;
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join("manifests");
        std::fs::create_dir(&copy)?;
        for entry in std::fs::read_dir(manifests).with_context(|| manifests.display().to_string())? {
            let path = entry?.path();
            if path.is_file() {
                std::fs::copy(&path, copy.join(path.file_name().unwrap_or_default()))?;
            }
        }
        let (nodes, pods) = (BTreeMap::new(), BTreeMap::new());
        let mut mesh = Self { pods, nodes, world, programs, manifests: copy, folder };
        mesh.start_node(NODES[0], setup.primary, setup.proxy)?;
        let Invitation { primary, token, root_hash } = mesh.invite()?;
        let join = ["--join", &primary, "--token", &token, "--root-hash", &root_hash];
        mesh.start_node(NODES[1], &join, setup.proxy)?;
        Ok(mesh)
    }

    /// What another node needs to join.
    ///
    /// # Errors
    /// When the primary makes no token.
    pub fn invite(&self) -> Result<Invitation> {
        let token = self.weft(&["token", "--state"], &self.node(NODES[0]).state)?.trim().to_owned();
        let root_hash = self.status(NODES[0])?["roots"][0].as_str().context("no root")?.to_owned();
        Ok(Invitation { primary: format!("{}:15012", self.world.node(NODES[0]).ipv4()), token, root_hash })
    }

    fn start_node(&mut self, name: &'static str, options: &[&str], proxy: &[&str]) -> Result<()> {
        let (state, run) = (self.folder.path().join(format!("state-{name}")), self.folder.path().join(name));
        let node = self.world.node(name);
        let mut command = self.programs.weft();
        command.arg("standalone").args(["--node", name]).arg("--state").arg(&state).arg("--run").arg(&run);
        if name == NODES[0] {
            command.arg("--dir").arg(&self.manifests).args(["--listen", "0.0.0.0:15012"]);
            command.args(["--pod-range", "10.244.0.0/16", "--pod-range", "fd00:10:244::/48"]);
        }
        let gateway = std::net::Ipv4Addr::from_bits(node.pod_range4().to_bits() + 1);
        command.args(options).args(["--dns", &format!("{gateway}:53"), "--"]).args(proxy);
        let arguments: Vec<_> = command.get_args().map(OsString::from).collect();
        let process = self.run_node(name, &arguments)?;
        let plugin = json!({
            "type": "weft-cni", "agentSocket": run.join("agent.sock"),
            "enrolmentFile": run.join("enrolment.json"), "missedDir": run.join("missed"),
        });
        let addresses = self.folder.path().join(format!("addresses-{name}"));
        let chain = CniChain::new("pods", "1.0.0").bridge(node, &addresses).plugin(&self.programs.plugin, plugin);
        self.nodes.insert(name, MeshNode { process, run, state, chain, arguments });
        Ok(())
    }

    fn run_node(&self, name: &str, arguments: &[OsString]) -> Result<Process> {
        let mut command = self.programs.weft();
        command.args(arguments);
        let mut process = Process::start(self.world.node(name), command)?;
        process.wait_until(PATIENCE, |log| log.contains("node started"))?;
        Ok(process)
    }

    /// Kills a node's process; its proxy stays.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill_node(&mut self, name: &str) -> Result<()> {
        let node = self.nodes.get_mut(name).with_context(|| format!("no node {name}"))?;
        node.process.signal(Signal::SIGKILL)?;
        node.process.wait(PATIENCE)?;
        Ok(())
    }

    /// Starts a node's process again.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn restart_node(&mut self, name: &str) -> Result<()> {
        let arguments = self.node(name).arguments.clone();
        let process = self.run_node(name, &arguments)?;
        let node = self.nodes.get_mut(name).with_context(|| format!("no node {name}"))?;
        node.process = process;
        Ok(())
    }

    /// Starts every pod of the manifests that is for one of the two nodes.
    ///
    /// # Errors
    /// When one can't be wired up or its server can't start.
    pub fn start_pods(&mut self) -> Result<()> {
        let mut pods = pod_manifests(&self.manifests)?;
        pods.retain(|pod| self.nodes.contains_key(&*pod.node));
        pods.into_iter().try_for_each(|pod| self.start_pod(pod))
    }

    /// Starts one pod.
    ///
    /// # Errors
    /// When it can't be wired up or its server can't start.
    pub fn start_pod(&mut self, manifest: PodManifest) -> Result<()> {
        let netns = self.world.netns(&manifest.name)?;
        let attachment = Attachment::new(&netns, &manifest.namespace, &manifest.name);
        let on = self.world.node(&manifest.node);
        let node = self.node(&manifest.node);
        let end = Instant::now() + PATIENCE;
        // A runtime takes a failed pod down and tries again.
        let result = loop {
            match node.chain.add(on, &attachment) {
                Ok(result) => break result,
                Err(error) if Instant::now() > end => {
                    bail!("pod {}: {error}\n{}", manifest.name, node.process.log()?)
                }
                Err(_) => node.chain.del(on, &attachment)?,
            }
        };
        let mut pod = RunningPod { ips: ips(&result)?, manifest, netns, attachment, server: None };
        pod.start()?;
        self.pods.insert(pod.manifest.name.clone(), pod);
        Ok(())
    }

    /// Takes a pod down.
    ///
    /// # Errors
    /// When the chain fails.
    pub fn stop_pod(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.remove(name).with_context(|| format!("no pod {name}"))?;
        let (on, node) = (self.world.node(&pod.manifest.node), self.node(&pod.manifest.node));
        Ok(node.chain.del(on, &pod.attachment)?)
    }

    /// A node.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn node(&self, name: &str) -> &MeshNode {
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// A pod.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn pod(&self, name: &str) -> &RunningPod {
        self.pods.get(name).unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &RunningPod> {
        self.pods.values()
    }

    /// The manifests, which may be edited.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// Replaces text in a manifest, which must be there.
    ///
    /// # Errors
    /// When it isn't, or the file can't be written.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.manifests.join(file);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} has no {from:?}");
        let new = self.folder.path().join("edited");
        std::fs::write(&new, text.replace(from, to))?;
        Ok(std::fs::rename(new, path)?)
    }

    /// What a `weft` command with a directory as its last argument prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn weft(&self, arguments: &[&str], directory: &Path) -> Result<String> {
        let output = self.programs.weft().args(arguments).arg(directory).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "weft {arguments:?}: {}\n{out}{err}", output.status);
        Ok(out.into_owned())
    }

    /// What `weft status` says of a node.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn status(&self, node: &str) -> Result<Value> {
        let output = self.programs.weft().args(["status", "-o", "json", "--run"]).arg(&self.node(node).run).output()?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).with_context(said)
    }

    /// Waits until `weft status` of a node is as wanted.
    ///
    /// # Errors
    /// When it isn't in time; with the last status and the node's log.
    pub fn wait_status(&self, node: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status(node)?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{node}: {what} not within {PATIENCE:?}: {status:#}\n{}", self.node(node).process.log()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every endpoint of every Service is ready in the configuration of both nodes.
    ///
    /// # Errors
    /// When they aren't in time.
    pub fn wait_endpoints(&self) -> Result<()> {
        let ready = |port: &Value| port["endpoints"] != 0 && port["ready"] == port["endpoints"];
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let all = |status: &Value| {
            let services = list(&status["services"]);
            !services.is_empty() && services.iter().flat_map(|s| list(&s["ports"])).all(|port| ready(&port))
        };
        NODES.iter().try_for_each(|node| self.wait_status(node, "every endpoint ready", all).map(drop))
    }

    /// The IPv4 address of a Service, `namespace/name`, with a port.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn service(&self, name: &str, port: u16) -> Result<SocketAddr> {
        let status = self.status(NODES[0])?;
        let services = status["services"].as_array().context("no services")?;
        let service = services.iter().find(|s| s["name"] == name).with_context(|| format!("no Service {name}"))?;
        let addresses = service["addresses"].as_array().context("no addresses")?;
        let mut ips = addresses.iter().filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
        let ip = ips.find(IpAddr::is_ipv4).with_context(|| format!("{name} has no IPv4 address"))?;
        Ok(SocketAddr::new(ip, port))
    }

    /// Gives the wire between the nodes an address, outside the mesh and its ranges, with a way back to the pods.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wire_address(&self) -> Result<IpAddr> {
        let mut lines = vec!["addr add 172.31.0.254/24 dev wire".to_owned()];
        for node in NODES.map(|name| self.world.node(name)) {
            lines.push(format!("route add {}/24 via {}", node.pod_range4(), node.ipv4()));
        }
        self.world.wire().ip(&lines)?;
        Ok(IpAddr::from([172, 31, 0, 254]))
    }

    /// Process ids of a node's proxies, the newest last.
    ///
    /// # Errors
    /// When the node doesn't answer.
    pub fn proxies(&self, node: &str) -> Result<Vec<i32>> {
        let status = self.status(node)?;
        let pids = status["proxies"]["pids"].as_array().context("no proxies")?.clone();
        pids.iter().map(|pid| Ok(i32::try_from(pid.as_i64().context("no pid")?)?)).collect()
    }

    /// Replaces a node's proxy and waits until the new one is the only one that is given connections.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn replace_proxy(&self, node: &str) -> Result<i32> {
        let before = self.proxies(node)?;
        self.node(node).process.signal(Signal::SIGHUP)?;
        let newest = |status: &Value| status["proxies"]["pids"].as_array().and_then(|pids| pids.last()?.as_i64());
        let old = before.last().copied().map(i64::from);
        let status = self.wait_status(node, "another proxy", |s| newest(s).is_some() && newest(s) != old)?;
        Ok(i32::try_from(newest(&status).context("no proxy")?)?)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let names: Vec<_> = self.pods.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.stop_pod(&name) {
                eprintln!("pod {name} is left to the namespaces' end: {error:#}");
            }
        }
        for node in self.nodes.values() {
            // It ends its proxies, too; killed it would leave them.
            let _gone_already = node.process.signal(Signal::SIGTERM);
        }
        for (name, node) in &mut self.nodes {
            if let Err(error) = node.process.wait(PATIENCE) {
                eprintln!("{name}: {error:#}");
            }
            if std::env::var_os("WEFT_SHOW_LOGS").is_some() {
                eprintln!("---- {name}\n{}", node.process.log().unwrap_or_default());
            }
        }
    }
}
