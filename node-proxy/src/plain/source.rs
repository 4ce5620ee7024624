//! The one client of a plain proxy: a pod without a namespace, certificate or limit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_tls::{
    CertManager, CertStore, Clock, FetchError, FetchFuture, ManagerSettings, SvidRequest, SvidSource, TlsSettings,
    TrustBundle, TrustStore,
};

use crate::budget::{Budget, Defaults, NodeBudget};
use crate::identify::Pod;
use crate::inpod::{ListenerRole, Outgoing, PodNet};

/// Whoever connects to a plain listener. Must be called inside a runtime.
pub(crate) fn fixed_pod() -> Arc<Pod> {
    let workload = Workload {
        uid: "Kubernetes//Pod/plain/client".into(),
        namespace: "plain".into(),
        name: "client".into(),
        identity: SpiffeId::new(TrustDomain::default(), "plain", "client"),
        addresses: Vec::new(),
        node: "plain".into(),
        zone: None,
        enrolment: Enrolment::Outside,
        owner: Owner { kind: "Pod".into(), name: "client".into(), app: "client".into(), version: String::new() },
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    };
    pod_of(workload, Arc::new(HostNet))
}

/// A pod that no node agent announced, without a certificate.
pub(crate) fn pod_of(workload: Workload, net: Arc<dyn PodNet>) -> Arc<Pod> {
    let trust = TrustStore::new(TrustBundle::default());
    let store = CertStore::new(trust, Clock::system(), TlsSettings::default());
    let runtime = tokio::runtime::Handle::current();
    let manager = CertManager::new(store, Arc::new(NoAuthority), ManagerSettings::default(), runtime);
    let most = u32::MAX >> 1;
    let defaults = Defaults { connections: most, handshakes: 1, buffer_bytes: u64::MAX >> 1 };
    let budget = Budget::new(NodeBudget::new(most, defaults));
    Arc::new(Pod::new("plain".into(), Arc::new(workload), net, &manager, budget))
}

/// Nobody issues certificates here.
struct NoAuthority;

impl SvidSource for NoAuthority {
    fn fetch(&self, _request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(std::future::pending::<Result<_, FetchError>>())
    }
}

/// The namespace the process runs in; nothing is redirected to it.
#[derive(Debug)]
struct HostNet;

impl PodNet for HostNet {
    fn listen(&self, _role: ListenerRole) -> io::Result<Vec<std::net::TcpListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn original_destination(&self, _stream: &TcpStream) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn outgoing(&self, _source: Option<IpAddr>, _to: SocketAddr) -> io::Result<Outgoing> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
