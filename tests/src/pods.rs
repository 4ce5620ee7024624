//! A container runtime in miniature: Pod manifests become network namespaces with a server in each.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use weft_testkit::servers::{Behaviour, Server, any, http, tcp};
use weft_testkit::{Attachment, Netns};

/// The port of HTTP servers.
const HTTP_PORT: u16 = 8080;
/// The port of gRPC servers.
const GRPC_PORT: u16 = 9000;
/// The port of plain TCP servers.
const TCP_PORT: u16 = 5432;

/// What a manifest says of a pod.
#[derive(Clone, Debug)]
pub struct PodManifest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is for.
    pub node: String,
    /// What it runs: `http`, `grpc`, `tcp`, or `client` for nothing.
    pub kind: String,
}

/// A pod that runs.
#[derive(Debug)]
pub struct RunningPod {
    /// What it is.
    pub manifest: PodManifest,
    /// Its namespace of the network.
    pub netns: Netns,
    /// For the CNI chain.
    pub attachment: Attachment,
    /// Its addresses, as the chain gave them.
    pub ips: Vec<IpAddr>,
    /// Its server.
    pub server: Option<Server>,
}

impl RunningPod {
    /// Its IPv4 address with a port.
    ///
    /// # Errors
    /// When it has none.
    pub fn addr(&self, port: u16) -> Result<SocketAddr> {
        let ip = self.ips.iter().find(|ip| ip.is_ipv4()).context("no IPv4 address")?;
        Ok(SocketAddr::new(*ip, port))
    }

    /// Starts what its manifest says.
    ///
    /// # Errors
    /// When the server can't listen, or the manifest says something unknown.
    pub fn start(&mut self) -> Result<()> {
        let name = &self.manifest.name;
        self.server = match self.manifest.kind.as_str() {
            "http" => Some(http(&self.netns, name, any(HTTP_PORT))?),
            "grpc" => Some(http(&self.netns, name, any(GRPC_PORT))?),
            "tcp" => Some(tcp(&self.netns, name, any(TCP_PORT), Behaviour::Banner)?),
            "client" => None,
            other => bail!("pod {name}: nothing is known as {other:?}"),
        };
        Ok(())
    }
}

/// The pods of all manifests in a directory, in the order of file names.
///
/// # Errors
/// When a file can't be read or parsed.
pub fn pod_manifests(dir: &Path) -> Result<Vec<PodManifest>> {
    let mut files: Vec<_> = std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut pods = Vec::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "yaml")) {
        for document in serde_norway::Deserializer::from_str(&std::fs::read_to_string(file)?) {
            let value = Value::deserialize(document).with_context(|| file.display().to_string())?;
            if value["kind"] == "Pod" {
                pods.push(pod(&value).with_context(|| format!("a Pod in {}", file.display()))?);
            }
        }
    }
    Ok(pods)
}

fn pod(value: &Value) -> Result<PodManifest> {
    let text = |pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        found.with_context(|| format!("{pointer} is missing"))
    };
    Ok(PodManifest {
        namespace: text("/metadata/namespace")?,
        name: text("/metadata/name")?,
        node: text("/spec/nodeName")?,
        kind: text("/spec/containers/0/args/0")?,
    })
}

/// The addresses in a CNI result.
pub(crate) fn ips(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().with_context(|| format!("no addresses in {result}"))?;
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    ips.iter().map(|ip| address(ip).with_context(|| format!("not an address: {ip}"))).collect()
}
