//! The node's configuration: one writer, any number of readers that never wait.

mod disk;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weft_core::change::Change;
use weft_core::snapshot::Snapshot;

pub use disk::{InvalidFile, SavedFile, from_bytes, to_bytes};

/// The current snapshot, and a signal when there is a newer one.
#[derive(Debug)]
pub struct Store {
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    changed: Mutex<Instant>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Snapshot::default())
    }
}

impl Store {
    /// A store that starts with a snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            version: watch::Sender::new(0),
            changed: Mutex::new(Instant::now()),
        }
    }

    /// The latest snapshot, for the time of one decision: never held across an await.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The latest snapshot, to keep.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Applies changes as one step. One caller at a time: the task that reads the [`ConfigSource`].
    pub fn apply(&self, changes: &[Change]) {
        let next = self.snapshot.load().apply(changes);
        self.snapshot.store(Arc::new(next));
        *self.changed.lock() = Instant::now();
        self.version.send_modify(|version| *version += 1);
    }

    /// How many changes were applied.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Since the last change was applied, or since there is a store.
    pub fn age(&self) -> Duration {
        self.changed.lock().elapsed()
    }

    /// Learns of changes: the number grows with each.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Applies what comes from a source until it ends.
    pub async fn follow(&self, mut source: ConfigSource) {
        while let Some(batch) = source.0.recv().await {
            self.apply(&batch.changes);
            // Nobody waits for the acknowledgement any more: then it is of no use.
            let _ = batch.applied.send(self.version());
        }
    }
}

/// Changes to apply as one step.
#[derive(Debug)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
    /// Told when every new decision sees them: the store's version from then on.
    pub applied: oneshot::Sender<u64>,
}

/// Where configuration comes from.
#[derive(Debug)]
pub struct ConfigSource(mpsc::Receiver<Batch>);

/// The other end of a [`ConfigSource`].
#[derive(Clone, Debug)]
pub struct ConfigSink(mpsc::Sender<Batch>);

impl ConfigSource {
    /// A source and its sink, which holds a few batches back before it makes the sender wait.
    pub fn channel() -> (ConfigSink, Self) {
        let (sender, receiver) = mpsc::channel(4);
        (ConfigSink(sender), Self(receiver))
    }
}

impl ConfigSink {
    /// Sends changes and waits until they are applied; returns the version of the store that has them. `None` when the proxy
    /// is gone.
    pub async fn apply(&self, changes: Vec<Change>) -> Option<u64> {
        let (applied, done) = oneshot::channel();
        self.0.send(Batch { changes, applied }).await.ok()?;
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::change::{MeshConfig, Resource};

    #[tokio::test]
    async fn an_acknowledged_change_is_seen_by_every_later_decision() {
        let store = Arc::new(Store::default());
        let (sink, source) = ConfigSource::channel();
        let follower = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.follow(source).await }
        });
        let mut version = store.subscribe();
        let mesh = MeshConfig { force_wire: true, ..MeshConfig::default() };
        assert_eq!(sink.apply(vec![Change::Upsert(Resource::Mesh(Arc::new(mesh)))]).await, Some(1));
        assert!(store.load().mesh().force_wire);
        assert!(version.has_changed().unwrap());
        assert_eq!(*version.borrow_and_update(), 1);
        drop(sink);
        follower.await.unwrap();
    }
}
