//! The CRDs in the charts are those of the types. `UPDATE=1 cargo test -p weft-k8s --test crds` writes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use weft_k8s::object::policy::crds;

const HEADER: &str =
    "# Generated from the types in crates/k8s/src/object by `UPDATE=1 cargo test -p weft-k8s --test crds`.\n";

/// The chart that is only CRDs, and the chart of the mesh, which installs them by default.
const FOLDERS: [&str; 2] = ["charts/weft-crds/templates", "charts/weft/files/crds"];

fn rendered(crd: &CustomResourceDefinition) -> (String, String) {
    let mut value = serde_json::to_value(crd).unwrap();
    let metadata = value["metadata"].as_object_mut().unwrap();
    // Uninstalling the chart must not delete every policy of the cluster with the CRDs.
    metadata.insert("annotations".into(), json!({ "helm.sh/resource-policy": "keep" }));
    metadata.insert("labels".into(), json!({ "app.kubernetes.io/part-of": "weft" }));
    let text = serde_norway::to_string(&value).unwrap();
    assert!(!text.contains("{{"), "Helm would take it for a template");
    (format!("{}.yaml", crd.spec.names.plural), HEADER.to_owned() + &text)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

#[test]
fn the_charts_have_the_crds_of_the_types() {
    let update = std::env::var_os("UPDATE").is_some();
    for folder in FOLDERS.map(folder) {
        for (name, expected) in crds().iter().map(rendered) {
            let path = folder.join(&name);
            if update {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &expected).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == expected, "{} isn't what the types say: UPDATE=1 writes it", path.display());
        }
        let files = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, crds().len(), "{}: CRDs that no type has", folder.display());
    }
}

/// Every field below a schema, with its path.
fn fields(path: &str, schema: &Value, found: &mut Vec<(String, bool)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found.push((path.clone(), field["description"].is_string()));
        fields(&path, field, found);
    }
    if schema["items"].is_object() {
        fields(&format!("{path}[]"), &schema["items"], found);
    }
}

#[test]
fn kubectl_explain_has_a_word_on_every_field() {
    for crd in crds() {
        let version = serde_json::to_value(&crd.spec.versions[0]).unwrap();
        let mut found = Vec::new();
        fields(&crd.spec.names.kind, &version["schema"]["openAPIV3Schema"], &mut found);
        assert!(found.len() > 10, "{found:?}");
        let silent: Vec<_> = found.iter().filter(|(_, described)| !described).map(|(path, _)| path).collect();
        assert!(silent.is_empty(), "fields without a description: {silent:#?}");
    }
}

#[test]
fn kubectl_get_says_what_matters() {
    for crd in crds() {
        let (names, version) = (&crd.spec.names, &crd.spec.versions[0]);
        assert_eq!(names.categories.as_deref(), Some(&["weft".to_owned()][..]), "{}", names.kind);
        assert!(names.short_names.as_ref().is_some_and(|names| !names.is_empty()), "{}", names.kind);
        let has_status = version.subresources.as_ref().is_some_and(|sub| sub.status.is_some());
        let columns = version.additional_printer_columns.iter().flatten().map(|column| column.name.as_str());
        let columns: Vec<_> = columns.collect();
        // Parameters are judged at whoever refers to them.
        let (status, wanted) = match names.kind.as_str() {
            "GatewayParameters" => (false, ["Replicas", "Service"]),
            "TelemetryPolicy" => (true, ["Accepted", "Log"]),
            _ => (true, ["Accepted", "Mode"]),
        };
        assert_eq!(has_status, status, "{}", names.kind);
        assert!(wanted.iter().all(|column| columns.contains(column)), "{}: {columns:?}", names.kind);
    }
}
