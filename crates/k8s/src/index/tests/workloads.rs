//! Pods, Services and EndpointSlices.

use super::*;
use weft_core::service::{AppProtocol, EndpointHealth, ServiceKind};
use weft_core::workload::Enrolment;

fn pod(labels: &str, spec: &str, status: &str) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, labels: {{{labels}}}}}\n\
         spec: {{nodeName: n1, containers: []{spec}}}\nstatus: {{podIP: 10.0.0.9{status}}}\n"
    )
}

fn find(index: &Index, name: &str) -> Option<Arc<weft_core::workload::Workload>> {
    index.resources().find_map(|r| match r {
        Resource::Workload(w) if w.name.as_str() == name => Some(Arc::clone(w)),
        _ => None,
    })
}

#[test]
fn a_pod_is_a_workload_with_identity_and_owner() {
    let (index, _) = index(SHOP);
    let w = find(&index, "cart-1").unwrap();
    assert_eq!(w.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!((w.owner.kind.as_str(), w.owner.name.as_str()), ("Deployment", "cart"));
    assert_eq!(w.addresses.len(), 2);
    assert_eq!(w.enrolment, Enrolment::Enrolled);
    assert_eq!(w.uid.as_str(), "Kubernetes//Pod/shop/cart-1");
}

#[test]
fn enrolment_is_the_pods_word_before_the_namespaces() {
    for (labels, spec, want) in [
        ("", "", Enrolment::Enrolled),
        ("weftmesh.io/mesh: disabled", "", Enrolment::Outside),
        ("weftmesh.io/mesh: enabled", ", hostNetwork: true", Enrolment::HostNetwork),
        ("weftmesh.io/mesh: enable", "", Enrolment::Enrolled),
    ] {
        let (index, _) = index(&(SHOP.to_owned() + &pod(labels, spec, "")));
        assert_eq!(find(&index, "p").unwrap().enrolment, want, "{labels} {spec}");
    }
}

/// Callers of a pod that the agent leaves alone must not be told to dial a tunnel to it.
#[test]
fn pods_that_the_agent_leaves_alone_are_outside_for_their_callers() {
    for (labels, annotations, spec) in [
        ("gateway.networking.k8s.io/gateway-name: edge", "", ""),
        ("", "sidecar.istio.io/status: '{}'", ""),
        ("", "ambient.istio.io/redirection: enabled", ""),
        ("", "", ", initContainers: [{name: istio-proxy}]"),
        ("", "", ", initContainers: [{name: linkerd-proxy}]"),
        ("weftmesh.io/mesh: enabled", "", ", initContainers: [{name: linkerd-proxy}]"),
        ("istio.io/dataplane-mode: ambient", "", ""),
    ] {
        let pod =
            pod(labels, spec, "").replacen("metadata: {", &format!("metadata: {{annotations: {{{annotations}}}, "), 1);
        let (index, _) = index(&(SHOP.to_owned() + &pod));
        assert_eq!(find(&index, "p").unwrap().enrolment, Enrolment::Outside, "{labels} {annotations} {spec}");
    }
    let (index, _) =
        index(&pod("weftmesh.io/mesh: enabled", "", "").replace("namespace: shop", "namespace: weft-system"));
    assert_eq!(find(&index, "p").unwrap().enrolment, Enrolment::Outside);
}

#[test]
fn a_namespace_label_moves_its_pods() {
    let (mut index, _) = index(SHOP);
    objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}").into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    assert!(
        matches!(&out.changes[..], [Change::Upsert(Resource::Workload(w))] if w.enrolment == Enrolment::Outside),
        "{out:?}"
    );
}

#[test]
fn a_pod_that_has_ended_or_has_no_address_is_no_workload() {
    for (spec, status) in [("", ", phase: Succeeded"), ("", ", phase: Failed"), (", nodeName: ''", "")] {
        let text = pod("", spec, status).replace("nodeName: n1, ", if spec.is_empty() { "nodeName: n1, " } else { "" });
        let (index, _) = index(&(SHOP.to_owned() + &text));
        assert!(find(&index, "p").is_none(), "{spec} {status}");
    }
}

#[test]
fn the_zone_is_the_nodes() {
    let (mut index, _) = index(SHOP);
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}";
    objects(node).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(find(&index, "cart-1").unwrap().zone.as_ref().map(|z| z.as_str().to_owned()), Some("z1".into()));
}

#[test]
fn what_a_port_speaks() {
    use crate::translate::service::app_protocol as p;
    for (protocol, app, name, want) in [
        ("TCP", None, "", AppProtocol::Unspecified),
        ("TCP", None, "http", AppProtocol::Http),
        ("TCP", None, "http-admin", AppProtocol::Http),
        ("TCP", None, "httpx", AppProtocol::Unspecified),
        ("TCP", None, "grpc-web", AppProtocol::Http),
        ("TCP", None, "grpc", AppProtocol::Grpc),
        ("TCP", None, "https", AppProtocol::Tls),
        ("TCP", Some("kubernetes.io/h2c"), "http", AppProtocol::H2c),
        ("TCP", Some("kubernetes.io/ws"), "", AppProtocol::WebSocket),
        ("TCP", Some("kubernetes.io/wss"), "", AppProtocol::Tls),
        ("TCP", Some("HTTP"), "tcp", AppProtocol::Http),
        ("TCP", Some("example.com/other"), "http", AppProtocol::Unspecified),
        ("UDP", Some("http"), "http", AppProtocol::Udp),
        ("TCP", None, "redis-main", AppProtocol::Tcp),
    ] {
        assert_eq!(p(protocol, app, name), want, "{protocol} {app:?} {name}");
    }
}

#[test]
fn services_of_every_type() {
    let translate = |spec: &str| {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: shop}}\nspec: {{{spec}}}");
        let (index, _) = index(&text);
        let found = index.resources().find_map(|r| match r {
            Resource::Service(s) => Some(Arc::clone(s)),
            _ => None,
        });
        found.unwrap()
    };
    assert_eq!(translate("clusterIP: None").kind, ServiceKind::Headless);
    assert_eq!(translate("type: ExternalName, externalName: a.b").kind, ServiceKind::ExternalName("a.b".into()));
    let dual = translate("clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], externalIPs: [1.2.3.4]");
    assert_eq!(dual.addresses.len(), 2, "externalIPs are nobody's to claim");
    let affine = translate("sessionAffinity: ClientIP, internalTrafficPolicy: Local, trafficDistribution: PreferClose");
    assert_eq!(affine.client_ip_affinity.unwrap().as_secs(), 10_800);
    assert!(affine.node_local_only);
    let dns = translate(
        "ports: [{port: 53, protocol: UDP, name: dns}, {port: 53, name: dns-tcp}, {port: 99, protocol: SCTP, name: s}]",
    );
    assert_eq!(dns.ports.len(), 1);
    assert_eq!(dns.ports[0].protocol, AppProtocol::Unspecified);
}

#[test]
fn endpoint_conditions() {
    for (conditions, want) in [
        ("{}", EndpointHealth::Ready),
        ("{ready: true, serving: true, terminating: false}", EndpointHealth::Ready),
        ("{ready: true, serving: true, terminating: true}", EndpointHealth::Ready),
        ("{ready: false, serving: true, terminating: true}", EndpointHealth::Draining),
        ("{ready: false, serving: false, terminating: true}", EndpointHealth::NotReady),
        ("{ready: false}", EndpointHealth::NotReady),
        ("{ready: false, serving: true, terminating: false}", EndpointHealth::NotReady),
    ] {
        let (index, _) = index(&SHOP.replace("{ready: true}", conditions));
        let found = index.resources().find_map(|r| match r {
            Resource::EndpointSlice(s) => Some(s.endpoints[0].clone()),
            _ => None,
        });
        assert_eq!(found.unwrap().health, want, "{conditions}");
    }
}

#[test]
fn a_slice_speaks_only_for_pods_of_its_namespace() {
    let foreign = SHOP.replace("name: cart-1, namespace: shop}}", "name: cart-1, namespace: money}}");
    let text = foreign.replace(
        "targetRef: {kind: Pod, name: cart-1, namespace: shop}",
        "targetRef: {kind: Pod, name: cart-1, namespace: money}",
    );
    let (index, _) = index(&text);
    let found = index.resources().find_map(|r| match r {
        Resource::EndpointSlice(s) => Some(s.endpoints[0].workload.clone()),
        _ => None,
    });
    assert_eq!(found, Some(None));
}

fn network_policy(name: &str, selector: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{podSelector: {selector}, policyTypes: [Egress], egress: []}}\n"
    )
}

/// Whatever it allows: what it selects is not to be handed over in memory.
#[test]
fn a_network_policy_marks_the_pods_that_it_selects() {
    for (selector, selected) in [
        ("{}", true),
        ("{matchLabels: {app: p}}", true),
        ("{matchLabels: {app: q}}", false),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [q]}]}", true),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", false),
    ] {
        let (index, _) = index(&(SHOP.to_owned() + &pod("app: p", "", "") + "---\n" + &network_policy("n", selector)));
        assert_eq!(find(&index, "p").unwrap().network_policy, selected, "{selector}");
    }
    let elsewhere = network_policy("n", "{}").replace("namespace: shop", "namespace: other");
    let (index, _) = index(&(SHOP.to_owned() + &pod("app: p", "", "") + "---\n" + &elsewhere));
    assert!(!find(&index, "p").unwrap().network_policy);
}

#[test]
fn a_network_policy_that_changes_or_goes_looks_at_its_pods_again() {
    let (mut index, _) = index(&(SHOP.to_owned() + &pod("app: p", "", "")));
    let selected = |index: &mut Index, text: &str| {
        objects(text).into_iter().for_each(|o| index.apply(o));
        let out = index.commit();
        (find(index, "p").unwrap().network_policy, out.changes.len())
    };
    assert_eq!(selected(&mut index, &network_policy("n", "{matchLabels: {app: p}}")), (true, 1));
    // A second one changes nothing, and the first may go then.
    assert_eq!(selected(&mut index, &network_policy("m", "{matchLabels: {app: p}}")), (true, 0));
    assert_eq!(selected(&mut index, &network_policy("n", "{matchLabels: {app: q}}")), (true, 0));
    index.delete(&ObjectRef::new(Kind::NetworkPolicy, "shop", "m"));
    assert_eq!(index.commit().changes.len(), 1);
    assert!(!find(&index, "p").unwrap().network_policy);
}
