//! TLS that ends here, and TLS that begins here. Clients and backends of other make are in the conformance suite; here both
//! ends are ours, because who ends TLS isn't what these are about.

use weft_core::gateway::{BackendTls, BackendTrust, ClientValidation, ClientValidationMode, GatewayConfig};
use weft_tls::BackendClient;

use super::*;

/// A certificate for a name, as the Secret `c`, and the policy of somebody who trusts it.
pub(super) fn certified(name: &str) -> (Change, BackendTls) {
    certified_as("c", name)
}

/// The same, as another Secret.
fn certified_as(of: &str, name: &str) -> (Change, BackendTls) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let certificate = Certificate {
        key: secret(of),
        chain: made.cert.pem().into_bytes(),
        private_key: PrivateKey::new(made.signing_key.serialize_pem()),
    };
    let policy = BackendTls {
        port: service_port("secure"),
        hostname: name.into(),
        subject_alt_names: Vec::new(),
        trust: BackendTrust::Bundle(made.cert.pem().into_bytes()),
    };
    (Change::Upsert(Resource::Certificate(Arc::new(certificate))), policy)
}

pub(super) fn secret(name: &str) -> CertificateKey {
    CertificateKey::new(GatewayKey::new("edge", "gw"), SecretKey::new("edge", name))
}

#[test]
fn one_port_ends_tls_for_some_names_and_passes_that_of_others_through() {
    let server = servers::tcp(&Netns::here(), "db", (Ipv4Addr::LOCALHOST, 0).into(), Behaviour::Banner).unwrap();
    let port = free();
    let (certificate, policy) = certified("ended.a.com");
    let ends = ListenerProtocol::TlsTerminate { certificates: vec![secret("c")] };
    let mut changes = vec![
        certificate,
        listener("ended", port, Some("ended.a.com"), ends),
        listener("passed", port, Some("*.a.com"), ListenerProtocol::TlsPassthrough),
        l4_route(RouteKind::Tls, "ended", &["ended.a.com"], "inner"),
        l4_route(RouteKind::Tls, "passed", &["passed.a.com"], "outer"),
    ];
    changes.extend(backend("inner", server.addr()));
    changes.extend(backend("outer", server.addr()));
    let _front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let tls = BackendClient::new(&policy, None, &[b"whatever"]).unwrap();
        let mut inside = tls.connect(connect(at(port)).await.unwrap()).await.unwrap();
        let mut banner = [0; 6];
        inside.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 db", "the server speaks first, and in the clear");
        let mut passed = connect(at(port)).await.unwrap();
        passed.write_all(&client_hello("passed.a.com")).await.unwrap();
        passed.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 db");
        // A name that nobody has: like a port that nobody listens on, no alert.
        for name in ["b.com", "other.a.com"] {
            let mut client = connect(at(port)).await.unwrap();
            client.write_all(&client_hello(name)).await.unwrap();
            assert!(client.read_u8().await.is_err(), "{name}");
        }
    });
}

#[test]
fn a_backend_with_a_policy_is_spoken_to_in_tls_or_not_at_all() {
    let server = web("one");
    let (front_port, tls_port) = (free(), free());
    let (certificate, policy) = certified("secure.com");
    let https = ListenerProtocol::Https { certificates: vec![secret("c")] };
    // The backend is a listener of the same proxy, which ends TLS.
    let mut changes = vec![
        certificate,
        listener("front", front_port, None, ListenerProtocol::Http),
        listener("tls", tls_port, None, https),
        http_route(&["front"], "a.com", "secure"),
        http_route(&["tls"], "a.com", "one"),
    ];
    changes.extend(backend("secure", at(tls_port)));
    changes.extend(backend("one", server.addr()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(front_port, true).await;
        until(tls_port, true).await;
        let follow = |policy: BackendTls| front.store.apply(&[Change::Upsert(Resource::BackendTls(Arc::new(policy)))]);
        let asked = async || {
            let mut client = Connection::open(at(front_port), Version::HTTP_11).await.unwrap();
            ask(&mut client, "a.com").await
        };
        assert!(asked().await.status.is_server_error(), "in the clear it is not understood");
        follow(policy.clone());
        let reply = asked().await;
        assert_eq!(reply.status, 200);
        let echo = reply.echo().unwrap();
        assert_eq!((echo.pod.as_str(), echo.header("x-forwarded-proto")), ("one", Some("https")));
        // Kept connections of the policy before are not used.
        follow(BackendTls { hostname: "other.com".into(), ..policy.clone() });
        assert_eq!(asked().await.status, 503, "the certificate is another's");
        follow(BackendTls { trust: BackendTrust::Invalid("no such ConfigMap".into()), ..policy.clone() });
        assert_eq!(asked().await.status, 500);
        follow(policy);
        assert_eq!(asked().await.status, 200);
    });
}

#[test]
fn a_backend_that_asks_is_shown_the_gateways_certificate_whatever_is_spoken_inside() {
    let server = web("one");
    let (front_port, tls_port) = (free(), free());
    let (certificate, policy) = certified("secure.com");
    let (own, trusts_own) = certified_as("own", "gateway");
    let BackendTrust::Bundle(ca) = trusts_own.trust else { panic!("a bundle") };
    let https = listener("tls", tls_port, None, ListenerProtocol::Https { certificates: vec![secret("c")] });
    let Change::Upsert(Resource::Listener(https)) = https else { panic!("a listener") };
    let client_validation = Some(ClientValidation { ca, mode: ClientValidationMode::AllowValidOnly });
    let https = Listener { client_validation, ..(*https).clone() };
    let mut changes = vec![
        certificate,
        Change::Upsert(Resource::BackendTls(Arc::new(policy))),
        Change::Upsert(Resource::Listener(Arc::new(https))),
        listener("front", front_port, None, ListenerProtocol::Http),
        http_route(&["front"], "a.com", "secure"),
        http_route(&["tls"], "a.com", "one"),
    ];
    changes.extend(backend("secure", at(tls_port)));
    changes.extend(backend("one", server.addr()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(front_port, true).await;
        until(tls_port, true).await;
        let status = async || {
            let mut client = Connection::open(at(front_port), Version::HTTP_11).await.unwrap();
            ask(&mut client, "a.com").await.status
        };
        assert!(status().await.is_server_error(), "it has none to show");
        let config = GatewayConfig {
            key: key("front").gateway,
            client_certificate: Some(secret("own")),
            client_address: Default::default(),
            answers_request_id: false,
        };
        front.store.apply(&[own, Change::Upsert(Resource::GatewayConfig(Arc::new(config)))]);
        assert_eq!(status().await, 200);
        // A backend that speaks HTTP/2 only, which has to be agreed on in the handshake.
        let [service, slice] = backend("secure", at(tls_port));
        let Change::Upsert(Resource::Service(service)) = service else { panic!("a Service") };
        let mut service = (*service).clone();
        service.ports[0].protocol = AppProtocol::H2c;
        front.store.apply(&[Change::Upsert(Resource::Service(Arc::new(service))), slice]);
        assert_eq!(status().await, 200);
    });
}

/// Asks for `/` in HTTP/1.1; the status line of the answer.
async fn status_line(io: &mut weft_tls::TlsStream<tokio::net::TcpStream>) -> std::io::Result<String> {
    io.write_all(b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n").await?;
    io.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let length = text.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    io.read_exact(&mut body).await?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn a_new_certificate_is_presented_at_once_and_open_connections_stay() {
    let port = free();
    let (first, trusts_first) = certified("a.com");
    let (second, trusts_second) = certified("a.com");
    let https = ListenerProtocol::Https { certificates: vec![secret("c")] };
    let front = Front::start(&[first, listener("a", port, Some("a.com"), https)]);
    on_sockets(async {
        until(port, true).await;
        let connected = async |policy: &BackendTls| {
            let tls = BackendClient::new(policy, None, &[b"http/1.1"]).unwrap();
            tls.connect(connect(at(port)).await.unwrap()).await
        };
        let mut kept = connected(&trusts_first).await.unwrap();
        assert_eq!(status_line(&mut kept).await.unwrap(), "HTTP/1.1 404 Not Found");
        assert!(connected(&trusts_second).await.is_err());
        front.store.apply(&[second]);
        let mut renewed = connected(&trusts_second).await.unwrap();
        assert_eq!(status_line(&mut renewed).await.unwrap(), "HTTP/1.1 404 Not Found");
        assert!(connected(&trusts_first).await.is_err());
        assert_eq!(status_line(&mut kept).await.unwrap(), "HTTP/1.1 404 Not Found", "the same connection");
    });
}

#[test]
fn a_session_is_resumed_by_whichever_worker_the_next_connection_comes_to() {
    let port = free();
    let (first, trusts_first) = certified("a.com");
    let (second, _) = certified("a.com");
    let https = ListenerProtocol::Https { certificates: vec![secret("c")] };
    let front = Front::start(&[first, listener("a", port, Some("a.com"), https)]);
    on_sockets(async {
        until(port, true).await;
        let tls = BackendClient::new(&trusts_first, None, &[b"http/1.1"]).unwrap();
        let mut resumed = Vec::new();
        // Of two workers each takes some of these.
        for _ in 0..24 {
            let mut stream = tls.connect(connect(at(port)).await.unwrap()).await.unwrap();
            // Its tickets come before the answer.
            assert_eq!(status_line(&mut stream).await.unwrap(), "HTTP/1.1 404 Not Found");
            resumed.push(format!("{:?}", stream.get_ref().1.handshake_kind()) == "Some(Resumed)");
        }
        assert!(!resumed[0] && resumed[1..].iter().all(|it| *it), "{resumed:?}");
        front.store.apply(&[second]);
        let after = tls.connect(connect(at(port)).await.unwrap()).await;
        assert!(after.is_err(), "a session doesn't outlast the certificate");
    });
}

#[test]
fn handshakes_that_stand_still_keep_nobody_out() {
    let server = web("one");
    let port = free();
    let (certificate, policy) = certified("slow.com");
    let https = ListenerProtocol::Https { certificates: vec![secret("c")] };
    let mut changes = vec![certificate, listener("slow", port, None, https)];
    changes.extend(backend("one", server.addr()));
    let _front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let tls = BackendClient::new(&policy, None, &[b"http/1.1"]).unwrap();
        // A whole ClientHello, which an answer is waited for.
        let (mut hello, theirs) = tokio::io::duplex(16 << 10);
        let client = tls.clone();
        tokio::spawn(async move { client.connect(theirs).await.map(drop) });
        let mut bytes = vec![0; 16 << 10];
        let length = hello.read(&mut bytes).await.unwrap();
        let mut stalled = Vec::new();
        for _ in 0..40 {
            let mut client = connect(at(port)).await.unwrap();
            client.write_all(&bytes[..length]).await.unwrap();
            client.read_u8().await.unwrap();
            stalled.push(client);
        }
        let shaken = tls.connect(connect(at(port)).await.unwrap());
        tokio::time::timeout(Duration::from_secs(5), shaken).await.unwrap().unwrap();
    });
}
