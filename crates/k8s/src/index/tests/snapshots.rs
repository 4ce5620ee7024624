//! Manifests -> changes and statuses, whole.

use super::*;

fn show(out: &Output) -> String {
    let mut text = String::new();
    for change in &out.changes {
        text.push_str(&match change {
            Change::Upsert(Resource::Rule(rule)) => format!("+ {rule:#?}\n"),
            Change::Upsert(resource) => format!("+ {:?}\n", resource.key()),
            Change::Remove(key) => format!("- {key:?}\n"),
        });
    }
    for s in &out.statuses {
        let json = s.status.to_json(s.generation, None, "2026-01-01T00:00:00Z");
        text.push_str(&format!("{}\n{}", s.object, serde_norway::to_string(&json).unwrap()));
    }
    text
}

#[test]
fn a_canary() {
    let rules = "[{name: canary, matches: [{path: {value: /api/}, headers: [{name: X-Canary, value: '1'}, {name: x-canary, value: '2'}]}], \
                 backendRefs: [{name: cart, port: 80, weight: 90}, {name: cart-v2, port: 80, weight: 10}, {name: gone, port: 80, weight: 0}], \
                 timeouts: {request: 10s}, retry: {attempts: 2, codes: [503], backoff: 50ms}}]";
    let (_, out) =
        index(&(SHOP.to_owned() + &route("canary", "{group: '', kind: Service, name: cart, port: 80}", rules)));
    insta::assert_snapshot!(show(&out));
}

#[test]
fn a_redirect_next_to_a_mistake() {
    let rules = "[{matches: [{path: {type: Exact, value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, \
                 path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 301}}]}, \
                 {filters: [{type: URLRewite, urlRewrite: {hostname: a.b}}], backendRefs: [{name: cart-v2, port: 80}]}]";
    let (_, out) = index(&(SHOP.to_owned() + &route("r", "{group: '', kind: Service, name: cart, port: 80}", rules)));
    insta::assert_snapshot!(show(&out));
}
