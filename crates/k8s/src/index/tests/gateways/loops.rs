//! Redirects that lead back to where they are: they are in force, and said to be wrong.

use super::routes::{NAMESPACES, route_status};
use super::*;
use crate::translate::Reason;

const LISTENERS: &str = "
    {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}},
    {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}, allowedRoutes: {namespaces: {from: All}}},
    {name: alt, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}, allowedRoutes: {namespaces: {from: All}}},
    {name: own, port: 8444, protocol: HTTPS, hostname: '*.org', tls: {certificateRefs: [{name: c}]}, allowedRoutes: {namespaces: {from: All}}}";

fn redirecting(parent: &str, hostnames: &str, redirect: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
         spec: {{parentRefs: [{{{parent}}}], hostnames: [{hostnames}], rules: [\
         {{backendRefs: [{{name: cart, port: 80}}], matches: [{{path: {{value: /app}}}}]}}, \
         {{filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]}}]}}\n"
    )
}

#[test]
fn a_redirect_to_where_it_is_says_so_with_what_to_do() {
    let gateway = NAMESPACES.to_owned() + &gateway(LISTENERS) + &secret("edge", "c", "chain 1", "key 1");
    let at = |more: &str| format!("name: gw, namespace: edge{more}");
    let section = |name: &str| at(&format!(", sectionName: {name}"));
    for (parent, hostnames, redirect, listener) in [
        // The one of the tutorials: the HTTPS listener has it, too.
        (at(""), "", "scheme: https", Some("https")),
        (at(""), "a.com", "scheme: https, statusCode: 301", Some("https")),
        (section("http"), "", "scheme: https", None),
        (section("https"), "", "scheme: https", Some("https")),
        (section("alt"), "", "scheme: https", None),
        (section("alt"), "", "scheme: https, port: 8443", Some("alt")),
        (section("alt"), "", "port: 8443", Some("alt")),
        (section("http"), "", "statusCode: 302", Some("http")),
        (section("http"), "", "port: 8080", None),
        (section("https"), "", "scheme: http", None),
        (section("https"), "a.com", "hostname: b.com", None),
        (section("https"), "a.com, b.com", "hostname: b.com", Some("https")),
        (section("https"), "a.com, '*.b.com'", "hostname: x.b.com", None),
        // The host may be another rule's.
        (section("https"), "", "hostname: b.com", None),
        (section("own"), "a.org, b.org", "hostname: b.org", Some("own")),
        (section("own"), "a.org, b.com", "hostname: b.com", None),
        (section("https"), "", "path: {type: ReplaceFullPath, replaceFullPath: /x}", None),
        ("group: '', kind: Service, name: cart".to_owned(), "", "statusCode: 301", Some("cart")),
        ("group: '', kind: Service, name: cart".to_owned(), "", "scheme: https", None),
    ] {
        let (index, _) = serve(&(gateway.clone() + &redirecting(&parent, hostnames, redirect)));
        let reference = ObjectRef::new(Kind::HttpRoute, "shop", "r");
        let problems = index.problems(&reference);
        assert_eq!(route_status(&index, "r"), [Vec::<String>::new()], "{parent} {redirect}: it is in force");
        let Some((_, ObjectStatus::Parents(parents))) = index.status(&reference) else { panic!("no status") };
        let said = &parents[0].conditions[0].message;
        match listener {
            None => {
                assert!(problems.is_empty() && !said.contains("redirect"), "{parent} {redirect}: {problems:?} {said}")
            }
            Some(name) => {
                let [problem] = problems else { panic!("{parent} {redirect}: {problems:?}") };
                assert_eq!((problem.reason, problem.field.as_str()), (Reason::Note, "spec.rules[1].filters"));
                assert!(problem.message.contains(name) && !problem.remedy.is_empty(), "{problem}");
                assert!(said.contains(&problem.to_string()), "{said}");
            }
        }
    }
}
