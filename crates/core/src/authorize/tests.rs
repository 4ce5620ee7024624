use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::identity::{SpiffeId, TrustDomains};
use crate::ids::{PolicyKey, Port};
use crate::policy::{
    Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, HeaderCondition, MeshPolicy, Mode, Operation, Scope,
    Source, WorkloadLimits,
};

fn policy(name: &str, action: Action, rules: Vec<AuthorizationRule>) -> Arc<AuthorizationPolicy> {
    let key = PolicyKey::new("ns", name);
    Arc::new(AuthorizationPolicy { key, scope: Scope::Mesh, action, dry_run: false, rules })
}

fn dry(name: &str, action: Action, rules: Vec<AuthorizationRule>) -> Arc<AuthorizationPolicy> {
    let policy = policy(name, action, rules);
    Arc::new(AuthorizationPolicy { dry_run: true, ..Arc::unwrap_or_clone(policy) })
}

fn all() -> Vec<AuthorizationRule> {
    vec![AuthorizationRule::default()]
}

fn from(source: Source) -> Vec<AuthorizationRule> {
    vec![AuthorizationRule { from: vec![source], to: vec![] }]
}

fn to(operation: Operation) -> Vec<AuthorizationRule> {
    vec![AuthorizationRule { from: vec![], to: vec![operation] }]
}

fn globs(texts: &[&str]) -> Vec<GlobMatch> {
    texts.iter().map(|it| GlobMatch::new(it)).collect()
}

fn paths(texts: &[&str]) -> Vec<AuthorizationRule> {
    to(Operation { paths: globs(texts), ..Operation::default() })
}

/// A call from `cart` in `shop` at 10.0.0.1 to port 8080: `GET a.com/admin`.
struct Caller {
    identity: Option<SpiffeId>,
    trust_domains: TrustDomains,
    peer_ip: IpAddr,
    method: Method,
    path: &'static str,
    ambiguous_path: bool,
    headers: HeaderMap,
    http: bool,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            identity: Some("spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()),
            trust_domains: TrustDomains::default(),
            peer_ip: "10.0.0.1".parse().unwrap(),
            method: Method::GET,
            path: "/admin",
            ambiguous_path: false,
            headers: HeaderMap::new(),
            http: true,
        }
    }
}

impl Caller {
    fn opaque() -> Self {
        Self { http: false, ..Self::default() }
    }

    fn with<R>(&self, check: impl FnOnce(&CallFacts<'_>) -> R) -> R {
        let http = HttpFacts {
            method: &self.method,
            host: "a.com",
            path: self.path,
            ambiguous_path: self.ambiguous_path,
            headers: &self.headers,
        };
        check(&CallFacts {
            identity: self.identity.as_ref(),
            trust_domains: &self.trust_domains,
            peer_ip: self.peer_ip,
            dst_port: Port::new(8080).unwrap(),
            http: self.http.then_some(http),
        })
    }

    /// `allow`, `allow by NAME`, `deny`, `deny by NAME`.
    fn verdict(&self, policies: &[Arc<AuthorizationPolicy>]) -> String {
        self.with(|facts| match evaluate(policies, facts).decision {
            Decision::Allow { by: None } => "allow".into(),
            Decision::Allow { by: Some(key) } => format!("allow by {}", key.name),
            Decision::Deny(DenyCause::NoAllowMatched) => "deny".into(),
            Decision::Deny(DenyCause::Policy(key)) => format!("deny by {}", key.name),
        })
    }

    fn matches(&self, rules: Vec<AuthorizationRule>) -> bool {
        self.verdict(&[policy("p", Action::Allow, rules)]) == "allow by p"
    }

    fn audits(&self, policies: &[Arc<AuthorizationPolicy>]) -> Vec<(String, Outcome)> {
        self.with(|facts| {
            let verdict = evaluate(policies, facts);
            verdict.audits.iter().map(|it| (it.policy.name.to_string(), it.outcome)).collect()
        })
    }
}

#[test]
fn deny_comes_before_allow_and_allow_policies_close_the_rest() {
    let other = || paths(&["/other"]);
    let caller = Caller::default();
    for (policies, expected) in [
        (vec![], "allow"),
        (vec![policy("a", Action::Allow, all())], "allow by a"),
        (vec![policy("a", Action::Allow, other())], "deny"),
        (vec![policy("a", Action::Allow, other()), policy("b", Action::Allow, all())], "allow by b"),
        (vec![policy("d", Action::Deny, all())], "deny by d"),
        (vec![policy("d", Action::Deny, other())], "allow"),
        (vec![policy("a", Action::Allow, all()), policy("d", Action::Deny, all())], "deny by d"),
        (vec![policy("a", Action::Allow, other()), policy("d", Action::Deny, other())], "deny"),
        // "No rule matches nothing: an ALLOW policy without rules denies everything."
        (vec![policy("a", Action::Allow, vec![])], "deny"),
        (vec![policy("d", Action::Deny, vec![])], "allow"),
        (vec![policy("u", Action::Audit, all())], "allow"),
    ] {
        assert_eq!(caller.verdict(&policies), expected, "{policies:?}");
    }
}

#[test]
fn audit_and_audit_mode_report_and_never_decide() {
    let caller = Caller::default();
    let other = || paths(&["/other"]);
    for (policies, verdict, audits) in [
        (vec![policy("u", Action::Audit, all())], "allow", vec![("u", Outcome::Matched)]),
        (vec![policy("u", Action::Audit, other())], "allow", vec![]),
        (vec![dry("d", Action::Deny, all())], "allow", vec![("d", Outcome::WouldDeny)]),
        (vec![dry("d", Action::Deny, other())], "allow", vec![]),
        (vec![dry("a", Action::Allow, all())], "allow", vec![("a", Outcome::WouldAllow)]),
        (vec![dry("a", Action::Allow, other())], "allow", vec![("a", Outcome::WouldDeny)]),
        (vec![dry("a", Action::Allow, other()), policy("b", Action::Allow, all())], "allow by b", vec![]),
        (
            vec![dry("a", Action::Allow, all()), policy("b", Action::Allow, other())],
            "deny",
            vec![("a", Outcome::WouldAllow)],
        ),
        (
            vec![policy("d", Action::Deny, all()), policy("u", Action::Audit, all())],
            "deny by d",
            vec![("u", Outcome::Matched)],
        ),
    ] {
        assert_eq!(caller.verdict(&policies), verdict, "{policies:?}");
        let audits: Vec<_> = audits.into_iter().map(|(name, outcome)| (name.to_owned(), outcome)).collect();
        assert_eq!(caller.audits(&policies), audits, "{policies:?}");
    }
}

/// While a trust domain is changed, policies that were written for the old name and for the new one both hold, and what is
/// nobody's alias is as foreign as ever.
#[test]
fn an_identity_of_ours_is_matched_under_each_of_its_names_and_under_no_other() {
    let ours = TrustDomains::new("new.example".parse().unwrap(), ["old.example".parse().unwrap()]);
    let caller = |domain: &str| Caller {
        identity: Some(format!("spiffe://{domain}/ns/shop/sa/cart").parse().unwrap()),
        trust_domains: ours.clone(),
        ..Caller::default()
    };
    // Whether it matches a caller of ours, one of partner.example, and one of an.old.example.
    for (glob, matched) in [
        ("spiffe://old.example/ns/shop/sa/cart", [true, false, false]),
        ("spiffe://new.example/ns/shop/sa/cart", [true, false, false]),
        ("old.example/ns/shop/sa/cart", [true, false, false]),
        ("spiffe://old.example/ns/shop/*", [true, false, false]),
        ("spiffe://new.example/*", [true, false, false]),
        ("spiffe://old.example*", [true, false, false]),
        ("*old.example/ns/shop/sa/cart", [true, false, true]),
        ("*/ns/shop/sa/cart", [true, true, true]),
        ("*", [true, true, true]),
        ("spiffe://old.example/ns/shop/sa/stock", [false, false, false]),
        ("spiffe://old.example/ns/stock/*", [false, false, false]),
        ("spiffe://old/*", [false, false, false]),
        ("spiffe://partner.example/*", [false, true, false]),
        ("spiffe://an.old.example/*", [false, false, true]),
    ] {
        let rules = || from(Source { identities: globs(&[glob]), ..Source::default() });
        let not = || from(Source { not_identities: globs(&[glob]), ..Source::default() });
        for (domains, matched) in
            [&["new.example", "old.example"][..], &["partner.example"], &["an.old.example"]].into_iter().zip(matched)
        {
            for domain in domains {
                assert_eq!(caller(domain).matches(rules()), matched, "{glob} of {domain}");
                assert_eq!(caller(domain).matches(not()), !matched, "not {glob} of {domain}");
            }
        }
    }
    let alone = Caller { trust_domains: ours.own().clone().into(), ..caller("new.example") };
    let old = || from(Source { identities: globs(&["spiffe://old.example/*"]), ..Source::default() });
    assert!(!alone.matches(old()), "once the alias is taken away, the old name is nobody's");
}

#[test]
fn identities_match_with_and_without_the_scheme() {
    let caller = Caller::default();
    for (glob, expected) in [
        ("spiffe://cluster.local/ns/shop/sa/cart", true),
        ("cluster.local/ns/shop/sa/cart", true),
        ("cluster.local/ns/shop/*", true),
        ("spiffe://cluster.local/*", true),
        ("*/sa/cart", true),
        ("*", true),
        ("cluster.local/ns/shop/sa/car", false),
        ("other.domain/ns/shop/sa/cart", false),
        ("cluster.local/ns/shop/sa/cart2", false),
    ] {
        let rules = || from(Source { identities: globs(&[glob]), ..Source::default() });
        assert_eq!(caller.matches(rules()), expected, "{glob}");
        let plaintext = Caller { identity: None, ..Caller::default() };
        assert!(!plaintext.matches(rules()), "{glob}: no identity is no identity");
        let not = || from(Source { not_identities: globs(&[glob]), ..Source::default() });
        assert_eq!(caller.matches(not()), !expected, "not {glob}");
        assert!(plaintext.matches(not()), "not {glob}");
    }
}

#[test]
fn all_lists_of_a_source_must_hold() {
    let source = || Source {
        namespaces: globs(&["shop"]),
        addresses: vec!["10.0.0.0/24".parse().unwrap()],
        not_addresses: vec!["10.0.0.66/32".parse().unwrap()],
        ..Source::default()
    };
    let at = |ip: &str| Caller { peer_ip: ip.parse().unwrap(), ..Caller::default() };
    assert!(at("10.0.0.1").matches(from(source())));
    assert!(at("::ffff:10.0.0.1").matches(from(source())));
    assert!(!at("10.0.0.66").matches(from(source())));
    assert!(!at("10.0.1.1").matches(from(source())));
    assert!(!at("10.0.0.1").matches(from(Source { namespaces: globs(&["other"]), ..source() })));
    assert!(!at("10.0.0.1").matches(from(Source { not_namespaces: globs(&["sh*"]), ..source() })));
    let plaintext = Caller { identity: None, ..Caller::default() };
    assert!(!plaintext.matches(from(source())));
}

#[test]
fn any_source_and_any_operation_of_a_rule() {
    let source = |ns: &str| Source { namespaces: globs(&[ns]), ..Source::default() };
    let operation = |path: &str| Operation { paths: globs(&[path]), ..Operation::default() };
    let rule = |sources: &[&str], paths: &[&str]| {
        vec![AuthorizationRule {
            from: sources.iter().map(|it| source(it)).collect(),
            to: paths.iter().map(|it| operation(it)).collect(),
        }]
    };
    let caller = Caller::default();
    assert!(caller.matches(rule(&["x", "shop"], &["/x", "/admin"])));
    assert!(!caller.matches(rule(&["x"], &["/admin"])));
    assert!(!caller.matches(rule(&["shop"], &["/x"])));
}

#[test]
fn operations_look_at_the_request() {
    let caller = Caller::default();
    let ports = |numbers: &[u16]| numbers.iter().filter_map(|it| Port::new(*it)).collect::<Vec<_>>();
    let none = Operation::default;
    for (operation, expected) in [
        (Operation { ports: ports(&[80, 8080]), ..none() }, true),
        (Operation { ports: ports(&[80]), ..none() }, false),
        (Operation { not_ports: ports(&[8080]), ..none() }, false),
        (Operation { methods: globs(&["GET", "HEAD"]), ..none() }, true),
        (Operation { methods: globs(&["get"]), ..none() }, false),
        (Operation { not_methods: globs(&["GET"]), ..none() }, false),
        (Operation { paths: globs(&["/adm*"]), ..none() }, true),
        (Operation { paths: globs(&["/admin/*"]), ..none() }, false),
        (Operation { not_paths: globs(&["/admin"]), ..none() }, false),
        (Operation { hosts: globs(&["*.com"]), ..none() }, true),
        (Operation { hosts: globs(&["b.com"]), ..none() }, false),
        (Operation { not_hosts: globs(&["a.com"]), ..none() }, false),
        (Operation { methods: globs(&["GET"]), paths: globs(&["/x"]), ..none() }, false),
        (none(), true),
    ] {
        assert_eq!(caller.matches(to(operation.clone())), expected, "{operation:?}");
    }
}

#[test]
fn a_header_with_several_values_matches_if_one_does() {
    let condition = |values: &[&str], not_values: &[&str]| {
        let name = "x-role".into();
        to(Operation {
            headers: vec![HeaderCondition { name, values: globs(values), not_values: globs(not_values) }],
            ..Operation::default()
        })
    };
    let with = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::from_static("x-role"), HeaderValue::from_str(line).unwrap());
        }
        Caller { headers, ..Caller::default() }
    };
    assert!(with(&["user", "admin"]).matches(condition(&["admin"], &[])));
    assert!(with(&["user, admin"]).matches(condition(&["admin"], &[])));
    assert!(with(&["user, admin"]).matches(condition(&["user, admin"], &[])));
    assert!(!with(&["user"]).matches(condition(&["admin"], &[])));
    assert!(with(&["user"]).matches(condition(&[], &[])), "any value at all");
    assert!(!with(&[]).matches(condition(&[], &[])), "must be there");
    assert!(!with(&["user", "admin"]).matches(condition(&[], &["admin"])));
    assert!(!with(&["user,admin"]).matches(condition(&["user"], &["admin"])));
    assert!(!with(&[]).matches(condition(&[], &["admin"])));
}

#[test]
fn an_http_condition_on_opaque_bytes_fails_closed() {
    let caller = Caller::opaque();
    let http = || Operation { methods: globs(&["POST"]), ..Operation::default() };
    assert_eq!(caller.verdict(&[policy("d", Action::Deny, to(http()))]), "deny by d");
    assert_eq!(caller.verdict(&[policy("a", Action::Allow, to(http()))]), "deny");
    // The L4 part of a DENY rule still has to match.
    let elsewhere = Operation { ports: vec![Port::new(9).unwrap()], ..http() };
    assert_eq!(caller.verdict(&[policy("d", Action::Deny, to(elsewhere))]), "allow");
    let not = Operation { not_methods: globs(&["GET"]), ..Operation::default() };
    assert_eq!(caller.verdict(&[policy("a", Action::Allow, to(not))]), "deny");
    // An L4 rule decides as ever.
    let port = Operation { ports: vec![Port::new(8080).unwrap()], ..Operation::default() };
    assert_eq!(caller.verdict(&[policy("a", Action::Allow, to(port))]), "allow by a");
    assert!(caller.audits(&[policy("u", Action::Audit, to(http()))]).is_empty());
}

#[test]
fn a_path_that_servers_read_differently_fails_closed() {
    let caller = Caller { path: "/public%2F..%2Fadmin", ambiguous_path: true, ..Caller::default() };
    assert_eq!(caller.verdict(&[policy("d", Action::Deny, paths(&["/admin"]))]), "deny by d");
    assert_eq!(caller.verdict(&[policy("a", Action::Allow, paths(&["/public*"]))]), "deny");
    let not = || to(Operation { not_paths: globs(&["/admin"]), ..Operation::default() });
    assert_eq!(caller.verdict(&[policy("a", Action::Allow, not())]), "deny");
    assert_eq!(caller.verdict(&[policy("d", Action::Deny, not())]), "deny by d");
    let method = to(Operation { methods: globs(&["GET"]), ..Operation::default() });
    assert_eq!(caller.verdict(&[policy("a", Action::Allow, method)]), "allow by a");
}

#[test]
fn a_path_whose_parameters_some_servers_cut_off_fails_closed_where_that_matters() {
    let at = |path| Caller { path, ..Caller::default() };
    for path in ["/admin;", "/admin;x=1", "/admin;x/users", "/;x/admin"] {
        let denied = if path == "/;x/admin" { "//admin" } else { "/admin*" };
        assert_eq!(at(path).verdict(&[policy("d", Action::Deny, paths(&[denied]))]), "deny by d", "{path}");
    }
    let allow = |text: &str| [policy("a", Action::Allow, paths(&[text]))];
    assert_eq!(at("/shop/cart;session=1").verdict(&allow("/shop/*")), "allow by a", "either way");
    assert_eq!(at("/shop;/cart").verdict(&allow("/shop*")), "allow by a", "either way");
    assert_eq!(at("/shop;/../cart").verdict(&allow("/shop;*")), "deny", "only if it is not cut off");
    assert_eq!(at("/login;x=1").verdict(&allow("/login")), "deny", "only if it is cut off");
    let not = || to(Operation { not_paths: globs(&["/admin"]), ..Operation::default() });
    assert_eq!(at("/admin;x").verdict(&[policy("a", Action::Allow, not())]), "deny");
    assert_eq!(at("/admin;x").verdict(&[policy("d", Action::Deny, not())]), "deny by d");
    let method = to(Operation { methods: globs(&["GET"]), ..Operation::default() });
    assert_eq!(at("/admin;x").verdict(&[policy("a", Action::Allow, method)]), "allow by a", "no path is looked at");
}

#[test]
fn http_is_needed_only_where_a_policy_looks_at_it() {
    let port = Operation { ports: vec![Port::new(1).unwrap()], ..Operation::default() };
    let header = HeaderCondition { name: "x".into(), values: vec![], not_values: vec![] };
    let none = Operation::default;
    assert!(!needs_http(&[]));
    assert!(!needs_http(&[policy("a", Action::Allow, all()), policy("b", Action::Deny, to(port))]));
    for operation in [
        Operation { headers: vec![header], ..none() },
        Operation { not_hosts: globs(&["a"]), ..none() },
        Operation { hosts: globs(&["a"]), ..none() },
        Operation { paths: globs(&["/"]), ..none() },
        Operation { not_paths: globs(&["/"]), ..none() },
        Operation { methods: globs(&["GET"]), ..none() },
        Operation { not_methods: globs(&["GET"]), ..none() },
    ] {
        assert!(needs_http(&[policy("a", Action::Allow, all()), policy("b", Action::Deny, to(operation))]));
    }
}

fn mesh_policy(name: &str, scope: Scope, created: i64, mode: Option<Mode>, ports: &[(u16, Mode)]) -> MeshPolicy {
    MeshPolicy {
        key: PolicyKey::new("ns", name),
        scope,
        created_unix_seconds: created,
        mode,
        port_modes: ports.iter().map(|(port, mode)| (Port::new(*port).unwrap(), *mode)).collect(),
        enforced: false,
        limits: WorkloadLimits::default(),
    }
}

#[test]
fn the_most_specific_policy_that_gives_a_mode_wins() {
    use Mode::{Permissive, Strict, StrictAudit};
    let namespace = || Scope::Namespace("ns".into());
    let mesh = mesh_policy("m", Scope::Mesh, 0, Some(StrictAudit), &[]);
    let of_namespace = mesh_policy("n", namespace(), 1, Some(Strict), &[]);
    let workload = mesh_policy("w", Scope::Selected, 2, Some(Permissive), &[(8080, Strict)]);
    let silent = mesh_policy("s", Scope::Selected, 0, None, &[(1, StrictAudit)]);
    let older = mesh_policy("o", namespace(), 0, Some(Permissive), &[]);
    let mode = |policies: &[&MeshPolicy], port: u16| {
        let forward = effective_mode(policies.iter().copied(), Port::new(port).unwrap());
        assert_eq!(forward, effective_mode(policies.iter().rev().copied(), Port::new(port).unwrap()));
        forward
    };
    assert_eq!(mode(&[], 80), Permissive);
    assert_eq!(mode(&[&mesh], 80), StrictAudit);
    assert_eq!(mode(&[&mesh, &of_namespace], 80), Strict);
    assert_eq!(mode(&[&mesh, &of_namespace, &workload], 80), Permissive);
    assert_eq!(mode(&[&mesh, &of_namespace, &workload], 8080), Strict);
    assert_eq!(mode(&[&mesh, &silent], 80), StrictAudit);
    assert_eq!(mode(&[&of_namespace, &silent], 1), StrictAudit);
    assert_eq!(mode(&[&of_namespace, &older], 80), Permissive, "among equals the older");
}

#[test]
fn each_limit_comes_from_the_most_specific_policy_that_gives_it() {
    let mut mesh = mesh_policy("m", Scope::Mesh, 0, None, &[]);
    mesh.limits = WorkloadLimits { max_connections: Some(1), max_handshakes: Some(2), max_buffer_bytes: None };
    let mut workload = mesh_policy("w", Scope::Selected, 0, None, &[]);
    workload.limits = WorkloadLimits { max_connections: Some(9), ..WorkloadLimits::default() };
    let limits = effective_limits([&mesh, &workload].into_iter());
    assert_eq!((limits.max_connections, limits.max_handshakes, limits.max_buffer_bytes), (Some(9), Some(2), None));
}

/// What a namespace says for itself can only add to what is enforced; who enforces makes the exceptions.
#[test]
fn what_is_enforced_is_the_least_that_holds() {
    use Mode::{Permissive, Strict, StrictAudit};
    let enforced = |policy: MeshPolicy| MeshPolicy { enforced: true, ..policy };
    let namespace = || Scope::Namespace("ns".into());
    let mesh = enforced(mesh_policy("m", Scope::Mesh, 9, Some(Strict), &[(15, Permissive)]));
    let audited = enforced(mesh_policy("a", Scope::Mesh, 9, Some(StrictAudit), &[]));
    let open = mesh_policy("n", namespace(), 1, Some(Permissive), &[(8080, StrictAudit)]);
    let pods = mesh_policy("w", Scope::Selected, 0, Some(Permissive), &[]);
    let strict = mesh_policy("s", namespace(), 0, Some(Strict), &[]);
    let exception = enforced(mesh_policy("e", namespace(), 10, Some(Permissive), &[]));
    let mode = |policies: &[&MeshPolicy], port: u16| {
        let forward = effective_mode(policies.iter().copied(), Port::new(port).unwrap());
        assert_eq!(forward, effective_mode(policies.iter().rev().copied(), Port::new(port).unwrap()));
        forward
    };
    for (policies, port, expected) in [
        (vec![&mesh, &open], 80, Strict),
        (vec![&mesh, &open], 8080, Strict),
        (vec![&mesh, &open, &pods], 80, Strict),
        (vec![&mesh, &open], 15, Permissive),
        (vec![&audited, &open], 80, StrictAudit),
        (vec![&audited, &strict], 80, Strict),
        // Of the same scope, and younger than the namespace's own: an exception holds, and may be declined.
        (vec![&mesh, &open, &exception], 80, Permissive),
        (vec![&mesh, &strict, &exception], 80, Strict),
        (vec![&mesh, &exception, &pods], 80, Permissive),
    ] {
        let names: Vec<_> = policies.iter().map(|policy| policy.key.name.as_str()).collect();
        assert_eq!(mode(&policies, port), expected, "{names:?} {port}");
    }

    let limit = |most| WorkloadLimits { max_connections: most, ..WorkloadLimits::default() };
    let budget = MeshPolicy { limits: limit(Some(100)), ..mesh.clone() };
    for (own, expected) in [(Some(1000), 100), (Some(10), 10), (None, 100)] {
        let own = MeshPolicy { limits: limit(own), ..open.clone() };
        assert_eq!(effective_limits([&budget, &own].into_iter()).max_connections, Some(expected));
    }
}

#[test]
fn a_workload_is_strict_somewhere_if_one_port_is() {
    use Mode::{Permissive, Strict, StrictAudit};
    let mesh = |mode, ports: &[(u16, Mode)]| mesh_policy("m", Scope::Mesh, 0, mode, ports);
    let pods = |mode, ports: &[(u16, Mode)]| mesh_policy("w", Scope::Selected, 0, mode, ports);
    for (policies, expected) in [
        (vec![], false),
        (vec![mesh(Some(StrictAudit), &[])], false),
        (vec![mesh(Some(Strict), &[])], true),
        (vec![mesh(None, &[(80, Strict)])], true),
        (vec![mesh(Some(Strict), &[(80, Permissive)])], true),
        (vec![mesh(Some(Permissive), &[(u16::MAX, Permissive)])], false),
        (vec![mesh(Some(Strict), &[(u16::MAX, Permissive)])], true),
        (vec![mesh(Some(Strict), &[]), pods(Some(Permissive), &[])], false),
        (vec![mesh(None, &[(80, Strict)]), pods(None, &[(80, Permissive)])], false),
    ] {
        assert_eq!(is_strict_somewhere(&policies.iter().collect::<Vec<_>>()), expected, "{policies:?}");
    }
}
