//! The pods of this node: what the agent announces becomes listeners, a certificate and a place on the workers.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;
use weft_core::ids::WorkloadUid;
use weft_core::workload::Workload;
use weft_tls::CertManager;

use super::{ListenerRole, PodNet};
use crate::budget::Budget;
use crate::identify::Pod;
use crate::worker::{Command, Node, WorkerHandle, tell_all};
use weft_core::ids::SandboxId;

/// A pod as the node agent announces it.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// What the agent knows of it.
    pub workload: Arc<Workload>,
    /// Its network namespace.
    pub net: Arc<dyn PodNet>,
    /// Where the node's own traffic to it comes from: the kubelet's probes, and whatever else has that address.
    pub node_addresses: Vec<IpAddr>,
}

/// Why a pod can't be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for {role} in the namespace of {workload}: {source}", role = .role.as_str())]
pub struct AddError {
    workload: WorkloadUid,
    role: ListenerRole,
    source: io::Error,
}

/// A listening socket of a pod.
pub type Listener = (ListenerRole, TcpListener);

/// A pod with its listening sockets.
#[derive(Debug)]
pub struct Served {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its sockets.
    pub listeners: Vec<Listener>,
}

struct Held {
    pod: Arc<Pod>,
    worker: usize,
    /// Kept to hand them over to a successor: a listening socket closes with its last copy.
    listeners: Vec<Listener>,
}

/// Serves the pods that it is told of.
pub struct Manager {
    node: Arc<Node>,
    workers: Arc<[WorkerHandle]>,
    identities: CertManager,
    pods: Mutex<BTreeMap<SandboxId, Held>>,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Manager {
    /// A manager without pods.
    pub fn new(node: Arc<Node>, workers: Arc<[WorkerHandle]>, identities: CertManager) -> Self {
        Self { node, workers, identities, pods: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Serves a pod from now on. Announced again unchanged, it is left as it is. When this returns, its listeners are
    /// open; its certificate is on its way.
    ///
    /// # Errors
    /// When a listener can't be opened; then nothing of the pod is kept.
    pub async fn add(&self, announced: Announcement) -> Result<(), AddError> {
        self.add_with(announced, Vec::new()).await
    }

    /// As [`Self::add`], with listening sockets that a predecessor had open.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn add_with(&self, announced: Announcement, inherited: Vec<Listener>) -> Result<(), AddError> {
        let _turn = self.turn.lock().await;
        let known = self.pods.lock().get(&announced.sandbox).map(|held| Arc::clone(&held.pod));
        match known {
            Some(pod) if pod.is_as_announced(&announced.workload) => {
                pod.set_node_addresses(&announced.node_addresses);
                return Ok(());
            }
            Some(_) => self.remove_in_turn(&announced.sandbox).await,
            None => {}
        }
        let listeners = open(&announced, inherited)?;
        let pod = Arc::new(Pod::new(
            announced.sandbox.clone(),
            announced.workload,
            announced.net,
            &self.identities,
            Budget::new(Arc::clone(&self.node.budget)),
        ));
        pod.set_node_addresses(&announced.node_addresses);
        self.set_limits(&pod);
        tell_all(&self.workers, |done| Command::AddPod(Arc::clone(&pod), done)).await;
        let worker = self.idlest();
        if let Some(handle) = self.workers.get(worker) {
            let (done, mut all) = tokio::sync::mpsc::channel(1);
            for (role, listener) in &listeners {
                let copy = listener.try_clone().map_err(|source| add_error(&pod.uid, *role, source))?;
                handle.tell(Command::Listen(announced.sandbox.clone(), *role, copy, done.clone()));
            }
            drop(done);
            let _none = all.recv().await;
        }
        self.pods.lock().insert(announced.sandbox, Held { pod, worker, listeners });
        Ok(())
    }

    /// Serves a pod no more: its listeners close, its tunnels and connections end, its key is forgotten.
    pub async fn remove(&self, sandbox: &SandboxId) {
        let _turn = self.turn.lock().await;
        self.remove_in_turn(sandbox).await;
    }

    /// Removes every pod but these.
    pub async fn retain(&self, keep: &HashSet<SandboxId>) {
        let _turn = self.turn.lock().await;
        let gone: Vec<_> = self.pods.lock().keys().filter(|sandbox| !keep.contains(*sandbox)).cloned().collect();
        for sandbox in gone {
            self.remove_in_turn(&sandbox).await;
        }
    }

    async fn remove_in_turn(&self, sandbox: &SandboxId) {
        let held = self.pods.lock().remove(sandbox);
        tell_all(&self.workers, |done| Command::RemovePod(sandbox.clone(), done)).await;
        drop(held);
    }

    /// The pods that are served.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.lock().values().map(|held| Arc::clone(&held.pod)).collect()
    }

    /// The pods with copies of their listening sockets, for a successor.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn served(&self) -> io::Result<Vec<Served>> {
        let copy = |(role, listener): &Listener| Ok((*role, listener.try_clone()?));
        let pods = self.pods.lock();
        let served = pods.values().map(|held| {
            let listeners = held.listeners.iter().map(copy).collect::<io::Result<_>>()?;
            Ok(Served { pod: Arc::clone(&held.pod), listeners })
        });
        served.collect()
    }

    /// Accepts nothing any more: the sockets are another's, or the process ends. What is open goes on.
    pub async fn stop_listening(&self) {
        let _turn = self.turn.lock().await;
        let sandboxes: Vec<_> = self.pods.lock().keys().cloned().collect();
        for sandbox in sandboxes {
            tell_all(&self.workers, |done| Command::StopListening(sandbox.clone(), done)).await;
        }
        self.pods.lock().values_mut().for_each(|held| held.listeners.clear());
    }

    /// Keeps the pods' budgets as the configuration says, and what it said of them last; ends with the store.
    pub async fn follow_limits(&self) {
        let mut versions = self.node.store.subscribe();
        while versions.changed().await.is_ok() {
            self.pods().iter().for_each(|pod| self.set_limits(pod));
        }
    }

    fn set_limits(&self, pod: &Pod) {
        let snapshot = self.node.store.load();
        pod.remember(&snapshot);
        pod.budget.set_limits(snapshot.limits_for(&pod.workload(&snapshot)));
    }

    /// The worker that listens for the fewest pods.
    fn idlest(&self) -> usize {
        let pods = self.pods.lock();
        let listens = |worker: usize| pods.values().filter(|held| held.worker == worker).count();
        (0..self.workers.len()).min_by_key(|worker| listens(*worker)).unwrap_or_default()
    }
}

fn open(announced: &Announcement, inherited: Vec<Listener>) -> Result<Vec<Listener>, AddError> {
    let mut listeners = inherited;
    for role in ListenerRole::ALL {
        if listeners.iter().any(|(have, _)| *have == role) {
            continue;
        }
        let opened = announced.net.listen(role);
        let opened = opened.map_err(|source| add_error(&announced.workload.uid, role, source))?;
        listeners.extend(opened.into_iter().map(|listener| (role, listener)));
    }
    Ok(listeners)
}

fn add_error(workload: &WorkloadUid, role: ListenerRole, source: io::Error) -> AddError {
    AddError { workload: workload.clone(), role, source }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("pods", &self.pods.lock().keys()).finish_non_exhaustive()
    }
}
