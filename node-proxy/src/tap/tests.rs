//! Taps: what they see, what they drop, how they end, and who may begin one.

use std::time::SystemTime;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::tap::{Lines, PATH};
use weft_tls::{
    CertStore, ClientTls, Clock, ExpectedPeer, KeyRequest, ServerTls, Svid, TlsSettings, TrustBundle, TrustStore,
};

use super::*;

fn label(workload: &str) -> WorkloadLabel {
    WorkloadLabel { namespace: "shop".into(), workload: workload.into() }
}

fn entry(path: &str) -> Entry {
    Entry {
        direction: "outbound",
        reporter: "source",
        source: "shop/web-1".into(),
        destination: "shop/cart-1".into(),
        service: "shop/cart:80".into(),
        route: "HTTPRoute/shop/canary".into(),
        rule: "1".into(),
        method: "GET".into(),
        path: path.into(),
        status: 200,
        reason: "ok",
        ..Entry::default()
    }
}

fn offer(taps: &Taps, path: &str) {
    let (entry, ends) = (entry(path), (label("web"), label("cart")));
    taps.offer(&Seen { entry: &entry, ends: (&ends.0, &ends.1), query: Some("token=secret"), failed: false });
}

fn tap(value: Value) -> Tap {
    let tap: Tap = serde_json::from_value(value).unwrap();
    tap.check().unwrap();
    tap
}

/// All lines until the end, without those that say that nothing happens.
async fn rest(mut subscription: Subscription) -> Vec<Line> {
    let mut lines = Vec::new();
    while let Some(line) = subscription.next().await {
        lines.extend(Some(line).filter(|line| *line != Line::Quiet));
    }
    lines
}

fn paths(lines: &[Line]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| if let Line::Seen(record) = line { Some(record.path.as_str()) } else { None })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_tap_sees_what_it_asked_for() {
    let taps = Taps::default();
    assert!(!taps.is_on());
    let first = taps.begin(tap(json!({ "filter": { "namespace": "shop", "path": "/a" }, "seconds": 5 }))).unwrap();
    let second = taps.begin(tap(json!({ "filter": { "namespace": "bank" }, "seconds": 5 }))).unwrap();
    let route = json!({ "filter": { "route": "shop/canary", "service": "shop/cart" }, "seconds": 5, "query": true });
    let third = taps.begin(tap(route)).unwrap();
    assert!(taps.is_on());
    offer(&taps, "/a/1");
    offer(&taps, "/b");
    let (first, second, third) = (rest(first).await, rest(second).await, rest(third).await);
    assert_eq!((paths(&first), paths(&second)), (vec!["/a/1"], vec![]), "and no query");
    assert_eq!(paths(&third), ["/a/1?token=secret", "/b?token=secret"]);
    assert_eq!(first.last(), Some(&Line::End("5 s are over".into())));
    assert!(!taps.is_on());
    let Line::Seen(record) = &first[0] else { panic!("{first:?}") };
    let Record { source_namespace, source_workload, source_pod, destination_workload, route, rule, .. } = &**record;
    assert_eq!([source_namespace, source_workload, source_pod], ["shop", "web", "web-1"]);
    assert_eq!([destination_workload, route, rule], ["cart", "HTTPRoute/shop/canary", "1"]);
}

/// Nobody answered: the request is still its Service's, whose namespace may see it.
#[tokio::test(start_paused = true)]
async fn a_request_without_an_endpoint_belongs_to_its_service() {
    let taps = Taps::default();
    let subscription =
        taps.begin(tap(json!({ "filter": { "namespace": "shop", "direction": "in" }, "count": 1 }))).unwrap();
    let entry = Entry { destination: String::new(), source: "edge/web-1".into(), ..entry("/") };
    let caller = WorkloadLabel { namespace: "edge".into(), workload: "web".into() };
    taps.offer(&Seen { entry: &entry, ends: (&caller, &WorkloadLabel::unknown()), query: None, failed: true });
    let lines = rest(subscription).await;
    let Line::Seen(record) = &lines[0] else { panic!("{lines:?}") };
    assert_eq!((&*record.destination_namespace, &*record.destination_workload), ("shop", ""));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_for_the_rate_is_dropped_and_counted() {
    let taps = Taps::default();
    let subscription = taps.begin(tap(json!({ "rate": 3, "seconds": 5 }))).unwrap();
    (0..10).for_each(|_| offer(&taps, "/"));
    tokio::time::advance(Duration::from_millis(1500)).await;
    (0..4).for_each(|_| offer(&taps, "/later"));
    let lines = rest(subscription).await;
    assert_eq!(paths(&lines), ["/", "/", "/", "/later", "/later", "/later"]);
    let dropped: Vec<_> = lines.iter().filter(|line| matches!(line, Line::Dropped(_))).collect();
    assert_eq!(dropped, [&Line::Dropped(8)]);
}

/// Workers go on at their pace, and what waits is bounded.
#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_slows_nobody() {
    let taps = Taps::default();
    let mut subscription = taps.begin(tap(json!({ "rate": 1000, "seconds": 600 }))).unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        (0..500).for_each(|_| offer(&taps, "/"));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(began.elapsed(), Duration::from_secs(20), "offering waits for nothing");
    assert_eq!(subscription.next().await, Some(Line::Dropped(20 * 500 - QUEUE as u64)));
    let mut seen = 0;
    while let Some(Line::Seen(_)) = subscription.next().await {
        seen += 1;
    }
    assert_eq!(seen, QUEUE);
}

#[tokio::test(start_paused = true)]
async fn a_tap_ends_after_so_many_or_with_its_reader_and_there_are_eight_at_most() {
    let taps = Taps::default();
    let subscription = taps.begin(tap(json!({ "count": 2 }))).unwrap();
    (0..5).for_each(|_| offer(&taps, "/"));
    let lines = rest(subscription).await;
    assert_eq!((paths(&lines).len(), lines.last()), (2, Some(&Line::End("2 are seen".into()))));
    let mut all: Vec<_> = (0..AT_ONCE).map(|_| taps.begin(Tap::default()).unwrap()).collect();
    assert_eq!(taps.begin(Tap::default()).unwrap_err(), TooMany);
    all.pop();
    assert!(taps.begin(Tap::default()).is_ok());
    drop(all);
    assert!(!taps.is_on());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_tap_says_that_it_lives() {
    let taps = Taps::default();
    let mut subscription = taps.begin(tap(json!({ "seconds": 25 }))).unwrap();
    assert_eq!(subscription.next().await, Some(Line::Quiet));
    assert_eq!(subscription.next().await, Some(Line::Quiet));
    assert_eq!(subscription.next().await, Some(Line::End("25 s are over".into())));
    assert_eq!(subscription.next().await, None);
}

/// Waits until something holds, which other tasks make so.
async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it doesn't come about");
}

/// Lines of an answer.
struct Reading {
    body: Incoming,
    lines: Lines,
    ready: std::collections::VecDeque<Line>,
}

impl Reading {
    async fn next(&mut self) -> Option<Line> {
        while self.ready.is_empty() {
            let frame = self.body.frame().await?.unwrap();
            self.ready.extend(self.lines.push(frame.data_ref().unwrap()).unwrap());
        }
        self.ready.pop_front()
    }
}

fn post(tap: &Value) -> http::Request<Full<bytes::Bytes>> {
    let request = http::Request::post(format!("http://proxy{PATH}")).header("host", "proxy");
    request.body(Full::new(tap.to_string().into())).unwrap()
}

async fn over_socket(path: &std::path::Path, tap: &Value) -> (u16, Reading) {
    let stream = UnixStream::connect(path).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(post(tap)).await.unwrap();
    // The sender's end would be the connection's.
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(sender)
    });
    (answer.status().as_u16(), Reading { body: answer.into_body(), lines: Lines::default(), ready: Default::default() })
}

#[tokio::test]
async fn a_socket_is_for_its_owner_and_is_taken_over_by_a_successor() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tap.sock");
    let (old, new, stop) = (Taps::default(), Taps::default(), CancellationToken::new());
    let serve = |taps: &Taps| {
        let (taps, path, stop) = (taps.clone(), path.clone(), stop.clone());
        tokio::spawn(async move { serve_socket(taps, &path, stop).await })
    };
    serve(&old);
    until(|| path.exists()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, mut reading) = over_socket(&path, &json!({ "filter": { "path": "/a" }, "count": 1 })).await;
    assert_eq!(status, 200);
    until(|| old.is_on()).await;
    offer(&old, "/b");
    offer(&old, "/a");
    assert!(matches!(reading.next().await, Some(Line::Seen(record)) if record.path == "/a"));
    assert_eq!(reading.next().await, Some(Line::End("1 are seen".into())));
    until(|| !old.is_on()).await;
    assert_eq!(over_socket(&path, &json!({ "rate": 0 })).await.0, 400);

    let before = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    serve(&new);
    until(|| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap()) != before).await;
    let (_, reading) = over_socket(&path, &json!({})).await;
    until(|| new.is_on()).await;
    drop(reading);
    until(|| !new.is_on()).await;
    for _ in 0..AT_ONCE {
        std::mem::forget(new.begin(Tap::default()).unwrap());
    }
    assert_eq!(over_socket(&path, &json!({})).await.0, 429);
    stop.cancel();
}

fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "weft-system", account)
}

/// A store with certificates of these identities, of one authority.
fn store(accounts: &[&str]) -> CertStore {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let bundle = TrustBundle::new(TrustDomain::default(), [root]).unwrap();
    let store = CertStore::new(TrustStore::new(bundle), Clock::system(), TlsSettings::default());
    for account in accounts {
        store.install(issue(&issuer, account));
    }
    store
}

fn issue(issuer: &Issuer<'static, KeyPair>, account: &str) -> Svid {
    let key = KeyRequest::generate(&identity(account)).unwrap();
    let csr = CertificateSigningRequestParams::from_der(&key.csr().into()).unwrap();
    let mut params = CertificateParams::default();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity(account).to_string()).unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    key.complete(vec![params.signed_by(&csr.public_key, issuer).unwrap().der().clone()]).unwrap()
}

#[tokio::test]
async fn over_the_network_the_controller_gets_in_and_nobody_else() {
    let store = store(&["weft-node-proxy", "weft-controller", "weft-ca"]);
    let tls = ServerTls::for_identity(&store, &identity("weft-node-proxy")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taps, stop) = (listener.local_addr().unwrap(), Taps::default(), CancellationToken::new());
    let door = Door { tls, controller: identity("weft-controller") };
    let serving = tokio::spawn(door.serve(taps.clone(), listener, stop.clone()));
    let ask = async |account: &str| {
        let client = ClientTls::for_identity(&store, &identity(account)).unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let expected = ExpectedPeer::one(identity("weft-node-proxy"));
        let (stream, _) = client.connect(tcp, address.ip(), &expected).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(drop)?;
        tokio::spawn(connection);
        let answer = sender.send_request(post(&json!({ "filter": { "namespace": "shop" } }))).await.map_err(drop)?;
        assert_eq!(answer.status(), 200);
        Ok::<_, ()>((sender, Reading { body: answer.into_body(), lines: Lines::default(), ready: Default::default() }))
    };
    assert!(ask("weft-ca").await.is_err(), "a certificate of the mesh isn't enough");
    assert!(!taps.is_on());
    let (_sender, mut reading) = ask("weft-controller").await.unwrap();
    until(|| taps.is_on()).await;
    offer(&taps, "/a");
    assert!(matches!(reading.next().await, Some(Line::Seen(record)) if record.path == "/a"));
    stop.cancel();
    serving.await.unwrap();
}
