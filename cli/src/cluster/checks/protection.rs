//! Whether the pods that are to be in the mesh are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use weft_k8s::object::ENROLMENT_LABEL;
use weft_k8s::translate::did_you_mean;
use weft_k8s::translate::workload::check_enrolment_label;

use crate::cluster::facts::{Facts, has_ended, name_of, namespace_of};
use crate::cluster::finding::{Check, Finding, Severity};
use crate::cluster::pods::{PodView, Standing, labelled};

/// What the enrolment label may say.
const VALUES: [&str; 2] = ["enabled", "disabled"];

/// What to do about a pod that isn't protected.
fn finding(pod: &PodView, mesh: &str) -> Option<Finding> {
    let object = format!("Pod {}/{}", pod.namespace, pod.name);
    let logs = format!(
        "kubectl -n {mesh} logs daemonset/weft-agent says more; the agent of node {} tries again by itself",
        pod.node
    );
    Some(match &pod.standing {
        Standing::Protected => return None,
        Standing::Closed(why) => {
            Finding::new(Severity::Error, object, format!("it has no traffic: {why}")).remedy(logs)
        }
        Standing::Unprotected(why) => {
            Finding::new(Severity::Error, object, format!("its traffic is in the clear: {why}")).remedy(logs)
        }
        Standing::Never(why) => Finding::new(Severity::Note, object, format!("it isn't in the mesh: {why}"))
            .remedy("label it weftmesh.io/mesh=disabled if that is as it should be"),
        Standing::Waiting(why) => Finding::new(Severity::Note, object, why.clone())
            .remedy(format!("kubectl -n {} describe pod {}", pod.namespace, pod.name)),
        Standing::Unknown(why) => {
            Finding::new(Severity::Unknown, object, why.clone()).remedy(format!("kubectl -n {mesh} get pods -o wide"))
        }
    })
}

/// Pods that are enrolled and not protected.
pub fn pods(facts: &Facts) -> Check {
    let pods = match labelled(facts) {
        Ok(pods) => pods,
        Err(why) => return Check::unknown("enrolled pods", &why),
    };
    let protected = pods.iter().filter(|pod| pod.standing == Standing::Protected).count();
    let findings = pods.iter().filter_map(|pod| finding(pod, &facts.mesh)).collect();
    Check::new("enrolled pods", format!("{protected} of {} protected", pods.len()), findings)
}

/// Namespaces and pods whose enrolment label has a value that means nothing: they stay where they are, and their owner
/// takes them to be in the mesh, or out of it.
pub fn labels(namespaces: &[Namespace], pods: &[Pod]) -> Check {
    let mut findings = Vec::new();
    let mut labelled = 0;
    for meta in namespaces.iter().map(|namespace| &namespace.metadata) {
        labelled += usize::from(value(meta.labels.as_ref()).is_some());
        let Some(problem) = check_enrolment_label(meta.labels.as_ref()) else { continue };
        let name = name_of(meta);
        let remedy = match meant(value(meta.labels.as_ref())) {
            Some(meant) => format!("kubectl label --overwrite namespace {name} {ENROLMENT_LABEL}={meant}"),
            None => format!("kubectl label --overwrite namespace {name} {ENROLMENT_LABEL}=enabled, or =disabled"),
        };
        let what = format!("{}: {}", problem.field, problem.message);
        findings.push(Finding::new(Severity::Warning, format!("Namespace {name}"), what).remedy(remedy));
    }
    // The pods of one workload have the same label: one of them stands for all that have it in a namespace.
    let mut wrong: BTreeMap<(&str, &str), Vec<&Pod>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !has_ended(pod)) {
        let Some(value) = value(pod.metadata.labels.as_ref()) else { continue };
        labelled += 1;
        if check_enrolment_label(pod.metadata.labels.as_ref()).is_some() {
            wrong.entry((namespace_of(&pod.metadata), value)).or_default().push(pod);
        }
    }
    for ((namespace, value), pods) in wrong {
        let Some((first, others)) = pods.split_first() else { continue };
        let Some(problem) = check_enrolment_label(first.metadata.labels.as_ref()) else { continue };
        let more = if others.is_empty() { String::new() } else { format!(" (and {} more pods)", others.len()) };
        let object = format!("Pod {namespace}/{}{more}", name_of(&first.metadata));
        let right = meant(Some(value)).unwrap_or("enabled or disabled");
        let remedy =
            format!("make the label {ENROLMENT_LABEL} {right} in the pod template of its workload, or remove it");
        let what = format!("{}: {}", problem.field, problem.message);
        findings.push(Finding::new(Severity::Warning, object, what).remedy(remedy));
    }
    Check::new("enrolment labels", format!("{labelled} namespaces and pods have one"), findings)
}

fn value(labels: Option<&BTreeMap<String, String>>) -> Option<&str> {
    labels?.get(ENROLMENT_LABEL).map(String::as_str)
}

/// Which value somebody may have meant.
fn meant(value: Option<&str>) -> Option<&'static str> {
    match value?.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some("enabled"),
        "false" | "no" | "off" => Some("disabled"),
        other if did_you_mean(other, VALUES) == Some("enabled") => Some("enabled"),
        other => did_you_mean(other, VALUES).map(|_| "disabled"),
    }
}
