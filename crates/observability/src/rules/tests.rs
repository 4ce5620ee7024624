use std::collections::BTreeSet;

use super::{Alert, alerts, proof, recordings};
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
