//! What is asked for of the traffic to a backend: persistent sessions (GEP-1619) and a budget of retries (GEP-3388).

use std::fmt;
use std::time::Duration;

use http::HeaderName;

/// What an `XBackendTrafficPolicy` asks for of the traffic to its Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTraffic {
    /// `retryConstraint`
    pub retry: Option<RetryConstraint>,
    /// `sessionPersistence`, for requests that no rule sends here; rules have theirs in [`Sessions`].
    pub session: Option<SessionPersistence>,
}

/// How many of the requests to a backend may be retries: a share of them, or a rate, whichever allows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConstraint {
    /// Of the requests of `interval`, retries included, in percent; 0 to 100.
    pub percent: u8,
    /// How long a request counts.
    pub interval: Duration,
    /// Retries that are allowed in `min_interval` whatever their share.
    pub min_retries: u32,
    /// The time of `min_retries`.
    pub min_interval: Duration,
}

/// `sessionPersistence`: who was answered by an endpoint is sent there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPersistence {
    /// Where the session is kept.
    pub carrier: SessionCarrier,
    /// How long a session lasts, whatever the client does; no limit if absent.
    pub absolute_timeout: Option<Duration>,
    /// What sessions are sealed with.
    pub key: SessionKey,
}

/// What carries a session between a client and the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCarrier {
    /// A cookie (RFC 6265).
    Cookie {
        /// Its name.
        name: CookieName,
        /// `lifetimeType: Permanent`: it says how long it lasts; else it ends with the client's own session.
        permanent: bool,
    },
    /// A header: the answer has it, and later requests have to repeat it.
    Header(HeaderName),
}

/// The name of a cookie: a token (RFC 6265, section 4.1.1; RFC 9110, section 5.6.2), at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(String);

impl CookieName {
    /// The name, if it can be one.
    pub fn new(text: &str) -> Option<Self> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        ((1..=128).contains(&text.len()) && text.bytes().all(token)).then(|| Self(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The secret of the sessions of one rule, or of one Service: whoever has it can tell which endpoint a session means. It is
/// the same at every proxy, so that any of them goes on with a session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey([u8; Self::LEN]);

impl SessionKey {
    /// Its length, in bytes.
    pub const LEN: usize = 16;

    /// The key.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes, which are no business of logs.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// The sessions of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sessions {
    /// None.
    #[default]
    None,
    /// All backends of the rule share one: its own `sessionPersistence`.
    OfRule(Box<SessionPersistence>),
    /// Each backend has its own, or none, in the order of the rule's backends: what policies of their Services ask for.
    OfBackends(Vec<Option<SessionPersistence>>),
}

impl Sessions {
    /// What holds for one of the rule's backends.
    pub fn of_backend(&self, index: usize) -> Option<&SessionPersistence> {
        match self {
            Self::None => None,
            Self::OfRule(session) => Some(session),
            Self::OfBackends(each) => each.get(index)?.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_names_are_tokens() {
        for ok in ["a", "JSESSIONID", "weft-session", "a.b_c~d"] {
            assert_eq!(CookieName::new(ok).unwrap().as_str(), ok);
        }
        for bad in ["", "a b", "a;b", "a=b", "a,b", "ä", "a\"", "a/b", &"x".repeat(129)] {
            assert!(CookieName::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let session = SessionPersistence {
            carrier: SessionCarrier::Header(HeaderName::from_static("x-session")),
            absolute_timeout: None,
            key: SessionKey::new([0xab; 16]),
        };
        let text = format!("{session:?}");
        assert!(!text.contains("171") && !text.contains("ab,") && text.contains("SessionKey(..)"), "{text}");
    }
}
