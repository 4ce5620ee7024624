//! `weft status`: what a node of a standalone mesh is and does, asked over a socket in its run directory.

mod view;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use weft_ca::Authority;
use weft_cni::agent::LocalPod;
use weft_controller::standalone::Bound;
use weft_core::identity::TrustDomain;
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_tls::{RootHash, TrustStore};

use self::view::{AuthorityView, ListenerView, PodView, ServiceView, Status};
use super::access::NodeAccess;
use super::supervisor::Proxies;
use crate::Output;

/// What the parts of a node that is not up yet leave to show.
#[derive(Default)]
pub struct Shared {
    primary: Mutex<Option<PrimaryParts>>,
    node: Mutex<Option<NodeParts>>,
    findings: Mutex<Vec<String>>,
}

struct PrimaryParts {
    access: Arc<NodeAccess>,
    authority: Arc<Authority>,
    bound: watch::Receiver<Bound>,
}

/// What a node shows.
pub struct NodeParts {
    /// Its name.
    pub node: NodeName,
    /// Its primary.
    pub primary: String,
    /// Its pods.
    pub pods: watch::Receiver<Arc<[LocalPod]>>,
    /// Its configuration.
    pub snapshot: Arc<dyn Fn() -> Arc<Snapshot> + Send + Sync>,
    /// Its proxies.
    pub proxies: watch::Receiver<Proxies>,
    /// The mesh's roots.
    pub trust: TrustStore,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
}

impl Shared {
    /// This is a primary, where so much is bound of the listeners of Gateways.
    pub fn set_primary(&self, access: Arc<NodeAccess>, authority: Arc<Authority>, bound: watch::Receiver<Bound>) {
        *self.primary.lock() = Some(PrimaryParts { access, authority, bound });
    }

    /// The node is up.
    pub fn set_node(&self, parts: NodeParts) {
        *self.node.lock() = Some(parts);
    }

    /// What is wrong with the manifests.
    pub fn set_findings(&self, findings: Vec<String>) {
        *self.findings.lock() = findings;
    }

    fn status(&self) -> Option<Status> {
        let guard = self.node.lock();
        let node = guard.as_ref()?;
        let snapshot = (node.snapshot)();
        let pods = node.pods.borrow().iter().map(PodView::of).collect();
        let roots =
            node.trust.current().bundle.roots(&node.trust_domain).iter().map(|r| RootHash::of(r).to_string()).collect();
        let primary = self.primary.lock();
        let nodes = primary.as_ref().map_or_else(BTreeMap::new, |p| p.access.nodes());
        let bound = primary.as_ref().map_or_else(Bound::new, |p| p.bound.borrow().clone());
        Some(Status {
            node: node.node.to_string(),
            role: if primary.is_some() { "primary" } else { "member" }.to_owned(),
            primary: node.primary.clone(),
            trust_domain: node.trust_domain.to_string(),
            roots,
            authority: primary.as_ref().and_then(|p| AuthorityView::of(&p.authority)),
            proxies: node.proxies.borrow().clone(),
            nodes: nodes.into_iter().map(|(name, view)| (name.to_string(), view)).collect(),
            pods,
            services: ServiceView::all(&snapshot),
            listeners: ListenerView::all(&snapshot, &bound),
            findings: self.findings.lock().clone(),
        })
    }
}

/// Answers at a socket, which exists when this returns, until it fails.
///
/// # Errors
/// When the socket can't be made.
pub fn serve(socket: &Path, shared: Arc<Shared>) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let listener = bind(socket).with_context(|| socket.display().to_string())?;
    Ok(answer_all(listener, shared))
}

async fn answer_all(listener: UnixListener, shared: Arc<Shared>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(answer(&shared, &request)));
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!("a status connection ended: {error}");
            }
        });
    }
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    // The lock of the state directory says that whoever made it is gone.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, http::Error> {
    let (code, body) = match (request.uri().path(), shared.status()) {
        ("/status", Some(status)) => (StatusCode::OK, serde_json::to_vec(&status).unwrap_or_default()),
        ("/status", None) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    };
    Response::builder().status(code).body(Full::new(body.into()))
}

/// Which node to ask.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The directory of sockets of a node without Kubernetes [default: /run/weft]
    #[arg(long, env = "WEFT_RUN", value_name = "DIR")]
    run: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

impl StatusArgs {
    fn socket(&self) -> PathBuf {
        self.run.as_deref().unwrap_or(Path::new("/run/weft")).join("status.sock")
    }

    /// Whether a node of a mesh without Kubernetes is meant: it was named, or is here.
    pub fn is_standalone(&self) -> bool {
        self.run.is_some() || self.socket().exists()
    }
}

/// Prints the status; fails if something needs attention.
///
/// # Errors
/// When no node answers.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let socket = args.socket();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime
        .block_on(ask(&socket))
        .with_context(|| format!("no answer at {}: is `weft standalone` running with this --run?", socket.display()))?;
    let status: Status = serde_json::from_slice(&body)?;
    print!("{}", args.output.show(&status)?);
    Ok(if status.trouble().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What needs attention, as the node with this directory of sockets says.
///
/// # Errors
/// It doesn't answer.
pub async fn trouble(run: &Path) -> anyhow::Result<Vec<String>> {
    let status: Status = serde_json::from_slice(&ask(&run.join("status.sock")).await?)?;
    Ok(status.trouble())
}

async fn ask(socket: &Path) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/status").header("host", "weft").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        bail!("the node is still starting");
    }
    Ok(response.into_body().collect().await?.to_bytes())
}
