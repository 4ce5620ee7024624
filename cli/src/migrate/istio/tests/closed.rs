//! No call gets through that Istio would refuse. What Istio says stands beside each case, from its reference.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use weft_core::authorize::{CallFacts, HttpFacts, evaluate};
use weft_core::change::Resource;
use weft_core::ids::Port;
use weft_core::policy::{Action, AuthorizationPolicy};
use weft_k8s::index::{Index, IndexConfig};

use super::{Made, migrate};

/// A policy of Istio's for pods of `shop`.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

/// The policies that were made, as proxies get them.
fn policies(made: &Made) -> Vec<Arc<AuthorizationPolicy>> {
    let mut index = Index::new(IndexConfig::default());
    let parsed = weft_k8s::parse::parse("made.yaml", &made.yaml());
    assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
    parsed.objects.into_iter().for_each(|it| index.apply(it.object));
    index.commit();
    let found = index.resources().filter_map(|it| match it {
        Resource::Authorization(policy) => Some(Arc::clone(policy)),
        _ => None,
    });
    found.collect()
}

/// A call to port 8080: a caller's identity (none: plaintext), a method and a path, and headers.
#[derive(Clone, Copy)]
struct Call {
    identity: &'static str,
    request: (&'static str, &'static str),
    headers: &'static [(&'static str, &'static str)],
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const OTHER: &str = "spiffe://cluster.local/ns/other/sa/x";

fn call(identity: &'static str, request: (&'static str, &'static str)) -> Call {
    Call { identity, request, headers: &[] }
}

fn allowed(policies: &[Arc<AuthorizationPolicy>], call: Call) -> bool {
    let identity = (!call.identity.is_empty()).then(|| call.identity.parse().unwrap());
    let method: Method = call.request.0.parse().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in call.headers {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let http =
        HttpFacts { method: &method, host: "server", path: call.request.1, ambiguous_path: false, headers: &headers };
    let facts = CallFacts {
        identity: identity.as_ref(),
        trust_domains: &Default::default(),
        peer_ip: "10.0.0.7".parse().unwrap(),
        dst_port: Port::new(8080).unwrap(),
        http: Some(http),
    };
    evaluate(policies, &facts).is_allowed()
}

const GET: (&str, &str) = ("GET", "/");
const ADMIN: (&str, &str) = ("GET", "/admin/x");

#[test]
fn policies_that_can_be_said_decide_as_they_do_there() {
    for (spec, call, there) in [
        ("{}", call(WEB, GET), false),
        ("{rules: [{}]}", call("", GET), true),
        ("{action: DENY, rules: [{}]}", call(WEB, GET), false),
        ("{action: DENY}", call(WEB, GET), true),
        ("{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}", call(WEB, GET), true),
        ("{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}", call(OTHER, GET), false),
        ("{rules: [{from: [{source: {principals: ['*']}}]}]}", call("", GET), false),
        ("{rules: [{from: [{source: {notPrincipals: ['*/sa/x']}}]}]}", call("", GET), true),
        ("{rules: [{from: [{source: {serviceAccounts: [web]}}]}]}", call(WEB, GET), true),
        ("{rules: [{from: [{source: {serviceAccounts: [other/x]}}]}]}", call(WEB, GET), false),
        ("{rules: [{from: [{source: {namespaces: [shop]}}]}]}", call(WEB, GET), true),
        ("{action: DENY, rules: [{from: [{source: {notNamespaces: [shop]}}]}]}", call(OTHER, GET), false),
        ("{action: DENY, rules: [{from: [{source: {notNamespaces: [shop]}}]}]}", call(WEB, GET), true),
        ("{action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}", call(WEB, ADMIN), false),
        (
            "{action: DENY, rules: [{to: [{operation: {paths: ['/admin*'], notMethods: [GET]}}]}]}",
            call(WEB, ADMIN),
            true,
        ),
        ("{rules: [{to: [{operation: {ports: ['8080']}}]}]}", call(WEB, GET), true),
        ("{rules: [{to: [{operation: {hosts: [server, 'server:*']}}]}]}", call(WEB, GET), true),
        ("{rules: [{to: [{operation: {notHosts: [server]}}]}]}", call(WEB, GET), false),
        ("{action: DENY, rules: [{to: [{operation: {hosts: [SERVER]}}]}]}", call(WEB, GET), false),
        ("{rules: [{to: [{operation: {ports: ['9090']}}]}]}", call(WEB, GET), false),
        ("{rules: [{when: [{key: source.ip, values: [10.0.0.0/24]}]}]}", call(WEB, GET), true),
        (
            "{rules: [{from: [{source: {namespaces: [shop]}}], when: [{key: source.ip, notValues: [10.0.0.0/24]}]}]}",
            call(WEB, GET),
            false,
        ),
        ("{action: DENY, rules: [{when: [{key: destination.port, values: ['8080']}]}]}", call(WEB, GET), false),
    ] {
        let made = migrate(&policy(spec));
        assert!(!made.report.is_incomplete(), "{spec}\n{}", made.report);
        assert_eq!(allowed(&policies(&made), call), there, "{spec}\n{}", made.yaml());
    }
}

/// Calls that Istio refuses, by policies of which something can't be said.
#[test]
fn policies_that_cant_be_said_are_refused_and_let_nothing_through() {
    const JASON: &[(&str, &str)] = &[("x-user", "jason")];
    const TWO: &[(&str, &str)] = &[("x-role", "user, admin")];
    for (spec, call) in [
        // Without a token, or with another's.
        ("{rules: [{from: [{source: {requestPrincipals: ['issuer/sub']}}]}]}", call(WEB, GET)),
        ("{rules: [{from: [{source: {namespaces: [shop], requestPrincipals: ['*']}}]}]}", call(WEB, GET)),
        ("{rules: [{when: [{key: 'request.auth.claims[group]', values: [admin]}]}]}", call(WEB, GET)),
        ("{rules: [{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}]}", call(WEB, GET)),
        ("{rules: [{when: [{key: remote.ip, values: [192.0.2.1]}]}]}", call(WEB, GET)),
        ("{rules: [{when: [{key: connection.sni, values: [a.com]}]}]}", call(WEB, GET)),
        ("{rules: [{when: [{key: destination.ip, values: [10.9.9.9]}]}]}", call(WEB, GET)),
        ("{rules: [{from: [{source: {principals: [other.example/ns/shop/sa/web]}}]}]}", call(WEB, GET)),
        ("{rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/shop/sa/web']}}]}]}", call(WEB, GET)),
        ("{rules: [{to: [{operation: {paths: ['/a/{*}/b']}}]}]}", call(WEB, ("GET", "/a/{*}/b"))),
        ("{rules: [{to: [{operation: {hosts: ['server:8443']}}]}]}", call(WEB, GET)),
        // A host without a port is not one with a port there. (The facts of a call here don't have it.)
        ("{rules: [{to: [{operation: {hosts: [server]}}]}]}", call(WEB, GET)),
        ("{rules: [{to: [{operation: {hosts: ['*erver']}}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{to: [{operation: {notHosts: [server]}}]}]}", call(WEB, GET)),
        // Port 80 of a Service is 8080 of its pods.
        (
            "{action: DENY, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], rules: [{to: [{operation: {ports: ['80']}}]}]}",
            call(WEB, GET),
        ),
        (
            "{action: DENY, targetRefs: [{kind: Service, group: '', name: web}], rules: [{when: [{key: destination.port, values: ['80']}]}]}",
            call(WEB, GET),
        ),
        ("{rules: [{from: [{source: {unheard: [of]}}]}]}", call(WEB, GET)),
        ("{rules: [{unheard: [of]}]}", call(WEB, GET)),
        ("{rules: [{from: [{source: {namespaces: [shop]}}], unheard: of}]}", call(WEB, GET)),
        ("{rules: [{from: []}]}", call(WEB, GET)),
        ("{rules: [{from: [{source: {}}]}]}", call(WEB, GET)),
        // Two lists that must both hold.
        (
            "{rules: [{from: [{source: {namespaces: [shop]}}], when: [{key: source.namespace, values: [other]}]}]}",
            call(WEB, GET),
        ),
        // One header with two elements is no exact "admin" there.
        (
            "{rules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}]}",
            Call { identity: WEB, request: GET, headers: TWO },
        ),
        ("{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{from: [{source: {requestPrincipals: ['*'], namespaces: [shop]}}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{when: [{key: 'request.auth.claims[group]', notValues: [admin]}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{from: [{source: {principals: [other.example/ns/shop/sa/web]}}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{from: [{source: {notPrincipals: [other.example/ns/shop/sa/x]}}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{to: [{operation: {notPaths: ['/a//b']}}]}]}", call(WEB, GET)),
        ("{action: DENY, rules: [{to: [{operation: {paths: ['/admin/{*}']}}]}]}", call(WEB, ADMIN)),
        // A header that isn't there is not among the values there.
        ("{action: DENY, rules: [{when: [{key: 'request.headers[x-user]', notValues: [jason]}]}]}", call(WEB, GET)),
        (
            "{action: DENY, rules: [{when: [{key: 'request.headers[x-user]', values: ['*'], notValues: [mary]}]}]}",
            Call { identity: WEB, request: GET, headers: JASON },
        ),
        ("{action: DENY, rules: [{unheard: of}]}", call(WEB, GET)),
        ("{action: DENY, selector: {matchExpressions: [{key: a, operator: Exists}]}, rules: [{}]}", call(WEB, GET)),
        (
            "{action: DENY, targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}], rules: [{}]}",
            call(WEB, GET),
        ),
        (
            "{action: DENY, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], rules: [{}]}",
            call(WEB, GET),
        ),
        // Somebody else is asked there, and nobody knows what they would say.
        (
            "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}",
            call(WEB, ADMIN),
        ),
        (
            "{action: CUSTOM, provider: {name: opa}, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}",
            call(WEB, GET),
        ),
        ("{action: MAYBE, rules: [{}]}", call(WEB, GET)),
    ] {
        let made = migrate(&policy(spec));
        assert!(made.left().contains("the policy"), "{spec}\n{}", made.report);
        let policies = policies(&made);
        assert!(!policies.is_empty(), "something stands in its place: {spec}");
        assert!(!allowed(&policies, call), "{spec}\n{}", made.yaml());
        let note = made.of_kind("AuthorizationPolicy")[0]["metadata"]["annotations"]
            [super::super::authz::NOT_TRANSLATED]
            .clone();
        assert!(note.as_str().is_some_and(|text| text.contains("spec")), "{spec}: {note}");
    }
}

/// Refusing one part of a policy leaves what is about others.
#[test]
fn what_stands_in_the_place_of_a_policy_is_as_narrow_as_can_be() {
    let spec = "{action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}], when: [{key: remote.ip, values: [192.0.2.1]}]}]}";
    let made = policies(&migrate(&policy(spec)));
    assert!(!allowed(&made, call(WEB, ADMIN)) && allowed(&made, call(WEB, GET)));
    let spec = "{rules: [{from: [{source: {namespaces: [shop]}}]}, {from: [{source: {requestPrincipals: ['*']}}]}]}";
    let made = policies(&migrate(&policy(spec)));
    assert!(allowed(&made, call(WEB, GET)) && !allowed(&made, call(OTHER, GET)));
}

#[test]
fn a_policy_that_decides_nothing_there_decides_nothing_here() {
    let text = policy("{action: DENY, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}")
        .replace("namespace: shop", "namespace: shop, annotations: {istio.io/dry-run: 'true'}");
    let made = policies(&migrate(&text));
    assert!(made[0].dry_run && allowed(&made, call(WEB, GET)));
    let made = policies(&migrate(&policy("{action: AUDIT, rules: [{from: [{source: {namespaces: [shop]}}]}]}")));
    assert_eq!(made[0].action, Action::Audit);
}

#[test]
fn more_rules_than_a_policy_can_have_are_several_policies() {
    let rules: Vec<String> = (0..100).map(|i| format!("{{from: [{{source: {{namespaces: [n{i}]}}}}]}}")).collect();
    let made = migrate(&policy(&format!("{{rules: [{}]}}", rules.join(", "))));
    assert_eq!(made.report.made, ["AuthorizationPolicy shop/p", "AuthorizationPolicy shop/p-2"]);
    let names: Vec<_> = policies(&made).iter().map(|it| it.rules.len()).collect();
    assert_eq!(names.iter().sum::<usize>(), 100);
}

/// Which of two policies is older is not known any more when both are made anew.
#[test]
fn of_two_peer_authentications_for_one_pod_the_younger_opens_nothing() {
    let one = |name: &str, day: u8, spec: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\nspec: {spec}\n"
        )
    };
    let strict = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}";
    let open = "{selector: {matchLabels: {tier: front}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {1: {mode: STRICT}, 2: {mode: DISABLE}}}";
    let made = migrate(&(one("z", 1, strict) + &one("a", 2, open)));
    let policies = made.of_kind("MeshPolicy");
    let younger = policies.iter().find(|it| it["metadata"]["name"] == "a").unwrap();
    assert_eq!(younger["spec"]["mode"], serde_json::Value::Null);
    assert_eq!(younger["spec"]["portModes"], serde_json::json!([{ "port": 1, "mode": "Strict" }]));
    assert!(made.left().contains("spec.selector"), "{}", made.report);
    let apart = open.replace("tier: front", "app: api");
    let made = migrate(&(one("z", 1, strict) + &one("a", 2, &apart)));
    assert!(!made.report.is_incomplete(), "{}", made.report);
}

/// Modes that can't be read refuse plaintext.
#[test]
fn a_peer_authentication_that_cant_be_read_is_strict() {
    for spec in [
        "{mtls: {mode: SOMETIMES}}",
        "{mtls: {mode: PERMISSIVE, unheard: of}}",
        "{mtls: {mode: PERMISSIVE}, unheard: of}",
        "{selector: {matchLabels: {a: b}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {http: {mode: DISABLE}}}",
        "{selector: {matchExpressions: []}, mtls: {mode: PERMISSIVE}}",
    ] {
        let made = migrate(&format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}"
        ));
        let policy = made.of_kind("MeshPolicy")[0];
        assert_eq!(
            (&policy["spec"]["mode"], &policy["spec"]["portModes"]),
            (&"Strict".into(), &serde_json::Value::Null)
        );
        assert!(made.left().contains("the policy"), "{spec}\n{}", made.report);
    }
}
