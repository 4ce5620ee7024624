//! A mebibyte of routes in one object: it is in force, or it says why not, in few words; its neighbours are as they were.

use super::routes::{NAMESPACES, http_route, parents, route_status};
use super::*;

const PARENT: &str = "{name: gw, namespace: edge}";
const OPEN: &str = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";

fn route(rules: &str) -> String {
    http_route("r", PARENT, "large.com")
        .replace("rules: [{backendRefs: [{name: cart, port: 80}]}]", &format!("rules: [{rules}]"))
}

fn with_neighbour(large: &str) -> Index {
    let neighbour = http_route("neighbour", PARENT, "a.com");
    let (index, _) = serve(&(NAMESPACES.to_owned() + &gateway(OPEN) + &neighbour + large));
    assert_eq!(route_status(&index, "neighbour"), [Vec::<String>::new()]);
    index
}

fn message(index: &Index) -> String {
    let reference = ObjectRef::new(Kind::HttpRoute, "shop", "r");
    let Some((_, ObjectStatus::Parents(parents))) = index.status(&reference) else { panic!("no status") };
    let messages: Vec<_> = parents[0].conditions.iter().map(|condition| condition.message.as_str()).collect();
    messages.join("\n")
}

#[test]
fn a_mebibyte_of_rules_in_one_route_is_in_force() {
    let path = |n: usize| format!("/{n:04}/{}", "x".repeat(200));
    let rule =
        |n| format!("{{matches: [{{path: {{value: '{}'}}}}], backendRefs: [{{name: cart, port: 80}}]}}", path(n));
    let text = route(&(0..4000).map(rule).collect::<Vec<_>>().join(","));
    assert!(text.len() > 1 << 20, "{}", text.len());
    let index = with_neighbour(&text);
    assert_eq!(route_status(&index, "r"), [Vec::<String>::new()]);
    assert_eq!(parents(&index).len(), 4001);
}

#[test]
fn a_mebibyte_of_mistakes_is_told_in_few_words() {
    let bad = format!("{{filters: [{{type: Nonsense-{}}}]}}", "x".repeat(300));
    let text = route(&vec![bad; 3300].join(",").replacen(&"x".repeat(300), "y", 1));
    assert!(text.len() > 1 << 20, "{}", text.len());
    let index = with_neighbour(&text);
    let said = message(&index);
    assert!(said.len() < 8 << 10 && said.contains("Nonsense-") && said.contains("And 3295 more"), "{said}");
    assert_eq!(route_status(&index, "r"), [["Accepted/UnsupportedValue"]]);
    let good = "{backendRefs: [{name: cart, port: 80}], matches: [{path: {value: /a}}]}";
    let index =
        with_neighbour(&route(&(good.to_owned() + &format!(",{}", vec!["{filters: [{type: X}]}"; 3300].join(",")))));
    let said = message(&index);
    assert!(
        said.contains("Dropped Rule 1, 2, ") && said.contains(" 16 and 3284 more:") && said.len() < 8 << 10,
        "{said}"
    );
}

#[test]
fn a_route_with_more_rules_than_can_be_answers_with_an_error() {
    let index = with_neighbour(&route(&vec!["{}"; 300_000].join(",")));
    assert_eq!(route_status(&index, "r"), [["Accepted/UnsupportedValue"]]);
    let said = message(&index);
    assert!(said.contains("spec.rules: 300000 rules") && said.contains("split it"), "{said}");
    let of = |resource: &Resource| match resource {
        Resource::GatewayRule(it) => match &*it.rule {
            RouteRule::Http(rule) => Some((rule.key.route.name.to_string(), rule.action.clone())),
            RouteRule::L4(_) => None,
        },
        _ => None,
    };
    let made: Vec<_> = index.resources().filter_map(of).filter(|(name, _)| name == "r").collect();
    assert!(matches!(made.as_slice(), [(_, HttpAction::Invalid(why))] if why.contains("300000")), "{made:?}");
}
