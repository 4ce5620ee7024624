use serde_json::json;

use super::*;

fn facts() -> Facts<'static> {
    Facts {
        source: End { namespace: "shop", pod: "web-1", workload: "web" },
        destination: End { namespace: "bank", pod: "pay-7", workload: "pay" },
        service: "bank/pay",
        route: "bank/canary",
        method: "GET",
        path: "/orders/17",
        status: 503,
        failed: true,
        reporter: "source",
    }
}

fn filter(value: serde_json::Value) -> Filter {
    let filter: Filter = serde_json::from_value(value).unwrap();
    filter.check().unwrap();
    filter
}

#[test]
fn each_part_of_a_filter_lets_pass_what_it_says_and_nothing_else() {
    for (fits, other) in [
        (json!({ "namespace": "shop" }), json!({ "namespace": "edge" })),
        (json!({ "namespace": "bank" }), json!({ "namespace": "ban" })),
        (
            json!({ "namespace": "shop", "of": { "pod": "web-1" } }),
            json!({ "namespace": "shop", "of": { "pod": "pay-7" } }),
        ),
        (
            json!({ "namespace": "bank", "of": { "workload": "pay" } }),
            json!({ "namespace": "bank", "of": { "workload": "web" } }),
        ),
        (
            json!({ "namespace": "bank", "of": { "service": "pay" } }),
            json!({ "namespace": "shop", "of": { "service": "pay" } }),
        ),
        (json!({ "namespace": "shop", "direction": "out" }), json!({ "namespace": "shop", "direction": "in" })),
        (json!({ "namespace": "bank", "direction": "in" }), json!({ "namespace": "bank", "direction": "out" })),
        (
            json!({ "namespace": "bank", "of": { "service": "pay" }, "direction": "in" }),
            json!({ "namespace": "bank", "of": { "service": "pay" }, "direction": "out" }),
        ),
        (json!({ "from": "shop" }), json!({ "from": "bank" })),
        (json!({ "from": "shop/web" }), json!({ "from": "shop/pay" })),
        (json!({ "from": "shop/web-1" }), json!({ "from": "shop/web-2" })),
        (json!({ "to": "bank" }), json!({ "to": "shop" })),
        (json!({ "to": "bank/pay" }), json!({ "to": "shop/pay" })),
        (json!({ "service": "bank/pay" }), json!({ "service": "bank/pa" })),
        (json!({ "route": "bank/canary" }), json!({ "route": "bank/other" })),
        (json!({ "method": "GET" }), json!({ "method": "POST" })),
        (json!({ "path": "/orders" }), json!({ "path": "/order/" })),
        (json!({ "status": "503" }), json!({ "status": "502" })),
        (json!({ "status": "5xx" }), json!({ "status": "2xx" })),
        (json!({ "reporter": "source" }), json!({ "reporter": "gateway" })),
    ] {
        assert!(filter(fits.clone()).matches(&facts()), "{fits}");
        assert!(!filter(other.clone()).matches(&facts()), "{other}");
    }
    assert!(Filter::default().matches(&facts()) && Filter::default().matches(&Facts::default()));
    let failed = filter(json!({ "status": "failed" }));
    assert!(failed.matches(&facts()) && !failed.matches(&Facts { failed: false, ..facts() }));
}

#[test]
fn all_parts_have_to_fit() {
    let both = json!({ "namespace": "shop", "method": "GET", "path": "/orders", "to": "bank/pay", "status": "5xx" });
    assert!(filter(both.clone()).matches(&facts()));
    for (part, value) in [("namespace", "edge"), ("method", "PUT"), ("path", "/x"), ("to", "bank/x"), ("status", "4xx")]
    {
        let mut odd = both.clone();
        odd[part] = json!(value);
        assert!(!filter(odd).matches(&facts()), "{part}");
    }
}

/// An end that isn't known has no namespace, which must not make it one of a namespace that is asked for.
#[test]
fn a_namespace_is_shown_its_own_traffic_only() {
    let of = |namespace: &str| Filter { namespace: namespace.into(), ..Filter::default() };
    assert!(of("shop").is_within("shop", "bank") && of("shop").is_within("bank", "shop") && of("").is_within("a", "b"));
    assert!(
        !of("shop").is_within("bank", "bank") && !of("shop").is_within("", "") && !of("shop").is_within("sho", "shops")
    );
}

#[test]
fn what_can_not_be_had_is_refused_with_the_limits() {
    let wrong = |value: serde_json::Value| serde_json::from_value::<Tap>(value).unwrap().check().unwrap_err();
    assert!(wrong(json!({ "rate": 0 })).contains("1 and 1000"));
    assert!(wrong(json!({ "rate": 1001 })).contains("1 and 1000"));
    assert!(wrong(json!({ "seconds": 601 })).contains("1 and 600"));
    assert!(wrong(json!({ "filter": { "of": { "pod": "a" } } })).contains("namespace"));
    assert!(wrong(json!({ "filter": { "service": "pay" } })).contains("NAMESPACE/NAME"));
    assert!(wrong(json!({ "filter": { "route": "HTTPRoute/bank/canary" } })).contains("NAMESPACE/NAME"));
    assert!(wrong(json!({ "filter": { "status": "7xx" } })).contains("5xx"));
    assert!(wrong(json!({ "filter": { "reporter": "me" } })).contains("gateway"));
    assert_eq!(Tap::default().check(), Ok(()));
    let unknown = serde_json::from_value::<Tap>(json!({ "filter": { "header": "cookie" } }));
    assert!(unknown.is_err(), "an older proxy must not show more than was asked for");
}

#[test]
fn lines_are_read_as_they_are_written() {
    let record = Record { path: "/a".into(), status: 200, ..Record::default() };
    for line in [
        Line::Seen(Box::new(record)),
        Line::Dropped(7),
        Line::Joined(vec!["node n1".into()]),
        Line::Left { proxy: "node n2".into(), why: "gone".into() },
        Line::Quiet,
        Line::End("it has lasted for its time".into()),
    ] {
        let text = line.text();
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
        assert_eq!(Line::parse(text.as_bytes()).unwrap(), line);
    }
    assert!(Line::parse(br#"{"seen":{"path":"/a","new":1}}"#).is_ok(), "also of a newer version");
}

#[test]
fn what_a_client_says_is_cut_between_characters() {
    let mut record = Record { path: "ü".repeat(LONGEST_TEXT), ..Record::default() };
    record.cut();
    assert_eq!(record.path.len(), LONGEST_TEXT);
}

#[test]
fn lines_come_in_pieces() {
    let (text, mut lines) = (format!("{}{}", Line::Quiet.text(), Line::Dropped(3).text()), Lines::default());
    let (first, rest) = text.as_bytes().split_at(4);
    assert_eq!(lines.push(first).unwrap(), []);
    assert_eq!(lines.push(rest).unwrap(), [Line::Quiet, Line::Dropped(3)]);
    assert_eq!(lines.push(b"\"quiet\"").unwrap(), []);
    assert_eq!(lines.push(b"\n").unwrap(), [Line::Quiet]);
    assert!(matches!(lines.push(b"<html>\n"), Err(NoLine::Odd(_))));
    assert!(matches!(Lines::default().push(&[b'x'; LONGEST_LINE + 1]), Err(NoLine::Long)));
}
