//! Pieces of queries that many panels and rules share.

use std::collections::BTreeSet;

/// Both ends of an edge of the service graph.
pub(crate) const EDGE: &str = "cluster, source_namespace, source_workload, destination_namespace, destination_workload";
/// A Service.
pub(crate) const SERVICE: &str = "cluster, destination_service_namespace, destination_service";
/// Requests that have ended.
pub(crate) const REQUESTS: &str = "weft_http_requests_total";
/// Requests that the server's side failed, as the matchers of any one of several selectors: an answer of 500 and up, none at
/// all, or a gRPC status by which a server says so, of which HTTP sees a 200. `weft_view::count` counts the same.
const FAILED: [&str; 2] = [r#"response_class=~"5xx|none""#, r#"grpc_status=~"2|4|12|13|14|15""#];
/// The window of dashboards, which Grafana sets by the zoom and the scrape interval.
pub(crate) const WINDOW: &str = "$__rate_interval";

/// The per-second rate of a counter within the chosen clusters: `labels` are more matchers.
pub(crate) fn rate(counter: &str, labels: &str) -> String {
    format!("rate({}[{WINDOW}])", chosen(counter, labels))
}

/// The sum of such rates by labels; by none in all.
pub(crate) fn rates(by: &str, counter: &str, labels: &str) -> String {
    sum(by, &rate(counter, labels))
}

/// The per-second rate of failed requests over a window: `labels` are more matchers. A series that several selectors have
/// counts once.
pub(crate) fn failed(labels: &str, window: &str) -> String {
    FAILED.map(|failed| format!("rate({REQUESTS}{{{labels}, {failed}}}[{window}])")).join(" or ")
}

/// The sum of the rates of failed requests within the chosen clusters by labels; by none in all.
pub(crate) fn failures(by: &str, labels: &str) -> String {
    sum(by, &failed(&format!(r#"cluster=~"$cluster", {labels}"#), WINDOW))
}

/// A sum by labels; by none in all.
pub(crate) fn sum(by: &str, of: &str) -> String {
    if by.is_empty() { format!("sum({of})") } else { format!("sum by ({by}) ({of})") }
}

/// A metric within the chosen clusters: `labels` are more matchers.
pub(crate) fn chosen(metric: &str, labels: &str) -> String {
    let comma = if labels.is_empty() { "" } else { ", " };
    format!(r#"{metric}{{cluster=~"$cluster"{comma}{labels}}}"#)
}

/// A quantile of a histogram over the window, by labels besides `le`.
pub(crate) fn quantile(q: &str, by: &str, histogram: &str, labels: &str) -> String {
    let by = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
    format!("histogram_quantile({q}, {})", rates(&by, &format!("{histogram}_bucket"), labels))
}

/// A query as Grafana sends it with everything chosen, over the last five minutes.
pub fn with_all_chosen(query: &str) -> String {
    let mut query = query.replace(WINDOW, "5m");
    for variable in ["cluster", "namespace", "service", "workload", "route", "gateway", "node"] {
        query = query.replace(&format!("${variable}"), ".*");
    }
    query
}

/// The names of Weft's metrics and recorded series in a query or matcher.
pub fn metric_names(query: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = query.split(|c: char| !is_name(c));
    words.filter(|word| word.starts_with("weft_") || word.starts_with("weft:")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_together() {
        assert_eq!(rates("", "c_total", ""), r#"sum(rate(c_total{cluster=~"$cluster"}[$__rate_interval]))"#);
        let failed = failures("node", "a=\"b\"");
        let within =
            |matcher| format!(r#"rate({REQUESTS}{{cluster=~"$cluster", a="b", {matcher}}}[$__rate_interval])"#);
        let (http, grpc) = (within(r#"response_class=~"5xx|none""#), within(r#"grpc_status=~"2|4|12|13|14|15""#));
        assert_eq!(failed, format!("sum by (node) ({http} or {grpc})"));
        let quantile = quantile("0.99", "route", "h", r#"reporter="source""#);
        let inner = r#"rate(h_bucket{cluster=~"$cluster", reporter="source"}[$__rate_interval])"#;
        assert_eq!(quantile, format!("histogram_quantile(0.99, sum by (le, route) ({inner}))"));
        let chosen = with_all_chosen(r#"rate(a{node=~"$node", x=~"$namespace/$service:.*"}[$__rate_interval])"#);
        assert_eq!(chosen, r#"rate(a{node=~".*", x=~".*/.*:.*"}[5m])"#);
        let names = metric_names("rate(weft_a_total[5m]) / on (x) weft:b:rate5m * up");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["weft:b:rate5m", "weft_a_total"]);
    }
}
