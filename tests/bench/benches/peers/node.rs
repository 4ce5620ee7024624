//! Weft's node proxy on one node of the mesh benchmark: a process of its own that serves one pod.
//!
//! Everything a connection meets is the product's: redirection in the pod's namespace, workers, certificates, HBONE, the HTTP
//! engine, telemetry and policy. Only what is far from traffic is replaced: the configuration comes from a file instead of
//! the controller, and certificates are signed here instead of by the authority.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use serde::{Deserialize, Serialize};
use weft_cni::rules::{OlderFlows, RuleSet, Rules};
use weft_core::change::{Change, MeshConfig, Resource};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{NodeName, PolicyKey, Port, RouteKey, RouteKind, RuleKey, SandboxId, ServiceKey, ServicePortKey};
use weft_core::policy::{
    Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, Operation, Scope, Source as PolicySource,
};
use weft_core::route::{
    BackendTarget, Created, HttpAction, HttpBackend, HttpMatch, HttpRule, Parent, PathMatch, RouteRule, Timeouts,
};
use weft_core::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, EndpointSlice, Service, ServiceKind, ServicePort, SliceKey,
    SlicePort, TrafficDistribution,
};
use weft_core::telemetry::Share;
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_node_proxy::balance::{NodeZone, Shared};
use weft_node_proxy::budget::{Defaults, NodeBudget};
use weft_node_proxy::inpod::{Announcement, Manager, PodSockets};
use weft_node_proxy::otlp::ExportSettings;
use weft_node_proxy::records::Records;
use weft_node_proxy::relay::http::{HttpSettings, Telemetered};
use weft_node_proxy::store::Store;
use weft_node_proxy::telemetry::{AccessLog, LogFormat, LogPolicy, Registry};
use weft_node_proxy::trace;
use weft_node_proxy::worker::{Engine, Limits, Node, Workers};
use weft_testkit::Pod;
use weft_tls::{
    CertManager, CertStore, CertificateDer, Clock, FetchError, FetchFuture, ManagerSettings, SvidRequest, SvidSource,
    TlsSettings, TrustBundle, TrustStore,
};

use crate::files::{CLIENT, NAMESPACE, SERVER};

/// Connections of the benchmark are few; the limit is the product's own kind.
const CONNECTIONS: u32 = 30_000;

/// What one process is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeFile {
    /// The pod that it serves.
    pub own: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Both pods.
    pub pods: BTreeMap<String, PodFile>,
    /// ClusterIP and port of the Service that the client dials.
    pub service: SocketAddr,
    /// The server's port.
    pub backend_port: u16,
    /// Whether the server's policy looks at requests.
    pub http_policy: bool,
    /// Folder with `ca.pem` and `ca.key`.
    pub authority: PathBuf,
    /// What is told of its requests.
    pub told: Told,
}

/// What is told of requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Whether they are counted.
    pub metrics: bool,
    /// Which of them have a line in the access log, which goes to `/dev/null`.
    pub log: Lines,
    /// How many are traced, and where spans go.
    pub traces: Option<(f64, String)>,
}

/// Which requests have a line in the access log.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Lines {
    /// None.
    Off,
    /// Those that fail.
    Errors,
    /// All.
    All,
}

impl Default for Told {
    /// Metrics and nothing else.
    fn default() -> Self {
        Self { metrics: true, log: Lines::Off, traces: None }
    }
}

/// A pod as the configuration has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PodFile {
    node: String,
    addresses: Vec<IpAddr>,
}

impl PodFile {
    /// Of a pod of a world.
    pub fn of(pod: &Pod) -> Self {
        Self { node: pod.node_name().to_owned(), addresses: pod.ips().to_vec() }
    }
}

/// Serves until it is killed.
///
/// # Errors
/// When something doesn't start.
pub fn serve(path: &Path) -> Result<()> {
    let file: NodeFile = serde_json::from_slice(&std::fs::read(path)?)?;
    let pod = file.pods.get(&file.own).context("the own pod is missing")?;
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let authority = Authority::load(&file.authority)?;
    let trust = TrustStore::new(TrustBundle::new(TrustDomain::default(), [authority.root.clone()])?);
    let certificates = CertStore::new(trust, Clock::system(), TlsSettings::default());
    let settings = ManagerSettings::default();
    let identities = CertManager::new(certificates.clone(), Arc::new(authority), settings, control.handle().clone());
    let defaults = Defaults { connections: CONNECTIONS, handshakes: 64, buffer_bytes: 256 << 20 };
    let store = Arc::new(Store::default());
    store.apply(&file.changes()?);
    let node = Arc::new(Node {
        name: NodeName::new(&*pod.node),
        store,
        certificates,
        budget: NodeBudget::new(CONNECTIONS, defaults),
        addresses: Vec::new(),
        gateways: Default::default(),
        limits: Limits::default(),
    });
    let workers = Workers::start(&node, &engine(&file.told)?, 1)?;
    let manager = Arc::new(Manager::new(Arc::clone(&node), Arc::clone(workers.handles()), identities));
    control.block_on(async {
        let netns = weft_sys::Netns::open(&file.netns)?;
        let sockets = PodSockets::new(netns.clone(), pod.addresses.clone());
        let announced = Announcement {
            sandbox: SandboxId::new(format!("sandbox-{}", file.own)),
            workload: Arc::new(file.workload(&file.own)?),
            net: Arc::new(sockets),
            node_addresses: Vec::new(),
        };
        manager.add(announced).await?;
        let rules = Rules::default();
        rules.apply(&netns, RuleSet::Redirecting { older_flows: OlderFlows::Keep }).await?;
        std::future::pending::<Result<()>>().await
    })
}

/// The product's HTTP engine.
///
/// # Errors
/// When a thread of what it tells can't be started.
pub fn engine(told: &Told) -> Result<Arc<dyn Engine>> {
    let policy = match told.log {
        Lines::Off => LogPolicy::Off,
        Lines::Errors => LogPolicy::Errors,
        Lines::All => LogPolicy::All,
    };
    let (mut log, queue) = AccessLog::new(policy, LogFormat::Json);
    let output = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    std::thread::Builder::new().name("access-log".into()).spawn(move || queue.write_to(output))?;
    if let Some((share, collector)) = &told.traces {
        let settings = ExportSettings { endpoint: Some(collector.clone()), node: "bench".into() };
        let share = Share::of(*share).context("no share")?;
        log = log.sending(trace::start(settings, Arc::default())?, true, share);
    }
    Ok(Arc::new(Telemetered {
        registry: Arc::new(if told.metrics { Registry::default() } else { Registry::silent() }),
        log,
        records: Records::default(),
        shared: Arc::<Shared>::default(),
        zone: NodeZone::default(),
        settings: HttpSettings::default(),
    }))
}

impl NodeFile {
    fn workload(&self, name: &str) -> Result<Workload> {
        let pod = self.pods.get(name).with_context(|| format!("no pod {name}"))?;
        let policies = if name == SERVER { vec![policy_key()] } else { Vec::new() };
        Ok(Workload {
            uid: uid(name).into(),
            namespace: NAMESPACE.into(),
            name: name.into(),
            identity: SpiffeId::new(TrustDomain::default(), NAMESPACE, name),
            addresses: pod.addresses.clone(),
            node: pod.node.as_str().into(),
            zone: None,
            enrolment: Enrolment::Enrolled,
            owner: Owner { kind: "Deployment".into(), name: name.into(), app: name.into(), version: "v1".into() },
            policies,
            probes: Vec::new(),
            network_policy: false,
            telemetry: Vec::new(),
        })
    }

    fn changes(&self) -> Result<Vec<Change>> {
        let mesh = MeshConfig {
            cluster_ranges: vec!["10.244.0.0/16".parse()?, "10.96.0.0/16".parse()?],
            ..MeshConfig::default()
        };
        let mut resources = vec![
            Resource::Mesh(Arc::new(mesh)),
            Resource::Authorization(Arc::new(self.policy())),
            Resource::Service(Arc::new(self.service()?)),
            Resource::EndpointSlice(Arc::new(self.slice()?)),
            Resource::Rule(Arc::new(RouteRule::Http(self.rule()?))),
        ];
        for name in self.pods.keys() {
            resources.push(Resource::Workload(Arc::new(self.workload(name)?)));
        }
        Ok(resources.into_iter().map(Change::Upsert).collect())
    }

    /// Lets the client in and nobody else; with `http_policy` only to GET.
    fn policy(&self) -> AuthorizationPolicy {
        let identity = SpiffeId::new(TrustDomain::default(), NAMESPACE, CLIENT).to_string();
        let from = vec![PolicySource { identities: vec![GlobMatch::Exact(identity)], ..PolicySource::default() }];
        let get = Operation { methods: vec![GlobMatch::Exact("GET".into())], ..Operation::default() };
        let to = if self.http_policy { vec![get] } else { Vec::new() };
        let rules = vec![AuthorizationRule { from, to }];
        let (key, scope, action) = (policy_key(), Scope::Selected, Action::Allow);
        AuthorizationPolicy { key, scope, action, dry_run: false, rules }
    }

    fn service_port(&self) -> Result<ServicePortKey> {
        let port = Port::new(self.service.port()).context("no port")?;
        Ok(ServicePortKey { service: ServiceKey::new(NAMESPACE, "web"), port })
    }

    fn service(&self) -> Result<Service> {
        let ServicePortKey { service, port } = self.service_port()?;
        Ok(Service {
            key: service,
            addresses: vec![self.service.ip()],
            ports: vec![ServicePort { name: "http".into(), port, protocol: AppProtocol::Http }],
            kind: ServiceKind::ClusterIp,
            client_ip_affinity: None,
            distribution: TrafficDistribution::Any,
            node_local_only: false,
            proxy_protocol: None,
            balancing: Balancing::PeakEwma,
            traffic: None,
        })
    }

    fn slice(&self) -> Result<EndpointSlice> {
        let server = self.pods.get(SERVER).context("no server")?;
        let endpoint = Endpoint {
            address: *server.addresses.first().context("a pod without an address")?,
            workload: Some(uid(SERVER).into()),
            health: EndpointHealth::Ready,
            node: Some(server.node.as_str().into()),
            zone: None,
        };
        let port = Port::new(self.backend_port).context("no port")?;
        Ok(EndpointSlice {
            key: SliceKey { namespace: NAMESPACE.into(), name: "web-1".into() },
            service: self.service_port()?.service,
            ports: vec![SlicePort { name: "http".into(), port }],
            endpoints: vec![endpoint],
        })
    }

    fn rule(&self) -> Result<HttpRule> {
        let port = self.service_port()?;
        let route = RouteKey { kind: RouteKind::Http, namespace: NAMESPACE.into(), name: "web".into() };
        let backend = HttpBackend { target: BackendTarget::Service(port.clone()), weight: 1, filters: Vec::new() };
        let path = PathMatch::Prefix("/".into());
        Ok(HttpRule {
            key: RuleKey { route, index: 0 },
            name: None,
            created: Created::default(),
            parents: vec![Parent::Service { port, consumer: None }],
            hostnames: Vec::new(),
            matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
            filters: Vec::new(),
            action: HttpAction::Forward(vec![backend]),
            timeouts: Timeouts::default(),
            retry: None,
            sessions: Default::default(),
        })
    }
}

fn uid(name: &str) -> String {
    format!("Kubernetes//Pod/{NAMESPACE}/{name}")
}

fn policy_key() -> PolicyKey {
    PolicyKey::new(NAMESPACE, "only-the-client")
}

/// Signs whatever it is asked for.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn load(folder: &Path) -> Result<Self> {
        let pem = std::fs::read_to_string(folder.join("ca.pem"))?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(folder.join("ca.key"))?)?;
        let root = CertificateDer::from(std::fs::read(folder.join("ca.der"))?);
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, root })
    }

    fn sign(&self, request: &SvidRequest) -> Result<Vec<CertificateDer<'static>>> {
        let csr = CertificateSigningRequestParams::from_der(&request.csr.as_slice().into())?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(request.identity.to_string())?)];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(vec![params.signed_by(&csr.public_key, &self.issuer)?.der().clone()])
    }
}

impl SvidSource for Authority {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(async move { self.sign(&request).map_err(|e| FetchError::Refused(e.to_string())) })
    }
}
