//! Manifests in the documentation and in `examples/` are valid, and the quickstart is as short as it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};

use weft_k8s::index::IndexConfig;
use weft_k8s::parse::{Severity, validate};

fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// What is wrong with manifests. That a Deployment means nothing to the mesh is a note, and right.
fn mistakes(files: &[(String, String)]) -> Vec<String> {
    let findings = validate(files, IndexConfig::default()).into_iter();
    findings.filter(|finding| finding.severity != Severity::Note).map(|finding| finding.to_string()).collect()
}

/// The fenced blocks of a language.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    markdown.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Services that pages suppose to be there, besides the namespace of the shop: namespace, name, port.
const ELSEWHERE: [(&str, &str, u16); 5] = [
    ("monitoring", "collector", 4317),
    ("bookinfo", "reviews", 9080),
    ("bookinfo", "reviews-v1", 9080),
    ("bookinfo", "reviews-v2", 9080),
    ("bookinfo", "reviews-v3", 9080),
];

fn elsewhere() -> (String, String) {
    // A policy of the root namespace names it.
    let shop = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n".to_owned();
    let services = ELSEWHERE.map(|(namespace, name, port)| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{ports: [{{name: a, port: {port}}}]}}}}\n"
        )
    });
    ("elsewhere".to_owned(), [shop].into_iter().chain(services).collect::<Vec<_>>().join("---\n"))
}

#[test]
fn manifests_in_the_documentation_are_valid() {
    let mut manifests = Vec::new();
    for (path, text) in files("docs", "md").into_iter().chain(files("docs/guides", "md")) {
        let whole = blocks(&text, "yaml").into_iter().filter(|block| block.starts_with("apiVersion:"));
        manifests.extend(whole.enumerate().map(|(number, block)| (format!("{path} block {number}"), block)));
    }
    assert!(manifests.len() >= 4, "only {} manifests were found", manifests.len());
    for manifest in manifests {
        assert_eq!(mistakes(&[manifest, elsewhere()]), Vec::<String>::new());
    }
}

#[test]
fn the_manifests_of_the_quickstart_are_valid_together() {
    assert_eq!(mistakes(&files("examples/quickstart", "yaml")), Vec::<String>::new());
}

#[test]
fn the_quickstart_takes_ten_commands() {
    let quickstart = files("docs", "md").into_iter().find(|(path, _)| path.ends_with("quickstart.md")).unwrap().1;
    let blocks = blocks(&quickstart, "bash");
    let commands: Vec<_> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!((1..=10).contains(&commands.len()), "{commands:#?}");
    for command in commands {
        assert!(command.starts_with("kubectl ") || command.starts_with("helm "), "{command}");
        // Whatever it names of the repository is there.
        for path in command.split(' ').filter(|word| word.starts_with("examples/") || word.starts_with("charts/")) {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).exists(), "{command}");
        }
    }
}
