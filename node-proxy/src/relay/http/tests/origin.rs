//! Who is believed, and what endpoints are told.

use weft_core::gateway::ForwardedHeader::{Forwarded, XForwardedFor};

use super::*;

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn trusting(header: ForwardedHeader, hops: Option<u8>, cidrs: &[&str]) -> ClientAddress {
    let trusted = cidrs.iter().map(|it| it.parse().unwrap()).collect();
    ClientAddress { header, trusted_hops: hops, trusted, ..ClientAddress::default() }
}

/// The client, whether it is vouched for, and the headers that are left, sorted.
fn told(settings: &ClientAddress, peer: &str, lines: &[(&'static str, &'static str)]) -> (String, bool, Vec<String>) {
    let mut headers = map(lines);
    let client = peer.parse().unwrap();
    let (client, vouched) = Arrival { settings, client, way: &OnceCell::new(), tls: false, port: 80, host: "a.com" }
        .tell(&mut headers)
        .unwrap();
    let mut left: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    left.sort();
    (client.to_string(), vouched, left)
}

#[test]
fn what_the_client_says_of_itself_is_replaced_by_what_is_known() {
    let nobody = ClientAddress::default();
    for before in [
        &[][..],
        &[("x-forwarded-for", "10.0.0.1")],
        &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")],
        &[("x-forwarded-proto", "https"), ("x-forwarded-host", "made.up"), ("x-forwarded-port", "1")],
        &[("forwarded", "for=10.0.0.1;proto=https"), ("x-real-ip", "10.0.0.1")],
        &[("x-forwarded-client-cert", "By=me"), ("x-forwarded-prefix", "/x")],
    ] {
        let (client, vouched, left) = told(&nobody, "192.0.2.7:4000", before);
        assert_eq!((client.as_str(), vouched), ("192.0.2.7:4000", false));
        assert_eq!(
            left,
            ["x-forwarded-for: 192.0.2.7", "x-forwarded-port: 80", "x-forwarded-proto: http"],
            "{before:?}"
        );
    }
}

#[test]
fn a_proxy_that_is_believed_says_who_asks_and_how() {
    let one = trusting(XForwardedFor, Some(1), &[]);
    let (client, vouched, left) = told(
        &one,
        "10.0.0.1:5000",
        &[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "192.0.2.7:4000"),
            ("x-forwarded-proto", "HTTPS"),
            ("x-forwarded-host", "www.example.com"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
        ],
    );
    assert_eq!((client.as_str(), vouched), ("192.0.2.7:0", true));
    let want = [
        "x-forwarded-for: 192.0.2.7, 10.0.0.1",
        "x-forwarded-host: www.example.com",
        "x-forwarded-port: 443",
        "x-forwarded-proto: https",
    ];
    assert_eq!(left, want, "what is left of the client's address is nobody's word");
    // What makes no sense is replaced.
    let odd = &[
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-host", "a b"),
        ("x-forwarded-port", "https"),
    ];
    let (_, _, left) = told(&one, "10.0.0.1:5000", odd);
    assert_eq!(left, ["x-forwarded-for: 192.0.2.7, 10.0.0.1", "x-forwarded-port: 80", "x-forwarded-proto: http"]);
    // Not the way it should have come: nothing of it is believed.
    let (client, vouched, left) = told(&one, "10.0.0.1:5000", &[("x-forwarded-proto", "https")]);
    assert_eq!((client.as_str(), vouched, left[2].as_str()), ("10.0.0.1:5000", false, "x-forwarded-proto: http"));
    let lan = trusting(XForwardedFor, None, &["10.0.0.0/8"]);
    let (client, vouched, left) = told(&lan, "10.0.0.1:5000", &[("x-forwarded-proto", "https")]);
    assert_eq!((client.as_str(), vouched, left[2].as_str()), ("10.0.0.1:5000", true, "x-forwarded-proto: https"));
    let (_, vouched, left) = told(&lan, "192.0.2.9:5000", &[("x-forwarded-proto", "https")]);
    assert_eq!((vouched, left[2].as_str()), (false, "x-forwarded-proto: http"), "not from there");
}

#[test]
fn forwarded_is_read_and_written_if_it_is_the_header() {
    let two = trusting(Forwarded, Some(2), &[]);
    let lines = &[
        (
            "forwarded",
            "for=1.1.1.1;proto=gopher, For=\"[2001:db8::7]:4000\";PROTO=https;host=\"www.example.com:8443\";x=y",
        ),
        ("forwarded", "for=10.0.0.2;proto=http;by=_hidden"),
        ("x-forwarded-for", "6.6.6.6"),
    ];
    let (client, vouched, left) = told(&two, "10.0.0.1:5000", lines);
    assert_eq!((client.as_str(), vouched), ("[2001:db8::7]:0", true));
    let want = [
        "forwarded: for=\"[2001:db8::7]\";proto=https;host=\"www.example.com:8443\", for=10.0.0.2, for=10.0.0.1",
        "x-forwarded-for: 2001:db8::7, 10.0.0.2, 10.0.0.1",
        "x-forwarded-host: www.example.com:8443",
        "x-forwarded-port: 80",
        "x-forwarded-proto: https",
    ];
    assert_eq!(left, want);
    let (_, vouched, left) = told(&two, "10.0.0.1:5000", &[("x-forwarded-for", "6.6.6.6, 7.7.7.7")]);
    assert_eq!((vouched, left[0].as_str()), (false, "forwarded: for=10.0.0.1;proto=http;host=\"a.com\""));
    // By the other header, this one is nobody's.
    let other = trusting(XForwardedFor, Some(1), &[]);
    let (client, _, left) = told(&other, "10.0.0.1:5000", &[("forwarded", "for=192.0.2.7")]);
    assert_eq!((client.as_str(), left.len()), ("10.0.0.1:5000", 3));
}

#[test]
fn elements_that_cant_be_read_are_worth_nothing() {
    let nodes = |text: &str| {
        elements(text).map(|all| all.into_iter().map(|(node, _)| node.map(|ip| ip.to_string())).collect::<Vec<_>>())
    };
    let some = |ip: &str| Some(ip.to_owned());
    assert_eq!(nodes("for=192.0.2.7"), Some(vec![some("192.0.2.7")]));
    assert_eq!(nodes("for=192.0.2.7,for=unknown , for=_x;by=y"), Some(vec![some("192.0.2.7"), None, None]));
    assert_eq!(nodes("for=\"192.0.2.7:80\";proto=http"), Some(vec![some("192.0.2.7")]));
    assert_eq!(nodes("proto=http"), Some(vec![None]));
    assert_eq!(nodes("host=\"a,for=1.1.1.1\";for=192.0.2.7"), Some(vec![some("192.0.2.7")]), "a quoted comma");
    assert_eq!(nodes("host=\"a\\\",for=1.1.1.1\";for=192.0.2.7"), Some(vec![some("192.0.2.7")]), "a quoted quote");
    // Empty elements are none.
    assert_eq!(nodes(""), Some(vec![]));
    assert_eq!(nodes(" , ,for=192.0.2.7,, "), Some(vec![some("192.0.2.7")]));
    for text in [
        "for",
        "for=",
        "for=\"1.1.1.1",
        "for=1.1.1.1;",
        "for=1.1.1.1;,for=2.2.2.2",
        "for=1.1.1.1 for=2.2.2.2",
        "f or=1.1.1.1",
        "for=\"a\"b",
    ] {
        assert_eq!(nodes(text), None, "{text:?}");
    }
}

#[test]
fn a_client_hides_behind_nothing_it_can_say() {
    // The proxy appends to the client's own line.
    let lan = trusting(XForwardedFor, None, &["10.0.0.0/8"]);
    let one = trusting(XForwardedFor, Some(1), &[]);
    for before in [&b"\xff, 192.0.2.7"[..], b"\x80,,192.0.2.7", b"10.0.0.9 \xff,192.0.2.7"] {
        for settings in [&lan, &one] {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, HeaderValue::from_bytes(before).unwrap());
            let client = "10.0.0.1:5000".parse().unwrap();
            let arrival = Arrival { settings, client, way: &OnceCell::new(), tls: false, port: 80, host: "a.com" };
            let (client, ..) = arrival.tell(&mut headers).unwrap();
            assert_eq!(client.ip().to_string(), "192.0.2.7", "{before:?}");
        }
    }
    let obscure = |settings: &ClientAddress, peer: &str, lines: &[(&'static str, &'static str)]| {
        let client = peer.parse().unwrap();
        Arrival { settings, client, way: &OnceCell::new(), tls: false, port: 80, host: "a.com" }
            .tell(&mut map(lines))
            .is_none()
    };
    let lan = trusting(Forwarded, None, &["10.0.0.0/8"]);
    for (line, want) in [
        ("for=\", for=192.0.2.7", true),
        ("x=\", for=192.0.2.7;host=\"a.com\"", true),
        ("for, for=192.0.2.7", true),
        (", for=192.0.2.7", false),
        ("for=unknown, for=192.0.2.7", false),
    ] {
        assert_eq!(obscure(&lan, "10.0.0.1:5000", &[("forwarded", line)]), want, "{line}");
        assert_eq!(obscure(&lan, "10.0.0.1:5000", &[("forwarded", line), ("forwarded", "for=10.0.0.2")]), want);
        assert!(!obscure(&lan, "192.0.2.9:5000", &[("forwarded", line)]), "nobody believes it there");
        assert!(!obscure(&one, "10.0.0.1:5000", &[("forwarded", line)]), "it isn't the header");
    }
    let (client, ..) = told(&lan, "10.0.0.1:5000", &[("forwarded", ", for=192.0.2.7")]);
    assert_eq!(client, "192.0.2.7:0");
}

#[test]
fn addresses_in_every_form_they_come_in() {
    for (text, want) in [
        ("192.0.2.7", Some("192.0.2.7")),
        ("192.0.2.7:80", Some("192.0.2.7")),
        ("2001:db8::7", Some("2001:db8::7")),
        ("[2001:db8::7]", Some("2001:db8::7")),
        ("[2001:db8::7]:80", Some("2001:db8::7")),
        ("::ffff:192.0.2.7", Some("192.0.2.7")),
        ("unknown", None),
        ("", None),
        ("192.0.2.7:", None),
        ("192.0.2.7, 1.1.1.1", None),
        ("192.0.2.7:80:80", None),
    ] {
        assert_eq!(address(text), want.map(|it| it.parse().unwrap()), "{text:?}");
    }
}

#[test]
fn ids_are_uuids_and_never_the_same() {
    let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_id().to_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1000);
    for id in ids {
        let dashes: Vec<_> = id.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), dashes), (36, vec![8, 13, 18, 23]), "{id}");
        assert!(id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert!(is_id(&HeaderValue::from_str(&id).unwrap()));
    }
    for bad in ["", " ", "a b", &"x".repeat(129)] {
        assert!(!is_id(&HeaderValue::from_str(bad).unwrap()), "{bad:?}");
    }
    assert!(!is_id(&HeaderValue::from_bytes(b"\xff").unwrap()));
}
