//! Tables of decisions.

use super::*;
use serde_json::{Value, json};
use weft_k8s::object::ENROLMENT_LABEL;
use weft_k8s::translate::enrolment::{GATEWAY_LABEL, ISTIO_AMBIENT, ISTIO_DATAPLANE_MODE, ISTIO_SIDECAR};
use weft_kube::kube::core::DynamicObject;

const OWN: &str = "weft-system";

fn listed(namespaces: &[(&str, &str)]) -> World {
    let mut world = World::new(OWN.into(), OWN.into(), []);
    let all = namespaces.iter().map(|(name, label)| namespace(name, label));
    world.namespaces(Watched::Restarted(all.collect()));
    world.pods(Watched::Restarted(Vec::new()));
    world.policies(Watched::Restarted(Vec::new()));
    world.asking(Watched::Restarted(Vec::new()));
    world
}

fn namespace(name: &str, label: &str) -> core::Namespace {
    let labels = if label.is_empty() { json!({}) } else { json!({ ENROLMENT_LABEL: label }) };
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
}

fn pod(namespace: &str, name: &str, more: Value) -> core::Pod {
    let mut pod = json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("uid-{name}") },
        "spec": { "nodeName": "n1", "serviceAccountName": "cart", "containers": [{ "name": "app" }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.7" }, { "ip": "fd00::7" }] },
    });
    merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn merge(target: &mut Value, more: Value) {
    match more {
        Value::Object(fields) => fields.into_iter().for_each(|(key, value)| merge(&mut target[key.as_str()], value)),
        value => *target = value,
    }
}

fn named(namespace: &str, name: &str) -> PodRef {
    PodRef { namespace: namespace.into(), name: name.into(), uid: Some(format!("uid-{name}").into()) }
}

fn label(value: &str) -> Value {
    json!({ "metadata": { "labels": { ENROLMENT_LABEL: value } } })
}

fn enrolled(older_flows: OlderFlows) -> Decision {
    let strict = Some(older_flows == OlderFlows::Close);
    Decision::Enrolled(Enrolled { service_account: "cart".into(), older_flows, strict })
}

#[test]
fn labels_decide_and_some_pods_never_join() {
    let in_ = enrolled(OlderFlows::Keep);
    let out = Decision::Outside;
    let cases: Vec<(&str, Value, Decision)> = vec![
        ("on", json!({}), in_.clone()),
        ("off", json!({}), out(Outside::NotLabelled)),
        ("none", json!({}), out(Outside::NotLabelled)),
        ("none", label("enabled"), in_.clone()),
        ("off", label("enabled"), in_.clone()),
        ("on", label("disabled"), out(Outside::Disabled)),
        ("on", label("maybe"), in_.clone()),
        ("none", label("maybe"), out(Outside::NotLabelled)),
        ("on", json!({ "spec": { "hostNetwork": true } }), out(Outside::HostNetwork)),
        ("on", json!({ "metadata": { "labels": { GATEWAY_LABEL: "public" } } }), out(Outside::Gateway)),
        ("on", json!({ "metadata": { "annotations": { ISTIO_SIDECAR: "{}" } } }), out(Outside::Istio)),
        ("on", json!({ "metadata": { "annotations": { ISTIO_AMBIENT.0: "enabled" } } }), out(Outside::Istio)),
        ("on", json!({ "metadata": { "annotations": { ISTIO_AMBIENT.0: "disabled" } } }), in_.clone()),
        ("on", json!({ "spec": { "containers": [{ "name": "a" }, { "name": "istio-proxy" }] } }), out(Outside::Istio)),
        ("on", json!({ "spec": { "initContainers": [{ "name": "istio-proxy" }] } }), out(Outside::Istio)),
        ("on", json!({ "spec": { "initContainers": [{ "name": "linkerd-proxy" }] } }), out(Outside::Linkerd)),
        ("on", json!({ "metadata": { "labels": { ISTIO_DATAPLANE_MODE: "ambient" } } }), out(Outside::IstioAmbient)),
        ("on", json!({ "metadata": { "labels": { ISTIO_DATAPLANE_MODE: "none" } } }), in_.clone()),
        ("on", json!({ "spec": { "initContainers": [{ "name": "migrate" }] } }), in_),
        // Nobody asked: what else it has is no news.
        ("none", json!({ "spec": { "containers": [{ "name": "istio-proxy" }] } }), out(Outside::NotLabelled)),
        (OWN, label("enabled"), out(Outside::Infrastructure)),
    ];
    for (namespace, more, want) in cases {
        let mut world = listed(&[("on", "enabled"), ("off", "disabled"), ("none", ""), (OWN, "enabled")]);
        world.pods(Watched::Applied(pod(namespace, "p", more.clone())));
        assert_eq!(world.decide(&named(namespace, "p")).unwrap(), want, "{namespace} {more}");
        let refused: Vec<_> = world.refused().into_iter().map(|r| (r.pod.uid.unwrap(), r.why)).collect();
        match want {
            Decision::Outside(why) if why.overrides_labels() => assert_eq!(refused, [("uid-p".into(), why)], "{more}"),
            _ => assert!(refused.is_empty(), "{namespace} {more}: {refused:?}"),
        }
    }
}

/// Istio's plugin takes a new pod at the same moment as ours, and annotates it afterwards.
#[test]
fn a_namespace_that_istio_takes_by_its_label_isnt_taken_twice() {
    let labels = |label: &str| json!({ ENROLMENT_LABEL: "enabled", ISTIO_DATAPLANE_MODE: label });
    let of =
        |label: &str| serde_json::from_value(json!({ "metadata": { "name": "on", "labels": labels(label) } })).unwrap();
    let mut world = listed(&[]);
    world.namespaces(Watched::Applied(of("ambient")));
    world.pods(Watched::Applied(pod("on", "p", json!({}))));
    let keeps = json!({ "metadata": { "labels": { ISTIO_DATAPLANE_MODE: "none" } } });
    world.pods(Watched::Applied(pod("on", "q", keeps)));
    let decide = |world: &World, name: &str| world.decide(&named("on", name)).unwrap();
    assert_eq!(decide(&world, "p"), Decision::Outside(Outside::IstioAmbient));
    assert_eq!(decide(&world, "q"), enrolled(OlderFlows::Keep));
    let why: Vec<_> = world.refused().into_iter().map(|it| it.why.to_string()).collect();
    assert_eq!(why.len(), 1, "an Event for the pod");
    assert!(why[0].contains("istio.io/dataplane-mode=ambient"), "{}", why[0]);
    // Out of Istio, it is ours without a restart.
    world.namespaces(Watched::Applied(of("none")));
    assert_eq!(decide(&world, "p"), enrolled(OlderFlows::Keep));
}

#[test]
fn own_pods_of_an_enrolled_namespace_are_no_news() {
    let mut world = listed(&[(OWN, "enabled")]);
    world.pods(Watched::Applied(pod(OWN, "weft-ca", json!({}))));
    assert!(world.refused().is_empty());
}

#[test]
fn an_account_that_is_not_named_is_default() {
    let mut world = listed(&[("on", "enabled")]);
    world.pods(Watched::Applied(pod("on", "p", json!({ "spec": { "serviceAccountName": "" } }))));
    let Ok(Decision::Enrolled(decided)) = world.decide(&named("on", "p")) else { panic!() };
    assert_eq!(decided.service_account.as_str(), "default");
}

#[test]
fn what_is_not_known_is_not_decided() {
    let mut world = World::new(OWN.into(), OWN.into(), ["calm".into()]);
    assert!(matches!(world.decide(&named("on", "p")), Err(Undecided::NotReady(_))));
    assert_eq!(world.decide(&named(OWN, "p")).unwrap(), Decision::Outside(Outside::Infrastructure));
    let running = world.decide(&named("calm", "p"));
    assert!(matches!(running, Err(Undecided::NotReady(_))), "what was takes no running pod out: {running:?}");
    assert_eq!(world.presumed(&named("calm", "p")), Some(Outside::NotLabelled), "for one that starts now");
    assert_eq!(world.presumed(&named("on", "p")), None);
    assert_eq!(world.namespaces_outside(), ["calm".into()], "what was known isn't overwritten by nothing");
    assert!(world.has_news_of(&named(OWN, "p")) && !world.has_news_of(&named("calm", "p")));
    assert!(!world.is_gone(&named("on", "p")));

    world.pods(Watched::Restarted(vec![pod("on", "p", json!({}))]));
    world.namespaces(Watched::Restarted(Vec::new()));
    assert!(!world.is_listed(), "policies may make it strict");
    world.no_policies();
    assert!(!world.is_listed(), "namespaces may have pods in the mesh elsewhere");
    assert_eq!(world.namespaces_outside(), ["calm".into()]);
    world.asking(Watched::Restarted(Vec::new()));
    assert!(world.is_listed() && world.namespaces_outside().is_empty());
    assert_eq!(world.presumed(&named("calm", "p")), None, "now it is known");
    assert!(matches!(world.decide(&named("on", "p")), Err(Undecided::NotReady(why)) if why.contains("namespace on")));
    world.namespaces(Watched::Applied(namespace("on", "enabled")));
    assert!(world.decide(&named("on", "p")).is_ok() && world.has_news_of(&named("on", "p")));

    // A StatefulSet's pod of the same name, made anew.
    let next = PodRef { uid: Some("uid-next".into()), ..named("on", "p") };
    assert!(matches!(world.decide(&next), Err(Undecided::UnknownPod(_))));
    assert!(!world.has_news_of(&next) && world.is_gone(&next) && !world.is_gone(&named("on", "p")));
    assert!(world.decide(&PodRef { uid: None, ..next }).is_ok(), "a runtime that says no uid");
}

#[test]
fn a_static_pod_has_two_uids() {
    let mut world = listed(&[("on", "enabled")]);
    let hash = "0123456789abcdef0123456789abcdef";
    world.pods(Watched::Applied(pod("on", "p", json!({ "metadata": { "annotations": { STATIC_UID: hash } } }))));
    for uid in ["uid-p", hash] {
        assert!(world.decide(&PodRef { uid: Some(uid.into()), ..named("on", "p") }).is_ok(), "{uid}");
    }
    assert_eq!(world.running()[0].pod.uid, Some(hash.into()), "as its cgroups call it");
}

fn strict(namespace: &str, mode: &str) -> SeenPolicy {
    let policy = json!({
        "apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy",
        "metadata": { "namespace": namespace, "name": "strict" }, "spec": { "mode": mode },
    });
    SeenPolicy::of(serde_json::from_value::<DynamicObject>(policy).unwrap())
}

#[test]
fn a_policy_that_cannot_be_read_stays_what_it_was() {
    let unreadable = |mut seen: SeenPolicy| {
        seen.object = None;
        seen
    };
    let mut world = listed(&[("on", "enabled")]);
    world.pods(Watched::Applied(pod("on", "p", json!({}))));
    world.policies(Watched::Applied(unreadable(strict("on", "Strict"))));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Keep), "nothing was known of it");
    world.policies(Watched::Applied(strict("on", "Strict")));
    world.policies(Watched::Applied(unreadable(strict("on", "Permissive"))));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Close));
    world.policies(Watched::Restarted(vec![unreadable(strict("on", "Permissive"))]));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Close), "also in a list");
    world.policies(Watched::Deleted(unreadable(strict("on", "Permissive"))));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Keep), "gone is gone");
}

#[test]
fn strict_closes_older_flows_also_before_a_pod_has_its_address() {
    let mut world = listed(&[("on", "enabled"), (OWN, "")]);
    world.pods(Watched::Applied(pod("on", "p", json!({ "status": { "phase": "Pending", "podIPs": [] } }))));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Keep));
    let before = world.picture();
    world.policies(Watched::Applied(strict("on", "Strict")));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Close));
    assert_ne!(world.picture(), before);
    assert!(world.running().is_empty(), "the stand-in is no address");
    world.policies(Watched::Applied(strict("on", "Permissive")));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Keep));
    world.policies(Watched::Restarted(vec![strict(OWN, "Strict")]));
    assert_eq!(world.decide(&named("on", "p")).unwrap(), enrolled(OlderFlows::Close), "of the whole mesh");
}

#[test]
fn namespaces_outside_have_no_enrolled_pod_on_this_node() {
    let mut world = listed(&[("on", "enabled"), ("off", "disabled"), ("none", ""), ("mixed", ""), (OWN, "enabled")]);
    world.pods(Watched::Applied(pod("mixed", "p", label("enabled"))));
    world.pods(Watched::Applied(pod("none", "q", json!({}))));
    assert_eq!(world.namespaces_outside(), ["none".into(), "off".into(), OWN.into()]);
    world.pods(Watched::Deleted(pod("mixed", "p", label("enabled"))));
    assert_eq!(world.namespaces_outside().len(), 4);
    world.leave();
    assert_eq!(world.namespaces_outside().len(), 5);
    assert_eq!(world.decide(&named("on", "any")).unwrap(), Decision::Outside(Outside::Uninstalling));
}

#[test]
fn a_pod_anywhere_that_asks_keeps_its_namespace_from_being_outside() {
    let mut world = listed(&[("calm", ""), ("none", ""), ("off", "disabled"), (OWN, "")]);
    let elsewhere = |namespace: &str| ObjectRef::new(Kind::Pod, namespace, "p");
    world.asking(Watched::Restarted(vec![elsewhere("none"), elsewhere("a"), elsewhere("z"), elsewhere(OWN)]));
    assert_eq!(world.namespaces_outside(), ["calm".into(), "off".into(), OWN.into()]);
    let before = world.picture();
    assert!(!world.is_asking(&elsewhere("off")));
    world.asking(Watched::Applied(elsewhere("off")));
    assert!(world.is_asking(&elsewhere("off")));
    assert_eq!(world.namespaces_outside(), ["calm".into(), OWN.into()]);
    assert_ne!(world.picture(), before, "the file is to be written anew");
    world.asking(Watched::Deleted(elsewhere("none")));
    assert_eq!(world.namespaces_outside(), ["calm".into(), "none".into(), OWN.into()]);
}

#[test]
fn running_pods_are_those_with_a_network_of_their_own() {
    let mut world = listed(&[("on", "enabled"), ("none", "")]);
    let pods = vec![
        pod("on", "a", json!({})),
        pod("none", "b", json!({})),
        pod("on", "host", json!({ "spec": { "hostNetwork": true } })),
        pod("on", "done", json!({ "status": { "phase": "Succeeded" } })),
        pod("on", "failed", json!({ "status": { "phase": "Failed" } })),
        pod("on", "new", json!({ "status": { "phase": "Pending", "podIPs": [] } })),
        pod("on", "job", json!({ "status": { "phase": "Pending", "podIPs": [], "podIP": "10.0.0.9" } })),
    ];
    world.pods(Watched::Restarted(pods));
    let running: Vec<_> =
        world.running().into_iter().map(|r| (r.pod.name.to_string(), r.ips.len(), r.enrolled)).collect();
    assert_eq!(running, [("b".into(), 2, false), ("a".into(), 2, true), ("job".into(), 1, true)]);
}

#[test]
fn only_what_matters_changes_the_picture() {
    let mut world = listed(&[("on", "enabled")]);
    world.pods(Watched::Applied(pod("on", "p", json!({}))));
    let before = world.picture();
    let noise = json!({ "metadata": { "resourceVersion": "9" }, "status": { "message": "x" } });
    world.pods(Watched::Applied(pod("on", "p", noise)));
    assert_eq!(world.picture(), before, "heartbeats of a kubelet start no round");
    world.pods(Watched::Applied(pod("on", "p", label("disabled"))));
    assert_ne!(world.picture(), before);
}
