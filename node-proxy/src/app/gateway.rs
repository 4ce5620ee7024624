//! The proxy of one Gateway in a cluster: no agent, no pods, nobody to take over from. It listens on the Gateway's ports
//! in its own network namespace.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_core::identity::SpiffeId;
use weft_core::ids::{GatewayKey, Name, NodeName, ServiceAccount};
use weft_tls::{CertManager, CertStore, Clock, ManagerSettings, TlsSettings};

use super::settings::{duration, node_name, sizing, workers};
use super::{Sources, StartError, retain_telemetry, wait_until_idle};
use crate::budget::NodeBudget;
use crate::gateway::{Gateways, Progress};
use crate::identify::Pod;
use crate::inpod::Manager;
use crate::telemetry::ProcessMetrics;
use crate::worker::{Command, Limits, Node, WorkerHandle, Workers};

/// Settings of a Gateway's proxy.
#[derive(Clone, Debug, clap::Args)]
pub struct GatewayProxySettings {
    /// The Gateway that this process serves, NAMESPACE/NAME
    #[arg(long, env = "WEFT_GATEWAY", value_parser = gateway)]
    pub gateway: GatewayKey,
    /// The ServiceAccount of this pod, in the namespace of the Gateway: whose identity its connections carry
    #[arg(long, env = "WEFT_SERVICE_ACCOUNT", value_parser = account)]
    pub service_account: ServiceAccount,
    /// The name of this pod
    #[arg(long, env = "WEFT_POD_NAME", value_parser = pod_name)]
    pub pod: Name,
    /// The node that this pod is on, for endpoints nearby
    #[arg(long, env = "WEFT_NODE_NAME", value_parser = node_name)]
    pub node: NodeName,
    /// Threads that carry connections; 0: as many as the CPU limit gives
    #[arg(long, env = "WEFT_WORKERS", default_value_t = 0)]
    pub workers: usize,
    /// How long connections are still accepted after SIGTERM, not being ready any more: as long as load balancers take to
    /// learn that
    #[arg(long, env = "WEFT_LINGER", default_value = "10s", value_parser = duration)]
    pub linger: Duration,
    /// How long open connections may go on after that. On Kubernetes both together are less than the pod's
    /// terminationGracePeriodSeconds
    #[arg(long, env = "WEFT_DRAIN_DEADLINE", default_value = "25s", value_parser = duration)]
    pub drain_deadline: Duration,
    /// How long connecting may take
    #[arg(long, env = "WEFT_CONNECT_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// Closes connections without a byte for so long; none: never
    #[arg(long, env = "WEFT_IDLE_TIMEOUT", value_parser = duration)]
    pub idle_timeout: Option<Duration>,
    /// Most connections; 0: from the limits of descriptors and memory
    #[arg(long, env = "WEFT_MAX_CONNECTIONS", default_value_t = 0)]
    pub max_connections: u32,
    /// Addresses that hosts outside (XBackend) may have although they are this machine's, link-local, the cloud's metadata or
    /// the cluster's; more than once for several
    #[arg(long = "allow-external-range", env = "WEFT_ALLOW_EXTERNAL_RANGES", value_delimiter = ',')]
    pub allow_external_ranges: Vec<ipnet::IpNet>,
}

impl GatewayProxySettings {
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.connect_timeout.is_zero() {
            mistakes.push("--connect-timeout must be more than 0".to_owned());
        }
        if self.idle_timeout.is_some_and(|idle| idle < Duration::from_secs(1)) {
            mistakes.push("--idle-timeout must be 1s or more; leave it out for never".to_owned());
        }
        mistakes
    }

    /// How many workers to start.
    pub fn workers(&self) -> usize {
        workers(self.workers)
    }

    /// Times of connections. Nobody else's applications run in the limits of a Gateway's pod.
    pub fn limits(&self) -> Limits {
        let (connect, idle) = (self.connect_timeout, self.idle_timeout);
        Limits { connect, idle, handshakes_rest: false, ..Limits::default() }
    }
}

/// The proxy of one Gateway.
pub struct GatewayProxy {
    node: Arc<Node>,
    manager: Arc<Manager>,
    /// The Gateway itself: its certificate is kept fresh while this is held.
    source: Arc<Pod>,
    workers: Workers,
    telemetry: JoinHandle<()>,
    leaving: CancellationToken,
    settings: GatewayProxySettings,
}

impl GatewayProxy {
    /// Starts, and listens as the configuration says from now on; `progress` is told. Must be called on the control runtime.
    ///
    /// # Errors
    /// Threads that can't be made.
    pub fn start(settings: GatewayProxySettings, sources: Sources, progress: Progress) -> Result<Self, StartError> {
        let certificates = CertStore::new(sources.trust, Clock::system(), TlsSettings::default());
        let control = Handle::current();
        let identities = CertManager::new(certificates.clone(), sources.authority, ManagerSettings::default(), control);
        let gateway = &settings.gateway;
        let account = settings.service_account.as_str();
        let identity = SpiffeId::new(sources.trust_domain, gateway.namespace.as_str(), account);
        let sizing = sizing(settings.max_connections);
        let node = Arc::new(Node {
            name: settings.node.clone(),
            store: sources.store,
            certificates,
            budget: NodeBudget::new(sizing.max_connections, sizing.defaults),
            addresses: Vec::new(),
            gateways: Gateways::one(gateway.clone(), identity, identities.clone(), progress),
            limits: settings.limits(),
        });
        let source = node.gateways.source(&node, gateway);
        let workers = Workers::start(&node, &sources.engine, settings.workers())?;
        let manager = Arc::new(Manager::new(Arc::clone(&node), Arc::clone(workers.handles()), identities));
        let telemetry = tokio::spawn(retain_telemetry(Arc::clone(&node), Arc::clone(&manager), sources.engine));
        Ok(Self { node, manager, source, workers, telemetry, leaving: CancellationToken::new(), settings })
    }

    /// The workers, to see what they have to do.
    pub fn workers(&self) -> &Arc<[WorkerHandle]> {
        self.workers.handles()
    }

    /// The Gateway as the source of its connections.
    pub fn source(&self) -> &Arc<Pod> {
        &self.source
    }

    /// The certificates, the Gateway's own among them.
    pub fn certificates(&self) -> &CertStore {
        &self.node.certificates
    }

    /// Cancelled when the process was told to end: nobody should send it anything new.
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// The metrics of the process, for the admin page.
    pub fn metrics(&self) -> ProcessMetrics {
        ProcessMetrics::new(Arc::clone(&self.node), Arc::clone(&self.manager))
    }

    /// Runs until `stop` resolves; goes on to accept for the linger, and then until its connections have ended or the
    /// deadline for that has passed.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        stop.await;
        self.leaving.cancel();
        let linger = self.settings.linger;
        tracing::info!("told to end; accepting for {linger:?} more");
        tokio::time::sleep(linger).await;
        for worker in self.workers.handles().iter() {
            worker.tell(Command::Drain);
        }
        let deadline = self.settings.drain_deadline;
        tracing::info!(connections = self.workers.connections(), "draining for at most {deadline:?}");
        wait_until_idle(&self.workers, deadline).await;
        self.telemetry.abort();
        let left = self.workers.connections();
        if left > 0 {
            tracing::warn!(connections = left, "ended under open connections");
        }
        self.workers.stop();
    }
}

fn gateway(text: &str) -> Result<GatewayKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(GatewayKey::new(namespace, name))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

fn account(text: &str) -> Result<ServiceAccount, String> {
    match text.is_empty() || text.contains('/') {
        true => Err("expected the name of a ServiceAccount".to_owned()),
        false => Ok(ServiceAccount::new(text)),
    }
}

fn pod_name(text: &str) -> Result<Name, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Name::new(text)) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use clap::Parser;
    use weft_core::change::{Change, Resource};
    use weft_core::gateway::{Listener, ListenerProtocol};
    use weft_core::identity::TrustDomain;
    use weft_core::ids::{ListenerKey, Port};
    use weft_tls::{FetchFuture, SvidRequest, SvidSource, TrustBundle, TrustStore};

    use super::*;
    use crate::balance::NodeZone;
    use crate::relay::http::{HttpSettings, Telemetered};
    use crate::store::Store;
    use crate::telemetry::{AccessLog, LogFormat, LogPolicy};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: GatewayProxySettings,
    }

    fn parse(arguments: &[&str]) -> Result<GatewayProxySettings, String> {
        let all = [&["gateway", "--pod=p", "--node=n"], arguments].concat();
        Cli::try_parse_from(all).map(|cli| cli.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_gateway_is_named_by_its_namespace_and_name() {
        let settings = parse(&["--gateway=edge/web", "--service-account=web-weft"]).unwrap();
        assert_eq!(settings.gateway, GatewayKey::new("edge", "web"));
        assert_eq!(settings.mistakes(), Vec::<String>::new());
        for odd in ["web", "/web", "edge/", "a/b/c", ""] {
            assert!(parse(&[&format!("--gateway={odd}"), "--service-account=a"]).is_err(), "{odd}");
        }
        for odd in ["", "edge/web"] {
            assert!(parse(&["--gateway=edge/web", &format!("--service-account={odd}")]).is_err(), "{odd}");
        }
    }

    /// Gives nobody a certificate.
    struct Silent;

    impl SvidSource for Silent {
        fn fetch(&self, _: SvidRequest) -> FetchFuture<'_> {
            Box::pin(std::future::pending())
        }
    }

    fn sources(store: &Arc<Store>) -> Sources {
        let (log, _queue) = AccessLog::new(LogPolicy::Off, LogFormat::Json);
        let engine = Telemetered {
            registry: Arc::default(),
            log,
            records: Default::default(),
            shared: Arc::default(),
            zone: NodeZone::default(),
            settings: HttpSettings::default(),
        };
        Sources {
            authority: Arc::new(Silent),
            trust: TrustStore::new(TrustBundle::default()),
            trust_domain: TrustDomain::default(),
            store: Arc::clone(store),
            engine: Arc::new(engine),
        }
    }

    fn listener(port: u16) -> Change {
        Change::Upsert(Resource::Listener(Arc::new(Listener {
            key: ListenerKey::new(GatewayKey::new("edge", "web"), "http"),
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            port: Port::new(port).unwrap(),
            hostname: None,
            protocol: ListenerProtocol::Http,
            kinds: Vec::new(),
            client_validation: None,
            policies: Vec::new(),
            http3: false,
        })))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_says_what_is_bound_and_accepts_for_a_while_after_it_was_told_to_end() {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        let accepts = async || tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok();
        let store = Arc::<Store>::default();
        store.apply(&[listener(port)]);
        let arguments = ["--gateway=edge/web", "--service-account=web-weft", "--workers=2", "--linger=500ms"];
        let settings = parse(&arguments).unwrap();
        let progress = Progress::new(settings.workers());
        let proxy = GatewayProxy::start(settings, sources(&store), progress.clone()).unwrap();
        assert_eq!(proxy.source().identity.to_string(), "spiffe://cluster.local/ns/edge/sa/web-weft");
        let failing = progress.reached(store.version()).await;
        assert!(failing.values().all(|reason| reason.contains(&port.to_string())) && failing.len() == 1, "{failing:?}");

        drop(free);
        // Looked at again with the next change, or after a while.
        store.apply(&[listener(port)]);
        assert_eq!(progress.reached(store.version()).await.len(), 0);
        assert!(accepts().await);

        let leaving = proxy.leaving();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ended = tokio::spawn(proxy.run(async { drop(stopped.await) }));
        assert!(!leaving.is_cancelled());
        drop(stop);
        leaving.cancelled().await;
        assert!(accepts().await, "whoever hasn't heard of it is still served");
        tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap().unwrap();
        assert!(!accepts().await);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let settings =
            parse(&["--gateway=a/b", "--service-account=c", "--connect-timeout=0s", "--idle-timeout=10ms"]).unwrap();
        let text = settings.mistakes().join("\n");
        assert!(text.contains("--connect-timeout") && text.contains("--idle-timeout"), "{text}");
    }
}
