//! Precedence: every `matches[]` entry of a frontend has a [`Rank`], and the least rank that holds wins.
//!
//! The order of the fields is the order of the spec's sentences (HTTPRouteRule and GRPCRouteRule, `matches`).
//! What the spec leaves to the implementation:
//! - A `RegularExpression` path comes after `Exact` and before every prefix, the longer expression first: were it
//!   after the prefixes, the usual catch-all rule `/` would make every expression on its host dead.
//! - In a gRPC match an expression comes after all exact names and before an absent one.
//! - Rules of a GRPCRoute come before those of an HTTPRoute of the same hostname. The controller accepts only one
//!   of the two where they meet, so this decides nothing that users can see.

use std::cmp::{Ordering, Reverse};

use crate::ids::RouteKey;
use crate::matching::host::HostSpecificity;
use crate::route::{HttpMatch, HttpRule, L4Rule, PathMatch, TextMatch};

/// Where a match stands among all the matches of a frontend; less comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank<'a> {
    /// The hostname, the most specific first.
    pub host: Reverse<HostSpecificity>,
    /// All but the hostname.
    pub within: WithinHost<'a>,
}

/// The rank among the matches of one hostname; less comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WithinHost<'a> {
    path: PathRank,
    /// "Method match."
    no_method: bool,
    /// "Largest number of header matches."
    headers: Reverse<usize>,
    /// "Largest number of query param matches."
    query: Reverse<usize>,
    route: RouteAge<'a>,
    /// "The FIRST matching rule (in list order)."
    rule_index: u16,
    match_index: usize,
}

impl<'a> WithinHost<'a> {
    /// The rank of `rule.matches[match_index]`.
    pub fn new(rule: &'a HttpRule, match_index: usize, condition: &HttpMatch) -> Self {
        Self {
            path: PathRank::new(&condition.path),
            no_method: condition.method.is_none(),
            headers: Reverse(condition.headers.len()),
            query: Reverse(condition.query.len()),
            route: RouteAge::of_http(rule),
            rule_index: rule.key.index,
            match_index,
        }
    }
}

/// The rank of a path condition. The order of the variants matters: it is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// "Characters in a matching service", "characters in a matching method".
    Grpc(NameRank, NameRank),
    /// "'Exact' path match."
    Exact,
    /// Characters of the expression.
    Regex(Reverse<usize>),
    /// "'Prefix' path match with largest number of characters."
    Prefix(Reverse<usize>),
}

impl PathRank {
    fn new(path: &PathMatch) -> Self {
        match path {
            PathMatch::Exact(_) => Self::Exact,
            PathMatch::Regex(pattern) => Self::Regex(Reverse(pattern.source().chars().count())),
            PathMatch::Prefix(prefix) => Self::Prefix(Reverse(normal_prefix(prefix).chars().count())),
            PathMatch::Grpc { service, method } => {
                Self::Grpc(NameRank::new(service.as_ref()), NameRank::new(method.as_ref()))
            }
        }
    }
}

/// The rank of a gRPC service or method name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NameRank {
    Exact(Reverse<usize>),
    Regex(Reverse<usize>),
    Any,
}

impl NameRank {
    fn new(name: Option<&TextMatch>) -> Self {
        match name {
            Some(TextMatch::Exact(text)) => Self::Exact(Reverse(text.chars().count())),
            Some(TextMatch::Regex(pattern)) => Self::Regex(Reverse(pattern.source().chars().count())),
            None => Self::Any,
        }
    }
}

/// The order among routes when their matches tie: "the oldest Route based on creation timestamp", then "appearing
/// first in alphabetical order by {namespace}/{name}", then by kind, so that no two routes are equal and what a table finds
/// doesn't hang on the order in which its rules came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteAge<'a> {
    created: crate::route::Created,
    route: &'a RouteKey,
}

impl<'a> RouteAge<'a> {
    /// Of the route that holds an HTTP rule.
    pub fn of_http(rule: &'a HttpRule) -> Self {
        Self { created: rule.created, route: &rule.key.route }
    }

    /// Of the route that holds an L4 rule.
    pub fn of_l4(rule: &'a L4Rule) -> Self {
        Self { created: rule.created, route: &rule.key.route }
    }

    /// The bytes of `{namespace}/{name}`: `a-b/x` comes before `a/x`, because `-` comes before `/`.
    fn text(&self) -> impl Iterator<Item = u8> + 'a {
        let RouteKey { namespace, name, .. } = self.route;
        namespace.as_str().bytes().chain(std::iter::once(b'/')).chain(name.as_str().bytes())
    }
}

impl Ord for RouteAge<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_name = || self.text().cmp(other.text());
        self.created.cmp(&other.created).then_with(by_name).then_with(|| self.route.kind.cmp(&other.route.kind))
    }
}

impl PartialOrd for RouteAge<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A prefix as it is compared: "when specified, a trailing `/` is ignored", so `/` is the empty text.
pub fn normal_prefix(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}
