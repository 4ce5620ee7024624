//! Weft's gateway process of the TLS benchmark: the proxy of one Gateway, with its configuration from a file instead of the
//! controller. Nobody gives it an identity: its backends are outside of the mesh.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_core::change::{Change, Resource};
use weft_core::gateway::{Certificate, GatewayRule, Listener, ListenerProtocol, PrivateKey};
use weft_core::identity::TrustDomain;
use weft_core::ids::{CertificateKey, GatewayKey, ListenerKey, Port, RouteKind, SecretKey};
use weft_core::route::Parent;
use weft_node_proxy::app::{GatewayProxy, GatewayProxySettings, Sources};
use weft_node_proxy::gateway::Progress;
use weft_node_proxy::plain::PlainConfig;
use weft_node_proxy::store::Store;
use weft_tls::{FetchFuture, SvidRequest, SvidSource, TrustBundle, TrustStore};

use crate::node::{self, Told};

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct GatewayFile {
    /// HTTPS listeners, each for the routes of the Service of its name.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// Those that speak HTTP/3, too.
    pub http3: Vec<String>,
    /// The Services, as `weft_node_proxy::plain` has them.
    pub services: Value,
    /// The certificate's chain.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The settings of the product's own process.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    proxy: GatewayProxySettings,
}

/// Serves until it is killed.
///
/// # Errors
/// When something doesn't start.
pub fn serve(path: &Path) -> Result<()> {
    let file: GatewayFile = serde_json::from_slice(&std::fs::read(path)?)?;
    let words = ["", "--gateway=bench/web", "--service-account=web-weft", "--pod=web", "--node=here", "--workers=1"];
    let Arguments { proxy } = Arguments::try_parse_from(words)?;
    let store = Arc::<Store>::default();
    store.apply(&file.changes(&proxy.gateway)?);
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    control.block_on(async {
        let sources = Sources {
            authority: Arc::new(Nobody),
            trust: TrustStore::new(TrustBundle::default()),
            trust_domain: TrustDomain::default(),
            store,
            engine: node::engine(&Told::default())?,
        };
        let progress = Progress::new(proxy.workers());
        GatewayProxy::start(proxy, sources, progress)?.run(std::future::pending()).await;
        Ok(())
    })
}

impl GatewayFile {
    fn changes(&self, gateway: &GatewayKey) -> Result<Vec<Change>> {
        let plain: PlainConfig = serde_json::from_value(json!({ "services": self.services }))?;
        // Rules of a Service become those of the listener of its name.
        let mut changes = plain.changes()?;
        for change in &mut changes {
            if let Change::Upsert(resource) = change
                && let Resource::Rule(rule) = resource
            {
                let listener = ListenerKey::new(gateway.clone(), rule.key().route.name.as_str());
                let rule = Arc::new(rule.attached_to(vec![Parent::Listener(listener)]));
                *resource = Resource::GatewayRule(Arc::new(GatewayRule { gateway: gateway.clone(), rule }));
            }
        }
        let certificate = CertificateKey::new(gateway.clone(), SecretKey::new("bench", "web"));
        let mut resources = vec![Resource::Certificate(Arc::new(Certificate {
            key: certificate.clone(),
            chain: std::fs::read(&self.chain)?,
            private_key: PrivateKey::new(std::fs::read(&self.key)?),
        }))];
        for (name, address) in &self.listeners {
            let key = ListenerKey::new(gateway.clone(), name.as_str());
            resources.push(Resource::Listener(Arc::new(Listener {
                key,
                addresses: vec![address.ip()],
                port: Port::new(address.port()).context("no port")?,
                hostname: None,
                protocol: ListenerProtocol::Https { certificates: vec![certificate.clone()] },
                kinds: vec![RouteKind::Http],
                client_validation: None,
                http3: self.http3.contains(name),
                policies: Vec::new(),
            })));
        }
        changes.extend(resources.into_iter().map(Change::Upsert));
        Ok(changes)
    }
}

/// Gives no certificate.
struct Nobody;

impl SvidSource for Nobody {
    fn fetch(&self, _: SvidRequest) -> FetchFuture<'_> {
        Box::pin(std::future::pending())
    }
}
