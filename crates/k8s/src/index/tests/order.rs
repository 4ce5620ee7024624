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

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_order_any_batches_and_detours_end_the_same(
        order in Just((0..everything().len()).collect::<Vec<_>>()).prop_shuffle(),
        commits in proptest::collection::vec(any::<bool>(), 32),
        detours in proptest::collection::vec(any::<bool>(), 32),
    ) {
        let all = everything();
        let mut straight = Index::new(IndexConfig::default());
        all.iter().for_each(|o| straight.apply(o.clone()));
        straight.commit();

        let mut index = Index::new(IndexConfig::default());
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
        prop_assert_eq!(end(&index), end(&straight));
        prop_assert_eq!(held.into_values().collect::<Vec<_>>(), straight.resources().cloned().collect::<Vec<_>>());
        prop_assert!(index.commit().is_empty());

        for i in &order {
            index.delete(&all[*i].reference());
            if commits[*i % 32] {
                index.commit();
            }
        }
        index.commit();
        let (left, statuses, problems) = end(&index);
        prop_assert!(matches!(left[..], [Resource::Mesh(_)]), "{:?}", left);
        prop_assert!(statuses.is_empty() && problems.is_empty());
    }
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
