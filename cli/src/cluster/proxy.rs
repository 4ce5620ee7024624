//! `weft proxy`: what one node's proxy says on its loopback, reached by port-forward.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Subcommand;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde_json::Value;
use weft_controller::kubernetes::gateways::MANAGED_BY;
use weft_core::snapshot::Snapshot;
use weft_kube::kube::api::{Api, ListParams};
use weft_node_proxy::store::from_bytes;

use super::facts::{Read, component_of, is_ready, name_of, namespace_of, node_of};
use super::metrics::Metrics;
use super::print;
use super::read::Session;
use super::status::moment;
use crate::{Output, table};

/// The admin port of node proxies, on their loopback.
const ADMIN: u16 = 15000;
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest page that is read, in bytes: the configuration of a large cluster.
const LARGEST: usize = 512 << 20;

/// Which proxy to ask for what.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// The configuration that it has: workloads, Services with endpoints, rules, policies
    Config {
        #[command(flatten)]
        at: At,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// The certificates of its pods' identities
    Certs {
        #[command(flatten)]
        at: At,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Connections that are open, by who calls whom
    Connections {
        #[command(flatten)]
        at: At,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Set what it logs, until it is replaced
    Log {
        #[command(flatten)]
        at: At,
        /// A filter such as info, or weft_node_proxy=debug,info
        filter: String,
    },
}

#[derive(Debug, clap::Args)]
struct At {
    /// A node, or a pod as NAMESPACE/NAME whose node's proxy is meant
    #[arg(value_name = "NODE|NAMESPACE/POD")]
    at: String,
}

/// Asks and prints.
pub async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    match &args.ask {
        Ask::Config { at, output } => {
            let page = ask(session, &at.at, http::Method::GET, "/config_dump").await?;
            let dump: Value = serde_json::from_str(&page).context("the proxy's configuration")?;
            print(*output, &Config(&dump))?;
        }
        Ask::Certs { at, output } => print(*output, &Certs::of(&metrics(session, &at.at).await?))?,
        Ask::Connections { at, output } => print(*output, &Connections::of(&metrics(session, &at.at).await?))?,
        Ask::Log { at, filter } => {
            if !filter.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=,:-.".contains(&b)) {
                bail!("{filter:?} is no filter: write info, or weft_node_proxy=debug,info");
            }
            ask(session, &at.at, http::Method::POST, &format!("/logging?level={filter}")).await?;
            println!("the proxy of {} logs {filter} until it is replaced", at.at);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration of the proxy of a node, or of that of a pod's node.
///
/// # Errors
/// When it can't be reached, or is of a version whose configuration can't be read.
pub async fn snapshot(session: &Session, at: &str) -> anyhow::Result<Snapshot> {
    let bytes = ask_bytes(session, at, http::Method::GET, "/config").await?;
    from_bytes(&bytes).context("the proxy's configuration")
}

async fn metrics(session: &Session, at: &str) -> anyhow::Result<Metrics> {
    Ok(Metrics::parse(&ask(session, at, http::Method::GET, "/metrics").await?))
}

async fn ask(session: &Session, at: &str, method: http::Method, page: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&ask_bytes(session, at, method, page).await?).into_owned())
}

async fn ask_bytes(session: &Session, at: &str, method: http::Method, page: &str) -> anyhow::Result<Bytes> {
    let own = session.own_pods().await?;
    let node = match at.split_once('/') {
        None => at.to_owned(),
        Some((namespace, name)) => {
            let api: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
            let pod = super::read::within("pods", api.get_opt(name)).await?;
            let pod = pod.with_context(|| format!("there is no pod {at}"))?;
            node_of(&pod).to_owned()
        }
    };
    let pod = proxy_of(&own, &node).map_err(anyhow::Error::msg)?;
    let answer = tokio::time::timeout(PATIENCE, forward(session, pod, method, page)).await;
    answer
        .with_context(|| format!("pod {pod}: no answer within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("pod {pod}"))
}

/// The pod of a node's proxy: the newest that is ready, since in an upgrade there are two.
fn proxy_of<'a>(own: &'a [Pod], node: &str) -> Result<&'a str, String> {
    let proxies: Vec<_> = own.iter().filter(|pod| component_of(pod) == Some("weft-node-proxy")).collect();
    let here = proxies.iter().filter(|pod| node_of(pod) == node);
    let made = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    match here.max_by_key(|pod| (is_ready(pod), made(pod))) {
        Some(pod) => Ok(name_of(&pod.metadata)),
        None if node.is_empty() => Err("that pod has no node yet".to_owned()),
        None => {
            let nodes: Vec<_> = proxies.iter().map(|pod| node_of(pod)).collect();
            let place = own.first().map_or("the mesh's namespace", |pod| namespace_of(&pod.metadata));
            Err(format!(
                "no proxy on node {node}: {place} has them on {}",
                if nodes.is_empty() { "no node".to_owned() } else { nodes.join(", ") }
            ))
        }
    }
}

/// All proxies that run: what each is called for people, its namespace and its pod. First those of the nodes, then those of
/// Gateways, which are not listed where one may not list pods of all namespaces.
///
/// # Errors
/// When the mesh's pods can't be listed.
pub async fn all(session: &Session) -> anyhow::Result<Vec<(String, String, String)>> {
    let own = session.own_pods().await?;
    let of_nodes = own.iter().filter(|pod| component_of(pod) == Some("weft-node-proxy"));
    let mut found: Vec<_> = of_nodes.filter(|pod| runs(pod)).map(|pod| named(pod, "node", node_of(pod))).collect();
    if let Ok(pods) = gateway_pods(session).await {
        let serving = pods.iter().filter(|pod| runs(pod));
        found.extend(serving.map(|pod| {
            let name = format!("{}/{}", namespace_of(&pod.metadata), name_of(&pod.metadata));
            named(pod, "gateway", &name)
        }));
    }
    found.sort();
    Ok(found)
}

/// The pods of Gateways in all namespaces.
pub(super) async fn gateway_pods(session: &Session) -> Read<Vec<Pod>> {
    let api: Api<Pod> = Api::all(session.client.clone());
    let (name, value) = MANAGED_BY;
    let params = ListParams::default().labels(&format!("{name}={value}"));
    super::read::within("pods of Gateways", api.list(&params)).await.map(|list| list.items)
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn named(pod: &Pod, what: &str, name: &str) -> (String, String, String) {
    let meta = &pod.metadata;
    (format!("{what} {name}"), namespace_of(meta).to_owned(), name_of(meta).to_owned())
}

/// A page of the admin server of a pod's proxy.
///
/// # Errors
/// When it can't be reached, or doesn't answer with the page.
pub async fn page_of(session: &Session, namespace: &str, pod: &str, page: &str) -> anyhow::Result<Bytes> {
    forward_to(session, (namespace, pod), http::Method::GET, page).await
}

async fn forward(session: &Session, pod: &str, method: http::Method, page: &str) -> anyhow::Result<Bytes> {
    forward_to(session, (&session.mesh, pod), method, page).await
}

async fn forward_to(
    session: &Session,
    (namespace, pod): (&str, &str),
    method: http::Method,
    page: &str,
) -> anyhow::Result<Bytes> {
    let api: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
    let mut forwarder = api
        .portforward(pod, &[ADMIN])
        .await
        .context("cannot forward its admin port (needs get and create on pods/portforward)")?;
    let stream = forwarder.take_stream(ADMIN).context("no stream")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request =
        http::Request::builder().method(method).uri(page).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("its admin server doesn't answer")?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    driver.abort();
    forwarder.abort();
    if !status.is_success() {
        bail!("it answers {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}

/// A configuration dump, of which a person gets a summary.
#[derive(Serialize)]
#[serde(transparent)]
struct Config<'a>(&'a Value);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

impl fmt::Display for Config<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |field: &str| self.0.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let rows = list("services").iter().flat_map(|service| {
            let ports = service.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            ports.iter().map(move |port| {
                let endpoints = port.get("endpoints").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let ready = endpoints.iter().filter(|e| text(e, "health").eq_ignore_ascii_case("ready")).count();
                let number = port.get("port").map(ToString::to_string).unwrap_or_default();
                vec![
                    text(service, "service").to_owned(),
                    number,
                    text(port, "protocol").to_owned(),
                    format!("{ready}/{}", endpoints.len()),
                ]
            })
        });
        write!(f, "services\n{}", table(&["SERVICE", "PORT", "PROTOCOL", "ENDPOINTS READY"], rows))?;
        let rows = list("rules").iter().map(|rule| {
            let parents = rule.get("parents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let parents: Vec<_> = parents.iter().filter_map(Value::as_str).collect();
            vec![text(rule, "rule").to_owned(), parents.join(", "), text(rule, "invalid").to_owned()]
        });
        write!(f, "\nrules\n{}", table(&["RULE", "PARENTS", "INVALID"], rows))?;
        let count = |field: &str| list(field).len();
        let (workloads, policies, modes) = (count("workloads"), count("authorizationPolicies"), count("meshPolicies"));
        writeln!(
            f,
            "\n{workloads} workloads, {policies} authorization policies, {modes} mesh policies; all of it with -o json"
        )
    }
}

/// Certificates.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Certs {
    certificates: Vec<Cert>,
}

/// One identity's certificate.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Cert {
    identity: String,
    /// `2026-11-21T10:00:00Z`; `None`: there is none.
    until: Option<String>,
    /// Attempts to get a new one that failed since the last that didn't.
    failures: u64,
}

impl Certs {
    fn of(metrics: &Metrics) -> Self {
        let failures = |identity: &str| {
            let mut of = metrics.of("weft_certificate_renewal_failures").filter(|s| s.label("identity") == identity);
            of.next().map_or(0, |s| s.value as u64)
        };
        let certificates = metrics.of("weft_certificate_expiry_timestamp_seconds").map(|sample| Cert {
            identity: sample.label("identity").to_owned(),
            until: (sample.value >= 1.0)
                .then(|| moment(SystemTime::UNIX_EPOCH + Duration::from_secs(sample.value as u64))),
            failures: failures(sample.label("identity")),
        });
        Self { certificates: certificates.collect() }
    }
}

impl fmt::Display for Certs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.certificates.iter().map(|c| {
            vec![c.identity.clone(), c.until.clone().unwrap_or_else(|| "none".to_owned()), c.failures.to_string()]
        });
        write!(f, "{}", table(&["IDENTITY", "UNTIL", "FAILURES SINCE"], rows))
    }
}

/// Connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Connections {
    /// On the whole node.
    open: u64,
    limit: u64,
    tunnels: u64,
    /// By who calls whom.
    connections: Vec<Connection>,
}

/// Connections of one pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Connection {
    direction: &'static str,
    source: String,
    destination: String,
    service: String,
    security: String,
    open: u64,
}

impl Connections {
    fn of(metrics: &Metrics) -> Self {
        let sum = |name: &str| metrics.of(name).map(|s| s.value).sum::<f64>() as u64;
        let open = metrics.of("weft_tcp_connections").filter(|s| s.value >= 1.0);
        let connections = open.map(|s| {
            let end = |side: &str| {
                format!("{}/{}", s.label(&format!("{side}_namespace")), s.label(&format!("{side}_workload")))
            };
            let service = match s.label("destination_service") {
                "" => String::new(),
                name => format!("{name}.{}:{}", s.label("destination_service_namespace"), s.label("destination_port")),
            };
            Connection {
                direction: if s.label("reporter") == "source" { "out" } else { "in" },
                source: end("source"),
                destination: end("destination"),
                service,
                security: s.label("connection_security").to_owned(),
                open: s.value as u64,
            }
        });
        let mut connections: Vec<_> = connections.collect();
        connections.sort_by_key(|c| std::cmp::Reverse(c.open));
        Self {
            open: sum("weft_node_connections"),
            limit: sum("weft_node_connections_limit"),
            tunnels: sum("weft_tunnels"),
            connections,
        }
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.connections.iter().map(|c| {
            let open = c.open.to_string();
            vec![
                c.direction.to_owned(),
                c.source.clone(),
                c.destination.clone(),
                c.service.clone(),
                c.security.clone(),
                open,
            ]
        });
        write!(f, "{}", table(&["WAY", "FROM", "TO", "SERVICE", "SECURITY", "OPEN"], rows))?;
        writeln!(f, "\n{} open of {} at most, {} tunnels", self.open, self.limit, self.tunnels)
    }
}

#[cfg(test)]
#[path = "tests/proxy.rs"]
mod tests;
