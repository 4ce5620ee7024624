use serde_json::{Value, json};

use weft_kube::Reviewed;

use super::*;
use crate::auth::{Caller, IssueRule};

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
    let metadata = json!({ "name": name, "namespace": "shop", "uid": "u", "annotations": { "a": "b" } });
    let spec = json!({ "nodeName": "n1", "serviceAccountName": "cart", "containers": [{ "name": "c" }] });
    let mut object = json!({ "metadata": metadata, "spec": spec, "status": { "phase": "Running" } });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_pod_gives_its_identity_to_its_node_from_binding_until_it_is_gone_or_finished() {
    let binding = |change: fn(&mut Value)| {
        let found = pod("cart-1", change).binding(&TrustDomain::default());
        found.map(|(node, identity)| format!("{node} {}/{}", identity.namespace, identity.service_account))
    };
    let bound = Some("n1 shop/cart".to_owned());
    assert_eq!(binding(|_| ()), bound);
    assert_eq!(binding(|p| p["status"] = json!({})), bound, "from binding on, before it runs");
    assert_eq!(binding(|p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")), bound);
    assert_eq!(binding(|p| p["spec"]["serviceAccountName"] = Value::Null), Some("n1 shop/default".to_owned()));
    assert_eq!(binding(|p| p["spec"]["nodeName"] = Value::Null), None);
    assert_eq!(binding(|p| p["spec"]["nodeName"] = json!("")), None);
    assert_eq!(binding(|p| p["spec"]["hostNetwork"] = json!(true)), None);
    assert_eq!(binding(|p| p["status"]["phase"] = json!("Succeeded")), None);
    assert_eq!(binding(|p| p["status"]["phase"] = json!("Failed")), None);
}

#[test]
fn events_leave_what_is_there_and_nothing_else() {
    let bindings = Arc::new(Bindings::unread());
    let known = Arc::new(KnownPods::default());
    let mut pods = Pods {
        trust_domain: TrustDomain::default(),
        bound: HashMap::new(),
        bindings: Arc::clone(&bindings),
        known: Arc::clone(&known),
    };
    let cart = SpiffeId::new(TrustDomain::default(), "shop", "cart");
    let may = |node: &str| bindings.may_issue(&Caller::Node(NodeName::new(node)), &cart).is_ok();
    let on = |name: &str, node: &str| pod(name, |p| p["spec"]["nodeName"] = json!(node));
    let knows = |name: &str, node: &str| {
        let reviewed = Reviewed {
            namespace: "shop".into(),
            service_account: "cart".into(),
            pod: name.into(),
            pod_uid: "u".into(),
            node: Some(node.into()),
        };
        known.knows(&reviewed, std::time::SystemTime::now())
    };

    pods.apply(Watched::Restarted(vec![on("a", "n1"), on("b", "n1")]));
    assert!(bindings.is_read() && may("n1") && !may("n2"));
    assert!(knows("a", "n1") && knows("b", "n1") && !knows("a", "n2") && !knows("c", "n1"));
    pods.apply(Watched::Applied(on("a", "n1")));
    pods.apply(Watched::Deleted(on("a", "n1")));
    assert!(may("n1"), "one of two is left, however often the other was told");
    assert!(!knows("a", "n1"));
    pods.apply(Watched::Deleted(on("a", "n1")));
    assert!(may("n1"));
    pods.apply(Watched::Applied(on("b", "n2")));
    assert!(!may("n1") && may("n2"), "the same name on another node");
    assert!(!knows("b", "n1") && knows("b", "n2"));
    pods.apply(Watched::Applied(pod("b", |p| p["status"]["phase"] = json!("Succeeded"))));
    assert!(!may("n2"));
    pods.apply(Watched::Applied(on("c", "n1")));
    pods.apply(Watched::Restarted(vec![on("d", "n2")]));
    assert!(!may("n1") && may("n2"), "what a new list lacks is gone");
    assert!(!knows("c", "n1") && knows("d", "n2"));
    pods.apply(Watched::Applied(pod("d", |p| {
        p["spec"]["nodeName"] = json!("n2");
        p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    })));
    assert!(may("n2") && !knows("d", "n2"), "it should have ended long ago");
}
