//! Golden translations, each of which `weft validate` has to pass; and that no call gets through that Istio would refuse.

mod closed;
mod golden;
mod reading;
mod routes;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_k8s::translate::gateway::Place;

use super::context::Options;
use super::input::Inputs;
use super::named;
use super::translate::translate;
use crate::migrate::files::take;
use crate::migrate::report::{Level, Report};
use crate::migrate::write::{self, Document};

/// As the command line has them if nobody says anything.
pub fn options() -> Options {
    Options {
        root: "istio-system".into(),
        mesh: "weft-system".into(),
        trust_domain: "cluster.local".into(),
        istio_trust_domains: Vec::new(),
        cluster_domain: "cluster.local".into(),
    }
}

/// What becomes of manifests.
pub struct Made {
    pub inputs: Inputs,
    pub documents: Vec<Document>,
    pub report: Report,
}

/// Translates manifests.
pub fn migrate(text: &str) -> Made {
    let (mut inputs, mut report) = (Inputs::default(), Report::default());
    take(text, &mut report, named, |object, report| inputs.add(&object, report)).unwrap();
    inputs.sort();
    let documents = translate(&inputs, &options(), &mut report);
    Made { inputs, documents, report }
}

impl Made {
    /// What was made, as YAML, file by file.
    pub fn yaml(&self) -> String {
        write::yaml(self.documents.iter()).unwrap()
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.documents.iter().map(|it| &it.object).filter(|it| it["kind"] == kind).collect()
    }

    /// What was left out of an object: its fields.
    pub fn left(&self) -> BTreeSet<String> {
        self.report.of(Level::LeftOut).map(|it| it.setting.clone()).collect()
    }

    /// What a cluster has besides what was made.
    fn surroundings(&self) -> String {
        let mut all = Vec::new();
        let made: BTreeSet<_> = self.of_kind("Namespace").iter().map(|it| it["metadata"]["name"].to_string()).collect();
        let mut namespaces: BTreeSet<String> = BTreeSet::from(["weft-system".to_owned()]);
        for ((namespace, _), service) in &self.inputs.services {
            namespaces.insert(namespace.clone());
            let mut service = serde_json::to_value(service).unwrap();
            service["apiVersion"] = json!("v1");
            service["kind"] = json!("Service");
            all.push(service);
        }
        namespaces.extend(self.inputs.objects.iter().map(|it| it.namespace.clone()));
        for name in namespaces.into_iter().filter(|name| !made.contains(&json!(name).to_string())) {
            all.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
        }
        all.iter().map(|object| format!("---\n{}", serde_norway::to_string(object).unwrap())).collect()
    }

    /// What `weft validate` has against it.
    pub fn complaints(&self) -> Vec<String> {
        let files = [("cluster.yaml".to_owned(), self.surroundings()), ("made.yaml".to_owned(), self.yaml())];
        let findings = crate::validate::check(&files, Place::Cluster);
        let serious = findings.iter().filter(|it| it.severity == weft_k8s::parse::Severity::Error);
        serious.map(ToString::to_string).collect()
    }
}

#[test]
fn each_namespace_has_files_of_its_own_in_the_order_in_which_they_are_applied() {
    let made = migrate(include_str!("bookinfo.yaml"));
    let files: Vec<_> = made.documents.iter().map(|it| it.file.as_str()).collect();
    assert!(files.is_sorted());
    let distinct: BTreeSet<_> = files.into_iter().collect();
    let expected = [
        "bookinfo.10-policies.yaml",
        "bookinfo.20-services.yaml",
        "bookinfo.30-routes.yaml",
        "bookinfo.40-namespace.yaml",
        "weft-system.10-policies.yaml",
    ];
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn only_the_namespaces_that_are_asked_for_are_made() {
    let mut inputs = Inputs::default();
    let bookinfo = include_str!("bookinfo.yaml");
    take(bookinfo, &mut Report::default(), named, |object, report| inputs.add(&object, report)).unwrap();
    inputs.only(&["elsewhere".to_owned()], "istio-system");
    let made = translate(&inputs, &options(), &mut Report::default());
    let names: Vec<_> = made.iter().map(Document::label).collect();
    assert_eq!(names, ["MeshPolicy weft-system/default"], "what holds for the mesh is there all the same");
}

/// The page's table and its example of a report are what the command does.
#[test]
fn the_page_shows_what_the_command_says() {
    let page = include_str!("../../../../../docs/from-istio.md");
    let made = migrate(include_str!("bookinfo.yaml"));
    let route = made.documents.iter().find(|it| it.object["metadata"]["name"] == "reviews").unwrap();
    let route = write::yaml(std::iter::once(route)).unwrap();
    assert!(page.contains(&route), "the page needs this:\n{route}");
    let refused = migrate(include_str!("refused.yaml"));
    let report = refused.report.to_string();
    assert!(page.contains(&report), "the page needs this:\n{report}");
    let policy = refused.yaml();
    assert!(page.contains(&policy), "the page needs this:\n{policy}");
}
