//! The catalogue of metrics is what the programs record: nothing else, and all of it, with these labels.
//!
//! What the node proxy records by itself is compared with a whole page, in its own tests; here it is that nothing of the
//! catalogue is left unused. What goes by the macros of the crate `metrics` is read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{Component, Kind, agent, ca, controller, families, find, kube, proxy};
use regex::Regex;

/// The sources of a folder, without tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                // Unit tests are at the end of a file.
                let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
                found.push((path, text[..end].to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// A metric as a macro of the crate `metrics` records it.
#[derive(Debug, PartialEq, Eq)]
struct Recorded {
    kind: Kind,
    labels: BTreeSet<String>,
}

fn recorded(folder: &str) -> BTreeMap<String, Vec<Recorded>> {
    let call = Regex::new(r#"\b(counter|gauge|histogram)!\(\s*"([a-z0-9_]+)"((?:[^()]|\([^()]*\))*)\)"#).unwrap();
    let label = Regex::new(r#""([a-z_]+)"\s*=>"#).unwrap();
    let any = Regex::new(r"\b(?:counter|gauge|histogram)!\(").unwrap();
    let mut found: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
    for (path, text) in sources(folder) {
        let calls: Vec<_> = call.captures_iter(&text).collect();
        assert_eq!(calls.len(), any.find_iter(&text).count(), "{}: a name that isn't a literal", path.display());
        for call in calls {
            let kind = match &call[1] {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                _ => Kind::Histogram,
            };
            let mut labels: BTreeSet<_> = label.captures_iter(&call[3]).map(|it| it[1].to_owned()).collect();
            // The one that has its labels from a list.
            if &call[2] == "weft_agent_pod" && labels.is_empty() {
                labels = ["namespace", "pod", "state", "why"].map(str::to_owned).into();
            }
            found.entry(call[2].to_owned()).or_default().push(Recorded { kind, labels });
        }
    }
    found
}

#[test]
fn what_is_recorded_is_what_the_catalogue_says() {
    let folders = [
        ("controller/src", controller::ALL, Component::Controller),
        ("ca/src", ca::ALL, Component::Ca),
        ("cni/src", agent::ALL, Component::Agent),
        ("crates/kube/src", kube::ALL, Component::Controller),
    ];
    for (folder, catalogue, component) in folders {
        let recorded = recorded(folder);
        for (name, calls) in &recorded {
            let family = find(name).unwrap_or_else(|| panic!("{folder} records {name}: put it into the catalogue"));
            assert!(family.components.contains(&component), "{name} isn't {folder}'s");
            let labels: BTreeSet<_> = family.label_names().map(str::to_owned).collect();
            for call in calls {
                assert_eq!((call.kind, &call.labels), (family.kind, &labels), "{name}");
            }
        }
        for family in catalogue {
            assert!(recorded.contains_key(family.name), "nobody in {folder} records {}", family.name);
        }
    }
}

#[test]
fn all_of_the_proxys_catalogue_is_used() {
    let text: String = sources("node-proxy/src").into_iter().map(|(_, text)| text).collect();
    let by_macro = recorded("node-proxy/src");
    let catalogue = include_str!("catalogue/proxy.rs");
    let declared = Regex::new(r#"(?m)^    ([A-Z0-9_]+) = \w+ \w+ "([a-z0-9_]+)""#).unwrap();
    let declared: Vec<_> = declared.captures_iter(catalogue).map(|it| (it[1].to_owned(), it[2].to_owned())).collect();
    assert_eq!(declared.len(), proxy::ALL.len());
    for (constant, name) in declared {
        let is_used = Regex::new(&format!(r"families::{constant}\b")).unwrap().is_match(&text);
        assert!(is_used || by_macro.contains_key(&name), "nobody in node-proxy records {name}");
    }
    for name in by_macro.keys() {
        assert!(proxy::ALL.iter().any(|family| family.name == name), "{name} isn't in the catalogue");
    }
}

/// What dashboards, rules and the command ask for is there.
#[test]
fn names_that_the_command_asks_for_are_in_the_catalogue() {
    let name = Regex::new(r#""(weft_(?:[a-z0-9]+_)*[a-z0-9]+)""#).unwrap();
    for (path, text) in sources("cli/src") {
        for found in name.captures_iter(&text) {
            let is_known = families().any(|family| family.name == &found[1]);
            let is_metric = ["_total", "_seconds", "_failures", "_pods", "_pod", "_connections", "_limit", "_tunnels"];
            if is_metric.iter().any(|end| found[1].ends_with(end)) {
                assert!(is_known, "{}: {}", path.display(), &found[1]);
            }
        }
    }
}
