//! Our current certificate for each identity that a workload of this node runs as, read by the data path.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use weft_core::identity::SpiffeId;

use crate::clock::Clock;
use crate::error::NoCertificate;
use crate::mesh::{ClientEpoch, ServerEpoch};
use crate::svid::Svid;
use crate::trust::TrustStore;

/// What holds for every handshake of a store.
#[derive(Clone, Copy, Debug)]
pub struct TlsSettings {
    /// The longest a handshake may take.
    pub handshake_timeout: Duration,
    /// Whether sessions may be resumed. The rules for peers are the same with and without; without, each new
    /// connection costs both sides a signature and three verifications more.
    pub resumption: bool,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), resumption: true }
    }
}

/// What all entries of a store share.
pub(crate) struct Shared {
    pub trust: TrustStore,
    pub clock: Clock,
    pub settings: TlsSettings,
}

/// Our certificates by identity, under our own name of the trust domain: one that a predecessor got under an alias serves as
/// the same identity's until it is renewed. A cheap handle; clones show the same store.
#[derive(Clone)]
pub struct CertStore {
    shared: Arc<Shared>,
    entries: Arc<RwLock<HashMap<SpiffeId, Arc<Entry>>>>,
}

impl CertStore {
    /// An empty store.
    pub fn new(trust: TrustStore, clock: Clock, settings: TlsSettings) -> Self {
        Self { shared: Arc::new(Shared { trust, clock, settings }), entries: Arc::default() }
    }

    /// The bundle that peers are verified with.
    pub fn trust(&self) -> &TrustStore {
        &self.shared.trust
    }

    /// The clock that validity is judged by.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Puts a certificate in the place of its identity's former one. New handshakes use it; sessions begun with the
    /// former one are not resumed.
    pub fn install(&self, svid: Svid) {
        self.entry(svid.identity()).install(svid);
    }

    /// Forgets an identity and its key.
    pub fn remove(&self, identity: &SpiffeId) {
        if let Some(entry) = self.entries.write().remove(&self.key(identity)) {
            entry.wipe();
        }
    }

    /// The identity's valid certificate, or why there is none.
    pub fn current(&self, identity: &SpiffeId) -> Result<Arc<Svid>, NoCertificate> {
        self.find(identity)?.current()
    }

    /// The state of every identity, for metrics and the admin page.
    pub fn status(&self) -> Vec<IdentityStatus> {
        let mut all: Vec<_> = self.entries.read().values().map(|entry| entry.status()).collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }

    pub(crate) fn find(&self, identity: &SpiffeId) -> Result<Arc<Entry>, NoCertificate> {
        let found = self.entries.read().get(&self.key(identity)).cloned();
        found.ok_or_else(|| NoCertificate::NotRequested(identity.clone()))
    }

    pub(crate) fn entry(&self, identity: &SpiffeId) -> Arc<Entry> {
        let key = self.key(identity);
        let mut entries = self.entries.write();
        let fresh = || Arc::new(Entry::new(key.clone(), self.shared.clone()));
        entries.entry(key.clone()).or_insert_with(fresh).clone()
    }

    fn key(&self, identity: &SpiffeId) -> SpiffeId {
        self.shared.trust.current().domains.normal(identity)
    }
}

impl fmt::Debug for CertStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

/// How an identity's certificate is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityStatus {
    /// Whose; while the mesh's trust domain is changed, under the name that the current certificate has.
    pub identity: SpiffeId,
    /// The end of the current certificate, which may have passed; `None` if there never was one.
    pub not_after: Option<SystemTime>,
    /// Its serial number.
    pub serial: Option<String>,
    /// What the last attempt to get one ended with, if it failed.
    pub last_error: Option<Arc<str>>,
    /// Attempts that failed since the last success.
    pub failures: u32,
}

#[derive(Default)]
struct Failing {
    last_error: Option<Arc<str>>,
    failures: u32,
}

/// One identity's place in the store.
pub(crate) struct Entry {
    pub identity: SpiffeId,
    pub shared: Arc<Shared>,
    svid: ArcSwapOption<Svid>,
    failing: Mutex<Failing>,
    changed: watch::Sender<u64>,
    /// Configurations and sessions of the current certificate and bundle.
    pub client: ArcSwapOption<ClientEpoch>,
    pub server: ArcSwapOption<ServerEpoch>,
}

impl Entry {
    fn new(identity: SpiffeId, shared: Arc<Shared>) -> Self {
        Self {
            identity,
            shared,
            svid: ArcSwapOption::empty(),
            failing: Mutex::default(),
            changed: watch::Sender::new(0),
            client: ArcSwapOption::empty(),
            server: ArcSwapOption::empty(),
        }
    }

    pub fn install(&self, svid: Svid) {
        self.svid.store(Some(Arc::new(svid)));
        self.drop_epochs();
        *self.failing.lock() = Failing::default();
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub fn wipe(&self) {
        self.svid.store(None);
        self.drop_epochs();
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn drop_epochs(&self) {
        self.client.store(None);
        self.server.store(None);
    }

    /// Forgets what wasn't used for a while.
    pub fn sweep(&self) {
        if let Some(epoch) = &*self.client.load() {
            epoch.sweep();
        }
    }

    pub fn failed(&self, error: &str) {
        let mut failing = self.failing.lock();
        failing.last_error = Some(error.into());
        failing.failures = failing.failures.saturating_add(1);
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The certificate, while it is valid.
    pub fn current(&self) -> Result<Arc<Svid>, NoCertificate> {
        let identity = || self.identity.clone();
        let last_error = || self.failing.lock().last_error.clone();
        match self.svid.load_full() {
            Some(svid) if self.shared.clock.now() <= svid.not_after() => Ok(svid),
            Some(svid) => {
                let not_after = svid.not_after();
                Err(NoCertificate::Expired { identity: identity(), not_after, last_error: last_error() })
            }
            None => Err(NoCertificate::Pending { identity: identity(), last_error: last_error() }),
        }
    }

    pub fn status(&self) -> IdentityStatus {
        let svid = self.svid.load();
        let failing = self.failing.lock();
        IdentityStatus {
            identity: svid.as_ref().map_or(&self.identity, |s| s.identity()).clone(),
            not_after: svid.as_ref().map(|s| s.not_after()),
            serial: svid.as_ref().map(|s| s.serial().to_owned()),
            last_error: failing.last_error.clone(),
            failures: failing.failures,
        }
    }
}
