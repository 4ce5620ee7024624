//! The authority: a root, an intermediate that signs leaves, and the bundle that says which roots to trust.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls_pki_types::{CertificateDer, DnsName};
use tokio::sync::watch;
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_tls::{Clock, RootHash, TrustBundle, TrustStore};

use crate::csr;
use crate::error::{AuthorityError, IssueError};
use crate::rotate::Stage;
use crate::state::{State, Subject};
use crate::store::Store;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How an authority works. Times are real time, by the authority's clock.
#[derive(Clone, Debug)]
pub struct AuthoritySettings {
    /// The trust domain it speaks for, and the other names that it issues under while that is changed.
    pub trust_domains: TrustDomains,
    /// The life of a leaf; callers may ask for less.
    pub leaf_life: Duration,
    /// The life of an intermediate; it is replaced at half of that.
    pub intermediate_life: Duration,
    /// The life of a root; its rotation starts when a tenth is left.
    pub root_life: Duration,
    /// How long a new root is published before anything is issued under it.
    pub propagation: Duration,
    /// How far certificates are backdated for clocks that are behind.
    pub backdate: Duration,
}

impl AuthoritySettings {
    /// The defaults for a trust domain: leaves of a day, an intermediate of a year, a root of ten.
    pub fn new(trust_domains: impl Into<TrustDomains>) -> Self {
        Self {
            trust_domains: trust_domains.into(),
            leaf_life: DAY,
            intermediate_life: DAY * 365,
            root_life: DAY * 3650,
            propagation: Duration::from_secs(3600),
            backdate: Duration::from_secs(60),
        }
    }
}

/// An issued certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The chain, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's last moment.
    pub not_after: SystemTime,
    /// The bundle in force.
    pub bundle: Arc<Bundle>,
}

/// The trust bundle as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Grows with each change and survives restarts.
    pub generation: u64,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Its roots.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Bundle {
    /// The roots as PEM text, one after the other.
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(weft_tls::pem::certificate).collect()
    }

    pub(crate) fn to_trust(&self) -> Result<TrustBundle, AuthorityError> {
        TrustBundle::new(self.trust_domain.clone(), self.roots.iter().cloned())
            .map_err(|e| AuthorityError::Material(e.to_string()))
    }

    /// The bundle for verifiers to whom these names of its trust domain are one.
    pub(crate) fn to_store(&self, domains: &TrustDomains) -> Result<TrustStore, AuthorityError> {
        TrustStore::with_domains(self.to_trust()?, domains.clone()).map_err(|e| AuthorityError::Material(e.to_string()))
    }
}

/// How the authority is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// Where a rotation stands.
    pub stage: Stage,
    /// The bundle's generation.
    pub generation: u64,
    /// The hashes of the roots in the bundle, the older first.
    pub roots: Vec<RootHash>,
    /// The end of the root that leaves chain to; of the intermediate, where the root's key is elsewhere.
    pub root_not_after: SystemTime,
    /// The end of the intermediate that signs leaves.
    pub intermediate_not_after: SystemTime,
}

impl State {
    /// Where it stands.
    pub(crate) fn status(&self) -> Result<AuthorityStatus, AuthorityError> {
        let issuing = self.issuing()?;
        let intermediate_not_after = issuing.intermediate.not_after;
        Ok(AuthorityStatus {
            stage: self.stage,
            generation: self.generation,
            roots: self.bundle().roots.iter().map(RootHash::of).collect(),
            root_not_after: issuing.root.as_ref().map_or(intermediate_not_after, |root| root.not_after),
            intermediate_not_after,
        })
    }
}

/// A state and what follows from it, replaced together.
struct Current {
    state: Arc<State>,
    bundle: Arc<Bundle>,
}

/// A certificate authority of one trust domain.
pub struct Authority {
    pub(crate) settings: AuthoritySettings,
    pub(crate) clock: Clock,
    /// Absent when the state is kept by somebody else: mounted read-only, or in a cluster.
    pub(crate) store: Option<Mutex<Store>>,
    current: RwLock<Current>,
    bundle: watch::Sender<Arc<Bundle>>,
    trust: TrustStore,
}

impl Authority {
    pub(crate) fn assemble(
        settings: AuthoritySettings,
        clock: Clock,
        store: Option<Store>,
        state: State,
    ) -> Result<Self, AuthorityError> {
        let bundle = Arc::new(state.bundle());
        let trust = bundle.to_store(&settings.trust_domains)?;
        let current = RwLock::new(Current { state: Arc::new(state), bundle: Arc::clone(&bundle) });
        let bundle = watch::Sender::new(bundle);
        Ok(Self { settings, clock, store: store.map(Mutex::new), current, bundle, trust })
    }

    /// Certifies the key of a request as `identity`, for `life` or the default, whichever is shorter. Whether the
    /// caller may have it was decided before.
    ///
    /// # Errors
    ///
    /// See [`IssueError`].
    pub fn issue(&self, csr: &[u8], identity: &SpiffeId, life: Option<Duration>) -> Result<Issued, IssueError> {
        self.certify(csr, identity, &[], life)
    }

    /// As [`issue`](Self::issue) for a server that others also know by DNS names. Only for this process's own server:
    /// no caller over the network may ask for a DNS name.
    ///
    /// # Errors
    ///
    /// See [`IssueError`].
    pub fn issue_server(
        &self,
        csr: &[u8],
        identity: &SpiffeId,
        dns_names: &[DnsName<'_>],
    ) -> Result<Issued, IssueError> {
        self.certify(csr, identity, dns_names, None)
    }

    fn certify(
        &self,
        csr: &[u8],
        identity: &SpiffeId,
        dns_names: &[DnsName<'_>],
        life: Option<Duration>,
    ) -> Result<Issued, IssueError> {
        // As it was asked: who asks under an alias has not heard of the new name yet, or still has the old one.
        if !self.settings.trust_domains.is_ours(&identity.trust_domain) {
            let domain = self.trust_domain().clone();
            return Err(IssueError::TrustDomain { identity: identity.clone(), domain });
        }
        let key = csr::public_key(csr, identity)?;
        let life = life.unwrap_or(self.settings.leaf_life).min(self.settings.leaf_life);
        let subject = Subject { identity, dns_names, key: &key, life };
        // State and bundle of one moment: what issues is always in the bundle that goes with it.
        let (state, bundle) = {
            let current = self.current.read();
            (Arc::clone(&current.state), Arc::clone(&current.bundle))
        };
        let (chain, not_after) = state.issuing()?.certify(&subject, self.settings.backdate, self.clock.now())?;
        Ok(Issued { chain, not_after, bundle })
    }

    /// The current bundle.
    pub fn bundle(&self) -> Arc<Bundle> {
        Arc::clone(&self.current.read().bundle)
    }

    /// Follows the bundle.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
    }

    /// The bundle as verifiers in this process use it; it changes with the authority's.
    pub fn trust(&self) -> &TrustStore {
        &self.trust
    }

    /// The trust domain it speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.settings.trust_domains.own()
    }

    /// The same with its other names.
    pub fn trust_domains(&self) -> &TrustDomains {
        &self.settings.trust_domains
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// If its state is broken.
    pub fn status(&self) -> Result<AuthorityStatus, AuthorityError> {
        self.state().status()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.current.read().state)
    }

    /// Issues from `state` from now on. It has been saved before.
    pub(crate) fn install(&self, state: State) -> Result<(), AuthorityError> {
        let bundle = Arc::new(state.bundle());
        let trust = bundle.to_trust()?;
        let state = Arc::new(state);
        let next = Current { state: Arc::clone(&state), bundle: Arc::clone(&bundle) };
        let old = std::mem::replace(&mut *self.current.write(), next);
        // After the state: whoever renews because of a new bundle gets a certificate that the bundle accepts.
        self.trust.update(trust).map_err(|e| AuthorityError::Material(e.to_string()))?;
        self.bundle.send_if_modified(|published| {
            let changed = *published != bundle;
            *published = bundle;
            changed
        });
        if old.state.generation != state.generation {
            tracing::info!(stage = ?state.stage, generation = state.generation, "the root's rotation took a step");
        } else if old.state.issuing()?.intermediate.cert != state.issuing()?.intermediate.cert {
            tracing::info!(generation = state.generation, "a new intermediate issues");
        }
        Ok(())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.trust_domain())
    }
}
