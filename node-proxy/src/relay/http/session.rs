//! Persistent sessions (GEP-1619): a client that was answered by an endpoint brings a seal of it along, in a cookie or a
//! header, and is sent there again, whatever weights and balancing say.
//!
//! Who answered has the session: an answer of another endpoint than the session's, because that one is gone or could not
//! answer, carries a new seal. What a client brings that isn't a seal of this rule means nothing. Under one name there may be
//! the seals of several rules (one after the other, with a dot between them), because a client has only one cookie of a name.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use weft_core::filter::ForwardPlan;
use weft_core::matching::Matched;
use weft_core::route::{BackendTarget, HttpAction, HttpBackend, PathMatch, TextMatch};
use weft_core::snapshot::{Frontend, Snapshot};
use weft_core::traffic::{CookieName, SessionCarrier, SessionPersistence, Sessions};

use super::engine::Engine;
use crate::balance::{EndpointMark, Seal, is_seal};

/// Seals that are looked at in one request.
const MAX_SEALS: usize = 16;
/// Seals of others that are kept beside a new one.
const MAX_OTHERS: usize = 3;

/// The session that a request has, or starts.
pub(super) struct Session<'a> {
    persistence: &'a SessionPersistence,
    backend: &'a Frontend,
    /// Where it is so far.
    endpoint: Option<SocketAddr>,
    /// Of the cookie.
    path: Option<String>,
    /// What came under the same name, and is not of this session.
    others: Vec<String>,
}

/// Where the session that a client brought leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resumed {
    /// The backend, by its place in the rule.
    pub(super) backend: usize,
    endpoint: SocketAddr,
}

/// The session that a request to a rule brings, if it still leads somewhere.
pub(super) fn resume(
    engine: &Engine,
    snapshot: &Snapshot,
    matched: Option<&Matched<'_>>,
    headers: &HeaderMap,
) -> Option<Resumed> {
    let rule = matched?.rule;
    let HttpAction::Forward(backends) = &rule.action else { return None };
    let opened = |session: &SessionPersistence| -> Vec<Seal> {
        let now = engine.unix_now();
        presented(&session.carrier, headers).filter_map(|text| Seal::open(&session.key, text, now)).collect()
    };
    let lead = |index: usize, backend: &HttpBackend, seals: &[Seal]| {
        let BackendTarget::Service(key) = &backend.target else { return None };
        let frontend = snapshot.frontend(key)?;
        let endpoint = seals.iter().find_map(|seal| seal.mark.find(frontend))?;
        Some(Resumed { backend: index, endpoint })
    };
    let mut numbered = backends.iter().enumerate();
    match &rule.sessions {
        Sessions::None => None,
        Sessions::OfRule(session) => {
            let seals = opened(session);
            if seals.is_empty() { None } else { numbered.find_map(|(index, backend)| lead(index, backend, &seals)) }
        }
        Sessions::OfBackends(each) => numbered.zip(each).find_map(|((index, backend), session)| {
            let seals = opened(session.as_ref()?);
            lead(index, backend, &seals)
        }),
    }
}

impl<'a> Session<'a> {
    /// Of a request that a rule sends to a backend, if the rule or a policy of the backend asks for one.
    pub(super) fn of_plan(
        engine: &Engine,
        (plan, match_index): (&ForwardPlan<'a>, usize),
        backend: &'a Frontend,
        resumed: Option<Resumed>,
        headers: &HeaderMap,
    ) -> Option<Box<Self>> {
        let persistence = plan.rule.sessions.of_backend(plan.index)?;
        let endpoint = resumed.filter(|it| it.backend == plan.index).map(|it| it.endpoint);
        // What a Service asks for holds for whatever paths lead to it.
        let path = match &plan.rule.sessions {
            Sessions::OfRule(_) => plan.rule.matches.get(match_index).map(|matched| cookie_path(&matched.path)),
            Sessions::OfBackends(_) | Sessions::None => None,
        };
        let others = others(engine, persistence, headers);
        Some(Box::new(Self { persistence, backend, endpoint, path, others }))
    }

    /// Of a request to a Service without routes, if a policy of it asks for one.
    pub(super) fn of_service(engine: &Engine, backend: &'a Frontend, headers: &HeaderMap) -> Option<Box<Self>> {
        let persistence = backend.service.traffic.as_ref()?.session.as_ref()?;
        let now = engine.unix_now();
        let mut seals = presented(&persistence.carrier, headers);
        let endpoint = seals.find_map(|text| Seal::open(&persistence.key, text, now)?.mark.find(backend));
        let others = others(engine, persistence, headers);
        Some(Box::new(Self { persistence, backend, endpoint, path: None, others }))
    }

    /// Where it is so far.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// Tells the client where its session is, if it doesn't know yet. `secure`: it came by TLS.
    pub(super) fn tell(&self, engine: &Engine, headers: &mut HeaderMap, answered: SocketAddr, secure: bool) {
        if self.endpoint == Some(answered) {
            return;
        }
        let Some(mark) = EndpointMark::of(self.backend, answered) else { return };
        let lasts = self.persistence.absolute_timeout.map(seconds);
        let until = lasts.map_or(0, |lasts| engine.unix_now().saturating_add(lasts));
        let seal = Seal { mark, until: u32::try_from(until).unwrap_or(u32::MAX) };
        let mut value = seal.to_text(&self.persistence.key);
        for other in &self.others {
            value.push('.');
            value.push_str(other);
        }
        match &self.persistence.carrier {
            SessionCarrier::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(name, value);
                }
            }
            // A cookie of that name which the application sets is the application's.
            SessionCarrier::Cookie { name, .. } if sets(headers, name) => {}
            SessionCarrier::Cookie { name, permanent } => {
                let max_age = lasts.filter(|_| *permanent);
                let cookie = self.cookie((name, value), max_age, secure);
                if let Ok(cookie) = HeaderValue::try_from(cookie) {
                    headers.append(SET_COOKIE, cookie);
                }
            }
        }
    }

    fn cookie(&self, (name, value): (&CookieName, String), max_age: Option<u64>, secure: bool) -> String {
        let mut cookie = format!("{}={value}", name.as_str());
        if let Some(path) = &self.path {
            cookie.push_str("; Path=");
            cookie.push_str(path);
        }
        if let Some(seconds) = max_age {
            cookie.push_str(&format!("; Max-Age={seconds}"));
        }
        cookie.push_str("; HttpOnly; SameSite=Lax");
        if secure {
            cookie.push_str("; Secure");
        }
        cookie
    }
}

/// Whole seconds, at least one.
fn seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// What has the form of a seal under a session's name.
pub(super) fn presented<'h>(carrier: &SessionCarrier, headers: &'h HeaderMap) -> impl Iterator<Item = &'h str> {
    let values: Vec<&str> = match carrier {
        SessionCarrier::Header(name) => headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect(),
        SessionCarrier::Cookie { name, .. } => {
            let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.filter(|(key, _)| *key == name.as_str()).map(|(_, value)| value).collect()
        }
    };
    values.into_iter().flat_map(|value| value.split('.')).map(str::trim).filter(|text| is_seal(text)).take(MAX_SEALS)
}

fn others(engine: &Engine, session: &SessionPersistence, headers: &HeaderMap) -> Vec<String> {
    let now = engine.unix_now();
    let mut others: Vec<String> = Vec::new();
    for text in presented(&session.carrier, headers).filter(|text| Seal::open(&session.key, text, now).is_none()) {
        if others.len() < MAX_OTHERS && !others.iter().any(|other| other == text) {
            others.push(text.to_owned());
        }
    }
    others
}

/// Whether an answer sets a cookie.
fn sets(headers: &HeaderMap, name: &CookieName) -> bool {
    let sets = |value: &HeaderValue| {
        let rest = value.as_bytes().trim_ascii_start().strip_prefix(name.as_str().as_bytes());
        rest.is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b'='))
    };
    headers.get_all(SET_COOKIE).iter().any(sets)
}

/// The `Path` of a cookie for what a rule matched (GEP-1619, "Path"): all that a client asks for there starts with it.
fn cookie_path(matched: &PathMatch) -> String {
    let path = match matched {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(pattern) => whole_elements(pattern.literal_prefix()).to_owned(),
        PathMatch::Grpc { service: Some(TextMatch::Exact(service)), method: Some(TextMatch::Exact(method)) } => {
            format!("/{service}/{method}")
        }
        PathMatch::Grpc { service: Some(TextMatch::Exact(service)), .. } => format!("/{service}"),
        PathMatch::Grpc { .. } => String::new(),
    };
    // What can't stand in a cookie (RFC 6265, section 4.1.1) ends it, at the element before.
    let wrong = path.bytes().position(|b| b == b';' || !b.is_ascii_graphic());
    let path = wrong.map_or(path.as_str(), |at| whole_elements(path.get(..at).unwrap_or_default()));
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

/// A path up to its last slash, which is left out.
fn whole_elements(path: &str) -> &str {
    path.rfind('/').and_then(|at| path.get(..at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::route::Pattern;

    #[test]
    fn the_path_of_a_cookie_is_what_the_rule_matches() {
        let exact = |text: &str| Some(TextMatch::Exact(text.into()));
        for (matched, path) in [
            (PathMatch::Exact("/a/b".into()), "/a/b"),
            (PathMatch::Prefix("/a".into()), "/a"),
            (PathMatch::Prefix(String::new()), "/"),
            (PathMatch::Regex(Pattern::new("/p1/p2/.*/p3").unwrap()), "/p1/p2"),
            (PathMatch::Regex(Pattern::new("/foo[0-9]+").unwrap()), "/"),
            (PathMatch::Regex(Pattern::new(".*").unwrap()), "/"),
            (PathMatch::Grpc { service: exact("a.B"), method: exact("C") }, "/a.B/C"),
            (PathMatch::Grpc { service: exact("a.B"), method: None }, "/a.B"),
            (PathMatch::Grpc { service: None, method: exact("C") }, "/"),
            (PathMatch::Prefix("/a/b;c/d".into()), "/a"),
            (PathMatch::Exact("/ä".into()), "/"),
        ] {
            assert_eq!(cookie_path(&matched), path, "{matched:?}");
        }
    }

    #[test]
    fn an_application_may_have_a_cookie_of_the_name() {
        let name = CookieName::new("s").unwrap();
        for (value, want) in [("s=1; Path=/", true), (" s =1", true), ("ss=1", false), ("s", false), ("t=s=1", false)] {
            let headers: HeaderMap = [(SET_COOKIE, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(sets(&headers, &name), want, "{value}");
        }
    }
}
