//! What of the configuration came, changed or went, for whoever has to know afterwards: one line each, target `audit`.

use weft_k8s::object::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, Object, WEFT_GROUP};

/// What became of an object, as a word; `None`: nothing that anybody asked for. `before` and `after` are the object as it was
/// known and as it is.
pub fn change(before: Option<&Object>, after: Option<&Object>) -> Option<&'static str> {
    let group = after.or(before)?.kind().group();
    if ![GATEWAY_GROUP, EXPERIMENTAL_GROUP, WEFT_GROUP].contains(&group) {
        return None;
    }
    match (before, after) {
        (None, Some(_)) => Some("created"),
        (Some(_), None) => Some("removed"),
        (Some(before), Some(after)) if before.meta().uid != after.meta().uid => Some("replaced"),
        // A generation counts what is asked for; without one, as in a file, there is nothing but that.
        (Some(before), Some(after)) if after.meta().generation.is_some() => {
            (before.generation() != after.generation()).then_some("changed")
        }
        (Some(before), Some(after)) => (before != after).then_some("changed"),
        (None, None) => None,
    }
}

/// Writes a line, if there is something to say.
pub(crate) fn note(before: Option<&Object>, after: Option<&Object>) {
    let (Some(change), Some(object)) = (change(before, after), after.or(before)) else { return };
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    tracing::info!(target: "audit", change, object = %object.reference(), uid, generation = object.generation(), "configuration");
}

#[cfg(test)]
mod tests {
    use weft_k8s::object::{Kind, MeshPolicy, policy::MeshPolicySpec, policy::TrafficMode};

    use super::*;

    fn policy(uid: &str, generation: Option<i64>, mode: Option<TrafficMode>) -> Object {
        let mut policy = MeshPolicy::new("p", MeshPolicySpec { mode, ..MeshPolicySpec::default() });
        policy.metadata.uid = Some(uid.into());
        policy.metadata.generation = generation;
        policy.into()
    }

    #[test]
    fn only_what_somebody_asked_for_is_a_change() {
        let (a, b) = (policy("u", Some(1), None), policy("u", Some(2), None));
        assert_eq!(change(None, Some(&a)), Some("created"));
        assert_eq!(change(Some(&a), Some(&b)), Some("changed"));
        assert_eq!(change(Some(&a), None), Some("removed"));
        assert_eq!(change(Some(&a), Some(&policy("v", Some(1), None))), Some("replaced"));
        // A status, or an annotation, leaves the generation as it is.
        assert_eq!(change(Some(&a), Some(&policy("u", Some(1), Some(TrafficMode::Strict)))), None);
        let (c, d) = (policy("u", None, None), policy("u", None, Some(TrafficMode::Strict)));
        assert_eq!((change(Some(&c), Some(&c)), change(Some(&c), Some(&d))), (None, Some("changed")));
        let pod = Object::deserialize(Kind::Pod, serde_json::json!({ "metadata": { "name": "a" } })).unwrap();
        assert_eq!(change(None, Some(&pod)), None);
    }
}
