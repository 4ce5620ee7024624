//! Istio's objects in, Weft's and the Gateway API's out. Pure: what was read is given, what is to be written comes back.

use serde_json::Value;

use super::super::report::Report;
use super::super::write::{Document, unique};
use super::context::{Context, Options};
use super::input::Inputs;
use super::subsets::Subsets;
use super::{authz, destination, others, peer, routes};

/// Who may speak to whom and how: what has to be there before a namespace is.
const POLICIES: &str = "10-policies";
/// What routes refer to.
const SERVICES: &str = "20-services";
/// Routes.
const ROUTES: &str = "30-routes";
/// The label by which a namespace is in the mesh.
const NAMESPACE: &str = "40-namespace";

/// Translates all of it. Each namespace has files of its own, whose names sort in the order in which they can be applied.
pub fn translate(inputs: &Inputs, options: &Options, report: &mut Report) -> Vec<Document> {
    let context = Context { inputs, options };
    others::report_kinds(&context, report);
    others::workloads(&context, report);
    let mut all = Vec::new();
    let mut put = |stage: &str, objects: Vec<Value>| {
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let namespace = text("/metadata/namespace").or(text("/metadata/name")).unwrap_or_default();
            let file = format!("{namespace}.{stage}.yaml");
            all.push(Document { file, object });
        }
    };
    put(POLICIES, peer::translate(&context, report));
    put(POLICIES, authz::translate(&context, report));
    let subsets = Subsets::new(&context);
    let made = routes::translate(&context, &subsets, report);
    put(SERVICES, subsets.objects(&made.backends));
    put(SERVICES, destination::translate(&context, &subsets, &made.backends, report));
    put(SERVICES, made.grants.documents().collect());
    put(ROUTES, made.routes);
    put(NAMESPACE, others::namespaces(&context, report));
    unique(&mut all);
    all.sort_by(|a, b| a.file.cmp(&b.file));
    report.made = all.iter().map(Document::label).collect();
    all
}
