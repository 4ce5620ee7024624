//! What a change costs in a large cluster. The limits are generous: the figures are printed.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::*;

/// Processor time of this thread: what else the machine does isn't the index's.
struct Spent(Duration);

impl Spent {
    fn now() -> Self {
        Self(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap()))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

#[test]
fn one_edit_among_five_thousand_routes() {
    let mut index = Index::new(IndexConfig::default());
    objects(SHOP).into_iter().for_each(|o| index.apply(o));
    let start = Spent::now();
    for i in 0..5000 {
        let rules = format!("[{{matches: [{{path: {{value: /p{i}}}}}], backendRefs: [{{name: cart-v2, port: 80}}]}}]");
        objects(&route(&format!("r{i}"), CART, &rules)).into_iter().for_each(|o| index.apply(o));
    }
    println!("5,000 routes read and applied in {:?}", start.elapsed());
    let start = Spent::now();
    let out = index.commit();
    println!("... committed in {:?}, {} changes", start.elapsed(), out.changes.len());
    let edit =
        objects(&route("r77", CART, "[{matches: [{path: {value: /new}}], backendRefs: [{name: cart-v2, port: 80}]}]"))
            .remove(0);
    let start = Spent::now();
    index.apply(edit);
    let out = index.commit();
    let took = start.elapsed();
    println!("one edit: {took:?}");
    assert_eq!(out.changes.len(), 1);
    assert!(took < Duration::from_millis(10), "{took:?}");
    let start = Spent::now();
    let grpc = objects(&route("g", CART, "[]").replace("HTTPRoute", "GRPCRoute")).remove(0);
    index.apply(grpc);
    let out = index.commit();
    println!("a kind conflict with all of them: {:?}, {} changes", start.elapsed(), out.changes.len());
}

#[test]
fn a_gateway_with_a_thousand_listener_sets() {
    const SETS: usize = 1000;
    const ROUTES: usize = 8;
    let mut index = Index::new(super::gateways::serving());
    objects(SHOP).into_iter().for_each(|o| index.apply(o));
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: shop}\n\
                   spec: {gatewayClassName: weft, allowedListeners: {namespaces: {from: All}}, \
                   listeners: [{name: own, port: 80, protocol: HTTP, hostname: own.com}]}";
    objects(gateway).into_iter().for_each(|o| index.apply(o));
    let set = |i: usize, port: u16| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {{name: s{i}, namespace: shop}}\n\
             spec: {{parentRef: {{name: gw}}, listeners: [{{name: l, port: {port}, protocol: HTTP, hostname: s{i}.com}}]}}"
        );
        objects(&text).remove(0)
    };
    let of_set = |i: usize, n: usize, path: &str| {
        let parent = format!("{{group: gateway.networking.k8s.io, kind: ListenerSet, name: s{i}}}");
        let rules = format!("[{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: cart-v2, port: 80}}]}}]");
        objects(&route(&format!("r{i}-{n}"), &parent, &rules)).remove(0)
    };
    for i in 0..SETS {
        index.apply(set(i, 80));
        (0..ROUTES).for_each(|n| index.apply(of_set(i, n, &format!("/p{n}"))));
    }
    let start = Spent::now();
    let out = index.commit();
    println!("{SETS} sets with {ROUTES} routes each: {:?}, {} changes", start.elapsed(), out.changes.len());
    let mut edit = |what: &str, object: Object, most: Duration| {
        let start = Spent::now();
        index.apply(object);
        let out = index.commit();
        let took = start.elapsed();
        println!("{what}: {took:?}, {} changes, {} statuses", out.changes.len(), out.statuses.len());
        assert!(took < most, "{what}: {took:?}");
        (out.changes.len(), out.statuses.len())
    };
    assert_eq!(edit("one route", of_set(77, 3, "/new"), Duration::from_millis(10)), (1, 0));
    // Its listener and the status of the set; its routes say what they said.
    assert_eq!(edit("one set", set(77, 81), Duration::from_millis(500)), (1, 0));
    assert_eq!(edit("a set more", set(SETS, 80), Duration::from_millis(500)), (1, 2));
    assert_eq!(edit("a route more", of_set(SETS, 0, "/"), Duration::from_millis(10)), (1, 2));
}

#[test]
fn a_hundred_thousand_endpoints() {
    use k8s_openapi::api::discovery::v1 as k8s;
    let Object::EndpointSlice(first) = objects(SHOP).pop().unwrap() else { panic!() };
    let slice = |i: usize| {
        let mut slice: k8s::EndpointSlice = (*first).clone();
        slice.metadata.name = Some(format!("cart-{i}"));
        let one = slice.endpoints[0].clone();
        slice.endpoints = (0..100)
            .map(|n| k8s::Endpoint { addresses: vec![format!("10.{}.{}.{n}", i / 250, i % 250)], ..one.clone() })
            .collect();
        Object::from(slice)
    };
    let all: Vec<_> = (0..1000).map(slice).collect();
    let mut index = Index::new(IndexConfig::default());
    let start = Spent::now();
    all.iter().for_each(|o| index.apply(o.clone()));
    let out = index.commit();
    let took = start.elapsed();
    println!("100,000 endpoints: {took:?}, {} changes", out.changes.len());
    assert_eq!(out.changes.len(), 1001);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let start = Spent::now();
    let mut edited = slice(500);
    if let Object::EndpointSlice(s) = &mut edited {
        Arc::make_mut(s).endpoints.pop();
    }
    index.apply(edited);
    assert_eq!(index.commit().changes.len(), 1);
    println!("one slice: {:?}", start.elapsed());
}

#[test]
fn ten_thousand_pods_and_a_policy() {
    let mut index = Index::new(IndexConfig::default());
    objects(SHOP).into_iter().for_each(|o| index.apply(o));
    let pod = objects(SHOP).into_iter().find(|o| o.kind() == Kind::Pod).unwrap();
    for i in 0..10_000 {
        let mut pod = pod.clone();
        pod.meta_mut().name = Some(format!("p{i}"));
        pod.meta_mut().labels = Some([("app".to_owned(), format!("a{}", i % 100))].into());
        index.apply(pod);
    }
    let start = Spent::now();
    index.commit();
    println!("10,000 pods: {:?}", start.elapsed());
    let policy = objects(
        "apiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n\
         spec: {targetRefs: [{kind: Pod, selector: {matchLabels: {app: a7}}}], action: ALLOW}",
    )
    .remove(0);
    let start = Spent::now();
    index.apply(policy);
    let out = index.commit();
    println!("a policy for 100 of them: {:?}", start.elapsed());
    assert_eq!(out.changes.len(), 101);
    assert!(start.elapsed() < Duration::from_millis(500));
}
