//! The node's configuration: one writer, any number of readers that never wait.

mod disk;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weft_core::change::{Change, MeshConfig, Resource};
use weft_core::identity::TrustDomains;
use weft_core::snapshot::Snapshot;

pub use disk::{InvalidFile, SavedFile, from_bytes, to_bytes};

/// The current snapshot, and a signal when there is a newer one.
///
/// Whatever name of the trust domain a controller or a predecessor has, identities in here are under our own: they are compared
/// with those of our pods. A process that drains since before a name was added learns of it from the configuration.
#[derive(Debug)]
pub struct Store {
    snapshot: ArcSwap<Snapshot>,
    /// As the process was given them.
    given: TrustDomains,
    /// With what the configuration added.
    domains: Mutex<TrustDomains>,
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
        Self::with_domains(snapshot, TrustDomains::default())
    }

    /// A store that starts with a snapshot, for a mesh whose trust domain has other names.
    pub fn with_domains(snapshot: Snapshot, domains: TrustDomains) -> Self {
        let known = known(&domains, snapshot.mesh()).unwrap_or_else(|| domains.clone());
        let snapshot = all_under_our_name(snapshot, &known);
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            given: domains,
            domains: Mutex::new(known),
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
        let mut domains = self.domains.lock();
        let mesh = changes.iter().find_map(|change| match change {
            Change::Upsert(Resource::Mesh(mesh)) => Some(mesh),
            _ => None,
        });
        let learnt = mesh.and_then(|mesh| known(&self.given, mesh)).filter(|learnt| *learnt != *domains);
        if let Some(learnt) = &learnt {
            domains.clone_from(learnt);
        }
        let mut next = match domains.aliases() {
            [] => self.snapshot.load().apply(changes),
            _ => self.snapshot.load().apply(&under_our_name(changes, &domains)),
        };
        if learnt.is_some() {
            next = all_under_our_name(next, &domains);
        }
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

/// Our names, when the mesh has these: what we were given, and what belongs to it by now. `None` for a mesh that doesn't know our
/// name, or no more: what was known goes on for what is still open.
fn known(given: &TrustDomains, mesh: &MeshConfig) -> Option<TrustDomains> {
    let names = given.aliases().iter().chain(mesh.trust_domains.names());
    mesh.trust_domains.is_ours(given.own()).then(|| TrustDomains::new(given.own().clone(), names.cloned()))
}

fn all_under_our_name(snapshot: Snapshot, domains: &TrustDomains) -> Snapshot {
    if domains.aliases().is_empty() {
        return snapshot;
    }
    let ours = |resource| renamed(&resource, domains);
    let changes: Vec<_> = snapshot.resources().into_iter().filter_map(ours).collect();
    if changes.is_empty() { snapshot } else { snapshot.apply(&changes) }
}

fn under_our_name(changes: &[Change], domains: &TrustDomains) -> Vec<Change> {
    let ours = |change: &Change| match change {
        Change::Upsert(resource) => renamed(resource, domains).unwrap_or_else(|| change.clone()),
        Change::Remove(_) => change.clone(),
    };
    changes.iter().map(ours).collect()
}

/// What has the name of a trust domain in it, under our own; `None` if it is already.
fn renamed(resource: &Resource, domains: &TrustDomains) -> Option<Change> {
    let made = match resource {
        Resource::Workload(workload) => {
            let made = Arc::clone(workload).normal(domains);
            (!Arc::ptr_eq(&made, workload)).then(|| Resource::Workload(made))
        }
        Resource::Mesh(mesh) if domains.is_ours(mesh.trust_domains.own()) && mesh.trust_domains != *domains => {
            Some(Resource::Mesh(Arc::new(MeshConfig { trust_domains: domains.clone(), ..(**mesh).clone() })))
        }
        _ => None,
    };
    made.map(Change::Upsert)
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
    use weft_core::change::ResourceKey;
    use weft_core::identity::TrustDomain;

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

    /// Half of the parts have the old name and half the new one: a node, its controller, and what was saved before.
    #[tokio::test]
    async fn identities_are_under_our_own_name_whichever_the_controller_has() {
        let domain = |text: &str| text.parse::<TrustDomain>().unwrap();
        let (old, new, partner) = (domain("old.example"), domain("new.example"), domain("partner.example"));
        let pod = |domain: &TrustDomain| {
            let mut workload = (**crate::plain::fixed_pod().announced()).clone();
            workload.identity.trust_domain = domain.clone();
            Arc::new(workload)
        };
        let whole = |domain: &TrustDomain, other: &TrustDomain| {
            let trust_domains = TrustDomains::new(domain.clone(), [other.clone()]);
            let mesh = MeshConfig { trust_domains, force_wire: true, ..MeshConfig::default() };
            [Resource::Workload(pod(domain)), Resource::Mesh(Arc::new(mesh))].map(Change::Upsert)
        };
        let uid = pod(&old).uid.clone();
        for (ours, theirs) in [(&old, &new), (&new, &old), (&new, &new)] {
            let other = if ours == &old { &new } else { &old };
            let domains = TrustDomains::new(ours.clone(), [other.clone()]);
            let told = Store::with_domains(Snapshot::default(), domains.clone());
            let theirs = whole(theirs, if theirs == &old { &new } else { &old });
            told.apply(&theirs);
            let saved = Store::with_domains(Snapshot::default().apply(&theirs), domains.clone());
            for store in [told, saved] {
                let snapshot = store.load_full();
                assert_eq!(snapshot.workload(&uid).unwrap().identity.trust_domain, *ours);
                assert_eq!((&snapshot.mesh().trust_domains, snapshot.mesh().force_wire), (&domains, true));
                store.apply(&[Change::Upsert(Resource::Workload(pod(&partner)))]);
                assert_eq!(store.load().workload(&uid).unwrap().identity.trust_domain, partner, "a stranger stays one");
                store.apply(&[Change::Remove(ResourceKey::Workload(uid.clone()))]);
                assert!(store.load().workload(&uid).is_none());
            }
        }
    }

    /// A proxy that was replaced before there was an alias, and drains until after it is gone again.
    #[tokio::test]
    async fn a_process_that_was_never_told_learns_the_other_names_and_keeps_them() {
        let domain = |text: &str| text.parse::<TrustDomain>().unwrap();
        let (old, new) = (domain("old.example"), domain("new.example"));
        let store = Store::with_domains(Snapshot::default(), old.clone().into());
        let mesh = |own: &TrustDomain, aliases: &[&TrustDomain]| {
            let trust_domains = TrustDomains::new(own.clone(), aliases.iter().map(|alias| (*alias).clone()));
            Change::Upsert(Resource::Mesh(Arc::new(MeshConfig { trust_domains, ..MeshConfig::default() })))
        };
        let pod = |domain: &TrustDomain| {
            let mut workload = (**crate::plain::fixed_pod().announced()).clone();
            workload.identity.trust_domain = domain.clone();
            Change::Upsert(Resource::Workload(Arc::new(workload)))
        };
        let uid = crate::plain::fixed_pod().uid.clone();
        let seen = || {
            let snapshot = store.load_full();
            let domains = snapshot.mesh().trust_domains.clone();
            (snapshot.workload(&uid).unwrap().identity.trust_domain.clone(), domains)
        };
        let (alone, both) = (TrustDomains::from(old.clone()), TrustDomains::new(old.clone(), [new.clone()]));
        store.apply(&[mesh(&old, &[]), pod(&new)]);
        assert_eq!(seen(), (new.clone(), alone.clone()), "a stranger so far");
        store.apply(&[mesh(&old, &[&new])]);
        assert_eq!(seen(), (old.clone(), both.clone()));
        for change in [mesh(&new, &[&old]), pod(&new), mesh(&new, &[]), pod(&new)] {
            store.apply(&[change]);
            assert_eq!(seen(), (old.clone(), both.clone()));
        }
        store.apply(&[mesh(&old, &[]), pod(&new)]);
        assert_eq!(seen(), (new, alone), "it was taken back");
    }
}
