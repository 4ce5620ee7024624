//! What every translation begins and ends with: objects out of files, and objects and a report for people.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;
use weft_k8s::parse::yaml;

use super::report::{Level, Report};
use super::write::{self, Document};
use crate::{Output, validate};

#[derive(Debug, clap::Args)]
pub(super) struct Ending {
    /// End with 0 although something was left out
    #[arg(long)]
    accept_omissions: bool,
    /// Write files into this directory, which must be empty or not there, in place of standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How to print the report: to standard output with --out, else to standard error
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Ending {
    /// Writes the objects and the report; ends with 1 if something was left out.
    ///
    /// # Errors
    /// What can't be written.
    pub(super) fn give(&self, documents: &[Document], report: &Report) -> anyhow::Result<ExitCode> {
        write::write(documents, self.out.as_deref())?;
        let text = self.output.show(report)?;
        if self.out.is_some() {
            super::print(&text)?
        } else {
            eprint!("{text}")
        }
        let failed = report.is_incomplete() && !self.accept_omissions;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Takes the objects of files and directories. A field that is there twice is reported under the object's `name`.
///
/// # Errors
/// What can't be read, with the file's name.
pub(super) fn objects(
    paths: &[PathBuf],
    report: &mut Report,
    name: impl Fn(&Value) -> String,
    mut add: impl FnMut(Value, &mut Report),
) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for path in paths {
        validate::read(path, &mut files).with_context(|| format!("cannot read {}", path.display()))?;
    }
    for (file, text) in files {
        take(&text, report, &name, &mut add).with_context(|| file.clone())?;
    }
    Ok(())
}

/// Takes the objects of one file.
///
/// # Errors
/// What is no YAML.
pub(super) fn take(
    text: &str,
    report: &mut Report,
    name: impl Fn(&Value) -> String,
    mut add: impl FnMut(Value, &mut Report),
) -> anyhow::Result<()> {
    for document in yaml::documents(text)? {
        for (field, _, _) in &document.repeated {
            let (object, why) = (name(&document.value), "is there twice; one of the two was read");
            report.say(Level::LeftOut, (&object, field, ""), why, "remove one of them");
        }
        add(document.value, report);
    }
    Ok(())
}

/// A text of an object; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
