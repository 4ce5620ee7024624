//! One object as the API server has it -> what is kept of it.

use serde_json::{Map, Value};
use weft_k8s::object::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, Kind, ObjectRef, WEFT_GROUP};
use weft_k8s::parse::{Checked, decode_checked};
use weft_k8s::translate::enrolment::ANNOTATIONS;
use weft_k8s::translate::gateway::WENT_BY;
use weft_k8s::translate::service::PROXY_PROTOCOL;
use weft_kube::kube::core::DynamicObject;

use super::subject::Subject;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of a watched kind.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its namespace; empty for an object of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which incarnation.
    pub uid: String,
    /// `metadata.generation`, 0 if it has none.
    pub generation: i64,
    /// What is in it.
    pub content: Content,
}

/// What is in an object.
#[derive(Clone, Debug)]
pub enum Content {
    /// An object for the index.
    Object(Box<Checked>),
    /// Anything else, as JSON: `spec` and `status`.
    Other(Value),
    /// It can't be read, and why.
    Unreadable(String),
}

impl Seen {
    /// Reads an object. Nothing is lost if it can't be read: its name and the reason stay.
    pub fn of(subject: Subject, object: DynamicObject) -> Self {
        let DynamicObject { mut metadata, data, .. } = object;
        let name = metadata.name.clone().unwrap_or_default();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let uid = metadata.uid.clone().unwrap_or_default();
        let generation = metadata.generation.unwrap_or(0);
        let Subject::Object(kind) = subject else {
            return Self { namespace, name, uid, generation, content: Content::Other(data) };
        };
        // What changes without meaning anything must not look like a change.
        metadata.managed_fields = None;
        metadata.resource_version = None;
        metadata.self_link = None;
        if is_configuration(kind) {
            metadata.annotations.iter_mut().for_each(|a| drop(a.remove(LAST_APPLIED)));
        } else if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|key, _| annotations_of(kind).contains(&key.as_str()));
            metadata.annotations = metadata.annotations.filter(|left| !left.is_empty());
        }
        let mut value = match data {
            Value::Object(fields) => Value::Object(fields),
            _ => Value::Object(Map::new()),
        };
        slim(kind, &mut value);
        let content = match serde_json::to_value(&metadata) {
            Ok(metadata) => {
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("metadata".into(), metadata);
                }
                match decode_checked(kind, &value) {
                    Ok(mut checked) => {
                        if !is_configuration(kind) {
                            // A newer cluster has fields that mean nothing here.
                            checked.unknown.clear();
                        }
                        Content::Object(Box::new(checked))
                    }
                    Err(why) => Content::Unreadable(why),
                }
            }
            Err(error) => Content::Unreadable(format!("metadata: {error}")),
        };
        Self { namespace, name, uid, generation, content }
    }

    /// Names it, if it is of a kind that the index reads.
    pub fn reference(&self, kind: Kind) -> ObjectRef {
        ObjectRef::new(kind, self.namespace.as_str(), self.name.as_str())
    }
}

/// Whether people write it for the mesh: then a field that isn't supported must be named.
fn is_configuration(kind: Kind) -> bool {
    [GATEWAY_GROUP, EXPERIMENTAL_GROUP, WEFT_GROUP].contains(&kind.group())
}

/// The annotations that are read.
const fn annotations_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pod => &ANNOTATIONS,
        Kind::Service => &[PROXY_PROTOCOL],
        Kind::ServiceAccount => &[WENT_BY],
        _ => &[],
    }
}

/// Takes out what nothing reads: a pod's volumes and environment are most of a cluster.
fn slim(kind: Kind, value: &mut Value) {
    match kind {
        Kind::Pod => {
            keep(
                value.pointer_mut("/spec"),
                &["nodeName", "serviceAccountName", "hostNetwork", "containers", "initContainers"],
            );
            for list in ["/spec/containers", "/spec/initContainers"] {
                let containers = value.pointer_mut(list).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    // The ports, and all that the kubelet calls.
                    let fields = [
                        "name",
                        "ports",
                        "livenessProbe",
                        "readinessProbe",
                        "startupProbe",
                        "lifecycle",
                        "restartPolicy",
                    ];
                    keep(Some(container), &fields);
                }
            }
            keep(value.pointer_mut("/status"), &["phase", "podIP", "podIPs"]);
        }
        Kind::Node => {
            keep(value.pointer_mut("/spec"), &["podCIDR", "podCIDRs"]);
            keep(value.pointer_mut("/status"), &["addresses"]);
            keep(Some(value), &["spec", "status"]);
        }
        // Whom it selects; what it allows is the network's business.
        Kind::NetworkPolicy => keep(value.pointer_mut("/spec"), &["podSelector"]),
        // Certificates of authorities; ConfigMaps with anything else are most of them.
        Kind::ConfigMap => {
            keep(Some(value), &["data"]);
            keep(value.pointer_mut("/data"), &["ca.crt"]);
        }
        Kind::Secret => {
            keep(Some(value), &["data", "type"]);
            keep(value.pointer_mut("/data"), &["tls.crt", "tls.key", "ca.crt"]);
        }
        Kind::Namespace => keep(Some(value), &[]),
        _ => {}
    }
}

fn keep(value: Option<&mut Value>, fields: &[&str]) {
    if let Some(Value::Object(object)) = value {
        object.retain(|field, _| fields.contains(&field.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use weft_k8s::object::Object;
    use weft_k8s::translate::enrolment::{Exempt, ISTIO_AMBIENT, exempt};

    fn seen(kind: Kind, value: Value) -> Seen {
        Seen::of(Subject::Object(kind), serde_json::from_value(value).unwrap())
    }

    fn object(seen: &Seen) -> &Object {
        match &seen.content {
            Content::Object(checked) => &checked.object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_keeps_what_is_read_and_changes_that_mean_nothing_do_not_show() {
        let pod = |version: &str, field: &str| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "a", "namespace": "shop", "uid": "u", "resourceVersion": version,
                    "labels": { "app": "a" }, "annotations": { "note": version },
                    "managedFields": [{ "manager": version }] },
                "spec": { "nodeName": "n", "serviceAccountName": "a", "volumes": [{ "name": "v" }],
                    "containers": [{ "name": "c", "image": "i", "env": [{ "name": "A", "value": version }],
                        "ports": [{ "containerPort": 80 }],
                        "readinessProbe": { "httpGet": { "port": 80, "path": "/ready" } },
                        "lifecycle": { "preStop": { "httpGet": { "port": 80 } } } }] },
                "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }], field: version,
                    "conditions": [{ "type": "Ready", "status": version }] }
            })
        };
        let (a, b) = (seen(Kind::Pod, pod("1", "hostIP")), seen(Kind::Pod, pod("2", "message")));
        assert_eq!(object(&a), object(&b));
        let Object::Pod(pod) = object(&a) else { panic!() };
        let spec = pod.spec.as_ref().unwrap();
        let container = &spec.containers[0];
        assert!(spec.volumes.is_none() && container.env.is_none() && container.image.is_none());
        assert!(container.ports.is_some() && container.readiness_probe.is_some() && container.lifecycle.is_some());
        assert_eq!(pod.metadata.uid.as_deref(), Some("u"));
    }

    /// The agent leaves such a pod alone; callers that took it for enrolled would dial a tunnel that nobody accepts.
    #[test]
    fn a_pod_whose_traffic_istio_has_is_known_by_its_annotation() {
        let pod = json!({ "metadata": { "name": "a", "namespace": "shop",
            "annotations": { ISTIO_AMBIENT.0: ISTIO_AMBIENT.1, "note": "1" } } });
        let seen = seen(Kind::Pod, pod);
        let Object::Pod(pod) = object(&seen) else { panic!() };
        assert_eq!(exempt(pod, None, &"weft-system".into()), Some(Exempt::Istio));
        assert_eq!(pod.metadata.annotations.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn annotations_that_mean_something_stay() {
        for (kind, key) in [(Kind::Service, PROXY_PROTOCOL), (Kind::ServiceAccount, WENT_BY)] {
            let object =
                json!({ "metadata": { "name": "a", "namespace": "shop", "annotations": { key: "v2", "note": "1" } } });
            let Content::Object(checked) = seen(kind, object).content else { panic!() };
            let left = checked.object.meta().annotations.clone().unwrap();
            assert_eq!(left, [(key.to_owned(), "v2".to_owned())].into(), "{kind:?}");
        }
    }

    #[test]
    fn nodes_and_namespaces_are_small() {
        let node = json!({ "metadata": { "name": "n" }, "spec": { "podCIDRs": ["10.1.0.0/24"], "taints": [{ "key": "k", "effect": "NoSchedule" }] },
            "status": { "images": [], "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] } });
        let seen = seen(Kind::Node, node);
        let Object::Node(node) = object(&seen) else { panic!() };
        let status = node.status.as_ref().unwrap();
        assert!(status.images.is_none() && node.spec.as_ref().unwrap().taints.is_none());
        assert_eq!(status.addresses.as_ref().unwrap()[0].address, "192.0.2.1");
        assert_eq!(node.spec.as_ref().unwrap().pod_cidrs.as_deref(), Some(&["10.1.0.0/24".to_owned()][..]));
    }

    #[test]
    fn one_malformed_object_costs_itself_and_unknown_fields_are_named_where_people_write_for_the_mesh() {
        let broken = seen(
            Kind::HttpRoute,
            json!({ "metadata": { "name": "r", "namespace": "shop", "uid": "u" }, "spec": { "rules": 1 } }),
        );
        assert_eq!((broken.name.as_str(), broken.uid.as_str()), ("r", "u"));
        assert!(matches!(&broken.content, Content::Unreadable(why) if why.contains("spec.rules")), "{broken:?}");
        let route = json!({ "metadata": { "name": "r", "namespace": "shop" }, "spec": { "novelty": 1 } });
        let unknown = |seen: Seen| match seen.content {
            Content::Object(checked) => checked.unknown,
            other => panic!("{other:?}"),
        };
        assert_eq!(unknown(seen(Kind::HttpRoute, route)), ["spec.novelty"]);
        let host = json!({ "metadata": { "name": "h", "namespace": "shop" }, "spec": { "novelty": 1 } });
        assert_eq!(unknown(seen(Kind::XBackend, host)), ["spec.novelty"]);
        let service = json!({ "metadata": { "name": "s", "namespace": "shop" }, "spec": { "novelty": 1 } });
        assert!(unknown(seen(Kind::Service, service)).is_empty());
    }
}
