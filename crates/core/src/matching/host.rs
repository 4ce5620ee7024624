//! Hostnames of routes and listeners: whether they match, and an index by them.

use std::sync::Arc;

use crate::route::HostnameMatch;
use crate::sharded::ShardedMap;

impl HostnameMatch {
    /// Reads `host` or `*.suffix`; the case of the text does not matter.
    pub fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("*.") {
            Some(suffix) => Self::Suffix(suffix.into()),
            None => Self::Exact(text),
        }
    }

    /// Whether the hostname covers `host` (lower case, no port, no trailing dot). `*.example.com` covers
    /// `a.example.com` and `a.b.example.com`, but not `example.com`.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Suffix(suffix) => match host.strip_suffix(suffix.as_str()) {
                Some(labels) => labels.len() > 1 && labels.ends_with('.'),
                None => false,
            },
        }
    }

    /// Whether some host is covered by both.
    pub fn intersects(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(host), pattern) | (pattern, Self::Exact(host)) => pattern.matches(host),
            (Self::Suffix(a), Self::Suffix(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                long == short || long.strip_suffix(short.as_str()).is_some_and(|head| head.ends_with('.'))
            }
        }
    }

    /// How specific the hostname is, for precedence among those that cover one host.
    pub fn specificity(&self) -> HostSpecificity {
        match self {
            Self::Exact(host) => HostSpecificity::Exact(host.chars().count()),
            Self::Suffix(suffix) => HostSpecificity::Wildcard(suffix.chars().count() + 2),
        }
    }
}

impl std::fmt::Display for HostnameMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// How specific a hostname is; greater wins. "Characters in a matching non-wildcard hostname", then "characters in
/// a matching hostname".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostSpecificity {
    /// No hostname: any host.
    Any,
    /// A wildcard of this many characters.
    Wildcard(usize),
    /// A whole host of this many characters.
    Exact(usize),
}

/// Values by hostname, found from the most specific to the least. A copy costs next to nothing, and an edit of it what it
/// touches.
#[derive(Clone, Debug)]
pub struct HostIndex<T> {
    exact: ShardedMap<Arc<str>, T>,
    /// By the suffix without `*.`.
    wildcard: ShardedMap<Arc<str>, T>,
    any: Option<T>,
    /// Bytes of the longest suffix: a longer tail of a host is not looked up, whatever a client sends.
    longest_suffix: usize,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self { exact: ShardedMap::default(), wildcard: ShardedMap::default(), any: None, longest_suffix: 0 }
    }
}

impl<T: Clone> HostIndex<T> {
    /// Edits the value at a hostname (`None`: any host), made if it is not there.
    pub fn edit(&mut self, hostname: Option<&HostnameMatch>, edit: impl FnOnce(&mut T))
    where
        T: Default,
    {
        match hostname {
            None => edit(self.any.get_or_insert_default()),
            Some(HostnameMatch::Exact(host)) => self.exact.edit(host.as_str(), || host.as_str().into(), edit),
            Some(HostnameMatch::Suffix(suffix)) => {
                self.longest_suffix = self.longest_suffix.max(suffix.len());
                self.wildcard.edit(suffix.as_str(), || suffix.as_str().into(), edit);
            }
        }
    }

    /// The value at just this hostname.
    pub fn get(&self, hostname: Option<&HostnameMatch>) -> Option<&T> {
        match hostname {
            None => self.any.as_ref(),
            Some(HostnameMatch::Exact(host)) => self.exact.get(host.as_str()),
            Some(HostnameMatch::Suffix(suffix)) => self.wildcard.get(suffix.as_str()),
        }
    }

    /// All values, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.wildcard.values_mut()).chain(self.any.as_mut())
    }

    /// Forgets a hostname.
    pub fn remove(&mut self, hostname: Option<&HostnameMatch>) {
        match hostname {
            None => drop(self.any.take()),
            Some(HostnameMatch::Exact(host)) => drop(self.exact.remove(host.as_str())),
            Some(HostnameMatch::Suffix(suffix)) => drop(self.wildcard.remove(suffix.as_str())),
        }
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        let named = self.exact.iter().chain(self.wildcard.iter()).map(|(_, value)| value);
        named.chain(self.any.as_ref())
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    /// The first answer of `ask` to the values whose hostname covers `host`, the most specific first.
    pub fn find<'a, R>(&'a self, host: &str, mut ask: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        if let Some(found) = self.exact.get(host).and_then(&mut ask) {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some(dot) = rest.find('.') {
                let (label, suffix) = (rest.get(..dot)?, rest.get(dot + 1..)?);
                let covered = suffix.len() <= self.longest_suffix && host.len() > suffix.len() + 1;
                // An empty first label (".example.com") is no label at all.
                let covered = covered && !(label.is_empty() && rest.len() == host.len());
                if covered && let Some(found) = self.wildcard.get(suffix).and_then(&mut ask) {
                    return Some(found);
                }
                rest = suffix;
            }
        }
        self.any.as_ref().and_then(ask)
    }
}
