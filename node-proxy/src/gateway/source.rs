//! A Gateway as the source of what it forwards.
//!
//! With an identity it sends to what is enrolled through tunnels of its own, as any workload does. Without one it sends to
//! workloads outside the mesh only: what is enrolled must never be reached in the clear
//! ([`crate::connect::ConnectError::Outsider`]).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};
use weft_core::gateway::object_name;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::GatewayKey;
use weft_core::policy::WorkloadLimits;
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_sys::sock::{self, Connect};
use weft_tls::{
    CertManager, CertStore, Clock, FetchError, FetchFuture, ManagerSettings, SvidRequest, SvidSource, TlsSettings,
    TrustBundle, TrustStore,
};

use super::handshakes::Handshakes;
use super::quic::QuicPlaces;
use super::terminate::Terminators;
use super::udp::Room;
use super::{KEEPALIVE, Progress};
use crate::budget::Budget;
use crate::identify::Pod;
use crate::inpod::{ListenerRole, Outgoing, PodNet};
use crate::worker::Node;

/// The class by which a Gateway outside of Kubernetes has its name.
const CLASS: &str = "weft";
/// The fewest TLS handshakes that a Gateway may have under way.
const HANDSHAKES: u32 = 64;

/// The Gateways of a proxy, as all its workers share them: who each is, and how far the workers are with listening.
#[derive(Debug)]
pub struct Gateways {
    identities: Identities,
    progress: Progress,
    handshakes: Handshakes,
    terminators: Arc<Terminators>,
    sessions: Room,
    http3: QuicPlaces,
    pods: Mutex<HashMap<GatewayKey, Weak<Pod>>>,
}

/// Which Gateways have an identity.
#[derive(Debug)]
enum Identities {
    None,
    /// The one that this process is there for.
    One(CertManager, GatewayKey, SpiffeId),
    /// All of them, on a machine without Kubernetes.
    All(CertManager),
}

impl Default for Gateways {
    fn default() -> Self {
        Self::new(Identities::None, Progress::new(0))
    }
}

impl Gateways {
    fn new(identities: Identities, progress: Progress) -> Self {
        let (handshakes, terminators, sessions) = (Handshakes::default(), Arc::default(), Room::default());
        let http3 = QuicPlaces::default();
        Self { identities, progress, handshakes, terminators, sessions, http3, pods: Mutex::default() }
    }

    /// Only this one has an identity; `progress` is told how far the workers are.
    pub fn one(gateway: GatewayKey, identity: SpiffeId, certificates: CertManager, progress: Progress) -> Self {
        Self::new(Identities::One(certificates, gateway, identity), progress)
    }

    /// Each has the identity that its objects would have in a cluster: see [`identity_of`]; `progress` is told how far the
    /// workers are.
    pub fn all(certificates: CertManager, progress: Progress) -> Self {
        Self::new(Identities::All(certificates), progress)
    }

    /// How far the workers are.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The handshakes under way.
    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Who ends TLS for which listener.
    pub(super) fn terminators(&self) -> &Arc<Terminators> {
        &self.terminators
    }

    /// Where HTTP/3 is listened for.
    pub fn http3(&self) -> &QuicPlaces {
        &self.http3
    }

    /// The sessions of datagrams.
    pub(super) fn sessions(&self) -> &Room {
        &self.sessions
    }

    /// Those that somebody listens for.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The Gateway as a pod without a namespace of its own. Must be called inside a runtime. It lasts as long as somebody
    /// holds it, and its certificate with it.
    pub fn source(&self, node: &Node, gateway: &GatewayKey) -> Arc<Pod> {
        let mut pods = self.pods.lock();
        pods.retain(|_, pod| pod.strong_count() > 0);
        if let Some(pod) = pods.get(gateway).and_then(Weak::upgrade) {
            return pod;
        }
        let pod = Arc::new(self.pod_of(node, gateway));
        pods.insert(gateway.clone(), Arc::downgrade(&pod));
        pod
    }

    fn pod_of(&self, node: &Node, gateway: &GatewayKey) -> Pod {
        let by_name = || identity_of(node.store.load().mesh().trust_domains.own(), gateway);
        let (identity, manager) = match &self.identities {
            Identities::One(manager, own, identity) if own == gateway => (identity.clone(), Some(manager)),
            Identities::All(manager) => (by_name(), Some(manager)),
            Identities::None | Identities::One(..) => (by_name(), None),
        };
        let workload = Arc::new(workload_of(node, gateway, identity));
        let sandbox = format!("gateway/{gateway}").into();
        let budget = Budget::new(Arc::clone(&node.budget));
        budget.set_limits(limits(node.budget.max_connections()));
        match manager {
            Some(manager) => Pod::new(sandbox, workload, Arc::new(OwnNet { in_mesh: true }), manager, budget),
            None => Pod::new(sandbox, workload, Arc::new(OwnNet { in_mesh: false }), &nobody(), budget),
        }
    }
}

/// Its clients may be slow, or mean to be: what is counted is how many it waits for, and what they cost takes turns anyway.
fn limits(connections: u32) -> WorkloadLimits {
    WorkloadLimits { max_handshakes: Some((connections / 2).max(HANDSHAKES)), ..WorkloadLimits::default() }
}

/// The identity of a Gateway outside of Kubernetes: as the objects that are made for one in a cluster are named (GEP-1762).
pub fn identity_of(trust_domain: &TrustDomain, gateway: &GatewayKey) -> SpiffeId {
    let account = object_name(gateway.name.as_str(), CLASS);
    SpiffeId::new(trust_domain.clone(), gateway.namespace.as_str(), account.as_str())
}

fn workload_of(node: &Node, gateway: &GatewayKey, identity: SpiffeId) -> Workload {
    let (namespace, name) = (gateway.namespace.clone(), gateway.name.clone());
    Workload {
        uid: format!("Kubernetes//Gateway/{gateway}").into(),
        identity,
        namespace,
        name: name.clone(),
        addresses: Vec::new(),
        node: node.name.clone(),
        zone: None,
        enrolment: Enrolment::Outside,
        owner: Owner { kind: "Gateway".into(), app: name.to_string(), name, version: String::new() },
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    }
}

/// Gives nobody a certificate. Its own store: nothing of the mesh's is found in it.
fn nobody() -> CertManager {
    let store = CertStore::new(TrustStore::new(TrustBundle::default()), Clock::system(), TlsSettings::default());
    CertManager::new(store, Arc::new(NoAuthority), ManagerSettings::default(), tokio::runtime::Handle::current())
}

struct NoAuthority;

impl SvidSource for NoAuthority {
    fn fetch(&self, _request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(std::future::pending::<Result<_, FetchError>>())
    }
}

/// The namespace the process runs in; nothing is redirected to it.
#[derive(Debug)]
struct OwnNet {
    in_mesh: bool,
}

impl PodNet for OwnNet {
    fn in_mesh(&self) -> bool {
        self.in_mesh
    }

    fn listen(&self, _role: ListenerRole) -> io::Result<Vec<std::net::TcpListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn original_destination(&self, _stream: &TcpStream) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn outgoing(&self, source: Option<IpAddr>, to: SocketAddr) -> io::Result<Outgoing> {
        let options = Connect { source: source.map(|ip| SocketAddr::new(ip, 0)), ..Connect::default() };
        let socket = sock::prepare(None, &options, to)?;
        sock::set_nodelay(&socket)?;
        sock::set_keepalive(&socket, Some(KEEPALIVE))?;
        Ok(Outgoing { socket: TcpSocket::from_std_stream(socket.into()), to })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::budget::{Defaults, NodeBudget};
    use crate::store::Store;
    use crate::worker::Limits;

    fn certificates() -> CertStore {
        CertStore::new(TrustStore::new(TrustBundle::default()), Clock::system(), TlsSettings::default())
    }

    fn node() -> Node {
        let most = Defaults { connections: 10, handshakes: 1, buffer_bytes: 1 << 20 };
        Node {
            name: "n1".into(),
            store: Arc::<Store>::default(),
            certificates: certificates(),
            budget: NodeBudget::new(10, most),
            addresses: Vec::new(),
            gateways: Gateways::default(),
            limits: Limits::default(),
        }
    }

    /// Says whose certificates it was asked for.
    struct Asked(tokio::sync::mpsc::UnboundedSender<SpiffeId>);

    impl SvidSource for Asked {
        fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
            let _ = self.0.send(request.identity);
            Box::pin(std::future::pending())
        }
    }

    fn manager() -> (CertManager, tokio::sync::mpsc::UnboundedReceiver<SpiffeId>) {
        let (asked, identities) = tokio::sync::mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        (CertManager::new(certificates(), Arc::new(Asked(asked)), ManagerSettings::default(), runtime), identities)
    }

    #[tokio::test]
    async fn only_the_gateway_that_a_process_is_there_for_has_an_identity() {
        let (web, other) = (GatewayKey::new("edge", "web"), GatewayKey::new("edge", "other"));
        let own: SpiffeId = "spiffe://cluster.local/ns/edge/sa/web-of-another-class".parse().unwrap();
        let (certificates, mut asked) = manager();
        let (node, gateways) = (node(), Gateways::one(web.clone(), own.clone(), certificates, Progress::new(1)));
        let stranger = gateways.source(&node, &other);
        assert!(!stranger.net.in_mesh() && stranger.lease.current().is_err());
        let source = gateways.source(&node, &web);
        assert!(source.net.in_mesh() && source.identity == own);
        let first = tokio::time::timeout(Duration::from_secs(10), asked.recv()).await.unwrap();
        assert_eq!(first, Some(own), "nobody asks for a stranger's");
        assert!(Arc::ptr_eq(&source, &gateways.source(&node, &web)), "all workers have the same");
        assert_eq!(gateways.pods().len(), 2);
        drop((source, stranger));
        assert!(gateways.pods().is_empty());
    }

    #[test]
    fn handshakes_may_be_many_and_connections_to_endpoints_are_probed() {
        assert_eq!([1, 1000].map(|most| limits(most).max_handshakes), [Some(64), Some(500)]);
        let made = OwnNet { in_mesh: false }.outgoing(None, "192.0.2.1:80".parse().unwrap()).unwrap();
        assert!(made.socket.keepalive().unwrap());
    }

    #[tokio::test]
    async fn on_a_machine_each_has_the_identity_of_its_name() {
        let (certificates, _asked) = manager();
        let (node, gateways) = (node(), Gateways::all(certificates, Progress::new(0)));
        let source = gateways.source(&node, &GatewayKey::new("edge", "web"));
        assert_eq!(source.identity.to_string(), "spiffe://cluster.local/ns/edge/sa/web-weft");
        assert!(source.net.in_mesh());
        assert!(!Gateways::default().source(&node, &GatewayKey::new("edge", "web")).net.in_mesh());
    }
}
