use super::*;

/// Two nodes: web on n1 calls cart on n2, by two rules; somebody outside of the mesh calls cart, too, and ledger is plain TCP.
fn at(factor: f64) -> Pages {
    let ends = |from: &str, to: &str| {
        format!(
            "reporter=\"source\",source_namespace=\"shop\",source_workload=\"{from}\",destination_namespace=\"shop\",\
             destination_workload=\"{to}\""
        )
    };
    let service = |name: &str, port: u16| {
        format!("destination_service_namespace=\"shop\",destination_service=\"{name}\",destination_port=\"{port}\"")
    };
    let mut n1 = String::new();
    let mut line = |name: &str, labels: String, value: f64| n1.push_str(&format!("{name}{{{labels}}} {value}\n"));
    for (to, rule, requests, failed, time) in [("cart-v1", 0, 900.0, 0.0, 9.0), ("cart-v2", 1, 100.0, 20.0, 12.0)] {
        let who = format!("{},{}", ends("web", to), service("cart", 80));
        let way = format!(
            "route=\"HTTPRoute/shop/canary\",rule=\"{rule}\",connection_security=\"mutual_tls\",protocol=\"http1\""
        );
        let outcome = |class: &str, reason: &str| {
            format!("{who},{way},response_class=\"{class}\",reason=\"{reason}\",grpc_status=\"\"")
        };
        line("weft_http_requests_total", outcome("2xx", "ok"), (requests - failed) * factor);
        line("weft_http_requests_total", outcome("5xx", "upstream_reset"), failed * factor);
        line("weft_http_request_time_seconds_total", format!("{who},{way}"), time * factor);
        line("weft_http_retries_total", format!("{who},{way}"), failed * factor);
        let place = format!(
            "reporter=\"source\",destination_namespace=\"shop\",destination_workload=\"{to}\",{},route=\"HTTPRoute/shop/canary\",rule=\"{rule}\"",
            service("cart", 80)
        );
        for (le, share) in [("0.01", 0.5), ("0.1", 0.9), ("1.0", 1.0), ("+Inf", 1.0)] {
            line(
                "weft_http_request_duration_seconds_bucket",
                format!("{place},le=\"{le}\""),
                requests * share * factor,
            );
        }
    }
    let tcp = format!("{},{},connection_security=\"mutual_tls\"", ends("web", "ledger"), service("ledger", 5432));
    line("weft_tcp_connections", tcp.clone(), 3.0);
    line("weft_tcp_connections_opened_total", tcp, 10.0 * factor);
    let http = "reporter=\"source\",source_namespace=\"shop\",source_workload=\"web\",destination_namespace=\"various\",\
        destination_workload=\"various\",destination_service_namespace=\"\",destination_service=\"\",destination_port=\"\",\
        connection_security=\"mutual_tls\"";
    line("weft_tcp_connections", http.to_owned(), 7.0);
    line("weft_tcp_received_bytes_total", http.to_owned(), 5000.0 * factor);
    let mut n2 = String::new();
    for (to, from, security, opened, received) in [
        ("cart-v1", "various", "mutual_tls", 8.0, 4000.0),
        ("cart-v1", "unknown", "plaintext", 100.0, 1_000_000.0),
        ("cart-v1", "unknown", "node", 60.0, 60.0),
    ] {
        let labels = format!(
            "reporter=\"destination\",source_namespace=\"{from}\",source_workload=\"{from}\",destination_namespace=\"shop\",\
             destination_workload=\"{to}\",destination_service_namespace=\"\",destination_service=\"\",destination_port=\"\",\
             connection_security=\"{security}\""
        );
        n2.push_str(&format!("weft_tcp_connections_opened_total{{{labels}}} {}\n", opened * factor));
        n2.push_str(&format!("weft_tcp_received_bytes_total{{{labels}}} {}\n", received * factor));
    }
    vec![("node n1".into(), Metrics::parse(&n1)), ("node n2".into(), Metrics::parse(&n2))]
}

/// Ten seconds of it.
fn window() -> Window {
    Window::between(&at(1.0), &at(2.0), Duration::from_secs(10))
}

#[test]
fn rows_of_each_kind() {
    let filter = Filter::default();
    for by in [By::Workload, By::Service, By::Route, By::Caller] {
        let text = Stat::of(&window(), by, &filter).to_string();
        let shown = matches!(by, By::Workload | By::Route);
        assert!(!shown || crate::is_in_manual(&text), "{by:?}");
        insta::assert_snapshot!(format!("{by:?}"), text);
    }
    insta::assert_json_snapshot!(Stat::of(&window(), By::Route, &filter));
}

#[test]
fn who_calls_whom() {
    let edges = Edges::of(&window(), &Filter::default()).to_string();
    assert!(crate::is_in_manual(&edges));
    insta::assert_snapshot!(edges);
    insta::assert_json_snapshot!(Edges::of(
        &window(),
        &Filter { to: Some("shop/cart-v2".into()), ..Filter::default() }
    ));
    assert_eq!(Edges::of(&Window::default(), &Filter::default()).to_string(), "no traffic in 0 s\n");
}

#[test]
fn filters_leave_the_rest_out() {
    let rows = |by, filter: &Filter| -> Vec<String> {
        Stat::of(&window(), by, filter).rows.into_iter().map(|row| row.name).collect()
    };
    let of = |from: &str, to: &str, service: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Filter { from: some(from), to: some(to), service: some(service) }
    };
    assert_eq!(rows(By::Workload, &of("shop", "shop/cart-v2", "")), ["shop/cart-v2"]);
    assert_eq!(rows(By::Route, &of("", "", "shop/cart")).len(), 2);
    assert!(rows(By::Route, &of("", "", "shop/car")).is_empty(), "a Service's whole name");
    assert!(rows(By::Service, &of("other", "", "")).is_empty());
    // Latency isn't counted by caller.
    let of_one = Stat::of(&window(), By::Service, &of("shop/web", "", ""));
    assert_eq!((of_one.rows[0].p99_seconds, of_one.rows[0].mean_seconds.is_some()), (None, true));
}

#[test]
fn the_first_rows_are_those_that_are_asked_for() {
    let first = |sort| Stat::of(&window(), By::Route, &Filter::default()).first(sort, 1).rows.remove(0).name;
    assert_eq!(first(Sort::Rps), "HTTPRoute shop/canary rule 0");
    assert_eq!(first(Sort::Failures), "HTTPRoute shop/canary rule 1");
}

#[test]
fn a_proxy_that_began_anew_has_counted_from_nothing() {
    let mut second = at(0.5);
    let stat = |second: &Pages| {
        let window = Window::between(&at(1.0), second, Duration::from_secs(10));
        Stat::of(&window, By::Service, &Filter::default()).rows.first().map(|row| row.requests_per_second)
    };
    assert_eq!(stat(&second), Some(50.0));
    second.remove(0);
    assert_eq!(stat(&second), None, "it is gone");
}

/// One that couldn't be asked at first has counted for days.
#[test]
fn a_proxy_that_is_there_for_the_first_time_counts_for_nothing_yet() {
    let window = Window::between(&[], &at(1.0), Duration::from_secs(10));
    assert_eq!(Stat::of(&window, By::Service, &Filter::default()).rows, []);
    assert_eq!(window.now.len(), at(1.0).len(), "its gauges count");
}

#[test]
fn quantiles_are_interpolated_within_their_bucket() {
    let page = "h{le=\"0.1\"} 50\nh{le=\"0.2\"} 100\nh{le=\"+Inf\"} 100\n";
    let of = |page: &str| {
        let mut histogram = weft_view::count::Histogram::default();
        Metrics::parse(page).of("h").for_each(|sample| histogram.add(sample));
        histogram
    };
    let close = |q: f64, want: f64| (of(page).quantile(q).unwrap() - want).abs() < 1e-9;
    assert!(close(0.5, 0.1) && close(0.75, 0.15) && close(0.25, 0.05));
    assert_eq!(of("h{le=\"0.1\"} 0\nh{le=\"+Inf\"} 9\n").quantile(0.5), Some(0.1), "beyond the last bound");
    assert_eq!(of("h{le=\"0.1\"} 0\nh{le=\"+Inf\"} 0\n").quantile(0.5), None);
    assert_eq!(of("h{le=\"NaN\"} 1\n").quantile(0.5), None);
}
