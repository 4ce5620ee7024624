//! TLSRoute, TCPRoute and UDPRoute.

use std::sync::Arc;

use super::key_of;
use crate::ids::RouteKind;
use crate::matching::L4Table;
use crate::route::{HostnameMatch, L4Rule, RouteRule};

/// `ns/name#index@created host host...`
fn rule(kind: RouteKind, text: &str) -> Arc<RouteRule> {
    let mut tokens = text.split_whitespace();
    let (key, created) = key_of(tokens.next().unwrap(), kind);
    let hostnames = tokens.map(HostnameMatch::new).collect();
    Arc::new(RouteRule::L4(L4Rule { key, name: None, created, parents: vec![], hostnames, backends: vec![] }))
}

fn found(kind: RouteKind, rules: &[&str], server_name: Option<&str>) -> Option<String> {
    let forward: Vec<_> = rules.iter().map(|text| rule(kind, text)).collect();
    let backward: Vec<_> = forward.iter().rev().cloned().collect();
    let name = |table: &L4Table| table.find(server_name).map(|it| format!("{}#{}", it.key.route.name, it.key.index));
    let name_of_forward = name(&L4Table::new(&forward));
    assert_eq!(name_of_forward, name(&L4Table::new(&backward)));
    name_of_forward
}

#[test]
fn the_most_specific_hostname_wins_the_server_name() {
    let rules = ["any", "wide *.com", "narrow *.example.com", "whole a.example.com"];
    for (name, expected) in [
        ("a.example.com", "whole#0"),
        ("b.example.com", "narrow#0"),
        ("b.a.example.com", "narrow#0"),
        ("example.com", "wide#0"),
        ("example.org", "any#0"),
        ("com", "any#0"),
    ] {
        assert_eq!(found(RouteKind::Tls, &rules, Some(name)).as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn a_name_that_no_rule_covers_gets_none() {
    let rules = ["narrow *.example.com", "whole a.example.com"];
    assert_eq!(found(RouteKind::Tls, &rules, Some("example.com")), None);
    assert_eq!(found(RouteKind::Tls, &rules, None), None);
    assert_eq!(found(RouteKind::Tls, &[], Some("a")), None);
}

#[test]
fn without_a_server_name_only_rules_without_hostnames_match() {
    assert_eq!(found(RouteKind::Tls, &["whole a.com", "any"], None).as_deref(), Some("any#0"));
}

#[test]
fn the_oldest_route_has_the_listener() {
    assert_eq!(found(RouteKind::Tcp, &["young@20", "old@10"], None).as_deref(), Some("old#0"));
    assert_eq!(found(RouteKind::Udp, &["young@20", "old@10"], None).as_deref(), Some("old#0"));
    assert_eq!(found(RouteKind::Tls, &["young@20 a.com", "old@10 a.com"], Some("a.com")).as_deref(), Some("old#0"));
}

#[test]
fn then_the_name_then_the_first_rule() {
    assert_eq!(found(RouteKind::Tcp, &["b", "a#1", "a#0"], None).as_deref(), Some("a#0"));
    assert_eq!(found(RouteKind::Tcp, &["a/x", "a-b/y"], None).as_deref(), Some("y#0"));
}

#[test]
fn a_tls_route_comes_before_a_tcp_route() {
    let rules = [rule(RouteKind::Tcp, "tcp@1"), rule(RouteKind::Tls, "tls@2")];
    assert_eq!(L4Table::new(&rules).find(None).unwrap().key.route.name.as_str(), "tls");
}
