//! Objects as YAML: all of them on standard output, or in files of a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::Document;

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
        text.push_str(&serde_norway::to_string(&document.object).context("an object")?);
    }
    Ok(text)
}

/// Writes to standard output, or into a directory that is empty or not there.
///
/// # Errors
/// What can't be written.
pub fn write(documents: &[Document], out: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = out else {
        return crate::migrate::print(&yaml(documents.iter())?);
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
