//! The primary's task: the one place where the world changes, one batch at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_k8s::index::{IndexConfig, Output};
use weft_k8s::object::{Object, ObjectRef, StatusUpdate};
use weft_xds::server::Publisher;

use super::command::{Command, EnrolmentView, PrimaryHandle};
use super::listening::{Bound, Listening};
use super::tokens::write_private;
use super::world::{Saved, World};
use crate::publish::encode;

/// How long a node may be away before its pods count as not ready; as long as Kubernetes waits.
const NODE_GRACE: Duration = Duration::from_secs(40);
/// Requests that wait for the task; more make their senders wait.
const QUEUE: usize = 1024;

/// Changes of the manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// New or changed.
    pub applied: Vec<Object>,
    /// Gone.
    pub deleted: Vec<ObjectRef>,
    /// Told when they are published.
    pub published: Option<oneshot::Sender<()>>,
}

/// Settings of a primary.
#[derive(Clone, Debug)]
pub struct PrimarySettings {
    /// What the index needs.
    pub index: IndexConfig,
    /// Ranges for ClusterIPs, at most one of each family.
    pub service_ranges: Vec<IpNet>,
    /// Where addresses and pods are kept across restarts.
    pub state: PathBuf,
}

/// The task.
pub struct Primary {
    world: World,
    state: PathBuf,
    saved: Saved,
    snapshot: Arc<ArcSwap<Snapshot>>,
    publisher: Publisher,
    enrolment: watch::Sender<EnrolmentView>,
    commands: mpsc::Receiver<Command>,
    listening: watch::Receiver<Listening>,
    /// Until when what was heard of listeners counts.
    word_until: Option<Instant>,
    bound: watch::Sender<Bound>,
    away: HashMap<NodeName, Instant>,
}

impl Primary {
    /// A primary that goes on where the last one stopped.
    ///
    /// # Errors
    /// If the state can't be read: rather that than other addresses for the same Services.
    pub fn open(settings: PrimarySettings) -> anyhow::Result<(Self, PrimaryHandle)> {
        let file = settings.state.join("world.json");
        let saved = read_saved(&file)?;
        let world = World::new(settings.index, settings.service_ranges, saved.clone());
        let (sender, commands) = mpsc::channel(QUEUE);
        let (enrolment, enrolment_view) = watch::channel(EnrolmentView::default());
        let (listening, heard) = watch::channel(Listening::default());
        let (bound, told_bound) = watch::channel(Bound::new());
        let (snapshot, publisher) = (Arc::new(ArcSwap::default()), Publisher::default());
        let handle = PrimaryHandle {
            commands: sender,
            enrolment: enrolment_view,
            snapshot: Arc::clone(&snapshot),
            publisher: publisher.clone(),
            listening,
            bound: told_bound,
            expected: Arc::default(),
        };
        // Every node of the last run is away until it says otherwise.
        let away = saved.pods.iter().map(|pod| (pod.node.clone(), Instant::now())).collect();
        let primary = Self {
            world,
            state: file,
            saved,
            snapshot,
            publisher,
            enrolment,
            commands,
            listening: heard,
            word_until: None,
            bound,
            away,
        };
        Ok((primary, handle))
    }

    /// Runs until the last handle is gone. `statuses` is called with what changed, after it is published.
    pub async fn run(mut self, mut manifests: mpsc::Receiver<Manifests>, mut statuses: impl FnMut(Vec<StatusUpdate>)) {
        statuses(self.publish());
        loop {
            let mut published = None;
            let lost = self.away.values().min().map(|since| *since + NODE_GRACE);
            tokio::select! {
                // Edits first: a flood of reports must not hold them up.
                biased;
                Some(batch) = manifests.recv() => {
                    batch.deleted.iter().for_each(|reference| self.world.delete(reference));
                    batch.applied.into_iter().for_each(|object| self.world.apply(object));
                    self.note_enrolment();
                    published = batch.published;
                }
                Ok(()) = self.listening.changed() => {
                    let listening = self.listening.borrow_and_update().clone();
                    self.word_until = listening.until;
                    self.world.hear(listening);
                }
                () = sleep_until(self.word_until) => {
                    self.word_until = None;
                    self.world.hear(Listening::default());
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.execute(command),
                    None => return,
                },
                () = sleep_until(lost) => self.lose_nodes(),
            }
            while let Ok(command) = self.commands.try_recv() {
                self.execute(command);
            }
            let changed = self.publish();
            if !changed.is_empty() {
                statuses(changed);
            }
            // Whoever wanted to know may be gone.
            let _ = published.map(|done| done.send(()));
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::NodeUp { node, zone, pods } => {
                self.away.remove(&node);
                self.world.node_up(&node, zone, pods);
            }
            Command::NodeDown(node) => {
                self.away.insert(node, Instant::now());
            }
            Command::Attached(attachment) => self.world.attach(attachment),
            Command::Detached { node, namespace, name } => self.world.detach(&node, &(namespace, name)),
            Command::Decide { node, namespace, name, reply } => {
                let verdict = self.world.decide(&node, &(namespace, name), &self.snapshot.load());
                // The node may have given up waiting.
                let _ = reply.send(verdict);
            }
        }
    }

    fn lose_nodes(&mut self) {
        let now = Instant::now();
        let lost: Vec<_> =
            self.away.iter().filter(|(_, since)| **since + NODE_GRACE <= now).map(|(n, _)| n.clone()).collect();
        for node in lost {
            tracing::warn!(%node, "node is away: its pods are not ready");
            self.away.remove(&node);
            self.world.node_lost(&node);
        }
    }

    /// Publishes what is different and keeps what must survive.
    fn publish(&mut self) -> Vec<StatusUpdate> {
        let Output { changes, statuses } = self.world.commit();
        if !changes.is_empty() {
            self.snapshot.store(Arc::new(self.snapshot.load().apply(&changes)));
            self.world.published(self.publisher.publish(changes.iter().map(encode)));
        }
        self.bound.send_if_modified(|told| {
            let differs = *told != *self.world.bound();
            told.clone_from(self.world.bound());
            differs
        });
        let saved = self.world.saved();
        if saved != self.saved {
            match save(&self.state, &saved) {
                Ok(()) => self.saved = saved,
                Err(error) => tracing::error!(%error, file = %self.state.display(), "addresses are not kept"),
            }
        }
        statuses
    }

    /// Labels may have changed: agents ask again.
    fn note_enrolment(&mut self) {
        let namespaces_outside = self.world.namespaces_outside();
        self.enrolment.send_modify(|view| {
            view.revision += 1;
            view.namespaces_outside = namespaces_outside;
        });
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn read_saved(file: &Path) -> anyhow::Result<Saved> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Saved::default()),
        Err(error) => Err(error.into()),
    }
}

fn save(file: &Path, saved: &Saved) -> anyhow::Result<()> {
    Ok(write_private(file, &serde_json::to_vec_pretty(saved)?)?)
}

#[cfg(test)]
mod tests;
