//! `weft-ca`: the certificate authority as a process of its own.

#![allow(missing_docs, reason = "a binary has no API")]

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::Deserialize;
use tokio::net::TcpListener;
use weft_ca::kubernetes::{self, ClusterSettings, Replica, RootSource};
use weft_ca::{
    Authority, AuthoritySettings, AuthorityStatus, Bindings, CaService, Caller, DnsName, ServerIdentity,
    ServiceSettings, StaticTokens, dns_name,
};
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_core::ids::{Name, Namespace, NodeName, ServiceAccount};
use weft_metrics::Component;
use weft_tls::Clock;

/// The certificate authority of a Weft mesh.
#[derive(Parser)]
#[command(name = "weft-ca", version)]
struct Cli {
    /// What is logged: a level, or directives such as `warn,weft_ca=debug`.
    #[arg(long, env = "WEFT_LOG", default_value = "info", global = true)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Issue certificates and serve the trust bundle.
    Serve(Box<Serve>),
    /// Print the roots and where a rotation stands.
    Show(Place),
    /// Take a step of a root rotation: in a directory while no server has it open; in a cluster by an order to the
    /// replica that leads.
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
    #[arg(long, required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    dir: Option<PathBuf>,
    /// The authority is in a Kubernetes cluster: its state is Secret weft-ca, its roots are in ConfigMap weft-trust.
    #[arg(long)]
    kubernetes: bool,
    /// The namespace of the mesh, in a cluster.
    #[arg(long, short, env = "POD_NAMESPACE", default_value = "weft-system")]
    namespace: Namespace,
    /// The trust domain the authority speaks for.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// Another name that counts as the trust domain and is issued under if asked for, while that is changed; may be repeated.
    #[arg(long = "trust-domain-alias")]
    trust_domain_aliases: Vec<TrustDomain>,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// The directory holds ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem made elsewhere.
    #[arg(long, conflicts_with = "kubernetes")]
    cacerts: bool,
    /// Where to listen.
    #[arg(long, default_value = "[::]:15012")]
    listen: SocketAddr,
    /// The identity this server answers as, `namespace/name`; by default weft-ca of the mesh's namespace.
    #[arg(long)]
    service_account: Option<Account>,
    /// A DNS name that this server's certificate also carries, for agents that know servers by name, such as Istio's;
    /// may be repeated.
    #[arg(long = "dns-name", value_parser = dns_name)]
    dns_names: Vec<DnsName<'static>>,
    /// With --dir, a JSON file of callers: `[{"token_sha256": "<hex>", "node": "n1", "identities": ["spiffe://..."]},
    /// {"token_sha256": "<hex>", "workload": "spiffe://..."}]`.
    #[arg(long, required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    callers: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// For --kubernetes.
#[derive(Args)]
struct ClusterArgs {
    /// The name of this replica.
    #[arg(long, env = "POD_NAME", requires = "kubernetes")]
    replica: Option<String>,
    /// The CA certificates come from this Secret of type kubernetes.io/tls: an intermediate CA in tls.crt and tls.key,
    /// its roots in ca.crt, as cert-manager makes it. It is read again when it is renewed.
    #[arg(long, requires = "kubernetes", conflicts_with = "cacerts_secret")]
    issuer_secret: Option<Name>,
    /// The CA certificates come from this Secret in Istio's layout, usually `cacerts`: ca-cert.pem, ca-key.pem,
    /// cert-chain.pem and root-cert.pem.
    #[arg(long, requires = "kubernetes")]
    cacerts_secret: Option<Name>,
    /// An audience that callers' tokens may have besides `weft`; may be repeated. Istio's agents use `istio-ca`.
    #[arg(long = "audience", requires = "kubernetes")]
    audiences: Vec<String>,
    /// A ServiceAccount of node proxies, `namespace/name`, which may ask for the identities of their node's pods, besides
    /// weft-node-proxy of the mesh's namespace; may be repeated.
    #[arg(long = "node-account", requires = "kubernetes")]
    node_accounts: Vec<Account>,
    /// Where health and metrics are served: /healthz, /readyz, /metrics.
    #[arg(long, default_value = "[::]:15014", requires = "kubernetes")]
    health: SocketAddr,
}

#[derive(Clone)]
struct Account(Namespace, ServiceAccount);

impl std::str::FromStr for Account {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(namespace.into(), name.into()))
            }
            _ => bail!("expected namespace/name"),
        }
    }
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
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log).with_context(|| format!("--log {}", cli.log))?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    match cli.command {
        Command::Serve(serve) if serve.place.kubernetes => serve_cluster(*serve).await,
        Command::Serve(serve) => serve_directory(*serve).await,
        Command::Show(place) if place.kubernetes => show_cluster(&place).await,
        Command::Show(place) => show(&place.trust_domain, open(&place)?.status()?),
        Command::Rotate { place, step } if place.kubernetes => {
            let step = match step {
                Step::Start => weft_ca::Step::Start,
                Step::Advance => weft_ca::Step::Advance,
            };
            let answer = kubernetes::rotate(&weft_kube::client().await?, &place.namespace, step).await?;
            eprintln!("{answer}");
            show_cluster(&place).await
        }
        Command::Rotate { place, step } => {
            let authority = open(&place)?;
            match step {
                Step::Start => authority.start_rotation()?,
                Step::Advance => authority.advance_rotation()?,
            };
            show(&place.trust_domain, authority.status()?)
        }
    }
}

impl Place {
    fn settings(&self) -> AuthoritySettings {
        AuthoritySettings::new(TrustDomains::new(self.trust_domain.clone(), self.trust_domain_aliases.iter().cloned()))
    }

    fn dir(&self) -> anyhow::Result<&Path> {
        self.dir.as_deref().context("--dir or --kubernetes")
    }
}

fn open(place: &Place) -> anyhow::Result<Authority> {
    Ok(Authority::open(place.dir()?, place.settings(), Clock::system())?)
}

async fn show_cluster(place: &Place) -> anyhow::Result<()> {
    let (trust_domain, status) = kubernetes::show(&weft_kube::client().await?, &place.namespace).await?;
    show(&trust_domain, status)
}

fn show(trust_domain: &TrustDomain, status: AuthorityStatus) -> anyhow::Result<()> {
    println!("trust domain  {trust_domain}");
    println!("stage         {}", status.stage);
    println!("generation    {}", status.generation);
    for root in status.roots {
        println!("root          {root}");
    }
    let date = |at: std::time::SystemTime| time::OffsetDateTime::from(at).date();
    println!("root ends     {}", date(status.root_not_after));
    println!("intermediate  {}", date(status.intermediate_not_after));
    Ok(())
}

impl Serve {
    fn identity(&self) -> ServerIdentity {
        let own = || Account(self.place.namespace.clone(), "weft-ca".into());
        let Account(namespace, name) = self.service_account.clone().unwrap_or_else(own);
        let identity = SpiffeId::new(self.place.trust_domain.clone(), namespace, name);
        ServerIdentity { identity, dns_names: self.dns_names.clone() }
    }

    async fn listen(&self) -> anyhow::Result<TcpListener> {
        let listener = weft_control::bind(self.listen).await.with_context(|| format!("--listen {}", self.listen))?;
        tracing::info!(address = %listener.local_addr()?, identity = %self.identity().identity, "serving");
        Ok(listener)
    }

    fn cluster(&self) -> ClusterSettings {
        let ClusterArgs { replica, issuer_secret, cacerts_secret, audiences, node_accounts, .. } = &self.cluster;
        let namespace = self.place.namespace.clone();
        let source = match (issuer_secret, cacerts_secret) {
            (Some(name), _) => RootSource::Issuer(name.clone()),
            (None, Some(name)) => RootSource::Cacerts(name.clone()),
            (None, None) => RootSource::Own,
        };
        // Whoever adds to these must not cut the mesh's own off.
        let own = (namespace.clone(), "weft-node-proxy".into());
        let more = node_accounts.iter().map(|Account(ns, name)| (ns.clone(), name.clone()));
        let nodes = std::iter::once(own).chain(more).collect();
        let audiences = std::iter::once("weft".to_owned()).chain(audiences.iter().cloned()).collect();
        // Outside a pod, a name that no other process on this machine has.
        let replica = replica.clone().unwrap_or_else(|| format!("weft-ca-process-{}", std::process::id()));
        let authority = self.place.settings();
        ClusterSettings { namespace, replica, source, authority, audiences, node_accounts: nodes }
    }
}

async fn serve_directory(serve: Serve) -> anyhow::Result<()> {
    let (dir, settings) = (serve.place.dir()?, serve.place.settings());
    let authority = Arc::new(if serve.cacerts {
        Authority::from_cacerts(dir, settings, Clock::system())?
    } else {
        Authority::open(dir, settings, Clock::system())?
    });
    let callers_file = serve.callers.as_deref().context("--callers")?;
    let (tokens, bindings) = callers(callers_file, authority.trust_domains())?;
    let rotation = tokio::spawn({
        let authority = Arc::clone(&authority);
        async move { authority.run().await }
    });
    let service =
        CaService::new(Arc::clone(&authority), Arc::new(tokens), Arc::new(bindings), ServiceSettings::default());
    weft_ca::serve(serve.listen().await?, authority, serve.identity(), service, stopped()).await?;
    rotation.abort();
    Ok(())
}

async fn serve_cluster(serve: Serve) -> anyhow::Result<()> {
    let prometheus = PrometheusBuilder::new().install_recorder().context("metrics")?;
    weft_metrics::describe(Component::Ca);
    let client = weft_kube::client().await?;
    let replica = Replica::start(&client, serve.cluster(), Clock::system());
    let health = weft_control::bind(serve.cluster.health).await;
    let health = health.with_context(|| format!("--health {}", serve.cluster.health))?;
    let health = tokio::spawn(weft_kube::health::serve_on(health, replica.missing(), (Component::Ca, prometheus)));
    let serving = async {
        // Once it serves, the server hears the signal and ends its calls first.
        let authority = tokio::select! {
            authority = replica.authority() => authority,
            () = stopped() => return Ok(()),
        };
        let settings = ServiceSettings::default();
        let service = CaService::new(Arc::clone(&authority), replica.reviews(), replica.bindings(), settings);
        weft_ca::serve(serve.listen().await?, authority, serve.identity(), service, stopped()).await?;
        anyhow::Ok(())
    };
    let done = tokio::select! {
        done = serving => done,
        () = replica.failed() => Err(anyhow::anyhow!("the replica has stopped to follow the cluster; its log says why")),
        failed = health => failed.map_err(anyhow::Error::from).and_then(|served| served.context("--health")),
    };
    replica.leave().await;
    done
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

fn callers(path: &Path, domains: &TrustDomains) -> anyhow::Result<(StaticTokens, Bindings)> {
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
                caller.identities.iter().for_each(|identity| bindings.bind(&node, &domains.normal(identity)));
                Caller::Node(node)
            }
            (None, Some(workload)) if caller.identities.is_empty() => Caller::Workload(domains.normal(&workload)),
            _ => bail!("--callers: each entry has either node and identities, or workload"),
        };
        tokens.accept_hash(*hash.as_bytes(), who);
    }
    Ok((tokens, bindings))
}
