use clap::Parser;
use weft_core::tap::Record;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn tap(arguments: &[&str]) -> Result<Tap, String> {
    let cli = Cli::try_parse_from([&["tap"], arguments].concat()).map_err(|error| error.to_string())?;
    cli.args.tap(true).map_err(|error| error.to_string())
}

#[test]
fn arguments_become_a_tap() {
    let all = [
        "deploy/cart",
        "-n",
        "shop",
        "--direction",
        "in",
        "--from",
        "edge",
        "--to",
        "shop/cart",
        "--route",
        "shop/canary",
        "--method",
        "get",
        "--path",
        "/items",
        "--status",
        "5xx",
        "--seen-by",
        "source",
        "--count",
        "7",
        "--for",
        "30s",
        "--rate",
        "20",
        "--query",
    ];
    let filter = Filter {
        namespace: "shop".into(),
        of: Of::Workload("cart".into()),
        direction: Some(Direction::In),
        from: "edge".into(),
        to: "shop/cart".into(),
        service: String::new(),
        route: "shop/canary".into(),
        method: "GET".into(),
        path: "/items".into(),
        status: "5xx".into(),
        reporter: "source".into(),
    };
    assert_eq!(tap(&all), Ok(Tap { filter, rate: 20, seconds: 30, count: 7, query: true }));
    assert_eq!(tap(&["-A"]), Ok(Tap::default()));
    let of = |what: &str| tap(&[what, "-n", "shop"]).map(|tap| tap.filter.of);
    assert_eq!(of("pods"), Ok(Of::Namespace));
    assert_eq!(of("pod/web-1"), Ok(Of::Pod("web-1".into())));
    assert_eq!(of("svc/cart"), Ok(Of::Service("cart".into())));
    assert_eq!(of("sts/ledger"), Ok(Of::Workload("ledger".into())));
}

#[test]
fn mistakes_say_what_is_expected() {
    for (arguments, expected) in [
        (&[][..], "--namespace NAME"),
        (&["deploy/a"], "--namespace NAME"),
        (&["deploy/a", "-A"], "cannot be used with"),
        (&["web", "-n", "a"], "KIND/NAME"),
        (&["ingress/a", "-n", "a"], "only pods"),
        (&["-n", "a", "--for", "11m"], "10 minutes at most"),
        (&["-n", "a", "--rate", "0"], "between 1 and 1000"),
        (&["-n", "a", "--status", "ok"], "503 or 5xx"),
        (&["-n", "a", "--route", "canary"], "NAMESPACE/NAME"),
    ] {
        let said = tap(arguments).unwrap_err();
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

fn record() -> Record {
    Record {
        time: "2026-11-22T10:00:00.1204Z".into(),
        proxy: "node n1".into(),
        reporter: "source".into(),
        request_id: "7f4e".into(),
        source_namespace: "shop".into(),
        source_workload: "web".into(),
        source_pod: "web-1".into(),
        source_identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
        source_address: "10.244.1.5:41822".into(),
        destination_namespace: "shop".into(),
        destination_workload: "cart-v2".into(),
        destination_pod: "cart-v2-2".into(),
        destination_identity: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        endpoint: "10.244.2.8:8080".into(),
        service: "shop/cart:80".into(),
        route: "HTTPRoute/shop/canary".into(),
        rule: "1".into(),
        protocol: "http1".into(),
        method: "GET".into(),
        authority: "cart.shop".into(),
        path: "/items".into(),
        status: 200,
        reason: "ok".into(),
        made_by: "application".into(),
        duration_ms: 3.4,
        response_bytes: 512,
        tries: 1,
        connection_security: "mutual_tls".into(),
        ..Record::default()
    }
}

/// A request that succeeds, one without an endpoint, one at a Gateway, and a connection that isn't HTTP.
fn records() -> [Record; 4] {
    let failed = Record {
        time: "2026-11-22T10:00:01Z".into(),
        request_id: "81aa".into(),
        destination_workload: String::new(),
        destination_pod: String::new(),
        destination_identity: String::new(),
        endpoint: String::new(),
        method: "POST".into(),
        status: 503,
        reason: "no_endpoint".into(),
        made_by: "proxy".into(),
        detail: "shop/cart-v2:80 has no ready endpoint".into(),
        duration_ms: 0.1,
        response_bytes: 11,
        tries: 0,
        connection_security: "none".into(),
        ..record()
    };
    let gateway = Record {
        time: "2026-11-22T10:00:01.5Z".into(),
        proxy: "gateway edge/public-weft-6c9".into(),
        reporter: "gateway".into(),
        source_namespace: "edge".into(),
        source_workload: "public-weft".into(),
        source_pod: "public".into(),
        protocol: "grpc".into(),
        method: "POST".into(),
        authority: "shop.example".into(),
        path: "/shop.Cart/Add".into(),
        grpc_status: "14".into(),
        ..record()
    };
    let tcp = Record {
        time: "2026-11-22T10:00:02.25Z".into(),
        request_id: String::new(),
        destination_workload: "ledger".into(),
        destination_pod: "ledger-0".into(),
        endpoint: "10.244.2.9:5432".into(),
        service: "shop/ledger:5432".into(),
        route: String::new(),
        rule: String::new(),
        protocol: "tcp".into(),
        method: String::new(),
        authority: String::new(),
        path: String::new(),
        status: 0,
        made_by: "application".into(),
        duration_ms: 1204.0,
        request_bytes: 310,
        response_bytes: 4096,
        tries: 0,
        ..record()
    };
    [record(), failed, gateway, tcp]
}

fn shown(output: Format) -> String {
    let mut screen = Screen::new(output, true);
    records().into_iter().map(|record| screen.take(Line::Seen(Box::new(record)))).collect()
}

#[test]
fn requests_as_people_and_programs_see_them() {
    let text = shown(Format::Text);
    insta::assert_snapshot!("text", text);
    assert!(crate::is_in_manual(&text), "{text}");
    insta::assert_snapshot!("json", shown(Format::Json));
}

#[test]
fn what_a_client_sends_gives_no_orders_to_a_terminal() {
    let odd = Record { path: "/\x1b[2Jx\n".into(), authority: String::new(), ..record() };
    let text = Row(&odd).to_string();
    assert!(text.contains("GET /\u{fffd}[2Jx\u{fffd}") && text.matches('\n').count() == 1, "{text:?}");
}

#[test]
fn the_end_says_what_was_missed() {
    let mut screen = Screen::new(Format::Text, true);
    for line in [
        Line::Joined(vec!["node n1".into()]),
        Line::Joined(vec!["node n2".into()]),
        Line::Dropped(3),
        Line::Dropped(12),
        Line::Left { proxy: "node n2".into(), why: "gone".into() },
        Line::Quiet,
        Line::End("60 s are over".into()),
    ] {
        assert_eq!(screen.take(line), "");
    }
    assert_eq!(
        screen.summary(),
        "60 s are over; 12 more were dropped: narrow the filter, or raise --rate; proxies that were heard: 1"
    );
    assert!(screen.end().is_ok());
    assert!(Screen::new(Format::Text, true).end().is_err(), "nobody was heard");
    assert!(Screen::new(Format::Text, false).end().is_ok());
}

#[tokio::test]
async fn a_socket_is_asked_and_its_answer_shown_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tap.sock");
    let (taps, stop) = (weft_node_proxy::tap::Taps::default(), tokio_util::sync::CancellationToken::new());
    let serving = tokio::spawn({
        let (taps, path, stop) = (taps.clone(), path.clone(), stop.clone());
        async move { weft_node_proxy::tap::serve_socket(taps, &path, stop).await }
    });
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    let ask = async |tap: Tap| socket::ask(&path, serde_json::to_vec(&tap).unwrap()).await;
    let answer = ask(Tap { seconds: 1, ..Tap::default() }).await.unwrap();
    assert!(taps.is_on());
    show(answer, Screen::new(Format::Text, false)).await.unwrap();
    let refused = ask(Tap { rate: 0, ..Tap::default() }).await.unwrap_err();
    assert!(refused.to_string().contains("400") && refused.to_string().contains("between 1 and 1000"), "{refused}");
    stop.cancel();
    serving.await.unwrap().unwrap();
    let gone = socket::ask(&folder.path().join("other"), Vec::new()).await.unwrap_err();
    assert!(gone.to_string().contains("is the proxy running"), "{gone}");
}
