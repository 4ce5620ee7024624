//! A Gateway in the manifests of a primary: requests from outside come in by its listeners, on that machine alone.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode, Version};
use serde_json::Value;
use weft_testkit::clients::{Connection, Echo, Reply, connect, request};
use weft_testkit::netns_tests;
use weft_testkit::servers::{Server, any, http};
use weft_tests::edge::Certificate;
use weft_tests::{Mesh, NODES, Setup, edge, eventually};

netns_tests! {
    hosts_and_paths_choose_backends_and_other_nodes_do_not_listen,
    https_presents_the_certificate_of_the_name_and_speaks_both_versions,
    an_edit_of_one_listener_breaks_no_connection_of_another,
    what_is_in_the_mesh_is_reached_as_the_gateway_and_never_in_the_clear,
    an_authorizer_in_the_mesh_is_asked_as_the_gateway_and_nothing_passes_without_it,
    a_port_that_another_program_has_is_taken_when_it_is_free,
    a_proxy_that_is_replaced_without_a_saved_configuration_closes_no_port,
}

const OBJECTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: edge }
---
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { weftmesh.io/mesh: enabled } }
---
apiVersion: v1
kind: Pod
metadata: { name: ledger, namespace: shop, labels: { app: ledger } }
spec: { nodeName: node-a, containers: [{ name: app, image: x, args: [http], ports: [{ name: http, containerPort: 8080 }] }] }
---
apiVersion: v1
kind: Service
metadata: { name: ledger, namespace: shop }
spec: { selector: { app: ledger }, ports: [{ name: http, port: 80, targetPort: http, appProtocol: http }] }
---
apiVersion: weftmesh.io/v1alpha1
kind: MeshPolicy
metadata: { name: ledger, namespace: shop }
spec:
  targetRefs: [{ kind: Pod, selector: { matchLabels: { app: ledger } } }]
  mode: Strict
---
apiVersion: weftmesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: ledger, namespace: shop }
spec:
  targetRefs: [{ kind: Pod, selector: { matchLabels: { app: ledger } } }]
  action: ALLOW
  rules:
  - from: [{ identities: ['spiffe://cluster.local/ns/edge/sa/gw-weft'] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: { name: edge, namespace: shop }
spec:
  from: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge }]
  to: [{ group: '', kind: Service }]
";

const GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: edge }
spec:
  gatewayClassName: weft
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: shop, port: 80, protocol: HTTP, hostname: '*.shop.example' }
  - { name: alt, port: 8080, protocol: HTTP }
  - { name: a, port: 443, protocol: HTTPS, hostname: a.example.com, tls: { certificateRefs: [{ name: a }] } }
  - { name: b, port: 443, protocol: HTTPS, hostname: b.example.com, tls: { certificateRefs: [{ name: b }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: edge }
spec:
  parentRefs: [{ name: gw }]
  hostnames: [www.example.com, a.example.com, b.example.com, www.shop.example]
  rules:
  - { matches: [{ path: { value: /api } }], backendRefs: [{ name: api, port: 80 }] }
  - { backendRefs: [{ name: web, port: 80 }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: meshed, namespace: edge }
spec:
  parentRefs: [{ name: gw, sectionName: alt }]
  hostnames: [meshed.example.com]
  rules: [{ backendRefs: [{ name: ledger, namespace: shop, port: 80 }] }]
";

/// A mesh with the Gateway, and its backends on the wire.
struct Edge {
    mesh: Mesh,
    /// The certificates of `a` and `b`, for clients to trust.
    roots: std::path::PathBuf,
    _servers: [Server; 2],
    _manifests: tempfile::TempDir,
}

/// Secrets for the listeners, anew, and what their clients have to believe.
fn secrets() -> Result<(String, String)> {
    let (a, b) = (Certificate::of("a.example.com")?, Certificate::of("b.example.com")?);
    Ok((a.secret("a") + &b.secret("b"), a.chain + &b.chain))
}

impl Edge {
    fn start() -> Result<Self> {
        let manifests = tempfile::tempdir()?;
        let (secrets, roots) = secrets()?;
        let objects = OBJECTS.to_owned() + &edge::backend("web", 7001) + &edge::backend("api", 7002);
        for (file, text) in [("objects.yaml", &*objects), ("gateway.yaml", GATEWAY), ("secrets.yaml", &secrets)] {
            std::fs::write(manifests.path().join(file), text)?;
        }
        let trusted = manifests.path().join("roots.pem");
        std::fs::write(&trusted, roots)?;
        let usual = ["--workers", "2", "--drain-deadline", "1s", "--replaced-deadline", "30s"];
        let mut mesh = Mesh::start(manifests.path(), Setup { proxy: &usual, ..Setup::default() })?;
        mesh.wire_address()?;
        let servers = [http(mesh.world.wire(), "web", any(7001))?, http(mesh.world.wire(), "api", any(7002))?];
        mesh.start_pods()?;
        mesh.wait_endpoints()?;
        let edge = Self { mesh, roots: trusted, _servers: servers, _manifests: manifests };
        let wire = edge.mesh.world.wire();
        for port in [80, 443, 8080] {
            let at = edge.at(port);
            eventually("the Gateway listens", || Ok(wire.block_on(connect(at)).is_ok()))?;
        }
        Ok(edge)
    }

    /// A port of the primary's node.
    fn at(&self, port: u16) -> SocketAddr {
        (IpAddr::from(self.mesh.world.node(NODES[0]).ipv4()), port).into()
    }

    /// A request from the wire.
    fn ask(&self, port: u16, version: Version, host: &str, path: &str) -> Result<Reply> {
        let at = self.at(port);
        let asked = async move { ask(&mut Connection::open(at, version).await?, host, path).await };
        self.mesh.world.wire().block_on(asked)
    }

    /// A request by curl, which speaks TLS; status and body, or its complaint.
    fn curl(&self, host: &str, path: &str, options: &[&str]) -> Result<Result<(u16, String), String>> {
        let at = self.at(443).ip();
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code} %{http_version}"]);
        command.arg("--cacert").arg(&self.roots).args(["--connect-to", &format!("::{at}:443")]).args(options);
        let output = self.mesh.world.wire().output(command.arg(format!("https://{host}{path}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let (body, last) = text.rsplit_once('\n').context("no status")?;
        let (code, version) = last.split_once(' ').context("no version")?;
        Ok(Ok((code.parse()?, format!("{version} {body}"))))
    }

    fn status(&self) -> Result<Value> {
        edge::status(self.mesh.manifests(), "gateway.edge.gw")?.context("no status")
    }
}

async fn ask(connection: &mut Connection, host: &str, path: &str) -> Result<Reply> {
    connection.send(request(Method::GET, path, &[("host", host)], "")).await
}

fn condition<'a>(of: &'a Value, kind: &str) -> Option<&'a str> {
    of["conditions"].as_array()?.iter().find(|it| it["type"] == kind)?["status"].as_str()
}

fn hosts_and_paths_choose_backends_and_other_nodes_do_not_listen() -> Result<()> {
    let edge = Edge::start()?;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (port, host, path, want) in [
            (80, "www.example.com", "/", "web"),
            (80, "www.example.com", "/api/v1", "api"),
            (8080, "www.example.com", "/apis", "web"),
            (80, "www.shop.example", "/api", "api"),
            (80, "other.example.com", "/", "404"),
            (80, "other.shop.example", "/", "404"),
        ] {
            let reply = edge.ask(port, version, host, path)?;
            if want == "404" {
                ensure!(reply.status == StatusCode::NOT_FOUND, "{version:?} {host}{path}: {reply:?}");
                continue;
            }
            let echo: Echo = reply.echo().with_context(|| format!("{version:?} {host}{path}"))?;
            ensure!(
                (echo.pod.as_str(), echo.path.as_str(), echo.host.as_deref()) == (want, path, Some(host)),
                "{echo:?}"
            );
            ensure!(echo.version == "HTTP/1.1", "the backend says that it speaks this: {echo:?}");
            let for_ = echo.header("x-forwarded-for").context("no x-forwarded-for")?;
            ensure!(for_.parse::<IpAddr>().is_ok() && echo.header("x-forwarded-proto") == Some("http"), "{echo:?}");
        }
    }
    let elsewhere: SocketAddr = (IpAddr::from(edge.mesh.world.node(NODES[1]).ipv4()), 80).into();
    ensure!(edge.mesh.world.wire().block_on(connect(elsewhere)).is_err(), "another node listens for the Gateway");

    let status = edge.status()?;
    let listeners = status["status"]["listeners"].as_array().context("no listeners")?;
    let counts: Vec<_> = listeners.iter().map(|it| it["attachedRoutes"].as_u64().unwrap_or_default()).collect();
    ensure!(counts == [1, 1, 2, 1, 1], "{status:#}");
    for of in listeners.iter().chain([&status["status"]]) {
        ensure!(condition(of, "Programmed") == Some("True") && condition(of, "Accepted") == Some("True"), "{of:#}");
    }
    let shown = edge.mesh.status(NODES[0])?;
    ensure!(shown["listeners"].as_array().is_some_and(|all| all.len() == 5), "{shown:#}");
    let on_disk = std::process::Command::new("grep")
        .args(["-rl", "PRIVATE KEY"])
        .arg(edge.mesh.node(NODES[0]).state.join("config"))
        .output()?;
    ensure!(on_disk.stdout.is_empty(), "a private key is in the saved configuration");
    Ok(())
}

fn https_presents_the_certificate_of_the_name_and_speaks_both_versions() -> Result<()> {
    let edge = Edge::start()?;
    for host in ["a.example.com", "b.example.com"] {
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            // curl has looked at the certificate: each is good for one of the two names only.
            let (code, text) = edge.curl(host, "/api", &[option])?.map_err(anyhow::Error::msg)?;
            let (spoken, body) = text.split_once(' ').context("no version")?;
            let echo: Echo = serde_json::from_str(body).with_context(|| text.clone())?;
            ensure!((code, spoken, echo.pod.as_str()) == (200, version, "api"), "{host} {option}: {code} {text}");
            ensure!(
                echo.header("x-forwarded-proto") == Some("https") && echo.host.as_deref() == Some(host),
                "{echo:?}"
            );
        }
    }
    let unknown = edge.curl("c.example.com", "/", &["--insecure"])?;
    ensure!(unknown.as_ref().is_err_and(|why| why.contains("unrecognized name")), "{unknown:?}");
    // A request for the host of one listener on the connection of another.
    let (code, text) =
        edge.curl("a.example.com", "/", &["--header", "host: b.example.com"])?.map_err(anyhow::Error::msg)?;
    ensure!(code == 421, "{code} {text}");
    let (code, text) =
        edge.curl("a.example.com", "/", &["--header", "host: c.example.com"])?.map_err(anyhow::Error::msg)?;
    ensure!(code == 404, "{code} {text}");

    // Another certificate for the same listener is presented to whoever comes next; nothing restarts.
    let (renewed, roots) = secrets()?;
    std::fs::write(edge.mesh.manifests().join("secrets.yaml"), renewed)?;
    eventually("the old certificate is gone", || Ok(edge.curl("a.example.com", "/", &[])?.is_err()))?;
    std::fs::write(&edge.roots, roots)?;
    ensure!(edge.curl("a.example.com", "/", &[])?.is_ok_and(|(code, _)| code == 200));
    Ok(())
}

fn an_edit_of_one_listener_breaks_no_connection_of_another() -> Result<()> {
    let edge = Edge::start()?;
    let (kept, edited, now) = (edge.at(80), edge.at(8080), edge.at(8081));
    let (text, file) = (GATEWAY.replace("port: 8080,", "port: 8081,"), edge.mesh.manifests().join("gateway.yaml"));
    edge.mesh.world.wire().block_on(async move {
        let mut open = Connection::open(kept, Version::HTTP_11).await?;
        let mut also = Connection::open(edited, Version::HTTP_11).await?;
        for connection in [&mut open, &mut also] {
            ensure!(ask(connection, "www.example.com", "/").await?.status == StatusCode::OK);
        }
        std::fs::write(&file, text)?;
        eventually_async("the new port answers", || async move { connect(now).await.is_ok() }).await?;
        eventually_async("the old port is closed", || async move { connect(edited).await.is_err() }).await?;
        ensure!(ask(&mut open, "www.example.com", "/api").await?.echo()?.pod == "api", "the connection is the same");
        // Its listener is gone: there is nothing to route by, and nothing breaks.
        ensure!(ask(&mut also, "www.example.com", "/").await?.status == StatusCode::NOT_FOUND);
        anyhow::Ok(())
    })?;
    // A mistake in one costs that one.
    edge.mesh.edit("gateway.yaml", "name: alt, port: 8081, protocol: HTTP", "name: alt, port: 8081, protocol: SMTP")?;
    eventually("the status says so", || {
        let status = edge.status()?;
        Ok(condition(&status["status"]["listeners"][2], "Accepted") == Some("False"))
    })?;
    ensure!(edge.ask(80, Version::HTTP_2, "www.example.com", "/")?.status == StatusCode::OK);
    Ok(())
}

async fn eventually_async<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) -> Result<()> {
    for _ in 0..1500 {
        if holds().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("not within half a minute: {what}")
}

/// The ledger takes no plaintext, and nobody's connection but the Gateway's.
fn what_is_in_the_mesh_is_reached_as_the_gateway_and_never_in_the_clear() -> Result<()> {
    let edge = Edge::start()?;
    let ask = |version| edge.ask(8080, version, "meshed.example.com", "/");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        eventually("the ledger answers", || Ok(ask(version)?.echo().is_ok_and(|echo| echo.pod == "ledger")))?;
    }
    edge.mesh.edit("objects.yaml", "sa/gw-weft", "sa/other")?;
    eventually("the Gateway is refused", || {
        let reply = ask(Version::HTTP_11)?;
        // The client hears nothing of the mesh but its request's id.
        let id = reply.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let marks = ["x-weft-reason", "x-weft-by"].iter().any(|name| reply.headers.contains_key(*name));
        let told = reply.body.as_ref() == format!("request {id}").as_bytes();
        Ok(reply.status == StatusCode::FORBIDDEN && told && !marks)
    })?;
    Ok(())
}

const GUARDED: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: guarded, namespace: edge }
spec:
  parentRefs: [{ name: gw, sectionName: http }]
  hostnames: [guarded.example.com]
  rules:
  - filters:
    - type: ExternalAuth
      externalAuth:
        protocol: HTTP
        backendRef: { name: ledger, namespace: shop, port: 80 }
        http: { allowedHeaders: [x-echo-set-header], allowedResponseHeaders: [x-user] }
    backendRefs: [{ name: web, port: 80 }]
";

/// The ledger as an authorizer: it says yes, with the header it is told to say, unless the path asks for another status.
fn an_authorizer_in_the_mesh_is_asked_as_the_gateway_and_nothing_passes_without_it() -> Result<()> {
    let edge = Edge::start()?;
    std::fs::write(edge.mesh.manifests().join("guarded.yaml"), GUARDED)?;
    let at = edge.at(80);
    let ask = |version, path: &'static str| {
        edge.mesh.world.wire().block_on(async move {
            let headers = [("host", "guarded.example.com"), ("x-echo-set-header", "x-user: ann"), ("x-user", "root")];
            Connection::open(at, version).await?.send(request(Method::GET, path, &headers, "")).await
        })
    };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        eventually("it is permitted", || {
            let echo = ask(version, "/x").and_then(|reply| reply.echo());
            Ok(echo.is_ok_and(|echo| echo.pod == "web" && echo.header("x-user") == Some("ann")))
        })?;
        let refused = ask(version, "/status/402")?;
        ensure!(refused.status == StatusCode::PAYMENT_REQUIRED, "{refused:?}");
        ensure!(refused.header("x-echo-pod") == Some("ledger"), "the authorizer's own words: {refused:?}");
    }
    edge.mesh.edit("objects.yaml", "sa/gw-weft", "sa/other")?;
    eventually("nobody says yes any more", || {
        let reply = ask(Version::HTTP_11, "/x")?;
        Ok(reply.status == StatusCode::FORBIDDEN && reply.body.starts_with(b"request "))
    })
}

fn a_port_that_another_program_has_is_taken_when_it_is_free() -> Result<()> {
    let edge = Edge::start()?;
    let node = edge.mesh.world.node(NODES[0]);
    let squatter = http(node, "squatter", any(9090))?;
    edge.mesh.edit("gateway.yaml", "port: 8080,", "port: 9090,")?;
    let log = || edge.mesh.node(NODES[0]).process.log();
    eventually("the log says so", || Ok(log()?.contains("can't listen")))?;
    ensure!(edge.ask(80, Version::HTTP_11, "www.example.com", "/")?.status == StatusCode::OK, "the others go on");
    drop(squatter);
    eventually("it is listened on", || {
        let reply = edge.ask(9090, Version::HTTP_11, "www.example.com", "/");
        Ok(reply.and_then(|reply| reply.echo()).is_ok_and(|echo| echo.pod == "web"))
    })
}

/// Its successor doesn't know where to listen when it starts.
fn a_proxy_that_is_replaced_without_a_saved_configuration_closes_no_port() -> Result<()> {
    let edge = Edge::start()?;
    let saved = edge.mesh.node(NODES[0]).state.join("config");
    eventually("nothing can be saved where a folder is", || {
        // It isn't there yet, or there again.
        let _ = std::fs::remove_file(&saved);
        Ok(std::fs::create_dir(&saved).is_ok())
    })?;
    let (at, stop) = (edge.at(80), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let clients = edge.mesh.world.wire().spawn(async move {
        let (mut open, mut closed) = (0_u32, Vec::new());
        while !stopped.load(Relaxed) {
            match connect(at).await {
                Ok(_) => open += 1,
                // Who was let in by the one that closes meanwhile is reset: that isn't a port without anybody.
                Err(error) if is_refused(&error) => closed.push(format!("{error:#}")),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (open, closed)
    });
    for _ in 0..3 {
        let new = edge.mesh.replace_proxy(NODES[0])?;
        eventually("the one before it has ended", || Ok(edge.mesh.proxies(NODES[0])? == [new]))?;
    }
    stop.store(true, Relaxed);
    let (open, closed) = clients.join()?;
    // Ten for each replacement at least, however fast that is.
    ensure!(open > 30 && closed.is_empty(), "{open}, {closed:?}");
    ensure!(saved.is_dir(), "something was saved after all");
    ensure!(edge.ask(80, Version::HTTP_11, "www.example.com", "/")?.status == StatusCode::OK);
    Ok(())
}

fn is_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}
