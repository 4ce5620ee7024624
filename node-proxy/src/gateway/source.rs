//! A Gateway as the source of what it forwards.
//!
//! It has no certificate yet: it sends to workloads outside the mesh only, and what is enrolled is refused, because in the
//! clear it must never be reached ([`crate::connect::ConnectError::Outsider`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};
use weft_core::identity::SpiffeId;
use weft_core::ids::GatewayKey;
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_sys::sock::{self, Connect};
use weft_tls::{
    CertManager, CertStore, Clock, FetchError, FetchFuture, ManagerSettings, SvidRequest, SvidSource, TlsSettings,
    TrustBundle, TrustStore,
};

use crate::budget::Budget;
use crate::identify::Pod;
use crate::inpod::{ListenerRole, Outgoing, PodNet};
use crate::worker::Node;

/// The Gateway as a pod without a namespace of its own. Must be called inside a runtime.
pub(super) fn pod_of(node: &Node, gateway: &GatewayKey) -> Arc<Pod> {
    let (namespace, name) = (gateway.namespace.clone(), gateway.name.clone());
    // As the objects that are made for a Gateway in a cluster are named (GEP-1762).
    let account = format!("{name}-weft");
    let trust_domain = node.store.load().mesh().trust_domain.clone();
    let workload = Workload {
        uid: format!("Kubernetes//Gateway/{gateway}").into(),
        identity: SpiffeId::new(trust_domain, namespace.as_str(), account.as_str()),
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
    };
    // Its own store: nothing of the mesh's is found in it.
    let store = CertStore::new(TrustStore::new(TrustBundle::default()), Clock::system(), TlsSettings::default());
    let runtime = tokio::runtime::Handle::current();
    let manager = CertManager::new(store, Arc::new(NoAuthority), ManagerSettings::default(), runtime);
    let sandbox = format!("gateway/{gateway}").into();
    Arc::new(Pod::new(
        sandbox,
        Arc::new(workload),
        Arc::new(MachineNet),
        &manager,
        Budget::new(Arc::clone(&node.budget)),
    ))
}

/// Nobody issues certificates to Gateways yet.
struct NoAuthority;

impl SvidSource for NoAuthority {
    fn fetch(&self, _request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(std::future::pending::<Result<_, FetchError>>())
    }
}

/// The namespace the process runs in; nothing is redirected to it.
#[derive(Debug)]
struct MachineNet;

impl PodNet for MachineNet {
    fn in_mesh(&self) -> bool {
        false
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
        Ok(Outgoing { socket: TcpSocket::from_std_stream(socket.into()), to })
    }
}
