//! Finds the network namespaces of pods that run already, by the cgroups of their processes.
//!
//! A process of a pod is in a cgroup that the kubelet named after the pod's uid. Its namespace is the pod's if it is the
//! oldest process of the pod that isn't in the node's namespace: the sandbox's own process (pause), which the runtime
//! starts first. Later ones may have made namespaces of their own, as a container runtime inside a pod does. Where the
//! runtime keeps the namespace as a file (containerd, CRI-O) that file is preferred to the process: it lives as long as
//! the namespace is the pod's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use weft_core::ids::PodUid;
use weft_sys::{ErrorContext as _, NetnsId};

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// `/proc` of the node's process namespace.
    pub proc: PathBuf,
    /// Where runtimes keep namespaces as files; those that don't exist are passed over.
    pub netns_dirs: Vec<PathBuf>,
    /// The node's own namespace.
    pub home: NetnsId,
}

/// A pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is found.
    pub path: PathBuf,
    /// Which it is.
    pub netns: NetnsId,
    /// The runtime's id of the container whose process was found. For runtimes with a process in the sandbox it is the
    /// sandbox's.
    pub container: Option<String>,
}

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pod.
    pub pod: PodUid,
    /// The container in it, unless it is the pod's own cgroup.
    pub container: Option<String>,
}

/// One process of a pod.
struct Process {
    started: u64,
    path: PathBuf,
    netns: NetnsId,
    container: Option<String>,
}

/// Looks for the namespaces of these pods. Those without a process of their own network are left out.
///
/// # Errors
/// When processes can't be listed. One that ends meanwhile is no error.
pub fn find(places: &Places, wanted: &BTreeSet<PodUid>) -> io::Result<BTreeMap<PodUid, Found>> {
    let mut oldest: BTreeMap<PodUid, Process> = BTreeMap::new();
    for entry in std::fs::read_dir(&places.proc).context(|| format!("list {}", places.proc.display()))? {
        let Ok(entry) = entry else { continue };
        if !entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let Some((pod, process)) = process(&entry.path(), wanted) else { continue };
        if process.netns == places.home {
            continue;
        }
        match oldest.get(&pod) {
            Some(older) if older.started <= process.started => {}
            _ => drop(oldest.insert(pod, process)),
        }
    }
    let files = if oldest.is_empty() { BTreeMap::new() } else { files(&places.netns_dirs) };
    let found = |process: Process| Found {
        path: files.get(&process.netns).cloned().unwrap_or(process.path),
        netns: process.netns,
        container: process.container,
    };
    Ok(oldest.into_iter().map(|(pod, process)| (pod, found(process))).collect())
}

/// Whose the cgroup in the text of `/proc/PID/cgroup` is: of both drivers (`pod<uid>`, `...-pod<uid_>.slice`), both
/// versions, and seen from whichever cgroup namespace. Of pods inside a pod's container the outermost counts.
pub fn owner(text: &str) -> Option<Owner> {
    text.lines().find_map(|line| {
        // hierarchy-ID:controllers:path
        let mut parts = line.splitn(3, ':').nth(2)?.split(['/', ':']);
        let pod = parts.find_map(pod_in)?;
        Some(Owner { pod, container: parts.find_map(container_in) })
    })
}

fn process(dir: &Path, wanted: &BTreeSet<PodUid>) -> Option<(PodUid, Process)> {
    let owner = owner(&std::fs::read_to_string(dir.join("cgroup")).ok()?)?;
    if !wanted.contains(&owner.pod) {
        return None;
    }
    let path = dir.join("ns/net");
    let netns = id(&path).inspect_err(|error| tracing::debug!(%error, "a process of a pod can't be looked at")).ok()?;
    let started = started(&std::fs::read_to_string(dir.join("stat")).ok()?)?;
    Some((owner.pod, Process { started, path, netns, container: owner.container }))
}

/// Field 22 of `/proc/PID/stat`, in ticks since the boot. The second field is the program's name, which may hold
/// anything, parentheses and blanks too.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn files(dirs: &[PathBuf]) -> BTreeMap<NetnsId, PathBuf> {
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter_map(|path| Some((id(&path).ok()?, path))).collect()
}

fn id(path: &Path) -> io::Result<NetnsId> {
    let meta = std::fs::metadata(path).context(|| format!("look at {}", path.display()))?;
    Ok(NetnsId { dev: meta.dev(), ino: meta.ino() })
}

fn pod_in(part: &str) -> Option<PodUid> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.strip_prefix("pod") {
        Some(uid) => uid,
        None => part.rsplit_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    // 8-4-4-4-12 digits; a static pod's is a hash without dashes.
    let digits = uid.bytes().filter(|b| *b != b'-').count();
    let allowed = uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    (digits == 32 && allowed).then(|| PodUid::from(uid))
}

fn container_in(part: &str) -> Option<String> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit_once('-').map_or(part, |(_, id)| id);
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests;
