//! A mesh in one process: a node proxy per node with real sockets in the pods' namespaces, certificates from a small
//! authority, configuration applied directly.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::LocalBoxFuture;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_cni::rules::{OlderFlows, RuleSet, Rules};
use weft_core::change::{Change, MeshConfig, Resource};
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_core::ids::{NodeName, SandboxId, WorkloadUid};
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_node_proxy::authorize::HttpPermit;
use weft_node_proxy::balance::NodeZone;
use weft_node_proxy::budget::{Defaults, NodeBudget};
use weft_node_proxy::inpod::{Announcement, ListenerRole, Manager, PodSockets};
use weft_node_proxy::observe::{AcceptFailure, Connection, Ended, Handshake, HandshakeRole, Observer};
use weft_node_proxy::records::Records;
use weft_node_proxy::relay::front::{ByteStream, GatewayConnection, HttpRelay, OutboundConnection};
use weft_node_proxy::relay::http::{HttpSettings, Telemetered};
use weft_node_proxy::store::Store;
use weft_node_proxy::telemetry::{AccessLog, LogFormat, LogPolicy};
use weft_node_proxy::worker::{Engine, EngineParts, Limits, Node, Workers};
use weft_testkit::{Pod, World};
use weft_tls::{
    CertManager, CertStore, CertificateDer, Clock, FetchError, FetchFuture, KeyRequest, ManagerSettings, Svid,
    SvidRequest, SvidSource, TlsSettings, TrustBundle, TrustStore,
};

/// Longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(5);

/// What a node proxy told its telemetry.
#[derive(Clone, Debug)]
pub enum Event {
    Closed(Connection, Ended),
    Refused(Connection, Reason),
    /// By the accepting loop, with the workload.
    Shed(WorkloadUid, Reason),
    /// The task of a connection, with the workload.
    Panicked(WorkloadUid),
    /// A listener, with the workload.
    Reopened(WorkloadUid, ListenerRole),
    /// Of a tunnel, with the workload.
    Handshake(WorkloadUid, HandshakeRole, Reason),
}

#[derive(Clone, Default)]
pub struct Events(Arc<parking_lot::Mutex<Vec<Event>>>);

impl Events {
    /// Waits for an event.
    pub fn wait(&self, what: &str, seen: impl Fn(&Event) -> bool) -> Result<Event> {
        let end = Instant::now() + SOON;
        loop {
            if let Some(event) = self.0.lock().iter().find(|event| seen(event)) {
                return Ok(event.clone());
            }
            if Instant::now() > end {
                bail!("no event: {what}; seen: {:#?}", self.0.lock());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Events {
    /// Waits for a condition.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        let end = Instant::now() + SOON;
        while !holds() {
            if Instant::now() > end {
                bail!("not within {SOON:?}: {what}; seen: {:#?}", self.0.lock());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

struct Recorder(Events);

impl Observer for Recorder {
    fn opened(&self, _connection: &Connection) {}
    fn closed(&self, connection: &Connection, ended: &Ended, _lasted: Duration) {
        self.0.0.lock().push(Event::Closed(connection.clone(), *ended));
    }
    fn refused(&self, connection: &Connection, reason: Reason) {
        self.0.0.lock().push(Event::Refused(connection.clone(), reason));
    }
    fn shed(&self, workload: &Workload, _role: ListenerRole, reason: Reason) {
        self.0.0.lock().push(Event::Shed(workload.uid.clone(), reason));
    }
    fn accept_failed(&self, _workload: &Workload, _role: ListenerRole, _class: AcceptFailure) {}
    fn panicked(&self, workload: &Workload) {
        self.0.0.lock().push(Event::Panicked(workload.uid.clone()));
    }
    fn strict_audit(&self, _connection: &Connection) {}
    fn source_not_kept(&self, _connection: &Connection) {}
    fn reopened(&self, workload: &Workload, role: ListenerRole) {
        self.0.0.lock().push(Event::Reopened(workload.uid.clone(), role));
    }
    fn handshake(&self, workload: &Workload, Handshake { role, result, .. }: Handshake) {
        self.0.0.lock().push(Event::Handshake(workload.uid.clone(), role, result));
    }
}

/// Rigged: nothing in these tests may look at HTTP.
struct NoHttp;

impl HttpRelay for NoHttp {
    fn inbound(&self, _io: Box<dyn ByteStream>, _permit: HttpPermit) -> LocalBoxFuture<'static, ()> {
        Box::pin(async { panic!("HTTP was parsed inbound") })
    }
    fn outbound(&self, _io: TcpStream, _connection: OutboundConnection) -> LocalBoxFuture<'static, ()> {
        Box::pin(async { panic!("HTTP was parsed outbound") })
    }
    fn gateway(&self, _io: Box<dyn ByteStream>, _connection: GatewayConnection) -> LocalBoxFuture<'static, ()> {
        Box::pin(async { panic!("HTTP was parsed at a Gateway") })
    }
}

pub struct TestEngine(pub Events);

impl Engine for TestEngine {
    fn observer(&self, _worker: usize) -> Rc<dyn Observer> {
        Rc::new(Recorder(self.0.clone()))
    }
    fn http(&self, _parts: EngineParts) -> Rc<dyn HttpRelay> {
        Rc::new(NoHttp)
    }
}

/// As the program has it, with the tests' own ears.
struct HttpEngine(Events, Telemetered);

impl Engine for HttpEngine {
    fn observer(&self, _worker: usize) -> Rc<dyn Observer> {
        Rc::new(Recorder(self.0.clone()))
    }
    fn http(&self, parts: EngineParts) -> Rc<dyn HttpRelay> {
        self.1.http(parts)
    }
}

fn http_engine(events: Events) -> HttpEngine {
    let (log, _nobody_reads_it) = AccessLog::new(LogPolicy::Off, LogFormat::Json);
    let (registry, records, settings) = (Arc::default(), Records::default(), HttpSettings::default());
    let zone = NodeZone::default();
    HttpEngine(events, Telemetered { registry, log, records, shared: Arc::default(), zone, settings })
}

/// An authority that signs whatever it is asked for.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    /// Who gets one certificate that ends soon, and then none.
    short: Vec<SpiffeId>,
    given: parking_lot::Mutex<Vec<SpiffeId>>,
}

/// How long a short certificate is good for.
const SHORT: Duration = Duration::from_secs(4);

impl Authority {
    pub fn new() -> Result<Self> {
        Self::with_short(Vec::new())
    }

    fn with_short(short: Vec<SpiffeId>) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), root, short, given: Default::default() })
    }

    pub fn bundle(&self) -> Result<TrustBundle> {
        Ok(TrustBundle::new(TrustDomain::default(), [self.root.clone()])?)
    }

    /// A certificate with its key.
    pub fn issue(&self, identity: &SpiffeId) -> Result<Svid> {
        let key = KeyRequest::generate(identity)?;
        let chain = self.sign(&SvidRequest { identity: identity.clone(), csr: key.csr().to_vec() })?;
        Ok(key.complete(chain)?)
    }

    fn sign(&self, request: &SvidRequest) -> Result<Vec<CertificateDer<'static>>> {
        let csr = rcgen::CertificateSigningRequestParams::from_der(&request.csr.as_slice().into())?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(request.identity.to_string())?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if self.short.contains(&request.identity) {
            let mut given = self.given.lock();
            if given.contains(&request.identity) {
                bail!("no second certificate for {}", request.identity);
            }
            given.push(request.identity.clone());
            params.not_after = (std::time::SystemTime::now() + SHORT).into();
        }
        Ok(vec![params.signed_by(&csr.public_key, &self.issuer)?.der().clone()])
    }
}

pub struct Source(pub Arc<Authority>);

impl SvidSource for Source {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(async move { self.0.sign(&request).map_err(|e| FetchError::Refused(e.to_string())) })
    }
}

/// The proxy of one node.
pub struct Proxy {
    pub node: Arc<Node>,
    pub events: Events,
    pub trust: TrustStore,
    pub manager: Arc<Manager>,
    pub control: tokio::runtime::Runtime,
    pub workers: Option<Workers>,
}

impl Proxy {
    fn start(name: &str, authority: &Arc<Authority>, http: bool, domains: &TrustDomains) -> Result<Self> {
        let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let trust = TrustStore::with_domains(authority.bundle()?, domains.clone())?;
        let certificates = CertStore::new(trust.clone(), Clock::system(), TlsSettings::default());
        let source = Arc::new(Source(Arc::clone(authority)));
        let identities =
            CertManager::new(certificates.clone(), source, ManagerSettings::default(), control.handle().clone());
        let defaults = Defaults { connections: 1000, handshakes: 64, buffer_bytes: 64 << 20 };
        let node = Arc::new(Node {
            name: NodeName::new(name),
            store: Arc::new(Store::with_domains(Snapshot::default(), domains.clone())),
            certificates,
            budget: NodeBudget::new(1000, defaults),
            addresses: Vec::new(),
            gateways: Default::default(),
            limits: Limits::default(),
        });
        let events = Events::default();
        let engine: Arc<dyn Engine> = match http {
            true => Arc::new(http_engine(events.clone())),
            false => Arc::new(TestEngine(events.clone())),
        };
        let workers = Workers::start(&node, &engine, 2)?;
        let manager = Arc::new(Manager::new(Arc::clone(&node), Arc::clone(workers.handles()), identities));
        control.spawn({
            let manager = Arc::clone(&manager);
            async move { manager.follow_limits().await }
        });
        Ok(Self { node, events, trust, manager, control, workers: Some(workers) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
    }
}

/// A world with a proxy on each node.
pub struct Mesh {
    pub world: World,
    pub authority: Arc<Authority>,
    pub proxies: BTreeMap<String, Proxy>,
    rules: Rules,
    names_nodes: bool,
}

impl Mesh {
    /// The usual two nodes and four pods, all configured; `enrolled` of them in the mesh.
    pub fn of(enrolled: &[&str]) -> Result<Self> {
        Self::build(enrolled, false, &[], &TrustDomains::default())
    }

    /// The same for proxies to whom the trust domain has other names.
    pub fn in_domains(enrolled: &[&str], domains: &TrustDomains) -> Result<Self> {
        Self::build(enrolled, false, &[], domains)
    }

    /// With an agent that names each node's IPv4 address towards its pods, and proxies that serve HTTP.
    pub fn with_node_addresses(enrolled: &[&str]) -> Result<Self> {
        Self::build(enrolled, true, &[], &TrustDomains::default())
    }

    /// The same, where some have a certificate that ends after some seconds, and get no other.
    pub fn with_short_certificates(enrolled: &[&str], short: &[&str]) -> Result<Self> {
        Self::build(enrolled, true, short, &TrustDomains::default())
    }

    fn build(enrolled: &[&str], names_nodes: bool, short: &[&str], domains: &TrustDomains) -> Result<Self> {
        let world = World::two_nodes()?;
        let authority = Arc::new(Authority::with_short(short.iter().map(|name| Self::identity(name)).collect())?);
        let mut proxies = BTreeMap::new();
        for name in ["n1", "n2"] {
            proxies.insert(name.to_owned(), Proxy::start(name, &authority, names_nodes, domains)?);
        }
        let mesh = Self { world, authority, proxies, rules: Rules::default(), names_nodes };
        mesh.apply(&mesh.config(enrolled)?);
        for name in enrolled {
            mesh.enrol(name)?;
        }
        Ok(mesh)
    }

    /// The configuration every node starts with.
    pub fn config(&self, enrolled: &[&str]) -> Result<Vec<Change>> {
        let config = MeshConfig {
            cluster_ranges: vec!["10.244.0.0/16".parse()?, "10.96.0.0/16".parse()?, "fd00:10::/32".parse()?],
            ..MeshConfig::default()
        };
        let mut changes = vec![upsert(Resource::Mesh(Arc::new(config)))];
        for name in ["a", "b", "c", "d"] {
            let workload = self.workload(name, enrolled.contains(&name));
            changes.push(upsert(Resource::Workload(Arc::new(workload))));
        }
        Ok(changes)
    }

    pub fn pod(&self, name: &str) -> Pod {
        self.world.pod(name)
    }

    pub fn proxy_of(&self, pod: &str) -> &Proxy {
        &self.proxies[self.pod(pod).node_name()]
    }

    pub fn uid(name: &str) -> WorkloadUid {
        WorkloadUid::new(format!("Kubernetes//Pod/shop/{name}"))
    }

    pub fn identity(name: &str) -> SpiffeId {
        SpiffeId::new(TrustDomain::default(), "shop", name)
    }

    /// The workload of a pod.
    pub fn workload(&self, name: &str, enrolled: bool) -> Workload {
        let pod = self.pod(name);
        Workload {
            uid: Self::uid(name),
            namespace: "shop".into(),
            name: name.into(),
            identity: Self::identity(name),
            addresses: pod.ips().to_vec(),
            node: pod.node_name().into(),
            zone: None,
            enrolment: if enrolled { Enrolment::Enrolled } else { Enrolment::Outside },
            owner: Owner { kind: "Pod".into(), name: name.into(), app: name.into(), version: String::new() },
            policies: Vec::new(),
            probes: Vec::new(),
            network_policy: false,
            telemetry: Vec::new(),
        }
    }

    /// Configures every node.
    pub fn apply(&self, changes: &[Change]) {
        self.proxies.values().for_each(|proxy| proxy.node.store.apply(changes));
    }

    /// Where the node's own traffic to its pods comes from, if the agent says so.
    fn node_address(&self, node: &str) -> Option<IpAddr> {
        let number = if node == "n1" { 1 } else { 2 };
        self.names_nodes.then(|| IpAddr::from([10, 244, number, 1]))
    }

    /// What the node agent says of a pod.
    pub fn announcement(&self, name: &str) -> Result<(Announcement, weft_sys::Netns)> {
        let pod = self.pod(name);
        let fd = pod.fd().context("a pod has a namespace of its own")?.try_clone_to_owned()?;
        let netns = weft_sys::Netns::from_fd(fd)?;
        let announced = Announcement {
            sandbox: SandboxId::new(format!("sandbox-{name}")),
            workload: Arc::new(self.workload(name, true)),
            net: Arc::new(PodSockets::new(netns.clone(), pod.ips().to_vec())),
            node_addresses: self.node_address(pod.node_name()).into_iter().collect(),
        };
        Ok((announced, netns))
    }

    /// What the node agent does: redirect and hand the namespace to the proxy.
    fn enrol(&self, name: &str) -> Result<()> {
        let proxy = self.proxy_of(name);
        let (announced, netns) = self.announcement(name)?;
        proxy.control.block_on(async {
            proxy.manager.add(announced).await?;
            let set = RuleSet::Redirecting { older_flows: OlderFlows::Keep };
            self.rules.apply(&netns, set).await?;
            anyhow::Ok(())
        })
    }

    /// Ends the proxy of a node at once, as a crash does: nothing is drained.
    pub fn kill(&mut self, node: &str) -> Result<()> {
        self.proxies.remove(node).map(drop).ok_or_else(|| anyhow!("no proxy on {node}"))
    }
}

pub fn upsert(resource: Resource) -> Change {
    Change::Upsert(resource)
}

/// Where a client's address shows: at the server.
pub fn ips(peers: &[SocketAddr]) -> Vec<IpAddr> {
    peers.iter().map(SocketAddr::ip).collect()
}

/// Opens a connection that stays open, and proves that it works.
pub async fn open(addr: std::net::SocketAddr) -> Result<TcpStream> {
    let mut stream = weft_testkit::clients::connect(addr).await?;
    stream.write_all(b"x").await?;
    anyhow::ensure!(stream.read_u8().await? == b'x');
    Ok(stream)
}
