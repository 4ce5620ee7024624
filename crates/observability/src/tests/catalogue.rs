//! Queries ask for metrics and labels that the components have.

use std::collections::{BTreeMap, BTreeSet};

use crate::{dashboards, metric_names, rules};
use weft_metrics::Kind;

/// What the scrape adds, or the one who scrapes several clusters.
const OF_TARGETS: [&str; 6] = ["cluster", "node", "job", "instance", "namespace", "pod"];

/// Every series by its name, with its labels.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for family in weft_metrics::families() {
        let labels: BTreeSet<_> = family.label_names().chain(OF_TARGETS).map(str::to_owned).collect();
        let suffixes: &[&str] = if family.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        for suffix in suffixes {
            let mut labels = labels.clone();
            labels.extend((*suffix == "_bucket").then(|| "le".to_owned()));
            all.insert(format!("{}{suffix}", family.name), labels);
        }
    }
    for rule in rules::recordings().into_iter().flat_map(|group| group.rules) {
        let mut labels = grouped(&rule.expr);
        if labels.is_empty() {
            // It keeps what it is made of.
            let of = metric_names(&rule.expr).into_iter().filter_map(|name| all.get(name));
            labels = of.flat_map(|labels: &BTreeSet<String>| labels.iter().cloned()).collect();
        }
        labels.extend(OF_TARGETS.map(str::to_owned));
        all.insert(rule.name.to_owned(), labels);
    }
    all
}

/// Labels that a query groups by.
fn grouped(expr: &str) -> BTreeSet<String> {
    let lists = expr.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()).collect()
}

/// Each selector of a query: the metric and the labels that it looks at.
fn selectors(expr: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (start, _) in expr.match_indices('{') {
        let name: String =
            expr[..start].chars().rev().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')).collect();
        let name: String = name.chars().rev().collect();
        let (mut labels, mut rest) = (Vec::new(), &expr[start + 1..]);
        while let Some((label, after)) = rest.split_once(['=', '!']) {
            let Some((_, after)) = after.split_once('"') else { break };
            let Some((_, after)) = after.split_once('"') else { break };
            labels.push(label.trim_start_matches([',', ' ']).to_owned());
            rest = after;
            if rest.starts_with('}') {
                break;
            }
        }
        if !name.is_empty() {
            found.push((name, labels));
        }
    }
    found
}

/// All queries, with where they are.
fn queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for board in dashboards::all() {
        for panel in board.panels() {
            all.extend(
                panel.queries.iter().map(|query| (format!("{:?} / {}", board.board, panel.title), query.expr.clone())),
            );
        }
        all.extend(board.variables.iter().map(|it| (format!("{:?} ${}", board.board, it.name), it.of.clone())));
    }
    for rule in rules::recordings().into_iter().flat_map(|group| group.rules) {
        all.push((rule.name.to_owned(), rule.expr));
    }
    for alert in rules::alerts().into_iter().flat_map(|group| group.rules) {
        all.push((alert.name.to_owned(), alert.expr));
    }
    all
}

#[test]
fn every_query_asks_for_what_there_is() {
    let series = series();
    let mut asked = 0;
    for (at, expr) in queries() {
        let mut known: BTreeSet<String> = OF_TARGETS.map(str::to_owned).into();
        for name in metric_names(&expr) {
            let labels = series.get(name).unwrap_or_else(|| panic!("{at}: nobody has {name}"));
            known.extend(labels.iter().cloned());
            asked += 1;
        }
        for (name, labels) in selectors(&expr) {
            let Some(has) = series.get(&name) else { continue };
            for label in labels {
                assert!(has.contains(&label), "{at}: {name} has no label {label}");
            }
        }
        // Labels that the query makes itself.
        known.extend(["id", "source", "target", "le"].map(str::to_owned));
        for label in grouped(&expr) {
            assert!(known.contains(&label), "{at}: grouped by {label}, which nothing in it has: {expr}");
        }
    }
    assert!(asked > 150, "{asked}");
}

#[test]
fn selectors_are_read_right() {
    let expr = r#"sum by (a, b) (rate(weft_x_total{c=~"{1}|2", d!=""}[5m])) / up{job="x"}"#;
    let all = selectors(expr);
    assert!(all.contains(&("weft_x_total".to_owned(), vec!["c".to_owned(), "d".to_owned()])), "{all:?}");
    assert_eq!(grouped(expr), ["a", "b"].map(str::to_owned).into());
}
