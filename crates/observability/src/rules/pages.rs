//! A page for each alert: cause, where to look, remedy.

use std::fmt::Write as _;

use super::{Alert, Scope, alerts};

/// The page of an alert, in Markdown.
pub fn page(alert: &Alert) -> String {
    let plain = |text: &str| text.replace("{{ $labels.", "`").replace(" }}", "`");
    let mut out = format!("# {}\n\n{}\n\n{}\n", alert.name, plain(alert.summary), plain(alert.description));
    let place = match alert.scope {
        Scope::Mesh => "",
        Scope::Cluster => " Only in clusters.",
    };
    let lasts = if alert.lasts == "0m" { "At once".to_owned() } else { format!("After {}", alert.lasts) };
    // Writing to a String cannot fail.
    let _ = write!(out, "\nSeverity: {}. {lasts}.{place}\n\n```promql\n{}\n```\n", alert.severity.as_str(), alert.expr);
    for (heading, lines) in
        [("Causes", alert.page.causes), ("Where to look", alert.page.look), ("Remedy", alert.page.remedy)]
    {
        let _ = write!(out, "\n## {heading}\n\n");
        for line in lines {
            let _ = writeln!(out, "- {line}");
        }
    }
    out
}

/// The list of all pages.
pub fn index() -> String {
    let mut out = "# Runbooks\n\nA page for each alert of [Weft's rules](../observability.md#alerts): causes, where to look, remedy.\n\n\
                   | alert | severity | says |\n|---|---|---|\n"
        .to_owned();
    for alert in alerts().iter().flat_map(|group| &group.rules) {
        let says = alert.summary.replace("{{ $labels.", "`").replace(" }}", "`").replace('|', "\\|");
        let _ = writeln!(out, "| [{0}]({0}.md) | {1} | {says} |", alert.name, alert.severity.as_str());
    }
    out
}
