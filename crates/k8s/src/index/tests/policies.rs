//! Policies: scopes, statuses, and that a broken one denies.

use super::*;
use weft_core::policy::{Action, AuthorizationPolicy, AuthorizationRule, Mode, Scope};

fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn mesh_policy(name: &str, namespace: &str, created: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: {name}, namespace: {namespace}, \
         creationTimestamp: '{created}'}}\nspec: {{{spec}}}\n"
    )
}

fn authorization(index: &Index) -> AuthorizationPolicy {
    let found = index.resources().find_map(|r| match r {
        Resource::Authorization(p) => Some((**p).clone()),
        _ => None,
    });
    found.expect("no policy")
}

fn selected_by(index: &Index, pod: &str) -> Vec<String> {
    let found = index.resources().find_map(|r| match r {
        Resource::Workload(w) if w.name.as_str() == pod => Some(w.policies.iter().map(ToString::to_string).collect()),
        _ => None,
    });
    found.expect("no workload")
}

fn reasons(out: &Output) -> Vec<String> {
    let mut found = Vec::new();
    for update in &out.statuses {
        let ObjectStatus::Ancestors(ancestors) = &update.status else { continue };
        for c in ancestors.iter().flat_map(|a| &a.conditions) {
            found.push(format!("{:?}={}/{}", c.kind, c.status, c.reason));
        }
    }
    found
}

const ALLOW: &str = "action: ALLOW, rules: [{from: [{namespaces: [shop]}]}]";

#[test]
fn scopes() {
    let target = |t: &str| format!("targetRefs: [{t}], {ALLOW}");
    let shop = Scope::Namespace("shop".into());
    for (namespace, spec, scope, selected, reason) in [
        ("shop", ALLOW.to_owned(), shop.clone(), false, "Accepted=true/Accepted"),
        ("weft-system", ALLOW.to_owned(), Scope::Mesh, false, "Accepted=true/Accepted"),
        ("shop", target("{kind: Namespace, name: shop}"), shop.clone(), false, "Accepted=true/Accepted"),
        ("weft-system", target("{kind: Namespace, name: shop}"), shop.clone(), false, "Accepted=true/Accepted"),
        (
            "weft-system",
            target("{kind: Namespace, name: none}"),
            Scope::Namespace("none".into()),
            false,
            "Accepted=false/TargetNotFound",
        ),
        ("shop", target("{kind: Service, name: cart}"), Scope::Selected, true, "Accepted=true/Accepted"),
        ("shop", target("{kind: Service, name: nobody}"), Scope::Selected, false, "Accepted=false/TargetNotFound"),
        ("shop", target("{kind: Service, name: cart-v2}"), Scope::Selected, false, "Accepted=false/TargetNotFound"),
        (
            "shop",
            target("{kind: Pod, selector: {matchLabels: {app: cart}}}"),
            Scope::Selected,
            true,
            "Accepted=true/Accepted",
        ),
        (
            "shop",
            target("{kind: Pod, selector: {matchLabels: {app: other}}}"),
            Scope::Selected,
            false,
            "Accepted=true/Accepted",
        ),
        (
            "money",
            target("{kind: Pod, selector: {matchLabels: {app: cart}}}"),
            Scope::Selected,
            false,
            "Accepted=true/Accepted",
        ),
        (
            "weft-system",
            target("{kind: Pod, selector: {matchLabels: {app: cart}}}"),
            Scope::Selected,
            true,
            "Accepted=true/Accepted",
        ),
        (
            "shop",
            target("{kind: Pod, selector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}"),
            Scope::Selected,
            true,
            "Accepted=true/Accepted",
        ),
    ] {
        let (index, out) = index(&(SHOP.to_owned() + &policy(namespace, &spec)));
        let made = authorization(&index);
        assert_eq!(made.scope, scope, "{spec}");
        assert_eq!(made.action, Action::Allow, "{spec}");
        assert_eq!(!selected_by(&index, "cart-1").is_empty(), selected, "{spec}");
        assert_eq!(reasons(&out), [reason], "{spec}");
    }
}

/// A pod of another namespace that has the labels of the shop's.
const PAY: &str = "
---
apiVersion: v1
kind: Namespace
metadata: {name: pay, labels: {weftmesh.io/mesh: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: pay-1, namespace: pay, labels: {app: cart}}
spec: {nodeName: n1, serviceAccountName: pay, containers: []}
status: {phase: Running, podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}]}
";

/// Pods of this namespace (none: left out) and label, as a target.
fn pods(namespace: Option<&str>, app: &str) -> String {
    let namespace = namespace.map(|name| format!("namespace: '{name}', ")).unwrap_or_default();
    format!("targetRefs: [{{kind: Pod, {namespace}selector: {{matchLabels: {{app: {app}}}}}}}]")
}

#[test]
fn pods_of_a_target_are_those_of_the_namespace_that_it_names() {
    for (of, named, app, shop, pay, reason) in [
        ("weft-system", None, "cart", true, true, "Accepted=true/Accepted"),
        ("weft-system", Some("shop"), "cart", true, false, "Accepted=true/Accepted"),
        ("weft-system", Some("pay"), "cart", false, true, "Accepted=true/Accepted"),
        ("weft-system", Some("shop"), "web", false, false, "Accepted=true/Accepted"),
        ("weft-system", Some("none"), "cart", false, false, "Accepted=false/TargetNotFound"),
        ("weft-system", Some("weft-system"), "cart", false, false, "Accepted=true/Accepted"),
        ("shop", None, "cart", true, false, "Accepted=true/Accepted"),
        ("shop", Some("shop"), "cart", true, false, "Accepted=true/Accepted"),
        // Theirs to write, but not where they reach for.
        ("shop", Some("pay"), "cart", false, false, "Accepted=false/Invalid"),
        ("weft-system", Some(""), "cart", false, false, "Accepted=false/Invalid"),
    ] {
        let place = format!("{named:?} {app} by a policy of {of}");
        let spec = format!("{}, {ALLOW}", pods(named, app));
        let (index, out) = index(&(SHOP.to_owned() + PAY + &policy(of, &spec)));
        let selected = ["cart-1", "pay-1"].map(|pod| !selected_by(&index, pod).is_empty());
        assert_eq!(selected, [shop, pay], "{place}");
        assert_eq!(reasons(&out), [reason], "{place}");
        let made = authorization(&index);
        let problems = index.problems(&ObjectRef::new(Kind::AuthorizationPolicy, of, "p"));
        if reason == "Accepted=true/Accepted" {
            assert_eq!((made.scope, problems.len()), (Scope::Selected, 0), "{place}: {problems:?}");
            continue;
        }
        let [problem] = problems else { panic!("{place}: {problems:?}") };
        assert_eq!(problem.field, "spec.targetRefs[0].namespace", "{place}");
        if reason.ends_with("Invalid") {
            assert_eq!((made.action, made.rules), (Action::Deny, vec![AuthorizationRule::default()]), "{place}");
            let own = if of == "shop" { Scope::Namespace("shop".into()) } else { Scope::Mesh };
            assert_eq!(made.scope, own, "{place}");
        }
    }
}

#[test]
fn what_is_no_pod_takes_no_namespace() {
    for target in ["kind: Namespace, name: shop", "kind: Service, name: cart"] {
        let spec = format!("targetRefs: [{{{target}, namespace: shop}}], {ALLOW}");
        let (index, out) = index(&(SHOP.to_owned() + &policy("shop", &spec)));
        assert_eq!(reasons(&out), ["Accepted=false/Invalid"], "{target}");
        let problems = index.problems(&ObjectRef::new(Kind::AuthorizationPolicy, "shop", "p"));
        let said = problems.iter().any(|p| p.field == "spec.targetRefs[0].namespace" && !p.remedy.is_empty());
        assert!(said, "{target}: {problems:?}");
    }
}

/// The mode of a pod's port by all that was made.
fn mode_of(index: &Index, namespace: &str, pod: &str, port: u16) -> Mode {
    let listed = selected_by(index, pod);
    let made = index.resources().filter_map(|r| match r {
        Resource::MeshPolicy(p) => Some(&**p),
        _ => None,
    });
    let there = made.filter(|p| match &p.scope {
        Scope::Mesh => true,
        Scope::Namespace(ns) => ns.as_str() == namespace,
        Scope::Selected => listed.contains(&p.key.to_string()),
    });
    weft_core::authorize::effective_mode(there, Port::new(port).unwrap())
}

/// One port of one team's pods, and nobody else's pods by giving them the same labels.
#[test]
fn an_exception_from_what_is_enforced_is_for_the_pods_of_the_namespace_that_it_names() {
    let strict = mesh_policy("strict", "weft-system", "2026-01-01T00:00:00Z", "mode: Strict, enforced: true");
    let open = "portModes: [{port: 8080, mode: Permissive}]";
    let modes = |by: &str, named: &str, enforced: &str| {
        let spec = format!("{}{enforced}, {open}", pods(Some(named), "cart"));
        let exception = mesh_policy("e", by, "2026-02-01T00:00:00Z", &spec);
        let (index, _) = index(&(SHOP.to_owned() + PAY + &strict + &exception));
        [("shop", "cart-1", 8080), ("shop", "cart-1", 9090), ("pay", "pay-1", 8080)]
            .map(|(namespace, pod, port)| mode_of(&index, namespace, pod, port))
    };
    use Mode::{Permissive, Strict};
    assert_eq!(modes("weft-system", "shop", ", enforced: true"), [Permissive, Strict, Strict]);
    assert_eq!(modes("weft-system", "pay", ", enforced: true"), [Strict, Strict, Permissive]);
    assert_eq!(modes("weft-system", "shop", ""), [Strict; 3], "an exception is enforced, too");
    assert_eq!(modes("pay", "shop", ""), [Strict; 3], "a developer opens nobody's");
    assert_eq!(modes("pay", "shop", ", enforced: true"), [Strict; 3], "whatever he says");
}

/// What can't be understood denies everything in its scope, and says so.
#[test]
fn a_broken_policy_denies() {
    let rule = |r: &str| format!("action: ALLOW, rules: [{{{r}}}]");
    for (spec, field) in [
        (rule("from: []"), "spec.rules[0].from"),
        (rule("from: [{}]"), "spec.rules[0].from[0]"),
        (rule("to: [{}]"), "spec.rules[0].to[0]"),
        (rule("from: [{namespaces: []}]"), "spec.rules[0].from[0].namespaces"),
        (rule("from: [{identities: ['a*b']}]"), "spec.rules[0].from[0].identities[0]"),
        (rule("from: [{identities: ['https://a']}]"), "spec.rules[0].from[0].identities[0]"),
        (rule("from: [{addresses: [10.0.0.0/33]}]"), "spec.rules[0].from[0].addresses[0]"),
        (rule("to: [{ports: [0]}]"), "spec.rules[0].to[0].ports[0]"),
        (rule("to: [{methods: [get]}]"), "spec.rules[0].to[0].methods[0]"),
        (rule("to: [{paths: [admin]}]"), "spec.rules[0].to[0].paths[0]"),
        (rule("to: [{hosts: ['a:80']}]"), "spec.rules[0].to[0].hosts[0]"),
        (rule("to: [{headers: [{name: 'a b'}]}]"), "spec.rules[0].to[0].headers[0].name"),
        ("action: DENY, targetRefs: [{kind: Deployment, name: a}]".into(), "spec.targetRefs[0].kind"),
        ("action: DENY, targetRefs: [{kind: Namespace, name: money}]".into(), "spec.targetRefs[0].name"),
        ("action: DENY, targetRefs: [{kind: Pod}]".into(), "spec.targetRefs[0].selector"),
        ("action: DENY, targetRefs: []".into(), "spec.targetRefs"),
    ] {
        let (index, out) = index(&(SHOP.to_owned() + &policy("shop", &spec)));
        let made = authorization(&index);
        assert_eq!(made.action, Action::Deny, "{spec}");
        assert_eq!(made.rules, [AuthorizationRule::default()], "{spec}: a rule without conditions matches everything");
        assert_eq!(made.scope, Scope::Namespace("shop".into()), "{spec}");
        assert_eq!(reasons(&out), ["Accepted=false/Invalid"], "{spec}");
        let problems = index.problems(&ObjectRef::new(Kind::AuthorizationPolicy, "shop", "p"));
        assert!(problems.iter().any(|p| p.field == field && !p.remedy.is_empty()), "{spec}: {problems:?}");
    }
}

#[test]
fn a_broken_policy_that_only_audits_decides_nothing() {
    let (index, _) = index(&(SHOP.to_owned() + &policy("shop", "action: AUDIT, rules: [{from: [{}]}]")));
    assert_eq!((authorization(&index).action, authorization(&index).rules.len()), (Action::Audit, 0));
    let dry = policy("shop", "action: ALLOW, mode: Audit, rules: [{from: [{}]}]");
    let (index, _) = super::index(&(SHOP.to_owned() + &dry));
    assert!(authorization(&index).dry_run);
}

#[test]
fn rules_read_as_they_are_meant() {
    let spec = "action: ALLOW, rules: [{from: [{identities: [cluster.local/ns/a/sa/b, 'spiffe://x/ns/*'], addresses: [10.1.2.3]}], \
                to: [{hosts: [Shop.Example.Com], headers: [{name: X-User}]}]}]";
    let (index, _) = index(&(SHOP.to_owned() + &policy("shop", spec)));
    let made = authorization(&index);
    let rule = &made.rules[0];
    assert!(rule.from[0].identities[0].is_match("spiffe://cluster.local/ns/a/sa/b"));
    assert!(rule.from[0].identities[1].is_match("spiffe://x/ns/c/sa/d"));
    assert_eq!(rule.from[0].addresses[0].to_string(), "10.1.2.3/32");
    assert!(rule.to[0].hosts[0].is_match("shop.example.com"));
    assert_eq!(rule.to[0].headers[0].name, "x-user");
}

#[test]
fn http_conditions_on_a_port_that_carries_none_are_said() {
    let spec = |port: &str| format!("action: DENY, rules: [{{to: [{{ports: [{port}], paths: [/admin]}}]}}]");
    let with = |port: &str| reasons(&index(&(SHOP.to_owned() + &policy("shop", &spec(port)))).1);
    assert_eq!(with("8443"), ["Accepted=true/Accepted", "PartiallyEnforced=true/UnsupportedProtocol"]);
    assert_eq!(with("8080"), ["Accepted=true/Accepted"]);
}

#[test]
fn a_service_that_changes_its_selector_moves_its_policies() {
    let spec = format!("targetRefs: [{{kind: Service, name: cart}}], {ALLOW}");
    let (mut index, _) = index(&(SHOP.to_owned() + &policy("shop", &spec)));
    assert_eq!(selected_by(&index, "cart-1"), ["shop/p"]);
    objects(&SHOP.replace("selector: {app: cart}", "selector: {app: new}")).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert!(selected_by(&index, "cart-1").is_empty());
    objects(SHOP).into_iter().for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(selected_by(&index, "cart-1"), ["shop/p"]);
    index.delete(&ObjectRef::new(Kind::AuthorizationPolicy, "shop", "p"));
    let out = index.commit();
    assert!(selected_by(&index, "cart-1").is_empty());
    assert!(matches!(out.changes.last(), Some(Change::Remove(ResourceKey::Authorization(_)))));
}

#[test]
fn of_two_mesh_policies_for_the_same_the_older_is_in_force() {
    let old = mesh_policy("z", "shop", "2026-01-01T00:00:00Z", "mode: Strict");
    let new = mesh_policy("a", "shop", "2026-02-01T00:00:00Z", "mode: Permissive");
    let (mut index, out) = index(&(SHOP.to_owned() + &new + &old));
    let modes = |index: &Index| -> Vec<Option<Mode>> {
        let modes = index.resources().filter_map(|r| match r {
            Resource::MeshPolicy(p) => Some(p.mode),
            _ => None,
        });
        modes.collect()
    };
    assert_eq!(modes(&index), [Some(Mode::Strict)]);
    assert_eq!(reasons(&out), ["Accepted=false/Conflicted", "Accepted=true/Accepted"]);
    index.delete(&ObjectRef::new(Kind::MeshPolicy, "shop", "z"));
    let out = index.commit();
    assert_eq!(modes(&index), [Some(Mode::Permissive)]);
    assert_eq!(reasons(&out), ["Accepted=true/Accepted"]);
}

/// Whoever wrote first doesn't keep the operator's away, and what only looks like the operator's is Strict for its own.
#[test]
fn what_is_enforced_stands_beside_what_a_namespace_says() {
    let own = mesh_policy("open", "shop", "2026-01-01T00:00:00Z", "mode: Permissive");
    let root = |spec: &str| {
        let target = "targetRefs: [{kind: Namespace, name: shop}]";
        mesh_policy("all", "weft-system", "2026-02-01T00:00:00Z", &format!("{target}, {spec}"))
    };
    let made = |text: &str| -> Vec<(String, Option<Mode>, bool)> {
        let (index, _) = index(&(SHOP.to_owned() + text));
        let found = index.resources().filter_map(|r| match r {
            Resource::MeshPolicy(p) => Some((p.key.to_string(), p.mode, p.enforced)),
            _ => None,
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    let open = ("shop/MeshPolicy:open".to_owned(), Some(Mode::Permissive), false);
    let strict = ("weft-system/MeshPolicy:all".to_owned(), Some(Mode::Strict), true);
    assert_eq!(made(&(own.clone() + &root("mode: Strict, enforced: true"))), [open.clone(), strict.clone()]);
    let default = made(&(own.clone() + &root("mode: Strict")));
    assert_eq!(default, std::slice::from_ref(&open), "the older of two of one kind");
    assert_eq!(made(&(own.clone() + &root("enforced: true, limits: {maxConnections: 0}"))), [open, strict]);
    let (claimed, out) = index(
        &(SHOP.to_owned() + &mesh_policy("own", "shop", "2026-01-01T00:00:00Z", "mode: Permissive, enforced: true")),
    );
    assert_eq!(reasons(&out), ["Accepted=false/Invalid"]);
    let problems = claimed.problems(&ObjectRef::new(Kind::MeshPolicy, "shop", "own"));
    assert!(problems.iter().any(|p| p.field == "spec.enforced" && p.remedy.contains("weft-system")), "{problems:?}");
    let found = claimed.resources().find_map(|r| match r {
        Resource::MeshPolicy(p) => Some((p.mode, p.enforced)),
        _ => None,
    });
    assert_eq!(found, Some((Some(Mode::Strict), false)));
}

#[test]
fn a_broken_mesh_policy_is_strict() {
    for spec in [
        "portModes: [{port: 0, mode: Permissive}]",
        "limits: {maxConnections: 0}",
        "targetRefs: [{kind: Service, name: cart}]",
    ] {
        let (index, out) = index(&(SHOP.to_owned() + &mesh_policy("m", "shop", "2026-01-01T00:00:00Z", spec)));
        let found = index.resources().find_map(|r| match r {
            Resource::MeshPolicy(p) => Some(p.mode),
            _ => None,
        });
        assert_eq!(found, Some(Some(Mode::Strict)), "{spec}");
        assert_eq!(reasons(&out), ["Accepted=false/Invalid"], "{spec}");
    }
}

#[test]
fn policies_of_one_name_but_two_kinds_do_not_mix() {
    let authz =
        policy("shop", &format!("targetRefs: [{{kind: Pod, selector: {{matchLabels: {{app: cart}}}}}}], {ALLOW}"));
    let mesh = mesh_policy(
        "p",
        "shop",
        "2026-01-01T00:00:00Z",
        "targetRefs: [{kind: Pod, selector: {matchLabels: {app: web}}}], mode: Strict",
    );
    let (index, _) = index(&(SHOP.to_owned() + &authz + &mesh));
    assert_eq!(selected_by(&index, "cart-1"), ["shop/p"]);
    let key = index.resources().find_map(|r| match r {
        Resource::MeshPolicy(p) => Some(p.key.to_string()),
        _ => None,
    });
    assert_eq!(key.as_deref(), Some("shop/MeshPolicy:p"));
}
