//! The index answers as a walk through all matches in the order of precedence does.

use std::cmp::Reverse;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Request, rule};
use crate::ids::{RouteKind, RuleKey};
use crate::matching::HttpTable;
use crate::matching::host::HostSpecificity;
use crate::matching::rank::{Rank, WithinHost, normal_prefix};
use crate::route::{HttpRule, PathMatch, RouteRule};

/// Rule, match, bytes of the prefix.
type Found<'a> = (&'a HttpRule, usize, Option<usize>);

/// What the least rank that holds leads to.
fn naive<'a>(rules: &'a [HttpRule], request: &Request) -> Option<Found<'a>> {
    let facts = request.facts();
    let mut best: Option<(Rank<'a>, Found<'a>)> = None;
    for rule in rules {
        let hosts = rule.hostnames.iter().filter(|it| it.matches(facts.host)).map(|it| it.specificity()).max();
        let host = match hosts {
            Some(host) => host,
            None if rule.hostnames.is_empty() => HostSpecificity::Any,
            None => continue,
        };
        for (index, condition) in rule.matches.iter().enumerate().filter(|(_, it)| it.holds(&facts)) {
            let rank = Rank { host: Reverse(host), within: WithinHost::new(rule, index, condition) };
            let prefix_len = match &condition.path {
                PathMatch::Prefix(prefix) => Some(normal_prefix(prefix).len()),
                _ => None,
            };
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, (rule, index, prefix_len)));
            }
        }
    }
    best.map(|(_, found)| found)
}

fn host() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&["", "a.com", "b.a.com", "c.b.a.com", "x.org", "com", ".a.com", "a.co"][..])
}

fn path() -> impl Strategy<Value = String> {
    let element = prop_oneof![8 => Just("a"), 2 => Just("b"), 1 => Just("ab"), 1 => Just("svc.A"), 1 => Just("")];
    proptest::collection::vec(element, 0..5).prop_map(|parts| format!("/{}", parts.join("/")))
}

/// Mostly none: many rules have to hold at once, or precedence is never asked.
fn mostly_none(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just(""), 1 => proptest::sample::select(texts)]
}

fn condition() -> impl Strategy<Value = String> {
    let name = || proptest::sample::select(&["_", "a", "ab", "svc.A", "~a.*", "~.*"][..]);
    let path = prop_oneof![
        3 => path().prop_map(|it| format!("={it}")),
        6 => path(),
        1 => proptest::sample::select(&["~/a.*", "~/.*", "~/a/b", "~.*b"][..]).prop_map(str::to_owned),
        2 => (name(), name()).prop_map(|(service, method)| format!("grpc:{service}/{method}")),
    ];
    let method = mostly_none(&["GET", "POST"]);
    let headers = mostly_none(&["h:v=1", "h:v=2", "h:v=1 h:w=1", "h:w~1|2"]);
    let query = mostly_none(&["q:a=1", "q:a=1 q:b=2", "q:b~."]);
    (path, method, headers, query)
        .prop_map(|(path, method, headers, query)| format!("{path} {method} {headers} {query}"))
}

fn rule_text() -> impl Strategy<Value = String> {
    let names = || proptest::sample::select(&["a/x", "a-b/x", "a/x-y", "b/a"][..]);
    let hostname = proptest::sample::select(&["a.com", "*.a.com", "*.b.a.com", "*.com", "b.a.com", "x.org"][..]);
    let hostnames = prop_oneof![Just(Vec::new()), proptest::collection::vec(hostname, 0..3)];
    let conditions = proptest::collection::vec(condition(), 1..4);
    (names(), 0..3_u16, 0..3_i64, hostnames, conditions).prop_map(|(name, index, created, hostnames, conditions)| {
        let hostnames: String = hostnames.iter().map(|it| format!("host:{it} ")).collect();
        format!("{name}#{index}@{created} {hostnames}{}", conditions.join(" or "))
    })
}

fn request_text() -> impl Strategy<Value = String> {
    let method = proptest::sample::select(&["GET", "POST"][..]);
    let query = proptest::sample::select(&["", "?a=1", "?b=2&a=1", "?a=2&a=1"][..]);
    let headers = proptest::sample::select(&["", "v:1", "v:2 w:1", "v:1 w:1", "V:1"][..]);
    (method, host(), path(), query, headers)
        .prop_map(|(method, host, path, query, headers)| format!("{method} {host}{path}{query} {headers}"))
}

/// What a table says of a request.
fn found<'a>(table: &'a HttpTable, request: &Request) -> Option<(&'a RuleKey, usize, Option<usize>)> {
    table.find(&request.facts()).map(|it| (&it.rule.key, it.match_index, it.prefix_len))
}

/// What is in one list and not in the other.
fn without<'a>(list: &'a [Arc<RouteRule>], other: &'a [Arc<RouteRule>]) -> impl Iterator<Item = &'a Arc<RouteRule>> {
    list.iter().filter(|rule| !other.iter().any(|it| Arc::ptr_eq(it, rule)))
}

#[test]
fn routes_of_two_kinds_and_one_name_have_an_order() {
    let rules = ["a/x#0@0 /", "a/x#0@0 / or grpc:_/_"].map(|text| Arc::new(RouteRule::Http(rule(text))));
    let [http, grpc] = &rules;
    let request = Request::new("GET /a");
    for order in [[http, grpc], [grpc, http]] {
        let table = HttpTable::new(&order.map(Arc::clone));
        assert_eq!(found(&table, &request).map(|(key, ..)| key.route.kind), Some(RouteKind::Grpc));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_table_that_was_edited_finds_what_a_new_one_finds(
        rules in proptest::collection::vec(rule_text(), 4..24),
        edits in proptest::collection::vec(proptest::collection::vec(any::<prop::sample::Index>(), 1..3), 1..6),
        requests in proptest::collection::vec(request_text(), 1..8),
    ) {
        let all: Vec<_> = rules.iter().map(|text| Arc::new(RouteRule::Http(rule(text)))).collect();
        // Which of them are there; each edit turns some around.
        let mut there = vec![true; all.len()];
        let of = |there: &[bool]| -> Vec<_> {
            let mut rules: Vec<_> = all.iter().zip(there).filter(|(_, is)| **is).map(|(rule, _)| Arc::clone(rule)).collect();
            // One object never has two rules in one place.
            rules.sort_by(|a, b| a.key().cmp(b.key()));
            rules.dedup_by(|a, b| a.key() == b.key());
            rules
        };
        let mut table = HttpTable::new(&of(&there));
        for edit in &edits {
            let before = of(&there);
            for index in edit {
                let at = index.index(there.len());
                there[at] = !there[at];
            }
            let after = of(&there);
            let (gone, new) = (without(&before, &after), without(&after, &before));
            table = table.edited(gone, new);
            let fresh = HttpTable::new(&after);
            prop_assert_eq!(table.is_empty(), after.is_empty());
            for text in &requests {
                let request = Request::new(text);
                prop_assert_eq!(found(&table, &request), found(&fresh, &request), "{}", text);
            }
        }
    }

    #[test]
    fn the_index_finds_what_the_ordered_walk_finds(
        rules in proptest::collection::vec(rule_text(), 0..16),
        requests in proptest::collection::vec(request_text(), 1..8),
    ) {
        let mut rules: Vec<HttpRule> = rules.iter().map(|text| rule(text)).collect();
        // One object never has two rules in one place.
        rules.sort_by(|a, b| a.key.cmp(&b.key));
        rules.dedup_by(|a, b| a.key == b.key);
        let shared: Vec<_> = rules.iter().cloned().map(|rule| Arc::new(RouteRule::Http(rule))).collect();
        let table = HttpTable::new(&shared);
        for text in &requests {
            let request = Request::new(text);
            let found = table.find(&request.facts());
            let found = found.map(|it| (&it.rule.key, it.match_index, it.prefix_len));
            let expected = naive(&rules, &request).map(|(rule, index, prefix_len)| (&rule.key, index, prefix_len));
            prop_assert_eq!(found, expected, "{}", text);
        }
    }
}
