//! A CNI runtime in miniature: runs a chain of plugins the way containerd's libcni does (CNI specification 1.1.0, section 3).
//!
//! ADD goes through the chain in order and gives each plugin the result of the one before; the last result is kept. CHECK
//! goes in order, DEL in reverse, both with the kept result. Plugins run in the node's network namespace, the pod's is
//! named to them by path.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::netns::Netns;
use crate::world::{Node, Pod};

/// Where Debian's `containernetworking-plugins` are.
pub const DEBIAN_PLUGINS: &str = "/usr/lib/cni";

/// A network configuration: the plugins in order, and what they are called together.
#[derive(Debug)]
pub struct CniChain {
    name: String,
    version: String,
    plugins: Vec<(PathBuf, Value)>,
    results: Mutex<BTreeMap<(String, String), Value>>,
}

/// The interface of a pod that plugins are called about.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_NETNS`; none as after a reboot, when the namespace is gone before DEL.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`
    pub interface: String,
    /// Namespace and name of the pod, for `CNI_ARGS`.
    pub pod: (String, String),
    /// What the first plugin gets as the result of one before it, when the pod is wired already.
    pub wired: Option<Value>,
}

/// What a plugin said was wrong (section 5, "Error").
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct CniError {
    /// The code; 11 is "try again later". 0 when the plugin broke the protocol.
    pub code: u32,
    /// The short text.
    pub msg: String,
    /// The long one.
    pub details: String,
    /// Which plugin.
    #[serde(skip)]
    pub plugin: String,
}

impl Default for CniError {
    fn default() -> Self {
        Self { code: 0, msg: "no message".to_owned(), details: String::new(), plugin: String::new() }
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (code {}) {}", self.plugin, self.msg, self.code, self.details)
    }
}

impl std::error::Error for CniError {}

impl Attachment {
    /// `eth0` of a pod in a namespace of a world (or made by [`World::netns`](crate::World::netns)), not wired yet.
    pub fn new(netns: &Netns, pod_namespace: &str, pod_name: &str) -> Self {
        Self {
            container: format!("{}-{pod_name}", netns.name()),
            netns: Some(netns.path()),
            interface: "eth0".to_owned(),
            pod: (pod_namespace.to_owned(), pod_name.to_owned()),
            wired: None,
        }
    }

    /// `eth0` of a pod that the world has wired: the chain goes on from there.
    pub fn of(pod: &Pod, pod_namespace: &str) -> Self {
        let wired = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "sandbox": pod.path() }],
            "ips": [
                { "interface": 0, "address": format!("{}/24", pod.ipv4()) },
                { "interface": 0, "address": format!("{}/64", pod.ipv6()) },
            ],
        });
        Self { wired: Some(wired), ..Self::new(pod, pod_namespace, pod.pod_name()) }
    }
}

impl CniChain {
    /// A chain without plugins. Debian 12's plugins know versions up to 1.0.0; GC and STATUS came with 1.1.0.
    pub fn new(name: &str, version: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned(), plugins: Vec::new(), results: Mutex::default() }
    }

    /// Appends a plugin: its program and its part of the configuration list.
    #[must_use]
    pub fn plugin(mut self, program: impl Into<PathBuf>, config: Value) -> Self {
        self.plugins.push((program.into(), config));
        self
    }

    /// Appends Debian's `bridge` plugin with `host-local` addresses of both families in the node's range, on the node's
    /// bridge. `state` is a folder for the addresses given.
    #[must_use]
    pub fn bridge(self, node: &Node, state: &Path) -> Self {
        let range = |subnet: String, start: String| json!([{ "subnet": subnet, "rangeStart": start }]);
        // Above what the world gives to its own pods.
        let (v4, v6) = (node.pod_range4(), node.pod_range6());
        let start4 = std::net::Ipv4Addr::from_bits(v4.to_bits() + 128);
        let start6 = std::net::Ipv6Addr::from_bits(v6.to_bits() + 128);
        let ranges = [range(format!("{v4}/24"), start4.to_string()), range(format!("{v6}/64"), start6.to_string())];
        let ipam = json!({
            "type": "host-local", "dataDir": state, "ranges": ranges,
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        });
        let program = Path::new(DEBIAN_PLUGINS).join("bridge");
        self.plugin(program, json!({ "type": "bridge", "bridge": "pods", "isGateway": true, "ipam": ipam }))
    }

    /// The configuration list as a file in `/etc/cni/net.d` has it.
    pub fn conflist(&self) -> Value {
        let plugins: Vec<_> = self.plugins.iter().map(|(_, config)| config).collect();
        json!({ "cniVersion": self.version, "name": self.name, "plugins": plugins })
    }

    /// ADD: the result of the last plugin. After an error a runtime calls [`del`](Self::del).
    ///
    /// # Errors
    /// Of the first plugin that fails; those after it aren't called.
    pub fn add(&self, node: &Netns, to: &Attachment) -> Result<Value, CniError> {
        let mut result = to.wired.clone();
        for plugin in &self.plugins {
            let out = self.call(node, plugin, Call::about("ADD", to, result.clone()))?;
            result = Some(out.ok_or_else(|| broken(plugin, "ADD without a result"))?);
        }
        let result = result.unwrap_or(Value::Null);
        self.results.lock().insert(key(to), result.clone());
        Ok(result)
    }

    /// CHECK with the result of ADD.
    ///
    /// # Errors
    /// Of the first plugin that finds something wrong.
    pub fn check(&self, node: &Netns, on: &Attachment) -> Result<(), CniError> {
        let result = self.results.lock().get(&key(on)).cloned();
        let mut plugins = self.plugins.iter();
        plugins.try_for_each(|p| self.call(node, p, Call::about("CHECK", on, result.clone())).map(drop))
    }

    /// DEL in reverse order with the result of ADD, if there was one.
    ///
    /// # Errors
    /// Of the first plugin that fails; those before it in the chain aren't called, and a runtime tries again.
    pub fn del(&self, node: &Netns, from: &Attachment) -> Result<(), CniError> {
        let result = self.results.lock().get(&key(from)).cloned().or_else(|| from.wired.clone());
        let mut plugins = self.plugins.iter().rev();
        plugins.try_for_each(|p| self.call(node, p, Call::about("DEL", from, result.clone())).map(drop))?;
        self.results.lock().remove(&key(from));
        Ok(())
    }

    /// GC: everything but these attachments is stale. Every plugin is asked, whatever the others say.
    ///
    /// # Errors
    /// All that plugins reported.
    pub fn gc(&self, node: &Netns, valid: &[&Attachment]) -> Result<(), Vec<CniError>> {
        let list: Vec<_> = valid.iter().map(|a| json!({ "containerID": a.container, "ifname": a.interface })).collect();
        let extra = ("cni.dev/valid-attachments", Some(Value::from(list)));
        let gc = || Call { command: "GC", about: None, extra: extra.clone() };
        let answers = self.plugins.iter().map(|plugin| self.call(node, plugin, gc()));
        let errors: Vec<_> = answers.filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// STATUS: whether ADD would work.
    ///
    /// # Errors
    /// Of the first plugin that isn't ready (code 50).
    pub fn status(&self, node: &Netns) -> Result<(), CniError> {
        let status = || Call { command: "STATUS", about: None, extra: ("prevResult", None) };
        self.plugins.iter().try_for_each(|plugin| self.call(node, plugin, status()).map(drop))
    }

    fn call(
        &self,
        node: &Netns,
        plugin: &(PathBuf, Value),
        Call { command, about, extra: (extra_key, extra_value) }: Call<'_>,
    ) -> Result<Option<Value>, CniError> {
        let (program, config) = plugin;
        let mut config = config.clone();
        config["name"] = self.name.as_str().into();
        config["cniVersion"] = self.version.as_str().into();
        if let Some(value) = extra_value {
            config[extra_key] = value;
        }
        let mut process = Command::new(program);
        let folder = program.parent().unwrap_or(Path::new("/"));
        process.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        process.env("CNI_COMMAND", command).env("CNI_PATH", folder);
        if let Some(Attachment { container, netns, interface, pod: (namespace, name), .. }) = about {
            process.env("CNI_CONTAINERID", container).env("CNI_IFNAME", interface);
            let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
            process.env("CNI_ARGS", format!("{args};K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID=uid-{name}"));
            process.env("CNI_NETNS", netns.clone().unwrap_or_default());
        }
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let out = node.run(|| {
            let mut child = process.spawn()?;
            // A plugin that doesn't read its configuration says more in its answer than a broken pipe does.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(config.to_string().as_bytes()));
            child.wait_with_output()
        });
        let out = out.map_err(|e| broken(plugin, &e.to_string()))?;
        if out.status.success() {
            let empty = out.stdout.iter().all(u8::is_ascii_whitespace);
            let parsed = (!empty).then(|| serde_json::from_slice(&out.stdout)).transpose();
            return parsed.map_err(|e| broken(plugin, &format!("{command}: {e}")));
        }
        let said = [out.stdout.as_slice(), &out.stderr].concat();
        let error = serde_json::from_slice::<CniError>(&out.stdout);
        let error = error.unwrap_or_else(|_| broken(plugin, &String::from_utf8_lossy(&said)));
        Err(CniError { plugin: name(plugin), ..error })
    }
}

/// What a plugin is called for.
struct Call<'a> {
    command: &'a str,
    about: Option<&'a Attachment>,
    /// What is added to its configuration.
    extra: (&'a str, Option<Value>),
}

impl<'a> Call<'a> {
    fn about(command: &'a str, attachment: &'a Attachment, result: Option<Value>) -> Self {
        Self { command, about: Some(attachment), extra: ("prevResult", result) }
    }
}

fn key(of: &Attachment) -> (String, String) {
    (of.container.clone(), of.interface.clone())
}

fn name((program, _): &(PathBuf, Value)) -> String {
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn broken(plugin: &(PathBuf, Value), why: &str) -> CniError {
    CniError { code: 0, msg: why.to_owned(), details: String::new(), plugin: name(plugin) }
}
