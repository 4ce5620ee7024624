//! Objects as YAML: all of them on standard output, or in files of a directory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::files::text;

/// An object, and the file that it goes into.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub file: String,
    pub object: Value,
}

impl Document {
    /// The object as reports name it, `HTTPRoute shop/web`; without a slash if it has no namespace.
    pub fn label(&self) -> String {
        let text = |pointer: &str| text(&self.object, pointer);
        match text("/metadata/namespace") {
            "" => format!("{} {}", text("/kind"), text("/metadata/name")),
            namespace => format!("{} {namespace}/{}", text("/kind"), text("/metadata/name")),
        }
    }
}

/// Gives each object a name that no other of its kind has: an object may be named as the second of another would be.
pub fn unique(documents: &mut [Document]) {
    let mut seen = BTreeSet::new();
    for document in documents {
        let base = document.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut number = 1;
        while !seen.insert(document.label()) {
            number += 1;
            if let Some(name) = document.object.pointer_mut("/metadata/name") {
                *name = Value::String(format!("{base}-{number}"));
            }
        }
    }
}

/// Documents as one text.
///
/// # Errors
/// None that can happen: the objects have keys that are text.
pub fn yaml<'a>(documents: impl Iterator<Item = &'a Document>) -> anyhow::Result<String> {
    let mut text = String::new();
    for document in documents {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        let object = serde_norway::to_string(&document.object).context("an object")?;
        object.lines().for_each(|line| text.extend([&*for_yaml_1_1(line), "\n"]));
    }
    Ok(text)
}

/// A line with a text in quotes that is a yes or a no in YAML 1.1, which kubectl reads, and a text in YAML 1.2.
fn for_yaml_1_1(line: &str) -> Cow<'_, str> {
    const WORDS: [&str; 8] = ["y", "yes", "n", "no", "on", "off", "true", "false"];
    let (before, word) = match (line.rsplit_once(": "), line.rsplit_once("- ")) {
        (Some((key, word)), _) => (format!("{key}: "), word),
        (None, Some((indent, word))) if indent.trim().is_empty() => (format!("{indent}- "), word),
        _ => return Cow::Borrowed(line),
    };
    // Real ones are written as true and false.
    let is_word = WORDS.iter().any(|it| word.eq_ignore_ascii_case(it)) && !["true", "false"].contains(&word);
    if is_word { Cow::Owned(format!("{before}'{word}'")) } else { Cow::Borrowed(line) }
}

/// Writes to standard output, or into a directory that is empty or not there.
///
/// # Errors
/// What can't be written.
pub fn write(documents: &[Document], out: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = out else {
        return super::print(&yaml(documents.iter())?);
    };
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!(
                    "--out {}: the directory isn't empty; what is there could be mistaken for what is made",
                    folder.display()
                );
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
        }
        Err(error) => return Err(error).with_context(|| format!("--out {}", folder.display())),
    }
    let mut files: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
    for document in documents {
        files.entry(&document.file).or_default().push(document);
    }
    for (name, documents) in files {
        let path = folder.join(name);
        fs::write(&path, yaml(documents.into_iter())?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_a_text_to_readers_of_either_version_of_yaml() {
        let object =
            json!({ "a": "yes", "b": ["no", "Off", "n", "true", "x: y"], "c": true, "d": "12", "e": "line\nyes" });
        let text = yaml([Document { file: String::new(), object: object.clone() }].iter()).unwrap();
        for line in ["a: 'yes'", "- 'no'", "- 'Off'", "- 'n'", "- 'true'", "c: true"] {
            assert!(text.lines().any(|it| it == line), "{line}:\n{text}");
        }
        assert_eq!(serde_norway::from_str::<Value>(&text).unwrap(), object, "{text}");
    }
}
