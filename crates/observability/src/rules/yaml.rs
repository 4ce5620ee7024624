//! Rules and their tests as the files that Prometheus and `promtool` read.

use serde_json::{Map, Value, json};

use super::{Alert, Proof, RUNBOOKS, Scope, alerts, proof, recordings};

/// The rules for a place: all of them in a cluster, those of the mesh elsewhere.
pub fn rules(place: Scope) -> Value {
    let mut groups = Vec::new();
    for group in recordings() {
        let rules: Vec<_> = group.rules.iter().map(|it| json!({ "record": it.name, "expr": it.expr })).collect();
        groups.push(json!({ "name": group.name, "rules": rules }));
    }
    for group in alerts() {
        let here = |alert: &&Alert| place == Scope::Cluster || alert.scope == Scope::Mesh;
        let rules: Vec<_> = group.rules.iter().filter(here).map(rule).collect();
        if !rules.is_empty() {
            groups.push(json!({ "name": group.name, "rules": rules }));
        }
    }
    json!({ "groups": groups })
}

fn rule(alert: &Alert) -> Value {
    json!({
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasts,
        "labels": { "severity": alert.severity.as_str() },
        "annotations": annotations(alert, &[]),
    })
}

/// What an alert says; with labels, as Prometheus fills them in.
fn annotations(alert: &Alert, labels: &[(&str, &str)]) -> Value {
    let filled = |text: &str| {
        let filled = labels
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{ $labels.{name} }}}}"), value));
        if labels.is_empty() { text.to_owned() } else { without_unknown(&filled) }
    };
    json!({
        "summary": filled(alert.summary),
        "description": filled(alert.description),
        "runbook_url": format!("{RUNBOOKS}/{}.md", alert.name),
    })
}

/// A label that a series hasn't is nothing.
fn without_unknown(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("{{ $labels.") {
        out += before;
        rest = after.split_once(" }}").map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// The rules with every window and every wait so many times shorter, for tests that can't wait as long: else they are what they
/// are. A window of five minutes, 30 times shorter, is one of ten seconds.
pub fn hurried(rules: &Value, times: u64) -> Value {
    let mut hurried = rules.clone();
    let groups = hurried.get_mut("groups").and_then(Value::as_array_mut);
    for rule in groups.into_iter().flatten().filter_map(|group| group.get_mut("rules")?.as_array_mut()).flatten() {
        for (field, is_all) in [("expr", false), ("for", true)] {
            if let Some(Value::String(text)) = rule.get_mut(field) {
                *text = if is_all { shorter(text, times) } else { with_shorter_windows(text, times) };
            }
        }
    }
    hurried
}

/// What ends a word of a query.
const ENDS: [char; 4] = ['[', ']', ' ', ')'];

/// Windows are in brackets, and an offset behind its word.
fn with_shorter_windows(expr: &str, times: u64) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in expr.split_inclusive(ENDS) {
        let text = word.trim_end_matches(ENDS);
        let end = word.strip_prefix(text).unwrap_or_default();
        let is_window = end == "]" || words.last().is_some_and(|before| before == "offset ");
        words.push(if is_window { shorter(text, times) + end } else { word.to_owned() });
    }
    words.concat()
}

/// A duration as Prometheus has it, in whole seconds; what is none stays.
fn shorter(text: &str, times: u64) -> String {
    let unit = |letter| match letter {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let mut letters = text.chars();
    let unit = letters.next_back().and_then(unit);
    let seconds = unit.zip(letters.as_str().parse::<u64>().ok());
    seconds.map_or_else(|| text.to_owned(), |(unit, number)| format!("{}s", (number * unit).div_ceil(times)))
}

/// Tests of every alert: it fires when it must, with these labels and texts; none fires in a healthy mesh.
pub fn tests(rule_file: &str) -> Value {
    let all: Vec<_> = alerts().into_iter().flat_map(|group| group.rules).collect();
    let mut tests = vec![healthy(&all)];
    tests.extend(all.iter().map(firing));
    json!({ "rule_files": [rule_file], "evaluation_interval": "1m", "fuzzy_compare": true, "tests": tests })
}

fn series(list: &[(&str, &str)]) -> Vec<Value> {
    list.iter().map(|(series, values)| json!({ "series": series, "values": values })).collect()
}

fn healthy(all: &[Alert]) -> Value {
    let quiet: Vec<_> = all
        .iter()
        .flat_map(|alert| {
            ["5m", "30m", "115m"].map(|at| json!({ "eval_time": at, "alertname": alert.name, "exp_alerts": [] }))
        })
        .collect();
    json!({
        "name": "a healthy mesh fires nothing",
        "interval": "1m",
        "input_series": series(proof::HEALTHY),
        "alert_rule_test": quiet,
        "promql_expr_test": proof::RECORDED.iter().map(|(expr, labels, value)| json!({
            "expr": expr, "eval_time": "30m", "exp_samples": [{ "labels": labels, "value": value }],
        })).collect::<Vec<_>>(),
    })
}

fn firing(alert: &Alert) -> Value {
    let Proof { series: broken, at, labels } = alert.proof;
    let mut expected = Map::new();
    expected.insert("severity".to_owned(), alert.severity.as_str().into());
    expected.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    let known = if labels.is_empty() { &[("", "")][..] } else { labels };
    let name = |text: &str| text.split('{').next().unwrap_or_default().to_owned();
    let replaced: Vec<_> = broken.iter().map(|(series, _)| name(series)).collect();
    let others = proof::HEALTHY.iter().filter(|(series, _)| !replaced.contains(&name(series))).copied();
    let all: Vec<_> = others.chain(broken.iter().copied()).collect();
    json!({
        "name": format!("{} fires", alert.name),
        "interval": "1m",
        "input_series": series(&all),
        "alert_rule_test": [{
            "eval_time": at, "alertname": alert.name,
            "exp_alerts": [{ "exp_labels": expected, "exp_annotations": annotations(alert, known) }],
        }],
    })
}
