//! Gateways without a cluster: they are Programmed when the proxy of the machine has bound their listeners.

use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::ids::{ListenerKey, ListenerSetKey};

use super::*;

const TAKEN: &str = "*:81 can't be listened on: Address already in use (os error 98)";

/// Two Gateways, one with a ListenerSet, of which nobody has said yet what is bound.
fn unheard() -> Index {
    let own = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: edge, generation: 2}\n\
               spec: {gatewayClassName: weft, allowedListeners: {namespaces: {from: All}}, listeners: [\
               {name: http, port: 80, protocol: HTTP}, {name: more, port: 81, protocol: HTTP}]}\n";
    let set = "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {name: s, namespace: edge, generation: 5}\n\
               spec: {parentRef: {name: gw}, listeners: [{name: of-set, port: 82, protocol: HTTP}]}\n";
    let other = gateway_of("other", "listeners: [{name: http, port: 90, protocol: HTTP}]");
    let mut index = Index::new(serving());
    objects(&(own.to_owned() + set + &other)).into_iter().for_each(|o| index.apply(o));
    index.commit();
    index
}

fn own(name: &str) -> ListenerKey {
    ListenerKey::new(GatewayKey::new("edge", "gw"), name)
}

fn of_set() -> ListenerKey {
    ListenerKey { set: Some(ListenerSetKey::new("edge", "s")), ..own("of-set") }
}

/// Says that both Gateways are listened for, but these listeners aren't bound.
fn bind(index: &mut Index, unbound: &[ListenerKey]) {
    let unbound = unbound.iter().map(|key| (key.clone(), TAKEN.to_owned())).collect();
    index.set_bound(
        [("gw", unbound), ("other", BTreeMap::new())].map(|(n, it)| (GatewayKey::new("edge", n), it)).into(),
    );
    let out = index.commit();
    assert!(out.changes.is_empty(), "what the data plane gets doesn't depend on it: {:?}", out.changes);
}

/// What is wrong with a Gateway, and with each of its own listeners.
fn told(index: &Index, name: &str) -> Vec<Vec<String>> {
    let status = status_of(index, name);
    let listeners = status.listeners.iter().map(|it| wrong(&it.conditions));
    [wrong(&status.conditions)].into_iter().chain(listeners).collect()
}

fn told_of_set(index: &Index) -> Vec<Vec<String>> {
    match index.status(&ObjectRef::new(Kind::ListenerSet, "edge", "s")) {
        Some((_, ObjectStatus::ListenerSet(status))) => {
            let listeners = status.listeners.iter().map(|it| wrong(&it.conditions));
            [wrong(&status.conditions)].into_iter().chain(listeners).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn programmed(conditions: &[Condition]) -> &Condition {
    conditions.iter().find(|it| it.kind == ConditionType::GatewayProgrammed).unwrap()
}

#[test]
fn it_is_programmed_when_its_listeners_are_bound_and_each_listener_for_itself() {
    let (pending, refused) = (vec!["Programmed/Pending".to_owned()], vec!["Programmed/RefusedByProxy".to_owned()]);
    let (good, parent) = (Vec::new(), vec!["Programmed/ParentNotProgrammed".to_owned()]);
    let mut index = unheard();
    assert_eq!(told(&index, "gw"), vec![pending.clone(); 3], "nobody has said anything");
    assert_eq!(told_of_set(&index), [parent.clone(), pending.clone()]);
    assert_eq!(status_of(&index, "gw").addresses.len(), 1, "the machine has its address all the same");

    for (unbound, of_gateway, set) in [
        (vec![], [&good, &good, &good], [&good, &good]),
        (vec![own("more")], [&good, &good, &refused], [&good, &good]),
        (vec![of_set()], [&good, &good, &good], [&refused, &refused]),
        (vec![own("http"), own("more")], [&good, &refused, &refused], [&good, &good]),
        (vec![own("http"), own("more"), of_set()], [&refused; 3], [&parent, &refused]),
        (vec![], [&good, &good, &good], [&good, &good]),
    ] {
        bind(&mut index, &unbound);
        assert_eq!(told(&index, "gw"), of_gateway.map(Clone::clone), "{unbound:?}");
        assert_eq!(told_of_set(&index), set.map(Clone::clone), "{unbound:?}");
        assert_eq!(told(&index, "other"), vec![good.clone(); 2], "its neighbour: {unbound:?}");
    }
    index.set_bound([(GatewayKey::new("edge", "other"), BTreeMap::new())].into());
    index.commit();
    assert_eq!((told(&index, "gw"), told(&index, "other")), (vec![pending; 3], vec![good; 2]), "it listens no more");
}

#[test]
fn messages_name_the_listener_the_place_and_the_error_of_the_kernel() {
    let mut index = unheard();
    bind(&mut index, &[own("more")]);
    let status = status_of(&index, "gw");
    let of_listener = &programmed(&status.listeners[1].conditions).message;
    assert_eq!(*of_listener, format!("The proxy of this machine can't bind it; it tries again: {TAKEN}"));
    let of_gateway = &programmed(&status.conditions).message;
    assert!(of_gateway.ends_with(&format!(". Not served: listener more: {TAKEN}")), "{of_gateway}");
    bind(&mut index, &[own("http"), own("more"), of_set()]);
    let status = status_of(&index, "gw");
    let of_gateway = &programmed(&status.conditions).message;
    assert!(of_gateway.contains(&format!("it tries again: listener http: {TAKEN}; listener more: ")), "{of_gateway}");
}

#[test]
fn a_listener_that_is_not_served_has_reasons_of_its_own() {
    let (mut index, _) = serve(&gateway(&format!("{HTTP}, {{name: more, port: 81, protocol: SCTP}}")));
    index.set_bound([(GatewayKey::new("edge", "gw"), [(own("more"), TAKEN.to_owned())].into())].into());
    index.commit();
    assert_eq!(told(&index, "gw")[2], ["Accepted/UnsupportedProtocol", "Programmed/Invalid"]);
    assert!(!programmed(&status_of(&index, "gw").conditions).message.contains(TAKEN));
}

/// A listener that is edited isn't bound as it is now: nothing else is said of it in between.
#[test]
fn what_is_bound_is_asked_once_the_listeners_are_known() {
    let mut index = unheard();
    bind(&mut index, &[]);
    let commit = |index: &mut Index| {
        let mut asked = Vec::new();
        let out = index.commit_with(|listeners| {
            asked.extend_from_slice(listeners);
            Some([(GatewayKey::new("edge", "gw"), BTreeMap::new())].into())
        });
        (asked, out.statuses.into_iter().map(|it| it.object.name.to_string()).collect::<Vec<_>>())
    };
    let edited = objects(&gateway_of("other", "listeners: [{name: http, port: 91, protocol: HTTP}]"));
    edited.into_iter().for_each(|o| index.apply(o));
    let (asked, said) = commit(&mut index);
    assert!(matches!(&asked[..], [Change::Upsert(Resource::Listener(it))] if it.port.get() == 91), "{asked:?}");
    assert_eq!(
        (said, told(&index, "other")),
        (vec!["other".to_owned()], vec![vec!["Programmed/Pending".to_owned()]; 2])
    );

    assert_eq!(commit(&mut index), (Vec::new(), Vec::new()), "nothing new");
    index.delete(&ObjectRef::new(Kind::Gateway, "edge", "other"));
    let (asked, _) = commit(&mut index);
    assert!(matches!(&asked[..], [Change::Remove(ResourceKey::Listener(_))]), "{asked:?}");
}
