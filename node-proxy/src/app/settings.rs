//! The one door for settings: from the command line and the environment, all mistakes reported together.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use weft_core::ids::NodeName;

use crate::budget::Defaults;
use crate::worker::Limits;

/// File descriptors kept for everything that is not a connection: listeners, namespaces, control channels, files.
const RESERVED_DESCRIPTORS: u64 = 512;
/// Descriptors of one connection: the client's socket and the endpoint's.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// Memory that a connection may take while it is busy, for sizing; an idle one takes a few KiB.
const BYTES_PER_CONNECTION: u64 = 64 << 10;
/// Handshakes of one workload under way at once: enough to keep a core busy, few enough that its turn stays short.
const HANDSHAKES: u32 = 64;

/// Settings of a node proxy.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Name of the node, as Kubernetes (or the standalone primary) knows it
    #[arg(long, env = "WEFT_NODE_NAME", value_parser = node_name)]
    pub node: NodeName,
    /// Unix socket of the node agent
    #[arg(long, env = "WEFT_AGENT_SOCKET", default_value = "/run/weft/agent/proxy.sock")]
    pub agent_socket: PathBuf,
    /// Unix socket where a successor takes over from this process; none: it can't be replaced without a gap
    #[arg(long, env = "WEFT_HANDOVER_SOCKET")]
    pub handover_socket: Option<PathBuf>,
    /// File that keeps the configuration for a start without a controller
    #[arg(long, env = "WEFT_SAVED_CONFIG")]
    pub saved_config: Option<PathBuf>,
    /// Threads that carry connections; 0: as many as the CPU limit gives
    #[arg(long, env = "WEFT_WORKERS", default_value_t = 0)]
    pub workers: usize,
    /// How long open connections may go on after SIGTERM
    #[arg(long, env = "WEFT_DRAIN_DEADLINE", default_value = "25s", value_parser = duration)]
    pub drain_deadline: Duration,
    /// How long open connections may go on after a successor has taken over
    #[arg(long, env = "WEFT_REPLACED_DEADLINE", default_value = "24h", value_parser = duration)]
    pub replaced_deadline: Duration,
    /// How long open connections may go on after SIGTERM once a successor has taken over. On Kubernetes: somewhat less than
    /// the pod's terminationGracePeriodSeconds
    #[arg(long, env = "WEFT_REPLACED_STOP_DEADLINE", default_value = "25s", value_parser = duration)]
    pub replaced_stop_deadline: Duration,
    /// How long to serve on after SIGTERM for a successor that may be starting, before open connections are drained. On
    /// Kubernetes, where a deleted pod is replaced at once: as long as that takes
    #[arg(long, env = "WEFT_SUCCESSOR_WAIT", default_value = "0s", value_parser = duration)]
    pub successor_wait: Duration,
    /// How long connecting may take
    #[arg(long, env = "WEFT_CONNECT_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Closes connections without a byte for so long; none: never
    #[arg(long, env = "WEFT_IDLE_TIMEOUT", value_parser = duration)]
    pub idle_timeout: Option<Duration>,
    /// Address of this node, as its pods see it, beside those that the node agent names; may be given several times. The
    /// probes that a Strict pod declares for the kubelet are taken from it in the clear, and need no ALLOW policy
    #[arg(long, env = "WEFT_NODE_ADDRESS", value_delimiter = ',')]
    pub node_address: Vec<IpAddr>,
    /// Most connections on the node; 0: from the limits of descriptors and memory
    #[arg(long, env = "WEFT_MAX_CONNECTIONS", default_value_t = 0)]
    pub max_connections: u32,
}

/// Mistakes in settings that are well-formed one by one.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidSettings(Vec<String>);

impl InvalidSettings {
    pub(crate) fn from_list(mistakes: Vec<String>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }
}

/// What the node can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Connections open at once.
    pub max_connections: u32,
    /// What one workload may use.
    pub defaults: Defaults,
}

impl Settings {
    /// Looks for mistakes, all of them.
    ///
    /// # Errors
    /// The list.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        InvalidSettings::from_list(self.mistakes())
    }

    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.connect_timeout.is_zero() {
            mistakes.push("--connect-timeout must be more than 0".to_owned());
        }
        if self.idle_timeout.is_some_and(|idle| idle < Duration::from_secs(1)) {
            mistakes.push("--idle-timeout must be 1s or more; leave it out for never".to_owned());
        }
        if self.replaced_deadline < self.drain_deadline {
            mistakes.push("--replaced-deadline must not be shorter than --drain-deadline".to_owned());
        }
        if self.node_address.iter().any(|ip| ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()) {
            mistakes.push("--node-address must be an address of the node that its pods can see".to_owned());
        }
        for (name, path) in [("--handover-socket", &self.handover_socket), ("--saved-config", &self.saved_config)] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                mistakes.push(format!("{name} must be an absolute path"));
            }
        }
        mistakes
    }

    /// How many workers to start.
    pub fn workers(&self) -> usize {
        workers(self.workers)
    }

    /// Times of connections.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits { connect: self.connect_timeout, idle: self.idle_timeout, ..Limits::default() };
        // The process watches over its deadline itself; a tunnel must not end before.
        limits.server.drain_deadline = self.replaced_deadline.max(self.drain_deadline);
        limits
    }

    /// What the node can carry.
    pub fn sizing(&self) -> Sizing {
        sizing(self.max_connections)
    }
}

/// How many workers to start; 0: as many as the CPU limit gives.
pub(super) fn workers(wanted: usize) -> usize {
    // The standard library takes the affinity mask and the cgroup's CPU quota into account.
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// What the process can carry; with 0 wanted as many connections as its limits give.
pub(super) fn sizing(max_connections: u32) -> Sizing {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _hard)| soft);
    size(max_connections, descriptors, memory_limit())
}

fn size(wanted: u32, descriptors: u64, memory: Option<u64>) -> Sizing {
    let by_descriptors = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_PER_CONNECTION;
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / 2 / BYTES_PER_CONNECTION);
    let can = u32::try_from(by_descriptors.min(by_memory)).unwrap_or(u32::MAX).max(64);
    let max_connections = if wanted == 0 { can } else { wanted.min(can) };
    let buffer_bytes = memory.unwrap_or(4 << 30) / 4;
    Sizing {
        max_connections,
        defaults: Defaults { connections: max_connections, handshakes: HANDSHAKES, buffer_bytes },
    }
}

/// What cgroups of version 1 say where there is no limit is a little less than 8 EiB; no limit is as large as half of that.
const NO_LIMIT: u64 = 1 << 62;

/// The memory limit of our cgroup, in bytes, if it has one.
fn memory_limit() -> Option<u64> {
    memory_limit_below(Path::new("/sys/fs/cgroup"))
}

/// The same where cgroups are mounted elsewhere: of version 2, else of version 1.
fn memory_limit_below(cgroup: &Path) -> Option<u64> {
    let mut files = ["memory.max", "memory/memory.limit_in_bytes"].into_iter();
    let text = files.find_map(|file| std::fs::read_to_string(cgroup.join(file)).ok())?;
    // "max" is no limit, too.
    text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

pub(super) fn node_name(text: &str) -> Result<NodeName, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(NodeName::new(text)) }
}

pub(super) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(arguments: &[&str]) -> Settings {
        Cli::try_parse_from([&["proxy", "--node", "n1"], arguments].concat()).unwrap().settings
    }

    #[test]
    fn defaults_are_valid() {
        let settings = parse(&[]);
        settings.validate().unwrap();
        assert!(settings.workers() >= 1);
        assert_eq!(settings.limits().server.drain_deadline, Duration::from_secs(24 * 3600));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let settings = parse(&[
            "--connect-timeout=0s",
            "--idle-timeout=10ms",
            "--drain-deadline=2days",
            "--handover-socket=here",
            "--saved-config=there",
            "--node-address=10.0.0.1,0.0.0.0",
        ]);
        let text = settings.validate().unwrap_err().to_string();
        for part in [
            "--connect-timeout",
            "--idle-timeout",
            "--replaced-deadline",
            "--handover-socket",
            "--saved-config",
            "--node-address",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_scarcer_of_descriptors_and_memory_sizes_the_node() {
        assert_eq!(size(0, 65_536, None).max_connections, 32_512);
        assert_eq!(size(0, 65_536, Some(128 << 20)).max_connections, 1024);
        assert_eq!(size(100, 65_536, None).max_connections, 100);
        assert_eq!(size(0, 100, None).max_connections, 64, "never nothing");
    }

    #[test]
    fn a_memory_limit_is_read_with_both_versions_of_cgroups() {
        let folder = tempfile::tempdir().unwrap();
        let limit = |file: &str, text: &str| {
            std::fs::write(folder.path().join(file), text).unwrap();
            memory_limit_below(folder.path())
        };
        assert_eq!(memory_limit_below(folder.path()), None, "there are no cgroups");
        std::fs::create_dir(folder.path().join("memory")).unwrap();
        assert_eq!(limit("memory/memory.limit_in_bytes", "2147483648\n"), Some(2 << 30));
        assert_eq!(limit("memory/memory.limit_in_bytes", "9223372036854771712\n"), None);
        assert_eq!(limit("memory.max", "134217728\n"), Some(128 << 20));
        assert_eq!(limit("memory.max", "max\n"), None);
    }
}
