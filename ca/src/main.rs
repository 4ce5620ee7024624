//! `weft-ca`: the certificate authority as a process of its own.

#![allow(missing_docs, reason = "a binary has no API")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use tokio::runtime::Handle;
use weft_ca::{
    Authority, AuthoritySettings, Bindings, CaService, Caller, DnsName, ServerSource, ServiceSettings, StaticTokens,
    control_incoming, dns_name,
};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::NodeName;
use weft_tls::{CertManager, CertStore, Clock, ControlServer, ManagerSettings, TlsSettings};

/// The certificate authority of a Weft mesh.
#[derive(Parser)]
#[command(name = "weft-ca", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Issue certificates and serve the trust bundle.
    Serve(Serve),
    /// Print the roots and where a rotation stands.
    Show(Place),
    /// Take a step of a root rotation (while no server has the directory open).
    Rotate {
        #[command(flatten)]
        place: Place,
        /// `start` publishes a new root; `advance` takes the next step ahead of its time.
        #[arg(value_enum)]
        step: Step,
    },
}

#[derive(Args)]
struct Place {
    /// The authority's directory; it is made, with a new root, if it does not exist.
    #[arg(long)]
    dir: PathBuf,
    /// The trust domain the authority speaks for.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: TrustDomain,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// The directory holds ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem made elsewhere.
    #[arg(long)]
    cacerts: bool,
    /// Where to listen.
    #[arg(long, default_value = "[::]:15012")]
    listen: SocketAddr,
    /// The identity this server answers as.
    #[arg(long, default_value = "weft-system/weft-ca")]
    service_account: String,
    /// A DNS name that this server's certificate also carries, for agents that know servers by name, such as Istio's;
    /// may be repeated.
    #[arg(long = "dns-name", value_parser = dns_name)]
    dns_names: Vec<DnsName<'static>>,
    /// A JSON file of callers: `[{"token_sha256": "<hex>", "node": "n1", "identities": ["spiffe://..."]},
    /// {"token_sha256": "<hex>", "workload": "spiffe://..."}]`.
    #[arg(long)]
    callers: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    Start,
    Advance,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownCaller {
    token_sha256: String,
    node: Option<String>,
    #[serde(default)]
    identities: Vec<SpiffeId>,
    workload: Option<SpiffeId>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Serve(serve) => run(serve).await,
        Command::Show(place) => show(&open(&place)?),
        Command::Rotate { place, step } => {
            let authority = open(&place)?;
            match step {
                Step::Start => authority.start_rotation()?,
                Step::Advance => authority.advance_rotation()?,
            };
            show(&authority)
        }
    }
}

fn open(place: &Place) -> anyhow::Result<Authority> {
    Ok(Authority::open(&place.dir, AuthoritySettings::new(place.trust_domain.clone()), Clock::system())?)
}

fn show(authority: &Authority) -> anyhow::Result<()> {
    let status = authority.status()?;
    println!("trust domain  {}", authority.trust_domain());
    println!("stage         {:?}", status.stage);
    println!("generation    {}", status.generation);
    for root in status.roots {
        println!("root          {root}");
    }
    let date = |at: std::time::SystemTime| time::OffsetDateTime::from(at).date();
    println!("root ends     {}", date(status.root_not_after));
    println!("intermediate  {}", date(status.intermediate_not_after));
    Ok(())
}

async fn run(serve: Serve) -> anyhow::Result<()> {
    let settings = AuthoritySettings::new(serve.place.trust_domain.clone());
    let authority = Arc::new(if serve.cacerts {
        Authority::from_cacerts(&serve.place.dir, settings, Clock::system())?
    } else {
        Authority::open(&serve.place.dir, settings, Clock::system())?
    });
    let (tokens, bindings) = callers(&serve.callers)?;
    let (namespace, name) = serve.service_account.split_once('/').context("--service-account: namespace/name")?;
    let own = SpiffeId::new(serve.place.trust_domain, namespace, name);

    let store = CertStore::new(authority.trust().clone(), Clock::system(), TlsSettings::default());
    let source = Arc::new(ServerSource { authority: authority.clone(), dns_names: serve.dns_names });
    let manager = CertManager::new(store.clone(), source, ManagerSettings::default(), Handle::current());
    let lease = manager.lease(&own);
    lease.ready(Duration::from_secs(10)).await?;

    let listener = tokio::net::TcpListener::bind(serve.listen).await.context("--listen")?;
    tracing::info!(address = %listener.local_addr()?, identity = %own, "serving");
    let rotation = tokio::spawn({
        let authority = authority.clone();
        async move { authority.run().await }
    });
    let service = CaService::new(authority, Arc::new(tokens), Arc::new(bindings), ServiceSettings::default());
    let incoming = control_incoming(listener, ControlServer::for_identity(&store, &own)?);
    tonic::transport::Server::builder()
        .add_service(service.weft())
        .add_service(service.istio())
        .serve_with_incoming_shutdown(incoming, stopped())
        .await?;
    rotation.abort();
    Ok(())
}

/// Ends when the process is asked to.
async fn stopped() {
    let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn callers(path: &Path) -> anyhow::Result<(StaticTokens, Bindings)> {
    let text = std::fs::read(path).with_context(|| format!("--callers {}", path.display()))?;
    let known: Vec<KnownCaller> =
        serde_json::from_slice(&text).with_context(|| format!("--callers {}", path.display()))?;
    let (tokens, bindings) = (StaticTokens::default(), Bindings::default());
    for caller in known {
        let hash = format!("sha256:{}", caller.token_sha256).parse::<weft_tls::RootHash>();
        let hash = hash.context("--callers: token_sha256 is 64 hexadecimal digits")?;
        let who = match (caller.node, caller.workload) {
            (Some(node), None) => {
                let node = NodeName::new(node);
                caller.identities.iter().for_each(|identity| bindings.bind(&node, identity));
                Caller::Node(node)
            }
            (None, Some(workload)) if caller.identities.is_empty() => Caller::Workload(workload),
            _ => bail!("--callers: each entry has either node and identities, or workload"),
        };
        tokens.accept_hash(*hash.as_bytes(), who);
    }
    Ok((tokens, bindings))
}
