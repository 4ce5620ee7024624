//! The rules of one HTTP frontend, indexed.
//!
//! Per hostname: a map of exact paths, the expressions, and a map of prefixes that is asked for every element
//! boundary of the path (no deeper and no longer than the deepest and longest configured prefix, so that a client
//! cannot make a lookup costly). Each bucket keeps its matches in the order of [`WithinHost`], and the buckets are
//! asked in that order too, so the first match that holds is the winner.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::matching::RequestFacts;
use crate::matching::condition::grpc_call;
use crate::matching::host::HostIndex;
use crate::matching::rank::{WithinHost, normal_prefix};
use crate::route::{HostnameMatch, HttpMatch, HttpRule, PathMatch, RouteRule, TextMatch};

/// The HTTP and gRPC rules of one frontend.
#[derive(Clone, Debug, Default)]
pub struct HttpTable {
    /// Shared with the table before: an edit makes anew what it touches.
    hosts: HostIndex<Arc<HostRules>>,
    rules: Vec<Arc<RouteRule>>,
}

/// The rule that a request gets.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// The rule.
    pub rule: &'a HttpRule,
    /// The rule as it is shared, to keep it.
    pub shared: &'a Arc<RouteRule>,
    /// Which of `rule.matches` held.
    pub match_index: usize,
    /// Bytes of the path that a prefix match covered, without the trailing slash; `None` for other path matches.
    pub prefix_len: Option<usize>,
}

impl HttpTable {
    /// A table of the HTTP and gRPC rules among `rules`, in any order.
    pub fn new(rules: Vec<Arc<RouteRule>>) -> Self {
        Self::of(rules, |rule| &rule.hostnames)
    }

    /// The same for a Service, where hostnames have no meaning (GEP-1426); a route may have a Gateway as well, where they
    /// do.
    pub fn without_hostnames(rules: Vec<Arc<RouteRule>>) -> Self {
        Self::of(rules, |_| &[])
    }

    fn of(rules: Vec<Arc<RouteRule>>, hostnames: impl Fn(&HttpRule) -> &[HostnameMatch]) -> Self {
        let mut hosts = HostIndex::<Arc<HostRules>>::default();
        for shared in &rules {
            if let RouteRule::Http(rule) = &**shared {
                for hostname in each(hostnames(rule)) {
                    Arc::make_mut(hosts.entry(hostname)).insert(shared, rule);
                }
            }
        }
        hosts.values_mut().for_each(|rules| Arc::make_mut(rules).finish());
        Self { hosts, rules }
    }

    /// The table of other rules, made of this one (of [`HttpTable::new`]): hostnames whose rules stay the same are shared, so
    /// that an edit of one rule among thousands costs little.
    #[must_use]
    pub fn edited(&self, rules: Vec<Arc<RouteRule>>) -> Self {
        let address = |rule: &Arc<RouteRule>| Arc::as_ptr(rule).addr();
        let (before, after): (HashSet<_>, HashSet<_>) =
            (self.rules.iter().map(address).collect(), rules.iter().map(address).collect());
        let gone: Vec<_> = self.rules.iter().filter(|rule| !after.contains(&address(rule))).collect();
        let new: Vec<_> = rules.iter().filter(|rule| !before.contains(&address(rule))).collect();
        if gone.len() + new.len() > rules.len() / 2 {
            return Self::new(rules);
        }
        let mut hosts = self.hosts.clone();
        let mut touched = HashSet::default();
        let names = |rule: &Arc<RouteRule>| match &**rule {
            RouteRule::Http(rule) => each(&rule.hostnames).map(Option::<&HostnameMatch>::cloned).collect(),
            RouteRule::L4(_) => Vec::new(),
        };
        for (shared, is_new) in gone.into_iter().map(|it| (it, false)).chain(new.into_iter().map(|it| (it, true))) {
            let RouteRule::Http(rule) = &**shared else { continue };
            for hostname in names(shared) {
                let of_host = Arc::make_mut(hosts.entry(hostname.as_ref()));
                if is_new {
                    of_host.insert(shared, rule)
                } else {
                    of_host.remove(shared, rule)
                }
                touched.insert(hostname);
            }
        }
        for hostname in touched {
            let of_host = Arc::make_mut(hosts.entry(hostname.as_ref()));
            of_host.finish();
            if of_host.is_empty() {
                hosts.remove(hostname.as_ref());
            }
        }
        Self { hosts, rules }
    }

    /// The rules it was made of, in no order.
    pub fn rules(&self) -> &[Arc<RouteRule>] {
        &self.rules
    }

    /// The rule with the highest precedence that matches, or `None`: 404.
    pub fn find<'a>(&'a self, facts: &RequestFacts<'_>) -> Option<Matched<'a>> {
        self.hosts.find(facts.host, |rules| rules.find(facts))
    }
}

/// The hostnames of a rule; any, if it has none.
fn each(hostnames: &[HostnameMatch]) -> impl Iterator<Item = Option<&HostnameMatch>> {
    hostnames.is_empty().then_some(None).into_iter().chain(hostnames.iter().map(Some))
}

/// One match of one rule.
#[derive(Clone, Debug)]
struct Entry {
    shared: Arc<RouteRule>,
    match_index: usize,
}

impl Entry {
    fn parts(&self) -> Option<(&HttpRule, &HttpMatch)> {
        match &*self.shared {
            RouteRule::Http(rule) => Some((rule, rule.matches.get(self.match_index)?)),
            RouteRule::L4(_) => None,
        }
    }

    fn rank(&self) -> Option<WithinHost<'_>> {
        self.parts().map(|(rule, condition)| WithinHost::new(rule, self.match_index, condition))
    }

    fn matched(&self, prefix_len: Option<usize>) -> Option<Matched<'_>> {
        let (rule, _) = self.parts()?;
        Some(Matched { rule, shared: &self.shared, match_index: self.match_index, prefix_len })
    }
}

/// Matches in the order of precedence.
type Bucket = Vec<Entry>;

/// The matches of one hostname.
#[derive(Clone, Debug, Default)]
struct HostRules {
    /// Service and method exact, by the path of the call.
    grpc_calls: HashMap<Box<str>, Bucket>,
    /// Service exact, method not.
    grpc_services: HashMap<Box<str>, Bucket>,
    /// Service by expression or absent.
    grpc_others: Bucket,
    exact: HashMap<Box<str>, Bucket>,
    regex: Bucket,
    /// By the prefix without its trailing slash.
    prefix: HashMap<Box<str>, Bucket>,
    /// The prefix `/`.
    root: Bucket,
    /// Of the keys of `prefix`, in bytes.
    longest: usize,
    /// Of the keys of `prefix`, in path elements.
    deepest: usize,
}

impl HostRules {
    fn insert(&mut self, shared: &Arc<RouteRule>, rule: &HttpRule) {
        for (match_index, condition) in rule.matches.iter().enumerate() {
            self.bucket(&condition.path).push(Entry { shared: Arc::clone(shared), match_index });
        }
    }

    fn bucket(&mut self, path: &PathMatch) -> &mut Bucket {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            PathMatch::Regex(_) => &mut self.regex,
            PathMatch::Prefix(prefix) => match normal_prefix(prefix) {
                "" => &mut self.root,
                prefix => {
                    self.longest = self.longest.max(prefix.len());
                    self.deepest = self.deepest.max(prefix.matches('/').count());
                    self.prefix.entry(prefix.into()).or_default()
                }
            },
            PathMatch::Grpc { service: Some(TextMatch::Exact(service)), method } => match method {
                Some(TextMatch::Exact(method)) => {
                    self.grpc_calls.entry(format!("/{service}/{method}").into()).or_default()
                }
                _ => self.grpc_services.entry(service.as_str().into()).or_default(),
            },
            PathMatch::Grpc { .. } => &mut self.grpc_others,
        }
    }

    /// Takes a rule out again. What is known of the longest prefix stays: it is only a limit.
    fn remove(&mut self, shared: &Arc<RouteRule>, rule: &HttpRule) {
        for condition in &rule.matches {
            self.bucket(&condition.path).retain(|entry| !Arc::ptr_eq(&entry.shared, shared));
        }
        for map in [&mut self.grpc_calls, &mut self.grpc_services, &mut self.exact, &mut self.prefix] {
            map.retain(|_, bucket| !bucket.is_empty());
        }
    }

    fn is_empty(&self) -> bool {
        let maps = [&self.grpc_calls, &self.grpc_services, &self.exact, &self.prefix];
        let buckets = [&self.grpc_others, &self.regex, &self.root];
        maps.into_iter().all(|map| map.is_empty()) && buckets.into_iter().all(|bucket| bucket.is_empty())
    }

    /// Puts every bucket in order.
    fn finish(&mut self) {
        let maps = [&mut self.grpc_calls, &mut self.grpc_services, &mut self.exact, &mut self.prefix];
        let buckets = maps.into_iter().flat_map(HashMap::values_mut);
        for bucket in buckets.chain([&mut self.grpc_others, &mut self.regex, &mut self.root]) {
            bucket.sort_by(|a, b| a.rank().cmp(&b.rank()));
            bucket.shrink_to_fit();
        }
    }

    fn find(&self, facts: &RequestFacts<'_>) -> Option<Matched<'_>> {
        self.find_grpc(facts)
            .or_else(|| first_beside_path(self.exact.get(facts.path)?, facts, None))
            .or_else(|| first(&self.regex, facts))
            .or_else(|| self.find_prefix(facts))
            .or_else(|| first_beside_path(&self.root, facts, Some(0)))
    }

    fn find_grpc(&self, facts: &RequestFacts<'_>) -> Option<Matched<'_>> {
        if self.grpc_calls.is_empty() && self.grpc_services.is_empty() && self.grpc_others.is_empty() {
            return None;
        }
        let (service, _) = grpc_call(facts.path)?;
        let exact = self.grpc_calls.get(facts.path).and_then(|bucket| first_beside_path(bucket, facts, None));
        exact.or_else(|| first(self.grpc_services.get(service)?, facts)).or_else(|| first(&self.grpc_others, facts))
    }

    fn find_prefix(&self, facts: &RequestFacts<'_>) -> Option<Matched<'_>> {
        if self.prefix.is_empty() || !facts.path.starts_with('/') {
            return None;
        }
        // Shortest first, because that is how the path is read; the longest that holds wins. Only configured
        // prefixes of each other are kept, which are few.
        let mut found = SmallVec::<[(usize, &Bucket); 8]>::new();
        let mut end = 0;
        for _ in 0..self.deepest {
            let Some(rest) = facts.path.get(end + 1..) else { break };
            end = rest.find('/').map_or(facts.path.len(), |slash| end + 1 + slash);
            if end > self.longest {
                break;
            }
            if let Some(bucket) = facts.path.get(..end).and_then(|prefix| self.prefix.get(prefix)) {
                found.push((end, bucket));
            }
        }
        found.into_iter().rev().find_map(|(len, bucket)| first_beside_path(bucket, facts, Some(len)))
    }
}

/// The first of a bucket that holds.
fn first<'a>(bucket: &'a Bucket, facts: &RequestFacts<'_>) -> Option<Matched<'a>> {
    let held = bucket.iter().find(|entry| entry.parts().is_some_and(|(_, condition)| condition.holds(facts)));
    held.and_then(|entry| entry.matched(None))
}

/// The first of a bucket that holds, when its key already settled the path.
fn first_beside_path<'a>(
    bucket: &'a Bucket,
    facts: &RequestFacts<'_>,
    prefix_len: Option<usize>,
) -> Option<Matched<'a>> {
    let held = bucket.iter().find(|entry| entry.parts().is_some_and(|(_, it)| it.holds_beside_path(facts)));
    held.and_then(|entry| entry.matched(prefix_len))
}
