//! docs/features.md, made of the report of the Gateway API's conformance suite.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;
use weft_tests::cluster::repository;

use crate::is_generated;

const REPORT: &str = "docs/conformance/v1.6.3.yaml";
/// The columns, in this order.
const PROFILES: [&str; 7] =
    ["GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP", "MESH-HTTP", "MESH-GRPC"];

fn report() -> Value {
    serde_norway::from_str(&std::fs::read_to_string(repository().join(REPORT)).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// `19 of 19`, or `-` where nothing was run.
fn result(part: &Value) -> String {
    let count = |key: &str| part["statistics"][key].as_u64().unwrap_or_default();
    let all = count("Passed") + count("Failed") + count("Skipped");
    if all == 0 { "-".to_owned() } else { format!("{} of {all}", count("Passed")) }
}

fn names<'a>(profile: &'a Value, key: &str) -> BTreeSet<&'a str> {
    profile["extended"][key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The rows of a table of profiles with what they passed.
fn results(profiles: &BTreeMap<&str, &Value>) -> String {
    let row = |name: &&str| {
        let profile = profiles[name];
        format!("| {name} | {} | {} |\n", result(&profile["core"]), result(&profile["extended"]))
    };
    PROFILES.iter().map(row).collect()
}

fn page(report: &Value) -> String {
    let profiles = report["profiles"].as_array().unwrap();
    let profiles: BTreeMap<_, _> = profiles.iter().map(|profile| (text(profile, "name"), profile)).collect();
    assert_eq!(profiles.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(PROFILES), "the report's profiles");
    let mut page = include_str!("features.md").to_owned();
    writeln!(
        page,
        "The report [{REPORT}]({}) is of the suite {}, {} channel, {}, Weft {}.\n",
        REPORT.trim_start_matches("docs/"),
        text(report, "gatewayAPIVersion"),
        text(report, "gatewayAPIChannel"),
        text(report, "date"),
        text(&report["implementation"], "version"),
    )
    .unwrap();
    page.push_str("## Profiles\n\n| profile | core tests | extended tests |\n|---|---|---|\n");
    page.push_str(&results(&profiles));
    page.push_str("\n## Extended features\n\n| feature |");
    for name in PROFILES {
        write!(page, " {name} |").unwrap();
    }
    page.push_str("\n|---|");
    page.push_str(&"---|".repeat(PROFILES.len()));
    let all: BTreeSet<_> = profiles.values().flat_map(|p| names(p, "supportedFeatures")).collect();
    for feature in &all {
        write!(page, "\n| {feature} |").unwrap();
        for name in PROFILES {
            page.push_str(if names(profiles[name], "supportedFeatures").contains(feature) { " yes |" } else { " |" });
        }
    }
    let lacking: BTreeSet<_> = profiles.values().flat_map(|p| names(p, "unsupportedFeatures")).collect();
    page.push_str("\n\n## Features that the suite knows and Weft doesn't have\n\n");
    if lacking.is_empty() {
        page.push_str("None.\n");
    }
    for feature in &lacking {
        writeln!(page, "- {feature}").unwrap();
    }
    page
}

#[test]
fn the_matrix_of_features_is_that_of_the_conformance_report() {
    is_generated("docs/features.md", &page(&report()));
}

/// What the page of the reports says by hand.
#[test]
fn the_page_beside_the_report_has_its_numbers() {
    let report = report();
    let profiles = report["profiles"].as_array().unwrap();
    let profiles: BTreeMap<_, _> = profiles.iter().map(|profile| (text(profile, "name"), profile)).collect();
    let told = std::fs::read_to_string(repository().join("docs/conformance/README.md")).unwrap();
    assert!(told.contains(&results(&profiles)), "docs/conformance/README.md should have\n{}", results(&profiles));
}

/// A feature that isn't supported any more, or a test that failed, is seen in the page.
#[test]
fn a_report_with_less_makes_a_page_with_less() {
    let whole = report();
    let mut less = whole.clone();
    let http = less["profiles"].as_array_mut().unwrap().iter_mut().find(|p| p["name"] == "GATEWAY-HTTP").unwrap();
    http["core"]["statistics"] = serde_json::json!({ "Passed": 36, "Failed": 2, "Skipped": 0 });
    http["extended"]["unsupportedFeatures"] = serde_json::json!(["HTTPRouteSomething"]);
    let page = page(&less);
    assert!(page.contains("| GATEWAY-HTTP | 36 of 38 |") && page.ends_with("- HTTPRouteSomething\n"), "{page}");
}
