//! A small language for rules and requests, so that a case reads like the sentence it is named after.
//!
//! Rule: `ns/name#index@created host:NAME =/exact | /prefix | ~regex | grpc:SERVICE/METHOD METHOD h:NAME=VALUE
//! q:NAME=VALUE or ...`; `~` in place of `=` makes an expression, `_` in `grpc:` stands for absent. Request:
//! `METHOD host/path?query name:value...`.

mod grpc;
mod http_route;
mod l4;
mod listener;
mod property;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{HttpTable, Matched, RequestFacts};
use crate::ids::{RouteKey, RouteKind, RuleKey};
use crate::matching::rank::normal_prefix;
use crate::route::{
    Created, HeaderMatch, HostnameMatch, HttpAction, HttpMatch, HttpRule, PathMatch, Pattern, QueryMatch, RouteRule,
    TextMatch, Timeouts,
};

/// The key of a rule written `ns/name#index@created`, and when its route was made.
pub(super) fn key_of(text: &str, kind: RouteKind) -> (RuleKey, Created) {
    let (text, created) = text.split_once('@').unwrap_or((text, "0"));
    let (text, index) = text.split_once('#').unwrap_or((text, "0"));
    let (namespace, name) = text.split_once('/').unwrap_or(("ns", text));
    let route = RouteKey { kind, namespace: namespace.into(), name: name.into() };
    (RuleKey { route, index: index.parse().unwrap() }, Created { unix_seconds: created.parse().unwrap() })
}

fn text_match(text: &str) -> (String, TextMatch) {
    let at = text.find(['=', '~']).unwrap_or_else(|| panic!("{text} has no = or ~"));
    let (name, value) = (text[..at].to_owned(), &text[at + 1..]);
    let value = match &text[at..=at] {
        "=" => TextMatch::Exact(value.into()),
        _ => TextMatch::Regex(Pattern::new(value).unwrap()),
    };
    (name, value)
}

fn grpc_name(text: &str) -> Option<TextMatch> {
    match text.strip_prefix('~') {
        Some(pattern) => Some(TextMatch::Regex(Pattern::new(pattern).unwrap())),
        None if text == "_" => None,
        None => Some(TextMatch::Exact(text.into())),
    }
}

fn empty_match() -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(String::new()), method: None, headers: vec![], query: vec![] }
}

/// Reads a rule.
pub(super) fn rule(text: &str) -> HttpRule {
    let mut tokens = text.split_whitespace();
    let kind = if text.contains(" grpc:") { RouteKind::Grpc } else { RouteKind::Http };
    let (key, created) = key_of(tokens.next().unwrap(), kind);
    let (mut hostnames, mut matches) = (vec![], vec![]);
    let mut current = empty_match();
    for token in tokens {
        if let Some(host) = token.strip_prefix("host:") {
            hostnames.push(HostnameMatch::new(host));
        } else if token == "or" {
            matches.push(std::mem::replace(&mut current, empty_match()));
        } else if let Some(header) = token.strip_prefix("h:") {
            let (name, value) = text_match(header);
            current.headers.push(HeaderMatch { name: HeaderName::try_from(name).unwrap(), value });
        } else if let Some(param) = token.strip_prefix("q:") {
            let (name, value) = text_match(param);
            current.query.push(QueryMatch { name, value });
        } else if let Some(call) = token.strip_prefix("grpc:") {
            let (service, method) = call.split_once('/').unwrap();
            current.path = PathMatch::Grpc { service: grpc_name(service), method: grpc_name(method) };
        } else if let Some(path) = token.strip_prefix('=') {
            current.path = PathMatch::Exact(path.into());
        } else if let Some(pattern) = token.strip_prefix('~') {
            current.path = PathMatch::Regex(Pattern::new(pattern).unwrap());
        } else if token.starts_with('/') {
            current.path = PathMatch::Prefix(normal_prefix(token).into());
        } else {
            current.method = Some(Method::from_bytes(token.as_bytes()).unwrap());
        }
    }
    matches.push(current);
    HttpRule {
        key,
        name: None,
        created,
        parents: vec![],
        hostnames,
        matches,
        filters: vec![],
        action: HttpAction::Forward(vec![]),
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }
}

/// Reads the rules of a table.
pub(super) fn table(rules: &[&str]) -> HttpTable {
    let rules: Vec<_> = rules.iter().map(|text| Arc::new(RouteRule::Http(rule(text)))).collect();
    HttpTable::new(&rules)
}

/// A request that owns its parts.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
}

impl Request {
    pub(super) fn new(text: &str) -> Self {
        let mut tokens = text.split_whitespace();
        let method = Method::from_bytes(tokens.next().unwrap().as_bytes()).unwrap();
        let target = tokens.next().unwrap();
        let (host, path) = target.split_at(target.find(['/', '*']).unwrap_or(target.len()));
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_owned())));
        let headers = tokens.map(|token| {
            let (name, value) = token.split_once(':').unwrap();
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(&value.replace('_', " ")).unwrap())
        });
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| _ = map.append(name, value));
        Self { method, host: host.into(), path: path.into(), query, headers: map }
    }

    pub(super) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

/// `name#index` of what matched, `-` for nothing. Names are `ns/name` unless the namespace is `ns`.
pub(super) fn shown(matched: Option<Matched<'_>>) -> String {
    let Some(matched) = matched else { return "-".into() };
    let key = &matched.rule.key;
    let namespace =
        if key.route.namespace.as_str() == "ns" { String::new() } else { format!("{}/", key.route.namespace) };
    let index = if key.index == 0 { String::new() } else { format!("#{}", key.index) };
    format!("{namespace}{}{index}", key.route.name)
}

/// One case: a sentence, the rules, and which rule each request gets.
pub(super) struct Case(
    pub(super) &'static str,
    pub(super) &'static [&'static str],
    pub(super) &'static [(&'static str, &'static str)],
);

/// Checks cases with the rules in both orders: their place in the table's list must never matter.
pub(super) fn check(cases: &[Case]) {
    let mut wrong = Vec::new();
    for Case(sentence, rules, requests) in cases {
        let mut reversed = rules.to_vec();
        reversed.reverse();
        for rules in [rules.to_vec(), reversed] {
            let table = table(&rules);
            for (request, expected) in *requests {
                let found = shown(table.find(&Request::new(request).facts()));
                if found != *expected {
                    wrong.push(format!("{sentence}\n  {request} gets {found}, not {expected}, of {rules:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
