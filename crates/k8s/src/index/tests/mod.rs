//! Manifests in, changes and statuses out.

use super::*;
use weft_core::ids::{Port, RouteKind, RuleKey, ServicePortKey};
use weft_core::route::{BackendTarget, HttpAction, InvalidBackend, Parent, RouteRule};

/// Objects of a text, without the checks of `parse`.
pub(super) fn objects(text: &str) -> Vec<Object> {
    serde_norway::Deserializer::from_str(text)
        .map(|doc| {
            let value: serde_json::Value = serde::Deserialize::deserialize(doc).unwrap();
            let version = value["apiVersion"].as_str().unwrap();
            let group = version.split_once('/').map_or("", |(g, _)| g);
            let kind = Kind::find(group, value["kind"].as_str().unwrap()).unwrap();
            Object::deserialize(kind, value).unwrap()
        })
        .collect()
}

pub(super) fn index(text: &str) -> (Index, Output) {
    let mut index = Index::new(IndexConfig::default());
    objects(text).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    (index, out)
}

pub(super) const SHOP: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weftmesh.io/mesh: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  selector: {app: cart}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: https, port: 443, targetPort: 8443}
  - {name: grpc, port: 7070}
  - {name: tcp, port: 9090}
---
apiVersion: v1
kind: Service
metadata: {name: cart-v2, namespace: shop}
spec:
  clusterIP: 10.96.0.11
  ports: [{port: 80, appProtocol: http}]
---
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: money}
spec:
  clusterIP: 10.96.0.12
  ports: [{port: 80, appProtocol: http}]
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-1
  namespace: shop
  labels: {app: cart, pod-template-hash: abc12}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: cart-abc12, uid: u, controller: true}]
spec: {nodeName: n1, serviceAccountName: cart, containers: []}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- addresses: [10.0.0.1]
  conditions: {ready: true}
  nodeName: n1
  targetRef: {kind: Pod, name: cart-1, namespace: shop}
";

pub(super) fn route(name: &str, parent: &str, rules: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop, \
         generation: 3}}\nspec:\n  parentRefs: [{parent}]\n  rules: {rules}\n"
    )
}

pub(super) const CART: &str = "{group: '', kind: Service, name: cart}";

#[test]
fn a_route_of_a_service_becomes_rules_on_the_ports_that_can_carry_it() {
    let (index, out) = index(&(SHOP.to_owned() + &route("r", CART, "[{backendRefs: [{name: cart-v2, port: 80}]}]")));
    let key =
        RuleKey { route: RouteKey { kind: RouteKind::Http, namespace: "shop".into(), name: "r".into() }, index: 0 };
    let Some(Resource::Rule(rule)) = index.resource(&ResourceKey::Rule(key)) else { panic!("no rule") };
    let RouteRule::Http(rule) = &**rule else { panic!("not HTTP") };
    let port = |n| Parent::Service {
        port: ServicePortKey { service: ServiceKey::new("shop", "cart"), port: Port::new(n).unwrap() },
        consumer: None,
    };
    assert_eq!(rule.parents, vec![port(80), port(7070)]);
    let HttpAction::Forward(backends) = &rule.action else { panic!("{:?}", rule.action) };
    assert_eq!(backends.len(), 1);
    let status = out.statuses.iter().find(|s| s.object.kind == Kind::HttpRoute).unwrap();
    assert_eq!(status.generation, 3);
    let ObjectStatus::Parents(parents) = &status.status else { panic!() };
    assert!(parents[0].conditions.iter().all(|c| c.status), "{parents:?}");
}

#[test]
fn a_backend_in_another_namespace_needs_a_grant_and_gets_it_live() {
    let text = SHOP.to_owned() + &route("r", CART, "[{backendRefs: [{name: bank, namespace: money, port: 80}]}]");
    let (mut index, _) = index(&text);
    let target = |index: &Index| {
        let found = index.resources().find_map(|r| match r {
            Resource::Rule(rule) => match &**rule {
                RouteRule::Http(rule) => match &rule.action {
                    HttpAction::Forward(b) => Some(b[0].target.clone()),
                    other => panic!("{other:?}"),
                },
                _ => None,
            },
            _ => None,
        });
        found.unwrap()
    };
    assert!(matches!(target(&index), BackendTarget::Invalid { reason: InvalidBackend::NotPermitted, .. }));
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: money}\n\
                 spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}";
    objects(grant).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    assert_eq!(out.changes.len(), 1, "{out:?}");
    assert_eq!(out.statuses.len(), 1);
    assert!(matches!(target(&index), BackendTarget::Service(_)));
    index.delete(&ObjectRef::new(Kind::ReferenceGrant, "money", "g"));
    assert_eq!(index.commit().changes.len(), 1);
    assert!(matches!(target(&index), BackendTarget::Invalid { reason: InvalidBackend::NotPermitted, .. }));
    assert!(index.commit().is_empty());
}

mod backend_tls;
mod backend_traffic;
mod external_auth;
mod gateways;
mod imports;
mod order;
mod policies;
mod routes;
mod scale;
mod snapshots;
mod telemetry;
mod workloads;
