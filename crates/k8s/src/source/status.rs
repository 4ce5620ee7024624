//! Statuses as files: what a cluster would show under `status`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::state::write_whole;
use crate::object::{CONTROLLER_NAME, Condition, GATEWAY_GROUP, ObjectRef, ObjectStatus, StatusUpdate};

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

impl ObjectStatus {
    /// The `status` of an object, as the API has it: our entries only. A condition keeps the
    /// `lastTransitionTime` it has in `before` unless its status is another; `now` is in RFC 3339.
    pub fn to_json(&self, generation: i64, before: Option<&Value>, now: &str) -> Value {
        match self {
            Self::Parents(parents) => {
                let entries = parents.iter().map(|p| {
                    let mut reference = json!(p.parent_ref);
                    if let Some(fields) = reference.as_object_mut() {
                        fields.entry("group").or_insert_with(|| json!(GATEWAY_GROUP));
                        fields.entry("kind").or_insert_with(|| json!("Gateway"));
                    }
                    entry("parentRef", reference, &p.conditions, (generation, find(before, "parents"), now))
                });
                json!({ "parents": entries.collect::<Vec<_>>() })
            }
            Self::Ancestors(ancestors) => {
                let entries = ancestors.iter().map(|a| {
                    let context = (generation, find(before, "ancestors"), now);
                    entry("ancestorRef", json!(a.ancestor_ref), &a.conditions, context)
                });
                json!({ "ancestors": entries.collect::<Vec<_>>() })
            }
        }
    }
}

fn find<'a>(before: Option<&'a Value>, list: &str) -> &'a [Value] {
    before.and_then(|b| b.get(list)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn entry(
    name: &str,
    reference: Value,
    conditions: &[Condition],
    (generation, before, now): (i64, &[Value], &str),
) -> Value {
    let ours = |e: &&Value| e.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME);
    let old = before.iter().filter(ours).find(|e| e.get(name) == Some(&reference));
    let since = |c: &Condition, status: &str| {
        let list = old.and_then(|o| o.get("conditions")).and_then(Value::as_array)?;
        let same = |o: &&Value| {
            o.get("type") == Some(&json!(c.kind)) && o.get("status").and_then(Value::as_str) == Some(status)
        };
        list.iter().find(same)?.get("lastTransitionTime")?.as_str().map(str::to_owned)
    };
    let conditions = conditions.iter().map(|c| {
        let status = if c.status { "True" } else { "False" };
        json!({
            "type": c.kind,
            "status": status,
            "observedGeneration": generation,
            "lastTransitionTime": since(c, status).unwrap_or_else(|| now.to_owned()),
            "reason": c.reason,
            "message": c.message,
        })
    });
    let mut made = serde_json::Map::new();
    made.insert(name.to_owned(), reference);
    made.insert("controllerName".into(), json!(CONTROLLER_NAME));
    made.insert("conditions".into(), Value::Array(conditions.collect()));
    Value::Object(made)
}
