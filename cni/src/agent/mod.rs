//! The node agent: takes pods from the CNI plugin, gives them to the node proxy, and keeps their rules.
//!
//! ```text
//!   plugin ADD --> decide --> rules: closed --> proxy: Add + netns --> acknowledged --> rules: redirecting --> done
//!                    |                                |
//!                 outside: recorded, untouched     refused or silent: stays closed, ADD fails, the runtime tries again
//! ```
//!
//! Invariants:
//! - A pod that is enrolled when it is made never sends a byte past the proxy: it is closed before the proxy knows of it
//!   and opened by the transaction that redirects.
//! - A running pod that is enrolled later goes straight from untouched to redirecting, once a proxy serves it: it was in
//!   the clear a moment before, so closing it would only break it.
//! - A redirecting pod stays so, whatever happens to proxies: without one, connections are refused. Only root on the node can
//!   order otherwise ([`bypass`]).
//! - The agent can restart at any time: what it knows is on disk, what it set is compared and repaired.
//! - Which namespace a pod has is pinned by descriptor, device and inode, never by path alone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use weft_core::ids::{NodeName, SandboxId};
use weft_sys::Netns;

use crate::rules::Rules;

mod adopt;
pub mod bypass;
mod converge;
mod enrolment;
mod pod;
mod proxies;
mod reconcile;
mod route;
mod serve;
mod store;

pub use adopt::Running;
pub use enrolment::{Decision, Enrolled, EnrolmentSource, Outside, PodRef, Undecided};
pub use pod::{Counts, LocalPod, Protection};
pub use proxies::{Answer, Proxies};
pub use route::sources_towards;
pub use store::{is_container_id, write_atomically};

use pod::{Pod, PodState};
use store::Store;

/// Where the plugin finds the agent.
pub const PLUGIN_SOCKET: &str = "/run/weft/agent.sock";
/// Where the proxy finds the agent.
pub const PROXY_SOCKET: &str = "/run/weft/proxy.sock";
/// What the plugin reads when the agent is down.
pub const ENROLMENT_FILE: &str = "/run/weft/enrolment.json";
/// Where the plugin leaves notes of pods that it let pass when the agent was down.
pub const MISSED_DIR: &str = "/run/weft/missed";

/// How often a full disk is tried again.
const ROOM: Duration = Duration::from_secs(1);

/// Settings of the agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The node it runs on.
    pub node: NodeName,
    /// The plugin's socket.
    pub plugin_socket: PathBuf,
    /// The proxies' socket.
    pub proxy_socket: PathBuf,
    /// What survives a restart.
    pub state_dir: PathBuf,
    /// What the plugin reads when the agent is down; written by the agent.
    pub enrolment_file: PathBuf,
    /// What the plugin wrote while the agent was down.
    pub missed_dir: PathBuf,
    /// How long ADD waits for a decision.
    pub decide_deadline: Duration,
    /// How long ADD waits for a proxy to acknowledge.
    pub ack_deadline: Duration,
    /// How often every pod's rules are compared with what they should be. Changes are acted upon at once.
    pub verify_every: Duration,
    /// Where the runtime's namespaces are found by name, when the path that the plugin was given isn't visible here: the
    /// agent has file systems of its own.
    pub netns_dirs: Vec<PathBuf>,
    /// Where processes are shown.
    pub proc: PathBuf,
    /// Whether proxies are told where the node's own traffic to a pod comes from.
    pub node_addresses: bool,
}

impl AgentOptions {
    /// The defaults, for a node and a directory of state.
    pub fn new(node: NodeName, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            node,
            plugin_socket: PLUGIN_SOCKET.into(),
            proxy_socket: PROXY_SOCKET.into(),
            state_dir: state_dir.into(),
            enrolment_file: ENROLMENT_FILE.into(),
            missed_dir: MISSED_DIR.into(),
            decide_deadline: Duration::from_secs(5),
            ack_deadline: Duration::from_secs(10),
            verify_every: Duration::from_secs(120),
            netns_dirs: Vec::new(),
            proc: "/proc".into(),
            node_addresses: false,
        }
    }

    /// The same with sockets and files of the default names in another directory.
    #[must_use]
    pub fn in_directory(mut self, dir: &Path) -> Self {
        self.plugin_socket = dir.join("agent.sock");
        self.proxy_socket = dir.join("proxy.sock");
        self.enrolment_file = dir.join("enrolment.json");
        self.missed_dir = dir.join("missed");
        self
    }
}

/// The agent of one node.
pub struct Agent {
    options: AgentOptions,
    source: Arc<dyn EnrolmentSource>,
    rules: Rules,
    proxies: Proxies,
    store: Store,
    pods: Mutex<BTreeMap<SandboxId, Arc<Pod>>>,
    shown: watch::Sender<Arc<[LocalPod]>>,
    /// Asks the reconcile loop for a turn.
    again: Notify,
    /// The agent's own namespace: no pod.
    home: Netns,
}

impl Agent {
    /// Reads what a former agent left. Nothing is served or changed before [`run`](Self::run).
    ///
    /// # Errors
    /// When the state directory can't be used.
    pub fn open(options: AgentOptions, source: Arc<dyn EnrolmentSource>) -> io::Result<Arc<Self>> {
        let store = Store::open(&options.state_dir)?;
        let agent = Self {
            home: Netns::current()?,
            store,
            options,
            source,
            rules: Rules::default(),
            proxies: Proxies::default(),
            pods: Mutex::default(),
            shown: watch::Sender::new(Arc::from([])),
            again: Notify::new(),
        };
        agent.restore()?;
        Ok(Arc::new(agent))
    }

    /// Serves the plugin and the proxies and keeps every pod as it should be, until the future is dropped.
    ///
    /// # Errors
    /// When a socket can't be listened on. A full disk is waited for: an agent that ended would only be started again, later
    /// each time.
    pub async fn run(self: Arc<Self>) -> io::Result<()> {
        let proxies = when_there_is_room(|| self.proxies.serve(&self.options.proxy_socket)).await?;
        // The first round gives restored pods to `proxies` before any proxy can ask for its snapshot.
        self.reconcile(false).await;
        let plugin = when_there_is_room(|| self.clone().serve_plugin()).await?;
        let ((), (), ()) = tokio::join!(proxies, plugin, self.keep_reconciled());
        Ok(())
    }

    /// Every pod of this node that went through the plugin, in the mesh or not, for whoever makes endpoints of them.
    pub fn pods(&self) -> watch::Receiver<Arc<[LocalPod]>> {
        self.shown.subscribe()
    }

    /// How many pods are how well protected, for gauges.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.shown.borrow())
    }

    /// The proxies that are connected.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    fn lock_pods(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads records and opens their namespaces; drops those that are gone.
    fn restore(&self) -> io::Result<()> {
        for record in self.store.load()? {
            match self.open_again(&record) {
                Ok(netns) if netns.id() == record.netns_id() => {
                    let sandbox = record.sandbox.clone();
                    let pod = Pod::new(PodState::new(record, netns, true), &self.options.node);
                    self.lock_pods().insert(sandbox, Arc::new(pod));
                }
                opened => {
                    let found = opened.map_or_else(|e| e.to_string(), |netns| format!("it is {} now", netns.id()));
                    tracing::info!(pod = %record.pod, found, "a pod went away while the agent was down");
                    self.store.remove(&record.sandbox)?;
                }
            }
        }
        self.show();
        Ok(())
    }

    /// Publishes what is known of all pods, if it changed.
    fn show(&self) {
        let all: Arc<[LocalPod]> = self.lock_pods().values().map(|pod| pod.shown()).collect();
        self.shown.send_if_modified(|shown| {
            let changed = *shown != all;
            *shown = all;
            changed
        });
    }
}

/// What `listen` makes, as soon as the disk has room for its socket.
async fn when_there_is_room<T>(listen: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut said = false;
    loop {
        match listen() {
            Err(error) if weft_sys::is_disk_full(&error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::error!(%error, "the disk is full; the agent goes on when there is room");
                }
                tokio::time::sleep(ROOM).await;
            }
            done => return done,
        }
    }
}
