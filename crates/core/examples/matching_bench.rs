//! Nanoseconds for one lookup in a table of 10, 1,000 and 5,000 routes: `cargo run --profile quick -p weft-core
//! --example matching_bench`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method};
use weft_core::ids::{RouteKey, RouteKind, RuleKey};
use weft_core::matching::{HttpTable, RequestFacts};
use weft_core::route::{
    Created, HostnameMatch, HttpAction, HttpMatch, HttpRule, PathMatch, Pattern, RouteRule, Timeouts,
};

const LOOKUPS: usize = 2_000_000;

fn rule(number: usize, hostname: Option<HostnameMatch>, path: PathMatch) -> Arc<RouteRule> {
    let route = RouteKey { kind: RouteKind::Http, namespace: "ns".into(), name: format!("r{number}").into() };
    Arc::new(RouteRule::Http(HttpRule {
        key: RuleKey { route, index: 0 },
        name: None,
        created: Created::default(),
        parents: vec![],
        hostnames: hostname.into_iter().collect(),
        matches: vec![HttpMatch { path, method: None, headers: vec![], query: vec![] }],
        filters: vec![],
        action: HttpAction::Forward(vec![]),
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }))
}

/// Makes the rule and the request (host and path) of a number.
type Shape = fn(usize) -> (Option<HostnameMatch>, PathMatch, (String, String));

const SHAPES: [(&str, Shape); 5] = [
    ("a host each, prefix /", |n| {
        let host = format!("app-{n}.example.com");
        (Some(HostnameMatch::Exact(host.clone())), PathMatch::Prefix(String::new()), (host, "/cart/items/42".into()))
    }),
    ("a wildcard each, prefix /", |n| {
        let host = format!("t{n}.example.com");
        let request = (format!("a.{host}"), "/cart/items/42".into());
        (Some(HostnameMatch::Suffix(host)), PathMatch::Prefix(String::new()), request)
    }),
    ("one host, an exact path each", |n| {
        let path = format!("/api/v1/item-{n}");
        (None, PathMatch::Exact(path.clone()), ("shop.example.com".into(), path))
    }),
    ("one host, a prefix each", |n| {
        let prefix = format!("/api/v1/team-{n}");
        (None, PathMatch::Prefix(prefix.clone()), ("shop.example.com".into(), format!("{prefix}/cart/42")))
    }),
    ("one host, an expression each", |n| {
        let source = format!("/team-{n}/[0-9]+");
        let path = Pattern::new(&source).map_or(PathMatch::Exact(source), PathMatch::Regex);
        (None, path, ("shop.example.com".into(), format!("/team-{n}/42")))
    }),
];

fn measure(shape: Shape, routes: usize, lookups: usize) -> f64 {
    let made: Vec<_> = (0..routes).map(shape).collect();
    let requests: Vec<_> = made.iter().map(|(_, _, request)| request.clone()).collect();
    let rules: Vec<_> = made.into_iter().enumerate().map(|(n, (hostname, path, _))| rule(n, hostname, path)).collect();
    let table = HttpTable::new(&rules);
    let headers = HeaderMap::new();
    let start = Instant::now();
    for n in 0..lookups {
        // A stride that is prime to the counts visits all of them in no order that a cache could follow.
        let Some((host, path)) = requests.get(n * 7919 % routes) else { continue };
        let facts = RequestFacts { method: &Method::GET, host, path, query: None, headers: &headers };
        assert!(black_box(table.find(black_box(&facts))).is_some());
    }
    start.elapsed().as_nanos() as f64 / lookups as f64
}

fn main() {
    println!("{:<32} {:>10} {:>10} {:>10}  ns per lookup", "shape", "10", "1,000", "5,000");
    for (name, shape) in SHAPES {
        print!("{name:<32}");
        for routes in [10, 1_000, 5_000] {
            let lookups = if name.contains("expression") { LOOKUPS / routes / 10 } else { LOOKUPS };
            print!(" {:>10.0}", measure(shape, routes, lookups.max(100)));
        }
        println!();
    }
}
