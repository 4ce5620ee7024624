//! Gateways beside what others bring: certificates of cert-manager, from an authority and by ACME, and names for external-dns.
//! All of these are the real programs; `make elsewhere` builds them, starts them beside a test cluster and runs this.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_core::gateway::{BackendTls, BackendTrust};
use weft_core::ids::{Port, ServiceKey, ServicePortKey};
use weft_sys::Netns;
use weft_tests::cluster::{Cluster, Echo, PATIENCE, TestNamespace, echo_service, eventually};
use weft_tls::BackendClient;

/// The address that pebble's resolver has for every name; see `tests/elsewhere/run.sh`.
const CHALLENGED: &str = "10.201.0.200";
/// Pebble's own API.
const PEBBLE: &str = "127.0.0.1:15000";

/// An authority of the cluster's own: self-signed, and an issuer of what it signs.
const AUTHORITY: &str = r#"
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: { name: self-signed }
spec: { selfSigned: {} }
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: { name: authority, namespace: cert-manager }
spec:
  isCA: true
  commonName: the cluster's authority
  secretName: authority
  privateKey: { algorithm: ECDSA, size: 256 }
  issuerRef: { name: self-signed, kind: ClusterIssuer, group: cert-manager.io }
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: { name: authority }
spec: { ca: { secretName: authority } }
"#;

/// Annotations for certificates that are good for an hour and renewed after ten seconds.
const RENEWED: &str = "{ cert-manager.io/cluster-issuer: authority, cert-manager.io/duration: 1h, \
     cert-manager.io/renew-before: 59m50s, cert-manager.io/private-key-algorithm: ECDSA }";

/// A Gateway and a ListenerSet whose certificates cert-manager makes.
const ISSUED: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: edge
  namespace: "@NS@"
  annotations: @RENEWED@
spec:
  gatewayClassName: weft
  allowedListeners: { namespaces: { from: Same } }
  listeners:
    - { name: https, port: 443, protocol: HTTPS, hostname: site.example.test, tls: { certificateRefs: [{ name: site }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata:
  name: team
  namespace: "@NS@"
  annotations: @RENEWED@
spec:
  parentRef: { group: gateway.networking.k8s.io, kind: Gateway, name: edge }
  listeners:
    - { name: https, port: 443, protocol: HTTPS, hostname: team.example.test, tls: { certificateRefs: [{ name: team }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: all, namespace: "@NS@" }
spec:
  parentRefs:
    - { name: edge }
    - { group: gateway.networking.k8s.io, kind: ListenerSet, name: team }
  rules: [{ backendRefs: [{ name: server, port: 80 }] }]
"#;

/// A Gateway whose certificate comes by ACME, and the issuer that asks for it through that Gateway, which redirects all else that
/// comes in the clear.
const CHALLENGE: &str = r#"
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: { name: acme }
spec:
  acme:
    server: https://localhost:14000/dir
    skipTLSVerify: true
    privateKeySecretRef: { name: acme-account }
    solvers:
      - http01:
          gatewayHTTPRoute:
            parentRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: shop, namespace: "@NS@" }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: shop
  namespace: "@NS@"
  annotations: { cert-manager.io/cluster-issuer: acme }
spec:
  gatewayClassName: weft
  addresses: [{ type: IPAddress, value: @ADDRESS@ }]
  listeners:
    - { name: http, port: 80, protocol: HTTP }
    - { name: https, port: 443, protocol: HTTPS, hostname: shop.example.test, tls: { certificateRefs: [{ name: shop }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: all, namespace: "@NS@" }
spec:
  parentRefs: [{ name: shop, sectionName: https }]
  rules: [{ backendRefs: [{ name: server, port: 80 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: to-https, namespace: "@NS@" }
spec:
  parentRefs: [{ name: shop, sectionName: http }]
  rules: [{ filters: [{ type: RequestRedirect, requestRedirect: { scheme: https, statusCode: 301 } }] }]
"#;

/// Names of a Gateway and of a ListenerSet, and one that no listener has.
const NAMES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: names, namespace: "@NS@" }
spec:
  gatewayClassName: weft
  allowedListeners: { namespaces: { from: Same } }
  listeners: [{ name: http, port: 80, protocol: HTTP, hostname: "*.example.test" }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: { name: team, namespace: "@NS@" }
spec:
  parentRef: { group: gateway.networking.k8s.io, kind: Gateway, name: names }
  listeners: [{ name: http, port: 80, protocol: HTTP, hostname: team.example.org }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: app, namespace: "@NS@" }
spec:
  parentRefs: [{ name: names }]
  hostnames: [app.example.test]
  rules: [{ backendRefs: [{ name: server, port: 80 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: team, namespace: "@NS@" }
spec:
  parentRefs: [{ group: gateway.networking.k8s.io, kind: ListenerSet, name: team }]
  hostnames: [team.example.org]
  rules: [{ backendRefs: [{ name: server, port: 80 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: stranger, namespace: "@NS@" }
spec:
  parentRefs: [{ name: names }]
  hostnames: [stranger.example.org]
  rules: [{ backendRefs: [{ name: server, port: 80 }] }]
"#;

/// A namespace with an application.
fn namespace(name: &str) -> Result<TestNamespace> {
    let ns = Cluster::open()?.namespace(name, false)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server")])?;
    Ok(ns)
}

/// The addresses of a Gateway that is programmed.
fn addresses(ns: &TestNamespace, gateway: &str) -> Result<Vec<IpAddr>> {
    eventually("the Gateway to be programmed", 2 * PATIENCE, || {
        let gateway = ns.cluster.json(&["-n", &ns.name, &format!("gateway/{gateway}")])?;
        let conditions = gateway["status"]["conditions"].as_array().into_iter().flatten();
        let programmed = conditions.into_iter().find(|c| c["type"] == "Programmed").context("no condition")?;
        ensure!(programmed["status"] == "True", "{programmed}");
        let found = gateway["status"]["addresses"].as_array().context("no address")?;
        let read = |address: &serde_json::Value| Ok(address["value"].as_str().context("no value")?.parse()?);
        found.iter().map(read).collect()
    })
}

fn https(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 443)
}

/// What `build.sh` made.
fn made(path: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("WEFT_ELSEWHERE").context("WEFT_ELSEWHERE: run `make elsewhere`")?;
    Ok(PathBuf::from(folder).join(path))
}

/// A client outside of the cluster that believes one authority.
struct Outside {
    network: Netns,
    /// As PEM.
    authority: Vec<u8>,
}

/// An answer, and who gave it.
struct Answer {
    /// The certificate that was presented.
    certificate: Vec<u8>,
    status: String,
    body: String,
}

impl Outside {
    fn new(cluster: &Cluster, authority: impl Into<Vec<u8>>) -> Result<Self> {
        let network = Netns::open(&cluster.network().context("not a cluster of ours")?)?;
        Ok(Self { network, authority: authority.into() })
    }

    /// One request on a connection of its own.
    fn get(&self, host: &str, path: &str, to: SocketAddr) -> Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.network.run(|| runtime.block_on(get(&self.authority, host, path, to)))?
    }

    /// Requests for each host at a steady rate, each on a connection of its own.
    fn load(&self, hosts: &[&str], to: SocketAddr, (per_second, time): (u32, Duration)) -> Result<Load> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut load = Load { certificates: BTreeMap::new(), failures: Vec::new(), count: 0 };
        let run = async {
            let mut tasks = tokio::task::JoinSet::new();
            let (began, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_secs(1) / per_second));
            while began.elapsed() < time {
                tick.tick().await;
                for host in hosts {
                    let (authority, host) = (self.authority.clone(), (*host).to_owned());
                    tasks.spawn(async move {
                        let at = began.elapsed();
                        let asked = tokio::time::timeout(Duration::from_secs(5), get(&authority, &host, "/", to)).await;
                        let answer = asked.map_err(anyhow::Error::from).and_then(|answer| answer);
                        (
                            host,
                            at,
                            answer.and_then(|it| if it.status == "200" { Ok(it) } else { bail!("{}", it.status) }),
                        )
                    });
                }
            }
            tasks.join_all().await
        };
        for (host, at, answer) in self.network.run(|| runtime.block_on(run))? {
            load.count += 1;
            match answer {
                Ok(answer) => _ = load.certificates.entry(host).or_default().insert(answer.certificate),
                Err(error) => load.failures.push(format!("{host} after {:.1} s: {error:#}", at.as_secs_f64())),
            }
        }
        Ok(load)
    }
}

/// What became of a load.
struct Load {
    /// The certificates that were presented, by host.
    certificates: BTreeMap<String, BTreeSet<Vec<u8>>>,
    failures: Vec<String>,
    count: usize,
}

/// TLS with a whole handshake: a resumed session would show the certificate of the one before.
async fn get(authority: &[u8], host: &str, path: &str, to: SocketAddr) -> Result<Answer> {
    let port = ServicePortKey { service: ServiceKey::new("outside", host), port: Port::new(443).context("no port")? };
    let trust = BackendTrust::Bundle(authority.to_vec());
    let policy = BackendTls { port, hostname: host.to_owned(), subject_alt_names: Vec::new(), trust };
    let client = BackendClient::new(&policy, None, &[b"http/1.1"])?;
    let mut stream = client.connect(TcpStream::connect(to).await?).await?;
    let certificates = stream.get_ref().1.peer_certificates().context("no certificate")?;
    let certificate = certificates.first().context("no certificate")?.to_vec();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Some end the connection without a word of TLS.
    let ended = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{ended:?}: {text:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.to_owned();
    Ok(Answer { certificate, status, body: body.to_owned() })
}

/// The certificate of the cluster's authority, made if it isn't there.
fn authority(cluster: &Cluster) -> Result<String> {
    cluster.apply(AUTHORITY)?;
    let in_time = "--timeout=60s";
    cluster.k(&["-n", "cert-manager", "wait", "--for=condition=Ready", "certificate/authority", in_time])?;
    cluster.k(&["wait", "--for=condition=Ready", "clusterissuer/authority", in_time])?;
    secret(cluster, "cert-manager", "authority")
}

/// The chain in a Secret.
fn secret(cluster: &Cluster, namespace: &str, name: &str) -> Result<String> {
    let chain = "go-template={{index .data \"tls.crt\" | base64decode}}";
    cluster.k(&["-n", namespace, "get", "secret", name, "-o", chain])
}

#[test]
#[ignore = "needs a cluster with cert-manager: make elsewhere"]
fn certificates_of_cert_manager_are_served_and_renewed_under_load_without_a_failed_request() -> Result<()> {
    let ns = namespace("t-issued")?;
    let outside = Outside::new(&ns.cluster, authority(&ns.cluster)?)?;
    ns.apply(&ISSUED.replace("@RENEWED@", RENEWED))?;
    let to = https(*addresses(&ns, "edge")?.first().context("no address")?);
    let hosts = ["site.example.test", "team.example.test"];
    for host in hosts {
        eventually(&format!("a certificate for {host}"), 2 * PATIENCE, || {
            let answer = outside.get(host, "/", to)?;
            ensure!(answer.status == "200", "{}", answer.status);
            Ok(())
        })?;
    }
    let load = outside.load(&hosts, to, (50, Duration::from_secs(40)))?;
    ensure!(load.failures.is_empty(), "{} of {} requests: {:?}", load.failures.len(), load.count, load.failures);
    ensure!(load.count >= 3000, "only {} requests", load.count);
    eprintln!("{} requests on connections of their own, none failed", load.count);
    for host in hosts {
        // Every ten seconds another one, each with a key of its own.
        let seen = load.certificates.get(host).map_or(0, BTreeSet::len);
        ensure!(seen >= 3, "{seen} certificates of {host} were presented in 40 s");
    }
    // The authority is the only one that is believed: nobody else's certificate would do.
    let stranger = rcgen::generate_simple_self_signed(vec!["site.example.test".to_owned()])?;
    let refused = Outside::new(&ns.cluster, stranger.cert.pem())?.get("site.example.test", "/", to);
    ensure!(refused.is_err(), "a client that believes somebody else was content");
    Ok(())
}

#[test]
#[ignore = "needs a cluster with cert-manager and pebble: make elsewhere"]
fn an_http_01_challenge_is_solved_through_the_gateway_that_the_certificate_is_for() -> Result<()> {
    let ns = namespace("t-acme")?;
    let root = Outside::new(&ns.cluster, std::fs::read(made("pki/pebble.minica.pem")?)?)?;
    let root = root.get("localhost", "/roots/0", PEBBLE.parse()?).context("pebble's root")?;
    ensure!(root.status == "200", "pebble's root: {}", root.status);
    let outside = Outside::new(&ns.cluster, root.body)?;
    ns.apply(&CHALLENGE.replace("@ADDRESS@", CHALLENGED))?;
    ensure!(addresses(&ns, "shop")? == [CHALLENGED.parse::<IpAddr>()?], "another address than asked for");
    eventually("the certificate", 3 * PATIENCE, || {
        let answer = outside.get("shop.example.test", "/", https(CHALLENGED.parse()?));
        let answer = answer.with_context(|| state_of_the_order(&ns))?;
        ensure!(answer.status == "200", "{}", answer.status);
        Ok(())
    })?;
    eventually("the solver to be gone", PATIENCE, || {
        let left = ["-n", &ns.name, "get", "httproutes,pods,services", "-l", "acme.cert-manager.io/http01-solver=true"];
        let left = ns.cluster.k(&[&left[..], &["-o", "name"]].concat())?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    ns.cluster.k(&["delete", "clusterissuer", "acme"]).map(drop)
}

/// What cert-manager says of an order that takes long.
fn state_of_the_order(ns: &TestNamespace) -> String {
    let kinds = "orders.acme.cert-manager.io,challenges.acme.cert-manager.io";
    let said = ns.cluster.k(&["-n", &ns.name, "get", kinds, "-o", "jsonpath={.items[*].status}"]);
    said.unwrap_or_else(|error| format!("{error:#}"))
}

#[test]
#[ignore = "needs a cluster and external-dns: make elsewhere"]
fn external_dns_finds_the_names_of_routes_and_the_addresses_of_their_gateway() -> Result<()> {
    let ns = namespace("t-names")?;
    ns.apply(NAMES)?;
    let addresses = addresses(&ns, "names")?;
    ensure!(!addresses.is_empty(), "no addresses");
    for route in ["app", "team"] {
        ns.cluster.wait_accepted(&ns.name, &format!("httproute/{route}"))?;
    }
    let records = || -> Result<Vec<String>> {
        let said = external_dns(&ns)?;
        Ok(said.lines().filter_map(|line| Some(line.split_once("CREATE: ")?.1.to_owned())).collect())
    };
    eventually("the records", PATIENCE, || {
        let records = records()?;
        for host in ["app.example.test", "team.example.org"] {
            for address in &addresses {
                let kind = if address.is_ipv4() { " IN A " } else { " IN AAAA " };
                let is_it = |r: &&String| {
                    r.starts_with(&format!("{host} ")) && r.contains(kind) && r.contains(&address.to_string())
                };
                ensure!(records.iter().any(|r| is_it(&r)), "no {address} for {host}: {records:#?}");
            }
        }
        Ok(())
    })?;
    let records = records()?;
    ensure!(!records.iter().any(|r| r.contains("stranger")), "a name that no listener has: {records:#?}");
    Ok(())
}

/// One round of it, with nothing that is kept.
fn external_dns(ns: &TestNamespace) -> Result<String> {
    let folder = PathBuf::from(std::env::var_os("WEFT_CLUSTER").context("WEFT_CLUSTER")?);
    let mut command = Command::new(folder.join("in-cp"));
    command.arg(made("bin/external-dns")?).arg("--kubeconfig").arg(folder.join("admin.kubeconfig"));
    command.args(["--once", "--source=gateway-httproute", "--gateway-listener-sets", "--registry=noop"]);
    command.args(["--provider=inmemory", "--inmemory-zone=example.test", "--inmemory-zone=example.org"]);
    command.args(["--managed-record-types=A", "--managed-record-types=AAAA", "--log-level=debug"]);
    command.arg(format!("--namespace={}", ns.name)).arg(format!("--gateway-namespace={}", ns.name));
    let output = command.stdin(Stdio::null()).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "external-dns: {}\n{said}", output.status);
    Ok(said)
}
