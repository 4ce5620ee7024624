//! `weft validate`: checks manifests as the controller would, without a cluster.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use weft_k8s::index::IndexConfig;
use weft_k8s::parse::{Finding, Severity, validate};
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};

use crate::Output;

/// Manifests to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, or directories that are read with all `.yaml`, `.yml` and `.json` below them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Judge Gateways as in a cluster, where each has addresses of its own; left out: on one machine, whose ports they share.
    #[arg(long)]
    cluster: bool,
    /// How to print what was found.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Prints the findings; fails if one of them is an error.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &args.paths {
        read(path, &mut files).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let place = if args.cluster { Place::Cluster } else { Place::Machine { addresses: Vec::new() } };
    let findings = check(&files, place);
    let text = args.output.show_as(&findings, |findings| shown(findings, files.len()))?;
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("standard output")?,
    }
    let failed = findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that can be said against files, each a name and a text, with Gateways in that place.
pub fn check(files: &[(String, String)], place: Place) -> Vec<Finding> {
    let gateways = GatewaySettings { place, check: KeyPairCheck(weft_tls::check_key_pair) };
    validate(files, IndexConfig { gateways: Some(gateways), ..IndexConfig::default() })
}

fn shown(findings: &[Finding], files: usize) -> String {
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    format!("{lines}{files} files, {errors} errors, {warnings} warnings\n")
}

/// Reads a file, or all manifests of a directory, with their names.
pub fn read(path: &Path, files: &mut Vec<(String, String)>) -> io::Result<()> {
    if !path.is_dir() {
        files.push((path.display().to_string(), fs::read_to_string(path)?));
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if !hidden && (path.is_dir() || manifest) {
            read(&path, files)?;
        }
    }
    Ok(())
}
