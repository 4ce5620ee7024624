//! One node proxy: everything put together, from start to drain.
//!
//! ```text
//!   control runtime: agent link, manager, configuration, certificates, handover, saved configuration
//!   workers:         connections
//! ```

mod gateway;
mod inherit;
mod settings;

use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::NodeName;
use weft_sys::SeqPacketListener;
use weft_tls::{CertManager, CertStore, Clock, IdentityLease, ManagerSettings, SvidSource, TlsSettings, TrustStore};

use crate::budget::NodeBudget;
use crate::gateway::{Gateways, Progress};
use crate::handover::{HandoverError, give_up_to_successor, nobody_serves};
use crate::inpod::{InpodClient, LinkState, Manager, follow_agent};
use crate::store::{SavedFile, Store};
use crate::telemetry::{Alive, ProcessMetrics};
use crate::worker::{Command, Engine, Node, WorkerHandle, Workers};

use inherit::{inherit, listen_when_there_is_room};

pub use gateway::{GatewayProxy, GatewayProxySettings};
pub use settings::{InvalidSettings, Settings, Sizing};

/// How often a drain looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);
/// How often series are looked through for those of what is gone; they go after two looks.
const RETAIN: Duration = Duration::from_secs(60);
/// Events of the agent that may wait: it sends one pod after the other.
const AGENT_QUEUE: usize = 8;

/// What a proxy needs from outside.
pub struct Sources {
    /// Where certificates come from.
    pub authority: Arc<dyn SvidSource>,
    /// Roots of the mesh; whoever made the authority keeps them up to date.
    pub trust: TrustStore,
    /// The trust domain of the pods' identities.
    pub trust_domain: TrustDomain,
    /// Configuration; whoever made it applies changes to it.
    pub store: Arc<Store>,
    /// Telemetry and HTTP.
    pub engine: Arc<dyn Engine>,
}

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Threads, sockets or files.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A process runs that doesn't give up its pods: two can't listen in them.
    #[error("the node proxy that runs can't be replaced; it goes on serving: {0}")]
    Handover(#[from] HandoverError),
}

/// A running node proxy.
pub struct Proxy {
    /// What workers share.
    pub node: Arc<Node>,
    /// The pods.
    pub manager: Arc<Manager>,
    identities: CertManager,
    workers: Workers,
    handover: Option<SeqPacketListener>,
    agent: JoinHandle<()>,
    agent_link: watch::Receiver<LinkState>,
    saving: Option<JoinHandle<()>>,
    limits: JoinHandle<()>,
    telemetry: JoinHandle<()>,
    replaced: CancellationToken,
    displaced: CancellationToken,
    settings: Settings,
}

/// Why a proxy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A successor accepts on its sockets; its own connections may go on for long.
    Replaced,
    /// It was told to.
    Stopped,
}

impl Proxy {
    /// Starts, as the successor of a process that runs already or from nothing; `progress` is told how far the workers are with
    /// listening for Gateways. Must be called on the control runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: Settings, sources: Sources, progress: Progress) -> Result<Self, StartError> {
        let certificates = CertStore::new(sources.trust.clone(), Clock::system(), TlsSettings::default());
        let control = Handle::current();
        let identities = CertManager::new(certificates.clone(), sources.authority, ManagerSettings::default(), control);
        let sizing = settings.sizing();
        let node = Arc::new(Node {
            name: settings.node.clone(),
            store: sources.store,
            certificates,
            budget: NodeBudget::new(sizing.max_connections, sizing.defaults),
            addresses: settings.node_address.iter().map(IpAddr::to_canonical).collect(),
            gateways: Gateways::all(identities.clone(), progress),
            limits: settings.limits(),
        });
        let workers = Workers::start(&node, &sources.engine, settings.workers())?;
        let manager = Arc::new(Manager::new(Arc::clone(&node), Arc::clone(workers.handles()), identities.clone()));
        let handover = inherit(&settings.handover_socket, &node, &manager).await?;
        let limits = tokio::spawn({
            let manager = Arc::clone(&manager);
            async move { manager.follow_limits().await }
        });
        let telemetry = tokio::spawn(retain_telemetry(Arc::clone(&node), Arc::clone(&manager), sources.engine));
        let saved = settings.saved_config.clone().map(SavedFile::new);
        let saving = saved.map(|file| tokio::spawn(file.follow(Arc::clone(&node.store))));
        let (client, agent_link) = InpodClient::new(settings.agent_socket.clone(), env!("CARGO_PKG_VERSION"));
        let served = Arc::clone(&manager);
        let agent = tokio::spawn(serve_agent(client, settings.node.clone(), served, sources.trust_domain));
        let (replaced, displaced) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self {
            node,
            manager,
            identities,
            workers,
            handover,
            agent,
            agent_link,
            saving,
            limits,
            telemetry,
            replaced,
            displaced,
            settings,
        })
    }

    /// The workers, to see what they have to do.
    pub fn workers(&self) -> &Arc<[WorkerHandle]> {
        self.workers.handles()
    }

    /// Keeps a certificate of an identity beside those of the pods, for as long as the lease lives.
    pub fn lease(&self, identity: &SpiffeId) -> IdentityLease {
        self.identities.lease(identity)
    }

    /// How the conversation with the node's agent stands.
    pub fn agent_link(&self) -> watch::Receiver<LinkState> {
        self.agent_link.clone()
    }

    /// Cancelled when a successor has taken over: what there can be only one of on a node is the successor's from then on.
    pub fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    /// Cancelled when a successor has taken over that shares our network namespace: our ports are its from then on. One
    /// in another container has its own.
    pub fn displaced(&self) -> CancellationToken {
        self.displaced.clone()
    }

    /// The metrics of the process, for the admin page.
    pub fn metrics(&self) -> ProcessMetrics {
        ProcessMetrics::new(Arc::clone(&self.node), Arc::clone(&self.manager))
    }

    /// Runs until `stop` resolves or a successor has taken over, then until its connections have ended or the deadline
    /// for that has passed.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Ending {
        tokio::pin!(stop);
        let told = tokio::select! {
            () = self.replacement() => Ending::Replaced,
            () = &mut stop => Ending::Stopped,
        };
        let ending = match told {
            Ending::Replaced => Ending::Replaced,
            Ending::Stopped => self.await_successor().await,
        };
        // A successor has its own conversation with the agent, its own socket for whoever comes after it, and saves the
        // configuration itself. Policy and certificates stay alive here too, for the connections that are open.
        self.agent.abort();
        self.handover = None;
        self.saving.iter().for_each(JoinHandle::abort);
        let deadline = match (ending, told) {
            (Ending::Replaced, Ending::Replaced) => self.settings.replaced_deadline,
            (Ending::Replaced, Ending::Stopped) => self.settings.replaced_stop_deadline,
            (Ending::Stopped, _) => self.settings.drain_deadline,
        };
        self.manager.stop_listening().await;
        for worker in self.workers.handles().iter() {
            worker.tell(Command::Drain);
        }
        tracing::info!(?ending, connections = self.workers.connections(), "draining for at most {deadline:?}");
        let told = self.drain(told, deadline, stop.as_mut()).await;
        self.limits.abort();
        self.telemetry.abort();
        let left = self.workers.connections();
        if left > 0 {
            tracing::warn!(connections = left, "ended under open connections");
        }
        self.workers.stop();
        let elsewhere = matches!(told, Ending::Replaced) && !self.displaced.is_cancelled();
        if let Some(path) = self.settings.handover_socket.filter(|_| elsewhere) {
            stand_by(&path, stop).await;
        }
        ending
    }

    /// Serves what is open to its end or the deadline. Says what it knows of its own end by then.
    async fn drain(&self, told: Ending, deadline: Duration, stop: Pin<&mut impl Future<Output = ()>>) -> Ending {
        if let Ending::Stopped = told {
            wait_until_idle(&self.workers, deadline).await;
            return told;
        }
        tokio::select! {
            () = wait_until_idle(&self.workers, deadline) => told,
            // Whoever replaces pods one by one ends the old one when the new one serves.
            () = stop => {
                let rest = self.settings.replaced_stop_deadline;
                tracing::info!(connections = self.workers.connections(), "told to end; draining for at most {rest:?}");
                wait_until_idle(&self.workers, rest.min(deadline)).await;
                Ending::Stopped
            }
        }
    }

    /// Waits until a successor has taken over.
    async fn replacement(&mut self) {
        let Some(path) = &self.settings.handover_socket else { return std::future::pending().await };
        let listener = match &mut self.handover {
            Some(listener) => listener,
            missing => missing.insert(listen_when_there_is_room(path).await),
        };
        let taken = give_up_to_successor(listener, &self.manager, &self.node.certificates).await;
        self.replaced.cancel();
        if taken.shares_our_network {
            self.displaced.cancel();
        }
    }

    /// Told to end, it serves on for a while in case that a successor is already starting: in between, pods would have
    /// nobody.
    async fn await_successor(&mut self) -> Ending {
        let patience = self.settings.successor_wait;
        if patience.is_zero() || self.handover.is_none() || self.manager.pods().is_empty() {
            return Ending::Stopped;
        }
        tracing::info!("told to end; a successor is waited for, for at most {patience:?}");
        match tokio::time::timeout(patience, self.replacement()).await {
            Ok(()) => Ending::Replaced,
            Err(_) => Ending::Stopped,
        }
    }
}

/// A container that ends by itself is started again, and would take everything back from its successor in another one.
/// So it stays until it is told to end, or until nobody serves: then it is wanted again.
async fn stand_by(socket: &Path, stop: impl Future<Output = ()>) {
    tracing::info!("nothing is left to do; standing by");
    tokio::select! {
        () = stop => {}
        () = nobody_serves(socket) => tracing::warn!("the successor is gone, and nobody took over from it"),
    }
}

async fn serve_agent(client: InpodClient, node: NodeName, manager: Arc<Manager>, trust_domain: TrustDomain) {
    let (events, received) = tokio::sync::mpsc::channel(AGENT_QUEUE);
    tokio::join!(client.run(events), follow_agent(&manager, received, &trust_domain, &node));
}

/// Series of what is gone go, so that metrics don't grow with the node's history.
async fn retain_telemetry(node: Arc<Node>, manager: Arc<Manager>, engine: Arc<dyn Engine>) {
    let mut tick = tokio::time::interval(RETAIN);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (pods, gateways) = (manager.pods(), node.gateways.pods());
        let local = pods.iter().chain(&gateways).map(|pod| &**pod.announced());
        engine.retain(&Alive::of(&node.store.load_full(), local));
        // A list of the whole cluster, for a moment.
        weft_sys::memory::give_back();
    }
}

async fn wait_until_idle(workers: &Workers, deadline: Duration) {
    let end = Instant::now() + deadline;
    while workers.connections() > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}
