//! AuthorizationPolicy -> [`core::AuthorizationPolicy`](weft_core::policy::AuthorizationPolicy).
//!
//! A policy fails closed. If any part of an ALLOW or DENY policy can't be understood, it denies everything in its
//! scope (its namespace, or the mesh, if even the targets can't be), and the status says why. An AUDIT policy, or
//! one in mode `Audit`, never decides, so a broken one is only reported.

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_core::ids::{Namespace, PolicyKey, Port};
use weft_core::policy::{
    Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, HeaderCondition, Operation, Source,
};
use weft_core::service::AppProtocol;

use super::gateway_target::GatewayTarget;
use super::policy_target::{self, Applies, Pods, ResolvedTarget, TargetLookup};
use super::service::app_protocol;
use super::{Problem, Reason, summary};
use crate::object::policy::{
    AuthorizationPolicy as Spec, PolicyAction, PolicyHeader, PolicyMode, PolicyOperation, PolicyRule, PolicySource,
};
use crate::object::{Condition, ConditionType, PolicyAncestorStatus};

/// Set by a source on a policy that it could not read in full; the value says why. Makes the policy invalid.
pub const UNREADABLE: &str = "weftmesh.io/unreadable";

/// What became of a policy.
#[derive(Clone, Debug)]
pub struct Translated<P> {
    /// What travels.
    pub policy: P,
    /// Which workloads it is for.
    pub applies: Applies,
    /// Which listeners of Gateways it is for.
    pub gateways: Vec<GatewayTarget>,
    /// One entry for each target.
    pub ancestors: Vec<PolicyAncestorStatus>,
    /// All that is wrong with it.
    pub problems: Vec<Problem>,
}

/// Translates a policy.
pub fn translate(object: &Spec, lookup: &dyn TargetLookup) -> Translated<AuthorizationPolicy> {
    let meta = &object.metadata;
    let key = PolicyKey::new(meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default());
    let kinds = ["Namespace", "Service", "Pod", "Gateway", "ListenerSet"];
    let targets = policy_target::resolve(&key.namespace, object.spec.target_refs.as_deref(), &kinds, lookup);
    let mut problems = Vec::new();
    if let Some(why) = meta.annotations.as_ref().and_then(|a| a.get(UNREADABLE)) {
        problems.push(Problem::new("", Reason::Invalid, why.as_str(), ""));
    }
    let mut rules = Vec::with_capacity(object.spec.rules.len());
    for (i, rule) in object.spec.rules.iter().enumerate() {
        rules.push(self::rule(rule, &format!("spec.rules[{i}]"), &mut problems));
    }
    let mut action = match object.spec.action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Audit => Action::Audit,
    };
    let broken = !problems.is_empty() || targets.invalid;
    if broken {
        rules = match action {
            Action::Allow | Action::Deny => {
                action = Action::Deny;
                vec![AuthorizationRule::default()]
            }
            Action::Audit => Vec::new(),
        };
    }
    let dry_run = object.spec.mode == PolicyMode::Audit;
    let consequence = match (broken, action, dry_run) {
        (false, ..) => "",
        (true, Action::Audit, _) | (true, _, true) => "The policy decides nothing until it is corrected",
        (true, ..) => "Everything in its scope is denied until it is corrected",
    };
    let ancestors = ancestors(&targets.each, &problems, targets.invalid, consequence);
    problems.extend(targets.each.into_iter().filter_map(|t| t.problem));
    let policy = AuthorizationPolicy { key, scope: targets.applies.scope(), action, dry_run, rules };
    Translated { policy, applies: targets.applies, gateways: targets.gateways, ancestors, problems }
}

/// The status of each target: its own problem, else those of the policy.
pub(super) fn ancestors(
    targets: &[ResolvedTarget],
    problems: &[Problem],
    invalid: bool,
    consequence: &str,
) -> Vec<PolicyAncestorStatus> {
    let others = targets.iter().filter_map(|t| t.problem.as_ref()).filter(|p| p.reason == Reason::Invalid);
    let of_policy: Vec<Problem> = problems.iter().chain(others).cloned().collect();
    let entry = |t: &ResolvedTarget| {
        let accepted = match &t.problem {
            _ if invalid || !problems.is_empty() => {
                let reason = of_policy.first().map_or(Reason::Invalid, |p| p.reason);
                let text = format!("{}. {consequence}", summary(&of_policy));
                Condition::new(ConditionType::Accepted, false, reason.as_str(), text.trim_end_matches(". "))
            }
            Some(problem) => {
                Condition::new(ConditionType::Accepted, false, problem.reason.as_str(), problem.to_string())
            }
            None => Condition::new(ConditionType::Accepted, true, "Accepted", "The policy is in force"),
        };
        PolicyAncestorStatus { ancestor_ref: t.target.clone(), conditions: vec![accepted] }
    };
    targets.iter().map(entry).collect()
}

/// Whether a rule looks at HTTP.
pub fn looks_at_http(operation: &Operation) -> bool {
    let lists = [
        &operation.methods,
        &operation.not_methods,
        &operation.paths,
        &operation.not_paths,
        &operation.hosts,
        &operation.not_hosts,
    ];
    lists.iter().any(|l| !l.is_empty()) || !operation.headers.is_empty()
}

/// Ports of Services that say they carry no HTTP, where the policy asks about HTTP: an ALLOW rule can't match
/// there and a DENY rule denies all. `None` if there is nothing to say.
pub fn blind_spots<'a>(
    policy: &AuthorizationPolicy,
    applies: &Applies,
    services: impl Iterator<Item = &'a k8s::Service>,
) -> Option<String> {
    let http: Vec<_> = policy.rules.iter().flat_map(|r| &r.to).filter(|o| looks_at_http(o)).collect();
    let mut spots = Vec::new();
    for service in services.filter(|s| !http.is_empty() && concerns(applies, s)) {
        let spec = service.spec.as_ref();
        for port in spec.and_then(|s| s.ports.as_ref()).into_iter().flatten() {
            let name = port.name.as_deref().unwrap_or_default();
            let protocol = app_protocol(port.protocol.as_deref().unwrap_or("TCP"), port.app_protocol.as_deref(), name);
            let number = match &port.target_port {
                None => Some(port.port),
                Some(IntOrString::Int(n)) => Some(*n),
                Some(IntOrString::String(_)) => None,
            };
            let number = number.and_then(|n| u16::try_from(n).ok()).and_then(Port::new);
            let asked = |o: &&Operation| o.ports.is_empty() || number.is_some_and(|n| o.ports.contains(&n));
            if matches!(protocol, AppProtocol::Tls | AppProtocol::Tcp) && http.iter().any(asked) {
                let meta = &service.metadata;
                let (ns, name) =
                    (meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default());
                spots.push(format!("{ns}/{name}:{}", port.port));
            }
        }
    }
    if spots.is_empty() {
        return None;
    }
    let more = spots.len().saturating_sub(5);
    spots.truncate(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let effect = match policy.action {
        Action::Allow => "no connection there is allowed by these rules",
        Action::Deny => "every connection there that matches the rest of the rule is denied",
        Action::Audit => "connections there are not audited",
    };
    let ports = spots.join(", ");
    Some(format!("The rules ask about HTTP, but these Service ports say that they carry none: {ports}{more}; {effect}"))
}

/// Whether a Service may lead to workloads of the policy.
fn concerns(applies: &Applies, service: &k8s::Service) -> bool {
    let namespace = Namespace::new(service.metadata.namespace.as_deref().unwrap_or("default"));
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else {
        return false;
    };
    match applies {
        Applies::Mesh => true,
        Applies::Namespace(ns) => *ns == namespace,
        Applies::Selected(list) => list.iter().any(|selection| match &selection.pods {
            Pods::All => selection.namespace.as_ref().is_none_or(|ns| *ns == namespace),
            Pods::Matching(_) => selection.selects(&namespace, selector),
            Pods::OfService(key, _) => {
                key.namespace == namespace && Some(key.name.as_str()) == service.metadata.name.as_deref()
            }
        }),
    }
}

fn rule(spec: &PolicyRule, field: &str, problems: &mut Vec<Problem>) -> AuthorizationRule {
    let mut made = AuthorizationRule::default();
    empty(&format!("{field}.from"), spec.from.as_ref(), problems);
    empty(&format!("{field}.to"), spec.to.as_ref(), problems);
    for (i, source) in spec.from.iter().flatten().enumerate() {
        made.from.push(self::source(source, &format!("{field}.from[{i}]"), problems));
    }
    for (i, operation) in spec.to.iter().flatten().enumerate() {
        made.to.push(self::operation(operation, &format!("{field}.to[{i}]"), problems));
    }
    made
}

/// A list that is there but empty reads as "none of them" to one person and as "any" to another.
fn empty<T>(field: &str, list: Option<&Vec<T>>, problems: &mut Vec<Problem>) {
    if list.is_some_and(Vec::is_empty) {
        let message = "is empty: it is not clear whether that means none or any";
        problems.push(Problem::new(field, Reason::Invalid, message, "remove it to mean any"));
    }
}

fn nothing_given(field: &str, what: &str, problems: &mut Vec<Problem>) {
    let message = format!("{what} has no condition");
    problems.push(Problem::new(field, Reason::Invalid, message, "add one, or remove it to mean any"));
}

/// Reads a list of texts with at most one `*` at an end.
fn globs(
    field: &str,
    list: Option<&Vec<String>>,
    problems: &mut Vec<Problem>,
    normal: impl Fn(&str) -> Result<String, &'static str>,
) -> Vec<GlobMatch> {
    empty(field, list, problems);
    let mut made = Vec::new();
    for (i, text) in list.into_iter().flatten().enumerate() {
        let inner = text.strip_prefix('*').or(text.strip_suffix('*')).unwrap_or(text);
        let checked = if text.is_empty() {
            Err("is empty")
        } else if inner.contains('*') {
            Err("has more than one * or one in the middle")
        } else {
            normal(text)
        };
        match checked {
            Ok(text) => made.push(GlobMatch::new(&text)),
            Err(why) => {
                let remedy = "write the whole text, prefix*, *suffix or *";
                problems.push(Problem::new(
                    format!("{field}[{i}]"),
                    Reason::Invalid,
                    format!("{text:?} {why}"),
                    remedy,
                ));
            }
        }
    }
    made
}

fn as_is(text: &str) -> Result<String, &'static str> {
    Ok(text.to_owned())
}

/// The full form, so that the two notations of one identity are one text.
fn identity(text: &str) -> Result<String, &'static str> {
    match text {
        _ if text.starts_with('*') || text.starts_with("spiffe://") => Ok(text.to_owned()),
        _ if text.contains("://") => Err("is not a SPIFFE ID"),
        // `spiffe*` and the like would never match what it seems to.
        _ if text.starts_with('/') => Err("lacks the trust domain"),
        _ => Ok(format!("spiffe://{text}")),
    }
}

fn path(text: &str) -> Result<String, &'static str> {
    match text {
        _ if text.contains(['?', '#']) => Err("has a query or fragment, which is not part of a path"),
        _ if text.starts_with('/') || text.starts_with('*') => Ok(text.to_owned()),
        _ => Err("does not start with /: no path would match"),
    }
}

fn method(text: &str) -> Result<String, &'static str> {
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err("is not upper case: methods are compared as they are");
    }
    as_is(text)
}

fn host(text: &str) -> Result<String, &'static str> {
    if text.contains([':', '/']) {
        return Err("has a port or path: hosts are compared without");
    }
    Ok(text.to_ascii_lowercase())
}

fn networks(field: &str, list: Option<&Vec<String>>, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    empty(field, list, problems);
    let mut made = Vec::new();
    for (i, text) in list.into_iter().flatten().enumerate() {
        let read = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        match read {
            Some(net) => made.push(net.trunc()),
            None => {
                let message = format!("{text:?} is neither an address nor a range");
                problems.push(Problem::new(
                    format!("{field}[{i}]"),
                    Reason::Invalid,
                    message,
                    "write 10.0.0.0/8 or fd00::/8",
                ));
            }
        }
    }
    made
}

fn ports(field: &str, list: Option<&Vec<i64>>, problems: &mut Vec<Problem>) -> Vec<Port> {
    empty(field, list, problems);
    let mut made = Vec::new();
    for (i, number) in list.into_iter().flatten().enumerate() {
        match u16::try_from(*number).ok().and_then(Port::new) {
            Some(port) => made.push(port),
            None => {
                let message = format!("{number} is not a port");
                problems.push(Problem::new(format!("{field}[{i}]"), Reason::Invalid, message, "use 1 to 65535"));
            }
        }
    }
    made
}

fn source(spec: &PolicySource, field: &str, problems: &mut Vec<Problem>) -> Source {
    if *spec == PolicySource::default() {
        nothing_given(field, "a source", problems);
    }
    let at = |name: &str| format!("{field}.{name}");
    Source {
        identities: globs(&at("identities"), spec.identities.as_ref(), problems, identity),
        not_identities: globs(&at("notIdentities"), spec.not_identities.as_ref(), problems, identity),
        namespaces: globs(&at("namespaces"), spec.namespaces.as_ref(), problems, as_is),
        not_namespaces: globs(&at("notNamespaces"), spec.not_namespaces.as_ref(), problems, as_is),
        addresses: networks(&at("addresses"), spec.addresses.as_ref(), problems),
        not_addresses: networks(&at("notAddresses"), spec.not_addresses.as_ref(), problems),
    }
}

fn operation(spec: &PolicyOperation, field: &str, problems: &mut Vec<Problem>) -> Operation {
    if *spec == PolicyOperation::default() {
        nothing_given(field, "an operation", problems);
    }
    let at = |name: &str| format!("{field}.{name}");
    empty(&at("headers"), spec.headers.as_ref(), problems);
    let mut headers = Vec::new();
    for (i, h) in spec.headers.iter().flatten().enumerate() {
        headers.push(header(h, &format!("{field}.headers[{i}]"), problems));
    }
    Operation {
        ports: ports(&at("ports"), spec.ports.as_ref(), problems),
        not_ports: ports(&at("notPorts"), spec.not_ports.as_ref(), problems),
        methods: globs(&at("methods"), spec.methods.as_ref(), problems, method),
        not_methods: globs(&at("notMethods"), spec.not_methods.as_ref(), problems, method),
        paths: globs(&at("paths"), spec.paths.as_ref(), problems, path),
        not_paths: globs(&at("notPaths"), spec.not_paths.as_ref(), problems, path),
        hosts: globs(&at("hosts"), spec.hosts.as_ref(), problems, host),
        not_hosts: globs(&at("notHosts"), spec.not_hosts.as_ref(), problems, host),
        headers,
    }
}

fn header(spec: &PolicyHeader, field: &str, problems: &mut Vec<Problem>) -> HeaderCondition {
    if http::HeaderName::from_bytes(spec.name.as_bytes()).is_err() {
        let message = format!("{:?} is not a header name", spec.name);
        problems.push(Problem::new(
            format!("{field}.name"),
            Reason::Invalid,
            message,
            "use letters, digits and dashes",
        ));
    }
    HeaderCondition {
        name: spec.name.to_ascii_lowercase(),
        values: globs(&format!("{field}.values"), spec.values.as_ref(), problems, as_is),
        not_values: globs(&format!("{field}.notValues"), spec.not_values.as_ref(), problems, as_is),
    }
}
