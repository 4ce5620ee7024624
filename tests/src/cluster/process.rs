//! Processes on the nodes of a test cluster, and what is done to its parts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cluster, PATIENCE, eventually};

/// A process of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    number: i32,
    /// When it was started, in ticks since the machine was.
    started: u64,
}

impl Process {
    /// Ends it without a warning.
    ///
    /// # Errors
    /// When it is gone.
    pub fn kill(self) -> Result<()> {
        kill(Pid::from_raw(self.number), Signal::SIGKILL).with_context(|| format!("kill {}", self.number))
    }

    /// Its number in the machine's own namespace.
    pub(super) fn number(self) -> i32 {
        self.number
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// When it is gone.
    pub fn descriptors(self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.number))?.count())
    }

    /// How many descriptors it may have.
    ///
    /// # Errors
    /// When it is gone.
    pub fn descriptor_limit(self) -> Result<usize> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.number))?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit")?;
        Ok(line.split_whitespace().next().context("no limit")?.parse()?)
    }

    /// Sets how many descriptors it may have, within its hard limit. What it has open stays so.
    ///
    /// # Errors
    /// When `prlimit` fails.
    pub fn limit_descriptors(self, most: usize) -> Result<()> {
        let (process, limit) = (format!("--pid={}", self.number), format!("--nofile={most}:"));
        let limited = Command::new("prlimit").args([process, limit]).status().context("prlimit")?;
        ensure!(limited.success(), "prlimit: {limited}");
        Ok(())
    }

    /// The memory that its container uses and cannot give back, in bytes: not what the kernel keeps of files.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(self) -> Result<u64> {
        let (folder, _) = self.memory_group()?;
        let statistics = std::fs::read_to_string(folder.join("memory.stat"))?;
        let field = |name: &str| statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        // The name with cgroups of version 2, and of version 1.
        Ok(field("anon").or_else(|| field("rss")).context("no memory")?.parse()?)
    }

    /// Limits the memory of its container, in bytes. When that isn't enough, the kernel kills it; another container has the
    /// limit of its pod again.
    ///
    /// # Errors
    /// When it is gone, or has more that it cannot give back.
    pub fn limit_memory(self, most: u64) -> Result<()> {
        let (folder, limit) = self.memory_group()?;
        std::fs::write(folder.join(limit), most.to_string()).with_context(|| format!("{limit}: {most}"))
    }

    /// The folder of the cgroup that its memory is counted in, and the name of the file with the limit.
    fn memory_group(self) -> Result<(PathBuf, &'static str)> {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", self.number))?;
        // The number of the hierarchy, its controllers, and where it is in there (cgroups(7)).
        let of = |controller: &str| groups.lines().find_map(|line| line.split_once(controller).map(|(_, path)| path));
        Ok(match of(":memory:") {
            Some(path) => (PathBuf::from(format!("/sys/fs/cgroup/memory{path}")), "memory.limit_in_bytes"),
            None => (PathBuf::from(format!("/sys/fs/cgroup{}", of("0::").context("no cgroup")?)), "memory.max"),
        })
    }

    /// Its network namespace, as a file.
    pub fn network(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.number))
    }

    /// Runs a command in its network namespace.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn in_network(self, command: &[&str]) -> Result<String> {
        let output =
            Command::new("nsenter").arg(format!("--net={}", self.network().display())).args(command).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }
}

impl Cluster {
    /// The processes of pods on a node whose name begins so and whose arguments have `argument`.
    ///
    /// # Errors
    /// When it isn't a test cluster.
    pub fn processes(&self, node: &str, name: &str, argument: &str) -> Result<Vec<Process>> {
        let group = format!("/{}-{node}/", self.name().context("not a cluster of ours")?);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            let is_it = read(&path, "comm").starts_with(name)
                && read(&path, "cgroup").contains(&group)
                && read(&path, "cmdline").contains(argument);
            // The name, which may have anything in it, is in brackets; the time is the twentieth field after it.
            let started =
                read(&path, "stat").rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(20)?.parse().ok());
            if let (true, Some(started)) = (is_it, started) {
                found.push(Process { number, started });
            }
        }
        Ok(found)
    }

    /// The process of a part of the mesh on a node, `weft-node-proxy` or `weft-agent`: the newest, since those that were replaced
    /// may still serve what they have.
    ///
    /// # Errors
    /// When there is none.
    pub fn process(&self, node: &str, part: &str) -> Result<Process> {
        // Gateways have the same program.
        let argument = if part == "weft-node-proxy" { "--agent-socket" } else { "" };
        let newest = self.processes(node, part, argument)?.into_iter().max_by_key(|process| process.started);
        newest.with_context(|| format!("no process {part} on {node}"))
    }

    /// The process of a pod's container, by the name of its program.
    ///
    /// # Errors
    /// When it has none, or more than one.
    pub fn process_of(&self, node: &str, uid: &str, name: &str) -> Result<Process> {
        let mut found = self.processes(node, name, "")?;
        found.retain(|process| {
            let cgroup = read(&Path::new("/proc").join(process.number.to_string()), "cgroup");
            // systemd's names have no hyphens.
            cgroup.contains(uid) || cgroup.contains(&uid.replace('-', "_"))
        });
        let [process] = found[..] else { bail!("{} processes {name} of pod {uid} on {node}", found.len()) };
        Ok(process)
    }

    /// Kills a part of the mesh on a node, and waits until the kubelet has started another: when that was seen, in seconds
    /// since 1970.
    ///
    /// # Errors
    /// When none comes.
    pub fn crash(&self, node: &str, part: &str) -> Result<f64> {
        let old = self.process(node, part)?;
        old.kill()?;
        self.started_after(node, part, old)
    }

    /// When another process of a part than `old` was seen, in seconds since 1970.
    ///
    /// # Errors
    /// When none comes.
    pub fn started_after(&self, node: &str, part: &str, old: Process) -> Result<f64> {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.process(node, part).is_ok_and(|new| new.started > old.started) {
                return Ok(std::time::UNIX_EPOCH.elapsed()?.as_secs_f64());
            }
            ensure!(Instant::now() < end, "no {part} was started on {node}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills a part of a test cluster, such as `apiserver`, and starts it again after a while.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn outage(&self, component: &str, lasts: Duration) -> Result<()> {
        self.script("restart.sh", &[component, &lasts.as_secs().to_string()])
    }

    /// Keeps a copy of all that etcd has (`save`), or puts it in place of what it has (`restore`), as from a backup.
    ///
    /// # Errors
    /// When a part doesn't come back.
    pub fn etcd(&self, what: &str) -> Result<()> {
        self.script("etcd.sh", &[what])?;
        eventually("the API server", PATIENCE, || self.k(&["get", "--raw", "/readyz"]).map(drop))
    }
}

fn read(process: &Path, file: &str) -> String {
    // One that has ended meanwhile is none.
    let bytes = std::fs::read(process.join(file)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
