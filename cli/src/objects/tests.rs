//! The example shop, described.

use std::sync::Arc;

use http::{HeaderMap, Method};
use weft_core::change::{Change, Resource};
use weft_core::ids::PolicyKey;
use weft_core::policy::Scope;
use weft_core::telemetry::TelemetryPolicy;

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
fn what_is_told_of_a_pod_may_be_its_namespaces_or_the_meshs_policy() {
    let policy = |name: &str, scope| TelemetryPolicy {
        key: PolicyKey::new("shop", name),
        scope,
        gateways: Vec::new(),
        created_unix_seconds: 0,
        access_log: Default::default(),
        tracing: Default::default(),
    };
    let policies = [
        policy("mesh", Scope::Mesh),
        policy("here", Scope::Namespace("shop".into())),
        policy("there", Scope::Namespace("bank".into())),
        policy("others", Scope::Selected),
    ];
    let snapshot = shop().apply(&policies.map(|it| Change::Upsert(Resource::Telemetry(it.into()))));
    let view = WorkloadView::of(&snapshot, workload(&snapshot, "shop/payments").unwrap());
    assert_eq!(view.telemetry_policies, ["shop/here", "shop/mesh"]);
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

/// 0.0.0.0 would be in no network that a policy names, and that isn't what is asked.
#[test]
fn where_a_policy_decides_by_the_address_it_has_to_be_named() {
    let snapshot = shop();
    let mut policy = (*snapshot.policies_for(workload(&snapshot, "shop/payments").unwrap())[0]).clone();
    policy.rules[0].from =
        vec![weft_core::policy::Source { not_addresses: vec!["10.1.0.0/16".parse().unwrap()], ..Default::default() }];
    let snapshot = snapshot.apply(&[Change::Upsert(Resource::Authorization(Arc::new(policy)))]);
    let called = workload(&snapshot, "shop/payments").unwrap();
    let (get, none) = (Method::GET, HeaderMap::new());
    let orders = "spiffe://cluster.local/ns/shop/sa/orders";
    for from in [orders, "outside"] {
        let error = Access::of(&snapshot, called, &asked(Some(from), &get, &none)).unwrap_err();
        assert!(error.to_string().contains("shop/payments-callers") && error.to_string().contains("--address"));
    }
    let may_call = |address: &str| {
        let question = Question { address: Some(address.parse().unwrap()), ..asked(Some(orders), &get, &none) };
        !Access::of(&snapshot, called, &question).unwrap().is_denied()
    };
    assert!(may_call("10.2.0.1") && may_call("fd00::1") && !may_call("10.1.0.1"));
    assert!(Access::of(&snapshot, called, &asked(Some("shop/web"), &get, &none)).is_ok(), "a pod has one");
}

#[test]
fn each_policy_says_whether_it_matches_by_itself() {
    let matches = |from: &str| access("shop/payments", Some(from), Method::GET).policies[0].matches;
    assert_eq!((matches("shop/web"), matches("reports/nightly")), (Some(true), Some(false)));
    assert_eq!(access("shop/payments", None, Method::GET).policies[0].matches, None);
}
