//! docs/versions.md says what the tests run with.

use weft_tests::cluster::repository;
use weft_tests::manual::page;

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// A version of tests/cluster/versions.env.
fn version<'a>(versions: &'a str, name: &str) -> &'a str {
    let line = versions.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().next().unwrap()
}

/// The first two numbers of a version.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[test]
fn the_versions_that_are_told_are_those_of_the_test_cluster() {
    let (told, versions) = (page("docs/versions.md").unwrap(), text("tests/cluster/versions.env"));
    let row = |begins: &str| {
        let row = told.lines().find(|line| line.starts_with(&format!("| {begins} |")));
        row.unwrap_or_else(|| panic!("no row {begins}")).to_owned()
    };
    let (kubernetes, helm, suite) =
        (version(&versions, "KUBERNETES"), version(&versions, "HELM"), version(&versions, "GATEWAY_API"));
    assert!(row("Kubernetes").contains(&format!("| {kubernetes}:")), "{kubernetes}");
    assert!(row("Helm").ends_with(&format!("| {} |", minor(helm))), "{helm}");
    assert!(row("Gateway API").contains(&format!("{suite} with the whole conformance suite")), "{suite}");
    // The releases whose CRDs are tried, oldest first, then the suite's own.
    let build = text("tests/cluster/build.sh");
    let releases = build.split("for version in ").nth(1).unwrap().split(';').next().unwrap();
    let oldest = minor(releases.split(' ').next().unwrap());
    assert!(row("Gateway API").contains(&format!("releases {oldest} to {}", minor(suite))), "{releases}");
    // What the chart takes at least.
    let chart = text("charts/weft/Chart.yaml");
    assert!(chart.contains("kubeVersion: \">=1.29.0-0\"") && row("Kubernetes").contains("charts take 1.29"), "{chart}");
    let cluster = format!("Kubernetes {}", minor(kubernetes));
    assert!(page("docs/limits.md").unwrap().contains(&cluster), "docs/limits.md doesn't name {cluster}");
}
