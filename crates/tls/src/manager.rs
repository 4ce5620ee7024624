//! Keeps the store's certificates fresh: one task for each identity that a workload of this node runs as.
//!
//! A certificate is renewed at half its life, with jitter, so that a day-long one survives half a day without an
//! authority; the old one serves until it truly expires. A new one is installed only if peers that hold our bundle
//! will accept it. Identities come with the first [`IdentityLease`] and go, key included, with the last.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use weft_core::identity::SpiffeId;

use crate::error::{NoCertificate, PeerRefused};
use crate::mesh::{ClientTls, ServerTls};
use crate::peer::PeerRole;
use crate::store::{CertStore, Entry};
use crate::svid::{InvalidSvid, KeyRequest, Svid};
use crate::trust::{Generation, TrustStore};

/// The longest sleep between looks at the wall clock, which may be set or jump (suspend) while we wait.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The shortest wait before a renewal, so that a certificate that ends at once is no busy loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// What is asked of an authority.
#[derive(Clone, Debug)]
pub struct SvidRequest {
    /// Whose certificate.
    pub identity: SpiffeId,
    /// The signing request, DER (PKCS#10).
    pub csr: Vec<u8>,
}

/// Why no certificate came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The authority cannot be reached, or has trouble of its own.
    #[error("authority unavailable: {0}")]
    Unavailable(String),
    /// The authority says no.
    #[error("authority refuses: {0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("authority did not answer within {0:?}")]
    Timeout(Duration),
    /// What it sent is no certificate for our key.
    #[error("authority sent an unusable certificate: {0}")]
    Invalid(#[from] InvalidSvid),
    /// What it sent is another identity's.
    #[error("authority sent a certificate of {0}")]
    WrongIdentity(SpiffeId),
    /// What it sent would be refused by every peer that holds our bundle.
    #[error("authority sent a certificate that our own bundle does not accept: {0}")]
    Untrusted(#[from] PeerRefused),
}

impl FetchError {
    /// The closed reason for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
            Self::Timeout(_) => "timeout",
            Self::Invalid(_) => "invalid",
            Self::WrongIdentity(_) => "wrong_identity",
            Self::Untrusted(_) => "untrusted",
        }
    }
}

/// The answer of a [`SvidSource`]: the chain, leaf first.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<CertificateDer<'static>>, FetchError>> + Send + 'a>>;

/// An authority, or the way to it.
pub trait SvidSource: Send + Sync + 'static {
    /// Asks for a certificate. If the answer comes with a new trust bundle, the source updates the [`TrustStore`]
    /// before it returns the chain.
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_>;
}

/// How a [`CertManager`] renews.
#[derive(Clone, Copy, Debug)]
pub struct ManagerSettings {
    /// The first pause after a failure; it doubles from there.
    pub min_backoff: Duration,
    /// The longest pause after a failure.
    pub max_backoff: Duration,
    /// The longest a fetch may take.
    pub fetch_timeout: Duration,
    /// Most fetches at a time.
    pub concurrency: usize,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
            fetch_timeout: Duration::from_secs(10),
            concurrency: 8,
        }
    }
}

/// Fills a [`CertStore`] and keeps it fresh. A cheap handle; leases keep its tasks going.
#[derive(Clone)]
pub struct CertManager(Arc<Inner>);

struct Inner {
    store: CertStore,
    source: Arc<dyn SvidSource>,
    settings: ManagerSettings,
    runtime: Handle,
    permits: Arc<Semaphore>,
    held: Mutex<HashMap<SpiffeId, Held>>,
}

struct Held {
    leases: usize,
    task: AbortHandle,
}

impl CertManager {
    /// A manager whose tasks run on `runtime`: not a worker's, renewals must not wait for traffic.
    pub fn new(store: CertStore, source: Arc<dyn SvidSource>, settings: ManagerSettings, runtime: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(settings.concurrency.max(1)));
        Self(Arc::new(Inner { store, source, settings, runtime, permits, held: Mutex::default() }))
    }

    /// The store it fills.
    pub fn store(&self) -> &CertStore {
        &self.0.store
    }

    /// Keeps a certificate of `identity` for as long as the lease lives. Certificates that were
    /// [installed](CertStore::install) before, say by the process that ran before us, are taken over.
    pub fn lease(&self, identity: &SpiffeId) -> IdentityLease {
        let mut held = self.0.held.lock();
        let entry = self.0.store.entry(identity);
        let start = || Held { leases: 0, task: self.0.runtime.spawn(self.renewal(entry.clone())).abort_handle() };
        held.entry(entry.identity.clone()).or_insert_with(start).leases += 1;
        IdentityLease { manager: Arc::downgrade(&self.0), entry }
    }

    fn renewal(&self, entry: Arc<Entry>) -> impl Future<Output = ()> + Send + use<> {
        let renewal = Renewal {
            changed: entry.subscribe(),
            trust: entry.shared.trust.clone(),
            entry,
            source: self.0.source.clone(),
            settings: self.0.settings,
            permits: self.0.permits.clone(),
            plan: None,
        };
        renewal.run()
    }
}

impl Inner {
    fn release(&self, identity: &SpiffeId) {
        let mut held = self.held.lock();
        let Some(entry) = held.get_mut(identity) else { return };
        entry.leases -= 1;
        if entry.leases == 0 {
            entry.task.abort();
            held.remove(identity);
            self.store.remove(identity);
        }
    }
}

impl fmt::Debug for CertManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertManager").field(&self.0.store).finish()
    }
}

/// The right to an identity's certificate. Held by each workload that runs as it.
#[must_use = "the certificate goes with the last lease"]
pub struct IdentityLease {
    manager: Weak<Inner>,
    entry: Arc<Entry>,
}

impl IdentityLease {
    /// The identity.
    pub fn identity(&self) -> &SpiffeId {
        &self.entry.identity
    }

    /// Dials as this identity.
    pub fn client(&self) -> ClientTls {
        ClientTls::new(self.entry.clone())
    }

    /// Answers as this identity.
    pub fn server(&self) -> ServerTls {
        ServerTls::new(self.entry.clone())
    }

    /// The valid certificate, or why there is none.
    pub fn current(&self) -> Result<Arc<Svid>, NoCertificate> {
        self.entry.current()
    }

    /// Waits for a valid certificate for at most `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<Arc<Svid>, NoCertificate> {
        let mut changed = self.entry.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Ok(svid) = self.entry.current() {
                    return svid;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(svid) => Ok(svid),
            Err(_) => self.entry.current(),
        }
    }
}

impl Drop for IdentityLease {
    fn drop(&mut self) {
        if let Some(manager) = self.manager.upgrade() {
            manager.release(&self.entry.identity);
        }
    }
}

impl fmt::Debug for IdentityLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityLease({})", self.entry.identity)
    }
}

/// One identity's task.
struct Renewal {
    entry: Arc<Entry>,
    changed: watch::Receiver<u64>,
    trust: TrustStore,
    source: Arc<dyn SvidSource>,
    settings: ManagerSettings,
    permits: Arc<Semaphore>,
    plan: Option<Plan>,
}

struct Plan {
    serial: String,
    generation: Generation,
    due: SystemTime,
}

impl Renewal {
    async fn run(mut self) {
        let mut pause = self.settings.min_backoff;
        loop {
            self.wait_until_due().await;
            match self.attempt().await {
                Ok(svid) => {
                    tracing::info!(identity = %self.entry.identity, serial = svid.serial(), "certificate issued");
                    self.entry.install(svid);
                    pause = self.settings.min_backoff;
                }
                Err(error) => {
                    let svid = self.entry.current();
                    let rest = svid.as_ref().ok().map(|svid| since(self.now(), svid.not_after()));
                    tracing::warn!(identity = %self.entry.identity, reason = error.reason(), seconds_left = rest.map(|r| r.as_secs()),
                        "no certificate: {error}");
                    self.entry.failed(&error.to_string());
                    tokio::time::sleep(backoff(pause, rest, self.settings.min_backoff)).await;
                    pause = pause.saturating_mul(2).min(self.settings.max_backoff);
                }
            }
        }
    }

    /// Returns when there is no valid certificate, when it is due for renewal, or when a new bundle does not accept it.
    async fn wait_until_due(&mut self) {
        let mut generation = self.trust.subscribe();
        loop {
            self.entry.sweep();
            self.changed.borrow_and_update();
            let seen = *generation.borrow_and_update();
            let Ok(svid) = self.entry.current() else { return };
            let due = self.due(&svid, seen);
            let rest = since(self.now(), due);
            if rest.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(rest.min(LOOK_AGAIN)) => {}
                _ = self.changed.changed() => {}
                _ = generation.changed() => {}
            }
        }
    }

    /// When to renew a certificate: decided once, so that failed attempts do not put it off.
    fn due(&mut self, svid: &Svid, generation: Generation) -> SystemTime {
        if let Some(plan) = &self.plan
            && plan.serial == svid.serial()
            && plan.generation == generation
        {
            return plan.due;
        }
        let accepted = self.verify(svid).is_ok();
        let now = self.now();
        let due = match &self.plan {
            // One under an alias is good until it is replaced, which it is at once.
            _ if !accepted || svid.identity() != &self.entry.identity => now,
            Some(plan) if plan.serial == svid.serial() => plan.due,
            _ => renewal_time(svid, now),
        };
        self.plan = Some(Plan { serial: svid.serial().to_owned(), generation, due });
        due
    }

    async fn attempt(&self) -> Result<Svid, FetchError> {
        // The semaphore is never closed; a permit that fails to come would only mean no limit.
        let _permit = self.permits.acquire().await;
        let request = KeyRequest::generate(&self.entry.identity)?;
        let ask = SvidRequest { identity: self.entry.identity.clone(), csr: request.csr().to_vec() };
        let limit = self.settings.fetch_timeout;
        let answer = tokio::time::timeout(limit, self.source.fetch(ask)).await;
        let svid = request.complete(answer.map_err(|_| FetchError::Timeout(limit))??)?;
        if svid.identity() != &self.entry.identity {
            return Err(FetchError::WrongIdentity(svid.identity().clone()));
        }
        self.verify(&svid)?;
        Ok(svid)
    }

    /// Whether peers with our bundle accept it, in both roles.
    fn verify(&self, svid: &Svid) -> Result<(), PeerRefused> {
        let clock = &self.entry.shared.clock;
        svid.verify(&self.trust, PeerRole::Client, clock)?;
        svid.verify(&self.trust, PeerRole::Server, clock)
    }

    fn now(&self) -> SystemTime {
        self.entry.shared.clock.now()
    }
}

/// Half of its life; or half of what is left, when that has passed (a late hand-over, or a short life backdated for
/// clock skew). Plus or minus a tenth, so that a node's identities don't all renew at once.
fn renewal_time(svid: &Svid, now: SystemTime) -> SystemTime {
    let life = since(svid.not_before(), svid.not_after());
    let middle = svid.not_before().checked_add(life / 2).unwrap_or(now);
    let wait = if middle > now { since(now, middle) } else { since(now, svid.not_after()) / 2 };
    let jittered = wait.mul_f64(0.9 + 0.2 * fastrand::f64()).max(SHORTEST_WAIT);
    now.checked_add(jittered).unwrap_or(now)
}

/// A pause with jitter; never more than a quarter of what is left of the old certificate, so that there are always
/// several attempts before it expires.
fn backoff(pause: Duration, rest: Option<Duration>, shortest: Duration) -> Duration {
    let pause = rest.map_or(pause, |rest| pause.min((rest / 4).max(shortest)));
    pause.mul_f64(0.5 + 0.5 * fastrand::f64())
}

fn since(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
