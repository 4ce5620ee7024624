//! A probe through the node's data plane: a connection as a pod would make it.
//!
//! ```text
//!   client namespace, with a pod's rules                                server namespace
//!   connect 192.0.2.2 --redirected--> the node proxy's listener --dials--veth--> echo
//! ```
//!
//! What a success proves, on this node and at that moment: rules can be set in a pod's namespace; a proxy is connected,
//! has a configuration (without one it takes no pod) and opens listeners in a namespace that it is handed; a connection
//! is redirected to them; the proxy reads where it was going, finds that it belongs to nobody in the mesh, dials from the
//! pod's namespace with its mark and carries bytes both ways. That it wasn't simply a direct connection is seen from the
//! client's port, which the server would see.
//!
//! What it doesn't prove: certificates, tunnels to other nodes, traffic into a pod, routes and policies. Nothing of the
//! proxy's protocol with the agent could show those without a second pod in the mesh.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use weft_api::weft::agent::v1 as wire;
use weft_core::ids::{Name, Namespace, NodeName, SandboxId, ServiceAccount, WorkloadUid};
use weft_sys::sock::{self, Connect, Listen};
use weft_sys::{ErrorContext as _, Netns};

use crate::agent::{Answer, Proxies};
use crate::rules::{OlderFlows, RuleSet, Rules, RulesError};

/// For documentation, so in nobody's cluster (RFC 5737).
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PREFIX: u8 = 30;
/// Unprivileged: the agent may not have the right to bind lower ones. Nothing guesses a protocol by it.
const PORT: u16 = 15009;
/// The sandbox and the pod that the proxy sees; there is no pod of the name.
const NAME: &str = "weft-probe";
/// How long a proxy may take to open its listeners.
const ACK: Duration = Duration::from_secs(5);
/// How long the connection, there and back, may take.
const TALK: Duration = Duration::from_secs(5);
/// What is sent, and comes back.
const WORDS: &[u8; 16] = b"weft-probe-words";

/// Why the probe didn't go through.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The namespaces for it can't be made.
    #[error("the probe's namespaces can't be made: {0}")]
    Namespaces(#[from] io::Error),
    /// Rules can't be set.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The proxy didn't take it.
    #[error("{0}")]
    Proxy(Answer),
    /// The connection failed.
    #[error("a connection through the node proxy failed: {0}")]
    Connection(io::Error),
    /// It took too long.
    #[error("a connection through the node proxy took longer than {TALK:?}")]
    Silence,
    /// It went past the proxy.
    #[error("a connection went past the node proxy")]
    PastTheProxy,
}

/// Whom the probe pretends to be.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The node.
    pub node: NodeName,
    /// The mesh's namespace.
    pub namespace: Namespace,
    /// An account whose identity the node may have: the proxy asks for a certificate, as for any pod.
    pub account: ServiceAccount,
}

impl Probe {
    /// Probes once. Nothing is left of it but the kernel's own time to take the namespaces down.
    ///
    /// # Errors
    /// The first thing that doesn't work.
    pub async fn run(&self, proxies: &Proxies, rules: &Rules) -> Result<(), ProbeError> {
        let made = tokio::task::spawn_blocking(|| Ok::<_, io::Error>((Netns::create()?, Netns::create()?))).await;
        let (client, server) = made.map_err(io::Error::other)??;
        wire_up(&client, &server).await?;
        rules.apply(&client, RuleSet::Redirecting { older_flows: OlderFlows::Keep }).await?;
        let sandbox = SandboxId::new(NAME);
        proxies.offer(self.workload(), client.clone());
        let result = async {
            let answer = tokio::time::timeout(ACK, proxies.settled(&sandbox)).await;
            match answer.unwrap_or_else(|_| proxies.answer(&sandbox)) {
                Answer::Acked => talk(&client, &server).await,
                other => Err(ProbeError::Proxy(other)),
            }
        }
        .await;
        proxies.withdraw(&sandbox);
        result
    }

    fn workload(&self) -> wire::Workload {
        let name = Name::new(NAME);
        wire::Workload {
            sandbox: NAME.to_owned(),
            uid: WorkloadUid::of_pod(&self.namespace, &name).to_string(),
            pod: Some(wire::PodRef {
                namespace: self.namespace.to_string(),
                name: NAME.to_owned(),
                uid: String::new(),
            }),
            service_account: self.account.to_string(),
            ips: vec![CLIENT.to_string()],
            node: self.node.to_string(),
            node_addresses: Vec::new(),
        }
    }
}

async fn talk(client: &Netns, server: &Netns) -> Result<(), ProbeError> {
    let address = SocketAddr::new(SERVER.into(), PORT);
    let listener = TcpListener::from_std(sock::listen(Some(server), &Listen::new(address))?)?;
    let ask = async {
        let mut stream = sock::connect(Some(client), &Connect::default(), address).await?;
        let port = stream.local_addr()?.port();
        stream.write_all(WORDS).await?;
        let mut heard = [0; WORDS.len()];
        stream.read_exact(&mut heard).await?;
        Ok((port, heard))
    };
    let echo = async {
        let (mut stream, peer) = listener.accept().await?;
        let mut heard = [0; WORDS.len()];
        stream.read_exact(&mut heard).await?;
        stream.write_all(&heard).await?;
        // Open until the client has read: what it reads must not be an end.
        Ok((peer, stream))
    };
    let both = tokio::time::timeout(TALK, async { tokio::try_join!(ask, echo) }).await;
    let ((port, heard), (peer, _stream)) = both.map_err(|_| ProbeError::Silence)?.map_err(ProbeError::Connection)?;
    if heard != *WORDS {
        return Err(ProbeError::Connection(io::Error::other("other bytes came back")));
    }
    if peer.port() == port {
        return Err(ProbeError::PastTheProxy);
    }
    Ok(())
}

/// A wire between two namespaces, with an address at each end.
async fn wire_up(client: &Netns, server: &Netns) -> io::Result<()> {
    let (here, there) = (Link::open(client)?, Link::open(server)?);
    let failed = |what: &'static str| move |e: rtnetlink::Error| io::Error::other(format!("{what}: {e}"));
    let pair = LinkVeth::new("probe0", "probe1").build();
    here.handle.link().add(pair).execute().await.map_err(failed("make a pair of interfaces"))?;
    let moved = LinkUnspec::new_with_name("probe1").setns_by_fd(server.as_fd().as_raw_fd()).build();
    here.handle.link().set(moved).execute().await.map_err(failed("move an interface"))?;
    here.configure(client, "probe0", CLIENT.into()).await?;
    there.configure(server, "probe1", SERVER.into()).await
}

/// Netlink of a namespace, until dropped.
struct Link {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    fn open(netns: &Netns) -> io::Result<Self> {
        let (connection, handle, _) = netns.run(rtnetlink::new_connection)??;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    async fn configure(&self, netns: &Netns, name: &'static str, address: IpAddr) -> io::Result<()> {
        let failed = |e: rtnetlink::Error| io::Error::other(format!("set {name} up: {e}"));
        for interface in ["lo", name] {
            let up = LinkUnspec::new_with_name(interface).up().build();
            self.handle.link().set(up).execute().await.map_err(failed)?;
        }
        let index = netns.run(|| nix::net::if_::if_nametoindex(name))?.context(|| format!("find {name}"))?;
        self.handle.address().add(index, address, PREFIX).execute().await.map_err(failed)
    }
}
