//! What was protected, or not reached at all, isn't open afterwards.

use serde_json::{Value, json};

use super::{Made, ingress, migrate, options};
use crate::migrate::ingress::report::Level;

const NGINX: &str = "nginx.ingress.kubernetes.io";

/// An Ingress of a name, for a path of a host.
fn named(class: &str, (name, host, path): (&str, &str, &str), annotations: &Value) -> String {
    let mut object: Value = serde_json::from_str(&ingress(class, annotations)).unwrap();
    object["metadata"]["name"] = json!(name);
    object["spec"]["rules"][0]["host"] = json!(host);
    object["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!(path);
    object.to_string()
}

/// Translates them, with the Service that they are for.
fn together(objects: &[String]) -> Made {
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "ports": [{ "port": 80 }] } });
    migrate(&format!("{service}\n---\n{}", objects.join("\n---\n")), &options())
}

/// Paths of a host's rules, with whether they have backends.
fn rules(made: &Made, host: &str) -> Vec<(String, bool)> {
    let routes = made.documents.iter().map(|it| &it.object).filter(|it| it["spec"]["hostnames"][0] == host);
    let rules = routes.flat_map(|it| it["spec"]["rules"].as_array().unwrap());
    let one = |rule: &Value| {
        (rule["matches"][0]["path"]["value"].as_str().unwrap_or_default().to_owned(), rule.get("backendRefs").is_some())
    };
    let mut all: Vec<_> = rules.map(one).collect();
    all.sort();
    all
}

fn rule(path: &str, backends: bool) -> (String, bool) {
    (path.to_owned(), backends)
}

fn left_out(made: &Made, text: &str) -> bool {
    made.report.of(Level::LeftOut).any(|it| it.message.contains(text))
}

#[test]
fn paths_of_an_ingress_that_is_not_migrated_are_refused_where_another_would_serve_them() {
    let basic = json!({ format!("{NGINX}/auth-type"): "basic" });
    let admin = named("nginx", ("admin", "a.com", "/admin"), &basic);
    for (other, served) in [("a.com", "a.com"), ("*.com", "*.com")] {
        let made = together(&[admin.clone(), named("nginx", ("web", other, "/"), &json!({}))]);
        assert!(rules(&made, "a.com").contains(&rule("/admin", false)), "{other}: {}", made.yaml());
        assert!(rules(&made, served).contains(&rule("/", true)), "{other}");
        assert!(left_out(&made, "Ingress shop/web would serve it"), "{}", made.report);
        assert!(made.complaints().is_empty(), "{:?}", made.complaints());
    }
    // The same path of both is nobody's.
    let made = together(&[admin, named("nginx", ("web", "a.com", "/admin"), &json!({}))]);
    assert!(rules(&made, "a.com").iter().all(|(_, backends)| !backends), "{}", made.yaml());
}

#[test]
fn a_host_with_a_protected_path_that_cannot_be_said_is_not_migrated() {
    let annotations = json!({ format!("{NGINX}/auth-type"): "basic", format!("{NGINX}/use-regex"): "true" });
    let admin = named("nginx", ("admin", "a.com", "/a(?!b)"), &annotations);
    let web = named("nginx", ("web", "a.com", "/"), &json!({}));
    let made = together(&[admin.clone(), web.clone()]);
    assert!(made.documents.is_empty() && left_out(&made, "a.com is not migrated"), "{}", made.report);
    // What serves all hosts would serve it.
    let made = together(&[admin, web, named("nginx", ("all", "*.com", "/"), &json!({}))]);
    assert!(rules(&made, "a.com").iter().all(|it| *it == rule("/", false)), "{}", made.yaml());
    assert_eq!(rules(&made, "*.com"), [rule("/", true)]);
}

/// A load balancer of the AWS Load Balancer Controller that everybody may reach.
const PUBLIC: (&str, &str) = ("alb.ingress.kubernetes.io/scheme", "internet-facing");

#[test]
fn a_load_balancer_inside_the_network_is_not_opened() {
    let group = |name: &str| json!({ "alb.ingress.kubernetes.io/group.name": name });
    let mut public = group("g");
    public[PUBLIC.0] = json!(PUBLIC.1);
    for (annotations, more, open) in [
        (json!({ PUBLIC.0: PUBLIC.1 }), None, true),
        (json!({ PUBLIC.0: "internal" }), None, false),
        (json!({}), None, false),
        (group("g"), None, false),
        (group("g"), Some(&public), true),
        (group("other"), Some(&public), false),
    ] {
        let own = ingress("alb", &annotations);
        let all: Vec<_> =
            more.map(|more| named("alb", ("more", "b.com", "/"), more)).into_iter().chain([own]).collect();
        let made = together(&all);
        assert_eq!(
            rules(&made, "a.com"),
            if open { vec![rule("/", true)] } else { vec![] },
            "{annotations}: {}",
            made.report
        );
        assert_eq!(left_out(&made, "inside the network"), !open, "{annotations}: {}", made.report);
    }
    let asked = super::Options { allow_unprotected: true, ..options() };
    assert!(!migrate(&ingress("alb", &json!({ PUBLIC.0: "internal" })), &asked).documents.is_empty());
}

/// What it tells the service may be what that decides by.
#[test]
fn what_an_authorization_service_is_asked_beyond_what_a_filter_asks_keeps_an_ingress_back() {
    let url = "http://auth.iam.svc/check";
    for name in ["auth-snippet", "auth-proxy-set-headers"] {
        let annotations = json!({ format!("{NGINX}/auth-url"): url, format!("{NGINX}/{name}"): "x" });
        let made = migrate(&ingress("nginx", &annotations), &options());
        assert!(made.documents.is_empty() && left_out(&made, "not migrated"), "{name}: {}", made.report);
        // Without a service nobody is asked.
        let made = migrate(&ingress("nginx", &json!({ format!("{NGINX}/{name}"): "x" })), &options());
        assert!(!made.documents.is_empty(), "{name}: {}", made.report);
    }
    let made = migrate(&ingress("nginx", &json!({ format!("{NGINX}/auth-url"): url })), &options());
    assert!(!made.documents.is_empty(), "{}", made.report);
}

#[test]
fn paths_in_another_case_of_letters_are_not_left_to_a_sibling() {
    let protecting = |more: &[(&str, &str)]| {
        let mut made = json!({ format!("{NGINX}/whitelist-source-range"): "10.0.0.0/8" });
        more.iter().for_each(|(name, value)| made[format!("{NGINX}/{name}")] = json!(value));
        made
    };
    let rewriting = &[("rewrite-target", "/$2")];
    let regex = json!({ format!("{NGINX}/use-regex"): "true" });
    for (own, path, other, refused) in [
        (protecting(&[("use-regex", "true")]), "/admin", json!({}), true),
        (protecting(rewriting), "/admin(/|$)(.*)", json!({}), true),
        // One Ingress decides for the host.
        (protecting(&[]), "/admin", regex.clone(), true),
        (protecting(&[]), "/admin", json!({}), false),
        (regex, "/admin", json!({}), false),
        (protecting(&[("use-regex", "true")]), "/admin", protecting(&[]), false),
    ] {
        let made =
            together(&[named("nginx", ("admin", "a.com", path), &own), named("nginx", ("web", "a.com", "/"), &other)]);
        let all = rules(&made, "a.com");
        let expressions: Vec<_> = all.iter().filter(|(path, _)| path.contains("(?i:")).collect();
        assert_eq!(expressions.len(), usize::from(refused), "{own} {path} {other}: {all:?}");
        assert!(expressions.iter().all(|(text, backends)| {
            let pattern = weft_core::route::Pattern::new(text).unwrap();
            !backends && pattern.is_match("/Admin") && pattern.is_match("/aDMIN/x") && !pattern.is_match("/admin/x")
        }));
        assert_eq!(left_out(&made, "in another case of letters"), refused, "{}", made.report);
        assert!(made.complaints().is_empty(), "{:?}", made.complaints());
    }
    // What is behind the sibling is its own.
    let mut web: Value = serde_json::from_str(&named("nginx", ("web", "a.com", "/"), &json!({}))).unwrap();
    web["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("front");
    let admin = named("nginx", ("admin", "a.com", "/admin"), &protecting(&[("use-regex", "true")]));
    let made = together(&[admin, web.to_string()]);
    assert!(!rules(&made, "a.com").is_empty(), "{}", made.report);
    assert!(!left_out(&made, "in another case of letters"), "{}", made.report);
}

#[test]
fn actions_that_a_route_cannot_do_are_refused() {
    let gone = r#"{"type":"fixed-response","fixedResponseConfig":{"statusCode":"403"}}"#;
    let annotations = json!({ PUBLIC.0: PUBLIC.1, "alb.ingress.kubernetes.io/actions.gone": gone });
    let gone = named("alb", ("gone", "a.com", "/gone"), &annotations);
    let mut gone: Value = serde_json::from_str(&gone).unwrap();
    let service = json!({ "name": "gone", "port": { "name": "use-annotation" } });
    gone["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"] = service;
    let made = together(&[gone.to_string(), named("alb", ("web", "a.com", "/"), &json!({ PUBLIC.0: PUBLIC.1 }))]);
    assert_eq!(rules(&made, "a.com"), [rule("/", true), rule("/gone", false)]);
    assert!(made.report.of(Level::LeftOut).any(|it| it.remedy.contains("500")), "{}", made.report);
}

#[test]
fn what_services_say_to_their_controller_protects_too() {
    for (class, key, value) in [
        ("alb", "alb.ingress.kubernetes.io/auth-type", "oidc"),
        ("alb", "alb.ingress.kubernetes.io/auth-idp-oidc", "{}"),
        ("haproxy", "haproxy.org/allow-list", "10.0.0.0/8"),
        ("haproxy-ingress", "haproxy-ingress.github.io/auth-secret", "x"),
        ("gce", "cloud.google.com/backend-config", r#"{"default":"iap"}"#),
    ] {
        // A setting of the same controller tells whose class it is.
        let of_class = match class {
            "haproxy" => json!({ "haproxy.org/check": "true" }),
            "haproxy-ingress" => json!({ "haproxy-ingress.github.io/health-check-port": "1" }),
            _ => json!({}),
        };
        let service = json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "namespace": "shop", "annotations": { key: value } },
            "spec": { "ports": [{ "port": 80 }] } });
        let made = together(&[ingress(class, &of_class), service.to_string()]);
        assert!(made.documents.is_empty(), "{key}: {}", made.report);
        assert!(made.report.of(Level::LeftOut).any(|it| it.setting == key), "{key}: {}", made.report);
    }
}

#[test]
fn a_list_of_all_ipv4_addresses_still_refuses_others() {
    let key = format!("{NGINX}/whitelist-source-range");
    let policy = |list: &str| {
        let made = migrate(&ingress("nginx", &json!({ key.as_str(): list })), &options());
        made.documents.iter().find(|it| it.object["kind"] == "AuthorizationPolicy").map(|it| it.object.clone())
    };
    assert!(policy("0.0.0.0/0").unwrap().to_string().contains("notAddresses"));
    assert!(policy("0.0.0.0/0, ::/0").is_none());
}

#[test]
fn a_host_with_tls_and_no_certificate_is_not_served_in_plaintext() {
    let tls = |annotations: Value| {
        let mut object: Value = serde_json::from_str(&ingress("nginx", &annotations)).unwrap();
        object["spec"]["tls"] = json!([{ "hosts": ["a.com"] }]);
        object.to_string()
    };
    let arn = json!({ PUBLIC.0: PUBLIC.1, "alb.ingress.kubernetes.io/certificate-arn": "arn:aws:x" });
    let redirect = json!({ PUBLIC.0: PUBLIC.1, "alb.ingress.kubernetes.io/ssl-redirect": "443" });
    for text in [tls(json!({})), ingress("alb", &arn), ingress("alb", &redirect)] {
        let made = migrate(&text, &options());
        assert!(made.documents.is_empty() && left_out(&made, "it gets no route"), "{}", made.report);
    }
    // Who wanted plaintext too still has it.
    let made = migrate(&tls(json!({ format!("{NGINX}/ssl-redirect"): "false" })), &options());
    assert_eq!(rules(&made, "a.com"), [rule("/", true)]);
    // A sibling without TLS of its own had it by the host.
    let made = together(&[tls(json!({})), named("nginx", ("more", "a.com", "/more"), &json!({}))]);
    assert!(made.documents.is_empty(), "{}", made.yaml());
}

#[test]
fn a_class_of_an_unknown_controller_is_a_guess() {
    let class = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": { "name": "nginx" },
        "spec": { "controller": "example.com/own" } });
    let annotations = json!({ "traefik.ingress.kubernetes.io/router.middlewares": "auth",
        format!("{NGINX}/use-regex"): "false", format!("{NGINX}/enable-cors"): "false" });
    let made = together(&[ingress("nginx", &annotations), class.to_string()]);
    assert!(made.documents.is_empty() && left_out(&made, "is taken for"), "{}", made.report);
}

#[test]
fn a_policy_for_many_hosts_leaves_those_of_others_alone() {
    let inside = json!({ format!("{NGINX}/whitelist-source-range"): "10.0.0.0/8" });
    let made = together(&[
        named("nginx", ("inside", "*.a.com", "/"), &inside),
        named("nginx", ("open", "open.a.com", "/"), &json!({})),
        // The rest of this host is served by the rules of the first.
        named("nginx", ("part", "part.a.com", "/part"), &json!({})),
        named("nginx", ("else", "b.com", "/"), &json!({})),
    ]);
    let policy = made.documents.iter().find(|it| it.object["kind"] == "AuthorizationPolicy").unwrap();
    let to = &policy.object["spec"]["rules"][0]["to"][0];
    assert_eq!(*to, json!({ "hosts": ["*.a.com"], "notHosts": ["open.a.com"] }));
    assert!(made.complaints().is_empty(), "{:?}", made.complaints());
}

/// Its host in the clear has no listener, so that the rules of many hosts serve it there: what protects them counts.
#[test]
fn a_policy_for_many_hosts_holds_where_the_other_host_does_not_come_in() {
    let inside = json!({ format!("{NGINX}/whitelist-source-range"): "10.0.0.0/8" });
    let passed = json!({ format!("{NGINX}/ssl-passthrough"): "true" });
    let made = together(&[
        named("nginx", ("inside", "*.a.com", "/"), &inside),
        named("nginx", ("passed", "passed.a.com", "/"), &passed),
    ]);
    let policy = made.documents.iter().find(|it| it.object["kind"] == "AuthorizationPolicy").unwrap();
    assert_eq!(policy.object["spec"]["rules"][0]["to"][0], json!({ "hosts": ["*.a.com"] }));
    assert!(made.documents.iter().any(|it| it.object["kind"] == "TLSRoute"), "{}", made.yaml());
}
