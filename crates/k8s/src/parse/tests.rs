//! Bad input: each says which object and field, what is wrong and what to do.

use super::*;
use crate::object::Kind;

const ROUTE: &str =
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: r\n  namespace: shop\nspec:\n";

fn check(text: &str) -> Vec<Finding> {
    validate(&[("f.yaml".into(), text.into())], IndexConfig::default())
}

/// The only finding of at least a warning has this line, object, field, and these words in message and remedy.
#[expect(clippy::too_many_arguments, reason = "each is a column of the tables below")]
fn says(text: &str, line: usize, object: Option<&str>, field: &str, message: &str, remedy: &str) {
    let all = check(text);
    let found: Vec<_> = all.iter().filter(|f| f.severity != Severity::Note).collect();
    let matching = found.iter().any(|f| {
        f.line == line
            && f.object.as_deref() == object
            && f.field == field
            && f.message.contains(message)
            && f.remedy.contains(remedy)
    });
    assert!(matching, "{text}\nwanted {line} {object:?} {field}: {message}; {remedy}\n{found:#?}");
}

#[test]
fn malformed_yaml() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a\nspec: [";
    let parsed = parse("f.yaml", text);
    assert!(parsed.broken);
    assert!(parsed.findings[0].message.contains("not valid YAML"), "{:?}", parsed.findings);
    assert!(parsed.findings[0].line >= 3);
}

#[test]
fn kinds_and_versions() {
    let r = Some("HTTPRoute shop/r");
    says(
        &ROUTE.replace("HTTPRoute", "HTTPRout"),
        2,
        Some("HTTPRout shop/r"),
        "kind",
        "no kind",
        "did you mean HTTPRoute?",
    );
    says(
        &ROUTE.replace("io/v1", "io/v1alpha2"),
        1,
        r,
        "apiVersion",
        "not gateway.networking.k8s.io/v1alpha2",
        "write apiVersion: gateway.networking.k8s.io/v1",
    );
    says(
        &ROUTE.replace("io/v1", "io/v1beta1"),
        1,
        r,
        "apiVersion",
        "old version with the same fields",
        "gateway.networking.k8s.io/v1",
    );
    says(
        &ROUTE.replace("gateway.networking.k8s.io/v1", "v1"),
        1,
        r,
        "apiVersion",
        "not a kind of v1",
        "gateway.networking.k8s.io/v1",
    );
    says(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}",
        1,
        Some("VirtualService a"),
        "",
        "not read by Weft",
        "",
    );
    says("kind: Service\nmetadata: {name: a}", 1, None, "", "no apiVersion and kind", "");
    says("- a\n- b", 1, None, "", "not a Kubernetes object", "");
    let tcp = "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: t}";
    says(
        tcp,
        1,
        Some("TCPRoute t"),
        "apiVersion",
        "is read in version",
        "write apiVersion: gateway.networking.k8s.io/v1",
    );
    let note = check("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {nonsense: 1}");
    assert!(matches!(&note[..], [f] if f.severity == Severity::Note), "{note:?}");
}

#[test]
fn names() {
    let r = ROUTE.replace("  name: r\n", "");
    says(&r, 3, Some("HTTPRoute shop/"), "metadata.name", "is missing", "name the object");
    says(
        &ROUTE.replace("name: r", "name: R_1"),
        4,
        Some("HTTPRoute shop/R_1"),
        "metadata.name",
        "not a name",
        "lower-case",
    );
    let cluster = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  namespace: b";
    says(cluster, 5, Some("Namespace a"), "metadata.namespace", "has no namespace", "remove it");
}

#[test]
fn unknown_fields_and_wrong_types() {
    let r = Some("HTTPRoute shop/r");
    says(&format!("{ROUTE}  parentRef: []\n"), 7, r, "spec.parentRef", "unknown field", "did you mean \"parentRefs\"?");
    let deep = format!("{ROUTE}  rules:\n  - backendRefs:\n    - name: a\n      wight: 1\n");
    says(&deep, 10, r, "spec.rules[0].backendRefs[0].wight", "unknown field", "did you mean \"weight\"?");
    says(&format!("{ROUTE}  rules: 7\n"), 7, r, "spec.rules", "invalid type: integer", "");
    says(
        &format!("{ROUTE}  rules:\n  - backendRefs:\n    - name: a\n      port: http\n"),
        10,
        r,
        "spec.rules[0].backendRefs[0].port",
        "invalid type: string \"http\"",
        "",
    );
    says(
        &format!("{ROUTE}  rules: []\n  rules: []\n"),
        8,
        r,
        "rules",
        "is there twice; the first is at line 7",
        "remove one",
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  prots: [{port: 1}]\n";
    says(service, 5, Some("Service default/a"), "spec.prots", "unknown field", "did you mean \"ports\"?");
    let status = format!("{ROUTE}  rules: []\nstatus: {{whatever: 1}}\n");
    assert!(!check(&status).iter().any(|f| f.field.starts_with("status")), "a status is not the user's to write");
}

#[test]
fn semantic_findings_have_lines_too() {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n---\n{ROUTE}\
         \x20 parentRefs:\n  - {{group: '', kind: Service, name: cart}}\n  rules:\n  - matches:\n    - path:\n        type: RegularExpression\n        value: '('\n\
         \x20   backendRefs:\n    - name: nobody\n      port: 80\n    - {{name: x, namespace: other, port: 80}}\n"
    );
    let r = Some("HTTPRoute shop/r");
    says(&text, 18, r, "spec.rules[0].matches[0].path.value", "not a regular expression", "RE2");
    says(&text, 20, r, "spec.rules[0].backendRefs[0].name", "does not exist", "create it");
    says(
        &text,
        22,
        r,
        "spec.rules[0].backendRefs[1].namespace",
        "no ReferenceGrant",
        "create a ReferenceGrant in namespace other",
    );
    let hosts = format!(
        "{ROUTE}  parentRefs:\n  - {{group: '', kind: Service, name: cart}}\n  hostnames:\n  - Shop.Example\n  rules: []\n"
    );
    says(&hosts, 10, r, "spec.hostnames[0]", "not a hostname", "lower-case");
}

/// The manifests that people start from have nothing to be said against.
#[test]
fn every_kind_of_ours_is_read_without_a_word() {
    let api = "apiVersion: gateway.networking.k8s.io/v1\n";
    let spec = "metadata: {name: r, namespace: shop}\nspec: {parentRefs: [{name: gw}]";
    let mut text = String::new();
    for (kind, rest) in [
        ("HTTPRoute", ", rules: [{matches: [{path: {value: /}}]}]}"),
        ("GRPCRoute", ", rules: [{matches: [{method: {service: a.B}}]}]}"),
        ("TLSRoute", ", hostnames: [a.b], rules: [{}]}"),
        ("TCPRoute", ", rules: [{}]}"),
        ("UDPRoute", ", rules: [{}]}"),
    ] {
        text.push_str(&format!("---\n{api}kind: {kind}\n{spec}{rest}\n"));
    }
    text.push_str(&format!("---\n{api}kind: GatewayClass\nmetadata: {{name: weft}}\nspec: {{controllerName: weftmesh.io/gateway-controller}}\n"));
    text.push_str(&format!("---\n{api}kind: Gateway\nmetadata: {{name: gw, namespace: shop}}\nspec: {{gatewayClassName: weft, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}\n"));
    text.push_str("---\napiVersion: weftmesh.io/v1alpha1\nkind: MeshPolicy\nmetadata: {name: m, namespace: shop}\nspec: {mode: Strict}\n");
    text.push_str("---\napiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: m, namespace: shop}\nspec: {action: ALLOW}\n");
    text.push_str("---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: Opaque\nstringData: {a: b}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {a: b}\n");
    assert_eq!(check(&text), []);
    assert_eq!(parse("f", &text).objects.len(), 11);
}

#[test]
fn the_examples_have_nothing_wrong_with_them() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for example in std::fs::read_dir(root).expect("no examples").flatten().filter(|e| e.path().is_dir()) {
        let mut files: Vec<_> =
            std::fs::read_dir(example.path()).expect("unreadable").flatten().map(|e| e.path()).collect();
        files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        let read = |p: &std::path::PathBuf| (p.display().to_string(), std::fs::read_to_string(p).expect("unreadable"));
        let files: Vec<_> = files.iter().map(read).collect();
        let found = validate(&files, IndexConfig::default());
        assert!(found.iter().all(|f| f.severity == Severity::Note), "{found:#?}");
    }
}

#[test]
fn duplicates() {
    let text = format!("{ROUTE}  rules: []\n---\n{ROUTE}  rules: []\n");
    let found = check(&text);
    let twice = found.iter().find(|f| f.message.contains("already defined")).expect("no finding");
    assert_eq!((twice.field.as_str(), twice.line), ("metadata.name", 9));
    assert!(twice.message.contains("f.yaml at line 1"));
}

#[test]
fn a_policy_that_cannot_be_read_denies_and_keeps_its_targets() {
    use weft_core::change::Resource;
    let policy =
        "apiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n";
    for (spec, audits) in [
        ("  action: ALLOW\n  rules: [{form: [{namespaces: [a]}]}]\n", false),
        ("  action: PERMIT\n", false),
        ("  action: ALLOW\n  rules: 7\n", false),
        ("  action: AUDIT\n  rules: 7\n", true),
    ] {
        let parsed = parse("f.yaml", &format!("{policy}{spec}"));
        assert!(parsed.findings.iter().any(|f| f.severity == Severity::Error && f.object.is_some()), "{spec}");
        let mut index = Index::new(IndexConfig::default());
        parsed.objects.iter().for_each(|l| index.apply(l.object.clone()));
        index.commit();
        let made = index.resources().find_map(|r| match r {
            Resource::Authorization(p) => Some(Arc::clone(p)),
            _ => None,
        });
        let made = made.expect("the policy is gone");
        let denies = made.action == weft_core::policy::Action::Deny && made.rules.len() == 1;
        assert_eq!(denies, !audits, "{spec}: {made:?}");
    }
    let typo = "  action: ALLOW\n  rules: [{form: [{namespaces: [a]}]}]\n";
    says(
        &format!("{policy}{typo}"),
        6,
        Some("AuthorizationPolicy shop/p"),
        "spec.rules[0].form",
        "unknown field",
        "did you mean \"from\"?",
    );
}

#[test]
fn a_target_in_somebody_elses_namespace_is_named_with_its_line() {
    let text = "apiVersion: weftmesh.io/v1alpha1\nkind: MeshPolicy\nmetadata: {name: m, namespace: shop}\nspec:\n  targetRefs:\n  \
                - kind: Pod\n    namespace: pay\n    selector: {matchLabels: {app: cart}}\n  mode: Permissive\n";
    let object = Some("MeshPolicy shop/m");
    let field = "spec.targetRefs[0].namespace";
    says(text, 7, object, field, "namespace pay is not the policy's own", "into the root namespace");
    let own = text.replace("namespace: pay", "namespace: shop");
    assert!(check(&own).iter().all(|finding| finding.severity == Severity::Note), "{:?}", check(&own));
    let none = text.replace("namespace: shop", "namespace: weft-system");
    says(&none, 7, Some("MeshPolicy weft-system/m"), field, "namespace pay does not exist", "correct the name");
}

#[test]
fn hostile_files_are_bounded() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let (name, before) = (char::from(b'a' + i), char::from(b'a' + i - 1));
        let list = vec![format!("*{before}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    let parsed = parse("f.yaml", &bomb);
    assert!(parsed.broken && parsed.findings[0].message.contains("aliases expanded"), "{:?}", parsed.findings);
    for open in ["[", "{a: ", "- "] {
        let parsed = parse("f.yaml", &open.repeat(100_000));
        assert!(parsed.broken, "{open}");
    }
    let huge = "#".repeat(MAX_FILE_BYTES + 1);
    assert!(parse("f.yaml", &huge).findings[0].message.contains("more than the limit"));
    assert!(parse("f.yaml", "a: *nobody").broken);
}

#[test]
fn anchors_merges_json_and_lists_are_read() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a, labels: &l {x: '1'}}\n\
                - apiVersion: v1\n  kind: Service\n  metadata: {name: b, labels: {<<: *l, y: '2'}}\n";
    let parsed = parse("f.yaml", text);
    assert_eq!(parsed.findings, []);
    assert_eq!(parsed.objects[1].object.meta().labels.as_ref().unwrap().len(), 2);
    assert_eq!(parsed.objects[1].line_of("metadata.name"), 9);
    let json =
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}"#;
    assert_eq!(parse("f.json", json).objects.len(), 1);
    assert!(parse("f.yaml", "---\n# only a comment\n---\n").objects.is_empty());
}

#[test]
fn what_an_api_server_checked_is_read_leniently_but_a_policy_is_not() {
    let read = |kind: Kind, spec: serde_json::Value| {
        let value = serde_json::json!({ "metadata": { "name": "a", "namespace": "shop", "x": 1 }, "spec": spec });
        decode_checked(kind, &value)
    };
    let route =
        serde_json::json!({ "rules": [{ "newThing": { "a": 1 }, "backendRefs": [{ "name": "b", "other": 1 }] }] });
    let checked = read(Kind::HttpRoute, route).unwrap();
    assert_eq!(checked.unknown, ["spec.rules[0].newThing", "spec.rules[0].backendRefs[0].other"]);
    let wrong = read(Kind::HttpRoute, serde_json::json!({ "rules": "none" })).unwrap_err();
    assert!(wrong.starts_with("spec.rules: "), "{wrong}");

    let unreadable = |checked: &Checked| {
        let why = checked.object.meta().annotations.as_ref().and_then(|a| a.get(crate::translate::authz::UNREADABLE));
        why.cloned().unwrap_or_default()
    };
    let good = serde_json::json!({ "action": "ALLOW", "rules": [{ "from": [{ "namespaces": ["a"] }] }] });
    assert_eq!(unreadable(&read(Kind::AuthorizationPolicy, good).unwrap()), "");
    let newer =
        serde_json::json!({ "action": "ALLOW", "rules": [{ "from": [{ "namespaces": ["a"], "regions": ["b"] }] }] });
    let denying = read(Kind::AuthorizationPolicy, newer).unwrap();
    assert!(unreadable(&denying).contains("spec.rules[0].from[0].regions"), "{}", unreadable(&denying));
    let wrong = read(Kind::MeshPolicy, serde_json::json!({ "mode": "Strictish" })).unwrap();
    assert!(unreadable(&wrong).contains("spec.mode"));
    // What is enforced stays so, whatever else of it can't be read.
    for (enforced, kept) in [(serde_json::json!(true), true), (serde_json::json!("yes"), true), (false.into(), false)] {
        let spec = serde_json::json!({ "mode": "Strictish", "enforced": enforced });
        let crate::object::Object::MeshPolicy(policy) = read(Kind::MeshPolicy, spec).unwrap().object else { panic!() };
        assert_eq!(policy.spec.enforced, Some(kept), "{enforced}");
    }
}

#[test]
fn a_policy_that_denies_keeps_the_status_that_it_has() {
    let status = serde_json::json!({ "ancestors": [{ "controllerName": "example.com/other" }] });
    for (kind, spec) in [
        (Kind::AuthorizationPolicy, serde_json::json!({ "regions": ["a"] })),
        (Kind::AuthorizationPolicy, serde_json::json!({ "rules": 7 })),
        (Kind::MeshPolicy, serde_json::json!({ "mode": "Strictish" })),
        (Kind::TelemetryPolicy, serde_json::json!({ "accessLog": { "mode": "Loud" } })),
    ] {
        let metadata = serde_json::json!({ "name": "a", "namespace": "shop" });
        let value = serde_json::json!({ "metadata": metadata, "spec": spec, "status": status });
        let denying = decode_checked(kind, &value).unwrap().object;
        assert!(denying.meta().annotations.as_ref().unwrap().contains_key(crate::translate::authz::UNREADABLE));
        let kept = match &denying {
            crate::object::Object::AuthorizationPolicy(it) => &it.status,
            crate::object::Object::MeshPolicy(it) => &it.status,
            crate::object::Object::TelemetryPolicy(it) => &it.status,
            other => panic!("{other:?}"),
        };
        let kept = kept.as_ref().unwrap_or_else(|| panic!("{kind:?} {spec}"));
        assert_eq!(kept.ancestors, status["ancestors"].as_array().unwrap().as_slice());
    }
}
