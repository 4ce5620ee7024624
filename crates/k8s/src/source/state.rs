//! What an API server would remember of objects: uid, creation time, generation; kept in a file over restarts.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::object::{Object, ObjectRef};

/// What is remembered of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    uid: String,
    created: i64,
    generation: i64,
    /// Hash of everything but metadata and status.
    spec: String,
}

/// All memories, by `Kind namespace/name`.
#[derive(Debug, Default)]
pub(super) struct State {
    path: PathBuf,
    known: BTreeMap<String, Memory>,
    changed: bool,
}

impl State {
    /// Reads the file; a missing one is empty, and one that can't be read is put aside, because objects without a
    /// memory only count as new.
    pub(super) fn load(path: &Path) -> Self {
        let known = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|e| {
                let aside = path.with_extension("broken");
                tracing::warn!(file = %path.display(), aside = %aside.display(), error = %e, "state of the directory source can't be read; put aside");
                let _ = std::fs::rename(path, &aside);
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { path: path.to_owned(), known, changed: false }
    }

    /// Completes the metadata of an object. What the manifest says itself stays.
    pub(super) fn complete(&mut self, object: &mut Object, now: i64) {
        let key = object.reference().to_string();
        let spec = fingerprint(object);
        let memory = match self.known.get_mut(&key) {
            Some(memory) => {
                if memory.spec != spec {
                    memory.generation += 1;
                    memory.spec = spec;
                    self.changed = true;
                }
                memory
            }
            None => {
                self.changed = true;
                let uid = uid(&key, now);
                self.known.entry(key).or_insert(Memory { uid, created: now, generation: 1, spec })
            }
        };
        let (uid, created, generation) = (memory.uid.clone(), memory.created, memory.generation);
        let meta = object.meta_mut();
        meta.uid.get_or_insert(uid);
        meta.generation.get_or_insert(generation);
        if meta.creation_timestamp.is_none() {
            meta.creation_timestamp = Timestamp::from_second(created).ok().map(Time);
        }
    }

    /// Forgets all objects but these: one that comes back later is a new one.
    pub(super) fn retain(&mut self, there: impl Fn(&str) -> bool) {
        let before = self.known.len();
        self.known.retain(|key, _| there(key));
        self.changed |= self.known.len() != before;
    }

    /// Writes the file if something changed.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if self.changed {
            write_whole(&self.path, &serde_json::to_vec_pretty(&self.known)?)?;
            self.changed = false;
        }
        Ok(())
    }
}

/// The key of [`State::retain`].
pub(super) fn key(reference: &ObjectRef) -> String {
    reference.to_string()
}

/// Replaces a file in one step: readers see the old content or the new.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let next = path.with_file_name(format!(".{name}.{}.next", std::process::id()));
    let mut file = std::fs::File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

fn fingerprint(object: &Object) -> String {
    let mut value = object.to_json();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("metadata");
        fields.remove("status");
    }
    hex(&Sha256::digest(value.to_string().as_bytes()), 16)
}

/// A uid in the form of the API server; a later object of the same name has another. Nobody can tell it beforehand, as that of
/// an API server: keys are derived from it.
fn uid(key: &str, now: i64) -> String {
    let (chance, more) = (RandomState::new().hash_one(now), RandomState::new().hash_one(key));
    let text = hex(&Sha256::digest(format!("{key} {now} {chance:x} {more:x}").as_bytes()), 16);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|b| format!("{b:02x}")).collect()
}
