//! Evaluation of `AuthorizationPolicy` lists.

use std::cell::OnceCell;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};
use smallvec::SmallVec;

use crate::identity::{SpiffeId, TrustDomain, TrustDomains};
use crate::ids::{PolicyKey, Port};
use crate::policy::{Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, HeaderCondition, Operation, Source};

/// What is known of a call where it arrives.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// The identity that the peer proved; `None` for plaintext.
    pub identity: Option<&'a SpiffeId>,
    /// Our trust domain with its aliases: a policy means an identity of ours under whichever of the names it writes.
    pub trust_domains: &'a TrustDomains,
    /// The address of the connection itself, never one from a header.
    pub peer_ip: IpAddr,
    /// The port of the destination pod.
    pub dst_port: Port,
    /// The request, if HTTP is parsed.
    pub http: Option<HttpFacts<'a>>,
}

/// What is known of a request: as it will be forwarded, normalised ([`crate::normalize`]).
#[derive(Clone, Copy, Debug)]
pub struct HttpFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host: lower case, no port, no trailing dot.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// [`crate::normalize::NormalPath::ambiguous`]
    pub ambiguous_path: bool,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// The outcome of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// What is done.
    pub decision: Decision<'a>,
    /// What is only counted and logged.
    pub audits: SmallVec<[Audited<'a>; 2]>,
}

/// Whether a call goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It does.
    Allow {
        /// The ALLOW policy that matched; `None` if there is no ALLOW policy.
        by: Option<&'a PolicyKey>,
    },
    /// It does not.
    Deny(DenyCause<'a>),
}

/// Why a call was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyCause<'a> {
    /// This DENY policy matched.
    Policy(&'a PolicyKey),
    /// There are ALLOW policies and none matched.
    NoAllowMatched,
}

/// What a policy that decides nothing had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audited<'a> {
    /// The policy.
    pub policy: &'a PolicyKey,
    /// What it said.
    pub outcome: Outcome,
}

/// What a policy that decides nothing would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An AUDIT policy matched.
    Matched,
    /// In audit mode: it would allow the call.
    WouldAllow,
    /// In audit mode: it would deny the call, as a DENY that matches or an ALLOW that does not where no other does.
    WouldDeny,
}

impl Verdict<'_> {
    /// Whether the call goes through.
    pub fn is_allowed(&self) -> bool {
        matches!(self.decision, Decision::Allow { .. })
    }
}

/// Decides: any DENY that matches denies; else, if there are ALLOW policies, one of them must match; else the call
/// is allowed. AUDIT policies and those in audit mode are reported and never decide.
pub fn evaluate<'a>(policies: &'a [Arc<AuthorizationPolicy>], facts: &CallFacts<'_>) -> Verdict<'a> {
    let call = Call::new(facts);
    let mut audits = SmallVec::new();
    let (mut denied_by, mut allowed_by, mut has_allow) = (None, None, false);
    let mut would_allow = false;
    for policy in policies {
        let matched = call.matches(policy);
        let mut report = |outcome| audits.push(Audited { policy: &policy.key, outcome });
        match (policy.action, policy.dry_run) {
            (Action::Audit, _) if matched => report(Outcome::Matched),
            (Action::Deny, true) if matched => report(Outcome::WouldDeny),
            (Action::Allow, true) if matched => {
                would_allow = true;
                report(Outcome::WouldAllow);
            }
            (Action::Deny, false) if matched => denied_by = denied_by.or(Some(&policy.key)),
            (Action::Allow, false) => {
                has_allow = true;
                allowed_by = allowed_by.or(matched.then_some(&policy.key));
            }
            (Action::Audit | Action::Deny | Action::Allow, _) => {}
        }
    }
    if allowed_by.is_none() && !would_allow {
        let dry_allows = policies.iter().filter(|it| it.action == Action::Allow && it.dry_run);
        audits.extend(dry_allows.map(|it| Audited { policy: &it.key, outcome: Outcome::WouldDeny }));
    }
    let decision = match (denied_by, has_allow, allowed_by) {
        (Some(policy), _, _) => Decision::Deny(DenyCause::Policy(policy)),
        (None, true, None) => Decision::Deny(DenyCause::NoAllowMatched),
        (None, _, by) => Decision::Allow { by },
    };
    Verdict { decision, audits }
}

/// Whether a policy looks at HTTP, so that the bytes have to be parsed for an exact answer.
pub fn needs_http(policies: &[Arc<AuthorizationPolicy>]) -> bool {
    policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.to).any(Operation::needs_http)
}

impl Operation {
    /// Whether it looks at HTTP.
    pub fn needs_http(&self) -> bool {
        let globs = [&self.methods, &self.not_methods, &self.paths, &self.not_paths, &self.hosts, &self.not_hosts];
        !self.headers.is_empty() || globs.iter().any(|list| !list.is_empty())
    }
}

/// A call with what is worked out once for all policies.
struct Call<'a> {
    facts: &'a CallFacts<'a>,
    peer_ip: IpAddr,
    identity_texts: OnceCell<SmallVec<[IdentityText; 1]>>,
}

impl<'a> Call<'a> {
    fn new(facts: &'a CallFacts<'a>) -> Self {
        Self { facts, peer_ip: facts.peer_ip.to_canonical(), identity_texts: OnceCell::new() }
    }

    fn matches(&self, policy: &AuthorizationPolicy) -> bool {
        let unknown = policy.action == Action::Deny;
        policy.rules.iter().any(|rule| self.matches_rule(rule, unknown))
    }

    fn matches_rule(&self, rule: &AuthorizationRule, unknown: bool) -> bool {
        (rule.from.is_empty() || rule.from.iter().any(|source| self.is_from(source)))
            && (rule.to.is_empty() || rule.to.iter().any(|operation| self.is_to(operation, unknown)))
    }

    fn is_from(&self, source: &Source) -> bool {
        let identity = |list: &[GlobMatch]| self.identity_in(list);
        let namespace = |list: &[GlobMatch]| {
            let namespace = self.facts.identity.map(|it| it.namespace.as_str());
            namespace.is_some_and(|namespace| any(list, namespace))
        };
        let address = |list: &[ipnet::IpNet]| list.iter().any(|net| net.contains(&self.peer_ip));
        listed(&source.identities, &source.not_identities, identity)
            && listed(&source.namespaces, &source.not_namespaces, namespace)
            && listed(&source.addresses, &source.not_addresses, address)
    }

    fn is_to(&self, operation: &Operation, unknown: bool) -> bool {
        let port = |list: &[Port]| list.contains(&self.facts.dst_port);
        if !listed(&operation.ports, &operation.not_ports, port) {
            return false;
        }
        match &self.facts.http {
            _ if !operation.needs_http() => true,
            None => unknown,
            Some(http) => is_http(operation, http, unknown),
        }
    }

    fn identity_in(&self, list: &[GlobMatch]) -> bool {
        let Some(identity) = self.facts.identity else { return false };
        let texts = self.identity_texts.get_or_init(|| IdentityText::all(identity, self.facts.trust_domains));
        texts.iter().map(IdentityText::forms).any(|(whole, bare)| any(list, whole) || any(list, bare))
    }
}

fn is_http(operation: &Operation, http: &HttpFacts<'_>, unknown: bool) -> bool {
    let method = |list: &[GlobMatch]| any(list, http.method.as_str());
    let path = |list: &[GlobMatch]| any(list, http.path);
    let host = |list: &[GlobMatch]| any(list, http.host);
    let looks_at_path = !operation.paths.is_empty() || !operation.not_paths.is_empty();
    let path_holds = match http.ambiguous_path && looks_at_path {
        true => unknown,
        false => {
            let holds = listed(&operation.paths, &operation.not_paths, path);
            // Some servers cut `;x=1` off a segment before they look at it (RFC 3986, section 3.3), and some don't.
            let differs = |bare: &str| listed(&operation.paths, &operation.not_paths, |list| any(list, bare)) != holds;
            let bare = looks_at_path.then(|| without_parameters(http.path)).flatten();
            if bare.is_some_and(|bare| differs(&bare)) { unknown } else { holds }
        }
    };
    path_holds
        && listed(&operation.methods, &operation.not_methods, method)
        && listed(&operation.hosts, &operation.not_hosts, host)
        && operation.headers.iter().all(|condition| has_header(condition, http.headers))
}

/// A path without the parameters of its segments; `None`: it has none.
fn without_parameters(path: &str) -> Option<String> {
    path.contains(';').then(|| {
        let bare: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
        bare.join("/")
    })
}

/// The common shape of conditions: one of the list if there is one, and none of the other.
fn listed<T>(positive: &[T], negative: &[T], is_in: impl Fn(&[T]) -> bool) -> bool {
    (positive.is_empty() || is_in(positive)) && (negative.is_empty() || !is_in(negative))
}

fn any(list: &[GlobMatch], text: &str) -> bool {
    list.iter().any(|glob| glob.is_match(text))
}

/// The values of a repeated header are its lines and, since a sender may join them (RFC 9110, section 5.3), also
/// the elements between the commas of a line.
fn has_header(condition: &HeaderCondition, headers: &HeaderMap) -> bool {
    let mut present = false;
    let mut wanted = condition.values.is_empty();
    for line in headers.get_all(condition.name.as_str()) {
        present = true;
        let line = String::from_utf8_lossy(line.as_bytes());
        for value in std::iter::once(&*line).chain(line.split(',').map(str::trim)) {
            if any(&condition.not_values, value) {
                return false;
            }
            wanted |= any(&condition.values, value);
        }
    }
    present && wanted
}

/// A SPIFFE ID as text, without an allocation for the usual length.
struct IdentityText(SmallVec<[u8; 192]>);

impl IdentityText {
    /// The identity under each of the names that its trust domain has. Patterns are matched with these texts and not
    /// rewritten: so one with a wildcard in the domain means what it says, under each name.
    fn all(identity: &SpiffeId, domains: &TrustDomains) -> SmallVec<[Self; 1]> {
        if !domains.is_ours(&identity.trust_domain) {
            return SmallVec::from_iter([Self::of(&identity.trust_domain, identity)]);
        }
        domains.names().map(|name| Self::of(name, identity)).collect()
    }

    fn of(domain: &TrustDomain, identity: &SpiffeId) -> Self {
        let mut text = Self(SmallVec::new());
        // Writing to memory does not fail.
        _ = write!(text, "{}", SpiffeId { trust_domain: domain.clone(), ..identity.clone() });
        text
    }

    /// The whole ID, and the ID without `spiffe://`.
    fn forms(&self) -> (&str, &str) {
        let whole = std::str::from_utf8(&self.0).unwrap_or_default();
        (whole, whole.strip_prefix("spiffe://").unwrap_or(whole))
    }
}

impl Write for IdentityText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
