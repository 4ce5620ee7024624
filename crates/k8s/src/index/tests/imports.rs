//! ServiceImports: what routes send to of other clusters.

use super::*;

const STORE: &str = "\n---\napiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\nmetadata: {name: store, namespace: shop}\n\
     spec: {type: ClusterSetIP, ips: [10.42.0.1], ports: [{name: http, port: 80}]}\n";
const BACKEND: &str = "[{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 80}]}]";

fn slice(labels: &str) -> String {
    format!(
        "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: store-x, namespace: shop, labels: {{{labels}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
         endpoints: [{{addresses: [10.9.0.1], targetRef: {{kind: Pod, name: cart-1, namespace: shop}}}}]\n"
    )
}

fn import(namespace: &str) -> ServiceKey {
    ServiceKey::of_kind(weft_core::backend_kind::BackendKind::ServiceImport, namespace, "store")
}

fn target(index: &Index) -> BackendTarget {
    let found = index.resources().find_map(|r| match r {
        Resource::Rule(rule) => match &**rule {
            RouteRule::Http(rule) => match &rule.action {
                HttpAction::Forward(backends) => Some(backends[0].target.clone()),
                other => panic!("{other:?}"),
            },
            _ => None,
        },
        _ => None,
    });
    found.unwrap()
}

fn invalid(target: &BackendTarget) -> Option<InvalidBackend> {
    match target {
        BackendTarget::Invalid { reason, .. } => Some(*reason),
        BackendTarget::Service(_) => None,
    }
}

fn add(index: &mut Index, text: &str) -> Output {
    objects(text).into_iter().for_each(|o| index.apply(o));
    index.commit()
}

#[test]
fn a_route_sends_to_the_endpoints_of_an_import_as_it_comes_and_goes() {
    let (mut index, _) = index(&(SHOP.to_owned() + &route("r", CART, BACKEND)));
    assert_eq!(invalid(&target(&index)), Some(InvalidBackend::NotFound));
    add(&mut index, STORE);
    let BackendTarget::Service(port) = target(&index) else { panic!("{:?}", target(&index)) };
    assert_eq!((port.service.clone(), port.port.get()), (import("shop"), 80));
    let Some(Resource::Service(service)) = index.resource(&ResourceKey::Service(import("shop"))) else { panic!() };
    assert!(service.addresses.is_empty(), "a client that dials it isn't ours to answer");

    add(&mut index, &slice("multicluster.kubernetes.io/service-name: store"));
    let slices = |index: &Index| {
        let of = |r: &Resource| match r {
            Resource::EndpointSlice(slice) if slice.key.name.as_str().contains("store") => Some((**slice).clone()),
            _ => None,
        };
        index.resources().filter_map(of).collect::<Vec<_>>()
    };
    let made = slices(&index);
    assert_eq!((made.len(), &made[0].service), (1, &import("shop")));
    assert_eq!(made[0].endpoints[0].workload, None, "a pod of this name may be another cluster's");
    // The same slice may be of a Service, too.
    add(&mut index, &slice("multicluster.kubernetes.io/service-name: store, kubernetes.io/service-name: cart"));
    let services: Vec<_> = slices(&index).into_iter().map(|slice| slice.service).collect();
    assert_eq!(services, [import("shop"), ServiceKey::new("shop", "cart")]);
    add(&mut index, &slice("kubernetes.io/service-name: cart"));
    assert_eq!(slices(&index).len(), 1);
    index.delete(&ObjectRef::new(Kind::EndpointSlice, "shop", "store-x"));
    index.commit();
    assert!(slices(&index).is_empty());

    index.delete(&ObjectRef::new(Kind::ServiceImport, "shop", "store"));
    index.commit();
    assert_eq!(invalid(&target(&index)), Some(InvalidBackend::NotFound));
    assert!(index.resource(&ResourceKey::Service(import("shop"))).is_none());
}

#[test]
fn an_import_of_another_namespace_needs_a_grant_for_its_kind() {
    let backend = BACKEND.replace("name: store", "name: store, namespace: far");
    let far = STORE.replace("namespace: shop", "namespace: far");
    let (mut index, _) = index(&(SHOP.to_owned() + &route("r", CART, &backend) + &far));
    let grant = |to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: far}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}}], to: [{{{to}}}]}}\n"
        )
    };
    for (to, expected) in [
        ("group: '', kind: Service", Some(InvalidBackend::NotPermitted)),
        ("group: '', kind: ServiceImport", Some(InvalidBackend::NotPermitted)),
        ("group: multicluster.x-k8s.io, kind: ServiceImport, name: other", Some(InvalidBackend::NotPermitted)),
        ("group: multicluster.x-k8s.io, kind: ServiceImport, name: store", None),
        ("group: multicluster.x-k8s.io, kind: ServiceImport", None),
    ] {
        add(&mut index, &grant(to));
        assert_eq!(invalid(&target(&index)), expected, "{to}");
    }
}

/// `ServiceImport:store` is what the data plane calls it: a grant for Services must not reach it under that name.
#[test]
fn nobody_gets_at_an_import_by_the_name_that_it_has_inside() {
    let backend = "[{backendRefs: [{name: 'ServiceImport:store', port: 80}]}]";
    let parent = "{group: '', kind: Service, name: 'ServiceImport:store'}";
    let (index, _) = index(&(SHOP.to_owned() + STORE + &route("r", CART, backend) + &route("p", parent, BACKEND)));
    assert_eq!(invalid(&target(&index)), Some(InvalidBackend::NotFound));
    let reference = ObjectRef::new(Kind::HttpRoute, "shop", "p");
    let Some((_, ObjectStatus::Parents(parents))) = index.status(&reference) else { panic!() };
    assert_eq!(parents[0].conditions[0].reason, "NoMatchingParent");
}

#[test]
fn a_port_that_an_import_does_not_have_is_named() {
    let backend = BACKEND.replace("port: 80", "port: 81");
    let (index, _) = index(&(SHOP.to_owned() + STORE + &route("r", CART, &backend)));
    assert_eq!(invalid(&target(&index)), Some(InvalidBackend::UnsupportedPort));
    let problems = index.problems(&ObjectRef::new(Kind::HttpRoute, "shop", "r"));
    let text = problems.iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("ServiceImport shop/store has no port 81"), "{text}");
}
