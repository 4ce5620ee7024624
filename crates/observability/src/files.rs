//! The files that are made of this source.

use serde_json::Value;

use crate::dashboards;
use crate::grafana::json;
use crate::rules::{self, Scope};

/// A file of the repository that is made of this source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Its path from the repository's root.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Where Grafana's dashboards are; the chart has them from here.
const DASHBOARDS: &str = "charts/weft/files/dashboards";
/// The rules of the chart.
const RULES: &str = "charts/weft/files/rules.yaml";
/// The rules of a mesh without Kubernetes.
const STANDALONE: &str = "examples/observability/standalone/rules.yaml";
/// The rules of the evaluation bundle, as an object of Kubernetes: its Prometheus has no operator.
const EVALUATION: &str = "examples/observability/kubernetes/rules.yaml";
/// The tests of the rules.
const TESTS: &str = "tests/rules/alerts.yaml";
/// The way from the tests to the rules.
const RULES_FROM_TESTS: &str = "../../charts/weft/files/rules.yaml";
const RUNBOOKS: &str = "docs/runbooks";

/// All files. A folder of dashboards or runbooks has no others.
pub fn files() -> Vec<GeneratedFile> {
    let mut files: Vec<_> = dashboards::all()
        .iter()
        .map(|it| file(format!("{DASHBOARDS}/{}.json", it.board.uid()), pretty(&json(it))))
        .collect();
    files.push(file(RULES, yaml(&rules::rules(Scope::Cluster))));
    files.push(file(STANDALONE, yaml(&rules::rules(Scope::Mesh))));
    files.push(file(EVALUATION, yaml(&evaluation())));
    files.push(file(TESTS, yaml(&rules::tests(RULES_FROM_TESTS))));
    for alert in rules::alerts().iter().flat_map(|group| &group.rules) {
        files.push(file(format!("{RUNBOOKS}/{}.md", alert.name), rules::page(alert)));
    }
    files.push(file(format!("{RUNBOOKS}/README.md"), rules::index()));
    files
}

fn file(path: impl Into<String>, text: String) -> GeneratedFile {
    GeneratedFile { path: path.into(), text }
}

/// What is made here is made of text and numbers, which can always be written.
fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn evaluation() -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "weft-evaluation-rules",
            "namespace": "weft-system",
            "labels": { "app.kubernetes.io/part-of": "weft-evaluation" },
        },
        "data": { "rules.yaml": yaml(&rules::rules(Scope::Cluster)) },
    })
}

const HEAD: &str =
    "# Made from crates/observability by `UPDATE=1 cargo test -p weft-observability`; not edited by hand.\n";

fn yaml(value: &Value) -> String {
    HEAD.to_owned() + &serde_norway::to_string(value).unwrap_or_default()
}
