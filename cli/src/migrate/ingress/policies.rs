//! What stands beside routes: who may come in, TLS towards backends, and permissions to refer to other namespaces.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::backends::{Backend, OfServices, protocol_of};
use super::input::Key;
use super::parts::Part;
use super::path::{Match, Plan};
use super::report::{Level, Report};
use super::sites::Site;

/// Conditions of one operation of a policy.
const MOST_PATHS: usize = 256;

/// What an AuthorizationPolicy says of a part: hosts, and paths where the host isn't this Ingress's alone.
fn operation(part: &Part, (plans, shared): (&[Plan], bool), parts: &[Part]) -> Option<Value> {
    let mut made = Map::new();
    if !part.hostnames.is_empty() {
        made.insert("hosts".to_owned(), json!(part.hostnames));
    }
    let others = other_hosts(part, parts);
    if !others.is_empty() {
        made.insert("notHosts".to_owned(), json!(others));
    }
    if shared {
        let paths: BTreeSet<String> = plans.iter().flat_map(|plan| globs(&plan.matched)).collect();
        let root = paths.contains("/*");
        if !root && (1..=MOST_PATHS).contains(&paths.len()) {
            made.insert("paths".to_owned(), json!(paths));
        }
    }
    (!made.is_empty()).then(|| Value::Object(made))
}

/// Hosts of others that hosts of a part cover. Of a host without a rule for all paths the rest is served by the part's own
/// rules, so the policy is for that too.
fn other_hosts(part: &Part, parts: &[Part]) -> BTreeSet<String> {
    let covers = |name: &&String| {
        let wild = |own: &String| own.strip_prefix('*').is_some_and(|end| name.ends_with(end));
        !part.hostnames.contains(name) && (part.hostnames.is_empty() || part.hostnames.iter().any(wild))
    };
    // Where requests come in by a listener that the other isn't on, they are the part's too.
    let (plain, tls) = part.doors();
    let everywhere = |other: &&Part| (other.doors().0 || !plain) && (other.doors().1 || !tls);
    let others = parts.iter().filter(|other| other.class == part.class && other.has_root()).filter(everywhere);
    others.flat_map(|other| &other.hostnames).filter(covers).cloned().collect()
}

/// The paths of a match as a policy says them. Of an expression what all its paths begin with: rather too much is kept out.
fn globs(matched: &Match) -> Vec<String> {
    match matched {
        Match::Exact(path) => vec![path.clone()],
        Match::Prefix(path) => {
            let path = path.trim_end_matches('/');
            let itself = (!path.is_empty()).then(|| path.to_owned());
            itself.into_iter().chain([format!("{path}/*")]).collect()
        }
        // In whatever case of letters, so nothing is certain but the slash.
        Match::Expression(_) => vec!["/*".to_owned()],
    }
}

/// The policy of a part, if clients are told apart by their addresses. It denies, because one that allows would deny all
/// other hosts of the Gateway.
pub fn authorization(part: &Part, of: (&[Plan], bool), (site, parts): (&Site, &[Part])) -> Option<Value> {
    let (allow, deny) = (&part.settings.allow, &part.settings.deny);
    let to = operation(part, of, parts);
    let rule = |source: Value| {
        let mut rule = json!({ "from": [source] });
        if let (Some(map), Some(to)) = (rule.as_object_mut(), &to) {
            map.insert("to".to_owned(), json!([to]));
        }
        rule
    };
    let mut rules = Vec::new();
    if !allow.is_empty() {
        rules.push(rule(json!({ "notAddresses": allow })));
    }
    if !deny.is_empty() {
        rules.push(rule(json!({ "addresses": deny })));
    }
    if rules.is_empty() {
        return None;
    }
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": site.name });
    // Two Ingresses of one name in two namespaces may be at one Gateway.
    let own = part.namespace == site.namespace;
    let suffix = if own { "-addresses".to_owned() } else { format!("-{}-addresses", part.namespace) };
    Some(json!({
        "apiVersion": "weftmesh.io/v1alpha1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": part.object_name(&suffix), "namespace": site.namespace },
        "spec": { "targetRefs": [target], "action": "DENY", "rules": rules },
    }))
}

/// BackendTLSPolicies, one for each Service.
#[derive(Default)]
pub struct BackendTls(BTreeMap<Key, (String, Value)>);

impl BackendTls {
    /// Those of a part's backends.
    pub fn add(&mut self, part: &Part, backends: &BTreeSet<Backend>, services: &OfServices, report: &mut Report) {
        for backend in backends.iter().filter(|backend| protocol_of(part, backend, services).is_tls()) {
            let (namespace, name) = backend.key();
            let own = format!("{name}.{namespace}.svc");
            let told = part.settings.server_name.clone().or_else(|| part.settings.upstream_host.clone());
            let hostname = told.unwrap_or(own);
            let mut validation = Map::new();
            match &part.settings.authorities {
                Some((_, secret)) => {
                    let reference = json!([{ "group": "", "kind": "ConfigMap", "name": format!("{secret}-ca") }]);
                    validation.insert("caCertificateRefs".to_owned(), reference);
                }
                None => {
                    let how = format!(
                        "BackendTLSPolicy {namespace}/{name}: verified by the public authorities as {hostname}"
                    );
                    let remedy = "give it the authority and the name of the backends' certificate";
                    let setting = format!("TLS to Service {name}");
                    report.say(Level::Differs, (&part.label, &setting, ""), how, remedy);
                    validation.insert("wellKnownCACertificates".to_owned(), json!("System"));
                }
            }
            validation.insert("hostname".to_owned(), json!(hostname));
            let policy = json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "BackendTLSPolicy",
                "metadata": { "name": name, "namespace": namespace },
                "spec": { "targetRefs": [{ "group": "", "kind": "Service", "name": name }], "validation": validation },
            });
            let (first, kept) = self.0.entry((namespace, name)).or_insert_with(|| (part.label.clone(), policy.clone()));
            if *kept != policy {
                let why = format!("a Service has one BackendTLSPolicy, and {first} asks for another");
                report.say(Level::LeftOut, (&part.label, "TLS to backends", ""), why, "let both ask for the same");
            }
        }
    }

    /// The objects.
    pub fn documents(self) -> impl Iterator<Item = Value> {
        self.0.into_values().map(|(_, policy)| policy)
    }
}

/// ReferenceGrants: in a namespace, from a kind of another, to objects of a kind.
#[derive(Default)]
pub struct Grants(BTreeMap<(String, String, String, String), BTreeSet<String>>);

impl Grants {
    /// Permits one reference.
    pub fn permit(&mut self, (kind, from): (&str, &str), to_kind: &str, (namespace, name): (&str, &str)) {
        if from == namespace {
            return;
        }
        let key = (namespace.to_owned(), from.to_owned(), kind.to_owned(), to_kind.to_owned());
        self.0.entry(key).or_default().insert(name.to_owned());
    }

    /// The objects.
    pub fn documents(self) -> impl Iterator<Item = Value> {
        self.0.into_iter().map(|((namespace, from, kind, to_kind), names)| {
            let to: Vec<_> = names.iter().map(|name| json!({ "group": "", "kind": to_kind, "name": name })).collect();
            let name = format!("{}s-of-{from}", kind.to_ascii_lowercase());
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "ReferenceGrant",
                "metadata": { "name": format!("{name}-to-{}s", to_kind.to_ascii_lowercase()), "namespace": namespace },
                "spec": {
                    "from": [{ "group": "gateway.networking.k8s.io", "kind": kind, "namespace": from }],
                    "to": to,
                },
            })
        })
    }
}
