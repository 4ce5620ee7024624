//! The real programs, with the tokens that pods of theirs would have.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use weft_control::TokenSource;
use weft_kube::kube;
use weft_kube::kube::api::PostParams;

use crate::api::Api;
use crate::edge::Gateway;
use crate::objects::{CONFIG_MAP, MESH, node_name};

/// Ports of the controller and the authority.
pub const XDS: u16 = 15010;
const XDS_ADDRESS: &str = "127.0.0.1:15010";
const XDS_HEALTH: &str = "127.0.0.1:15014";
const CA: &str = "127.0.0.1:15012";
const CA_HEALTH: &str = "127.0.0.1:15017";
const PROXY_ADMIN: &str = "127.0.0.1:15000";
/// How long tokens are good, seconds.
const GOOD: i64 = 7200;
/// How long a program may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// All that is needed to start them.
pub struct Programs {
    binaries: PathBuf,
    folder: PathBuf,
    tokens: Vec<String>,
    _authority: Running,
}

/// A program that runs.
pub struct Running {
    child: Child,
    health: &'static str,
}

impl Programs {
    /// Tokens for everybody, the authority, and the file with its roots.
    pub async fn prepare(api: &Api, binaries: &Path, folder: &Path, nodes: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text);
        write("controller.token", &token(api, (MESH, "weft-controller"), "weft-controller-0").await?)?;
        let mut tokens = Vec::new();
        for node in 0..nodes {
            tokens.push(token(api, (MESH, "weft-node-proxy"), &format!("weft-node-proxy-{node}")).await?);
        }
        write("proxy.token", &tokens[0])?;
        let mut command = Command::new(binaries.join("weft-ca"));
        command.args(["serve", "--kubernetes", "--namespace", MESH, "--replica", "weft-ca-0"]);
        command.args(["--listen", CA, "--health", CA_HEALTH]);
        let authority = Running::start(command, folder, CA_HEALTH)?;
        authority.ready(PATIENCE).await.context("weft-ca")?;
        write("root.pem", &roots(api).await?)?;
        Ok(Self { binaries: binaries.to_owned(), folder: folder.to_owned(), tokens, _authority: authority })
    }

    /// A new controller.
    pub async fn controller(&self) -> anyhow::Result<Running> {
        self.controller_with(&[])
    }

    /// A new controller that has Gateways, too. Nothing runs the pods that it makes for them.
    pub fn gateway_controller(&self) -> anyhow::Result<Running> {
        self.controller_with(&["--gateway-image", "localhost/weft-node-proxy:0.1.0"])
    }

    fn controller_with(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        let mut command = Command::new(self.binaries.join("weft-controller"));
        command.args(arguments);
        // As the chart sets it.
        command.env("MIMALLOC_PURGE_DELAY", "0").env("MIMALLOC_ALLOW_THP", "0");
        command.args(["--namespace", MESH, "--pod-name", "weft-controller-0", "--listen", XDS_ADDRESS]);
        command.args(["--health", XDS_HEALTH, "--ca", CA, "--log", "warn"]);
        command.arg("--token-file").arg(self.folder.join("controller.token"));
        command.arg("--trust-bundle").arg(self.folder.join("root.pem"));
        Running::start(command, &self.folder, XDS_HEALTH)
    }

    /// A new node proxy that has taken everything.
    pub async fn proxy(&self) -> anyhow::Result<Running> {
        let file = |name: &str| self.folder.join(name);
        // Each starts from nothing, as on a new node.
        let _ = std::fs::remove_file(file("saved"));
        let mut command = Command::new(self.binaries.join("weft-node-proxy"));
        // As the chart sets it.
        command.env("MIMALLOC_ALLOW_THP", "0");
        command.args(["--node", &node_name(0), "--control", XDS_ADDRESS, "--ca", CA, "--admin", PROXY_ADMIN]);
        command.args(["--log", "warn", "--workers", "2"]);
        for (option, name) in [
            ("--agent-socket", "agent.sock"),
            ("--handover-socket", "handover.sock"),
            ("--saved-config", "saved"),
            ("--token-file", "proxy.token"),
            ("--trust-bundle", "root.pem"),
        ] {
            command.arg(option).arg(file(name));
        }
        let running = Running::start(command, &self.folder, PROXY_ADMIN)?;
        // There is no agent, so it never gets ready; but it says what it waits for.
        let began = Instant::now();
        while !matches!(page(PROXY_ADMIN, "/readyz").await, Ok((503, text)) if !text.contains("configuration")) {
            ensure!(began.elapsed() < PATIENCE, "the node proxy got no configuration");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(running)
    }

    /// The process of a Gateway, ready. Its ServiceAccount has to be there, and is as soon as the controller leads.
    pub async fn gateway(&self, api: &Api, gateway: Gateway) -> anyhow::Result<Running> {
        let (account, pod) = (gateway.account(), gateway.pod());
        gateway.own_pod(api).await?;
        let file = |name: &str| self.folder.join(format!("{}.{name}", gateway.name));
        std::fs::write(file("token"), token(api, (gateway.namespace, &account), &pod).await?)?;
        std::fs::copy(self.folder.join("root.pem"), file("root"))?;
        let mut command = Command::new(self.binaries.join("weft-node-proxy"));
        // As the controller sets it in the pods of Gateways.
        command.env("MIMALLOC_ALLOW_THP", "0");
        command.args(["gateway", "--gateway", &gateway.key(), "--service-account", &account, "--pod", &pod]);
        command.args(["--node", &node_name(0), "--control", XDS_ADDRESS, "--ca", CA, "--admin", PROXY_ADMIN]);
        command.args(["--log", "warn", "--workers", "2"]);
        command.arg("--token-file").arg(file("token")).arg("--trust-bundle").arg(file("root"));
        let running = Running::start(command, &self.folder, PROXY_ADMIN)?;
        running.ready(PATIENCE).await.context("the gateway process")?;
        Ok(running)
    }

    /// The token of a node's proxy.
    pub fn token(&self, node: usize) -> TokenSource {
        let token = self.tokens[node].clone();
        Arc::new(move || Ok(token.clone()))
    }

    /// The mesh's roots.
    pub fn roots(&self) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.folder.join("root.pem"))?)
    }
}

impl Running {
    fn start(mut command: Command, folder: &Path, health: &'static str) -> anyhow::Result<Self> {
        let program = PathBuf::from(command.as_std().get_program());
        let name = program.file_name().context("a program")?.to_string_lossy().into_owned();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| program.display().to_string())?;
        Ok(Self { child, health })
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Waits until it is ready.
    pub async fn ready(&self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let said = match page(self.health, "/readyz").await {
                Ok((200, _)) => return Ok(()),
                Ok((_, text)) => text,
                Err(error) => error.to_string(),
            };
            ensure!(began.elapsed() < patience, "not ready: {}", said.trim());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many time series a scraper gets of it.
    pub async fn series(&self) -> anyhow::Result<usize> {
        let (code, text) = page(self.health, "/metrics").await?;
        ensure!(code == 200, "metrics: {code}");
        Ok(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count())
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (code, text) = page(self.health, "/metrics").await?;
        ensure!(code == 200, "metrics: {code}");
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        let found: Vec<f64> = text.lines().filter_map(of).collect();
        if found.is_empty() { bail!("no metric {name}") } else { Ok(found.iter().sum()) }
    }

    /// Tells it to end and waits for that.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let id = nix::unistd::Pid::from_raw(self.id().try_into()?);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// The roots that the authority publishes, a moment after it is ready.
async fn roots(api: &Api) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        let map = api.get(CONFIG_MAP, MESH, "weft-trust").await?;
        if let Some(pem) = map.and_then(|map| Some(map["data"]["root.pem"].as_str()?.to_owned())) {
            return Ok(pem);
        }
        ensure!(began.elapsed() < PATIENCE, "the authority published no roots");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A token of an account, bound to a pod of it, for the mesh.
async fn token(api: &Api, (namespace, account): (&str, &str), name: &str) -> anyhow::Result<String> {
    let pod = kube::Api::<Pod>::namespaced(api.client.clone(), namespace).get(name).await?;
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(name.to_owned()),
        uid: pod.metadata.uid,
    };
    let spec = TokenRequestSpec {
        audiences: vec!["weft".into()],
        bound_object_ref: Some(bound),
        expiration_seconds: Some(GOOD),
    };
    let accounts = kube::Api::<ServiceAccount>::namespaced(api.client.clone(), namespace);
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(made.status.context("no token in the answer")?.token)
}

/// A page: its code and text.
async fn page(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no code")?;
    Ok((code, body.to_owned()))
}
