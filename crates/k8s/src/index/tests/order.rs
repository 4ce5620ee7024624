//! The outcome depends on what is there, never on how it came to be.

use proptest::prelude::*;

use super::*;

fn everything() -> Vec<Object> {
    let svc = |port: u16| format!("{{group: '', kind: Service, name: cart, port: {port}}}");
    let mut text = SHOP.to_owned();
    text += &route("good", CART, "[{backendRefs: [{name: cart-v2, port: 80}]}]");
    text += &route("bad", CART, "[{filters: [{type: Nonsense}]}]");
    text += &route("cross", &svc(80), "[{backendRefs: [{name: bank, namespace: money, port: 80}]}]");
    text +=
        &route("grpc", &svc(7070), "[{backendRefs: [{name: cart-v2, port: 80}]}]").replace("HTTPRoute", "GRPCRoute");
    text += &route("tcp", CART, "[{backendRefs: [{name: cart, port: 9090}]}]").replace("HTTPRoute", "TCPRoute");
    text += "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: money}\n\
             spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: '', kind: Service}]}\n";
    text += "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
             spec: {targetRefs: [{kind: Service, name: cart}], action: ALLOW, rules: [{to: [{paths: [/a]}]}]}\n";
    text += "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: MeshPolicy\nmetadata: {name: m, namespace: weft-system}\n\
             spec: {targetRefs: [{kind: Pod, selector: {matchLabels: {app: cart}}}], mode: Strict}\n";
    text += "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: MeshPolicy\nmetadata: {name: n, namespace: weft-system}\n\
             spec: {targetRefs: [{kind: Pod, selector: {matchLabels: {app: cart}}}], mode: Permissive}\n";
    for (name, day) in [("old", 1), ("new", 2)] {
        text += &format!(
            "\n---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
             metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: cart-v2}}], sessionPersistence: {{}}, \
             retryConstraint: {{budget: {{percent: {day}}}}}}}\n"
        );
    }
    text += "\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}\n";
    objects(&text)
}

type End = (Vec<Resource>, Vec<StatusUpdate>, Vec<String>);

fn end(index: &Index) -> End {
    let mut statuses: Vec<_> = index.statuses().collect();
    statuses.sort_by(|a, b| a.object.cmp(&b.object));
    let mut problems: Vec<_> = index.all_problems().map(|(r, p)| format!("{r} {p}")).collect();
    problems.sort();
    (index.resources().cloned().collect(), statuses, problems)
}

/// Replays changes as a receiver would.
fn replay(held: &mut BTreeMap<ResourceKey, Resource>, out: &Output) {
    for change in &out.changes {
        match change {
            Change::Upsert(resource) => drop(held.insert(resource.key(), resource.clone())),
            Change::Remove(key) => assert!(held.remove(key).is_some(), "removed what was not there: {key:?}"),
        }
    }
}

/// Gateways that are in each other's way on one machine, what they refer to, and what attaches to them.
fn gateways() -> Vec<Object> {
    let of_api = |kind: &str, name: &str, namespace: &str, more: &str, spec: &str| {
        format!(
            "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\n\
             spec: {{{spec}}}\n"
        )
    };
    let day = |day: u32| format!(", creationTimestamp: '2026-01-0{day}T00:00:00Z'");
    let all = "allowedRoutes: {namespaces: {from: All}}";
    let mut text = SHOP.to_owned();
    text += "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
             spec: {controllerName: weftmesh.io/gateway-controller}\n";
    let listeners = format!(
        "{{name: http, port: 80, protocol: HTTP, {all}}}, {{name: https, port: 443, protocol: HTTPS, \
         tls: {{certificateRefs: [{{name: c, namespace: vault}}]}}, {all}}}"
    );
    let taking =
        "allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {weftmesh.io/mesh: enabled}}}}";
    let asking =
        "tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}";
    let spec = |more: &str| format!("gatewayClassName: weft, listeners: [{listeners}], {more}");
    text += &of_api("Gateway", "a", "edge", &day(1), &spec(&format!("{taking}, {asking}")));
    text += &of_api("Gateway", "b", "edge", &day(2), &spec("defaultScope: All"));
    let set = |host: &str| {
        format!(
            "parentRef: {{name: a, namespace: edge}}, listeners: [{{name: l, port: 80, protocol: HTTP, hostname: {host}, {all}}}]"
        )
    };
    text += &of_api("ListenerSet", "s", "shop", &day(2), &set("x.com"));
    text += &of_api("ListenerSet", "t", "shop", &day(1), &set("x.com"));
    let parents = "parentRefs: [{name: a, namespace: edge}, {kind: ListenerSet, group: gateway.networking.k8s.io, name: s}, \
                   {kind: ListenerSet, group: gateway.networking.k8s.io, name: t}, {name: nobody}]";
    let rules = "rules: [{backendRefs: [{name: cart-v2, port: 80}]}]";
    text += &of_api("HTTPRoute", "named", "shop", &day(3), &format!("{parents}, {rules}"));
    text += &of_api("GRPCRoute", "late", "shop", &day(4), &format!("{parents}, hostnames: [x.com], {rules}"));
    text += &of_api("HTTPRoute", "default", "shop", &day(5), &format!("useDefaultGateways: All, {rules}"));
    let policy = "targetRefs: [{group: '', kind: Service, name: cart-v2}], \
                  validation: {hostname: a.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}";
    text += &of_api("BackendTLSPolicy", "p", "shop", &day(2), policy);
    text += &of_api("BackendTLSPolicy", "q", "shop", &day(1), policy);
    let from =
        "from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: edge}], to: [{group: '', kind: Secret}]";
    text += &of_api("ReferenceGrant", "g", "vault", "", from);
    text += "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: vault}\nstringData: {tls.crt: chain 1, tls.key: key 1}\n";
    let ca = crate::translate::gateway::trust::tests::AUTHORITY.replace('\n', "\n    ");
    for namespace in ["edge", "shop"] {
        text += &format!(
            "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: {namespace}}}\ndata:\n  ca.crt: |\n    {ca}\n"
        );
    }
    objects(&text)
}

/// In any order, in any batches, and with detours: the end is the same, and nothing is left when all are gone.
fn check(all: &[Object], config: &IndexConfig, order: &[usize], commits: &[bool], detours: &[bool]) {
    let mut straight = Index::new(config.clone());
    all.iter().for_each(|o| straight.apply(o.clone()));
    straight.commit();

    let mut index = Index::new(config.clone());
    let mut held = BTreeMap::new();
    for (n, i) in order.iter().enumerate() {
        index.apply(all[*i].clone());
        if commits[n % 32] {
            replay(&mut held, &index.commit());
        }
        if detours[n % 32] {
            index.delete(&all[*i].reference());
            if commits[(n + 7) % 32] {
                replay(&mut held, &index.commit());
            }
            index.apply(all[*i].clone());
        }
    }
    replay(&mut held, &index.commit());
    assert_eq!(end(&index), end(&straight));
    assert_eq!(held.into_values().collect::<Vec<_>>(), straight.resources().cloned().collect::<Vec<_>>());
    assert!(index.commit().is_empty());

    for i in order {
        index.delete(&all[*i].reference());
        if commits[*i % 32] {
            index.commit();
        }
    }
    index.commit();
    let (left, statuses, problems) = end(&index);
    assert!(matches!(left[..], [Resource::Mesh(_)]), "{left:?}");
    assert!(statuses.is_empty() && problems.is_empty(), "{statuses:?} {problems:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_order_any_batches_and_detours_end_the_same(
        order in Just((0..everything().len()).collect::<Vec<_>>()).prop_shuffle(),
        commits in proptest::collection::vec(any::<bool>(), 32),
        detours in proptest::collection::vec(any::<bool>(), 32),
    ) {
        check(&everything(), &IndexConfig::default(), &order, &commits, &detours);
    }

    #[test]
    fn gateways_end_the_same_on_a_machine_and_in_a_cluster(
        order in Just((0..gateways().len()).collect::<Vec<_>>()).prop_shuffle(),
        commits in proptest::collection::vec(any::<bool>(), 32),
        detours in proptest::collection::vec(any::<bool>(), 32),
        in_cluster in any::<bool>(),
    ) {
        let mut config = super::gateways::serving();
        if let Some(settings) = config.gateways.as_mut().filter(|_| in_cluster) {
            settings.place = crate::translate::gateway::Place::Cluster;
        }
        check(&gateways(), &config, &order, &commits, &detours);
    }
}

#[test]
fn what_gateways_end_with_is_worth_the_name() {
    let mut index = Index::new(super::gateways::serving());
    gateways().into_iter().for_each(|o| index.apply(o));
    index.commit();
    let count = |of: fn(&Resource) -> bool| index.resources().filter(|it| of(it)).count();
    assert_eq!(count(|it| matches!(it, Resource::Listener(_))), 3, "the older Gateway's, and those of one set");
    assert!(
        count(|it| matches!(it, Resource::GatewayRule(_))) > 0
            && count(|it| matches!(it, Resource::Certificate(_))) > 0
    );
    assert!(count(|it| matches!(it, Resource::BackendTls(_))) > 0);
}

#[test]
fn a_bad_object_next_to_good_ones_loses_nothing() {
    let all = everything();
    let is_bad = |o: &&Object| o.reference().name.as_str() == "bad";
    let mut without = Index::new(IndexConfig::default());
    all.iter().filter(|o| !is_bad(o)).for_each(|o| without.apply(o.clone()));
    without.commit();
    let before: Vec<_> = without.resources().cloned().collect();
    all.iter().filter(is_bad).for_each(|o| without.apply(o.clone()));
    let out = without.commit();
    assert!(
        out.changes
            .iter()
            .all(|c| matches!(c, Change::Upsert(Resource::Rule(r)) if r.key().route.name.as_str() == "bad"))
    );
    assert!(before.iter().all(|r| without.resource(&r.key()) == Some(r)));
}

#[test]
fn resync_deletes_what_is_not_listed() {
    let (mut index, _) = index(SHOP);
    let keep: Vec<_> = objects(SHOP).into_iter().filter(|o| o.reference().name.as_str() != "bank").collect();
    index.resync(Kind::Service, keep);
    let out = index.commit();
    assert!(matches!(&out.changes[..], [Change::Remove(ResourceKey::Service(key))] if key.name.as_str() == "bank"));
}
