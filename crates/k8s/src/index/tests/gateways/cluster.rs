//! Gateways that are served by pods of their own: what is made for them, and when they are Programmed.

mod addresses;

use weft_core::ids::{GatewayKey, ListenerKey};

use super::*;
use crate::object::GatewayServiceType;
use crate::translate::gateway::{GatewayPlan, Unmade};

const CLASS: &str = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
     spec: {controllerName: weftmesh.io/gateway-controller}\n";

fn in_cluster(text: &str) -> Index {
    let settings = GatewaySettings { place: Place::Cluster, check: KeyPairCheck(check) };
    let mut index = Index::new(IndexConfig { gateways: Some(settings), ..IndexConfig::default() });
    add(&mut index, text);
    index
}

fn add(index: &mut Index, text: &str) {
    objects(text).into_iter().for_each(|o| index.apply(o));
    index.commit();
}

fn service(name: &str, label: &str, spec: &str, ingress: &str) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: edge, \
         labels: {{gateway.networking.k8s.io/gateway-name: {label}}}, \
         ownerReferences: [{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: {label}, uid: ''}}]}}\n\
         spec: {{{spec}}}\nstatus: {{loadBalancer: {{ingress: [{ingress}]}}}}\n"
    )
}

fn balanced(name: &str, ingress: &str) -> String {
    service(name, "gw", "type: LoadBalancer, clusterIPs: [10.0.0.1], ports: [{port: 80}]", ingress)
}

fn parameters(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: GatewayParameters\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

fn bind(index: &mut Index, bound: &[&str]) {
    let bound = bound.iter().map(|name| (GatewayKey::new("edge", *name), BTreeMap::new()));
    index.set_bound(bound.collect());
    index.commit();
}

/// The reason why it isn't Programmed, or the addresses.
fn standing(index: &Index) -> Result<Vec<GatewayAddress>, String> {
    let status = status_of(index, "gw");
    let condition = status.conditions.iter().find(|c| c.kind == ConditionType::GatewayProgrammed).unwrap();
    if condition.status { Ok(status.addresses) } else { Err(condition.reason.clone()) }
}

fn ips(list: &[&str]) -> Vec<GatewayAddress> {
    list.iter().map(|ip| GatewayAddress::Ip(ip.parse().unwrap())).collect()
}

fn plan_of(index: &Index) -> GatewayPlan {
    index.gateway_plans().next().unwrap()
}

#[test]
fn it_is_programmed_when_it_has_an_address_and_a_pod_listens() {
    let waits = |reason: &str| Err(reason.to_owned());
    let mut index = in_cluster(&(CLASS.to_owned() + &gateway(HTTP)));
    assert_eq!(standing(&index), waits("AddressNotAssigned"));
    add(&mut index, &balanced("gw-weft", ""));
    assert_eq!(standing(&index), waits("AddressNotAssigned"));
    add(&mut index, &balanced("gw-weft", "{ip: 192.0.2.7}, {hostname: lb.example.com}"));
    assert_eq!(standing(&index), waits("Pending"));
    let status = status_of(&index, "gw");
    assert_eq!(status.addresses.len(), 2, "an address is there before the pods are");
    assert_eq!(wrong(&status.listeners[0].conditions), ["Programmed/Pending"]);
    bind(&mut index, &["gw", "other"]);
    let name = GatewayAddress::Hostname("lb.example.com".to_owned());
    assert_eq!(standing(&index), Ok([ips(&["192.0.2.7"]), vec![name]].concat()));
    assert!(wrong(&status_of(&index, "gw").listeners[0].conditions).is_empty());
    assert_eq!(served(&index)[0].addresses, Vec::<std::net::IpAddr>::new(), "a pod listens on all that it has");

    bind(&mut index, &["other"]);
    assert_eq!(standing(&index), waits("Pending"));
    let unmade = |why: &str, serves| [(GatewayKey::new("edge", "gw"), Unmade { why: why.to_owned(), serves })].into();
    index.set_unprovisioned(unmade("exceeded quota", false));
    index.commit();
    assert_eq!(standing(&index), waits("NoResources"));
    bind(&mut index, &["gw"]);
    index.set_unprovisioned(unmade("NetworkPolicy gw-weft exists", true));
    index.commit();
    assert!(standing(&index).is_ok(), "it serves without");
    let programmed =
        status_of(&index, "gw").conditions.into_iter().find(|c| c.kind == ConditionType::GatewayProgrammed);
    assert!(programmed.unwrap().message.contains("NetworkPolicy gw-weft exists"));
    bind(&mut index, &["other"]);
    index.set_unprovisioned(Default::default());
    index.commit();
    assert_eq!(standing(&index), waits("Pending"));
    index.delete(&ObjectRef::new(Kind::Service, "edge", "gw-weft"));
    index.commit();
    assert_eq!(standing(&index), waits("AddressNotAssigned"));
}

fn refuse(index: &mut Index, listeners: &[ListenerKey]) {
    let refused = listeners.iter().map(|key| (key.clone(), "*:81 can't be listened on: in use".to_owned()));
    index.set_bound([(GatewayKey::new("edge", "gw"), refused.collect())].into());
    index.commit();
}

#[test]
fn a_listener_that_no_pod_can_bind_costs_the_others_nothing() {
    let listeners = format!("{HTTP}, {{name: more, port: 81, protocol: HTTP}}");
    let mut index = in_cluster(&(CLASS.to_owned() + &gateway(&listeners) + &balanced("gw-weft", "{ip: 192.0.2.7}")));
    let key = |name: &str| ListenerKey::new(GatewayKey::new("edge", "gw"), name);
    let told = |index: &Index| {
        let status = status_of(index, "gw");
        status.listeners.iter().map(|listener| wrong(&listener.conditions)).collect::<Vec<_>>()
    };
    let refused = vec!["Programmed/RefusedByPod".to_owned()];
    refuse(&mut index, &[key("more")]);
    assert_eq!(told(&index), [vec![], refused.clone()]);
    assert_eq!(standing(&index), Ok(ips(&["192.0.2.7"])));
    let status = status_of(&index, "gw");
    let messages: Vec<_> =
        status.conditions.iter().chain(&status.listeners[1].conditions).map(|it| &it.message).collect();
    let named = |what: &str| messages.iter().filter(|it| it.contains(what)).count();
    assert_eq!((named("listener more: *:81 can't"), named("in use")), (1, 2), "{messages:?}");

    refuse(&mut index, &[key("more"), key("http")]);
    assert_eq!((told(&index), standing(&index)), (vec![refused.clone(), refused], Err("RefusedByPod".to_owned())));
    refuse(&mut index, &[]);
    assert_eq!(told(&index), [vec![], Vec::<String>::new()]);
    // One that isn't served has reasons of its own.
    add(&mut index, &gateway(&listeners.replace("port: 81", "port: 80")));
    refuse(&mut index, &[key("more")]);
    assert!(!told(&index).concat().contains(&"Programmed/RefusedByPod".to_owned()), "{:?}", told(&index));
}

#[test]
fn a_service_of_the_cluster_has_its_addresses_there_and_anybody_elses_counts_for_nothing() {
    let spec = "type: ClusterIP, clusterIPs: [10.0.0.1, 'fd00::1'], ports: [{port: 80}]";
    let mut index = in_cluster(&(CLASS.to_owned() + &gateway(HTTP) + &service("gw-weft", "gw", spec, "")));
    bind(&mut index, &["gw"]);
    assert_eq!(standing(&index), Ok(ips(&["10.0.0.1", "fd00::1"])));
    for other in [service("gw-weft", "other", spec, ""), service("gw", "gw", spec, "")] {
        let mut index = in_cluster(&(CLASS.to_owned() + &gateway(HTTP) + &other));
        bind(&mut index, &["gw"]);
        assert_eq!(standing(&index), Err("AddressNotAssigned".to_owned()), "{other}");
    }
}

#[test]
fn only_what_has_a_class_of_ours_is_planned_for_and_ports_are_nobodys() {
    let of = |name: &str, class: &str| {
        gateway_of(name, &format!("listeners: [{HTTP}]"))
            .replace("gatewayClassName: weft", &format!("gatewayClassName: {class}"))
    };
    let other =
        CLASS.replace("name: weft", "name: other").replace("weftmesh.io/gateway-controller", "example.com/other");
    let mut index =
        in_cluster(&(of("a", "weft") + &of("b", "weft") + &of("c", "other") + &of("d", "missing") + &other));
    assert_eq!(index.gateways().count(), 0, "in a cluster somebody makes the class");
    assert_eq!(index.foreign_gateways().collect::<Vec<_>>(), [GatewayKey::new("edge", "c")]);
    let before = index.gateways_revision();
    add(&mut index, CLASS);
    assert_ne!(index.gateways_revision(), before);
    let names: Vec<_> = index.gateways().map(|(key, class)| format!("{key} {class}")).collect();
    assert_eq!(names, ["edge/a weft", "edge/b weft"]);
    assert_eq!(served(&index).len(), 2, "each has pods of its own, so both have port 80");
}

#[test]
fn two_gateways_whose_objects_would_have_the_same_names_are_not_mixed_up() {
    let of = |name: &str, class: &str, created: &str| {
        let meta = format!("creationTimestamp: '{created}', generation: 2");
        let text = gateway_of(name, &format!("listeners: [{HTTP}]")).replace("generation: 2", &meta);
        text.replace("gatewayClassName: weft", &format!("gatewayClassName: {class}"))
    };
    let classes = CLASS.replace("name: weft", "name: c") + &CLASS.replace("name: weft", "name: b-c");
    let (older, newer) = (of("gw-b", "c", "2026-01-01T00:00:00Z"), of("gw", "b-c", "2026-02-01T00:00:00Z"));
    let mut index =
        in_cluster(&(classes + &older + &newer + &service("gw-b-c", "gw-b", "type: LoadBalancer", "{ip: 192.0.2.7}")));
    let names = |index: &Index| index.gateways().map(|(key, _)| key.name.to_string()).collect::<Vec<_>>();
    assert_eq!((names(&index), index.gateway_plans().count()), (vec!["gw-b".to_owned()], 1));
    bind(&mut index, &["gw", "gw-b"]);
    assert_eq!(standing(&index), Err("NoResources".to_owned()));
    index.delete(&ObjectRef::new(Kind::Gateway, "edge", "gw-b"));
    index.commit();
    assert_eq!((names(&index), standing(&index)), (vec!["gw".to_owned()], Err("AddressNotAssigned".to_owned())));
}

#[test]
fn ports_of_listeners_that_are_accepted_are_opened() {
    let text = "{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}, \
                {name: c, port: 81, protocol: HTTP}, {name: d, port: 81, protocol: TCP}, {name: e, port: 82, protocol: NONE}";
    let mut index = in_cluster(&(CLASS.to_owned() + &gateway(text) + &balanced("gw-weft", "{ip: 192.0.2.7}")));
    let ports: Vec<_> = plan_of(&index).ports.iter().map(|(port, _)| port.get()).collect();
    assert_eq!(ports, [80, 443]);
    bind(&mut index, &["gw"]);
    assert!(standing(&index).is_ok());
    let bad: Vec<_> = status_of(&index, "gw")
        .listeners
        .iter()
        .map(|it| wrong(&it.conditions).contains(&"Programmed/Invalid".to_owned()))
        .collect();
    assert_eq!(bad, [false, true, true, true, true]);
}

#[test]
fn parameters_of_class_and_gateway_are_found_or_asked_for() {
    let class = |reference: &str| CLASS.replace("spec: {", &format!("spec: {{parametersRef: {{{reference}}}, "));
    let own = |reference: &str| {
        gateway_of("gw", &format!("listeners: [{HTTP}], infrastructure: {{parametersRef: {{{reference}}}}}"))
    };
    let good = "group: weftmesh.io, kind: GatewayParameters, name: p";
    let of_class = format!("{good}, namespace: mesh");
    let all =
        parameters("mesh", "p", "replicas: 3, service: {type: ClusterIP}") + &parameters("edge", "p", "replicas: 5");

    let mut index = in_cluster(&(class(&of_class) + &own(good) + &all));
    let found = plan_of(&index).infrastructure.parameters;
    assert_eq!((found.replicas, found.service.unwrap().kind), (Some(5), Some(GatewayServiceType::ClusterIP)));
    add(&mut index, &parameters("edge", "p", "replicas: 7"));
    assert_eq!(plan_of(&index).infrastructure.parameters.replicas, Some(7));
    assert!(index.class_parameters("weft").is_ok());

    for (class, own) in [
        (CLASS.to_owned(), own("group: weftmesh.io, kind: GatewayParameters, name: missing")),
        (CLASS.to_owned(), own("group: invalid.io, kind: InvalidParameters, name: p")),
        (class("group: '', kind: ConfigMap, namespace: mesh, name: p"), gateway(HTTP)),
        (class(good), gateway(HTTP)),
        (class(&of_class.replace("name: p", "name: q")), gateway(HTTP)),
    ] {
        let index = in_cluster(&(class.clone() + &own + &all));
        let reasons = wrong(&status_of(&index, "gw").conditions);
        assert_eq!(reasons, ["Accepted/InvalidParameters", "Programmed/Invalid"], "{class}{own}");
        assert!(!plan_of(&index).accepted);
        assert_eq!(index.class_parameters("weft").is_ok(), class == CLASS);
    }
}

#[test]
fn a_gateway_that_asks_for_more_than_its_class_allows_is_not_accepted_and_serves_on() {
    let class = CLASS.replace(
        "spec: {",
        "spec: {parametersRef: {group: weftmesh.io, kind: GatewayParameters, namespace: mesh, name: p}, ",
    );
    let of_class = |limits: &str| parameters("mesh", "p", &format!("replicas: 9, limits: {{{limits}}}"));
    let spec = "infrastructure: {parametersRef: {group: weftmesh.io, kind: GatewayParameters, name: own}}";
    let own = gateway_of("gw", &format!("listeners: [{HTTP}], {spec}")) + &parameters("edge", "own", "replicas: 4");
    let mut index = in_cluster(&(class + &of_class("maxReplicas: 4") + &own + &balanced("gw-weft", "{ip: 192.0.2.7}")));
    bind(&mut index, &["gw"]);
    assert!(standing(&index).is_ok() && plan_of(&index).accepted);
    assert_eq!(plan_of(&index).infrastructure.parameters.replicas, Some(4));

    add(&mut index, &of_class("maxReplicas: 3"));
    let status = status_of(&index, "gw");
    assert_eq!(wrong(&status.conditions), ["Accepted/InvalidParameters"]);
    assert!(
        status.conditions[0].message.contains("edge/own: spec.replicas is 4, and class weft allows 3"),
        "{status:?}"
    );
    assert_eq!((served(&index).len(), plan_of(&index).accepted), (1, false), "what is there serves on");
    assert_eq!(
        plan_of(&index).infrastructure.parameters.replicas,
        Some(9),
        "nothing of what it may not have is in force"
    );
    // One that asks for nothing by itself has what the class has, whatever the limits are.
    add(&mut index, &gateway(HTTP));
    assert!(standing(&index).is_ok() && plan_of(&index).accepted);
    assert_eq!(plan_of(&index).infrastructure.parameters.replicas, Some(9));
}

/// Somebody who deletes the parameters of a class must not end the traffic of all its Gateways.
#[test]
fn a_gateway_that_serves_goes_on_when_it_is_not_accepted_any_more() {
    let class = CLASS.replace(
        "spec: {",
        "spec: {parametersRef: {group: weftmesh.io, kind: GatewayParameters, namespace: mesh, name: p}, ",
    );
    let all =
        class + &gateway(HTTP) + &parameters("mesh", "p", "replicas: 3") + &balanced("gw-weft", "{ip: 192.0.2.7}");
    let mut index = in_cluster(&all);
    bind(&mut index, &["gw"]);
    assert!(standing(&index).is_ok() && plan_of(&index).accepted);
    index.delete(&ObjectRef::new(Kind::GatewayParameters, "mesh", "p"));
    let out = index.commit();
    assert_eq!(wrong(&status_of(&index, "gw").conditions), ["Accepted/InvalidParameters"]);
    assert_eq!((served(&index).len(), out.changes.len(), plan_of(&index).accepted), (1, 0, false));
}

/// Whoever deletes a class, perhaps to make it anew, must not end the traffic of all its Gateways.
#[test]
fn a_gateway_that_serves_goes_on_when_its_class_is_gone() {
    let class = ObjectRef::new(Kind::GatewayClass, "", "weft");
    let all = CLASS.to_owned() + &gateway(HTTP) + &balanced("gw-weft", "{ip: 192.0.2.7}");
    let start = || {
        let mut index = in_cluster(&all);
        bind(&mut index, &["gw"]);
        index.delete(&class);
        let changes = index.commit().changes;
        (index, changes)
    };
    let (mut index, changes) = start();
    assert_eq!((served(&index).len(), changes.len(), index.gateways().count()), (1, 0, 1));
    assert_eq!(wrong(&status_of(&index, "gw").conditions), ["Accepted/Invalid"]);
    assert!(!plan_of(&index).accepted, "what is there stays as it is");
    add(&mut index, &gateway(&format!("{HTTP}, {{name: more, port: 81, protocol: HTTP}}")));
    assert_eq!((served(&index).len(), plan_of(&index).accepted), (2, false), "its listeners go on being followed");
    add(&mut index, CLASS);
    bind(&mut index, &["gw"]);
    assert!(wrong(&status_of(&index, "gw").conditions).is_empty() && plan_of(&index).accepted);

    // It leaves if it asks for another class, is another Gateway, or its class comes back as somebody else's.
    let other = gateway(HTTP).replace("gatewayClassName: weft", "gatewayClassName: other");
    let new = gateway(HTTP).replace("generation: 2", "generation: 1, uid: new");
    for text in [other, new, CLASS.replace("weftmesh.io/gateway-controller", "example.com/other")] {
        let (mut index, _) = start();
        add(&mut index, &text);
        assert_eq!((served(&index).len(), index.gateways().count()), (0, 0), "{text}");
    }
}

#[test]
fn ports_of_the_process_itself_are_nobodys() {
    let text = "{name: a, port: 15000, protocol: HTTP}, {name: b, port: 15021, protocol: TCP}, {name: c, port: 80, protocol: HTTP}";
    let index = in_cluster(&(CLASS.to_owned() + &gateway(text)));
    let conditions = status_of(&index, "gw").listeners.into_iter().map(|it| wrong(&it.conditions));
    let refused = vec!["Accepted/PortUnavailable".to_owned(), "Programmed/Invalid".to_owned()];
    assert_eq!(conditions.collect::<Vec<_>>(), [refused.clone(), refused, vec!["Programmed/Pending".to_owned()]]);
    assert_eq!(served(&index).len(), 1);
    assert_eq!(listeners(&gateway(text)).concat(), [""; 0], "only in the pods of a Gateway");
}

#[test]
fn the_service_of_an_earlier_gateway_of_the_name_has_no_addresses_for_it() {
    let mut index = in_cluster(&(CLASS.to_owned() + &gateway(HTTP) + &balanced("gw-weft", "{ip: 192.0.2.7}")));
    bind(&mut index, &["gw"]);
    assert!(standing(&index).is_ok());
    add(&mut index, &gateway(HTTP).replace("generation: 2", "generation: 1, uid: new"));
    assert_eq!(standing(&index), Err("AddressNotAssigned".to_owned()));
    add(&mut index, &balanced("gw-weft", "{ip: 192.0.2.7}").replace("uid: ''", "uid: new"));
    assert!(standing(&index).is_ok());
}

#[test]
fn a_status_of_a_class_means_nothing() {
    let mut index = in_cluster(&(CLASS.to_owned() + &gateway(HTTP)));
    let before = index.gateways_revision();
    add(&mut index, &format!("{CLASS}status: {{conditions: []}}\n"));
    assert_eq!(index.gateways_revision(), before);
    add(&mut index, &CLASS.replace("spec: {", "spec: {description: it, "));
    assert_ne!(index.gateways_revision(), before);
}

#[test]
fn infrastructure_goes_with_the_plan() {
    let spec = format!("listeners: [{HTTP}], infrastructure: {{labels: {{team: edge}}, annotations: {{note: it}}}}");
    let plan = plan_of(&in_cluster(&(CLASS.to_owned() + &gateway_of("gw", &spec))));
    assert_eq!(plan.infrastructure.labels["team"], "edge");
    assert_eq!((plan.infrastructure.annotations["note"].as_str(), plan.class.as_str()), ("it", "weft"));
}
