//! Ingresses as people write them, what becomes of them, and that `weft validate` has nothing against it.

use super::{Options, migrate, options};

/// What was made and what is said of it; both are to be looked at by people.
fn golden(text: &str, options: &Options) -> String {
    let made = migrate(text, options);
    let complaints = made.complaints();
    assert!(complaints.is_empty(), "{}\n{}", complaints.join("\n"), made.yaml());
    format!("{}\n=== report ===\n{}", made.yaml(), made.report)
}

#[test]
fn hosts_paths_and_certificates() {
    insta::assert_snapshot!(golden(include_str!("hosts.yaml"), &options()));
}

#[test]
fn rewrites_and_expressions() {
    insta::assert_snapshot!(golden(include_str!("rewrites.yaml"), &options()));
}

#[test]
fn canaries() {
    insta::assert_snapshot!(golden(include_str!("canaries.yaml"), &options()));
}

#[test]
fn addresses_and_authorization() {
    insta::assert_snapshot!(golden(include_str!("access.yaml"), &options()));
}

#[test]
fn backends_and_headers() {
    insta::assert_snapshot!(golden(include_str!("backends.yaml"), &options()));
}

#[test]
fn redirects() {
    insta::assert_snapshot!(golden(include_str!("redirects.yaml"), &options()));
}

#[test]
fn other_controllers() {
    insta::assert_snapshot!(golden(include_str!("others.yaml"), &options()));
}

#[test]
fn a_host_in_two_namespaces_is_behind_one_gateway() {
    insta::assert_snapshot!(golden(include_str!("namespaces.yaml"), &options()));
}

#[test]
fn one_namespace_for_all_gateways() {
    let options = Options { gateway_namespace: Some("edge".into()), ..options() };
    insta::assert_snapshot!(golden(include_str!("namespaces.yaml"), &options));
}
