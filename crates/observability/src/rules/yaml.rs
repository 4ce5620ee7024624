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
