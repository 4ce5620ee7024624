use serde_json::json;

use super::super::foreign::ForeignPolicy;
use super::*;
use weft_core::change::{Resource, ResourceKey};
use weft_kube::kube::core::DynamicObject;

const POD: Subject = Subject::Object(Kind::Pod);
const ROUTE: Subject = Subject::Object(Kind::HttpRoute);
const SERVICE: Subject = Subject::Object(Kind::Service);

fn seen(subject: Subject, value: Value) -> Seen {
    let object: DynamicObject = serde_json::from_value(value).unwrap();
    Seen::of(subject, object)
}

fn world() -> World {
    World::new(IndexConfig::default(), GivenRanges::default())
}

/// A world in which all kinds are there and empty.
fn synced() -> World {
    let mut world = world();
    for subject in Subject::ALL {
        let version = subject.versions()[0];
        world.take(Fact::Listed(subject, subject.resource(version), Vec::new()));
    }
    world.commit();
    world
}

fn service() -> Seen {
    seen(
        SERVICE,
        json!({ "metadata": { "name": "cart", "namespace": "shop", "uid": "s" },
            "spec": { "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{ "port": 80, "appProtocol": "http" }] } }),
    )
}

fn route(uid: &str, port: u16, status: Value) -> Seen {
    seen(
        ROUTE,
        json!({ "metadata": { "name": "r", "namespace": "shop", "uid": uid, "generation": 1 },
            "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "cart", "port": port }],
                "rules": [{ "backendRefs": [{ "name": "cart", "port": 80 }] }] },
            "status": status }),
    )
}

/// What the writer would have made of it.
fn written(wanted: &Wanted, current: Value) -> Value {
    wanted.desired.merge(wanted.generation, Some(&current), "2026-11-21T12:00:00Z").unwrap()
}

#[test]
fn nothing_is_whole_before_every_kind_was_heard_of() {
    let mut world = world();
    let all = world.missing().len();
    assert_eq!(all, Subject::ALL.len());
    world.take(Fact::Absent(ROUTE));
    world.take(Fact::Listed(POD, POD.resource("v1"), Vec::new()));
    assert_eq!(world.missing().len(), all - 2);
    assert!(synced().missing().is_empty());
}

#[test]
fn a_status_is_wanted_until_the_cluster_has_it_and_again_when_somebody_takes_it_away() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({}))));
    let first = world.commit().statuses;
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].uid.as_str(), first[0].target.resource.plural.as_str()), ("u1", "httproutes"));
    let status = written(&first[0], json!({}));
    world.take(Fact::Applied(ROUTE, route("u1", 80, status.clone())));
    assert!(world.commit().statuses.is_empty());
    assert!(world.review().statuses.is_empty(), "a new leader has nothing to do");

    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({ "parents": [] }))));
    assert_eq!(world.commit().statuses.len(), 1);
    assert_eq!(world.review().statuses.len(), 1);
}

#[test]
fn an_object_made_anew_under_its_name_gets_its_status() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({}))));
    world.commit();
    // The watch missed the deletion, or both came in one batch.
    world.take(Fact::Listed(ROUTE, ROUTE.resource("v1"), vec![route("u2", 80, json!({}))]));
    let again = world.commit().statuses;
    assert_eq!(again.iter().map(|w| w.uid.as_str()).collect::<Vec<_>>(), ["u2"]);
}

#[test]
fn a_kind_that_goes_takes_its_objects_along_and_statuses_go_to_the_served_version() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    world.take(Fact::Listed(ROUTE, ROUTE.resource("v1beta1"), vec![route("u1", 80, json!({}))]));
    let effects = world.commit();
    assert_eq!(effects.statuses[0].target.resource.version, "v1beta1");
    let is_rule = |change: &Change| matches!(change, Change::Upsert(Resource::Rule(_)));
    assert!(effects.changes.iter().any(is_rule));
    world.take(Fact::Absent(ROUTE));
    let effects = world.commit();
    let removed = |change: &Change| matches!(change, Change::Remove(ResourceKey::Rule(_)));
    assert!(effects.changes.iter().any(removed) && effects.statuses.is_empty(), "{effects:?}");
}

#[test]
fn an_unreadable_object_is_told_of_and_what_was_known_of_it_stays() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({}))));
    world.commit();
    let broken = json!({ "metadata": { "name": "r", "namespace": "shop", "uid": "u1" }, "spec": { "rules": 3 } });
    world.take(Fact::Applied(ROUTE, seen(ROUTE, broken)));
    let effects = world.commit();
    assert!(effects.changes.is_empty());
    let note = &effects.notes[0];
    assert_eq!((note.reason.as_str(), note.regarding.uid.as_deref()), ("Unreadable", Some("u1")));
    assert!(note.message.contains("spec.rules"), "{note:?}");
    assert_eq!((world.odd(), world.review().notes.len()), (1, 1));
    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({}))));
    assert!(world.commit().notes.is_empty() && world.odd() == 0);
    world.take(Fact::Deleted(ROUTE, route("u1", 80, json!({}))));
    assert!(!world.commit().changes.is_empty());
}

#[test]
fn what_was_known_of_an_earlier_object_of_the_name_of_an_unreadable_one_is_gone() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({}))));
    world.commit();
    // The watch missed that it was deleted and made anew.
    let broken = json!({ "metadata": { "name": "r", "namespace": "shop", "uid": "u2" }, "spec": { "rules": 3 } });
    world.take(Fact::Listed(ROUTE, ROUTE.resource("v1"), vec![seen(ROUTE, broken)]));
    let effects = world.commit();
    let removed = |change: &Change| matches!(change, Change::Remove(ResourceKey::Rule(_)));
    assert!(effects.changes.iter().any(removed), "{effects:?}");
    let notes: Vec<_> = effects.notes.iter().map(|n| (n.reason.as_str(), n.regarding.uid.as_deref())).collect();
    assert_eq!((notes, world.odd()), (vec![("Unreadable", Some("u2"))], 1));
}

#[test]
fn the_status_of_a_policy_that_denies_for_want_of_understanding_is_written_once() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    let subject = Subject::Object(Kind::AuthorizationPolicy);
    let policy = |status: Value| {
        seen(
            subject,
            json!({ "metadata": { "name": "p", "namespace": "shop", "uid": "p", "generation": 1 },
                "spec": { "targetRefs": [{ "group": "", "kind": "Service", "name": "cart" }], "action": "ALLOW",
                    "rules": [{ "from": [{ "namespaces": ["a"], "regions": ["b"] }] }] },
                "status": status }),
        )
    };
    world.take(Fact::Applied(subject, policy(json!({}))));
    let wanted = world.commit().statuses;
    let status = written(&wanted[0], json!({}));
    assert!(status.to_string().contains("spec.rules[0].from[0].regions"), "{status}");
    world.take(Fact::Applied(subject, policy(status)));
    assert!(world.commit().statuses.is_empty() && world.review().statuses.is_empty());
}

#[test]
fn a_field_of_a_later_release_is_named_in_the_status() {
    let mut world = synced();
    world.take(Fact::Applied(SERVICE, service()));
    let novel = |fields: usize| {
        let mut value = json!({ "metadata": { "name": "r", "namespace": "shop", "uid": "u1", "generation": 1 },
            "spec": { "parentRefs": [{ "group": "", "kind": "Service", "name": "cart", "port": 80 }],
                "rules": [{ "backendRefs": [{ "name": "cart", "port": 80 }] }] } });
        (0..fields).for_each(|n| value["spec"][format!("novelty{n}")] = json!(1));
        seen(ROUTE, value)
    };
    let mut message = |fields: usize| {
        world.take(Fact::Applied(ROUTE, novel(fields)));
        let status = written(&world.commit().statuses[0], json!({}));
        let accepted = &status["parents"][0]["conditions"][0];
        assert_eq!((&accepted["type"], &accepted["status"]), (&json!("Accepted"), &json!("True")));
        accepted["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(message(1), "The route is in force; not known to this version and not done: spec.novelty0");
    assert_eq!(message(0), "The route is in force");
    let many = message(1000);
    assert!(many.ends_with("spec.novelty19 and 980 more"), "{many}");
}

#[test]
fn a_label_that_says_nothing_is_told_at_its_object() {
    let mut world = synced();
    let subject = Subject::Object(Kind::Namespace);
    let namespace = json!({ "metadata": { "name": "shop", "uid": "n", "labels": { "weftmesh.io/mesh": "enable" } } });
    world.take(Fact::Applied(subject, seen(subject, namespace)));
    let notes = world.commit().notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].message.contains("enabled") && notes[0].regarding.name.as_deref() == Some("shop"), "{notes:?}");
}

#[test]
fn ranges_follow_the_cluster() {
    let mut world = synced();
    let node = Subject::Object(Kind::Node);
    let with =
        |name: &str, cidr: &str| seen(node, json!({ "metadata": { "name": name }, "spec": { "podCIDRs": [cidr] } }));
    let mesh = |effects: Effects| {
        effects.changes.into_iter().find_map(|change| match change {
            Change::Upsert(Resource::Mesh(mesh)) => Some(mesh),
            _ => None,
        })
    };
    let texts = |ranges: &[ipnet::IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
    let ranges = |effects: Effects| mesh(effects).map(|mesh| texts(&mesh.cluster_ranges));
    let cidr = seen(
        Subject::ServiceCidr,
        json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ["10.96.0.0/16"] } }),
    );
    world.take(Fact::Applied(Subject::ServiceCidr, cidr));
    world.take(Fact::Applied(node, with("a", "10.1.0.0/24")));
    assert_eq!(ranges(world.commit()).unwrap(), ["10.1.0.0/24", "10.96.0.0/16"]);
    world.take(Fact::Applied(node, with("a", "10.1.0.0/24")));
    assert!(ranges(world.commit()).is_none());
    world.take(Fact::Deleted(node, with("a", "10.1.0.0/24")));
    assert_eq!(ranges(world.commit()).unwrap(), ["10.96.0.0/16"]);

    let status = json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] });
    world.take(Fact::Applied(node, seen(node, json!({ "metadata": { "name": "b" }, "spec": {}, "status": status }))));
    let changes = world.commit().changes;
    assert!(
        matches!(&changes[..], [Change::Upsert(Resource::Mesh(mesh))] if mesh.node_addresses[0].to_string() == "192.0.2.1/32"),
        "{changes:?}"
    );

    let slices = Subject::Object(Kind::EndpointSlice);
    let servers = json!({
        "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["198.51.100.9"] }],
        "ports": [{ "name": "https", "port": 6443 }],
    });
    let nodes = |effects: Effects| mesh(effects).map(|mesh| texts(&mesh.node_addresses));
    world.take(Fact::Applied(slices, seen(slices, servers.clone())));
    assert_eq!(nodes(world.commit()).unwrap(), ["192.0.2.1/32", "198.51.100.9/32"], "API servers that are no nodes");
    world.take(Fact::Deleted(slices, seen(slices, servers)));
    assert_eq!(nodes(world.commit()).unwrap(), ["192.0.2.1/32"]);
}

#[test]
fn the_class_and_the_mesh_of_ours_are_accepted() {
    let mut world = synced();
    let class = Subject::Object(Kind::GatewayClass);
    let of = |controller: &str, status: Value| {
        json!({ "metadata": { "name": "weft", "uid": "c", "generation": 2 },
        "spec": { "controllerName": controller }, "status": status })
    };
    world.take(Fact::Applied(class, seen(class, of("weftmesh.io/gateway-controller", json!({})))));
    world.take(Fact::Applied(Subject::Mesh, seen(Subject::Mesh, of("weftmesh.io/mesh-controller", json!({})))));
    let wanted = world.commit().statuses;
    assert_eq!(wanted.iter().map(|w| w.target.resource.kind.as_str()).collect::<Vec<_>>(), ["GatewayClass", "XMesh"]);
    for (subject, controller, wanted) in [
        (class, "weftmesh.io/gateway-controller", &wanted[0]),
        (Subject::Mesh, "weftmesh.io/mesh-controller", &wanted[1]),
    ] {
        let status = written(wanted, json!({}));
        assert_eq!(status["conditions"][0]["observedGeneration"], 2);
        world.take(Fact::Applied(subject, seen(subject, of(controller, status))));
    }
    assert!(world.commit().statuses.is_empty());
    world.take(Fact::Applied(class, seen(class, of("example.com/other", json!({})))));
    assert!(world.commit().statuses.is_empty(), "another one's class");
}

fn refused(node: &str) -> Report {
    let nodes = [(node.to_owned(), "weight".to_owned())].into();
    vec![Refused { kind: "HTTPRoute".into(), namespace: "shop".into(), name: "r".into(), nodes, count: 1 }]
}

#[test]
fn what_nodes_of_any_replica_refuse_is_a_condition_until_they_take_it() {
    let mut world = synced().of_replica("mesh", "controller-a");
    world.take(Fact::Applied(SERVICE, service()));
    world.take(Fact::Applied(ROUTE, route("u1", 80, json!({}))));
    let accepted = written(&world.commit().statuses[0], json!({}));
    world.take(Fact::Applied(ROUTE, route("u1", 80, accepted.clone())));
    world.commit();

    let other = seen(POD, json!({ "metadata": { "name": "controller-b", "namespace": "mesh" } }));
    world.take(Fact::Applied(POD, other.clone()));
    let reports = BTreeMap::from([("controller-a".into(), refused("n1")), ("controller-b".into(), refused("n2"))]);
    world.take(Fact::Refused(reports));
    let effects = world.commit();
    let status = written(&effects.statuses[0], accepted.clone());
    let last = status["parents"][0]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["type"], &last["status"]), (&json!("weftmesh.io/Programmed"), &json!("False")));
    let message = "refused by 2 of the node proxies, which keep what they had: n1, n2 (weight)";
    assert_eq!((&last["reason"], &last["message"]), (&json!("RefusedByNode"), &json!(message)));
    assert_eq!(status["parents"][0]["conditions"][0], accepted["parents"][0]["conditions"][0]);
    assert!(effects.statuses[0].desired.refusals().is_empty(), "the Event is the serving replica's");
    world.take(Fact::Applied(ROUTE, route("u1", 80, status.clone())));
    assert!(world.commit().statuses.is_empty() && world.review().statuses.is_empty());

    // A replica that is gone refuses nothing, and its word is to be removed, once.
    world.take(Fact::Deleted(POD, other));
    let effects = world.commit();
    assert_eq!(effects.gone, ["controller-b"]);
    let status = written(&effects.statuses[0], status);
    assert!(status.to_string().contains("refused by 1 of the node proxies"), "{status}");
    assert!(world.commit().gone.is_empty());
    world.take(Fact::Applied(ROUTE, route("u1", 80, status.clone())));
    world.take(Fact::Refused(BTreeMap::new()));
    let mended = written(&world.commit().statuses[0], status);
    assert_eq!(mended["parents"][0]["conditions"].as_array().unwrap().len(), 2, "{mended}");
}

#[test]
fn policies_of_other_kinds_take_whom_they_may_concern_to_the_network() {
    let mut world = synced();
    for (namespace, name) in [("shop", "cart"), ("shop", "web"), ("bank", "vault")] {
        let pod = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": { "nodeName": "n", "containers": [] },
            "status": { "phase": "Running", "podIP": format!("10.0.0.{}", name.len()) } });
        world.take(Fact::Applied(POD, seen(POD, pod)));
    }
    world.commit();
    let policy = |kind: ForeignPolicy, namespace: Option<&str>| {
        let subject = Subject::ForeignPolicy(kind);
        let mut policy =
            json!({ "apiVersion": "g/v1", "kind": kind.kind(), "metadata": { "name": "deny" }, "spec": {} });
        if let Some(namespace) = namespace {
            policy["metadata"]["namespace"] = namespace.into();
        }
        (subject, seen(subject, policy))
    };
    // Pods that are said to be under a policy, and whether everybody is, as far as the commit says anything of it.
    let mut after = |fact: Fact| {
        world.take(fact);
        let said = world.commit().changes.into_iter().filter_map(|change| match change {
            Change::Upsert(Resource::Workload(it)) => Some(format!("{} {}", it.name, it.network_policy)),
            Change::Upsert(Resource::Mesh(it)) => Some(format!("everybody {}", it.force_wire)),
            _ => None,
        });
        let mut said: Vec<_> = said.collect();
        said.sort();
        said.join(", ")
    };
    let (cilium, of_shop) = policy(ForeignPolicy::Cilium, Some("shop"));
    let (calico, of_shop_too) = policy(ForeignPolicy::Calico, Some("shop"));
    let (admin, of_cluster) = policy(ForeignPolicy::Admin, None);
    assert_eq!(after(Fact::Applied(cilium, of_shop.clone())), "cart true, web true");
    assert_eq!(after(Fact::Listed(calico, calico.resource("v1"), vec![of_shop_too])), "");
    assert_eq!(after(Fact::Deleted(cilium, of_shop)), "", "the other one still holds");
    assert_eq!(after(Fact::Absent(calico)), "cart false, web false");
    assert_eq!(after(Fact::Applied(admin, of_cluster.clone())), "everybody true");
    assert_eq!(after(Fact::Deleted(admin, of_cluster)), "everybody false");
}

#[test]
fn nothing_stays_in_memory_where_that_was_set_whatever_policies_come_and_go() {
    let mut config = IndexConfig::default();
    config.mesh.force_wire = true;
    let mut world = World::new(config, GivenRanges::default());
    let subject = Subject::ForeignPolicy(ForeignPolicy::Cluster);
    world.take(Fact::Absent(subject));
    world.commit();
    assert!(world.index.mesh().force_wire);
}
