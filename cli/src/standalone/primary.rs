//! The primary: manifests, authority, and the services for nodes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use weft_ca::{Authority, AuthoritySettings, CaService, ServerSource, ServiceSettings, control_incoming};
use weft_controller::standalone::{Manifests, NodeService, Primary, PrimaryHandle, PrimarySettings, Tokens};
use weft_core::change::MeshConfig;
use weft_core::identity::TrustDomain;
use weft_k8s::index::IndexConfig;
use weft_k8s::object::StatusUpdate;
use weft_k8s::parse::{Finding, Severity};
use weft_k8s::source::dir::{DirOptions, DirSource, Scan};
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};
use weft_tls::{CertManager, CertStore, Clock, ControlServer, ManagerSettings, RootHash, TlsSettings, check_key_pair};
use weft_xds::server::Server;

use super::access::{BoundPods, NodeAccess, NodeTokens};
use super::files::Credentials;
use super::node::Home;
use super::primary_identity;
use super::settings::Args;
use super::status::Shared;

/// Batches of manifests that may wait.
const BATCHES: usize = 4;

/// Starts everything of a primary that is not its own node. When this returns, nodes can connect, and what they get is
/// whole: the manifests have been read.
pub async fn start(args: &Arc<Args>, dir: &Path, status: &Arc<Shared>) -> anyhow::Result<Home> {
    let settings = AuthoritySettings::new(args.trust_domains(TrustDomain::default()));
    let authority = Arc::new(Authority::open(&args.state.join("ca"), settings, Clock::system())?);
    let tokens = Arc::new(Tokens::open(&args.state).context("tokens")?);
    let handle = manifests(args, dir, status).await?;

    let listener = weft_control::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    let address = listener.local_addr()?;
    let node = args.node_name()?;
    let access = Arc::new(NodeAccess::new(Arc::clone(&tokens), node.clone(), &handle));
    let source = ServerSource { authority: Arc::clone(&authority), dns_names: args.ca_dns_names.clone() };
    let services = Services { authority: &authority, tokens: &tokens, handle: &handle, access: &access };
    serve(listener, source, services).await?;
    tokio::spawn({
        let authority = Arc::clone(&authority);
        async move { authority.run().await }
    });

    let credentials = Credentials::below(&args.state);
    let domain = authority.trust_domain();
    let pem = authority.trust().current().bundle.to_pem(domain);
    credentials.write(&tokens.issue(&node)?, &pem, domain.as_str()).context("this node's credentials")?;
    status.set_primary(access, Arc::clone(&authority), handle.bound.clone());
    let roots: Vec<_> = authority.bundle().roots.iter().map(|root| RootHash::of(root).to_string()).collect();
    tracing::info!(%address, root_hash = roots.first(), "other nodes join with: weft standalone --join ADDRESS:{} --token \
        \"$(weft token --state {})\" --root-hash ...", address.port(), args.state.display());
    let (trust, trust_domain) = (authority.trust().clone(), domain.clone());
    let snapshot = handle.snapshot.clone();
    let snapshot = Arc::new(move || snapshot.load_full());
    Ok(Home { node, primary: reachable(address), credentials, trust, snapshot, trust_domain })
}

/// The address that this machine reaches its own listener at.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // Listening on [::] takes both families unless the machine is told otherwise.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port()).to_string()
}

struct Services<'a> {
    authority: &'a Arc<Authority>,
    tokens: &'a Arc<Tokens>,
    handle: &'a PrimaryHandle,
    access: &'a Arc<NodeAccess>,
}

async fn serve(listener: TcpListener, source: ServerSource, services: Services<'_>) -> anyhow::Result<()> {
    let Services { authority, tokens, handle, access } = services;
    let own = primary_identity(authority.trust_domain());
    let store = CertStore::new(authority.trust().clone(), Clock::system(), TlsSettings::default());
    let manager = CertManager::new(store.clone(), Arc::new(source), ManagerSettings::default(), Handle::current());
    let lease = manager.lease(&own);
    lease.ready(Duration::from_secs(10)).await.context("the primary's own certificate")?;
    let incoming = control_incoming(listener, ControlServer::for_identity(&store, &own)?);

    let authenticator = Arc::new(NodeTokens(Arc::clone(tokens)));
    let rule = Arc::new(BoundPods { primary: handle.clone(), own: access.own().clone() });
    let ca = CaService::new(Arc::clone(authority), authenticator, rule, ServiceSettings::default());
    let roots = {
        let authority = Arc::clone(authority);
        Arc::new(move || authority.bundle().roots.iter().map(|der| der.to_vec()).collect())
    };
    let router = tonic::transport::Server::builder()
        .add_service(ca.weft())
        .add_service(ca.istio())
        .add_service(NodeService::server(handle.clone(), Arc::clone(tokens), roots))
        .add_service(Server::service(handle.publisher.clone(), Arc::clone(access)));
    tokio::spawn(async move {
        // The lease keeps the server's own certificate fresh.
        let _lease = lease;
        if let Err(error) = router.serve_with_incoming(incoming).await {
            tracing::error!("the primary's services ended: {error}");
        }
    });
    Ok(())
}

/// How Gateways of the manifests are served: by this machine's proxy.
fn gateways(args: &Args) -> GatewaySettings {
    let addresses = if args.gateway_addresses.is_empty() {
        own_address().into_iter().collect()
    } else {
        args.gateway_addresses.clone()
    };
    GatewaySettings { place: Place::Machine { addresses }, check: KeyPairCheck(check_key_pair) }
}

/// The address that this machine has towards others, if it has one. Nothing is sent: the socket is only asked which
/// address it would have.
fn own_address() -> Option<IpAddr> {
    let towards = |from: IpAddr, to: IpAddr| {
        let socket = std::net::UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses for documentation (RFC 5737, RFC 3849): whatever way they have is the default one.
    towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        .or_else(|| towards(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
}

/// Starts the primary's task on the manifests; returns when they have been read and published.
async fn manifests(args: &Args, dir: &Path, status: &Arc<Shared>) -> anyhow::Result<PrimaryHandle> {
    let mesh = MeshConfig {
        trust_domains: args.trust_domains(TrustDomain::default()),
        cluster_domain: args.cluster_domain.clone(),
        cluster_ranges: args.service_ranges.iter().chain(&args.pod_ranges).copied().collect(),
        ..MeshConfig::default()
    };
    let settings = PrimarySettings {
        index: IndexConfig { mesh, gateways: Some(gateways(args)), ..IndexConfig::default() },
        service_ranges: args.service_ranges.clone(),
        state: args.state.clone(),
    };
    let (primary, handle) = Primary::open(settings).context("the state of Services and pods")?;
    let (sender, receiver) = mpsc::channel(BATCHES);
    let (updates, updated) = mpsc::unbounded_channel();
    tokio::spawn(primary.run(receiver, move |changed| {
        // The reader goes only with the process.
        let _ = updates.send(changed);
    }));
    let source = DirSource::new(DirOptions::new(dir, args.state.join("objects.json")));
    let reader = Reader { source, sender, updated, status: Arc::clone(status), said: BTreeSet::new() };
    let (published, first) = oneshot::channel();
    tokio::spawn(reader.run(published));
    first.await.context("the manifests could not be read")?;
    Ok(handle)
}

/// Reads the directory and writes statuses beside it.
struct Reader {
    source: DirSource,
    sender: mpsc::Sender<Manifests>,
    updated: mpsc::UnboundedReceiver<Vec<StatusUpdate>>,
    status: Arc<Shared>,
    /// Findings that are logged already.
    said: BTreeSet<String>,
}

impl Reader {
    async fn run(mut self, first: oneshot::Sender<()>) {
        let mut published = Some(first);
        loop {
            let scan = tokio::task::block_in_place(|| self.source.scan());
            self.report(&scan.findings);
            let Scan { applied, deleted, .. } = scan;
            let batch = Manifests { applied, deleted, published: published.take() };
            if batch.published.is_some() || !batch.applied.is_empty() || !batch.deleted.is_empty() {
                tracing::info!(applied = batch.applied.len(), deleted = batch.deleted.len(), "manifests changed");
                if self.sender.send(batch).await.is_err() {
                    return;
                }
            }
            loop {
                tokio::select! {
                    () = self.source.changed() => break,
                    Some(updates) = self.updated.recv() => {
                        tokio::task::block_in_place(|| self.source.write_statuses(&updates));
                    }
                }
            }
        }
    }

    fn report(&mut self, findings: &[Finding]) {
        let lines: BTreeSet<String> = findings.iter().map(ToString::to_string).collect();
        for (finding, line) in findings.iter().map(|f| (f, f.to_string())).filter(|(_, line)| !self.said.contains(line))
        {
            match finding.severity {
                Severity::Error => tracing::error!("{line}"),
                Severity::Warning => tracing::warn!("{line}"),
                Severity::Note => tracing::info!("{line}"),
            }
        }
        self.status.set_findings(lines.iter().cloned().collect());
        self.said = lines;
    }
}
