//! A node with two pods, an agent's files, the plugin's binary, and who decides which pods are enrolled.

use super::*;

/// Decides by namespace; a namespace it doesn't know is undecided.
pub struct Source {
    pub namespaces: Mutex<BTreeMap<Namespace, bool>>,
    pub older_flows: Mutex<OlderFlows>,
    /// Namespaces that take no plaintext.
    pub strict: Mutex<BTreeSet<Namespace>>,
    pub presumed: Mutex<BTreeSet<Namespace>>,
    pub version: watch::Sender<u64>,
}

impl Source {
    pub fn new(namespaces: &[(&str, bool)]) -> Arc<Self> {
        let namespaces = namespaces.iter().map(|(name, enrolled)| ((*name).into(), *enrolled)).collect();
        Arc::new(Self {
            namespaces: Mutex::new(namespaces),
            older_flows: Mutex::default(),
            strict: Mutex::default(),
            presumed: Mutex::default(),
            version: watch::Sender::new(0),
        })
    }

    pub fn set(&self, namespace: &str, enrolled: bool) {
        self.namespaces.lock().unwrap().insert(namespace.into(), enrolled);
        self.version.send_modify(|v| *v += 1);
    }

    /// From now on a policy is strict.
    pub fn close_older_flows(&self) {
        *self.older_flows.lock().unwrap() = OlderFlows::Close;
        self.version.send_modify(|v| *v += 1);
    }

    /// Loses all data but what an agent before knew of a namespace.
    pub fn lose_all_but(&self, outside: &str) {
        self.namespaces.lock().unwrap().clear();
        self.presumed.lock().unwrap().insert(outside.into());
        self.version.send_modify(|v| *v += 1);
    }
}

impl EnrolmentSource for Source {
    fn decide<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Decision, Undecided>> {
        let known = self.namespaces.lock().unwrap().get(&pod.namespace).copied();
        let decision = match known {
            Some(true) => {
                let older_flows = *self.older_flows.lock().unwrap();
                Ok(Decision::Enrolled(Enrolled {
                    service_account: "cart".into(),
                    older_flows,
                    strict: Some(self.strict.lock().unwrap().contains(&pod.namespace)),
                }))
            }
            Some(false) => Ok(Decision::Outside(Outside::NotLabelled)),
            None => Err(Undecided::UnknownPod(pod.clone())),
        };
        std::future::ready(decision).boxed()
    }

    fn presumed(&self, pod: &PodRef) -> Option<Outside> {
        self.presumed.lock().unwrap().contains(&pod.namespace).then_some(Outside::NotLabelled)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn namespaces_outside(&self) -> Vec<Namespace> {
        let namespaces = self.namespaces.lock().unwrap();
        namespaces.iter().filter(|(_, enrolled)| !**enrolled).map(|(name, _)| name.clone()).collect()
    }
}

/// A node with two pods, an agent's files, and a source.
pub struct Bench {
    pub world: World,
    pub dir: tempfile::TempDir,
    pub source: Arc<Source>,
}

/// An agent at work, until dropped.
pub struct Running {
    pub agent: Arc<Agent>,
    pub task: tokio::task::AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub async fn until(&self, what: &str, condition: impl Fn(&[LocalPod]) -> bool) -> Result<Arc<[LocalPod]>> {
        let mut pods = self.agent.pods();
        let seen = soon(what, pods.wait_for(|pods| condition(pods))).await;
        let seen = seen.with_context(|| format!("{:?}", self.agent.pods().borrow()))?;
        Ok(seen.clone())
    }

    pub async fn protected(&self, count: usize) -> Result<()> {
        self.until("protected pods", |pods| Counts::of(pods).protected == count).await.map(drop)
    }

    /// Stops it and waits until its sockets are free.
    pub async fn stop(self, bench: &Bench) -> Result<()> {
        self.task.abort();
        let path = bench.proxy_socket();
        soon("the agent stops", async {
            while path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        })
        .await
    }
}

/// What the plugin answered.
pub struct Answer {
    pub status: Option<i32>,
    pub json: Value,
}

impl Answer {
    pub fn code(&self) -> Option<u64> {
        self.json.get("code").and_then(Value::as_u64)
    }

    pub fn ok(&self) -> Result<&Value> {
        ensure!(self.status == Some(0), "{:?} {}", self.status, self.json);
        Ok(&self.json)
    }

    /// A failure with this code; its text.
    pub fn failed(&self, code: u64) -> Result<String> {
        ensure!(self.status == Some(1) && self.code() == Some(code), "{:?} {}", self.status, self.json);
        Ok(format!("{} | {}", self.json["msg"], self.json["details"]))
    }
}

impl Bench {
    pub fn new(namespaces: &[(&str, bool)]) -> Result<Self> {
        let world = World::builder().node("n").pod("n", "a").pod("n", "b").build()?;
        Ok(Self { world, dir: tempfile::tempdir()?, source: Source::new(namespaces) })
    }

    pub fn proxy_socket(&self) -> PathBuf {
        self.dir.path().join("proxy.sock")
    }

    pub async fn agent(&self) -> Result<Running> {
        self.agent_verifying(Duration::from_millis(300)).await
    }

    pub async fn agent_verifying(&self, every: Duration) -> Result<Running> {
        let mut options = AgentOptions::new("n".into(), self.dir.path().join("state")).in_directory(self.dir.path());
        options.ack_deadline = Duration::from_millis(500);
        options.verify_every = every;
        let agent = Agent::open(options, self.source.clone())?;
        let task = tokio::spawn(agent.clone().run()).abort_handle();
        let socket = self.dir.path().join("agent.sock");
        soon("the agent listens", async {
            while weft_sys::SeqPacket::connect(&socket).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        Ok(Running { agent, task })
    }

    pub fn result(pod: &Pod) -> Value {
        json!({
            "cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": pod.path()}], "dns": {}, "more": [1.5],
            "ips": [{"address": format!("{}/24", pod.ipv4())}, {"address": format!("{}/64", pod.ipv6())}],
        })
    }

    /// Calls the plugin's binary for a pod, which is named after its namespace in the world.
    pub async fn plugin(&self, command: &str, namespace: &str, pod: &Pod) -> Result<Answer> {
        self.call(command, namespace, pod, json!({ "prevResult": Self::result(pod) })).await
    }

    pub async fn call(&self, command: &str, namespace: &str, pod: &Netns, more: Value) -> Result<Answer> {
        let path = |name: &str| self.dir.path().join(name);
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "weft-cni", "agentSocket": path("agent.sock"),
            "enrolmentFile": path("enrolment.json"), "missedDir": path("missed"),
        });
        for (key, value) in more.as_object().context("an object")? {
            config[key] = value.clone();
        }
        let mut plugin = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft-cni"));
        plugin.env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", pod.name()).env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", pod.path());
        plugin.env("CNI_ARGS", format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={};K8S_POD_UID=u", pod.name()));
        let mut child = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(config.to_string().as_bytes()).await?;
        let out = tokio::time::timeout(SOON, child.wait_with_output()).await.context("the plugin hangs")??;
        let json = if out.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&out.stdout)? };
        Ok(Answer { status: out.status.code(), json })
    }
}
