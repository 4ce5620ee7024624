use weft_node_proxy::records::Attempt;

use super::view::{Latest, Story};
use super::*;

fn source() -> Record {
    Record {
        request_id: "7f4e".into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        time: "2026-11-22T10:00:00.120000Z".into(),
        reporter: "source".into(),
        source: "shop/web-1".into(),
        source_identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
        source_address: "10.244.1.5:41822".into(),
        destination: "shop/cart-v2-2".into(),
        endpoint: "10.244.2.8:8080".into(),
        service: "shop/cart:80".into(),
        backend: "shop/cart-v2:80".into(),
        route: "HTTPRoute/shop/cart-canary".into(),
        rule: "1".into(),
        protocol: "http1".into(),
        method: "GET".into(),
        authority: "cart.shop".into(),
        path: "/items".into(),
        status: 403,
        reason: "policy_denied".into(),
        made_by: "proxy".into(),
        answered_by: "shop/cart-v2-2".into(),
        object: "AuthorizationPolicies of shop/cart-v2-2".into(),
        attempts: vec![
            Attempt {
                endpoint: "10.244.2.7:8080".into(),
                workload: "shop/cart-v2-1".into(),
                outcome: "connect_failed".into(),
                detail: "cannot connect to 10.244.2.7:8080: connection refused; is the application listening there?"
                    .into(),
            },
            Attempt {
                endpoint: "10.244.2.8:8080".into(),
                workload: "shop/cart-v2-2".into(),
                outcome: "403".into(),
                ..Attempt::default()
            },
        ],
        duration_ms: 3.4,
        kept: "failed".into(),
        ..Record::default()
    }
}

fn destination() -> Record {
    Record {
        time: "2026-11-22T10:00:00.119000Z".into(),
        reporter: "destination".into(),
        service: String::new(),
        backend: String::new(),
        route: String::new(),
        rule: String::new(),
        detail: "AuthorizationPolicy shop/only-web".into(),
        object: "AuthorizationPolicy shop/only-web".into(),
        attempts: Vec::new(),
        duration_ms: 0.2,
        ..source()
    }
}

fn of(node: &str, record: Record) -> (String, Record) {
    (format!("node {node}"), record)
}

/// A Gateway, `web` behind it, and what `web` asks with the same id: a Service without endpoints.
#[test]
fn what_an_application_asks_with_the_id_of_its_own_request_is_nearer_to_the_cause() {
    let gateway = || Record {
        time: "2026-11-22T10:00:00.300000Z".into(),
        reporter: "gateway".into(),
        source: "shop/edge".into(),
        destination: "shop/web-1".into(),
        status: 502,
        reason: "ok".into(),
        object: "Pod shop/web-1".into(),
        attempts: Vec::new(),
        ..source()
    };
    let web = || Record { time: "2026-11-22T10:00:00.100000Z".into(), reporter: "destination".into(), ..gateway() };
    let calls = || Record {
        time: "2026-11-22T10:00:00.200000Z".into(),
        destination: String::new(),
        status: 503,
        reason: "no_endpoint".into(),
        object: "Service shop/cart-v2:80".into(),
        attempts: Vec::new(),
        ..source()
    };
    let known = [of("n1", web()), of("n1", calls()), of("edge", gateway())];
    for [a, b, c] in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let story = Story::of("7f4e", [a, b, c].map(|i| known[i].clone()).to_vec()).unwrap();
        let way: Vec<_> = story.way.iter().map(|it| it.record.reporter.as_str()).collect();
        assert_eq!(way, ["gateway", "destination", "source"]);
        assert_eq!((story.object.as_str(), story.status), ("Service shop/cart-v2:80", 502));
    }
    // Two that call each other with the same id have an order, too.
    let back = || Record { source: "shop/cart-v2-2".into(), destination: "shop/web-1".into(), ..source() };
    let circle = vec![of("n1", source()), of("n2", destination()), of("n2", back()), of("n1", web())];
    assert_eq!(Story::of("7f4e", circle).unwrap().way.len(), 4);
}

#[test]
fn the_story_of_a_request() {
    let story = Story::of("7f4e", vec![of("n2", destination()), of("n1", source())]).unwrap();
    assert_eq!(story.object, "AuthorizationPolicy shop/only-web", "nearest to the cause");
    insta::assert_snapshot!(story.to_string());
    insta::assert_json_snapshot!(story);
    assert!(crate::is_in_manual(&story.to_string()));
    assert_eq!(Story::of("7f4e", Vec::new()), None);
}

#[test]
fn one_that_was_only_slow_is_no_ones_fault() {
    let slow = Record {
        status: 200,
        reason: "ok".into(),
        made_by: "application".into(),
        answered_by: String::new(),
        object: "Pod shop/cart-v2-2".into(),
        attempts: Vec::new(),
        duration_ms: 2400.0,
        kept: "slow".into(),
        ..source()
    };
    insta::assert_snapshot!(Story::of("7f4e", vec![of("n1", slow)]).unwrap().to_string());
}

#[test]
fn the_last_that_failed() {
    let latest = Latest::of(vec![of("n2", destination()), of("n1", source())], 20);
    insta::assert_snapshot!(latest.to_string());
    assert!(crate::is_in_manual(&latest.to_string()));
    assert!(Latest::of(Vec::new(), 20).to_string().starts_with("no proxy has kept a request"));
    let one = Latest::of(vec![of("n2", destination()), of("n1", source())], 1);
    assert!(one.to_string().contains("10:00:00.120000Z") && !one.to_string().contains("10:00:00.119000Z"), "{one}");
}

#[test]
fn a_page_that_cannot_be_read_costs_itself() {
    let page = |text: &str| text.as_bytes().to_vec().into();
    let answers = Answers {
        pages: vec![("node n1".into(), page("<html>")), ("node n2".into(), page(r#"[{"request_id":"a","new":1}]"#))],
        unread: vec!["node n3: gone".into()],
    };
    let (known, unread) = known(answers);
    assert_eq!((known.len(), known[0].1.request_id.as_str()), (1, "a"), "also of another version");
    assert_eq!(unread.len(), 2);
}
