//! The manual's table of outages names a test in each row, and those tests are there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cluster::repository;

/// Links of a row to tests: the name and the file, from the repository's root.
fn tests(row: &str) -> Vec<(&str, &str)> {
    let links = row.split("[`").skip(1);
    let links = links.filter_map(|link| link.split_once("`](../"));
    links.filter_map(|(name, rest)| Some((name, rest.split_once(')')?.0))).collect()
}

/// The rows of all tables, without their heads.
fn rows(text: &str) -> Vec<&str> {
    let lines: Vec<_> = text.lines().collect();
    let is_row = |line: &str| line.starts_with("| ");
    let heads: BTreeSet<usize> =
        lines.iter().enumerate().filter(|(_, l)| l.starts_with("|---")).map(|(n, _)| n - 1).collect();
    lines.iter().enumerate().filter(|(n, line)| is_row(line) && !heads.contains(n)).map(|(_, line)| *line).collect()
}

/// Whether a file has a function of that name which is run as a test.
fn is_test(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    attributes.contains("#[test]") || attributes.contains("#[tokio::test") || is_listed(before, name)
}

/// Tests in network namespaces are listed by name.
fn is_listed(text: &str, name: &str) -> bool {
    let listed = text.split_once("netns_tests! {").and_then(|(_, rest)| rest.split_once('}'));
    listed.is_some_and(|(list, _)| list.split(',').any(|one| one.trim() == name))
}

/// The text of the files of a folder.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect()
}

#[test]
fn every_row_of_the_table_of_outages_names_tests_that_exist() {
    let text = std::fs::read_to_string(repository().join("docs/outages.md")).unwrap();
    let rows = rows(&text);
    assert!(rows.len() >= 21, "{} rows", rows.len());
    for row in rows {
        let tests = tests(row);
        assert!(!tests.is_empty(), "no test shows this: {row}");
        for (name, file) in tests {
            let source = std::fs::read_to_string(repository().join(file)).unwrap_or_default();
            // A folder of helpers may have some, too: whoever uses it lists them.
            let users = file.split_once("/support/").map(|(folder, _)| files(&repository().join(folder)));
            let is_listed = |text: String| source.contains(&format!("fn {name}(")) && is_listed(&text, name);
            let is_there = is_test(&source, name) || users.into_iter().flatten().any(is_listed);
            assert!(is_there, "{file} has no test {name}");
        }
    }
}

#[test]
fn a_function_that_nobody_runs_is_no_test() {
    let text = "netns_tests! {\n    listed,\n}\n\nfn listed() {}\n\nfn helper() {}\n\n#[test]\n#[ignore = \"x\"]\nfn named() {}\n";
    assert!(is_test(text, "listed") && is_test(text, "named"));
    assert!(!is_test(text, "helper") && !is_test(text, "other"));
    assert_eq!(tests("| a | [`b`](../c.rs), [`d`](../e.rs) |"), [("b", "c.rs"), ("d", "e.rs")]);
    assert_eq!(rows("| h |\n|---|\n| r |\ntext"), ["| r |"]);
}
