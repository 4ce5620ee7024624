//! Pairs of proxies between two pods on two nodes.
//!
//! Each pair has a client pod on the first node, a server pod with a backend of its own on the second, and the same wire in
//! between (veth and bridges). The client dials a ClusterIP, which the client pod's namespace redirects to the proxy, in
//! Weft's case by the product's own rules. The proxies use sockets in the pods, as Weft does and as a sidecar would.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use weft_testkit::{Pod, World};

use crate::envoy::{BYTES, Between, HTTP};
use crate::files::{BACKEND_PORT, CLIENT, Files, SERVER};
use crate::node::{NodeFile, PodFile, Told};
use crate::programs::{Front, Peer, Program, Spec};

/// Where the client dials, and routes apply.
const SERVICE: SocketAddr = service(1);
/// Where Envoy's clients dial for bytes. Weft's dial the server pod's own address, to which no route applies.
const SERVICE_BYTES: SocketAddr = service(2);

const fn service(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, last)), 80)
}

/// Two nodes with pods for each pair.
#[derive(Debug)]
pub struct Pairs {
    world: World,
    backends: Vec<Peer>,
}

impl Pairs {
    /// Two nodes without pods.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let world = World::builder().node("n1").node("n2").build()?;
        Ok(Self { world, backends: Vec::new() })
    }

    /// Two pods, and a backend in the second.
    ///
    /// # Errors
    /// When one of them can't be made.
    pub fn pods(&mut self, files: &Files, name: &str, core: usize) -> Result<(Pod, Pod)> {
        let client = self.world.add_pod("n1", &format!("{name}-c"))?;
        let server = self.world.add_pod("n2", &format!("{name}-s"))?;
        for pod in [&client, &server] {
            pod.sysctl("ipv4/ip_local_port_range", "12000 65535")?;
        }
        // On every address: Envoy and Weft dial the pod's own.
        let backend = files.backend((*server).clone(), server.ipv4().into())?;
        self.backends.push(Peer::start(backend, core).context("a backend")?);
        Ok((client, server))
    }
}

/// Envoy on both sides. `file` names its configurations.
///
/// # Errors
/// When its configurations can't be written or the kernel refuses the redirection.
pub fn envoy(
    name: &'static str,
    files: &Files,
    (client, server): (Pod, Pod),
    (file, between): (&str, Between),
) -> Result<Spec> {
    client.exec("nft add table ip mesh")?;
    client.exec("nft add chain ip mesh output { type nat hook output priority -100 ; }")?;
    for (service, listener) in [(SERVICE, HTTP), (SERVICE_BYTES, BYTES)] {
        let (ip, from, to) = (service.ip(), service.port(), listener.port());
        client.exec(&format!("nft add rule ip mesh output ip daddr {ip} tcp dport {from} redirect to :{to}"))?;
    }
    let [server_words, client_words] = files.envoy_pair(file, between, server.ipv4().into())?;
    let front = |addr| Front { from: (*client).clone(), addr, authority: None };
    let programs = vec![
        Program { netns: (*server).clone(), words: server_words },
        Program { netns: (*client).clone(), words: client_words },
    ];
    Ok(Spec { name, h1: front(SERVICE), h2: None, tcp: Some(front(SERVICE_BYTES)), programs })
}

/// Weft on both sides: `program` twice. `file` names its configurations.
///
/// # Errors
/// When its configurations can't be written.
pub fn weft(
    name: &'static str,
    files: &Files,
    pods: (Pod, Pod),
    (file, program, http_policy): (&str, &Path, bool),
) -> Result<Spec> {
    telling(name, files, pods, (file, program, http_policy), &Told::default())
}

/// The same with what is told of requests.
///
/// # Errors
/// When its configurations can't be written.
pub fn telling(
    name: &'static str,
    files: &Files,
    (client, server): (Pod, Pod),
    (file, program, http_policy): (&str, &Path, bool),
    told: &Told,
) -> Result<Spec> {
    let mut programs = Vec::new();
    for (own, pod) in [(SERVER, &server), (CLIENT, &client)] {
        let pods = BTreeMap::from([(CLIENT, &client), (SERVER, &server)].map(|(n, p)| (n.to_owned(), PodFile::of(p))));
        let config = NodeFile {
            own: own.to_owned(),
            netns: pod.path(),
            pods,
            service: SERVICE,
            backend_port: BACKEND_PORT,
            http_policy,
            authority: files.folder().to_owned(),
            told: told.clone(),
        };
        let path = files.write(&format!("{file}-{own}.json"), serde_json::to_vec(&config)?)?;
        let words = vec![program.to_string_lossy().into_owned(), "--serve-node".to_owned(), path];
        // Where it starts doesn't matter: it opens its sockets in the pod.
        programs.push(Program { netns: weft_testkit::Netns::here(), words });
    }
    let front = |addr| Front { from: (*client).clone(), addr, authority: None };
    Ok(Spec { name, h1: front(SERVICE), h2: None, tcp: Some(front(server.addr(BACKEND_PORT))), programs })
}

/// The backend without anything in front.
pub fn direct((client, server): &(Pod, Pod)) -> Front {
    Front { from: (**client).clone(), addr: server.addr(BACKEND_PORT), authority: None }
}
