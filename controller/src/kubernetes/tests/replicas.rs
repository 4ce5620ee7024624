//! Gateways of a cluster, and what their pods are heard to have bound.

use serde_json::{Value, json};
use weft_k8s::index::IndexConfig;
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};
use weft_kube::kube::core::DynamicObject;

use super::*;
use crate::kubernetes::intake::Fact;
use crate::kubernetes::ranges::GivenRanges;
use crate::kubernetes::seen::Seen;
use crate::kubernetes::subject::Subject;

const CLASS: Subject = Subject::Object(Kind::GatewayClass);
const GATEWAY: Subject = Subject::Object(Kind::Gateway);
const POD: Subject = Subject::Object(Kind::Pod);

fn seen(subject: Subject, value: Value) -> Seen {
    let object: DynamicObject = serde_json::from_value(value).unwrap();
    Seen::of(subject, object)
}

/// A world in which all kinds are there and empty but for a class of ours.
fn world() -> World {
    let gateways = GatewaySettings { place: Place::Cluster, check: KeyPairCheck(|_, _| Ok(())) };
    let config = IndexConfig { gateways: Some(gateways), ..IndexConfig::default() };
    let mut world = World::new(config, GivenRanges::default()).of_replica("mesh", "a");
    for subject in Subject::ALL {
        world.take(Fact::Listed(subject, subject.resource(subject.versions()[0]), Vec::new()));
    }
    let class =
        json!({ "metadata": { "name": "weft" }, "spec": { "controllerName": "weftmesh.io/gateway-controller" } });
    world.take(Fact::Applied(CLASS, seen(CLASS, class)));
    assert_eq!(world.missing(), ["ConfigMap weft-gateways"], "what is bound may be known already");
    world.take(Fact::Bound(BTreeMap::new()));
    assert!(world.missing().is_empty());
    world.commit();
    world
}

fn gateway(ports: &[u16]) -> Fact {
    let listener = |port: &u16| json!({ "name": format!("l{port}"), "port": port, "protocol": "HTTP" });
    let listeners: Vec<_> = ports.iter().map(listener).collect();
    let spec = json!({ "gatewayClassName": "weft", "listeners": listeners });
    let metadata = json!({ "name": "web", "namespace": "edge", "uid": "g", "generation": 1 });
    Fact::Applied(GATEWAY, seen(GATEWAY, json!({ "metadata": metadata, "spec": spec })))
}

fn web() -> GatewayKey {
    GatewayKey::new("edge", "web")
}

/// What a gateway is to bind after a change.
fn wanted(world: &mut World, fact: Fact) -> Option<Fingerprint> {
    world.take(fact);
    match &world.commit().audience.listeners[..] {
        [(gateway, fingerprint)] if *gateway == web() => fingerprint.clone(),
        other => panic!("{other:?}"),
    }
}

fn report(fingerprint: &Fingerprint) -> Report {
    Report::from([("edge/web".to_owned(), BTreeSet::from([fingerprint.clone()]))])
}

fn is_bound(world: &mut World, fact: Fact) -> bool {
    world.take(fact);
    world.commit();
    world.fleet.bound.contains(&web())
}

#[test]
fn a_gateway_of_ours_lets_its_pods_in_and_its_end_keeps_them_out() {
    let mut world = world();
    world.take(gateway(&[80]));
    let audience = world.commit().audience;
    let account = ("edge".into(), "web-weft".into());
    assert_eq!(audience.accounts.as_deref(), Some(&Accounts::from([(account, web())])));
    assert_eq!(world.commit().audience, Audience::default(), "nothing new");
    let gone = seen(GATEWAY, json!({ "metadata": { "name": "web", "namespace": "edge" }, "spec": {} }));
    world.take(Fact::Deleted(GATEWAY, gone));
    let audience = world.commit().audience;
    assert_eq!(audience.accounts.as_deref(), Some(&Accounts::new()));
    assert_eq!(audience.listeners, [(web(), None)]);
    assert!(world.fleet.wanted.is_empty() && world.fleet.listeners.is_empty());
}

#[test]
fn a_gateway_is_bound_when_a_pod_has_just_the_listeners_of_now() {
    let mut world = world();
    let first = wanted(&mut world, gateway(&[80])).unwrap();
    assert!(world.fleet.bound.is_empty());
    assert!(is_bound(&mut world, Fact::BoundHere(report(&first))));
    let second = wanted(&mut world, gateway(&[80, 81])).unwrap();
    assert!(first != second && world.fleet.bound.is_empty(), "one of them isn't bound yet");
    assert!(is_bound(&mut world, Fact::BoundHere(report(&second))));
    assert_eq!(wanted(&mut world, gateway(&[80])), Some(first.clone()), "by content, not by order");
    assert!(!is_bound(&mut world, Fact::BoundHere(Report::new())), "its pods are gone");
    assert!(is_bound(&mut world, Fact::BoundHere(report(&first))));
}

#[test]
fn the_word_of_any_replica_counts_and_that_of_one_that_is_gone_until_it_is_removed() {
    let mut world = world();
    let now = wanted(&mut world, gateway(&[80])).unwrap();
    let old = Fingerprint::of(&BTreeMap::new());
    let all = |replicas: &[(&str, &Fingerprint)]| {
        let reports = replicas.iter().map(|(replica, print)| ((*replica).to_owned(), report(print)));
        Fact::Bound(reports.collect())
    };
    assert!(!is_bound(&mut world, all(&[("a", &now)])), "what is there under its own name is older than its word");
    let pod = seen(POD, json!({ "metadata": { "name": "b", "namespace": "mesh" } }));
    world.take(Fact::Applied(POD, pod.clone()));
    assert!(is_bound(&mut world, all(&[("a", &old), ("b", &now)])));
    world.take(Fact::Deleted(POD, pod));
    assert_eq!(world.commit().gone_of_bound, ["b"]);
    assert!(world.fleet.bound.contains(&web()), "its pods are on their way");
    assert!(world.commit().gone_of_bound.is_empty(), "said once");
    assert_eq!(world.review().gone_of_bound, ["b"], "a new leader hears it too");
    assert!(!is_bound(&mut world, all(&[("a", &old)])));
}
