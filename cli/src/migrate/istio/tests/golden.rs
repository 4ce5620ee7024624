//! Istio's objects as people write them, what becomes of them, and that `weft validate` has nothing against it.

use super::migrate;

/// What was made and what is said of it; both are to be looked at by people.
fn golden(text: &str) -> String {
    let made = migrate(text);
    let complaints = made.complaints();
    assert!(complaints.is_empty(), "{}\n{}", complaints.join("\n"), made.yaml());
    format!("{}\n=== report ===\n{}", made.yaml(), made.report)
}

#[test]
fn bookinfo_with_a_canary() {
    insta::assert_snapshot!(golden(include_str!("bookinfo.yaml")));
}

#[test]
fn modes_of_mutual_tls() {
    insta::assert_snapshot!(golden(include_str!("mtls.yaml")));
}

#[test]
fn authorization() {
    insta::assert_snapshot!(golden(include_str!("authorization.yaml")));
}

#[test]
fn rules_of_routes() {
    insta::assert_snapshot!(golden(include_str!("rules.yaml")));
}

#[test]
fn what_nothing_is_made_of() {
    insta::assert_snapshot!(golden(include_str!("others.yaml")));
}
