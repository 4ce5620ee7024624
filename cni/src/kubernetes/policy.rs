//! MeshPolicies as the controller reads them. Were a policy Strict for the controller and not for the agent, a pod
//! would keep connections in the clear that everybody is told it refuses.

use serde_json::{Map, Value};
use weft_k8s::object::{Kind, Object, ObjectRef};
use weft_k8s::parse::decode_checked;
use weft_kube::kube::core::DynamicObject;

/// A MeshPolicy as it came from the API server.
#[derive(Clone, Debug)]
pub struct SeenPolicy {
    /// Its name.
    pub reference: ObjectRef,
    /// The policy, a Strict one where not all of it is understood; none when nothing can be made of it.
    pub object: Option<Object>,
}

impl SeenPolicy {
    /// Reads a policy. Nothing is lost if it can't be read: its name stays.
    pub fn of(object: DynamicObject) -> Self {
        let DynamicObject { mut metadata, data, .. } = object;
        // What changes without meaning anything must not look like a change.
        metadata.managed_fields = None;
        metadata.resource_version = None;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let reference = ObjectRef::new(Kind::MeshPolicy, namespace, metadata.name.as_deref().unwrap_or_default());
        let mut fields = match data {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let read = serde_json::to_value(&metadata).map_err(|error| format!("metadata: {error}")).and_then(|metadata| {
            fields.insert("metadata".to_owned(), metadata);
            decode_checked(Kind::MeshPolicy, &Value::Object(fields))
        });
        let object = match read {
            Ok(checked) => Some(checked.object),
            Err(why) => {
                tracing::warn!(policy = %reference, why, "can't be read, so that what was known of it stays in force");
                None
            }
        };
        Self { reference, object }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use weft_k8s::translate::authz::UNREADABLE;

    fn seen(version: &str, spec: Value) -> SeenPolicy {
        let policy = json!({
            "apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "spec": spec,
            "metadata": { "namespace": "shop", "name": "p", "resourceVersion": version,
                "managedFields": [{ "manager": version }] },
        });
        SeenPolicy::of(serde_json::from_value(policy).unwrap())
    }

    #[test]
    fn what_is_not_understood_is_marked_and_noise_is_no_change() {
        let why = |seen: SeenPolicy| {
            let object = seen.object.unwrap();
            object.meta().annotations.as_ref().and_then(|a| a.get(UNREADABLE)).cloned().unwrap_or_default()
        };
        assert_eq!(why(seen("1", json!({ "mode": "Permissive" }))), "");
        assert!(why(seen("1", json!({ "mode": "Permissive", "novelty": 1 }))).contains("spec.novelty"));
        assert!(why(seen("1", json!({ "mode": "Strictish" }))).contains("spec.mode"));
        assert!(!why(seen("1", json!("none"))).is_empty());
        let (a, b) = (seen("1", json!({ "mode": "Strict" })), seen("2", json!({ "mode": "Strict" })));
        assert_eq!(a.object, b.object);
        assert_eq!(a.reference, ObjectRef::new(Kind::MeshPolicy, "shop", "p"));
    }
}
