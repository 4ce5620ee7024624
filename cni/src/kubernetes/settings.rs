//! Settings of `weft-agent`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_core::ids::{Namespace, NodeName, ServiceAccount};

use super::installer;
use crate::agent::AgentOptions;
use crate::install::Settings as Entry;

/// Settings of `weft-agent run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunSettings {
    /// The name of this node
    #[arg(long, env = "NODE_NAME")]
    pub node: String,
    /// The mesh's namespace, which is the agent's own
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// The namespace whose policies may apply to the whole mesh; the mesh's if left out
    #[arg(long, env = "WEFT_ROOT_NAMESPACE", default_value = "")]
    pub root_namespace: String,
    /// Loopback address for /healthz, /readyz and /metrics
    #[arg(long, env = "WEFT_HEALTH", default_value = "127.0.0.1:15023")]
    pub health: SocketAddr,
    /// Address of the node for Prometheus; none if left out
    #[arg(long, env = "WEFT_METRICS", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Directory of the sockets for the CNI plugin and the node proxy
    #[arg(long, env = "WEFT_RUN_DIR", default_value = "/run/weft")]
    pub run_dir: PathBuf,
    /// The same directory as the node itself sees it, where the plugin runs; --run-dir if left out
    #[arg(long, env = "WEFT_HOST_RUN_DIR")]
    pub host_run_dir: Option<PathBuf>,
    /// Directory for what survives a restart
    #[arg(long, env = "WEFT_STATE_DIR", default_value = "/var/lib/weft/agent")]
    pub state_dir: PathBuf,
    /// Directory of what the node proxy keeps, which goes when the mesh has left the node
    #[arg(long, env = "WEFT_PROXY_STATE_DIR", default_value = "/var/lib/weft/proxy")]
    pub proxy_state_dir: PathBuf,
    /// Directory of the node's CNI configuration
    #[arg(long, env = "WEFT_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Directory of the node's CNI plugins
    #[arg(long, env = "WEFT_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// The plugin's binary, which is copied there
    #[arg(long, env = "WEFT_PLUGIN", default_value = "/usr/bin/weft-cni")]
    pub plugin: PathBuf,
    /// Directory where the container runtime keeps network namespaces; may be repeated
    #[arg(long, env = "WEFT_NETNS_DIR", value_delimiter = ',', default_value = "/run/netns")]
    pub netns_dir: Vec<PathBuf>,
    /// /proc of the node's process namespace
    #[arg(long, env = "WEFT_PROC", default_value = "/proc")]
    pub proc: PathBuf,
    /// The ServiceAccount of the mesh's namespace that the probe through the data plane uses: this node must run a pod of it
    #[arg(long, env = "WEFT_PROBE_ACCOUNT", default_value = "weft-node-proxy")]
    pub probe_account: String,
    /// Filter of the log, such as info or weft_cni=debug,info
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub log: String,
}

/// Settings of `weft-agent uninstall`.
#[derive(Clone, Debug, clap::Args)]
pub struct UninstallSettings {
    /// The mesh's namespace
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// The agents' DaemonSet
    #[arg(long, env = "WEFT_DAEMONSET", default_value = "weft-agent")]
    pub daemonset: String,
    /// How long to wait for all nodes, such as 5m or 300s
    #[arg(long, env = "WEFT_TIMEOUT", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

/// What is wrong with the settings, all of it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidSettings(Vec<String>);

impl RunSettings {
    /// Looks for mistakes.
    ///
    /// # Errors
    /// All of them.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let mut mistakes = Vec::new();
        named(&mut mistakes, "--node (NODE_NAME)", &self.node, "the name of the Node object, by the downward API");
        named(
            &mut mistakes,
            "--namespace (POD_NAMESPACE)",
            &self.namespace,
            "the agent's namespace, by the downward API",
        );
        if !self.root_namespace.is_empty() {
            named(&mut mistakes, "--root-namespace", &self.root_namespace, "the namespace of mesh-wide policies");
        }
        named(&mut mistakes, "--probe-account", &self.probe_account, "the node proxy's ServiceAccount");
        if !self.health.ip().is_loopback() {
            mistakes.push(format!("--health must be a loopback address, not {}", self.health.ip()));
        }
        if self.metrics == Some(self.health) {
            mistakes.push(format!("--metrics and --health are both {}; leave --metrics out", self.health));
        }
        let dirs = [
            ("--run-dir", &self.run_dir),
            ("--host-run-dir", self.host_run_dir.as_ref().unwrap_or(&self.run_dir)),
            ("--state-dir", &self.state_dir),
            ("--proxy-state-dir", &self.proxy_state_dir),
            ("--cni-conf-dir", &self.cni_conf_dir),
            ("--cni-bin-dir", &self.cni_bin_dir),
            ("--plugin", &self.plugin),
            ("--proc", &self.proc),
        ];
        let dirs = dirs.into_iter().chain(self.netns_dir.iter().map(|dir| ("--netns-dir", dir)));
        for (name, dir) in dirs {
            if !dir.is_absolute() {
                mistakes.push(format!("{name} must be an absolute path, not {:?}", dir.display().to_string()));
            }
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            mistakes.push(format!("--log {:?}: {error}", self.log));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(InvalidSettings(mistakes)) }
    }

    /// For the agent of any kind of mesh.
    pub fn agent(&self) -> AgentOptions {
        let mut options = AgentOptions::new(self.node_name(), &self.state_dir).in_directory(&self.run_dir);
        options.netns_dirs.clone_from(&self.netns_dir);
        options.proc.clone_from(&self.proc);
        options.node_addresses = true;
        options
    }

    /// Where the plugin goes.
    pub fn plugin_places(&self) -> installer::Places {
        installer::Places {
            conf_dir: self.cni_conf_dir.clone(),
            bin_dir: self.cni_bin_dir.clone(),
            plugin: self.plugin.clone(),
            entry: self.plugin_entry(),
        }
    }

    /// The plugin's entry in the chain. Paths are the node's: the runtime starts the plugin there.
    fn plugin_entry(&self) -> Entry {
        let dir: &Path = self.host_run_dir.as_deref().unwrap_or(&self.run_dir);
        let files = [("agentSocket", "agent.sock"), ("enrolmentFile", "enrolment.json"), ("missedDir", "missed")];
        let paths = files.into_iter().map(|(key, file)| (key.to_owned(), dir.join(file).display().to_string().into()));
        paths.chain([("meshNamespace".to_owned(), self.namespace.clone().into())]).collect()
    }

    /// The node.
    pub fn node_name(&self) -> NodeName {
        NodeName::new(&self.node)
    }

    /// The mesh's namespace.
    pub fn mesh_namespace(&self) -> Namespace {
        Namespace::new(&self.namespace)
    }

    /// The namespace whose policies may apply to the whole mesh.
    pub fn root_namespace(&self) -> Namespace {
        if self.root_namespace.is_empty() { self.mesh_namespace() } else { Namespace::new(&self.root_namespace) }
    }

    /// The probe's account.
    pub fn account(&self) -> ServiceAccount {
        ServiceAccount::new(&self.probe_account)
    }
}

impl UninstallSettings {
    /// Looks for mistakes.
    ///
    /// # Errors
    /// All of them.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        let mut mistakes = Vec::new();
        named(&mut mistakes, "--namespace (POD_NAMESPACE)", &self.namespace, "the mesh's namespace");
        named(&mut mistakes, "--daemonset", &self.daemonset, "the agents' DaemonSet");
        if mistakes.is_empty() { Ok(()) } else { Err(InvalidSettings(mistakes)) }
    }
}

/// Checks a name of a Kubernetes object (DNS subdomain, RFC 1123).
fn named(mistakes: &mut Vec<String>, setting: &str, value: &str, meaning: &str) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if value.is_empty() {
        mistakes.push(format!("{setting} is empty: give {meaning}"));
    } else if value.len() > 253 || !value.chars().all(allowed) {
        mistakes.push(format!("{setting} {value:?} is no name of an object: give {meaning}"));
    }
}

/// An address as a manifest composes it, `$(HOST_IP):15024`: the last colon is the port's, with or without brackets.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{text:?} is no address with a port, such as 10.0.0.1:15024 or [fd00::1]:15024");
    let (ip, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    Ok(SocketAddr::new(ip.parse().map_err(|_| wrong())?, port.parse().map_err(|_| wrong())?))
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; give a number with s, m or h, such as 90s or 5m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        settings: RunSettings,
    }

    fn parse(more: &[&str]) -> RunSettings {
        let arguments = ["weft-agent", "--node=n1", "--namespace=weft-system"];
        Run::try_parse_from([&arguments, more].concat()).unwrap().settings
    }

    #[test]
    fn mistakes_are_reported_together() {
        parse(&[]).validate().unwrap();
        parse(&["--metrics=10.0.0.1:15024", "--netns-dir=/a,/b"]).validate().unwrap();
        let wrong = ["--health=0.0.0.0:1", "--run-dir=run", "--netns-dir=/a,b", "--log=a=b=c", "--probe-account=A/b"];
        let text = parse(&wrong).validate().unwrap_err().to_string();
        for part in ["--health", "--run-dir", "--netns-dir", "--log", "--probe-account"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 6, "one line each, the run directory twice: {text}");
        let mut settings = parse(&[]);
        (settings.node, settings.namespace) = (String::new(), "Weft System".into());
        let text = settings.validate().unwrap_err().to_string();
        assert!(text.contains("NODE_NAME") && text.contains("Weft System"), "{text}");
    }

    #[test]
    fn the_plugin_is_told_the_nodes_own_paths() {
        let entry = parse(&["--run-dir=/run/weft", "--host-run-dir=/var/run/x"]).plugin_places().entry;
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"agentSocket":"/var/run/x/agent.sock","enrolmentFile":"/var/run/x/enrolment.json","missedDir":"/var/run/x/missed","meshNamespace":"weft-system"}"#
        );
        assert_eq!(parse(&[]).agent().plugin_socket, Path::new("/run/weft/agent.sock"));
    }

    #[test]
    fn a_nodes_address_needs_no_brackets() {
        for (given, expected) in [
            ("10.0.0.1:15024", "10.0.0.1:15024"),
            ("fd00::1:15024", "[fd00::1]:15024"),
            ("[fd00::1]:15024", "[fd00::1]:15024"),
            ("2001:db8:1:2:3:4:5:6:15024", "[2001:db8:1:2:3:4:5:6]:15024"),
        ] {
            assert_eq!(parse(&[&format!("--metrics={given}")]).metrics, Some(expected.parse().unwrap()), "{given}");
        }
        for wrong in ["", ":15024", "10.0.0.1", "fd00::1:", "[fd00::1:15024", "10.0.0.1:70000", "node:15024"] {
            assert!(address(wrong).is_err_and(|why| why.contains("[fd00::1]:15024")), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "m", "-1s", "0s", "5d", "99999999999999999999s", "1h30m", "é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
