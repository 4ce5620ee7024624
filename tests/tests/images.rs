//! What makes the images: the script that needs no builder, and the Dockerfile for people who have one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const PROGRAMS: [&str; 6] = ["weft", "weft-cni", "weft-agent", "weft-node-proxy", "weft-controller", "weft-ca"];
/// `e_machine` of ELF headers.
const X86_64: u8 = 62;
const AARCH64: u8 = 183;

fn script(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/build.py");
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new("python3").arg(script).args(arguments).env("PATH", path).output().expect("python3")
}

/// What `build.py` runs the images as.
fn described() -> BTreeMap<String, Value> {
    let output = script(&["describe", "0.1.0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the Dockerfile runs its last stages as, by their names.
fn written() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/Dockerfile")).unwrap();
    let text = text.replace("\\\n", " ");
    let (mut stages, mut version) = (BTreeMap::new(), "");
    let mut name = "";
    for line in text.lines() {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line, ""));
        let stage = stages.entry(name).or_insert_with(|| json!({ "Labels": {}, "Env": [] }));
        match word {
            "ARG" if name.is_empty() => version = rest.strip_prefix("VERSION=").unwrap_or_default(),
            "FROM" => name = rest.split_once(" AS ").expect("a stage with a name").1,
            "USER" => stage["User"] = json!(rest),
            "ENV" => stage["Env"].as_array_mut().unwrap().push(json!(rest)),
            "ENTRYPOINT" => stage["Entrypoint"] = serde_json::from_str(rest).unwrap(),
            "COPY" if name != "build" => assert_eq!(rest, format!("--from=build /root-of/{name} /"), "{name}"),
            "LABEL" => {
                for (key, value) in rest.split_whitespace().map(|label| label.split_once('=').unwrap()) {
                    stage["Labels"][key] = json!(value.replace("$VERSION", version));
                }
            }
            _ => {}
        }
    }
    stages.into_iter().filter(|(name, _)| !["", "build"].contains(name)).map(|(n, s)| (n.to_owned(), s)).collect()
}

#[test]
fn the_dockerfile_makes_the_same_images_as_the_script() {
    let (script, file) = (described(), written());
    assert_eq!(script.keys().collect::<Vec<_>>(), file.keys().collect::<Vec<_>>());
    for (name, settings) in script {
        assert_eq!(file[&name], settings, "{name}");
    }
}

#[test]
fn both_have_the_version_of_the_chart() {
    let chart =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft/Chart.yaml")).unwrap();
    let chart: Value = serde_norway::from_str(&chart).unwrap();
    let version = &written()["weft"]["Labels"]["org.opencontainers.image.version"];
    assert_eq!(*version, chart["appVersion"], "ARG VERSION of the Dockerfile");
}

/// The header of a static program without any code, for `machine`; with `loader`, of one that asks for a loader.
fn program(machine: u8, loader: bool) -> Vec<u8> {
    let mut bytes = vec![0_u8; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = machine;
    // One entry of 56 bytes right behind: PT_INTERP or PT_LOAD.
    (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
    bytes[64] = if loader { 3 } else { 1 };
    bytes
}

fn binaries(folder: &Path, odd: &[u8]) -> PathBuf {
    let at = folder.join("binaries");
    std::fs::create_dir_all(&at).unwrap();
    for name in PROGRAMS {
        std::fs::write(at.join(name), program(X86_64, false)).unwrap();
    }
    if !odd.is_empty() {
        std::fs::write(at.join("weft-ca"), odd).unwrap();
    }
    at
}

/// Runs the script; its images, or what it said.
fn images(folder: &Path, binaries: &Path, name: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let out = folder.join(name);
    let output = script(&[out.to_str().unwrap(), binaries.to_str().unwrap(), "7", "amd64"]);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let files = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    Ok(files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect())
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_same_programs_give_the_same_bytes_and_one_archive_for_each_component() {
    let folder = tempfile::tempdir().unwrap();
    let from = binaries(folder.path(), &[]);
    let (first, second) = (images(folder.path(), &from, "a").unwrap(), images(folder.path(), &from, "b").unwrap());
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        ["weft-ca.tar", "weft-cni.tar", "weft-controller.tar", "weft-node-proxy.tar", "weft.tar"]
    );
    assert!(first == second, "the same programs gave other bytes");
    let text = String::from_utf8_lossy(&first["weft-ca.tar"]).into_owned();
    for part in ["localhost/weft-ca:7", r#""User": "65532""#, r#""architecture": "amd64""#, "usr/bin/weft-ca"] {
        assert!(text.contains(part), "no {part}");
    }
    std::fs::write(from.join("weft-ca"), [program(X86_64, false), vec![1]].concat()).unwrap();
    let third = images(folder.path(), &from, "c").unwrap();
    let changed: Vec<_> = first.keys().filter(|name| first[*name] != third[*name]).collect();
    assert_eq!(changed, ["weft-ca.tar"]);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_program_that_would_not_run_in_its_image_is_refused() {
    for (odd, why) in [
        (program(X86_64, true), "weft-ca is not static"),
        (program(AARCH64, false), "weft-ca is for machine 183, and amd64 is 62"),
        (b"#!/bin/sh\n".to_vec(), "weft-ca is no 64-bit little-endian ELF program"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let from = binaries(folder.path(), &odd);
        let refused = images(folder.path(), &from, "out").unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}
