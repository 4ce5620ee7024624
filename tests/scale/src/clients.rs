//! Simulated nodes: delta xDS clients as the node proxy has them, with its TLS and its tokens, that count instead of apply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use weft_control::{TokenSource, authorize, channel};
use weft_core::wire;
use weft_tls::{Clock, ControlClient, ExpectedServer, ServerTrust, TrustBundle, TrustStore};
use weft_xds::client::{Client, Handle, Rejection, Settings, Sink, Transport};
use weft_xds::{TypeUrl, Update};

use crate::objects::{MESH, node_name};
use crate::programs::Programs;

/// All of them.
pub struct Clients {
    handles: Vec<Handle>,
    awaited: Arc<RwLock<String>>,
    seen: Mutex<mpsc::UnboundedReceiver<(usize, Instant)>>,
    _tasks: JoinSet<()>,
}

impl Clients {
    /// Starts so many, each another node.
    pub fn connect(programs: &Programs, count: usize) -> anyhow::Result<Self> {
        let trust = TrustStore::new(TrustBundle::from_pem("cluster.local".parse()?, &programs.roots()?)?);
        let expected = ExpectedServer::Account { namespace: MESH.into(), service_account: "weft-controller".into() };
        let tls = ControlClient::new(ServerTrust::Bundle(trust), expected, Clock::system())?;
        let awaited = Arc::<RwLock<String>>::default();
        let (sender, seen) = mpsc::unbounded_channel();
        let (mut handles, mut tasks) = (Vec::new(), JoinSet::new());
        for number in 0..count {
            let settings = Settings {
                node: node_name(number),
                agent: (env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into()),
                types: wire::TYPE_URLS.iter().map(TypeUrl::new).collect(),
            };
            let control =
                Control { address: "127.0.0.1:15010".into(), tls: tls.clone(), token: programs.token(number) };
            let sink = Counter { number, awaited: Arc::clone(&awaited), seen: sender.clone() };
            let (client, handle) = Client::new(settings, control, sink);
            handles.push(handle);
            tasks.spawn(client.run());
        }
        Ok(Self { handles, awaited, seen: Mutex::new(seen), _tasks: tasks })
    }

    /// Waits until each has everything.
    pub async fn synced(&self, patience: Duration) -> anyhow::Result<()> {
        for handle in &self.handles {
            let mut status = handle.status.clone();
            let synced = tokio::time::timeout(patience, status.wait_for(|s| s.synced)).await;
            let said = handle.status.borrow().last_error.clone();
            synced.with_context(|| format!("a client has no configuration: {said:?}"))??;
        }
        // The last response of the last type is answered; let what is behind it come, too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// Begins to wait for a resource of this name; one edit at a time.
    pub async fn expect(&self, name: &str) {
        let mut seen = self.seen.lock().await;
        while seen.try_recv().is_ok() {}
        name.clone_into(&mut self.awaited.write());
    }

    /// When the last client took it.
    pub async fn all_took_it(&self, patience: Duration) -> anyhow::Result<Instant> {
        let mut seen = self.seen.lock().await;
        let mut took = vec![None; self.handles.len()];
        let mut left = took.len();
        let deadline = tokio::time::Instant::now() + patience;
        while left > 0 {
            let next = tokio::time::timeout_at(deadline, seen.recv()).await;
            let (number, at) = next.with_context(|| format!("{left} clients never got an edit"))?.context("ended")?;
            left -= usize::from(took[number].replace(at).is_none());
        }
        took.into_iter().flatten().max().context("no clients")
    }
}

/// Takes everything and says when it took what is awaited. The ACK is sent as soon as this returns.
struct Counter {
    number: usize,
    awaited: Arc<RwLock<String>>,
    seen: mpsc::UnboundedSender<(usize, Instant)>,
}

impl Sink for Counter {
    async fn apply(&mut self, updates: Vec<Update>) -> Vec<Rejection> {
        let found = {
            let awaited = self.awaited.read();
            updates.iter().any(|update| *update.name().name == **awaited)
        };
        if found {
            // Nobody waits at the end.
            let _ = self.seen.send((self.number, Instant::now()));
        }
        Vec::new()
    }
}

struct Control {
    address: String,
    tls: ControlClient,
    token: TokenSource,
}

impl Transport for Control {
    async fn connect(&self) -> Result<Channel, Status> {
        Ok(channel(self.address.clone(), self.tls.clone()))
    }

    fn authorize(&self, request: &mut MetadataMap) -> Result<(), Status> {
        authorize(&self.token, request)
    }
}
