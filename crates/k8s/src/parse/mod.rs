//! Text to objects, and all that can be said against a set of manifests.
//!
//! Two kinds of trouble are told apart. A file that is not YAML (or is beyond the limits) is [`ParsedFile::broken`]
//! as a whole: nobody knows what was meant, so a source keeps what it had from it. A single bad document costs that
//! document only; if it is a policy, it becomes one that denies (see [`decode`]).

mod decode;
mod finding;
mod schema;
pub mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use decode::{Checked, decode_checked};
pub use finding::{Finding, Severity};

use crate::index::{Index, IndexConfig};
use crate::object::{Object, ObjectRef};
use crate::translate::Reason;
use yaml::LineTree;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 16 << 20;

/// An object with the place it was read from.
#[derive(Clone, Debug)]
pub struct Located {
    /// The object.
    pub object: Object,
    /// The file.
    pub file: Arc<str>,
    /// Lines of its fields.
    pub lines: Arc<LineTree>,
}

impl Located {
    /// The line of a field, or of the nearest one around it that is there.
    pub fn line_of(&self, field: &str) -> usize {
        self.lines.line_of(field)
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct ParsedFile {
    /// The objects that could be read.
    pub objects: Vec<Located>,
    /// Objects that are named but could not be read; a source keeps what it had of them.
    pub unreadable: Vec<ObjectRef>,
    /// What is wrong with the file.
    pub findings: Vec<Finding>,
    /// Whether the file is malformed as a whole.
    pub broken: bool,
}

/// Reads a file of YAML or JSON documents.
pub fn parse(file: &str, text: &str) -> ParsedFile {
    let mut out = ParsedFile::default();
    let name: Arc<str> = Arc::from(file);
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, more than the limit of {MAX_FILE_BYTES}", text.len());
        out.findings.push(Finding::error(&name, 1, message, "split it into several files"));
        out.broken = true;
        return out;
    }
    match yaml::documents(text) {
        Ok(documents) => documents.into_iter().for_each(|d| decode::document(&name, d, &mut out)),
        Err(e) => {
            out.findings.push(Finding::error(&name, e.line, e.message, e.remedy));
            out.broken = true;
        }
    }
    out
}

/// Takes out objects that an earlier document already defined.
pub fn drop_duplicates(objects: &mut Vec<Located>, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<ObjectRef, (Arc<str>, usize)> = BTreeMap::new();
    objects.retain(|located| {
        let reference = located.object.reference();
        let line = located.line_of("");
        match seen.get(&reference) {
            None => {
                seen.insert(reference, (Arc::clone(&located.file), line));
                true
            }
            Some((file, first)) => {
                let mut finding = Finding::error(
                    &located.file,
                    line,
                    format!("is already defined in {file} at line {first}; this one is ignored"),
                    "remove or rename one of the two",
                );
                finding.object = Some(reference.to_string());
                finding.field = "metadata.name".into();
                findings.push(finding);
                false
            }
        }
    });
}

/// Checks files as a whole: syntax, fields, and everything that the translation would report.
///
/// Findings are sorted by file and line.
pub fn validate(files: &[(String, String)], config: IndexConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut objects = Vec::new();
    for (name, text) in files {
        let parsed = parse(name, text);
        findings.extend(parsed.findings);
        objects.extend(parsed.objects);
    }
    drop_duplicates(&mut objects, &mut findings);
    let mut index = Index::new(config);
    objects.iter().for_each(|l| index.apply(l.object.clone()));
    index.commit();
    findings.extend(semantic(&index, objects.iter()));
    findings.sort_by(|a, b| (&a.file, a.line, a.severity, &a.field).cmp(&(&b.file, b.line, b.severity, &b.field)));
    findings
}

/// The problems of the translation, at the places they come from.
pub fn semantic<'a>(index: &Index, objects: impl Iterator<Item = &'a Located>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for located in objects {
        let reference = located.object.reference();
        // What the parser already said in more detail is not repeated.
        for problem in index.problems(&reference).iter().filter(|p| !p.field.is_empty()) {
            findings.push(Finding {
                severity: if problem.reason == Reason::Note { Severity::Warning } else { Severity::Error },
                file: Arc::clone(&located.file),
                line: located.line_of(&problem.field),
                object: Some(reference.to_string()),
                field: problem.field.clone(),
                message: problem.message.clone(),
                remedy: problem.remedy.clone(),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests;
