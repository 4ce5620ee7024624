//! The structure of the workspace, held by a test: which way dependencies point, where `unsafe` may be, how long files get.
//!
//! Dependencies are those a build of the package alone has (normal ones, with everything behind them, on Linux); what
//! tests and build scripts use is their own business.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand, PackageId};

/// No file that isn't a test is longer; 400 is what to aim at.
const MAX_LINES: usize = 600;
/// What is deployed. None depends on another: what they share is a crate.
const DEPLOYABLES: [&str; 4] = ["weft-node-proxy", "weft-controller", "weft-ca", "weft-cni"];
/// Who must never see what, however far behind.
const NEVER: [(&str, &[&str]); 9] = [
    ("weft-control", &["weft-k8s", "weft-xds", "weft-hbone", "kube", "k8s-openapi"]),
    ("weft-node-proxy", &["kube", "kube-core", "kube-client", "k8s-openapi", "gateway-api", "weft-k8s", "weft-kube"]),
    ("weft-controller", &["weft-hbone"]),
    ("weft-k8s", &["weft-xds", "weft-hbone", "weft-tls", "kube-client"]),
    ("weft-xds", &["weft-k8s", "weft-hbone", "kube", "k8s-openapi", "gateway-api"]),
    ("weft-hbone", &["weft-k8s", "weft-xds", "kube", "k8s-openapi", "gateway-api"]),
    ("weft-core", &["tokio", "hyper", "rustls", "kube", "tonic", "weft-sys", "weft-tls", "weft-k8s", "weft-xds"]),
    ("weft-api", &["weft-core", "tokio", "hyper", "rustls", "kube"]),
    ("weft-sys", &["weft-core", "rustls", "kube", "hyper"]),
];
/// Dependencies with one direct user in the workspace.
const ONLY: [(&str, &str); 2] = [("rustls", "weft-tls"), ("tokio-rustls", "weft-tls")];
/// For tests, and for nothing that is shipped.
const DEV_ONLY: [&str; 3] = ["weft-testkit", "weft-kube-fake", "weft-observability"];

/// Packages by name, with the names of what they depend on.
struct Graph {
    direct: BTreeMap<String, BTreeSet<String>>,
    members: BTreeMap<String, PathBuf>,
}

fn workspace() -> Graph {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let linux = ["--filter-platform", "x86_64-unknown-linux-gnu"].map(str::to_owned).to_vec();
    let metadata = MetadataCommand::new().manifest_path(manifest).other_options(linux).exec().expect("cargo metadata");
    let name = |id: &PackageId| metadata[id].name.to_string();
    let folder =
        |id: &PackageId| metadata[id].manifest_path.parent().expect("a folder").to_path_buf().into_std_path_buf();
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let mut direct: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for node in &resolve.nodes {
        let normal = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
        direct.entry(name(&node.id)).or_default().extend(normal.map(|d| name(&d.pkg)));
    }
    let members = metadata.workspace_members.iter().map(|id| (name(id), folder(id))).collect();
    Graph { direct, members }
}

impl Graph {
    /// The shortest way from one package to another.
    fn path(&self, from: &str, to: &str) -> Option<String> {
        let mut ways = std::collections::VecDeque::from([vec![from]]);
        let mut seen = BTreeSet::from([from]);
        while let Some(way) = ways.pop_front() {
            let last = way.last()?;
            for next in self.direct.get(*last).into_iter().flatten() {
                let longer = [way.as_slice(), &[next]].concat();
                if next == to {
                    return Some(longer.join(" -> "));
                }
                if seen.insert(next) {
                    ways.push_back(longer);
                }
            }
        }
        None
    }

    fn forbid(&self, from: &str, to: &str) -> Option<String> {
        assert!(self.members.contains_key(from), "{from} isn't in the workspace: the rule holds nothing");
        // The graph has the features of the whole workspace; a build of the package alone may do without.
        self.path(from, to).filter(|_| is_built(from, to))
    }
}

fn is_built(package: &str, dependency: &str) -> bool {
    let tree = ["tree", "--edges=normal", "--prefix=none", "--target=x86_64-unknown-linux-gnu", "--format={p}"];
    let out =
        Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(tree).args(["-p", package]).output();
    let out = out.expect("cargo tree");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().any(|line| line.split(' ').next() == Some(dependency))
}

#[test]
fn nobody_sees_what_it_must_not() {
    let graph = workspace();
    let rules = NEVER.iter().flat_map(|(from, never)| never.iter().map(move |to| (*from, *to)));
    let found: Vec<_> = rules.filter_map(|(from, to)| graph.forbid(from, to)).collect();
    assert!(found.is_empty(), "dependencies that must not be:\n  {}", found.join("\n  "));
}

#[test]
fn deployables_do_not_depend_on_each_other() {
    let graph = workspace();
    let pairs = DEPLOYABLES.iter().flat_map(|a| DEPLOYABLES.iter().filter(move |b| *b != a).map(move |b| (*a, *b)));
    let found: Vec<_> = pairs.filter_map(|(from, to)| graph.forbid(from, to)).collect();
    assert!(found.is_empty(), "share it in a crate instead:\n  {}", found.join("\n  "));
}

#[test]
fn heavy_dependencies_have_one_user() {
    let graph = workspace();
    for (dependency, user) in ONLY {
        let users = graph.members.keys().filter(|m| graph.direct[*m].contains(dependency));
        let users: Vec<_> = users.filter(|m| *m != user).collect();
        assert!(users.is_empty(), "{dependency} is for {user} alone, but {users:?} use it");
    }
}

#[test]
fn what_is_for_tests_is_not_shipped() {
    let graph = workspace();
    for package in DEV_ONLY {
        assert!(graph.members.contains_key(package), "{package} is no member: correct this list");
        let users = graph.members.keys().filter(|m| *m != "weft-tests" && graph.direct[*m].contains(package));
        assert_eq!(users.collect::<Vec<_>>(), Vec::<&String>::new(), "{package} belongs in dev-dependencies");
    }
}

/// Packages with the features that they are compiled with, with or without what only tests depend on.
fn compiled(edges: &str) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--workspace", "--prefix=none", "--format={p} with features {f}", "--no-dedupe"]);
    cargo.args(["--target=x86_64-unknown-linux-gnu", "--edges", edges]).arg("--manifest-path").arg(manifest);
    let output = cargo.output().expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// A feature that only a test's dependency turns on has everything above it compiled a second time for the programs, and
/// tests run something else than what is shipped.
#[test]
fn tests_and_programs_are_compiled_with_the_same_features() {
    let (programs, tests) = (compiled("normal,build"), compiled("normal,build,dev"));
    assert!(programs.len() > 200, "only {} packages: looking in the wrong place", programs.len());
    let apart: Vec<_> = programs.difference(&tests).collect();
    assert!(apart.is_empty(), "turn the feature on in [workspace.dependencies], or find another way: {apart:#?}");
}

/// Every Rust source of the workspace: its package, path and text.
fn sources() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    for (package, folder) in workspace().members {
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").path()) {
                let hidden = entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.') || n == "target");
                if entry.is_dir() && !hidden {
                    folders.push(entry);
                } else if entry.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&entry).expect("UTF-8");
                    found.push((package.clone(), entry, text));
                }
            }
        }
    }
    assert!(found.len() > 50, "only {} sources: looking in the wrong place", found.len());
    found
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    let keyword = concat!("un", "safe");
    let uses_it = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == keyword)
    };
    let found = sources().into_iter().filter(|(package, ..)| package != "weft-sys");
    let found: Vec<_> = found.filter(|(.., text)| text.lines().any(uses_it)).map(|(_, path, _)| path).collect();
    assert!(found.is_empty(), "{keyword} code outside crates/sys: {found:#?}");
}

#[test]
fn files_stay_within_their_budget() {
    let is_test = |path: &Path| {
        let stem = path.file_stem().is_some_and(|s| s == "tests");
        stem || path.iter().any(|part| part == "tests" || part == "benches") && !path.iter().any(|part| part == "src")
            || path.iter().rev().skip(1).take_while(|part| *part != "src").any(|part| part == "tests")
    };
    let code = sources().into_iter().filter(|(_, path, _)| !is_test(path));
    let long = code.map(|(_, path, text)| (text.lines().count(), path)).filter(|(lines, _)| *lines > MAX_LINES);
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:#?}");
}
