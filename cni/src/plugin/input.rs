//! What a runtime gives to a plugin: variables and a configuration. Parsed once, here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use weft_core::ids::Namespace;

use crate::agent::{ENROLMENT_FILE, MISSED_DIR, PLUGIN_SOCKET, PodRef, is_container_id};
use crate::cni::{Code, Failed};

/// The versions of the specification that are spoken. For a chained plugin they differ only in verbs.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The plugin's variables, as the runtime set them (spec, section 2, "Parameters").
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// CNI_COMMAND
    pub command: Option<String>,
    /// CNI_CONTAINERID
    pub container_id: Option<String>,
    /// CNI_NETNS
    pub netns: Option<String>,
    /// CNI_IFNAME
    pub ifname: Option<String>,
    /// CNI_ARGS
    pub args: Option<String>,
}

impl Environment {
    /// From wherever variables come.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
        }
    }

    /// The container, checked.
    pub(super) fn container_id(&self) -> Result<&str, Failed> {
        let id = required(self.container_id.as_deref(), "CNI_CONTAINERID")?;
        if is_container_id(id) {
            return Ok(id);
        }
        Err(Failed::new(Code::InvalidEnvironment, format!("CNI_CONTAINERID {id:?} is not a container id"))
            .details("letters, digits, '_', '.' and '-', and a letter or digit first"))
    }

    /// The interface, checked (spec: as Linux allows, at most 15 bytes).
    pub(super) fn ifname(&self) -> Result<&str, Failed> {
        let name = required(self.ifname.as_deref(), "CNI_IFNAME")?;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            let what = format!("CNI_IFNAME {name:?} is not the name of an interface");
            return Err(Failed::new(Code::InvalidEnvironment, what));
        }
        Ok(name)
    }

    /// The namespace's path.
    pub(super) fn netns(&self) -> Result<PathBuf, Failed> {
        required(self.netns.as_deref(), "CNI_NETNS").map(PathBuf::from)
    }

    /// The pod in CNI_ARGS. A runtime that knows no Kubernetes names none: then the container is its own pod, in
    /// namespace `default`.
    pub(super) fn pod(&self) -> Result<PodRef, Failed> {
        let mut pod = PodRef { namespace: "default".into(), name: self.container_id()?.into(), uid: None };
        let args = self.args.as_deref().unwrap_or_default();
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                let what = format!("CNI_ARGS: {pair:?} is no KEY=VALUE");
                Failed::new(Code::InvalidEnvironment, what).details("pairs are separated by ';'")
            })?;
            match key {
                "K8S_POD_NAMESPACE" if !value.is_empty() => pod.namespace = value.into(),
                "K8S_POD_NAME" if !value.is_empty() => pod.name = value.into(),
                "K8S_POD_UID" if !value.is_empty() => pod.uid = Some(value.into()),
                _ => {}
            }
        }
        Ok(pod)
    }
}

fn required<'a>(value: Option<&'a str>, name: &str) -> Result<&'a str, Failed> {
    value.filter(|v| !v.is_empty()).ok_or_else(|| {
        Failed::new(Code::InvalidEnvironment, format!("{name} is not set"))
            .details("the plugin is called by a container runtime, which sets it")
    })
}

/// The plugin's entry of the network configuration, as the runtime hands it over.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The version of the specification.
    #[serde(default = "first_version")]
    pub cni_version: String,
    /// Where the agent is.
    #[serde(default = "default_socket")]
    pub agent_socket: PathBuf,
    /// What to read when it isn't.
    #[serde(default = "default_enrolment_file")]
    pub enrolment_file: PathBuf,
    /// Where to leave notes for it.
    #[serde(default = "default_missed_dir")]
    pub missed_dir: PathBuf,
    /// The mesh's own namespace: its pods are never in the mesh, and some must start before the agent can work.
    pub mesh_namespace: Option<Namespace>,
    /// How long to wait for it, in seconds. Longer than the agent's own deadlines, shorter than the runtime's.
    #[serde(default = "default_timeout")]
    timeout_seconds: u64,
    /// What the plugins before this one made; kept as it is, because it is handed on.
    pub prev_result: Option<Value>,
    /// GC: what is still there (spec 1.1.0).
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

/// One attachment that a runtime still has.
#[derive(Clone, Debug, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface.
    pub ifname: String,
}

fn first_version() -> String {
    // Spec: a configuration without a version is of 0.1.0.
    "0.1.0".to_owned()
}

fn default_socket() -> PathBuf {
    PLUGIN_SOCKET.into()
}

fn default_enrolment_file() -> PathBuf {
    ENROLMENT_FILE.into()
}

fn default_missed_dir() -> PathBuf {
    MISSED_DIR.into()
}

const fn default_timeout() -> u64 {
    30
}

impl Config {
    /// Parses and checks the version.
    ///
    /// # Errors
    /// Code 6 for what is no configuration, 1 for a version that isn't spoken.
    pub fn parse(stdin: &[u8]) -> Result<Self, Failed> {
        let config: Self = serde_json::from_slice(stdin).map_err(|e| {
            Failed::new(Code::Decode, format!("the network configuration on standard input can't be parsed: {e}"))
                .details("the runtime writes one JSON object there; see its files in /etc/cni/net.d")
        })?;
        if VERSIONS.contains(&config.cni_version.as_str()) {
            return Ok(config);
        }
        let what = format!("cniVersion {} is not spoken by weft-cni", config.cni_version);
        Err(Failed::new(Code::IncompatibleVersion, what).details(format!("versions: {}", VERSIONS.join(", "))))
    }

    /// How long to wait for the agent.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.clamp(1, 600))
    }

    /// The result to hand on.
    ///
    /// # Errors
    /// Code 7 when there is none.
    pub fn prev_result(&self) -> Result<&Value, Failed> {
        self.prev_result.as_ref().filter(|v| v.is_object()).ok_or_else(|| {
            Failed::new(Code::InvalidConfig, "prevResult is missing: weft-cni makes no interface of its own")
                .details("in the network's .conflist, put weft-cni after the plugin that makes the interface")
        })
    }

    /// The addresses in the result, without prefix length.
    ///
    /// # Errors
    /// Code 7 when one is none.
    pub fn ips(&self) -> Result<Vec<IpAddr>, Failed> {
        let list = self.prev_result()?.get("ips").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|ip| {
                let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
                let address = text.split('/').next().unwrap_or_default();
                address.parse().map_err(|e| Failed::new(Code::InvalidConfig, format!("prevResult.ips: {text:?}: {e}")))
            })
            .collect()
    }
}
