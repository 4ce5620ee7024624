//! One document to one object.
//!
//! Strict: an unknown field is an error, because a field that is silently ignored is a setting that is silently not
//! there. A policy that can't be read in full is kept as one that denies ([`UNREADABLE`]); any other object that
//! can't be read is named in [`ParsedFile::unreadable`], so that a source can keep what it had.

use std::sync::Arc;

use serde_json::Value;

use super::finding::{Finding, Severity};
use super::yaml::{Document, LineTree};
use super::{Located, ParsedFile, schema};
use crate::object::policy::{AuthorizationPolicySpec, MeshPolicySpec};
use crate::object::{
    AuthorizationPolicy, GATEWAY_GROUP, Kind, MeshPolicy, Object, ObjectRef, Placement, TelemetryPolicy,
    TelemetryPolicySpec, WEFT_GROUP,
};
use crate::translate::authz::UNREADABLE;
use crate::translate::did_you_mean;

/// Versions with the very same fields as the one that is read: accepted, with a warning.
const SAME_AS_CURRENT: [(&str, &str); 4] =
    [("HTTPRoute", "v1beta1"), ("Gateway", "v1beta1"), ("GatewayClass", "v1beta1"), ("ReferenceGrant", "v1beta1")];
/// Most names that a remedy lists.
const LISTED_FIELDS: usize = 16;

/// Reads a document, or each item of a `List`.
pub(super) fn document(file: &Arc<str>, doc: Document, out: &mut ParsedFile) {
    let Document { value, lines, repeated } = doc;
    if value.is_null() {
        return;
    }
    if value.get("kind").and_then(Value::as_str) == Some("List") {
        let Some(Value::Array(items)) = value.get("items") else { return };
        for (i, item) in items.iter().enumerate() {
            let lines = lines.child("items").and_then(|l| l.item(i)).cloned().unwrap_or_default();
            object(&mut Reading::new(file, lines, out), item, &[]);
        }
        return;
    }
    object(&mut Reading::new(file, lines, out), &value, &repeated);
}

/// The state of reading one object.
struct Reading<'a> {
    file: &'a Arc<str>,
    lines: LineTree,
    out: &'a mut ParsedFile,
    name: Option<String>,
    errors: Vec<String>,
}

impl<'a> Reading<'a> {
    fn new(file: &'a Arc<str>, lines: LineTree, out: &'a mut ParsedFile) -> Self {
        Self { file, lines, out, name: None, errors: Vec::new() }
    }

    fn say(&mut self, severity: Severity, field: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let line = self.lines.line_of(field).max(1);
        self.say_at(line, severity, field, (message.into(), remedy.into()));
    }

    fn say_at(&mut self, line: usize, severity: Severity, field: &str, (message, remedy): (String, String)) {
        if severity == Severity::Error {
            let at = if field.is_empty() { String::new() } else { format!("{field}: ") };
            self.errors.push(format!("{at}{message}"));
        }
        self.out.findings.push(Finding {
            severity,
            file: Arc::clone(self.file),
            line,
            object: self.name.clone(),
            field: field.into(),
            message,
            remedy,
        });
    }
}

fn object(reading: &mut Reading<'_>, value: &Value, repeated: &[(String, usize, usize)]) {
    let text = |field: &str| value.get(field).and_then(Value::as_str).filter(|t| !t.is_empty());
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        let message = "not a Kubernetes object: it has no apiVersion and kind";
        reading.say(Severity::Error, "", message, "add them, or keep other files out of this directory");
        return;
    };
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
    reading.name = Some(match namespace {
        Some(ns) => format!("{kind} {ns}/{name}"),
        None => format!("{kind} {name}"),
    });
    let Some(kind) = known_kind(reading, version, kind) else { return };
    let reference = match kind.placement() {
        Placement::Cluster => ObjectRef::new(kind, "", name),
        Placement::Namespaced => ObjectRef::new(kind, namespace.unwrap_or("default"), name),
    };
    reading.name = Some(reference.to_string());
    for (field, line, first) in repeated {
        let message = format!("{field:?} is there twice; the first is at line {first}");
        reading.say_at(*line, Severity::Error, field, (message, "remove one of the two".into()));
    }
    if !named(reading, &reference, namespace) {
        return;
    }
    let read = fields(reading, kind, value);
    let object = match (read, reading.errors.is_empty()) {
        (Some(object), true) => object,
        _ => match policy(kind, value, &reading.errors.join(". ")) {
            Some(denying) => denying,
            None => {
                reading.out.unreadable.push(reference);
                return;
            }
        },
    };
    let lines = Arc::new(std::mem::take(&mut reading.lines));
    reading.out.objects.push(Located { object, file: Arc::clone(reading.file), lines });
}

/// Which kind it is; says why if it is none of ours.
fn known_kind(reading: &mut Reading<'_>, api_version: &str, kind: &str) -> Option<Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(known) = Kind::find(group, kind) {
        if version == known.version() {
            return Some(known);
        }
        let now = known.api_version();
        if SAME_AS_CURRENT.contains(&(kind, version)) {
            let message = format!("{api_version} is an old version with the same fields: it is read as {now}");
            reading.say(Severity::Warning, "apiVersion", message, format!("write apiVersion: {now}"));
            return Some(known);
        }
        let message = format!("{kind} is read in version {now}, not {api_version}");
        reading.say(Severity::Error, "apiVersion", message, format!("write apiVersion: {now} and check the fields"));
        return None;
    }
    let ours = Kind::ALL.iter().copied().filter(|k| k.group() == group);
    if let Some(near) = did_you_mean(kind, ours.clone().map(Kind::as_str)) {
        let message = format!("{api_version} has no kind {kind:?} that is read here");
        reading.say(Severity::Error, "kind", message, format!("did you mean {near}?"));
        return None;
    }
    let same_name = Kind::ALL.iter().copied().find(|k| k.as_str() == kind);
    match same_name {
        // A kind of ours under another of our groups can only be a mistake; under a foreign group it is another kind.
        Some(k) if ["", GATEWAY_GROUP, WEFT_GROUP, "discovery.k8s.io"].contains(&group) => {
            let message = format!("{kind} is not a kind of {api_version}");
            reading.say(Severity::Error, "apiVersion", message, format!("write apiVersion: {}", k.api_version()));
        }
        _ if [GATEWAY_GROUP, WEFT_GROUP].contains(&group) => {
            let known = ours.map(Kind::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("{api_version} has no kind {kind:?} that is read here");
            reading.say(Severity::Error, "kind", message, format!("kinds that are: {known}"));
        }
        _ if is_builtin(group) => {
            let message = format!("{api_version} {kind} has no meaning for the mesh and is passed over");
            reading.say(Severity::Note, "", message, "");
        }
        _ => {
            let message = format!("{api_version} {kind} is not read by Weft and is passed over");
            reading.say(Severity::Warning, "", message, "nothing to do if it is for another program");
        }
    }
    None
}

/// Groups of Kubernetes itself.
fn is_builtin(group: &str) -> bool {
    !group.contains('.') || (group.ends_with(".k8s.io") && !group.contains("gateway"))
}

/// Whether the object is named as Kubernetes would have it.
fn named(reading: &mut Reading<'_>, reference: &ObjectRef, namespace: Option<&str>) -> bool {
    let label = |t: &str| {
        (1..=63).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !t.starts_with('-')
            && !t.ends_with('-')
    };
    let name = reference.name.as_str();
    let remedy = "use lower-case letters, digits and dashes";
    if name.is_empty() {
        reading.say(Severity::Error, "metadata.name", "is missing", "name the object; generateName is not supported");
        return false;
    }
    if name.len() > 253 || !name.split('.').all(label) {
        reading.say(Severity::Error, "metadata.name", format!("{name:?} is not a name"), remedy);
        return false;
    }
    match namespace {
        Some(ns) if !label(ns) => {
            reading.say(Severity::Error, "metadata.namespace", format!("{ns:?} is not a namespace"), remedy);
            return false;
        }
        Some(_) if reference.kind.placement() == Placement::Cluster => {
            let message = format!("a {} has no namespace", reference.kind.as_str());
            reading.say(Severity::Warning, "metadata.namespace", message, "remove it");
        }
        _ => {}
    }
    true
}

/// Reads all fields; unknown ones and those of a wrong type are errors.
fn fields(reading: &mut Reading<'_>, kind: Kind, value: &Value) -> Option<Object> {
    let mut unknown: Vec<Vec<String>> = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(steps(&path));
    let mut track = serde_path_to_error::Track::new();
    let ignoring = serde_ignored::Deserializer::new(value, &mut note);
    let read = Object::deserialize(kind, serde_path_to_error::Deserializer::new(ignoring, &mut track));
    // A status is not the user's to write; the types of custom resources pass over what names them.
    let passed = |first: &String| ["status", "apiVersion", "kind"].contains(&first.as_str());
    for path in unknown.iter().filter(|p| !p.first().is_some_and(passed)) {
        let Some((last, parent)) = path.split_last() else { continue };
        let known = schema::fields_at(kind, parent);
        let remedy = match did_you_mean(last, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None if known.is_empty() => "remove it".into(),
            None if known.len() > LISTED_FIELDS => "remove it".into(),
            None => format!("remove it; fields here: {}", known.join(", ")),
        };
        reading.say(Severity::Error, &dotted(path), format!("unknown field {last:?}"), remedy);
    }
    match read {
        Ok(object) => Some(object),
        Err(e) => {
            let path = track.path().to_string();
            let path = if path == "." { String::new() } else { path };
            reading.say(Severity::Error, &path, e.to_string(), "correct the value; see the reference of the kind");
            None
        }
    }
}

fn steps(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, index } => {
            let mut at = steps(parent);
            at.push(index.to_string());
            at
        }
        Path::Map { parent, key } => {
            let mut at = steps(parent);
            at.push(key.clone());
            at
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => steps(parent),
    }
}

fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        if step.parse::<usize>().is_ok() {
            text.push_str(&format!("[{step}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(step);
        }
    }
    text
}

/// Makes a policy that can't be read into one that says so, keeping what can be: its targets, that it only audits, and its
/// status, by which is seen whether a new one has to be written. `None` for other kinds.
fn policy(kind: Kind, value: &Value, why: &str) -> Option<Object> {
    let metadata = value.get("metadata").cloned().and_then(|m| serde_json::from_value(m).ok());
    let mut metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
        metadata.unwrap_or_else(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: value.pointer("/metadata/name").and_then(Value::as_str).map(Into::into),
            namespace: value.pointer("/metadata/namespace").and_then(Value::as_str).map(Into::into),
            ..Default::default()
        });
    metadata.annotations.get_or_insert_default().insert(UNREADABLE.into(), why.into());
    fn part<T: serde::de::DeserializeOwned>(value: &Value, pointer: &str) -> Option<T> {
        value.pointer(pointer).cloned().and_then(|v| serde_json::from_value(v).ok())
    }
    match kind {
        Kind::AuthorizationPolicy => {
            let spec = AuthorizationPolicySpec {
                target_refs: part(value, "/spec/targetRefs"),
                action: part(value, "/spec/action").unwrap_or_default(),
                mode: part(value, "/spec/mode").unwrap_or_default(),
                rules: Vec::new(),
            };
            Some(AuthorizationPolicy { metadata, spec, status: part(value, "/status") }.into())
        }
        Kind::MeshPolicy => {
            // What can't be read of an enforced policy must not become something that a namespace's own can open.
            let enforced = value.pointer("/spec/enforced").filter(|said| !said.is_null());
            let spec = MeshPolicySpec {
                target_refs: part(value, "/spec/targetRefs"),
                enforced: enforced.map(|said| *said != Value::Bool(false)),
                ..MeshPolicySpec::default()
            };
            Some(MeshPolicy { metadata, spec, status: part(value, "/status") }.into())
        }
        Kind::TelemetryPolicy => {
            let target_refs = part(value, "/spec/targetRefs");
            let spec = TelemetryPolicySpec { target_refs, ..TelemetryPolicySpec::default() };
            Some(TelemetryPolicy { metadata, spec, status: part(value, "/status") }.into())
        }
        _ => None,
    }
}

/// An object that an API server has already checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The object; a policy that can't be read in full is one that denies.
    pub object: Object,
    /// Fields that are not known here, as `spec.rules[0].cors`: what they ask for isn't done.
    pub unknown: Vec<String>,
}

/// Reads an object that an API server has already checked, leniently: fields that are not known here are named. In a
/// policy such a field may be a condition, so the policy then denies ([`UNREADABLE`]).
///
/// # Errors
/// Why it can't be read, with the field, for kinds that are not policies.
pub fn decode_checked(kind: Kind, value: &Value) -> Result<Checked, String> {
    let mut unknown: Vec<String> = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        let steps = steps(&path);
        // What the API server, the status's writers and kubectl add is not the author's.
        if steps.first().is_some_and(|first| first == "spec") {
            unknown.push(dotted(&steps));
        }
    };
    let mut track = serde_path_to_error::Track::new();
    let ignoring = serde_ignored::Deserializer::new(value, &mut note);
    let read = Object::deserialize(kind, serde_path_to_error::Deserializer::new(ignoring, &mut track));
    let read = read.map_err(|error| format!("{}: {error}", track.path()));
    let why = match &read {
        Ok(_) if unknown.is_empty() => String::new(),
        Ok(_) => format!("{}: not known to this version", unknown.join(", ")),
        Err(error) => error.clone(),
    };
    let denying = if why.is_empty() { None } else { policy(kind, value, &why) };
    let object = denying.map_or(read, Ok)?;
    Ok(Checked { object, unknown })
}
