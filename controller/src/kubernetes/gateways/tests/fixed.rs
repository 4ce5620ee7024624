use serde_json::json;

use super::*;
use crate::kubernetes::gateways::fixed::{onto, told};
use crate::kubernetes::gateways::table::{Live, Owned};

/// What is applied to an object that is there, and what is told; by the `spec` of both.
fn applied(kind: Owned, live: Value, wanted: Value) -> (Value, String) {
    let id = Id { kind, namespace: "edge".into(), name: "web-weft".into() };
    let wanted = Wanted {
        gateway: plan("web").key,
        gateway_uid: "uid-of-web".to_owned(),
        object: Arc::new(json!({ "spec": wanted })),
        begins_with: None,
        fixed: Vec::new(),
    };
    let found = onto(&Live::of(live), kind, &wanted);
    let text = if found.fixed.is_empty() { String::new() } else { told(&id, &found.fixed) };
    (found.object["spec"].clone(), text)
}

fn service(live: Value, wanted: Value) -> (Value, String) {
    applied(Owned::Service, json!({ "spec": live }), wanted)
}

#[test]
fn what_can_be_changed_is_applied_as_it_is_wanted() {
    for (live, wanted) in [
        (json!({}), json!({ "type": "LoadBalancer", "loadBalancerClass": "b" })),
        (
            json!({ "type": "LoadBalancer", "loadBalancerClass": "a" }),
            json!({ "type": "LoadBalancer", "loadBalancerClass": "a" }),
        ),
        // Services of other types have no class, so that one may come with the type and go with it.
        (json!({ "type": "NodePort" }), json!({ "type": "LoadBalancer", "loadBalancerClass": "b" })),
        (json!({ "type": "LoadBalancer", "loadBalancerClass": "a" }), json!({ "type": "ClusterIP" })),
        // Somebody else has given it: an admission webhook of whoever makes load balancers.
        (json!({ "type": "LoadBalancer", "loadBalancerClass": "a" }), json!({ "type": "LoadBalancer" })),
        // The second family goes and comes.
        (
            json!({ "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack" }),
            json!({ "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack" }),
        ),
        (json!({ "ipFamilies": ["IPv6"], "clusterIP": "fd00::1" }), json!({ "ipFamilyPolicy": "PreferDualStack" })),
    ] {
        assert_eq!(service(live.clone(), wanted.clone()), (wanted, String::new()), "{live}");
    }
}

#[test]
fn what_cannot_be_changed_stays_and_is_told_with_what_is_and_what_was_wanted() {
    let balanced = |class: &str| json!({ "type": "LoadBalancer", "loadBalancerClass": class, "ports": [1] });
    let (spec, text) =
        service(balanced("a"), json!({ "type": "LoadBalancer", "loadBalancerClass": "b", "ports": [2] }));
    assert_eq!(spec, json!({ "type": "LoadBalancer", "ports": [2] }), "somebody else's doesn't become ours");
    let expected = "Service web-weft: spec.loadBalancerClass is \"a\" and should be \"b\", and nobody can change that: delete \
                    the Service web-weft and it is made anew, perhaps with other addresses";
    assert_eq!(text, expected);

    let (spec, text) = service(json!({ "type": "LoadBalancer" }), balanced("b"));
    assert_eq!(spec, json!({ "type": "LoadBalancer", "ports": [1] }));
    assert!(text.contains("spec.loadBalancerClass is not set and should be \"b\""), "{text}");

    // One that is there by our own word goes when it isn't said any more, and can't.
    let entry = |operation: &str| {
        json!({ "manager": "weft-gateways", "operation": operation,
            "fieldsV1": { "f:spec": { "f:loadBalancerClass": {} } } })
    };
    let with_class =
        |operation: &str| json!({ "metadata": { "managedFields": [entry(operation)] }, "spec": balanced("a") });
    let wanted = json!({ "type": "LoadBalancer", "ports": [2] });
    for wanted in [&wanted, &balanced("b")] {
        assert_eq!(applied(Owned::Service, with_class("Apply"), wanted.clone()).0["loadBalancerClass"], "a");
    }
    let (_, text) = applied(Owned::Service, with_class("Apply"), wanted.clone());
    assert!(text.contains("spec.loadBalancerClass is \"a\" and should be not set"), "{text}");
    assert_eq!(applied(Owned::Service, with_class("Update"), wanted.clone()), (wanted, String::new()));
}

/// Whoever makes load balancers takes the address from a Service that asks for one of a family that it doesn't have.
#[test]
fn a_service_keeps_its_address_where_one_of_another_family_is_asked_for() {
    let live = json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
        "clusterIP": "10.0.0.1" });
    let wanted = json!({ "type": "LoadBalancer", "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack",
        "loadBalancerIP": "2001:db8::1", "ports": [2] });
    let (spec, text) = service(live, wanted);
    let expected = json!({ "type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
        "ports": [2] });
    assert_eq!(spec, expected);
    assert!(text.contains("spec.ipFamilies[0] is \"IPv4\" and should be \"IPv6\""), "{text}");
}

#[test]
fn what_cannot_be_kept_either_is_told_all_the_same() {
    let (_, text) = service(json!({ "clusterIP": "None" }), json!({ "type": "ClusterIP" }));
    assert!(text.contains("spec.clusterIP is \"None\" and should be an address"), "{text}");
    let selector = |name: &str| json!({ "selector": { "matchLabels": { "app": name } } });
    let deployment =
        |live: &str, wanted: &str| applied(Owned::Deployment, json!({ "spec": selector(live) }), selector(wanted));
    assert_eq!(deployment("a", "a"), (selector("a"), String::new()));
    let (spec, text) = deployment("b", "a");
    assert_eq!(spec, selector("a"), "pods that it doesn't find aren't its own");
    assert!(text.contains("delete the Deployment web-weft and it is made anew, with new pods"), "{text}");
}
