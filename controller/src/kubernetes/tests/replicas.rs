//! Gateways of a cluster, and what their pods are heard to have bound.

use serde_json::{Value, json};
use weft_k8s::index::IndexConfig;
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};
use weft_kube::kube::core::DynamicObject;

use super::*;
use crate::kubernetes::bound::Bindings;
use crate::kubernetes::intake::Fact;
use crate::kubernetes::ranges::GivenRanges;
use crate::kubernetes::seen::Seen;
use crate::kubernetes::subject::Subject;

const CLASS: Subject = Subject::Object(Kind::GatewayClass);
const GATEWAY: Subject = Subject::Object(Kind::Gateway);
const ACCOUNT: Subject = Subject::Object(Kind::ServiceAccount);
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

fn account(owner: Option<&str>) -> Fact {
    let owner = owner.map(
        |uid| json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": uid }),
    );
    let metadata =
        json!({ "name": "web-weft", "namespace": "edge", "ownerReferences": owner.into_iter().collect::<Vec<_>>() });
    Fact::Applied(ACCOUNT, seen(ACCOUNT, json!({ "metadata": metadata })))
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
    Report::from([("edge/web".to_owned(), BTreeSet::from([Bindings::All(fingerprint.clone())]))])
}

fn is_bound(world: &mut World, fact: Fact) -> bool {
    world.take(fact);
    world.commit();
    world.fleet.bound.contains_key(&web())
}

#[test]
fn a_gateway_of_ours_lets_its_pods_in_and_its_end_keeps_them_out() {
    let mut world = world();
    world.take(gateway(&[80]));
    let audience = world.commit().audience;
    assert_eq!(audience.accounts.as_deref(), Some(&Accounts::new()), "nobody has its ServiceAccount");
    // Somebody else's of that name makes nobody the Gateway, nor does that of an earlier one.
    for (uid, is_its_own) in [(None, false), (Some("old"), false), (Some("g"), true), (None, false), (Some("g"), true)]
    {
        world.take(account(uid));
        let accounts = world.commit().audience.accounts;
        let expected = is_its_own.then(|| (("edge".into(), "web-weft".into()), web()));
        assert_eq!(accounts.as_deref(), Some(&expected.into_iter().collect::<Accounts>()), "{uid:?}");
    }
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

/// One pod has port 81 taken, another one port 80: each listener is bound by somebody.
#[test]
fn a_listener_that_every_pod_refuses_is_told_from_its_neighbours() {
    let mut world = world();
    let now = wanted(&mut world, gateway(&[80, 81])).unwrap();
    let but = |names: &[&str]| {
        let refused = names.iter().map(|name| (format!("edge/web/{name}"), format!("{name} is in use")));
        Bindings::AllBut { listeners: now.clone(), refused: refused.collect() }
    };
    let told =
        |pods: Vec<Bindings>| Fact::BoundHere(Report::from([("edge/web".to_owned(), pods.into_iter().collect())]));
    let unbound = |world: &World| {
        let of_gateway = world.fleet.bound.get(&web());
        of_gateway.map(|all| all.iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>())
    };
    assert!(is_bound(&mut world, told(vec![but(&["l81"])])));
    assert_eq!(unbound(&world), Some(vec!["edge/web/l81: l81 is in use".to_owned()]));
    is_bound(&mut world, told(vec![but(&["l81"]), but(&["l80", "l81"])]));
    assert_eq!(unbound(&world), Some(vec!["edge/web/l81: l81 is in use".to_owned()]), "refused by both");
    is_bound(&mut world, told(vec![but(&["l81"]), but(&["l80"])]));
    assert_eq!(unbound(&world), Some(Vec::new()));
    is_bound(&mut world, told(vec![but(&["l81"]), Bindings::All(now.clone())]));
    assert_eq!(unbound(&world), Some(Vec::new()));
    let conditions = |world: &World| {
        let reference = ObjectRef::new(Kind::Gateway, "edge", "web");
        let Some((_, weft_k8s::object::ObjectStatus::Gateway(status))) = world.index.status(&reference) else {
            panic!()
        };
        let of = |listener: &weft_k8s::object::ListenerStatus| {
            let condition =
                listener.conditions.iter().find(|it| it.kind == weft_k8s::object::ConditionType::GatewayProgrammed);
            condition.map(|it| format!("{} {}", listener.name, it.reason)).unwrap_or_default()
        };
        status.listeners.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(conditions(&world), ["l80 Programmed", "l81 Programmed"]);
    is_bound(&mut world, told(vec![but(&["l81"])]));
    assert_eq!(conditions(&world), ["l80 Programmed", "l81 RefusedByPod"]);
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
    assert!(world.fleet.bound.contains_key(&web()), "its pods are on their way");
    assert!(world.commit().gone_of_bound.is_empty(), "said once");
    assert_eq!(world.review().gone_of_bound, ["b"], "a new leader hears it too");
    assert!(!is_bound(&mut world, all(&[("a", &old)])));
}
