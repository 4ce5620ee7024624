//! XBackendTrafficPolicies and sessions of rules: what is in force where, and what the statuses say.

use weft_core::route::HttpRule;
use weft_core::traffic::{SessionPersistence, Sessions};

use super::*;

const WEB: &str = "{group: '', kind: Service, name: cart-v2}";

fn policy(name: &str, day: u32, targets: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
         metadata: {{name: {name}, namespace: shop, generation: 4, uid: u-{name}, \
         creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\nspec: {{targetRefs: [{targets}], {spec}}}\n"
    )
}

fn service(index: &Index, name: &str) -> Arc<Service> {
    match index.resource(&ResourceKey::Service(ServiceKey::new("shop", name))) {
        Some(Resource::Service(service)) => Arc::clone(service),
        other => panic!("{other:?}"),
    }
}

/// The share of retries that is allowed towards a Service, if any is set.
fn percent(index: &Index, name: &str) -> Option<u8> {
    Some(service(index, name).traffic.as_ref()?.retry?.percent)
}

fn rule(index: &Index, at: u16) -> HttpRule {
    let found = index.resources().find_map(|resource| match resource {
        Resource::Rule(rule) if rule.key().index == at => match &**rule {
            RouteRule::Http(rule) => Some(rule.clone()),
            RouteRule::L4(_) => None,
        },
        _ => None,
    });
    found.unwrap()
}

/// What a policy says of each of its targets.
fn said(index: &Index, name: &str) -> Vec<String> {
    let reference = ObjectRef::new(Kind::BackendTrafficPolicy, "shop", name);
    let Some((4, ObjectStatus::GatewayAncestors(entries))) = index.status(&reference) else { panic!("no status") };
    let of = |entry: &crate::object::RouteParentStatus| {
        let (target, condition) = (&entry.parent_ref, &entry.conditions[0]);
        format!("{} {}: {} {}", target.kind.as_deref().unwrap(), target.name, condition.status, condition.reason)
    };
    entries.iter().map(of).collect()
}

#[test]
fn a_policy_reaches_its_services_and_is_taken_back() {
    let text = SHOP.to_owned() + &policy("p", 1, WEB, "retryConstraint: {budget: {percent: 30}}");
    let (mut index, _) = index(&text);
    assert_eq!((percent(&index, "cart-v2"), percent(&index, "cart")), (Some(30), None));
    assert_eq!(said(&index, "p"), ["Service cart-v2: true Accepted"]);
    objects(&policy("p", 1, WEB, "retryConstraint: {budget: {percent: 40}}")).into_iter().for_each(|o| index.apply(o));
    let out = index.commit();
    assert_eq!((out.changes.len(), percent(&index, "cart-v2")), (1, Some(40)), "one small message");
    index.delete(&ObjectRef::new(Kind::BackendTrafficPolicy, "shop", "p"));
    assert_eq!(index.commit().changes.len(), 1);
    assert_eq!(percent(&index, "cart-v2"), None);
    assert_eq!(index.all_problems().count(), 0);
}

#[test]
fn the_older_of_two_policies_holds_until_it_goes() {
    let of = |name: &str, day: u32, percent: u32| {
        policy(name, day, WEB, &format!("retryConstraint: {{budget: {{percent: {percent}}}}}"))
    };
    let (mut index, _) = index(&(SHOP.to_owned() + &of("a-new", 2, 2) + &of("b-old", 1, 1)));
    assert_eq!(percent(&index, "cart-v2"), Some(1));
    assert_eq!(said(&index, "b-old"), ["Service cart-v2: true Accepted"]);
    assert_eq!(said(&index, "a-new"), ["Service cart-v2: false Conflicted"]);
    index.delete(&ObjectRef::new(Kind::BackendTrafficPolicy, "shop", "b-old"));
    index.commit();
    assert_eq!(percent(&index, "cart-v2"), Some(2));
    assert_eq!(said(&index, "a-new"), ["Service cart-v2: true Accepted"]);
}

#[test]
fn what_cant_be_in_force_says_so_and_costs_nothing_else() {
    let two = format!("{WEB}, {{group: '', kind: Service, name: nobody}}");
    let (mut index, _) = index(&(SHOP.to_owned() + &policy("p", 1, &two, "retryConstraint: {}")));
    assert_eq!(said(&index, "p"), ["Service cart-v2: true Accepted", "Service nobody: false TargetNotFound"]);
    assert_eq!(percent(&index, "cart-v2"), Some(20));
    // The missing one comes, with something that excludes sessions.
    let nobody = "apiVersion: v1\nkind: Service\nmetadata: {name: nobody, namespace: shop}\n\
                  spec: {clusterIP: 10.96.0.20, sessionAffinity: ClientIP, ports: [{port: 80}]}";
    objects(nobody).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(said(&index, "p")[1], "Service nobody: true Accepted");
    objects(&policy("p", 1, &two, "sessionPersistence: {}")).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(said(&index, "p"), ["Service cart-v2: true Accepted", "Service nobody: false Conflicted"]);
    assert!(service(&index, "nobody").traffic.is_none());
    objects(&policy("p", 1, &two, "retryConstraint: {budget: {percent: 200}}"))
        .into_iter()
        .for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(said(&index, "p"), ["Service cart-v2: false Invalid", "Service nobody: false Invalid"]);
    assert!(service(&index, "cart-v2").traffic.is_none());
}

#[test]
fn sessions_of_a_rule_win_over_those_of_its_backends() {
    let own = "{sessionPersistence: {sessionName: own}, backendRefs: [{name: cart-v2, port: 80}]}";
    let rules = format!("[{{backendRefs: [{{name: cart-v2, port: 80}}, {{name: cart, port: 80}}]}}, {own}]");
    let text = SHOP.to_owned() + &route("r", CART, &rules);
    let (mut index, _) = index(&text);
    assert_eq!(rule(&index, 0).sessions, Sessions::None);
    objects(&policy("p", 1, WEB, "sessionPersistence: {sessionName: theirs}")).into_iter().for_each(|o| index.apply(o));
    index.commit();
    let name = |session: &SessionPersistence| format!("{:?}", session.carrier);
    let Sessions::OfBackends(each) = rule(&index, 0).sessions else { panic!("{:?}", rule(&index, 0)) };
    assert_eq!(each.len(), 2);
    assert!(name(each[0].as_ref().unwrap()).contains("theirs") && each[1].is_none());
    let Sessions::OfRule(session) = rule(&index, 1).sessions else { panic!("{:?}", rule(&index, 1)) };
    assert!(name(&session).contains("own"));
    // Rules share no sessions, not even those of one Service (GEP-1619).
    let direct = service(&index, "cart-v2").traffic.clone().unwrap().session.unwrap();
    assert!(direct.key != each[0].as_ref().unwrap().key && name(&direct).contains("theirs"));
    index.delete(&ObjectRef::new(Kind::BackendTrafficPolicy, "shop", "p"));
    index.commit();
    assert_eq!(rule(&index, 0).sessions, Sessions::None);
}

#[test]
fn sessions_outlast_edits_and_not_their_object() {
    let with = |uid: &str, rules: &str| {
        let text = SHOP.to_owned() + &route("r", CART, rules).replace("generation: 3", &format!("uid: {uid}"));
        match rule(&index(&text).0, 0).sessions {
            Sessions::OfRule(session) => *session,
            other => panic!("{other:?}"),
        }
    };
    let rules = "[{sessionPersistence: {}, backendRefs: [{name: cart-v2, port: 80}]}]";
    let edited = "[{sessionPersistence: {}, backendRefs: [{name: cart-v2, port: 80}, {name: cart, port: 80}]}]";
    let first = with("u-1", rules);
    assert_eq!(first, with("u-1", edited));
    assert_ne!(first.key, with("u-2", rules).key);
    assert_ne!(first.carrier, with("u-2", rules).carrier, "nobody else's name");
}

#[test]
fn a_rule_with_sessions_to_a_service_with_affinity_is_refused() {
    let affine = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: affine, namespace: shop}\n\
                  spec: {clusterIP: 10.96.0.20, sessionAffinity: ClientIP, ports: [{port: 80}]}";
    let rules = "[{sessionPersistence: {}, backendRefs: [{name: affine, port: 80}]}]";
    let (index, _) = index(&(SHOP.to_owned() + affine + &route("r", CART, rules)));
    let HttpAction::Invalid(why) = rule(&index, 0).action else { panic!("{:?}", rule(&index, 0)) };
    assert!(why.contains("spec.rules[0].sessionPersistence: Service shop/affine has sessionAffinity"), "{why}");
    let status = index.status(&ObjectRef::new(Kind::HttpRoute, "shop", "r"));
    assert!(format!("{status:?}").contains("UnsupportedValue"), "{status:?}");
}

#[test]
fn a_grpc_rule_has_sessions_too() {
    let svc = "{group: '', kind: Service, name: cart, port: 7070}";
    let text = route(
        "g",
        svc,
        "[{sessionPersistence: {type: Header, sessionName: x-s}, backendRefs: [{name: cart-v2, port: 80}]}]",
    );
    let (index, _) = index(&(SHOP.to_owned() + &text.replace("HTTPRoute", "GRPCRoute")));
    assert!(matches!(rule(&index, 0).sessions, Sessions::OfRule(_)));
}
