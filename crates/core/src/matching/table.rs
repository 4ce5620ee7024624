//! The rules of one HTTP frontend, indexed.
//!
//! Per hostname: a map of exact paths, the expressions, and a map of prefixes that is asked for every element
//! boundary of the path (no deeper and no longer than the deepest and longest configured prefix, so that a client
//! cannot make a lookup costly). Each bucket keeps its matches in the order of [`WithinHost`], and the buckets are
//! asked in that order too, so the first match that holds is the winner.
//!
//! A Gateway has thousands of hostnames, and most of them one rule of one prefix: that is what takes little memory here.

mod bucket;

use std::sync::Arc;

use foldhash::HashSet;
use smallvec::SmallVec;

use self::bucket::{Bucket, ByText, Entry};
use crate::matching::RequestFacts;
use crate::matching::condition::grpc_call;
use crate::matching::host::HostIndex;
use crate::matching::rank::normal_prefix;
use crate::route::{HostnameMatch, HttpRule, PathMatch, RouteRule, TextMatch};

/// The HTTP and gRPC rules of one frontend. A copy costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct HttpTable {
    /// Shared with the table before: an edit makes anew what it touches.
    hosts: HostIndex<Arc<HostRules>>,
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
    pub fn new(rules: &[Arc<RouteRule>]) -> Self {
        Self::of(rules, |rule| &rule.hostnames)
    }

    /// The same for a Service, where hostnames have no meaning (GEP-1426); a route may have a Gateway as well, where they
    /// do.
    pub fn without_hostnames(rules: &[Arc<RouteRule>]) -> Self {
        Self::of(rules, |_| &[])
    }

    fn of(rules: &[Arc<RouteRule>], hostnames: impl Fn(&HttpRule) -> &[HostnameMatch]) -> Self {
        let mut hosts = HostIndex::<Arc<HostRules>>::default();
        for shared in rules {
            if let RouteRule::Http(rule) = &**shared {
                for hostname in each(hostnames(rule)) {
                    hosts.edit(hostname, |of_host| Arc::make_mut(of_host).insert(shared, rule));
                }
            }
        }
        hosts.values_mut().for_each(|rules| Arc::make_mut(rules).finish());
        Self { hosts }
    }

    /// The table (of [`HttpTable::new`]) without the rules `gone`, which are in it, and with the rules `new`, which aren't: all
    /// that is of other hostnames is shared, so that an edit of one rule costs what it touches, not what the table holds.
    #[must_use]
    pub fn edited<'a>(
        &self,
        gone: impl IntoIterator<Item = &'a Arc<RouteRule>>,
        new: impl IntoIterator<Item = &'a Arc<RouteRule>>,
    ) -> Self {
        let mut hosts = self.hosts.clone();
        let mut touched = HashSet::default();
        let gone = gone.into_iter().map(|rule| (rule, false));
        for (shared, is_new) in gone.chain(new.into_iter().map(|rule| (rule, true))) {
            let RouteRule::Http(rule) = &**shared else { continue };
            for hostname in each(&rule.hostnames) {
                hosts.edit(hostname, |of_host| match (is_new, Arc::make_mut(of_host)) {
                    (true, of_host) => of_host.insert(shared, rule),
                    (false, of_host) => of_host.remove(shared, rule),
                });
                touched.insert(hostname);
            }
        }
        for hostname in touched {
            hosts.edit(hostname, |of_host| Arc::make_mut(of_host).finish());
            if hosts.get(hostname).is_some_and(|of_host| of_host.is_empty()) {
                hosts.remove(hostname);
            }
        }
        Self { hosts }
    }

    /// Whether it has no rule.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
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

/// The matches of one hostname.
#[derive(Clone, Debug, Default)]
struct HostRules {
    /// By the prefix without its trailing slash.
    prefix: ByText,
    /// The prefix `/`.
    root: Bucket,
    /// Of the keys of `prefix`, in bytes.
    longest: usize,
    /// Of the keys of `prefix`, in path elements.
    deepest: usize,
    /// What most hostnames don't have.
    others: Option<Box<Others>>,
}

/// All but prefixes.
#[derive(Clone, Debug, Default)]
struct Others {
    /// Service and method exact, by the path of the call.
    grpc_calls: ByText,
    /// Service exact, method not.
    grpc_services: ByText,
    /// Service by expression or absent.
    grpc_others: Bucket,
    exact: ByText,
    regex: Bucket,
}

impl HostRules {
    fn insert(&mut self, shared: &Arc<RouteRule>, rule: &HttpRule) {
        for (match_index, condition) in rule.matches.iter().enumerate() {
            let entry = Entry { shared: Arc::clone(shared), match_index };
            self.edit(&condition.path, |bucket| bucket.push(entry));
        }
    }

    fn edit(&mut self, path: &PathMatch, edit: impl FnOnce(&mut Bucket)) {
        match path {
            PathMatch::Exact(path) => self.others().exact.edit(path, edit),
            PathMatch::Regex(_) => edit(&mut self.others().regex),
            PathMatch::Prefix(prefix) => match normal_prefix(prefix) {
                "" => edit(&mut self.root),
                prefix => {
                    self.longest = self.longest.max(prefix.len());
                    self.deepest = self.deepest.max(prefix.matches('/').count());
                    self.prefix.edit(prefix, edit);
                }
            },
            PathMatch::Grpc { service: Some(TextMatch::Exact(service)), method } => match method {
                Some(TextMatch::Exact(method)) => self.others().grpc_calls.edit(&format!("/{service}/{method}"), edit),
                _ => self.others().grpc_services.edit(service, edit),
            },
            PathMatch::Grpc { .. } => edit(&mut self.others().grpc_others),
        }
    }

    fn others(&mut self) -> &mut Others {
        self.others.get_or_insert_default()
    }

    /// Takes a rule out again. What is known of the longest prefix stays: it is only a limit.
    fn remove(&mut self, shared: &Arc<RouteRule>, rule: &HttpRule) {
        for condition in &rule.matches {
            self.edit(&condition.path, |bucket| bucket.retain(|entry| !Arc::ptr_eq(&entry.shared, shared)));
        }
    }

    fn is_empty(&self) -> bool {
        self.root.is_empty() && self.prefix.is_empty() && self.others.is_none()
    }

    /// Puts every bucket in order, and keeps none that is empty.
    fn finish(&mut self) {
        self.prefix.finish();
        bucket::finish(&mut self.root);
        if let Some(others) = &mut self.others {
            let maps = [&mut others.grpc_calls, &mut others.grpc_services, &mut others.exact];
            maps.into_iter().for_each(ByText::finish);
            [&mut others.grpc_others, &mut others.regex].into_iter().for_each(bucket::finish);
        }
        self.others.take_if(|others| others.is_empty());
    }

    fn find(&self, facts: &RequestFacts<'_>) -> Option<Matched<'_>> {
        let others = self.others.as_ref().and_then(|others| others.find(facts));
        others.or_else(|| self.find_prefix(facts)).or_else(|| first_beside_path(&self.root, facts, Some(0)))
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

impl Others {
    fn is_empty(&self) -> bool {
        let buckets = [&self.grpc_others, &self.regex];
        [&self.grpc_calls, &self.grpc_services, &self.exact].into_iter().all(ByText::is_empty)
            && buckets.into_iter().all(|bucket| bucket.is_empty())
    }

    fn find(&self, facts: &RequestFacts<'_>) -> Option<Matched<'_>> {
        self.find_grpc(facts)
            .or_else(|| first_beside_path(self.exact.get(facts.path)?, facts, None))
            .or_else(|| first(&self.regex, facts))
    }

    fn find_grpc(&self, facts: &RequestFacts<'_>) -> Option<Matched<'_>> {
        if self.grpc_calls.is_empty() && self.grpc_services.is_empty() && self.grpc_others.is_empty() {
            return None;
        }
        let (service, _) = grpc_call(facts.path)?;
        let exact = self.grpc_calls.get(facts.path).and_then(|bucket| first_beside_path(bucket, facts, None));
        exact.or_else(|| first(self.grpc_services.get(service)?, facts)).or_else(|| first(&self.grpc_others, facts))
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
