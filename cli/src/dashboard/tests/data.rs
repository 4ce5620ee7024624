//! Fixed data, by the way that real data takes: pages of metrics and a configuration.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_core::snapshot::Snapshot;
use weft_view::{History, Metrics};

use crate::cluster::{Finding, Severity};
use crate::dashboard::local::State;
use crate::dashboard::source::{Refused, View, problems};
use crate::explain::tests::shop as configuration;

/// A caller, whom it calls, the Service that it dials, by which route and rule, requests a second, the share that fails, and how many
/// milliseconds one takes.
type Call = (&'static str, &'static str, &'static str, &'static str, f64, f64, f64);

const SHOP: [Call; 12] = [
    ("edge/public", "shop/web", "shop/web:80", "HTTPRoute/shop/public#0", 120.0, 0.0, 21.0),
    ("shop/web", "shop/catalog-v1", "shop/catalog:80", "HTTPRoute/shop/catalog-canary#0", 162.0, 0.0, 9.0),
    ("shop/web", "shop/catalog-v2", "shop/catalog:80", "HTTPRoute/shop/catalog-canary#0", 18.0, 0.06, 31.0),
    ("shop/web", "shop/cart-stable", "shop/cart:80", "HTTPRoute/shop/cart-beta-testers#1", 44.0, 0.0, 12.0),
    ("shop/web", "shop/cart-beta", "shop/cart:80", "HTTPRoute/shop/cart-beta-testers#0", 3.0, 0.0, 14.0),
    ("shop/web", "shop/orders", "shop/orders:80", "HTTPRoute/shop/orders#0", 22.0, 0.004, 40.0),
    ("shop/orders", "shop/payments", "shop/payments:9000", "GRPCRoute/shop/payments#0", 21.0, 0.0, 80.0),
    ("shop/orders", "shop/audit", "shop/audit:80", "", 22.0, 0.0, 4.0),
    ("shop/payments", "bank/clearing", "bank/clearing:443", "", 20.0, 0.0, 55.0),
    ("reports/nightly", "shop/catalog-v1", "shop/catalog:80", "HTTPRoute/reports/catalog-for-reports#0", 6.0, 0.0, 8.0),
    // Names are whatever somebody calls a workload in a source that doesn't check them.
    ("shop/<script>alert(1)</script>", "shop/cart-stable", "shop/cart:80", "", 1.0, 0.0, 5.0),
    ("shop/orders", "unknown/unknown", "shop/stock:80", "", 3.2, 1.0, 0.4),
];

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap()
}

fn ends(from: &str, to: &str, reporter: &str) -> String {
    let ((from_space, from), (to_space, to)) = (split(from), split(to));
    format!(
        "reporter=\"{reporter}\",source_namespace=\"{from_space}\",source_workload=\"{from}\",\
         destination_namespace=\"{to_space}\",destination_workload=\"{to}\""
    )
}

fn dialled(service: &str) -> String {
    let (name, port) = service.split_once(':').unwrap_or((service, ""));
    let (namespace, name) = name.split_once('/').unwrap_or(("", ""));
    format!("destination_service_namespace=\"{namespace}\",destination_service=\"{name}\",destination_port=\"{port}\"")
}

/// A page that has counted these calls for some seconds.
fn page(calls: &[Call], seconds: f64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, labels: String, value: f64| text.push_str(&format!("{name}{{{labels}}} {value}\n"));
    for (from, to, service, rule, rps, failed, ms) in calls {
        let (route, index) = rule.split_once('#').unwrap_or_default();
        let by = format!("{},route=\"{route}\",rule=\"{index}\"", dialled(service));
        let count = rps * seconds;
        let (reason, security) = if *to == "unknown/unknown" { ("no_endpoint", "none") } else { ("ok", "mutual_tls") };
        let way = format!("{},{by},connection_security=\"{security}\"", ends(from, to, "source"));
        line("weft_http_requests_total", format!("{way},response_class=\"2xx\",reason=\"ok\""), count * (1.0 - failed));
        line("weft_http_requests_total", format!("{way},response_class=\"5xx\",reason=\"{reason}\""), count * failed);
        line("weft_http_request_time_seconds_total", way, count * ms / 1000.0);
        let (space, name) = split(to);
        let place =
            format!("reporter=\"source\",destination_namespace=\"{space}\",destination_workload=\"{name}\",{by}");
        for (le, share) in [(ms / 1000.0, 0.5), (ms / 250.0, 0.985), (ms / 100.0, 1.0)] {
            line("weft_http_request_duration_seconds_bucket", format!("{place},le=\"{le}\""), count * share);
        }
        line("weft_http_request_duration_seconds_bucket", format!("{place},le=\"+Inf\""), count);
    }
    text
}

/// Connections that aren't HTTP, of which one comes from outside of the mesh, and some that are refused.
fn connections(seconds: f64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, labels: String, value: f64| text.push_str(&format!("{name}{{{labels}}} {value}\n"));
    let tcp = format!("{},{}", ends("shop/orders", "shop/ledger", "source"), dialled("shop/ledger:5432"));
    line("weft_tcp_connections", format!("{tcp},connection_security=\"mutual_tls\""), 4.0);
    line("weft_tcp_connections_opened_total", format!("{tcp},connection_security=\"mutual_tls\""), 0.3 * seconds);
    let clear = format!("{},{}", ends("unknown/unknown", "shop/catalog-v1", "destination"), dialled(""));
    line("weft_tcp_connections_opened_total", format!("{clear},connection_security=\"plaintext\""), 0.6 * seconds);
    let refused = "namespace=\"shop\",workload=\"payments\",direction=\"inbound\",reason=\"plaintext_refused\"";
    line("weft_tcp_connections_refused_total", refused.to_owned(), 0.4 * seconds);
    text
}

/// Certificates that end so many seconds after a moment.
fn certificates(now: f64) -> String {
    let of = |account: &str| format!("{{identity=\"spiffe://cluster.local/ns/shop/sa/{account}\"}}");
    let mut text = String::new();
    for (account, left) in [("web", 20_500.0), ("cart", 2_400.0), ("orders", 35_000.0), ("payments", 41_000.0)] {
        text.push_str(&format!("weft_certificate_expiry_timestamp_seconds{} {}\n", of(account), now + left));
    }
    text.push_str(&format!("weft_certificate_expiry_timestamp_seconds{} 0\n", of("audit")));
    text.push_str(&format!(
        "weft_certificate_renewal_failures{} 6\nweft_certificate_renewal_failures{} 2\n",
        of("audit"),
        of("cart")
    ));
    text + &format!("weft_trusted_root_expiry_timestamp_seconds{{trust_domain=\"cluster.local\"}} {}\n", now + 3.1e8)
}

/// Ten seconds of these calls.
fn counted(calls: &[Call], snapshot: Snapshot, more: impl Fn(f64) -> String) -> State {
    let (mut history, start) = (History::default(), Instant::now());
    for seconds in [100.0, 110.0] {
        let text = page(calls, seconds) + &more(seconds);
        history.take(start + Duration::from_secs_f64(seconds), vec![("node n1".to_owned(), Metrics::parse(&text))]);
    }
    State { history, snapshot, ..State::default() }
}

/// The shop, at a moment in Unix time.
pub fn shop(now: f64) -> State {
    counted(&SHOP, configuration(), |seconds| connections(seconds) + &certificates(now))
}

/// The same without names that nobody has.
pub fn tidy_shop(now: f64) -> State {
    let calls: Vec<_> = SHOP.into_iter().filter(|(from, ..)| !from.contains('<')).collect();
    counted(&calls, configuration(), |seconds| connections(seconds) + &certificates(now))
}

/// 40 workloads in layers, each called by a few of the layer before: what must still be readable.
pub fn large() -> State {
    let layers = [
        ("edge", "door", 2),
        ("front", "site", 6),
        ("shop", "service", 12),
        ("back", "worker", 12),
        ("data", "store", 8),
    ];
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let mut seed = 7_u32;
    let mut next = move |below: u32| {
        // Numbers that are the same everywhere (a linear congruential generator).
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    let mut calls = Vec::new();
    for pair in layers.windows(2) {
        let [(from_space, from, width), (space, name, count)] = [pair[0], pair[1]];
        for to in 0..count {
            for _ in 0..=next(2) {
                let from = leak(format!("{from_space}/{from}-{}", next(width)));
                let (to, service) = (leak(format!("{space}/{name}-{to}")), leak(format!("{space}/{name}-{to}:80")));
                let failed = if next(17) == 0 { 0.03 } else { 0.0 };
                let rps = f64::from(2 + next(90));
                if !calls.iter().any(|(f, t, ..): &Call| *f == from && *t == to) {
                    calls.push((from, to, service, "", rps, failed, f64::from(3 + next(40))));
                }
            }
        }
    }
    counted(&calls, Snapshot::default(), |_| String::new())
}

/// What the page gets of a state.
pub fn answer(state: &State, view: View, namespace: Option<&str>) -> Result<Value, Refused> {
    let value = state.view(view, namespace)?;
    if view != View::Problems {
        return Ok(value);
    }
    let findings = [
        Finding::new(Severity::Error, "Pod shop/audit", "its traffic is in the clear: nft: operation not permitted")
            .remedy("kubectl -n weft-system logs daemonset/weft-agent says more; the agent of node n1 tries again by itself"),
        Finding::new(Severity::Error, "HTTPRoute shop/search", "Accepted=False, NoMatchingParent: there is no Service shop/search")
            .remedy("mend it (kubectl -n shop get httproute search -o yaml)"),
        Finding::new(Severity::Warning, "NetworkPolicy reports/nightly-only", "it lets some ports in to nightly, and not 15008")
            .remedy("add port 15008 to spec.ingress[0].ports"),
    ];
    Ok(problems(&crate::dashboard::source::concerning(&findings, namespace), &value, &[]))
}

/// A refusal as a view server words it.
pub fn refused(view: View, namespace: Option<&str>) -> Result<Value, Refused> {
    let place = namespace.map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
    match (namespace, view) {
        (Some("shop"), View::Problems) => Ok(problems(&[], &json!({ "seconds": 10.0, "failures": [] }), &[])),
        (Some("shop"), _) => Ok(json!({ "seconds": 10.0, "nodes": [], "edges": [] })),
        _ => Err(Refused::new(http::StatusCode::FORBIDDEN, format!("jane may not get views.weftmesh.io in {place}"))),
    }
}
