//! AuthorizationPolicies at Gateways: which listeners get which, and what the statuses say.

use weft_core::policy::{Action, AuthorizationPolicy, Scope};

use super::*;

fn policy(targets: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: edge, generation: 4}}\n\
         spec: {{targetRefs: [{targets}], {spec}}}\n"
    )
}

fn target(kind: &str, name: &str, section: &str) -> String {
    let section = if section.is_empty() { String::new() } else { format!(", sectionName: {section}") };
    format!("{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}{section}}}")
}

fn set(name: &str, listeners: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {{name: {name}, namespace: edge}}\n\
         spec: {{parentRef: {{name: gw}}, listeners: [{listeners}]}}\n"
    )
}

/// A Gateway of two listeners and a ListenerSet of one.
fn edge() -> String {
    let own = "listeners: [{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 90, protocol: TCP}], \
               allowedListeners: {namespaces: {from: Same}}";
    gateway_of("gw", own) + &set("more", "{name: http, port: 81, protocol: HTTP}")
}

/// The listeners that have the policy, by set and name.
fn guarded(index: &Index) -> Vec<String> {
    let mut all: Vec<_> = served(index)
        .into_iter()
        .filter(|listener| !listener.policies.is_empty())
        .map(|listener| {
            assert_eq!(listener.policies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["edge/p"]);
            let set = listener.key.set.map(|set| format!("{}/", set.name)).unwrap_or_default();
            format!("{set}{}", listener.key.name)
        })
        .collect();
    all.sort();
    all
}

fn made(index: &Index) -> AuthorizationPolicy {
    let found = index.resources().find_map(|resource| match resource {
        Resource::Authorization(policy) => Some((**policy).clone()),
        _ => None,
    });
    found.unwrap()
}

/// The conditions of each ancestor, with their messages.
fn told(index: &Index) -> Vec<Vec<(String, String)>> {
    let reference = ObjectRef::new(Kind::AuthorizationPolicy, "edge", "p");
    let Some((4, ObjectStatus::Ancestors(ancestors))) = index.status(&reference) else { panic!() };
    let show = |c: &Condition| (format!("{:?}={}/{}", c.kind, c.status, c.reason), c.message.clone());
    ancestors.iter().map(|ancestor| ancestor.conditions.iter().map(show).collect()).collect()
}

const DENY: &str = "action: DENY, rules: [{from: [{addresses: [192.0.2.0/24]}]}]";

#[test]
fn a_policy_is_listed_by_the_listeners_that_it_names() {
    for (kind, name, section, want, reason) in [
        ("Gateway", "gw", "", &["http", "more/http", "tcp"][..], "Accepted=true/Accepted"),
        ("Gateway", "gw", "http", &["http"], "Accepted=true/Accepted"),
        ("Gateway", "gw", "https", &[], "Accepted=false/TargetNotFound"),
        ("Gateway", "other", "", &[], "Accepted=false/TargetNotFound"),
        ("ListenerSet", "more", "", &["more/http"], "Accepted=true/Accepted"),
        ("ListenerSet", "more", "http", &["more/http"], "Accepted=true/Accepted"),
        ("ListenerSet", "more", "tcp", &[], "Accepted=false/TargetNotFound"),
        ("ListenerSet", "less", "", &[], "Accepted=false/TargetNotFound"),
    ] {
        let (index, _) = serve(&(edge() + &policy(&target(kind, name, section), DENY)));
        assert_eq!(guarded(&index), want, "{kind} {name} {section}");
        let told = told(&index);
        assert_eq!((told.len(), told[0].len()), (1, 1));
        assert_eq!(told[0][0].0, reason, "{told:?}");
        let policy = made(&index);
        assert_eq!((policy.scope, policy.action), (Scope::Selected, Action::Deny), "no pod has it");
    }
}

#[test]
fn what_comes_later_is_guarded_from_its_first_moment_and_nothing_is_guarded_for_longer() {
    let (mut index, _) = serve(&policy(&target("Gateway", "gw", ""), DENY));
    assert_eq!(told(&index)[0][0].0, "Accepted=false/TargetNotFound");
    let apply = |index: &mut Index, text: &str| {
        objects(text).into_iter().for_each(|object| index.apply(object));
        index.commit()
    };
    apply(&mut index, &edge());
    assert_eq!(guarded(&index), ["http", "more/http", "tcp"]);
    assert_eq!(told(&index)[0][0].0, "Accepted=true/Accepted");
    // Its rules change: the listeners stay as they are.
    let out = apply(&mut index, &policy(&target("Gateway", "gw", ""), "action: ALLOW, rules: [{}]"));
    assert!(matches!(&out.changes[..], [weft_core::change::Change::Upsert(Resource::Authorization(_))]), "{out:?}");
    apply(&mut index, &policy(&target("Gateway", "gw", "tcp"), DENY));
    assert_eq!(guarded(&index), ["tcp"]);
    index.delete(&ObjectRef::new(Kind::AuthorizationPolicy, "edge", "p"));
    let out = index.commit();
    assert!(guarded(&index).is_empty() && index.commit().is_empty());
    // A listener never names a policy that isn't there.
    let last = out.changes.last().unwrap();
    assert!(matches!(last, weft_core::change::Change::Remove(ResourceKey::Authorization(_))), "{out:?}");
    index.delete(&ObjectRef::new(Kind::Gateway, "edge", "gw"));
    index.commit();
}

#[test]
fn a_policy_that_cant_be_understood_denies_at_the_gateway() {
    let (index, _) =
        serve(&(edge() + &policy(&target("Gateway", "gw", ""), "action: ALLOW, rules: [{to: [{paths: [x]}]}]")));
    let policy_made = made(&index);
    assert_eq!((policy_made.action, policy_made.rules.len()), (Action::Deny, 1));
    assert_eq!(guarded(&index).len(), 3);
    assert_eq!(told(&index)[0][0].0, "Accepted=false/Invalid");
    for wrong in [
        "{group: '', kind: Gateway, name: gw}",
        "{group: gateway.networking.k8s.io, kind: Gateway}",
        "{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: ''}",
        "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}",
        "{kind: Namespace, name: edge, sectionName: http}",
    ] {
        let both = format!("{}, {wrong}", target("Gateway", "gw", "http"));
        let (index, _) = serve(&(edge() + &policy(&both, DENY)));
        let policy = made(&index);
        assert_eq!((policy.scope, policy.action), (Scope::Namespace("edge".into()), Action::Deny), "{wrong}");
        // What is understood is guarded too, and all of a Gateway that is named in a way that isn't.
        let guarded = guarded(&index);
        assert!(guarded == ["http"] || (guarded.len() == 3 && wrong.contains("name: gw")), "{wrong}: {guarded:?}");
        assert!(told(&index).iter().all(|of| of[0].0 == "Accepted=false/Invalid"), "{wrong}");
    }
}

#[test]
fn a_gateway_that_is_named_wrongly_is_guarded_all_the_same() {
    for wrong in [
        "{group: '', kind: Gateway, name: gw}",
        "{kind: Gateway, name: gw}",
        "{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: ''}",
        "{group: gateway.networking.k8s.io, kind: gateway, name: gw}",
    ] {
        let (index, _) = serve(&(edge() + &policy(wrong, "action: ALLOW, rules: [{}]")));
        assert_eq!(made(&index).action, Action::Deny, "{wrong}");
        assert_eq!(guarded(&index).len(), 3, "{wrong}");
        assert!(told(&index).iter().all(|of| of[0].0 == "Accepted=false/Invalid"), "{wrong}");
    }
}

#[test]
fn what_cant_be_judged_is_said() {
    let about_http = "action: ALLOW, rules: [{to: [{paths: [/a]}]}]";
    let (index, _) = serve(&(edge() + &policy(&target("Gateway", "gw", ""), about_http)));
    let told_of = told(&index);
    assert_eq!(told_of[0][1].0, "PartiallyEnforced=true/UnsupportedProtocol");
    let message = &told_of[0][1].1;
    assert!(message.contains("tcp (TCP)") && message.contains("nothing there is allowed"), "{message}");
    let (index, _) = serve(&(edge() + &policy(&target("Gateway", "gw", "http"), about_http)));
    assert_eq!(told(&index)[0].len(), 1);
    let by_identity = "action: DENY, rules: [{from: [{namespaces: [shop]}]}]";
    let (index, _) = serve(&(edge() + &policy(&target("Gateway", "gw", "http"), by_identity)));
    assert!(told(&index)[0][1].1.contains("no identity"), "{:?}", told(&index));
}

#[test]
fn a_mesh_policy_has_no_gateways_for_targets() {
    let text = "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: MeshPolicy\nmetadata: {name: m, namespace: edge}\n\
                spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}], mode: Permissive}\n";
    let (index, _) = serve(&(edge() + text));
    let problems: Vec<_> = index.all_problems().map(|(_, problem)| problem.to_string()).collect();
    assert!(problems.iter().any(|it| it.starts_with("spec.targetRefs[0].")), "{problems:?}");
}

#[test]
fn a_policy_at_pods_and_gateways_is_at_both() {
    let both = format!("{}, {{kind: Pod, selector: {{matchLabels: {{app: x}}}}}}", target("Gateway", "gw", "http"));
    let pod = "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: edge, labels: {app: x}}\n\
               spec: {nodeName: n1, containers: []}\nstatus: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}\n";
    let (index, _) = serve(&(edge() + pod + &policy(&both, DENY)));
    assert_eq!(guarded(&index), ["http"]);
    let selected = index.resources().any(|resource| matches!(resource, Resource::Workload(w) if w.policies.len() == 1));
    assert!(selected && told(&index).len() == 2);
}

/// Else a thousand teams with a policy each cost a million looks for every edit.
#[test]
fn an_edit_looks_at_the_policies_and_listeners_of_its_own_holder() {
    let named =
        |name: &str, target: &str, spec: &str| policy(target, spec).replace("{name: p,", &format!("{{name: {name},"));
    let of_set = |n: u16| set(&format!("set-{n}"), &format!("{{name: http, port: {}, protocol: HTTP}}", 8000 + n));
    let own = format!("listeners: [{HTTP}], allowedListeners: {{namespaces: {{from: Same}}}}");
    let mut text = gateway_of("gw", &own) + &gateway_of("other", "listeners: [{name: http, port: 90, protocol: HTTP}]");
    text += &(named("g", &target("Gateway", "gw", ""), DENY) + &named("o", &target("Gateway", "other", ""), DENY));
    for n in 0..10 {
        text += &(of_set(n) + &named(&format!("s{n}"), &target("ListenerSet", &format!("set-{n}"), ""), DENY));
    }
    let (mut index, _) = serve(&text);
    let edit = |index: &mut Index, text: &str| {
        let before = index.gateway_policies.made;
        let objects = if text.is_empty() { Vec::new() } else { objects(text) };
        objects.into_iter().for_each(|object| index.apply(object));
        let out = index.commit();
        let listener = |change: &Change| match change {
            Change::Upsert(Resource::Listener(it)) => {
                Some(it.key.set.as_ref().map_or("gw", |set| set.name.as_str()).to_owned())
            }
            _ => None,
        };
        (index.gateway_policies.made - before, out.changes.iter().filter_map(listener).collect::<Vec<_>>())
    };
    let third = target("ListenerSet", "set-3", "");
    assert_eq!(edit(&mut index, &named("s3", &third, "action: ALLOW, rules: [{}]")), (1, vec![]));
    let fourth = target("ListenerSet", "set-4", "");
    let moved = vec!["set-3".to_owned(), "set-4".to_owned()];
    assert_eq!(edit(&mut index, &named("s3", &fourth, "action: ALLOW, rules: [{}]")), (1, moved));
    // Its own policy, and that of the Gateway, may judge it in another way now.
    let bytes = set("set-5", "{name: tcp, port: 8005, protocol: TCP}");
    assert_eq!(edit(&mut index, &bytes), (2, vec!["set-5".to_owned()]));
    index.delete(&ObjectRef::new(Kind::ListenerSet, "edge", "set-6"));
    assert_eq!(edit(&mut index, ""), (2, vec![]));
    let reference = ObjectRef::new(Kind::AuthorizationPolicy, "edge", "s6");
    let Some((_, ObjectStatus::Ancestors(ancestors))) = index.status(&reference) else { panic!() };
    assert_eq!(ancestors[0].conditions[0].reason, "TargetNotFound");
}
