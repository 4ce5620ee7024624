//! HTTP/3, with clients that aren't ours: quinn and h3. What they can't say wrongly is said by hand.

mod client;
mod goodbye;
mod limits;
mod raw;

use bytes::Buf as _;
use client::{Client, Trust, connect_quic, grpc, grpc_frame};
use http::{HeaderMap, Request, StatusCode};
use weft_core::gateway::{ClientValidation, ClientValidationMode};

use super::*;

/// A listener of HTTPS that speaks HTTP/3, with Secret `c`.
fn http3_listener(name: &str, port: u16, hostname: Option<&str>, secret: &str) -> Change {
    let Change::Upsert(Resource::Listener(listener)) = https_listener(name, port, hostname, secret) else {
        panic!("a listener");
    };
    Change::Upsert(Resource::Listener(Arc::new(Listener { http3: true, ..(*listener).clone() })))
}

fn https_listener(name: &str, port: u16, hostname: Option<&str>, secret: &str) -> Change {
    listener(name, port, hostname, ListenerProtocol::Https { certificates: vec![secret_key(secret)] })
}

fn secret_key(name: &str) -> CertificateKey {
    CertificateKey::new(GatewayKey::new("edge", "gw"), SecretKey::new("edge", name))
}

/// A certificate for a name as a Secret, and who trusts it.
fn certificate(secret: &str, name: &str) -> (Change, Trust) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let certificate = Certificate {
        key: secret_key(secret),
        chain: made.cert.pem().into_bytes(),
        private_key: PrivateKey::new(made.signing_key.serialize_pem()),
    };
    (Change::Upsert(Resource::Certificate(Arc::new(certificate))), Trust::new(&made.cert))
}

/// A Gateway with HTTP/3 for a.com and b.com, each with a certificate of its own and an application `one`.
struct World {
    front: Front,
    port: u16,
    trust: Trust,
    trust_b: Trust,
    _server: Server,
}

fn world() -> World {
    world_with(HttpSettings::default(), Limits::default(), 1000)
}

/// The same with limits of its own, and so many connections at once.
fn world_with(settings: HttpSettings, limits: Limits, connections: u32) -> World {
    let (server, port) = (web("one"), free());
    let ((a, trust), (b, trust_b)) = (certificate("a", "a.com"), certificate("b", "b.com"));
    let mut changes =
        vec![a, b, http3_listener("a", port, Some("a.com"), "a"), http3_listener("b", port, Some("b.com"), "b")];
    changes.extend([http_route(&["a"], "a.com", "one"), http_route(&["b"], "b.com", "one")]);
    changes.extend(backend("one", server.addr()));
    World { front: Front::with(&changes, settings, limits, connections), port, trust, trust_b, _server: server }
}

impl World {
    async fn client(&self) -> Client {
        Client::open(at(self.port), "a.com", &self.trust).await.unwrap()
    }

    fn drain(&self) {
        for worker in self.front.workers.as_ref().unwrap().handles().iter() {
            worker.tell(Command::Drain);
        }
    }
}

#[test]
fn a_request_takes_the_way_of_other_versions() {
    let world = world();
    on_sockets(async {
        let mut client = world.client().await;
        let reply = client.get("https://a.com/x?y=1").await.unwrap();
        let echo = reply.echo().unwrap();
        assert_eq!((echo.method.as_str(), echo.path.as_str(), echo.query.as_deref()), ("GET", "/x", Some("y=1")));
        assert_eq!((echo.host.as_deref(), echo.version.as_str()), (Some("a.com"), "HTTP/1.1"));
        assert_eq!(echo.header("x-forwarded-proto"), Some("https"));
        assert_eq!(echo.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!((echo.header("transfer-encoding"), echo.header("content-length")), (None, None), "it has no body");
        assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
        // Another listener's host, and one that nobody has.
        assert_eq!(client.get("https://b.com/").await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(client.get("https://c.com/").await.unwrap().status, StatusCode::NOT_FOUND);
        assert_eq!(client.get("https://a.com/status/418").await.unwrap().status, 418);
        let head = Request::head("https://a.com/").body(()).unwrap();
        let head = client.send(head, &[], None).await.unwrap();
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        // A refusal of ours has none either.
        let head = Request::head("https://c.com/").body(()).unwrap();
        let head = client.send(head, &[], None).await.unwrap();
        assert_eq!((head.status, head.body.len()), (StatusCode::NOT_FOUND, 0));
    });
}

#[test]
fn bodies_pass_both_ways_however_long_and_trailers_with_them() {
    let world = world();
    on_sockets(async {
        let mut client = world.client().await;
        // More than every window.
        let parts = (0..12).map(|part| weft_testkit::pattern::chunk(part << 18, 1 << 18));
        let pattern = parts.collect::<Vec<_>>().concat();
        let post = |length: bool| {
            let request = Request::post("https://a.com/sink");
            let request = if length { request.header("content-length", pattern.len()) } else { request };
            request.body(()).unwrap()
        };
        for length in [true, false] {
            let reply = client.send(post(length), &pattern, None).await.unwrap();
            let seen: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!((&seen["seen"], &seen["wrong_at"]), (&(3 << 20).into(), &serde_json::Value::Null), "{length}");
        }
        let reply = client.get("https://a.com/bytes?n=3145728").await.unwrap();
        assert!(reply.body == pattern, "{} bytes", reply.body.len());
        // gRPC has its status in trailers.
        let (request, message) = grpc("https://a.com", b"hello");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sent", "1".parse().unwrap());
        let reply = client.send(request, &message, Some(trailers)).await.unwrap();
        assert_eq!((reply.status, reply.body.chunk().to_vec()), (StatusCode::OK, grpc_frame(b"hello")));
        assert_eq!(reply.trailers.as_ref().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn others_are_told_of_it_only_where_it_is_listened_for() {
    let world = world();
    on_sockets(async {
        world.client().await;
        let policy = world.trust.policy("secure", "a.com");
        let ask = async |version| {
            let protocol: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
            let tls = weft_tls::BackendClient::new(&policy, None, &[protocol]).unwrap();
            let io = tls.connect(connect(at(world.port)).await.unwrap()).await.unwrap();
            client::over_tls(io, version, "a.com").await
        };
        let expected = format!("h3=\":{}\"; ma=86400", world.port);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(ask(version).await.headers().get("alt-svc").unwrap(), expected.as_str(), "{version:?}");
        }
        let mut client = world.client().await;
        assert_eq!(client.get("https://a.com/").await.unwrap().header("alt-svc"), None, "it is here already");
        for name in ["a", "b"] {
            let hostname = format!("{name}.com");
            world.front.store.apply(&[https_listener(name, world.port, Some(&hostname), name)]);
        }
        let end = Instant::now() + Duration::from_secs(10);
        while ask(Version::HTTP_11).await.headers().contains_key("alt-svc") {
            assert!(Instant::now() < end, "still told of it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let attempt = connect_quic(at(world.port), "a.com", &world.trust, b"h3");
        let attempt = tokio::time::timeout(Duration::from_secs(1), attempt).await;
        assert!(!matches!(attempt, Ok(Ok(_))), "nobody is let in");
        // The connection that was open has been told, and ended.
        let closed = client.quic.closed();
        let why = tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
        assert!(
            matches!(&why, quinn::ConnectionError::ApplicationClosed(close) if u64::from(close.error_code) == 0x100),
            "{why}"
        );
    });
}

#[test]
fn the_name_and_the_certificate_of_now_decide_who_ends_tls() {
    let world = world();
    on_sockets(async {
        let mut client = world.client().await;
        let mut other = Client::open(at(world.port), "b.com", &world.trust_b).await.unwrap();
        assert_eq!(other.get("https://b.com/").await.unwrap().status, 200);
        let refused = async |name: &str, trust: &Trust, alpn: &'static [u8]| {
            connect_quic(at(world.port), name, trust, alpn).await.unwrap_err().to_string()
        };
        for (name, trust, alpn, why) in [
            // Nobody has the name, another's certificate, nothing that is spoken here.
            ("c.com", &world.trust, &b"h3"[..], "error 112"),
            ("b.com", &world.trust, b"h3", "certificate"),
            ("a.com", &world.trust, b"hq-interop", "error 120"),
        ] {
            let error = refused(name, trust, alpn).await;
            assert!(error.contains(why), "{name}: {error}");
        }
        let (renewed, trust) = certificate("a", "a.com");
        world.front.store.apply(&[renewed]);
        let mut after = Client::open(at(world.port), "a.com", &trust).await.unwrap();
        assert_eq!(after.get("https://a.com/").await.unwrap().status, 200);
        assert_eq!(client.get("https://a.com/").await.unwrap().status, 200, "who took the old one goes on");
    });
}

#[test]
fn certificates_of_clients_are_asked_for_as_with_tcp() {
    let world = world();
    let (own, trusted) = client::pair("client");
    on_sockets(async {
        let mut before = world.client().await;
        let Change::Upsert(Resource::Listener(it)) = http3_listener("a", world.port, Some("a.com"), "a") else {
            panic!()
        };
        let validation = ClientValidation { ca: trusted, mode: ClientValidationMode::AllowValidOnly };
        let it = Listener { client_validation: Some(validation), ..(*it).clone() };
        world.front.store.apply(&[Change::Upsert(Resource::Listener(Arc::new(it)))]);
        // A connection from before is no good any more (the handshake is another one now), and ends.
        assert_eq!(before.get("https://a.com/").await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
        // A client is done before it hears that it isn't welcome: the refusal comes with the first answer.
        let unknown = Client::open(at(world.port), "a.com", &world.trust).await;
        let answer = match unknown {
            Ok(mut client) => client.get("https://a.com/").await.map(drop),
            Err(error) => Err(error),
        };
        assert!(answer.is_err(), "without a certificate nobody is answered");
        let mut known = Client::open(at(world.port), "a.com", &world.trust.clone().with(own)).await.unwrap();
        assert_eq!(known.get("https://a.com/").await.unwrap().status, 200);
    });
}

#[test]
fn a_drain_lets_requests_end_and_new_clients_go_elsewhere() {
    let world = world();
    on_sockets(async {
        let mut client = world.client().await;
        let mut slow = client.clone();
        let under_way =
            tokio::spawn(async move { slow.get("https://a.com/?delay=2500").await.map(|reply| reply.status) });
        // It has to be there before the end is said.
        assert_eq!(client.get("https://a.com/").await.unwrap().status, 200);
        world.drain();
        let refused = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Err(error) = connect_quic(at(world.port), "a.com", &world.trust, b"h3").await {
                    break error;
                }
            }
        });
        let error = refused.await.unwrap();
        assert!(
            matches!(error, quinn::ConnectionError::ConnectionClosed(_)),
            "refused at once, not by silence: {error}"
        );
        assert_eq!(under_way.await.unwrap().unwrap(), 200, "it went on to its end");
        let why = tokio::time::timeout(Duration::from_secs(10), client.quic.closed()).await.unwrap();
        assert!(
            matches!(&why, quinn::ConnectionError::ApplicationClosed(close) if u64::from(close.error_code) == 0x100),
            "{why}"
        );
    });
}
