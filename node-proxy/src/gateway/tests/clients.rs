//! The PROXY protocol and policies on real sockets.

use tokio::net::TcpStream;
use weft_core::gateway::{ClientAddress, GatewayConfig, ProxyProtocol};
use weft_core::ids::PolicyKey;
use weft_core::policy::{Action, AuthorizationPolicy, AuthorizationRule, Scope, Source};
use weft_tls::BackendClient;

use super::*;
use crate::proxy_protocol::ProxyHeader;

fn proxy_protocol(make: fn(Vec<ipnet::IpNet>) -> ProxyProtocol, from: &str) -> Change {
    let client_address =
        ClientAddress { proxy_protocol: make(vec![from.parse().unwrap()]), ..ClientAddress::default() };
    let key = GatewayKey::new("edge", "gw");
    let config = GatewayConfig { key, client_certificate: None, client_address, answers_request_id: false };
    Change::Upsert(Resource::GatewayConfig(Arc::new(config)))
}

fn policy(action: Action, from: &str) -> Change {
    let source = Source { addresses: vec![from.parse().unwrap()], ..Source::default() };
    let rules = vec![AuthorizationRule { from: vec![source], to: Vec::new() }];
    let key = PolicyKey::new("edge", "p");
    let policy = AuthorizationPolicy { key, scope: Scope::Selected, action, dry_run: false, rules };
    Change::Upsert(Resource::Authorization(Arc::new(policy)))
}

fn guarded(listener: Change) -> Change {
    let Change::Upsert(Resource::Listener(listener)) = listener else { unreachable!() };
    let policies = vec![PolicyKey::new("edge", "p")];
    Change::Upsert(Resource::Listener(Arc::new(Listener { policies, ..(*listener).clone() })))
}

fn header(version: ProxyVersion) -> Vec<u8> {
    ProxyHeader::new(version, "203.0.113.9:4000".parse().unwrap(), "198.51.100.1:443".parse().unwrap()).bytes()
}

/// What is answered to some bytes until the connection ends, or is reset.
async fn exchange(port: u16, bytes: &[u8]) -> Option<String> {
    // A reset may come so soon that it is met already here.
    let mut stream = connect(at(port)).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.ok()?;
    Some(String::from_utf8_lossy(&got).into_owned())
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n";

#[test]
fn headers_of_the_proxy_protocol_are_taken_from_those_who_may_send_them() {
    let server = web("one");
    let port = free();
    let mut changes = vec![listener("a", port, None, ListenerProtocol::Http), http_route(&["a"], "a.com", "one")];
    changes.extend(backend("one", server.addr()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let with = |version| [&header(version)[..], GET].concat();
        let (v1, v2) = (with(ProxyVersion::V1), with(ProxyVersion::V2));
        let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], GET].concat();
        let client = |answer: &Option<String>| {
            let body = answer.as_ref()?.split_once("\r\n\r\n")?.1.to_owned();
            let body: serde_json::Value = serde_json::from_str(&body[body.find('{')?..=body.rfind('}')?]).ok()?;
            let of = |name: &str| body["headers"][name][0].as_str().map(str::to_owned);
            Some((of("x-forwarded-for")?, of("x-forwarded-port")?))
        };
        let own = Some(("127.0.0.1".to_owned(), port.to_string()));
        let told = Some(("203.0.113.9".to_owned(), "443".to_owned()));
        let (optional, required) = (ProxyProtocol::Optional, ProxyProtocol::Required);
        let off = proxy_protocol(|_| ProxyProtocol::Disabled, "127.0.0.0/8");
        for (name, config, bytes, want) in [
            ("off", off.clone(), GET, &own),
            ("optional, absent", proxy_protocol(optional, "127.0.0.0/8"), GET, &own),
            ("optional, v1", proxy_protocol(optional, "127.0.0.0/8"), &v1, &told),
            ("optional, v2", proxy_protocol(optional, "127.0.0.0/8"), &v2, &told),
            ("optional, not theirs", proxy_protocol(optional, "10.0.0.0/8"), GET, &own),
            ("required, v1", proxy_protocol(required, "127.0.0.0/8"), &v1, &told),
            ("required, v2", proxy_protocol(required, "127.0.0.0/8"), &v2, &told),
            ("required, their own", proxy_protocol(required, "127.0.0.0/8"), &local, &own),
        ] {
            front.store.apply(&[config]);
            assert_eq!(&client(&exchange(port, bytes).await), want, "{name}");
        }
        // What is refused: reset, or by the parser of HTTP.
        for (name, config, bytes, answer) in [
            ("off", off, &v2[..], Some("400")),
            ("optional, not theirs", proxy_protocol(optional, "10.0.0.0/8"), &v1, Some("400")),
            ("required, absent", proxy_protocol(required, "127.0.0.0/8"), GET, None),
            ("required, not theirs", proxy_protocol(required, "10.0.0.0/8"), &v2, None),
            ("malformed", proxy_protocol(optional, "127.0.0.0/8"), b"PROXY TCP4 x\r\nGET / HTTP/1.1\r\n\r\n", None),
        ] {
            front.store.apply(&[config]);
            let got = exchange(port, bytes).await;
            match (answer, &got) {
                (None, None) => {}
                // What isn't HTTP is answered or just closed, and never served.
                (Some(_), None) => {}
                (Some(code), Some(got)) if got.is_empty() || got.starts_with(&format!("HTTP/1.1 {code}")) => {}
                _ => panic!("{name}: {got:?}"),
            }
        }
    });
}

#[test]
fn a_header_comes_before_tls_also_in_pieces_and_one_that_never_comes_is_not_waited_for_for_ever() {
    let port = free();
    let (certificate, trusted) = super::tls::certified("a.com");
    let https = ListenerProtocol::Https { certificates: vec![super::tls::secret("c")] };
    let server = web("one");
    let mut changes = vec![certificate, listener("a", port, None, https), http_route(&["a"], "a.com", "one")];
    changes.extend(backend("one", server.addr()));
    changes.push(proxy_protocol(ProxyProtocol::Required, "127.0.0.0/8"));
    let _front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let mut stream = connect(at(port)).await.unwrap();
        let header = header(ProxyVersion::V2);
        for part in header.chunks(5) {
            stream.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut tls = BackendClient::new(&trusted, None, &[b"http/1.1"]).unwrap().connect(stream).await.unwrap();
        tls.write_all(GET).await.unwrap();
        let mut got = String::new();
        // The end may come without a goodbye.
        let _ = tls.read_to_string(&mut got).await;
        assert!(got.contains("203.0.113.9"), "{got}");
        let mut silent = connect(at(port)).await.unwrap();
        silent.write_all(b"PROXY ").await.unwrap();
        let since = Instant::now();
        assert!(silent.read_u8().await.is_err(), "reset");
        assert!((4..30).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    });
}

#[test]
fn bytes_of_a_client_that_is_denied_are_reset_and_those_of_others_go_on() {
    let server = servers::tcp(&Netns::here(), "db", (Ipv4Addr::LOCALHOST, 0).into(), Behaviour::Banner).unwrap();
    let port = free();
    let mut changes = vec![
        guarded(listener("tcp", port, None, ListenerProtocol::Tcp)),
        l4_route(RouteKind::Tcp, "tcp", &[], "db"),
        proxy_protocol(ProxyProtocol::Optional, "127.0.0.0/8"),
        policy(Action::Deny, "203.0.113.0/24"),
    ];
    changes.extend(backend("db", server.addr()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let greeted = async |first: &[u8]| -> anyhow::Result<TcpStream> {
            let mut stream = connect(at(port)).await?;
            stream.write_all(first).await?;
            let mut got = [0; 6];
            stream.read_exact(&mut got).await?;
            Ok(stream)
        };
        let header = header(ProxyVersion::V1);
        assert!(greeted(&header).await.is_err(), "by the address that the load balancer tells");
        let mut open = greeted(b"x").await.expect("127.0.0.1 is not denied");
        front.store.apply(&[policy(Action::Deny, "127.0.0.0/8")]);
        assert!(greeted(b"x").await.is_err());
        let _through = greeted(&header).await.expect("203.0.113.9 is not denied any more");
        // What is open ends with the permission.
        let ended = tokio::time::timeout(Duration::from_secs(5), async {
            let mut rest = Vec::new();
            open.read_to_end(&mut rest).await
        });
        assert!(ended.await.expect("it goes on").is_err(), "with a reset");
    });
}

#[test]
fn endpoints_that_want_a_header_get_one() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    taken.set_nonblocking(true).unwrap();
    let address = taken.local_addr().unwrap();
    let (tcp, tls) = (free(), free());
    let mut changes = vec![
        listener("tcp", tcp, None, ListenerProtocol::Tcp),
        listener("tls", tls, Some("a.com"), ListenerProtocol::TlsPassthrough),
        l4_route(RouteKind::Tcp, "tcp", &[], "db"),
        l4_route(RouteKind::Tls, "tls", &["a.com"], "db"),
        proxy_protocol(ProxyProtocol::Optional, "127.0.0.0/8"),
    ];
    changes.extend(backend("db", address));
    for change in &mut changes {
        if let Change::Upsert(Resource::Service(service)) = change {
            *service = Arc::new(Service { proxy_protocol: Some(ProxyVersion::V2), ..(**service).clone() });
        }
    }
    let _front = Front::start(&changes);
    on_sockets(async {
        until(tcp, true).await;
        until(tls, true).await;
        let backend = tokio::net::TcpListener::from_std(taken).unwrap();
        let received = async |length: usize| {
            let (mut stream, _) = backend.accept().await.unwrap();
            let mut got = vec![0; length];
            stream.read_exact(&mut got).await.unwrap();
            got
        };
        // The connections of `until` said nothing, so that nothing came of them.
        for port in [tcp, tls] {
            let mut client = connect(at(port)).await.unwrap();
            let payload = if port == tls { client_hello("a.com") } else { b"hello".to_vec() };
            client.write_all(&payload).await.unwrap();
            let own = ProxyHeader::new(ProxyVersion::V2, client.local_addr().unwrap(), at(port)).bytes();
            let want = [&own[..], &payload].concat();
            assert_eq!(received(want.len()).await, want);
        }
        // As it was told itself.
        let mut client = connect(at(tcp)).await.unwrap();
        client.write_all(&[&header(ProxyVersion::V1)[..], b"hello"].concat()).await.unwrap();
        let want = [&header(ProxyVersion::V2)[..], b"hello"].concat();
        assert_eq!(received(want.len()).await, want);
    });
}

#[test]
fn datagrams_of_a_client_that_is_denied_are_dropped_those_of_a_session_too() {
    let port = free();
    on_sockets(async {
        let allow = |from| policy(Action::Allow, from);
        let mut changes = vec![
            guarded(listener("udp", port, None, ListenerProtocol::Udp)),
            l4_route(RouteKind::Udp, "udp", &[], "one"),
            allow("127.0.0.0/8"),
        ];
        changes.extend(backend("one", udp::echo("one").await));
        let front = Front::start(&changes);
        let client = udp::client(port).await;
        udp::until_answered(&client, Some("one x")).await;
        front.store.apply(&[allow("192.0.2.0/24")]);
        udp::until_answered(&client, None).await;
        assert_eq!((udp::ask(&client, "y").await, udp::ask(&client, "z").await), (None, None));
        front.store.apply(&[allow("127.0.0.0/8")]);
        udp::until_answered(&client, Some("one x")).await;
    });
}
