//! The example shop, described.

use http::{HeaderMap, Method};

use super::authz::{Access, Question};
use super::describe::{ServiceView, WorkloadView};
use super::workload;
use crate::explain::tests::shop;

fn asked<'a>(from: Option<&'a str>, method: &'a Method, headers: &'a HeaderMap) -> Question<'a> {
    Question { from, address: None, port: None, method, path: "/", host: "", headers, tcp: false }
}

fn access(pod: &str, from: Option<&str>, method: Method) -> Access {
    let snapshot = shop();
    Access::of(&snapshot, workload(&snapshot, pod).unwrap(), &asked(from, &method, &HeaderMap::new())).unwrap()
}

#[test]
fn a_pod_and_a_service_with_all_that_applies() {
    let snapshot = shop();
    let view = WorkloadView::of(&snapshot, workload(&snapshot, "shop/payments").unwrap());
    assert!(crate::is_in_manual(&view.to_string()));
    insta::assert_snapshot!(view.to_string());
    insta::assert_json_snapshot!(view);
    let key = weft_core::ids::ServiceKey::new("shop", "catalog");
    let view = ServiceView::of(&snapshot, snapshot.service(&key).unwrap());
    assert!(crate::is_in_manual(&view.to_string()));
    insta::assert_snapshot!(view.to_string());
    insta::assert_json_snapshot!(view);
    assert!(workload(&snapshot, "shop/nobody").is_err() && workload(&snapshot, "nobody").is_err());
}

#[test]
fn who_may_call_a_pod() {
    insta::assert_snapshot!(access("shop/payments", None, Method::GET).to_string());
    let allowed = access("shop/payments", Some("shop/web"), Method::POST);
    assert!(crate::is_in_manual(&allowed.to_string()));
    insta::assert_snapshot!(allowed.to_string());
    insta::assert_json_snapshot!(allowed);
}

#[test]
fn a_call_is_judged_as_the_proxy_judges_it() {
    for (pod, from, method, because) in [
        ("shop/payments", "shop/web", Method::GET, None),
        ("shop/payments", "spiffe://cluster.local/ns/shop/sa/orders", Method::GET, None),
        ("shop/payments", "spiffe://cluster.local/ns/shop/sa/other", Method::GET, Some("none matches")),
        ("shop/payments", "reports/nightly", Method::GET, Some("none matches")),
        ("shop/payments", "outside", Method::GET, Some("plaintext_refused")),
        ("shop/payments", "legacy/batch", Method::GET, Some("plaintext_refused")),
        ("shop/catalog-v1", "shop/web", Method::DELETE, Some("shop/catalog-read-only denies")),
        ("shop/catalog-v1", "shop/web", Method::GET, None),
    ] {
        let access = access(pod, Some(from), method.clone());
        let call = access.call.as_ref().unwrap();
        assert_eq!(access.is_denied(), because.is_some(), "{method} {pod} from {from}: {access}");
        assert!(because.is_none_or(|because| call.because.contains(because)), "{access}");
    }
    let snapshot = shop();
    let called = workload(&snapshot, "shop/payments").unwrap();
    let (get, none) = (Method::GET, HeaderMap::new());
    assert!(Access::of(&snapshot, called, &asked(Some("shop/nobody"), &get, &none)).is_err());
    assert!(Access::of(&snapshot, called, &asked(Some("spiffe://"), &get, &none)).is_err());
}

#[test]
fn each_policy_says_whether_it_matches_by_itself() {
    let matches = |from: &str| access("shop/payments", Some(from), Method::GET).policies[0].matches;
    assert_eq!((matches("shop/web"), matches("reports/nightly")), (Some(true), Some(false)));
    assert_eq!(access("shop/payments", None, Method::GET).policies[0].matches, None);
}
