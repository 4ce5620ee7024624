//! Settings of `weft standalone`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use ipnet::IpNet;
use weft_ca::{DnsName, dns_name};
use weft_core::identity::{TrustDomain, TrustDomains};
use weft_core::ids::NodeName;
use weft_tls::RootHash;

/// Run a node of a mesh without Kubernetes. SIGHUP replaces the node proxy without breaking a connection; SIGTERM ends it
/// after its connections have drained.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Be the primary: serve the mesh that the manifests in this directory describe
    #[arg(long, conflicts_with = "join", required_unless_present = "join")]
    pub dir: Option<PathBuf>,
    /// Join the mesh of the primary at HOST:PORT
    #[arg(long)]
    pub join: Option<String>,
    /// The one-time token that lets this node join; `weft token` on the primary makes one. Not needed again after that
    #[arg(long, env = "WEFT_JOIN_TOKEN", requires = "root_hash")]
    pub token: Option<String>,
    /// SHA-256 of the mesh's root, as the primary prints it
    #[arg(long)]
    pub root_hash: Option<RootHash>,
    /// This node's name; the host's name if left out
    #[arg(long, env = "WEFT_NODE_NAME")]
    pub node: Option<String>,
    /// The zone this node is in
    #[arg(long, env = "WEFT_ZONE")]
    pub zone: Option<String>,
    /// Directory of everything that must survive a restart
    #[arg(long, env = "WEFT_STATE", default_value = "/var/lib/weft")]
    pub state: PathBuf,
    /// Directory of sockets
    #[arg(long, env = "WEFT_RUN", default_value = "/run/weft")]
    pub run: PathBuf,
    /// Where the primary listens for nodes
    #[arg(long, default_value = "[::]:15012")]
    pub listen: SocketAddr,
    /// Range for Services' addresses; one of each family at most
    #[arg(long = "service-range", default_values = ["10.96.0.0/16", "fd00:10:96::/112"])]
    pub service_ranges: Vec<IpNet>,
    /// Range of pods' addresses: one that nobody knows yet is waited for, then refused, instead of passed through
    #[arg(long = "pod-range")]
    pub pod_ranges: Vec<IpNet>,
    /// The mesh's trust domain; if left out, cluster.local on a primary, and on a node that joined what it was then
    #[arg(long)]
    pub trust_domain: Option<TrustDomain>,
    /// Another name that counts as the trust domain, while that is changed; may be repeated
    #[arg(long = "trust-domain-alias")]
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// A DNS name that the primary's certificate also carries, for agents of another mesh with the same root that know
    /// their authority by name, such as Istio's; may be repeated
    #[arg(long = "ca-dns-name", value_parser = dns_name)]
    pub ca_dns_names: Vec<DnsName<'static>>,
    /// The DNS suffix of Services
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Address that clients reach this machine at, for the status of Gateways that ask for none; may be repeated
    #[arg(long = "gateway-address")]
    pub gateway_addresses: Vec<IpAddr>,
    /// Answer pods' DNS queries at this address; may be repeated
    #[arg(long = "dns")]
    pub dns: Vec<SocketAddr>,
    /// Where other names are asked for; those of /etc/resolv.conf if left out
    #[arg(long = "dns-upstream")]
    pub dns_upstreams: Vec<SocketAddr>,
    /// Append the CNI plugin to the first network configuration in this directory, such as /etc/cni/net.d; `weft uninstall
    /// --cni-dir` takes it out again
    #[arg(long)]
    pub cni_dir: Option<PathBuf>,
    /// Filter of the log, such as info or weft=debug,info
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub log: String,
    /// Options of the node proxy, as `weft node-proxy --help` lists them
    #[arg(last = true)]
    pub proxy: Vec<OsString>,
}

/// What a node is to its mesh.
#[derive(Clone, Debug)]
pub enum Role {
    /// Reads manifests and is its authority.
    Primary(PathBuf),
    /// Follows the primary at this address.
    Member(String),
}

impl Args {
    /// The mesh's trust domain with its aliases; `usual` if none is given.
    pub fn trust_domains(&self, usual: TrustDomain) -> TrustDomains {
        TrustDomains::new(self.trust_domain.clone().unwrap_or(usual), self.trust_domain_aliases.iter().cloned())
    }

    /// What to be.
    ///
    /// # Errors
    /// Mistakes that the command line's grammar lets pass.
    pub fn role(&self) -> anyhow::Result<Role> {
        let v4 = self.service_ranges.iter().filter(|range| range.addr().is_ipv4()).count();
        let v6 = self.service_ranges.len() - v4;
        ensure!(v4 <= 1 && v6 <= 1, "--service-range: more than one range of the same family");
        match (&self.dir, &self.join) {
            (Some(dir), _) => {
                ensure!(dir.is_dir(), "--dir {}: not a directory", dir.display());
                Ok(Role::Primary(dir.clone()))
            }
            (None, Some(address)) => {
                let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                ensure!(port.is_some(), "--join {address}: expected HOST:PORT, such as primary:15012");
                Ok(Role::Member(address.clone()))
            }
            (None, None) => bail!("either --dir or --join is needed"),
        }
    }

    /// This node's name.
    ///
    /// # Errors
    /// When it isn't given and the host has none.
    pub fn node_name(&self) -> anyhow::Result<NodeName> {
        if let Some(name) = &self.node {
            return Ok(NodeName::new(name));
        }
        let host = nix::unistd::gethostname().context("the host's name")?;
        let host = host.to_string_lossy().to_lowercase();
        Ok(NodeName::new(host.split('.').next().unwrap_or_default()))
    }
}
