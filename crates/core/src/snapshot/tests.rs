//! The snapshot's indexes, and the plan made from them.

mod gateways;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::*;
use crate::identity::{SpiffeId, TrustDomain};
use crate::ids::{Namespace, PolicyKey, RouteKey, RouteKind};
use crate::plan::{ConnectionFacts, ConnectionPlan, PassthroughReason, plan_connection};
use crate::policy::{Action, Scope};
use crate::reason::Reason;
use crate::route::{Created, HttpAction, HttpMatch, HttpRule, L4Rule, PathMatch, Timeouts};
use crate::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, ServiceKind, ServicePort, SlicePort, TrafficDistribution,
};
use crate::workload::Owner;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn workload(name: &str, address: &str, enrolment: Enrolment) -> Arc<Workload> {
    Arc::new(Workload {
        uid: format!("Kubernetes//Pod/shop/{name}").into(),
        namespace: "shop".into(),
        name: name.into(),
        identity: SpiffeId::new(TrustDomain::default(), "shop", name),
        addresses: vec![ip(address)],
        node: "a".into(),
        zone: None,
        enrolment,
        owner: Owner { kind: "Pod".into(), name: name.into(), app: name.into(), version: String::new() },
        policies: vec![],
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    })
}

fn service(name: &str, address: &str, ports: &[(u16, AppProtocol)]) -> Change {
    let ports = ports.iter().map(|(number, protocol)| ServicePort {
        name: format!("p{number}").into(),
        port: port(*number),
        protocol: *protocol,
    });
    Change::Upsert(Resource::Service(Arc::new(Service {
        key: ServiceKey::new("shop", name),
        addresses: vec![ip(address)],
        ports: ports.collect(),
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::PeakEwma,
        traffic: None,
    })))
}

fn slice(name: &str, service: &str, target: u16, addresses: &[&str]) -> Change {
    let endpoints = addresses.iter().map(|address| Endpoint {
        address: ip(address),
        workload: None,
        health: EndpointHealth::Ready,
        node: None,
        zone: None,
    });
    Change::Upsert(Resource::EndpointSlice(Arc::new(EndpointSlice {
        key: SliceKey { namespace: "shop".into(), name: name.into() },
        service: ServiceKey::new("shop", service),
        ports: vec![SlicePort { name: "p80".into(), port: port(target) }],
        endpoints: endpoints.collect(),
    })))
}

fn rule_key(kind: RouteKind, namespace: &str, name: &str) -> RuleKey {
    RuleKey { route: RouteKey { kind, namespace: namespace.into(), name: name.into() }, index: 0 }
}

fn parents(service: &str, consumer: Option<&str>) -> Vec<Parent> {
    let port = ServicePortKey { service: ServiceKey::new("shop", service), port: port(80) };
    vec![Parent::Service { port, consumer: consumer.map(Namespace::from) }]
}

fn http_rule(kind: RouteKind, namespace: &str, name: &str, consumer: Option<&str>) -> Change {
    let matches = vec![HttpMatch { path: PathMatch::Prefix("/".into()), method: None, headers: vec![], query: vec![] }];
    Change::Upsert(Resource::Rule(Arc::new(RouteRule::Http(HttpRule {
        key: rule_key(kind, namespace, name),
        name: None,
        created: Created::default(),
        parents: parents("cart", consumer),
        hostnames: vec![],
        matches,
        filters: vec![],
        action: HttpAction::Forward(vec![]),
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }))))
}

fn tcp_rule(name: &str) -> Change {
    Change::Upsert(Resource::Rule(Arc::new(RouteRule::L4(L4Rule {
        key: rule_key(RouteKind::Tcp, "shop", name),
        name: None,
        created: Created::default(),
        parents: parents("cart", None),
        hostnames: vec![],
        backends: vec![],
    }))))
}

fn plan(snapshot: &Snapshot, client_namespace: &str, destination: &str) -> ConnectionPlan {
    let mut client = (*workload("client", "10.0.0.9", Enrolment::Enrolled)).clone();
    client.namespace = client_namespace.into();
    let destination: SocketAddr = destination.parse().unwrap();
    plan_connection(snapshot, &ConnectionFacts { client: &client, destination })
}

fn table_of(plan: &ConnectionPlan) -> Option<&'static str> {
    match plan {
        ConnectionPlan::Http { table: Some(_), .. } => Some("http"),
        ConnectionPlan::Http { table: None, .. } => Some("http without routes"),
        ConnectionPlan::Tcp { table: Some(_), .. } => Some("tcp"),
        ConnectionPlan::Tcp { table: None, .. } => Some("tcp without routes"),
        _ => None,
    }
}

#[test]
fn the_order_of_a_batch_does_not_matter() {
    let changes = [
        http_rule(RouteKind::Http, "shop", "r", None),
        slice("cart-1", "cart", 8080, &["10.0.0.1"]),
        service("cart", "10.96.0.1", &[(80, AppProtocol::Http)]),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let batch: Vec<_> = order.iter().map(|i| changes[*i].clone()).collect();
        let snapshot = Snapshot::default().apply(&batch);
        assert_eq!(table_of(&plan(&snapshot, "shop", "10.96.0.1:80")), Some("http"));
        let key = ServicePortKey { service: ServiceKey::new("shop", "cart"), port: port(80) };
        assert_eq!(snapshot.frontend(&key).unwrap().endpoints.entries[0].address, "10.0.0.1:8080".parse().unwrap());
    }
}

#[test]
fn one_kind_of_route_per_port_and_grpc_wins_over_http_over_tcp() {
    let cart = service("cart", "10.96.0.1", &[(80, AppProtocol::Unspecified)]);
    let mut snapshot = Snapshot::default().apply(&[cart]);
    assert_eq!(table_of(&plan(&snapshot, "shop", "10.96.0.1:80")), Some("tcp without routes"));
    snapshot = snapshot.apply(&[tcp_rule("t")]);
    assert_eq!(table_of(&plan(&snapshot, "shop", "10.96.0.1:80")), Some("tcp"));
    snapshot = snapshot.apply(&[http_rule(RouteKind::Http, "shop", "h", None)]);
    assert_eq!(table_of(&plan(&snapshot, "shop", "10.96.0.1:80")), Some("http"));
    let gone = Change::Remove(ResourceKey::Rule(rule_key(RouteKind::Http, "shop", "h")));
    assert_eq!(table_of(&plan(&snapshot.apply(&[gone]), "shop", "10.96.0.1:80")), Some("tcp"));
}

#[test]
fn a_client_with_consumer_routes_sees_only_those() {
    let changes = [
        service("cart", "10.96.0.1", &[(80, AppProtocol::Tcp)]),
        http_rule(RouteKind::Http, "team", "mine", Some("team")),
    ];
    let snapshot = Snapshot::default().apply(&changes);
    assert_eq!(table_of(&plan(&snapshot, "team", "10.96.0.1:80")), Some("http"));
    assert_eq!(table_of(&plan(&snapshot, "shop", "10.96.0.1:80")), Some("tcp without routes"));
}

#[test]
fn slices_of_one_service_make_one_list_and_an_equal_list_is_the_same_one() {
    let snapshot = Snapshot::default().apply(&[
        service("cart", "10.96.0.1", &[(80, AppProtocol::Http)]),
        slice("cart-1", "cart", 8080, &["10.0.0.1"]),
        slice("cart-2", "cart", 8080, &["10.0.0.2"]),
    ]);
    let key = ServicePortKey { service: ServiceKey::new("shop", "cart"), port: port(80) };
    let list = Arc::clone(&snapshot.frontend(&key).unwrap().endpoints);
    assert_eq!(list.entries.len(), 2);
    let snapshot = snapshot.apply(&[http_rule(RouteKind::Http, "shop", "r", None)]);
    assert!(Arc::ptr_eq(&list, &snapshot.frontend(&key).unwrap().endpoints), "balancers would lose their state");
    let slice_key = SliceKey { namespace: "shop".into(), name: "cart-1".into() };
    let snapshot = snapshot.apply(&[Change::Remove(ResourceKey::EndpointSlice(slice_key))]);
    assert_eq!(snapshot.frontend(&key).unwrap().endpoints.entries.len(), 1);
}

#[test]
fn a_port_that_left_its_service_is_refused() {
    let with =
        Snapshot::default().apply(&[service("cart", "10.96.0.1", &[(80, AppProtocol::Http), (81, AppProtocol::Tcp)])]);
    assert_eq!(table_of(&plan(&with, "shop", "10.96.0.1:81")), Some("tcp without routes"));
    let without = with.apply(&[service("cart", "10.96.0.1", &[(80, AppProtocol::Http)])]);
    let refused = plan(&without, "shop", "10.96.0.1:81");
    assert!(matches!(refused, ConnectionPlan::Refuse(Reason::UnknownPort)), "{refused:?}");
}

#[test]
fn addresses_mean_workloads_services_the_cluster_or_nothing_of_ours() {
    let mesh = MeshConfig { cluster_ranges: vec!["10.0.0.0/8".parse().unwrap()], ..MeshConfig::default() };
    let snapshot = Snapshot::default().apply(&[
        Change::Upsert(Resource::Mesh(Arc::new(mesh))),
        Change::Upsert(Resource::Workload(workload("in", "10.0.0.1", Enrolment::Enrolled))),
        Change::Upsert(Resource::Workload(workload("out", "10.0.0.2", Enrolment::Outside))),
        Change::Upsert(Resource::Workload(workload("host", "10.0.0.3", Enrolment::HostNetwork))),
    ]);
    assert!(matches!(plan(&snapshot, "shop", "10.0.0.1:9000"), ConnectionPlan::Workload { .. }));
    assert!(matches!(plan(&snapshot, "shop", "[::ffff:10.0.0.1]:9000"), ConnectionPlan::Workload { .. }));
    for own in ["10.0.0.1:15001", "10.0.0.1:15006", "10.0.0.1:15008"] {
        assert!(matches!(plan(&snapshot, "shop", own), ConnectionPlan::Refuse(Reason::Loop)), "{own}");
    }
    let unmeshed = plan(&snapshot, "shop", "10.0.0.2:9000");
    assert!(matches!(unmeshed, ConnectionPlan::Passthrough { why: PassthroughReason::NotEnrolled, .. }));
    assert!(matches!(plan(&snapshot, "shop", "10.0.0.3:9000"), ConnectionPlan::AwaitConfig), "never misattributed");
    let outside = plan(&snapshot, "shop", "192.0.2.1:443");
    assert!(matches!(outside, ConnectionPlan::Passthrough { why: PassthroughReason::Outside, .. }));
}

#[test]
fn an_address_taken_over_by_a_newer_pod_stays_with_it() {
    let (old, new) =
        (workload("old", "10.0.0.1", Enrolment::Enrolled), workload("new", "10.0.0.1", Enrolment::Enrolled));
    let snapshot = Snapshot::default().apply(&[
        Change::Upsert(Resource::Workload(Arc::clone(&old))),
        Change::Upsert(Resource::Workload(Arc::clone(&new))),
        Change::Remove(ResourceKey::Workload(old.uid.clone())),
    ]);
    assert_eq!(snapshot.workload_at(ip("10.0.0.1")).unwrap().uid, new.uid);
}

#[test]
fn policies_of_the_mesh_the_namespace_and_the_workload_apply() {
    let policy = |name: &str, scope: Scope| {
        let key = PolicyKey::new("weft-system", name);
        let (action, rules) = (Action::Deny, vec![]);
        Change::Upsert(Resource::Authorization(Arc::new(AuthorizationPolicy {
            key,
            scope,
            action,
            dry_run: false,
            rules,
        })))
    };
    let mut selected = (*workload("cart", "10.0.0.1", Enrolment::Enrolled)).clone();
    selected.policies = vec![PolicyKey::new("weft-system", "mine"), PolicyKey::new("weft-system", "not-there")];
    let snapshot = Snapshot::default().apply(&[
        policy("all", Scope::Mesh),
        policy("shop", Scope::Namespace("shop".into())),
        policy("other", Scope::Namespace("other".into())),
        policy("mine", Scope::Selected),
        policy("not-mine", Scope::Selected),
    ]);
    let names = |s: &Snapshot| s.policies_for(&selected).iter().map(|p| p.key.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&snapshot), ["all", "shop", "mine"]);
    let moved = snapshot.apply(&[
        policy("shop", Scope::Namespace("other".into())),
        Change::Remove(ResourceKey::Authorization(PolicyKey::new("weft-system", "all"))),
    ]);
    assert_eq!(names(&moved), ["mine"]);
}

#[test]
fn everything_can_be_taken_out_and_put_into_an_empty_snapshot() {
    let snapshot = Snapshot::default().apply(&[
        service("cart", "10.96.0.1", &[(80, AppProtocol::Http)]),
        slice("cart-1", "cart", 8080, &["10.0.0.1"]),
        http_rule(RouteKind::Http, "shop", "r", None),
        Change::Upsert(Resource::Workload(workload("in", "10.0.0.1", Enrolment::Enrolled))),
    ]);
    let copy: Vec<_> = snapshot.resources().into_iter().map(Change::Upsert).collect();
    let again = Snapshot::default().apply(&copy);
    assert_eq!(again.resources(), snapshot.resources());
    let gone: Vec<_> = snapshot.resources().iter().map(|r| Change::Remove(r.key())).collect();
    assert_eq!(again.apply(&gone).resources().len(), 1, "only the mesh settings are left");
}

#[test]
fn all_services_are_the_same_until_one_of_them_is_written() {
    let first = Snapshot::default().apply(&[service("cart", "10.96.0.1", &[(80, AppProtocol::Http)])]);
    let edited = first.apply(&[slice("cart-1", "cart", 8080, &["10.0.0.1"]), tcp_rule("r")]);
    assert!(edited.all_services() == first.all_services());
    for change in [
        service("web", "10.96.0.2", &[(80, AppProtocol::Http)]),
        service("cart", "10.96.0.3", &[(80, AppProtocol::Http)]),
        Change::Remove(ResourceKey::Service(ServiceKey::new("shop", "cart"))),
    ] {
        assert!(edited.apply(&[change]).all_services() != first.all_services());
    }
}

#[test]
fn the_slices_of_a_service_count_once_each_and_in_the_order_of_their_names() {
    let key = ServicePortKey { service: ServiceKey::new("shop", "cart"), port: port(80) };
    let endpoints = |snapshot: &Snapshot| -> Vec<String> {
        let entries = &snapshot.frontend(&key).unwrap().endpoints.entries;
        entries.iter().map(|entry| entry.address.to_string()).collect()
    };
    let of = |name: &str, address: &str| slice(name, "cart", 8080, &[address]);
    let snapshot = Snapshot::default().apply(&[
        service("cart", "10.96.0.1", &[(80, AppProtocol::Http)]),
        of("b", "10.0.0.2"),
        of("c", "10.0.0.3"),
        of("a", "10.0.0.1"),
        of("b", "10.0.0.9"),
    ]);
    assert_eq!(endpoints(&snapshot), ["10.0.0.1:8080", "10.0.0.9:8080", "10.0.0.3:8080"]);
    let gone = |name: &str| {
        Change::Remove(ResourceKey::EndpointSlice(SliceKey { namespace: "shop".into(), name: name.into() }))
    };
    let fewer = snapshot.apply(&[gone("b"), gone("none")]);
    assert_eq!(endpoints(&fewer), ["10.0.0.1:8080", "10.0.0.3:8080"]);
    assert!(endpoints(&fewer.apply(&[gone("a"), gone("c")])).is_empty());
}

#[test]
fn the_word_of_a_gateways_clients_is_taken_back_where_anybody_traces() {
    use crate::telemetry::{AccessLogPolicy, Defaults, ParentSampling, Share, TelemetryPolicy, TracingPolicy};

    let gateway = Workload {
        uid: "Kubernetes//Gateway/edge/web".into(),
        ..(*workload("gw", "10.0.0.9", Enrolment::Enrolled)).clone()
    };
    let policy = |provider| {
        Change::Upsert(Resource::Telemetry(Arc::new(TelemetryPolicy {
            key: PolicyKey::new("tenant", "t"),
            scope: Scope::Namespace("tenant".into()),
            gateways: Vec::new(),
            created_unix_seconds: 0,
            access_log: AccessLogPolicy::default(),
            tracing: TracingPolicy { provider, ..TracingPolicy::default() },
        })))
    };
    let collector = ServicePortKey { service: ServiceKey::new("tenant", "otel"), port: port(4317) };
    let (theirs, ours) = (ParentSampling::Respected(Share::ALL), ParentSampling::Ignored);
    let with = Defaults { has_collector: true, ..Defaults::default() };
    for (provider, defaults, expected) in
        [(None, Defaults::default(), theirs), (Some(collector), Defaults::default(), ours), (None, with, ours)]
    {
        let snapshot = Snapshot::default().apply(&[policy(provider)]);
        assert_eq!(snapshot.telemetry_for(&gateway, &defaults).parent, expected);
        let pod = workload("a", "10.0.0.1", Enrolment::Enrolled);
        assert_eq!(snapshot.telemetry_for(&pod, &defaults).parent, theirs);
    }
}
