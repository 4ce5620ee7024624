//! What plugin and agent share: the codes of the CNI specification, and two kinds of files.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_api::weft::agent::v1 as wire;
use weft_core::ids::Namespace;

use crate::agent::PodRef;

/// Error codes of a CNI result (spec 1.1.0, section 5, "Error"); from 100 on they are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: the version of the configuration isn't spoken here.
    IncompatibleVersion,
    /// 3: the runtime asks about a container nobody added.
    UnknownContainer,
    /// 4: a CNI_* variable is missing or wrong.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: the input can't be parsed.
    Decode,
    /// 7: the configuration makes no sense.
    InvalidConfig,
    /// 11: the runtime should call again.
    TryAgainLater,
    /// 50: ADD can't be served at the moment (STATUS).
    Unavailable,
    /// 100: rules of a pod can't be set or aren't what they should be.
    Rules,
}

impl Code {
    /// As it is in the result.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::Unavailable => 50,
            Self::Rules => 100,
        }
    }
}

/// Why a call failed, as the runtime shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The number of a [`Code`].
    pub code: u32,
    /// What failed.
    pub message: String,
    /// What to look at or do.
    pub details: String,
}

impl Failed {
    /// Without details.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code: code.number(), message: message.to_string(), details: String::new() }
    }

    /// With something to look at or do.
    #[must_use]
    pub fn details(mut self, details: impl fmt::Display) -> Self {
        self.details = details.to_string();
        self
    }
}

impl From<Failed> for wire::Failure {
    fn from(failed: Failed) -> Self {
        Self { code: failed.code, message: failed.message, details: failed.details }
    }
}

impl From<wire::Failure> for Failed {
    fn from(wire: wire::Failure) -> Self {
        Self { code: wire.code, message: wire.message, details: wire.details }
    }
}

/// What the plugin knows of enrolment when it can't ask the agent: the namespaces that are wholly outside, where
/// neither the namespace nor any pod of it asks for the mesh, on whichever node.
///
/// A list of what may pass, not of what may not: a namespace that was made since is in neither, and must wait. It is as
/// of when the agent last wrote it: that one of these namespaces has been labelled since, or has its first pod with a
/// label of its own, the plugin doesn't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentFile {
    version: u32,
    namespaces_outside: BTreeSet<Namespace>,
}

impl EnrolmentFile {
    const VERSION: u32 = 1;

    /// With these namespaces.
    pub fn new(namespaces_outside: impl IntoIterator<Item = Namespace>) -> Self {
        Self { version: Self::VERSION, namespaces_outside: namespaces_outside.into_iter().collect() }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When there is none, or it is of another version or no JSON.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        if file.version != Self::VERSION {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {} is not known", file.version)));
        }
        Ok(file)
    }

    /// The namespaces that are wholly outside.
    pub fn into_namespaces(self) -> BTreeSet<Namespace> {
        self.namespaces_outside
    }

    /// Whether no pod of the namespace was in the mesh, nor asked for it, when this was written.
    pub fn is_outside(&self, namespace: &Namespace) -> bool {
        self.namespaces_outside.contains(namespace)
    }
}

/// A pod that the plugin let pass while the agent was down; the agent takes it over when it is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Missed {
    /// CNI_CONTAINERID
    pub container_id: String,
    /// CNI_IFNAME
    pub interface: String,
    /// CNI_NETNS
    pub netns_path: PathBuf,
    /// Who it is.
    pub pod: PodRef,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

impl Missed {
    /// Leaves the note in a directory, which is made.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = Self::path(dir, &self.container_id, &self.interface);
        crate::agent::write_atomically(&path, &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Removes the note of a pod that was deleted before the agent came back.
    pub fn remove(dir: &Path, container_id: &str, interface: &str) {
        let _none = std::fs::remove_file(Self::path(dir, container_id, interface));
    }

    /// Every note, readable or not; none when there is no directory.
    pub fn read_all(dir: &Path) -> Vec<(PathBuf, io::Result<Self>)> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let notes = paths.filter(|path| path.extension().is_some_and(|e| e == "json"));
        notes
            .map(|path| {
                let read = std::fs::read(&path).and_then(|b| Ok(serde_json::from_slice(&b)?));
                (path, read)
            })
            .collect()
    }

    /// As the plugin would have sent it.
    pub fn into_attachment(self) -> wire::Attachment {
        wire::Attachment {
            container_id: self.container_id,
            interface: self.interface,
            netns_path: self.netns_path.to_string_lossy().into_owned(),
            pod: Some((&self.pod).into()),
            ips: self.ips.iter().map(ToString::to_string).collect(),
        }
    }

    fn path(dir: &Path, container_id: &str, interface: &str) -> PathBuf {
        dir.join(format!("{container_id}-{interface}.json"))
    }
}
