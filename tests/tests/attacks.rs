//! `docs/security-limits.md` is true: each test that it names is there, and each test of an attack is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use weft_tests::cluster::repository;

/// Where the tests of attacks are, all of which have to be named.
const ATTACKS: [&str; 3] = ["attacks.rs", "attacks/http2.rs", "attacks/policies.rs"];

/// The tests that the page names: function and file.
fn named(page: &str) -> BTreeSet<(String, String)> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let links = rows.flat_map(|row| row.split("[`").skip(1));
    let parts = links.filter_map(|link| link.split_once("`](../"));
    parts.filter_map(|(name, rest)| Some((name.to_owned(), rest.split_once(')')?.0.to_owned()))).collect()
}

/// The functions of a file that are tests.
fn tests_of(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let marked = text
        .split("#[test]")
        .skip(1)
        .chain(text.split("#[tokio::test]").skip(1))
        .chain(text.split("#[tokio::test(").skip(1));
    let attributed = marked.filter_map(|after| Some(after.split_once("fn ")?.1.split_once('(')?.0.trim().to_owned()));
    let listed = text.split_once("netns_tests! {").and_then(|(_, rest)| Some(rest.split_once('}')?.0));
    let listed = listed.into_iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned());
    attributed.chain(listed.filter(|name| !name.is_empty())).collect()
}

#[test]
fn each_test_that_is_named_is_there_and_each_of_an_attack_is_named() {
    let page = std::fs::read_to_string(repository().join("docs/security-limits.md")).unwrap();
    let named = named(&page);
    assert!(named.len() > 40, "only {} tests: the table isn't read", named.len());
    let missing: Vec<_> =
        named.iter().filter(|(name, file)| !tests_of(&repository().join(file)).contains(name)).collect();
    assert!(missing.is_empty(), "the page names tests that there aren't: {missing:#?}");
    for file in ATTACKS {
        let file = format!("node-proxy/src/relay/http/tests/{file}");
        for test in tests_of(&repository().join(&file)) {
            assert!(
                named.contains(&(test.clone(), file.clone())),
                "docs/security-limits.md doesn't name {test} of {file}"
            );
        }
    }
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack "));
    let without: Vec<_> = rows.filter(|row| !row.contains("`](../")).collect();
    assert!(without.is_empty(), "no test: {without:#?}");
}
