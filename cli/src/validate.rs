//! `weft validate`: checks manifests as the controller would, without a cluster.

use std::fs;
use std::io;
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
    let place = Place::Machine { addresses: Vec::new() };
    let gateways = GatewaySettings { place, check: KeyPairCheck(weft_tls::check_key_pair) };
    let findings = validate(&files, IndexConfig { gateways: Some(gateways), ..IndexConfig::default() });
    match args.output {
        Output::Text => print(&findings, files.len()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
    }
    let failed = findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(findings: &[Finding], files: usize) {
    for finding in findings {
        println!("{finding}");
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    println!("{files} files, {errors} errors, {warnings} warnings");
}

fn read(path: &Path, files: &mut Vec<(String, String)>) -> io::Result<()> {
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
