//! What people should know of single objects.

use k8s_openapi::api::core::v1::ObjectReference;
use weft_k8s::object::ObjectRef;
use weft_k8s::translate::{Problem, Reason};
use weft_kube::Severity;

use super::{Note, Odd, World};
use crate::kubernetes::subject::Subject;

/// Most fields that a message names.
const MOST_FIELDS: usize = 20;

impl World {
    /// What is wrong with an object and isn't told by its status.
    pub(super) fn notes_of(&self, reference: &ObjectRef) -> Vec<Note> {
        let problems = if self.index.status(reference).is_some() { &[] } else { self.index.problems(reference) };
        let odd = self.odd.get(reference);
        if problems.is_empty() && odd.is_none() {
            return Vec::new();
        }
        let regarding = self.reference(reference);
        let note = |severity, reason: &str, message| {
            let (regarding, reason) = (regarding.clone(), reason.to_owned());
            Note { regarding, severity, reason, message }
        };
        let severity = |reason: Reason| if reason == Reason::Note { Severity::Normal } else { Severity::Warning };
        let of_problem = |it: &Problem| note(severity(it.reason), it.reason.as_str(), it.to_string());
        let of_odd = |odd: &Odd| note(Severity::Warning, odd.reason, odd.message.clone());
        problems.iter().map(of_problem).chain(odd.map(of_odd)).collect()
    }

    /// An object as Events name it.
    pub(super) fn reference(&self, object: &ObjectRef) -> ObjectReference {
        let uid = self.index.get(object).and_then(|o| o.meta().uid.clone());
        let uid = uid.or_else(|| self.odd.get(object).map(|odd| odd.uid.clone())).filter(|uid| !uid.is_empty());
        let served = self.heard.get(&Subject::Object(object.kind)).and_then(Option::as_ref);
        ObjectReference {
            api_version: Some(served.map_or_else(|| object.kind.api_version(), |r| r.api_version.clone())),
            kind: Some(object.kind.as_str().to_owned()),
            namespace: Some(object.namespace.to_string()).filter(|ns| !ns.is_empty()),
            name: Some(object.name.to_string()),
            uid,
            ..ObjectReference::default()
        }
    }
}

/// Fields in a message, of which there may be more than a condition holds.
pub(super) fn listed(fields: &[String]) -> String {
    match fields.split_at_checked(MOST_FIELDS) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => fields.join(", "),
    }
}
