use std::collections::BTreeSet;

use super::{Alert, Scope, alerts, hurried, proof, recordings, rules};
use crate::metric_names;

fn all() -> Vec<Alert> {
    alerts().into_iter().flat_map(|group| group.rules).collect()
}

/// The names of metrics in a rule, Prometheus' own included.
fn names(expr: &str) -> BTreeSet<String> {
    let own = ["up{", "process_open_fds", "process_max_fds", "process_start_time_seconds"];
    let own = own.into_iter().filter(|name| expr.contains(name)).map(|name| name.trim_end_matches('{').to_owned());
    metric_names(expr).into_iter().map(str::to_owned).chain(own).collect()
}

#[test]
fn alerts_have_names_texts_and_pages() {
    let mut seen = BTreeSet::new();
    for alert in all() {
        assert!(seen.insert(alert.name) && alert.name.starts_with("Weft"), "{}", alert.name);
        for text in [alert.summary, alert.description] {
            assert!(text.ends_with('.') && text.len() < 200, "{}: {text}", alert.name);
        }
        assert!(!alert.page.causes.is_empty() && !alert.page.look.is_empty() && !alert.page.remedy.is_empty());
    }
    assert!(seen.len() > 25);
}

/// Without a series an alert is silent for want of data, which proves nothing.
#[test]
fn the_healthy_mesh_has_series_of_everything_that_alerts_look_at() {
    let recorded: BTreeSet<_> =
        recordings().iter().flat_map(|it| it.rules.iter().map(|it| it.name.to_owned())).collect();
    let healthy: BTreeSet<_> =
        proof::HEALTHY.iter().map(|(series, _)| series.split('{').next().unwrap_or_default().to_owned()).collect();
    for alert in all() {
        for name in names(&alert.expr) {
            assert!(healthy.contains(&name) || recorded.contains(&name), "{}: no {name}", alert.name);
        }
        assert!(!names(&alert.expr).is_empty(), "{}", alert.name);
    }
}

#[test]
fn texts_name_labels_that_the_alert_has() {
    for alert in all() {
        let labels: BTreeSet<_> = alert.proof.labels.iter().map(|(name, _)| *name).collect();
        for text in [alert.summary, alert.description] {
            for part in text.split("{{ $labels.").skip(1) {
                let label = part.split(" }}").next().unwrap_or_default();
                assert!(labels.contains(label), "{}: {label} isn't among {labels:?}", alert.name);
            }
        }
    }
}

#[test]
fn hurried_rules_look_at_shorter_windows_and_at_nothing_else() {
    let (usual, hurried) = (rules(Scope::Cluster).to_string(), hurried(&rules(Scope::Cluster), 30).to_string());
    for (before, after) in [
        ("[5m]", "[10s]"),
        ("[10m]", "[20s]"),
        ("[15m]", "[30s]"),
        ("[30m]", "[60s]"),
        (r#""for":"10m""#, r#""for":"20s""#),
        (r#""for":"0m""#, r#""for":"0s""#),
        (r#""for":"1h""#, r#""for":"120s""#),
        ("offset 15m", "offset 30s"),
    ] {
        let count = usual.matches(before).count();
        assert!(count > 0 && !hurried.contains(before), "{before} is left or was never there");
        assert!(hurried.matches(after).count() >= count, "{before} should be {after}");
    }
    // What isn't a duration is as it was: names have windows too.
    assert_eq!(
        hurried.matches("weft:service_errors:rate5m").count(),
        usual.matches("weft:service_errors:rate5m").count()
    );
    assert_eq!(
        super::hurried(&rules(Scope::Cluster), 1).to_string().matches("[300s]").count(),
        usual.matches("[5m]").count()
    );
}
