//! Nodes joined by a wire, and pods on them, as a plain bridge CNI would lay them out.
//!
//! ```text
//!    pod netns            node netns                     wire netns                node netns
//!    eth0 ---- veth 1 -- [ bridge pods ]  eth0 ------- [ bridge wire ] ------- eth0  [ bridge pods ] ...
//!    10.244.N.P          10.244.N.1       172.31.0.N                        172.31.0.M
//!    fd00:10:244:N::P    fd00:10:244:N::1 fd00:172:31::N                    fd00:172:31::M
//! ```
//!
//! Nodes forward and know each other's pod ranges; nothing is translated, and nothing leads out. Tests that send to
//! an address of no pod (a ClusterIP) see it arrive at the node, which has no route for it: "network unreachable".

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;

use crate::netns::Netns;

/// Worlds of this process so far; part of every name.
static WORLDS: AtomicU32 = AtomicU32::new(0);
/// The most pods a node has addresses for.
const PODS_PER_NODE: u16 = 126;

/// A set of nodes and pods. Dropping it (and every clone of its pods) removes all of it.
#[derive(Debug)]
pub struct World {
    id: u32,
    wire: Netns,
    nodes: BTreeMap<String, Node>,
    pods: Mutex<BTreeMap<String, Pod>>,
}

/// What a [`World`] shall have.
#[derive(Debug, Default)]
pub struct WorldBuilder {
    nodes: Vec<String>,
    pods: Vec<(String, String)>,
}

/// A machine: forwards between its pods and the wire. Derefs to its [`Netns`].
#[derive(Clone, Debug)]
pub struct Node(Arc<NodeInner>);

#[derive(Debug)]
struct NodeInner {
    name: String,
    index: u8,
    netns: Netns,
    /// The last host part given to a pod; 1 is the bridge.
    last: Mutex<u16>,
}

/// A pod: one interface, one address of each family. Derefs to its [`Netns`].
#[derive(Clone, Debug)]
pub struct Pod(Arc<PodInner>);

#[derive(Debug)]
struct PodInner {
    name: String,
    node: String,
    netns: Netns,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl WorldBuilder {
    /// Adds a node.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.push(name.to_owned());
        self
    }

    /// Adds a pod to a node.
    #[must_use]
    pub fn pod(mut self, node: &str, name: &str) -> Self {
        self.pods.push((node.to_owned(), name.to_owned()));
        self
    }

    /// Brings it up.
    ///
    /// # Errors
    /// When a name is unknown or used twice, or the kernel refuses something.
    pub fn build(self) -> Result<World> {
        let id = WORLDS.fetch_add(1, Relaxed) + 1;
        let wire = Netns::create(&format!("w{id}-wire")).context("the wire (is this a netns_tests! binary?)")?;
        wire.ip(&["link add wire type bridge", "link set wire up"])?;
        let mut nodes = BTreeMap::new();
        for (index, name) in (1..).zip(&self.nodes) {
            let netns = Netns::create(&format!("w{id}-{name}"))?;
            let node = Node(Arc::new(NodeInner { name: name.clone(), index, netns, last: Mutex::new(1) }));
            node.connect(&wire)?;
            ensure!(nodes.insert(name.clone(), node).is_none(), "two nodes named {name}");
        }
        for node in nodes.values() {
            node.routes_to(nodes.values())?;
        }
        let world = World { id, wire, nodes, pods: Mutex::default() };
        for (node, pod) in &self.pods {
            world.add_pod(node, pod)?;
        }
        Ok(world)
    }
}

impl World {
    /// An empty description.
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// The usual world: nodes `n1` and `n2`; pods `a` and `b` on the first, `c` and `d` on the second.
    ///
    /// # Errors
    /// As [`WorldBuilder::build`].
    pub fn two_nodes() -> Result<Self> {
        let builder = Self::builder().node("n1").node("n2");
        builder.pod("n1", "a").pod("n1", "b").pod("n2", "c").pod("n2", "d").build()
    }

    /// The node of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// The pod of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn pod(&self, name: &str) -> Pod {
        let pods = self.pods.lock();
        pods.get(name).cloned().unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// The segment all nodes hang on: an address here reaches them like a router or an outside client would.
    pub fn wire(&self) -> &Netns {
        &self.wire
    }

    /// Starts another pod.
    ///
    /// # Errors
    /// When the name is used, the node unknown or full, or the kernel refuses something.
    pub fn add_pod(&self, node: &str, name: &str) -> Result<Pod> {
        let node = self.nodes.get(node).with_context(|| format!("no node {node}"))?;
        let netns = self.netns(name)?;
        let pod = Pod(Arc::new(node.attach(name, netns)?));
        self.pods.lock().insert(name.to_owned(), pod.clone());
        Ok(pod)
    }

    /// A namespace for a pod that a CNI chain will wire up, with nothing but loopback.
    ///
    /// # Errors
    /// When the name is used or the kernel refuses.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        Netns::create(&format!("w{}-{name}", self.id))
    }

    /// Forgets a pod; it is gone once the caller's own clones and tasks are.
    pub fn remove_pod(&self, name: &str) {
        self.pods.lock().remove(name);
    }
}

impl Node {
    /// Its name in the world.
    pub fn node_name(&self) -> &str {
        &self.0.name
    }

    /// Its IPv4 address on the wire.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, 0, self.0.index)
    }

    /// Its IPv6 address on the wire.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, self.0.index.into())
    }

    /// The IPv4 range of its pods, of 24 bits.
    pub fn pod_range4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.0.index, 0)
    }

    /// The IPv6 range of its pods, of 64 bits.
    pub fn pod_range6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, self.0.index.into(), 0, 0, 0, 0)
    }

    fn connect(&self, wire: &Netns) -> Result<()> {
        let (index, name) = (self.0.index, self.0.netns.name());
        wire.ip(&[
            format!("link add node{index} type veth peer name eth0 netns {name}"),
            format!("link set node{index} master wire up"),
        ])?;
        let gateway6 = Ipv6Addr::from_bits(self.pod_range6().to_bits() + 1);
        self.ip(&["link set eth0 up"])?;
        self.wait_carrier("eth0")?;
        self.ip(&[
            format!("addr add {}/24 dev eth0", self.ipv4()),
            format!("addr add {}/64 dev eth0 nodad", self.ipv6()),
            "link add pods type bridge".to_owned(),
            "link set pods up".to_owned(),
            format!("addr add {}/24 dev pods", Ipv4Addr::from_bits(self.pod_range4().to_bits() + 1)),
            format!("addr add {gateway6}/64 dev pods nodad"),
        ])?;
        self.wait_local(self.ipv6())?;
        self.sysctl("ipv4/ip_forward", "1")?;
        self.sysctl("ipv6/conf/all/forwarding", "1")
    }

    fn routes_to<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> Result<()> {
        let others = nodes.filter(|n| n.0.index != self.0.index);
        let routes = others.flat_map(|n| {
            [
                format!("route add {}/24 via {}", n.pod_range4(), n.ipv4()),
                format!("route add {}/64 via {}", n.pod_range6(), n.ipv6()),
            ]
        });
        self.ip(&routes.collect::<Vec<_>>())
    }

    fn attach(&self, name: &str, netns: Netns) -> Result<PodInner> {
        let host = {
            let mut last = self.0.last.lock();
            *last += 1;
            *last
        };
        ensure!(host <= PODS_PER_NODE, "node {} is full", self.0.name);
        let ipv4 = Ipv4Addr::from_bits(self.pod_range4().to_bits() + u32::from(host));
        let ipv6 = Ipv6Addr::from_bits(self.pod_range6().to_bits() + u128::from(host));
        self.ip(&[
            format!("link add pod{host} type veth peer name eth0 netns {}", netns.name()),
            format!("link set pod{host} master pods up"),
        ])?;
        netns.ip(&["link set eth0 up"])?;
        netns.wait_carrier("eth0")?;
        self.wait_carrier("pods")?;
        netns.ip(&[
            format!("addr add {ipv4}/24 dev eth0"),
            format!("addr add {ipv6}/64 dev eth0 nodad"),
            format!("route add default via {}", Ipv4Addr::from_bits(self.pod_range4().to_bits() + 1)),
            format!("route add default via {}", Ipv6Addr::from_bits(self.pod_range6().to_bits() + 1)),
        ])?;
        netns.wait_local(ipv6)?;
        Ok(PodInner { name: name.to_owned(), node: self.0.name.clone(), netns, ipv4, ipv6 })
    }
}

impl Pod {
    /// Its name in the world.
    pub fn pod_name(&self) -> &str {
        &self.0.name
    }

    /// The name of its node.
    pub fn node_name(&self) -> &str {
        &self.0.node
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.0.ipv4
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.0.ipv6
    }

    /// Its address of both families, IPv4 first: most tests run once for each.
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.0.ipv4.into(), self.0.ipv6.into()]
    }

    /// A port of it, over IPv4.
    pub fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.0.ipv4.into(), port)
    }

    /// A port of it, over IPv6.
    pub fn addr6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.0.ipv6.into(), port)
    }
}

impl Deref for Node {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0.netns
    }
}

impl Deref for Pod {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0.netns
    }
}
