//! What h2spec, a conformance test of HTTP/2 that isn't ours, makes of both places where HTTP/2 is accepted: a Gateway, as
//! anybody reaches it, and the tunnels of a pod, behind mutual TLS. `tests/tools/install.sh test` builds it; without it the tests
//! are left out, and say so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weft_testkit::clients::exchange;
use weft_testkit::servers::{Behaviour, any, http, tcp};
use weft_testkit::{Netns, Task, netns_tests};
use weft_tests::edge::Certificate;
use weft_tests::{Machine, edge, installed};

netns_tests! {
    a_gateway_keeps_to_http_2_in_tls_and_in_the_clear,
    a_pods_tunnels_keep_to_http_2,
}

const OBJECTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: edge }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: edge }
spec:
  gatewayClassName: weft
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: https, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: a }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: edge }
spec:
  parentRefs: [{ name: gw }]
  rules: [{ backendRefs: [{ name: web, port: 80 }] }]
";

/// What a Gateway fails, and why that is so: what doesn't begin with the preface of HTTP/2 is taken for HTTP/1, is answered in
/// it with 400, and its connection is closed. h2spec reads the answer, which is none of HTTP/2, and expects nothing before the end.
const OF_GATEWAYS: [&str; 1] = ["http2/3.5: Sends invalid connection preface"];

/// What a tunnel fails, or h2spec leaves out. All but one want to see DATA in the answer to a GET, and a tunnel refuses a GET with
/// 400 and nothing more. The other sends a frame that is longer than the least that there has to be room for, and a tunnel takes
/// frames of up to 64 KiB.
const OF_TUNNELS: [&str; 7] = [
    "generic/2: Sends a PRIORITY frame on half-closed (remote) stream",
    "generic/2: Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    "http2/4.2: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE",
    "http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE",
    "http2/6.9.1: Sends SETTINGS frame to set the initial window size to 1 and sends HEADERS frame",
    "http2/6.9.2: Changes SETTINGS_INITIAL_WINDOW_SIZE after sending HEADERS frame",
    "http2/6.9.2: Sends a SETTINGS frame for window size to be negative",
];

/// What a tunnel may fail or pass, as two programs happen to be scheduled. Each of these sends more on a stream after the request,
/// and wants to see it judged by the state of that stream; but a tunnel answers h2spec's GET with 400 at once, and a stream that
/// ended that way may be forgotten by then, with what comes late for it ignored (RFC 9113 section 5.1, "closed").
const OF_SPENT_STREAMS: [&str; 13] = [
    "http2/5.1.2: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    "http2/5.1: closed: Sends a CONTINUATION frame after sending RST_STREAM frame",
    "http2/5.1: closed: Sends a DATA frame after sending RST_STREAM frame",
    "http2/5.1: closed: Sends a HEADERS frame after sending RST_STREAM frame",
    "http2/5.1: half closed (remote): Sends a CONTINUATION frame",
    "http2/5.1: half closed (remote): Sends a DATA frame",
    "http2/5.1: half closed (remote): Sends a HEADERS frame",
    "http2/6.9.1: Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    "http2/6.9: Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
    "http2/8.1.2.1: Sends a HEADERS frame that contains a pseudo-header field as trailers",
    "http2/8.1.2.6: Sends a HEADERS frame with the \"content-length\" header field which does not equal the DATA frame payload length",
    "http2/8.1.2.6: Sends a HEADERS frame with the \"content-length\" header field which does not equal the sum of the multiple DATA frames payload length",
    "http2/8.1: Sends a second HEADERS frame without the END_STREAM flag",
];

/// The tests that h2spec has, its strict one included: with fewer of them it wouldn't have been what is asked for.
const TESTS: usize = 146;

/// Runs all tests against a port, from a namespace. Fails unless exactly the known ones fail, `either` of which not judged.
fn conforms(
    h2spec: &PathBuf,
    from: &Netns,
    to: SocketAddr,
    tls: bool,
    (known, either): (&[&str], &[&str]),
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.xml");
    let mut command = Command::new(h2spec);
    command.args(["--strict", "--timeout", "5", "--host", &to.ip().to_string(), "--port", &to.port().to_string()]);
    command.arg("--junit-report").arg(&report).args(tls.then_some(["--tls", "--insecure"]).into_iter().flatten());
    let output = from.output(&mut command)?;
    let told = String::from_utf8_lossy(&output.stdout);
    let summary = told.lines().last().unwrap_or_default();
    println!("h2spec at {to}: {summary}");
    let text = std::fs::read_to_string(&report).with_context(|| format!("no report: {told}"))?;
    let (all, mut failed) = read(&text)?;
    failed.retain(|name| !either.contains(&name.as_str()));
    ensure!(all == TESTS, "{all} of {TESTS} tests ran: {told}");
    let known: BTreeSet<String> = known.iter().map(|name| (*name).to_owned()).collect();
    ensure!(failed == known, "failed {failed:?}, and known is {known:?}: {told}");
    Ok(())
}

/// How many tests a report in JUnit's form has, and which of them failed.
fn read(report: &str) -> Result<(usize, BTreeSet<String>)> {
    let (mut all, mut failed) = (0, BTreeSet::new());
    for case in report.split("<testcase ").skip(1) {
        let value = |name: &str| {
            let rest = case.split_once(&format!("{name}=\""))?.1;
            Some(rest.split_once('"')?.0.replace("&#34;", "\"").replace("&#39;", "'"))
        };
        let (section, title) = value("package").zip(value("classname")).context("a test without a name")?;
        all += 1;
        let told = case.split_once("</testcase>").map_or(case, |(told, _)| told);
        if ["<error", "<failure", "<skipped"].iter().any(|word| told.contains(word)) {
            failed.insert(format!("{section}: {title}"));
        }
    }
    Ok((all, failed))
}

fn a_gateway_keeps_to_http_2_in_tls_and_in_the_clear() -> Result<()> {
    let Some(h2spec) = installed("bin/h2spec") else { return Ok(()) };
    let manifests = tempfile::tempdir()?;
    let text = OBJECTS.to_owned() + &edge::backend("web", 7001) + &Certificate::of("a.example.com")?.secret("a");
    std::fs::write(manifests.path().join("objects.yaml"), text)?;
    let machine = Machine::start(manifests)?;
    let _server = http(machine.outside(), "web", any(7001))?;
    machine.listens(&[80, 443])?;
    for (port, tls) in [(443, true), (80, false)] {
        conforms(&h2spec, machine.outside(), machine.at(port), tls, (&OF_GATEWAYS, &[]))
            .with_context(|| machine.log())?;
    }
    ensure!(!machine.log().contains("panicked"), "{}", machine.log());
    Ok(())
}

/// Carries a connection both ways. Either end may break it off, which is what the tests are about: what the tunnel said before is
/// delivered whatever the other direction has met, and a port that is closed with bytes unread would reset that, too.
async fn forward(plain: TcpStream, tunnel: impl AsyncRead + AsyncWrite) {
    let (mut from_test, mut to_test) = plain.into_split();
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(tunnel);
    let out = async {
        if tokio::io::copy(&mut from_test, &mut to_tunnel).await.is_ok() {
            drop(to_tunnel.shutdown().await);
        }
        tokio::io::copy(&mut from_test, &mut tokio::io::sink()).await
    };
    let back = async {
        drop(tokio::io::copy(&mut from_tunnel, &mut to_test).await);
        to_test.shutdown().await
    };
    let _ = tokio::join!(out, back);
}

/// Lets a program that knows no certificates speak to a pod's tunnels: each connection to the returned port of loopback goes on
/// as pod `a`'s, in mutual TLS.
fn as_pod_a(mesh: &support::Mesh, from: &Netns, to: &'static str) -> Result<(SocketAddr, Task<()>)> {
    let near = SocketAddr::from(([127, 0, 0, 1], 8443));
    let store = weft_tls::CertStore::new(
        weft_tls::TrustStore::new(mesh.authority.bundle()?),
        weft_tls::Clock::system(),
        weft_tls::TlsSettings::default(),
    );
    store.install(mesh.authority.issue(&support::Mesh::identity("a"))?);
    let client = weft_tls::ClientTls::for_identity(&store, &support::Mesh::identity("a"))?;
    let expected = weft_tls::ExpectedPeer::one(support::Mesh::identity(to));
    let far = mesh.pod(to).addr(15008);
    let listener = from.block_on(async { TcpListener::bind(near).await?.into_std() })?;
    let forwarder = from.spawn_with(move || async move {
        let listener = TcpListener::from_std(listener).expect("a listener that does not block");
        while let Ok((plain, _)) = listener.accept().await {
            let (client, expected) = (client.clone(), expected.clone());
            tokio::spawn(async move {
                let tunnel = TcpStream::connect(far).await?;
                let (tls, _peer) = client.connect(tunnel, far.ip(), &expected).await?;
                forward(plain, tls).await;
                anyhow::Ok(())
            });
        }
    });
    Ok((near, forwarder))
}

fn a_pods_tunnels_keep_to_http_2() -> Result<()> {
    let Some(h2spec) = installed("bin/h2spec") else { return Ok(()) };
    let mesh = support::Mesh::of(&["a", "c"])?;
    let node = mesh.world.node("n1").clone();
    let (near, _forwarder) = as_pod_a(&mesh, &node, "c")?;
    conforms(&h2spec, &node, near, false, (&OF_TUNNELS, &OF_SPENT_STREAMS))?;
    // After all that it serves as before.
    let _server = tcp(&mesh.pod("c"), "c", any(7000), Behaviour::Echo)?;
    let answer = mesh.pod("a").block_on(exchange(mesh.pod("c").addr(7000), b"ping"))?;
    ensure!(answer.ends_with(b"ping"), "{answer:?}");
    Ok(())
}
