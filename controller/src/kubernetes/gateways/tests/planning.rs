use serde_json::json;
use weft_k8s::index::IndexConfig;
use weft_k8s::object::Kind;
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};

use super::*;
use crate::kubernetes::intake::Fact;
use crate::kubernetes::ranges::GivenRanges;
use crate::kubernetes::seen::Seen;
use crate::kubernetes::subject::Subject;
use crate::kubernetes::world::{Effects, World};

fn world() -> World {
    let settings = GatewaySettings { place: Place::Cluster, check: KeyPairCheck(|_, _| Ok(())) };
    let config = IndexConfig { gateways: Some(settings), ..IndexConfig::default() };
    let mut world = World::new(config, GivenRanges::default());
    for subject in Subject::ALL {
        world.take(Fact::Listed(subject, subject.resource(subject.versions()[0]), Vec::new()));
    }
    world.commit();
    world
}

fn seen(kind: Kind, value: Value) -> (Subject, Seen) {
    let subject = Subject::Object(kind);
    (subject, Seen::of(subject, serde_json::from_value(value).unwrap()))
}

fn apply(world: &mut World, kind: Kind, value: Value) -> Effects {
    let (subject, seen) = seen(kind, value);
    world.take(Fact::Applied(subject, seen));
    world.commit()
}

fn parameters() -> Value {
    json!({ "metadata": { "name": "p", "namespace": "mesh", "uid": "p" }, "spec": { "replicas": 4 } })
}

fn class(spec: Value) -> Value {
    json!({ "metadata": { "name": "weft", "uid": "c", "generation": 1 }, "spec": spec })
}

/// The reason that the class is to be accepted or refused for.
fn reason(effects: &Effects) -> Option<String> {
    let wanted = effects.statuses.iter().find(|wanted| wanted.target.resource.kind == "GatewayClass")?;
    let status = wanted.desired.merge(1, None, "2026-11-21T12:00:00Z")?;
    status["conditions"][0]["reason"].as_str().map(str::to_owned)
}

#[test]
fn a_class_says_whether_its_parameters_are_there_as_they_come_and_go() {
    let mut world = world();
    let reference = json!({ "group": "weftmesh.io", "kind": "GatewayParameters", "namespace": "mesh", "name": "p" });
    let spec = json!({ "controllerName": "weftmesh.io/gateway-controller", "parametersRef": reference });
    let effects = apply(&mut world, Kind::GatewayClass, class(spec));
    assert_eq!(reason(&effects).as_deref(), Some("InvalidParameters"));
    let effects = apply(&mut world, Kind::GatewayParameters, parameters());
    assert_eq!(reason(&effects).as_deref(), Some("Accepted"));
    let (subject, gone) = seen(Kind::GatewayParameters, parameters());
    world.take(Fact::Deleted(subject, gone));
    assert_eq!(reason(&world.commit()).as_deref(), Some("InvalidParameters"));
}

#[test]
fn plans_are_made_when_they_may_be_others_and_not_for_a_status() {
    let mut world = world();
    apply(&mut world, Kind::GatewayClass, class(json!({ "controllerName": "weftmesh.io/gateway-controller" })));
    let gateway = |status: Value| {
        json!({ "metadata": { "name": "web", "namespace": "edge", "uid": "g" }, "status": status,
            "spec": { "gatewayClassName": "weft", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] } })
    };
    let plans = apply(&mut world, Kind::Gateway, gateway(json!({}))).plans.unwrap();
    assert_eq!((plans.ours.len(), plans.ours[0].uid.as_str(), plans.foreign.len()), (1, "g", 0));
    assert!(apply(&mut world, Kind::Gateway, gateway(json!({ "addresses": [] }))).plans.is_none());
    let service = json!({ "metadata": { "name": "s", "namespace": "edge" }, "spec": { "ports": [{ "port": 80 }] } });
    assert!(apply(&mut world, Kind::Service, service).plans.is_none());

    let other = class(json!({ "controllerName": "example.com/other" }));
    let plans = apply(&mut world, Kind::GatewayClass, other).plans.unwrap();
    assert_eq!((plans.ours.len(), plans.foreign.len()), (0, 1));
}

#[test]
fn what_cannot_be_made_is_said_by_the_gateway() {
    let mut world = world();
    apply(&mut world, Kind::GatewayClass, class(json!({ "controllerName": "weftmesh.io/gateway-controller" })));
    let gateway = json!({ "metadata": { "name": "web", "namespace": "edge", "uid": "g" },
        "spec": { "gatewayClassName": "weft", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] } });
    apply(&mut world, Kind::Gateway, gateway);
    let unmade = Unmade { why: "exceeded quota".to_owned(), serves: false };
    world.take(Fact::Unprovisioned([(GatewayKey::new("edge", "web"), unmade)].into()));
    let effects = world.commit();
    let status = effects.statuses[0].desired.merge(1, None, "2026-11-21T12:00:00Z").unwrap();
    let condition = status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Programmed").unwrap();
    assert_eq!(condition["reason"], "NoResources");
    assert!(condition["message"].as_str().unwrap().contains("exceeded quota"));
}
