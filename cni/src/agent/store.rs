//! What survives a restart of the agent: one JSON file for each pod, written atomically.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_core::ids::SandboxId;
use weft_sys::{ErrorContext as _, NetnsId};

use super::enrolment::{Decision, PodRef};

/// A pod of this node, in the mesh or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The runtime's id.
    pub sandbox: SandboxId,
    /// Who it is.
    pub pod: PodRef,
    /// Its interfaces that went through the plugin, with their addresses.
    pub interfaces: BTreeMap<String, Vec<IpAddr>>,
    /// Where the runtime keeps the namespace.
    pub netns_path: PathBuf,
    /// Device of the namespace at that path when the pod was added.
    pub netns_dev: u64,
    /// Its inode: another one at the same path is another pod's.
    pub netns_ino: u64,
    /// The last decision; none when the agent hasn't had an answer yet.
    pub decision: Option<Decision>,
    /// What the namespace holds of ours, as of the last change.
    pub set: Applied,
    /// Found running, not brought by the plugin: the runtime may know the sandbox by another name.
    #[serde(default)]
    pub adopted: bool,
    /// Where the node's own traffic to the pod comes from; none until it was looked up.
    #[serde(default)]
    pub node_addresses: Option<Vec<IpAddr>>,
    /// Opened by `weft node bypass`, and not given back yet.
    #[serde(default)]
    pub bypassed: bool,
}

/// Which rules a namespace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// None.
    #[default]
    Nothing,
    /// No TCP in or out.
    Closed,
    /// Through the proxy.
    Redirecting,
}

impl Record {
    /// Every address of the pod.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.interfaces.values().flatten().copied().collect()
    }

    /// Which namespace it is.
    pub fn netns_id(&self) -> NetnsId {
        NetnsId { dev: self.netns_dev, ino: self.netns_ino }
    }
}

/// Whether text may be a file name here: what CNI allows as a container id (spec, "Parameters").
pub fn is_container_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.len() <= 200 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
}

/// The directory of records.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens or makes the directory, for its owner only.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.context(|| format!("make the state directory {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Every readable record. One that can't be read is logged and set aside, so that it never stops the others.
    ///
    /// # Errors
    /// When the directory can't be listed.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for (path, record) in read(&self.dir)? {
            match record {
                Ok(record) => records.push(record),
                Err(why) => set_aside(&path, &why),
            }
        }
        Ok(records)
    }

    /// Writes a record in place of the former.
    ///
    /// # Errors
    /// What the file system says; the former record is whole then.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.sandbox);
        write_atomically(&path, &serde_json::to_vec_pretty(record)?, 0o600)
    }

    /// Removes a record; none is fine.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, sandbox: &SandboxId) -> io::Result<()> {
        match std::fs::remove_file(self.path(sandbox)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn path(&self, sandbox: &SandboxId) -> PathBuf {
        file_of(&self.dir, sandbox)
    }
}

fn file_of(dir: &Path, sandbox: &SandboxId) -> PathBuf {
    dir.join(format!("{sandbox}.json"))
}

/// Every record of a directory, whoever asks, with its file; or why it is none. Nothing is changed.
///
/// # Errors
/// When the directory can't be listed.
pub fn read(dir: &Path) -> io::Result<Vec<(PathBuf, Result<Record, String>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let record = match read_file(&path) {
            Ok(record) if path == file_of(dir, &record.sandbox) => Ok(record),
            Ok(record) => Err(format!("it holds the record of {}", record.sandbox)),
            Err(error) => Err(error.to_string()),
        };
        found.push((path, record));
    }
    Ok(found)
}

/// The record of one pod as it is now.
///
/// # Errors
/// When there is none, or it can't be read.
pub fn read_one(dir: &Path, sandbox: &SandboxId) -> io::Result<Record> {
    read_file(&file_of(dir, sandbox))
}

fn read_file(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn set_aside(path: &Path, why: &str) {
    tracing::error!(file = %path.display(), why, "a record of a pod can't be used; set aside");
    let _stays = std::fs::rename(path, path.with_extension("unreadable"));
}

/// Writes a file so that a reader sees the old content or the new, never a part, also after a power cut.
///
/// # Errors
/// What the file system says.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    let written: io::Result<()> = write();
    written.context(|| format!("write {}", path.display())).inspect_err(|_| {
        let _none = std::fs::remove_file(&temporary);
    })
}
