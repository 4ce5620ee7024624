//! Statuses as files: what a cluster would show under `status`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::state::write_whole;
use crate::object::{ObjectRef, StatusUpdate};

/// Longest file name of the usual file systems, with room for a temporary name.
const MAX_NAME: usize = 220;

/// Writes `<kind>.<namespace>.<name>.yaml` files into one directory.
#[derive(Debug)]
pub(super) struct StatusFiles {
    dir: PathBuf,
    /// What was written, to keep the times of conditions that did not change.
    written: HashMap<ObjectRef, Value>,
}

impl StatusFiles {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), written: HashMap::new() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, object: &ObjectRef) -> PathBuf {
        let kind = object.kind.as_str().to_lowercase();
        let mut name = match object.namespace.as_str() {
            "" => format!("{kind}.{}", object.name),
            ns => format!("{kind}.{ns}.{}", object.name),
        };
        if name.len() > MAX_NAME {
            use sha2::{Digest, Sha256};
            let digest = Sha256::digest(name.as_bytes());
            let tag: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
            // Names are ASCII: they were checked when the object was read.
            name = format!("{}-{tag}", name.get(..MAX_NAME - 20).unwrap_or_default());
        }
        self.dir.join(format!("{name}.yaml"))
    }

    /// Writes a status; `now` in RFC 3339 is the time of conditions that changed.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&mut self, update: &StatusUpdate, now: &str) -> io::Result<()> {
        let path = self.path(&update.object);
        let before = self.written.remove(&update.object).or_else(|| read(&path));
        let value = document(update, before.as_ref(), now);
        let text = serde_norway::to_string(&value).map_err(io::Error::other)?;
        write_whole(&path, text.as_bytes())?;
        self.written.insert(update.object.clone(), value);
        Ok(())
    }

    /// Removes the status of an object that is gone.
    pub(super) fn remove(&mut self, object: &ObjectRef) {
        self.written.remove(object);
        let _ = std::fs::remove_file(self.path(object));
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_norway::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn document(update: &StatusUpdate, before: Option<&Value>, now: &str) -> Value {
    let object = &update.object;
    let mut metadata = json!({ "name": object.name, "generation": update.generation });
    if !object.namespace.as_str().is_empty()
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("namespace".into(), json!(object.namespace));
    }
    json!({
        "apiVersion": object.kind.api_version(),
        "kind": object.kind.as_str(),
        "metadata": metadata,
        "status": update.status.to_json(update.generation, before.and_then(|b| b.get("status")), now),
    })
}
