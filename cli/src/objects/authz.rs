//! Who may call a workload.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use http::{HeaderMap, Method};
use serde::Serialize;
use weft_core::authorize::{Audited, CallFacts, Decision, DenyCause, HttpFacts, Outcome, evaluate};
use weft_core::identity::SpiffeId;
use weft_core::ids::Port;
use weft_core::normalize;
use weft_core::policy::{Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, Mode, Operation, Source};
use weft_core::snapshot::Snapshot;
use weft_core::workload::{Enrolment, Workload};

use crate::table;

/// A call that is asked about.
pub struct Question<'a> {
    /// A pod, an identity, or `outside`; `None`: nothing is asked.
    pub from: Option<&'a str>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub method: &'a Method,
    pub path: &'a str,
    pub host: &'a str,
    pub headers: &'a HeaderMap,
    /// No request can be looked at.
    pub tcp: bool,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    pub pod: String,
    pub identity: String,
    /// Whether plaintext is taken on the port.
    pub mode: String,
    pub port: u16,
    /// In the order in which they count: DENY, ALLOW, then those that decide nothing.
    pub policies: Vec<PolicyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Answer>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    pub name: String,
    /// `DENY`, `ALLOW` or `AUDIT`.
    pub action: &'static str,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// Any of these; none: it matches nothing.
    pub rules: Vec<RuleView>,
    /// Whether it matches the call that was asked about, taken alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<bool>,
}

/// A rule of a policy, in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleView {
    pub from: String,
    pub to: String,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub from: String,
    pub asks: String,
    pub allowed: bool,
    /// By what.
    pub because: String,
    /// What policies have to say that decide nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audits: Vec<String>,
}

/// Who calls, as far as policies can know.
struct Caller<'a> {
    words: String,
    identity: Option<&'a SpiffeId>,
    address: Option<IpAddr>,
}

impl Access {
    /// Of a workload, and what becomes of a call if one is asked about.
    ///
    /// # Errors
    /// The caller isn't known, or not its address, by which a policy decides.
    pub fn of(snapshot: &Snapshot, called: &Workload, question: &Question<'_>) -> anyhow::Result<Self> {
        let port = match question.port {
            Some(port) => Port::new(port).context("port 0 is nobody's")?,
            None => target_port(snapshot, called).context("no Service sends to this pod: name its port by --port")?,
        };
        let mode = snapshot.mode_for(called, port);
        let mut policies = snapshot.policies_for(called).to_vec();
        policies.sort_by_key(|policy| (policy.dry_run, order(policy.action), policy.key.clone()));
        let mut views: Vec<_> = policies.iter().map(|policy| PolicyView::of(policy)).collect();
        let mut call = None;
        if let Some(from) = question.from {
            let parsed = identity_of(from)?;
            let caller = caller(snapshot, (from, parsed.as_ref()), called, question.address)?;
            if caller.address.is_none() {
                no_policy_decides_by_address(&policies)?;
            }
            let path = normalize::path(question.path.split('?').next().unwrap_or_default())
                .map_err(|error| anyhow::anyhow!("--path {}: {error}", question.path))?;
            let host = normalize::host(question.host).unwrap_or_default();
            let http = HttpFacts {
                method: question.method,
                host: &host,
                path: &path.text,
                ambiguous_path: path.ambiguous,
                headers: question.headers,
            };
            let facts = CallFacts {
                identity: caller.identity,
                trust_domains: &snapshot.mesh().trust_domains,
                // Without one, no policy looks at it.
                peer_ip: caller.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                dst_port: port,
                http: (!question.tcp).then_some(http),
            };
            for (view, policy) in views.iter_mut().zip(&policies) {
                view.matches = Some(matches(policy, &facts));
            }
            let asks = if question.tcp { "bytes".to_owned() } else { format!("{} {}", question.method, path.text) };
            call = Some(Answer::of(snapshot, (called, port), (caller.words, asks), &facts));
        }
        Ok(Self {
            pod: format!("{}/{}", called.namespace, called.name),
            identity: called.identity.to_string(),
            mode: format!("{mode:?}"),
            port: port.get(),
            policies: views,
            call,
        })
    }

    /// Whether a call was asked about that is denied.
    pub fn is_denied(&self) -> bool {
        self.call.as_ref().is_some_and(|call| !call.allowed)
    }
}

/// The first port of a pod that a Service sends to.
fn target_port(snapshot: &Snapshot, called: &Workload) -> Option<Port> {
    let mut ports: Vec<_> =
        super::describe::endpoints_at(snapshot, called).map(|(_, entry)| entry.address.port()).collect();
    ports.sort_unstable();
    Port::new(*ports.first()?)
}

const fn order(action: Action) -> u8 {
    match action {
        Action::Deny => 0,
        Action::Allow => 1,
        Action::Audit => 2,
    }
}

fn identity_of(from: &str) -> anyhow::Result<Option<SpiffeId>> {
    if !from.starts_with("spiffe://") {
        return Ok(None);
    }
    from.parse().map(Some).map_err(|error| anyhow::anyhow!("--from {from}: {error}"))
}

fn caller<'a>(
    snapshot: &'a Snapshot,
    (from, parsed): (&str, Option<&'a SpiffeId>),
    called: &Workload,
    address: Option<IpAddr>,
) -> anyhow::Result<Caller<'a>> {
    if let Some(identity) = parsed {
        let words = identity.to_string();
        return Ok(Caller { words, identity: Some(identity), address });
    }
    if from == "outside" {
        return Ok(Caller { words: "outside, in plaintext".to_owned(), identity: None, address });
    }
    let pod = super::workload(snapshot, from)?;
    let same_family = pod.addresses.iter().find(|ip| called.addresses.iter().any(|it| it.is_ipv4() == ip.is_ipv4()));
    let Some(address) = address.or(same_family.or(pod.addresses.first()).copied()) else {
        bail!("pod {from} has no address: name one by --address");
    };
    let enrolled = pod.enrolment == Enrolment::Enrolled;
    let words = if enrolled { format!("{from} as {}", pod.identity) } else { format!("{from}, in plaintext") };
    Ok(Caller { words, identity: enrolled.then_some(&pod.identity), address: Some(address) })
}

/// What is asked without an address can be answered if nobody looks at it.
fn no_policy_decides_by_address(policies: &[Arc<AuthorizationPolicy>]) -> anyhow::Result<()> {
    let has_addresses = |source: &Source| !source.addresses.is_empty() || !source.not_addresses.is_empty();
    let decides = |policy: &&Arc<AuthorizationPolicy>| policy.rules.iter().flat_map(|it| &it.from).any(has_addresses);
    match policies.iter().find(decides) {
        Some(policy) => bail!("policy {} decides by the caller's address: name one by --address", policy.key),
        None => Ok(()),
    }
}

/// Whether a policy matches: as an ALLOW policy alone it would allow.
fn matches(policy: &AuthorizationPolicy, facts: &CallFacts<'_>) -> bool {
    let alone = AuthorizationPolicy { dry_run: false, ..policy.clone() };
    let alone = [Arc::new(alone)];
    let verdict = evaluate(&alone, facts);
    match policy.action {
        Action::Audit => !verdict.audits.is_empty(),
        Action::Deny => matches!(verdict.decision, Decision::Deny(_)),
        Action::Allow => verdict.is_allowed(),
    }
}

impl Answer {
    fn of(
        snapshot: &Snapshot,
        (called, port): (&Workload, Port),
        (from, asks): (String, String),
        facts: &CallFacts<'_>,
    ) -> Self {
        let answer = |allowed, because: String, audits| Self { from, asks, allowed, because, audits };
        if facts.identity.is_none() && snapshot.mode_for(called, port) == Mode::Strict {
            return answer(false, "plaintext_refused: the pod is Strict".to_owned(), Vec::new());
        }
        if !snapshot.has_policies_of(called) {
            return answer(false, "a policy that the pod lists isn't known".to_owned(), Vec::new());
        }
        let policies = snapshot.policies_for(called);
        let verdict = evaluate(&policies, facts);
        let audits = verdict.audits.iter().map(audit).collect();
        match verdict.decision {
            Decision::Allow { by: Some(policy) } => {
                answer(true, format!("AuthorizationPolicy {policy} allows it"), audits)
            }
            Decision::Allow { by: None } => {
                answer(true, "there is no ALLOW policy, and none denies it".to_owned(), audits)
            }
            Decision::Deny(DenyCause::Policy(policy)) => {
                answer(false, format!("AuthorizationPolicy {policy} denies it"), audits)
            }
            Decision::Deny(DenyCause::NoAllowMatched) => {
                answer(false, "there are ALLOW policies, and none matches".to_owned(), audits)
            }
        }
    }
}

fn audit(audited: &Audited<'_>) -> String {
    let said = match audited.outcome {
        Outcome::Matched => "matches",
        Outcome::WouldAllow => "would allow it",
        Outcome::WouldDeny => "would deny it",
    };
    format!("AuthorizationPolicy {} {said}", audited.policy)
}

impl PolicyView {
    fn of(policy: &AuthorizationPolicy) -> Self {
        Self {
            name: policy.key.to_string(),
            action: match policy.action {
                Action::Allow => "ALLOW",
                Action::Deny => "DENY",
                Action::Audit => "AUDIT",
            },
            mode: if policy.dry_run { "audit" } else { "enforce" },
            rules: policy.rules.iter().map(RuleView::of).collect(),
            matches: None,
        }
    }
}

impl RuleView {
    fn of(rule: &AuthorizationRule) -> Self {
        let any = |parts: Vec<String>, none: &str| if parts.is_empty() { none.to_owned() } else { parts.join(" or ") };
        Self {
            from: any(rule.from.iter().map(source).collect(), "anybody"),
            to: any(rule.to.iter().map(operation).collect(), "anything"),
        }
    }
}

fn glob(pattern: &GlobMatch) -> String {
    match pattern {
        GlobMatch::Any => "*".to_owned(),
        GlobMatch::Exact(text) => text.clone(),
        GlobMatch::Prefix(text) => format!("{text}*"),
        GlobMatch::Suffix(text) => format!("*{text}"),
    }
}

/// `name a, b` for a list that isn't empty.
fn listed<T>(parts: &mut Vec<String>, name: &str, values: &[T], words: impl Fn(&T) -> String) {
    if !values.is_empty() {
        let values: Vec<_> = values.iter().map(words).collect();
        parts.push(format!("{name} {}", values.join(", ")));
    }
}

fn source(source: &Source) -> String {
    let mut parts = Vec::new();
    listed(&mut parts, "identity", &source.identities, glob);
    listed(&mut parts, "not identity", &source.not_identities, glob);
    listed(&mut parts, "namespace", &source.namespaces, glob);
    listed(&mut parts, "not namespace", &source.not_namespaces, glob);
    listed(&mut parts, "address", &source.addresses, ToString::to_string);
    listed(&mut parts, "not address", &source.not_addresses, ToString::to_string);
    if parts.is_empty() { "anybody".to_owned() } else { parts.join(" and ") }
}

fn operation(operation: &Operation) -> String {
    let mut parts = Vec::new();
    listed(&mut parts, "port", &operation.ports, ToString::to_string);
    listed(&mut parts, "not port", &operation.not_ports, ToString::to_string);
    listed(&mut parts, "method", &operation.methods, glob);
    listed(&mut parts, "not method", &operation.not_methods, glob);
    listed(&mut parts, "path", &operation.paths, glob);
    listed(&mut parts, "not path", &operation.not_paths, glob);
    listed(&mut parts, "host", &operation.hosts, glob);
    listed(&mut parts, "not host", &operation.not_hosts, glob);
    listed(&mut parts, "header", &operation.headers, |header| header.name.clone());
    if parts.is_empty() { "anything".to_owned() } else { parts.join(" and ") }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pod       {} as {}\nport      {}, mode {}", self.pod, self.identity, self.port, self.mode)?;
        if self.policies.is_empty() {
            writeln!(f, "policies  none: everybody may call it")?;
        } else {
            let rows = self.policies.iter().flat_map(PolicyView::rows);
            write!(f, "\n{}", table(&["POLICY", "ACTION", "MODE", "MATCHES", "FROM", "TO"], rows))?;
        }
        let Some(call) = &self.call else { return Ok(()) };
        writeln!(f, "\ncall      {} from {}", call.asks, call.from)?;
        writeln!(f, "answer    {}: {}", if call.allowed { "ALLOWED" } else { "DENIED" }, call.because)?;
        call.audits.iter().try_for_each(|audit| writeln!(f, "audit     {audit}"))
    }
}

impl PolicyView {
    /// A row for each rule; what is of the policy stands in the first.
    fn rows(&self) -> Vec<Vec<String>> {
        let matches = self.matches.map_or("", |matches| if matches { "yes" } else { "no" });
        let first = [self.name.as_str(), self.action, self.mode, matches].map(ToOwned::to_owned);
        let rules = self.rules.iter().map(|rule| [rule.from.clone(), rule.to.clone()]);
        let rules: Vec<_> =
            if self.rules.is_empty() { vec![["nobody".into(), "nothing".into()]] } else { rules.collect() };
        let row = |(n, rule): (usize, [String; 2])| {
            let of_policy = if n == 0 { first.clone() } else { Default::default() };
            of_policy.into_iter().chain(rule).collect()
        };
        rules.into_iter().enumerate().map(row).collect()
    }
}
