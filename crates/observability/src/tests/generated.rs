//! Files that are made of this crate are as it says, Prometheus' own tool takes the rules and their tests, and Grafana's own
//! types take the dashboards. `UPDATE=1 cargo test -p weft-observability` writes the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files;
use serde::Deserialize as _;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where `tests/tools/install.sh test` puts programs.
fn tool(path: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("WEFT_CACHE").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/weft"));
    let tool = cache.or_else(home)?.join("tools").join(path);
    if !tool.exists() {
        assert!(std::env::var_os("WEFT_TOOLS").is_none(), "no {}, which should have been installed", tool.display());
        eprintln!("LEFT OUT: no {}; `tests/tools/install.sh test` installs it", tool.display());
        return None;
    }
    Some(tool)
}

#[test]
fn files_are_as_their_source_says() {
    let update = std::env::var_os("UPDATE").is_some();
    for file in files() {
        let path = root().join(&file.path);
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &file.text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == file.text, "{} isn't what crates/observability makes: UPDATE=1 writes it", file.path);
    }
}

/// What is no longer made goes.
#[test]
fn no_other_files_are_beside_them() {
    let made: BTreeSet<_> = files().into_iter().map(|file| file.path).collect();
    for folder in ["charts/weft/files/dashboards", "docs/runbooks"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
            assert!(made.contains(&path), "{path} is made by nobody");
        }
    }
}

#[test]
fn promtool_takes_the_rules_and_every_alert_fires_when_it_must_and_only_then() {
    let Some(promtool) = tool("bin/promtool") else { return };
    let run = |arguments: &[&str]| {
        let output = Command::new(&promtool).current_dir(root()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
        said
    };
    for file in ["charts/weft/files/rules.yaml", "examples/observability/standalone/rules.yaml"] {
        let said = run(&["check", "rules", file]);
        assert!(said.contains("rules found"), "{said}");
    }
    run(&["test", "rules", "tests/rules/alerts.yaml"]);
    run(&["check", "config", "examples/observability/standalone/prometheus.yaml"]);
    // The evaluation bundle's is in a ConfigMap, for paths that only its pod has.
    let bundle = std::fs::read_to_string(root().join("examples/observability/kubernetes/prometheus.yaml")).unwrap();
    let maps = serde_norway::Deserializer::from_str(&bundle).map(|it| serde_json::Value::deserialize(it).unwrap());
    let configs: Vec<_> = maps.filter_map(|it| Some(it["data"]["prometheus.yaml"].as_str()?.to_owned())).collect();
    let [config] = configs.as_slice() else { panic!("{} configurations", configs.len()) };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    run(&["check", "config", "--syntax-only", file.path().to_str().unwrap()]);
}

/// Every field is one of Grafana's, of the type that Grafana gives it: the types that Grafana makes of its schema.
#[test]
fn grafana_knows_every_field_of_the_dashboards() {
    let Some(python) = tool("grafana-foundation-sdk/bin/python3") else { return };
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/grafana.py");
        let output = Command::new(&python).arg(script).arg(&path).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let all: Vec<_> = files().into_iter().filter(|file| file.path.ends_with(".json")).collect();
    assert!(!all.is_empty());
    for file in &all {
        let (well, said) = check("dashboard.json", &file.text);
        assert!(well, "{}:\n{said}", file.path);
    }
    // It isn't a check that takes everything.
    for (from, to) in [
        ("\"gridPos\"", "\"gridPlace\""),
        ("\"graphTooltip\": 1", "\"graphTooltip\": \"one\""),
        ("\"showHeader\": true", "\"showHeader\": 3"),
        ("\"drawStyle\": \"line\"", "\"drawStyle\": \"lines\""),
    ] {
        assert!(all[0].text.contains(from), "{from}");
        assert!(!check("broken.json", &all[0].text.replacen(from, to, 1)).0, "{to} is taken");
    }
}

/// Without Kubernetes the same programs are looked at, with files that are there.
#[test]
fn compose_runs_what_the_manifests_run() {
    let folder = root().join("examples/observability");
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    let compose: serde_json::Value = serde_norway::from_str(&read("standalone/compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    assert_eq!(services.len(), 2, "{services:?}");
    for (name, service) in services {
        let manifests = read(&format!("kubernetes/{name}.yaml"));
        let image = service["image"].as_str().unwrap();
        assert!(manifests.contains(&format!("image: {image}\n")), "{name}: another one than {image} in Kubernetes");
        for volume in service["volumes"].as_array().unwrap() {
            let volume = volume.as_str().unwrap();
            let [from, _, "ro"] = volume.split(':').collect::<Vec<_>>()[..] else { panic!("{volume}") };
            assert!(folder.join("standalone").join(from).exists(), "{name}: there is no {from}");
        }
    }
    let manifests = read("kubernetes/grafana.yaml").replace('"', "");
    for (variable, value) in services["grafana"]["environment"].as_object().unwrap() {
        let same = manifests.contains(&format!("{{ name: {variable}, value: {} }}", value.as_str().unwrap()));
        // Where it listens is said of the machine alone.
        assert!(same || variable == "GF_SERVER_HTTP_ADDR", "{variable}: not {value} in Kubernetes");
    }
}
