//! The proxies of the mesh, where they are, and the way to them: mutual TLS as the controller, to the identity that each pod
//! has by its ServiceAccount. Pods that only look like ours are never asked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{GatewayKey, Namespace, ServiceAccount};
use weft_kube::kube::api::ListParams;
use weft_kube::kube::{Api, Client};
use weft_tls::{ClientTls, ExpectedPeer};

use crate::kubernetes::gateways::MANAGED_BY;

/// How long the list of pods, and a connection to one, may take.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// The label by which the chart names its parts, and that of node proxies.
const PART: (&str, &str) = ("app.kubernetes.io/name", "weft-node-proxy");

/// A proxy that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `node n1`, or `gateway edge/web-weft-…` by its pod.
    pub name: Arc<str>,
    /// The address of its pod.
    pub address: IpAddr,
    /// Who it must be.
    pub identity: SpiffeId,
}

/// A connection to a proxy.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Connects to the port of a proxy where it serves taps.
pub type Dial = Arc<dyn Fn(Proxy) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Whose ServiceAccount it is, if a Gateway of the mesh's.
pub type OfGateway = Arc<dyn Fn(&Namespace, &ServiceAccount) -> Option<GatewayKey> + Send + Sync>;

/// Where proxies are.
#[derive(Clone)]
pub struct Places {
    /// The API server.
    pub client: Client,
    /// The mesh's namespace and the ServiceAccount of node proxies.
    pub account: (Namespace, ServiceAccount),
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Which other pods are proxies.
    pub of_gateway: OfGateway,
}

/// The proxies of the mesh.
#[derive(Clone)]
pub struct Proxies {
    places: Places,
    dial: Dial,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

impl Proxies {
    /// Found in these places, reached in this way.
    pub fn new(places: Places, dial: Dial) -> Self {
        Self { places, dial }
    }

    /// All that run and have an address.
    ///
    /// # Errors
    /// If pods can't be listed.
    pub async fn all(&self) -> Result<Vec<Proxy>, String> {
        let (namespace, _) = &self.places.account;
        let of_nodes = Api::namespaced(self.places.client.clone(), namespace.as_str());
        let of_gateways = Api::all(self.places.client.clone());
        let (nodes, gateways) = tokio::try_join!(pods(of_nodes, PART), pods(of_gateways, MANAGED_BY))?;
        let nodes = nodes.iter().filter_map(|pod| self.places.node(pod));
        Ok(nodes.chain(gateways.iter().filter_map(|pod| self.places.gateway(pod))).collect())
    }

    /// A connection to one, to the port where it serves taps.
    ///
    /// # Errors
    /// When it doesn't answer in time, or isn't who it should be.
    pub async fn dial(&self, proxy: &Proxy) -> io::Result<Box<dyn Io>> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        timeout(CONNECT, (self.dial)(proxy.clone())).await.map_err(|_| late())?
    }
}

/// Mutual TLS as `client`, to a port of the proxy's pod.
pub fn by_tls(client: ClientTls, port: u16) -> Dial {
    Arc::new(move |proxy| {
        let client = client.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(SocketAddr::new(proxy.address, port)).await?;
            tcp.set_nodelay(true)?;
            let expected = ExpectedPeer::one(proxy.identity);
            let (stream, _peer) = client.connect(tcp, proxy.address, &expected).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

async fn pods(api: Api<Pod>, (label, value): (&str, &str)) -> Result<Vec<Pod>, String> {
    // What the API server has in memory will do: who comes later is found at the next look.
    let params = ListParams::default().labels(&format!("{label}={value}")).match_any();
    match timeout(PATIENCE, api.list(&params)).await {
        Ok(Ok(list)) => Ok(list.items),
        Ok(Err(error)) => Err(format!("the proxies can't be listed: {error}")),
        Err(_elapsed) => Err("the proxies can't be listed: no answer in time".to_owned()),
    }
}

impl Places {
    fn node(&self, pod: &Pod) -> Option<Proxy> {
        let (_, account) = self.account_of(pod).filter(|(_, account)| *account == self.account.1)?;
        let node = pod.spec.as_ref()?.node_name.as_deref()?;
        self.proxy(pod, format!("node {node}"), &self.account.0, &account)
    }

    fn gateway(&self, pod: &Pod) -> Option<Proxy> {
        let (namespace, account) = self.account_of(pod)?;
        (self.of_gateway)(&namespace, &account)?;
        let name = format!("gateway {namespace}/{}", pod.metadata.name.as_deref()?);
        self.proxy(pod, name, &namespace, &account)
    }

    fn account_of(&self, pod: &Pod) -> Option<(Namespace, ServiceAccount)> {
        let account = pod.spec.as_ref()?.service_account_name.as_deref()?;
        Some((Namespace::new(pod.metadata.namespace.as_deref()?), ServiceAccount::new(account)))
    }

    fn proxy(&self, pod: &Pod, name: String, namespace: &Namespace, account: &ServiceAccount) -> Option<Proxy> {
        let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
        let address = status.pod_ip.as_deref()?.parse().ok()?;
        let identity = SpiffeId::new(self.trust_domain.clone(), namespace.as_str(), account.as_str());
        Some(Proxy { name: name.into(), address, identity })
    }
}

#[cfg(test)]
#[path = "tests/proxies.rs"]
mod tests;
