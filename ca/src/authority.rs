//! The authority: a root, an intermediate that signs leaves, and the bundle that says which roots to trust.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, DnsName};
use tokio::sync::watch;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_tls::{Clock, RootHash, TrustBundle, TrustStore};

use crate::csr;
use crate::material::{Signer, Validity};
use crate::rotate::Stage;
use crate::store::{Saved, Store};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How an authority works. Times are real time, by the authority's clock.
#[derive(Clone, Debug)]
pub struct AuthoritySettings {
    /// The trust domain it speaks for.
    pub trust_domain: TrustDomain,
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
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            leaf_life: DAY,
            intermediate_life: DAY * 365,
            root_life: DAY * 3650,
            propagation: Duration::from_secs(3600),
            backdate: Duration::from_secs(60),
        }
    }
}

/// Why an authority cannot start, or cannot change.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory fails.
    #[error("{0}: {1}")]
    Disk(PathBuf, #[source] io::Error),
    /// Another process has the directory.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A file's content cannot be used.
    #[error("{0}")]
    Material(String),
    /// The directory belongs to another trust domain.
    #[error("the directory belongs to trust domain {saved}, not {wanted}")]
    TrustDomain {
        /// The directory's.
        saved: TrustDomain,
        /// The caller's.
        wanted: TrustDomain,
    },
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(#[source] rcgen::Error),
    /// The issuing certificate has expired.
    #[error("the issuing certificate has expired ({0:?})")]
    Expired(SystemTime),
    /// The system gave no random numbers.
    #[error("no random numbers")]
    Random,
}

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It is larger than any honest one.
    #[error("the request has {0} bytes, at most {max} are read", max = csr::MAX_CSR)]
    TooLarge(usize),
    /// It does not parse, or asks for extensions that have no place in a workload's certificate.
    #[error("the request is no PKCS#10 request for a workload's certificate")]
    Malformed,
    /// It is not signed by the key it names.
    #[error("the request's signature does not match its key")]
    Signature,
    /// It names something other than the identity.
    #[error("the request names something other than the identity asked for")]
    OtherNames,
    /// Its key is of a kind or size that is not certified.
    #[error("the request's key is not P-256, P-384, Ed25519 or RSA with 2048 to 4096 bits")]
    WeakKey,
    /// The identity is not in this authority's trust domain.
    #[error("{identity} is not in trust domain {domain}")]
    TrustDomain {
        /// Whose certificate was asked for.
        identity: SpiffeId,
        /// Ours.
        domain: TrustDomain,
    },
    /// The authority has trouble of its own.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl IssueError {
    /// Whether the authority is at fault, not the request.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Authority(_))
    }

    /// The closed reason for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "csr_too_large",
            Self::Malformed => "csr_malformed",
            Self::Signature => "csr_signature",
            Self::OtherNames => "csr_names",
            Self::WeakKey => "csr_weak_key",
            Self::TrustDomain { .. } => "trust_domain",
            Self::Authority(_) => "authority",
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

/// How the authority is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// Where a rotation stands.
    pub stage: Stage,
    /// The bundle's generation.
    pub generation: u64,
    /// The hashes of the roots in the bundle, the older first.
    pub roots: Vec<RootHash>,
    /// The end of the root that leaves chain to.
    pub root_not_after: SystemTime,
    /// The end of the intermediate that signs leaves.
    pub intermediate_not_after: SystemTime,
}

/// A root (its key is absent when it is kept elsewhere) and the intermediate under it.
pub(crate) struct Branch {
    pub number: u32,
    pub roots: Vec<CertificateDer<'static>>,
    pub root: Option<Signer>,
    pub intermediate: Signer,
    /// What is sent after the intermediate.
    pub above: Vec<CertificateDer<'static>>,
}

pub(crate) struct State {
    pub generation: u64,
    pub stage: Stage,
    /// One branch, or two while one replaces the other: the older first.
    pub branches: Vec<Branch>,
}

impl State {
    /// The branch that issues.
    pub fn issuing(&self) -> Result<&Branch, AuthorityError> {
        let branch = match self.stage {
            Stage::Issuing { .. } => self.branches.last(),
            Stage::Stable | Stage::Publishing { .. } => self.branches.first(),
        };
        branch.ok_or_else(|| AuthorityError::Material("the authority has no root".to_owned()))
    }

    /// The numbers of the branches, the older first.
    pub fn numbers(&self) -> Vec<u32> {
        self.branches.iter().map(|b| b.number).collect()
    }

    fn bundle(&self, trust_domain: &TrustDomain) -> Bundle {
        let roots = self.branches.iter().flat_map(|b| b.roots.iter().cloned()).collect();
        Bundle { generation: self.generation, trust_domain: trust_domain.clone(), roots }
    }
}

/// A certificate authority of one trust domain.
pub struct Authority {
    pub(crate) settings: AuthoritySettings,
    pub(crate) clock: Clock,
    /// Absent when the material is another's, mounted read-only.
    pub(crate) store: Option<Store>,
    pub(crate) state: Mutex<State>,
    bundle: watch::Sender<Arc<Bundle>>,
    trust: TrustStore,
}

impl Authority {
    /// Opens the authority in `dir`, with a new root if there is none yet.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, is another process's or another trust domain's, or holds broken files.
    pub fn open(dir: &Path, settings: AuthoritySettings, clock: Clock) -> Result<Self, AuthorityError> {
        let store = Store::open(dir)?;
        let state = match store.load()? {
            Some(saved) => load(&store, saved, &settings)?,
            None => create(&store, &settings, clock.now())?,
        };
        Self::assemble(settings, clock, Some(store), state)
    }

    pub(crate) fn assemble(
        settings: AuthoritySettings,
        clock: Clock,
        store: Option<Store>,
        state: State,
    ) -> Result<Self, AuthorityError> {
        let bundle = state.bundle(&settings.trust_domain);
        let trust = TrustStore::new(trust_of(&bundle)?);
        let bundle = watch::Sender::new(Arc::new(bundle));
        Ok(Self { settings, clock, store, state: Mutex::new(state), bundle, trust })
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
        if identity.trust_domain != self.settings.trust_domain {
            let domain = self.settings.trust_domain.clone();
            return Err(IssueError::TrustDomain { identity: identity.clone(), domain });
        }
        let key = csr::public_key(csr, identity)?;
        let life = life.unwrap_or(self.settings.leaf_life).min(self.settings.leaf_life);
        let state = self.state.lock();
        let branch = state.issuing()?;
        let (now, end) = (self.clock.now(), branch.intermediate.not_after);
        if end <= now {
            return Err(AuthorityError::Expired(end).into());
        }
        let validity = Validity::new(now, self.settings.backdate, life, Some(end));
        let leaf = branch.intermediate.leaf(identity, dns_names, &key, validity)?;
        let mut chain = vec![leaf, branch.intermediate.cert.clone()];
        chain.extend(branch.above.iter().cloned());
        Ok(Issued { chain, not_after: validity.to, bundle: self.bundle() })
    }

    /// The current bundle.
    pub fn bundle(&self) -> Arc<Bundle> {
        self.bundle.borrow().clone()
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
        &self.settings.trust_domain
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// If its state is broken.
    pub fn status(&self) -> Result<AuthorityStatus, AuthorityError> {
        let state = self.state.lock();
        let issuing = state.issuing()?;
        let intermediate_not_after = issuing.intermediate.not_after;
        Ok(AuthorityStatus {
            stage: state.stage,
            generation: state.generation,
            roots: self.bundle().roots.iter().map(RootHash::of).collect(),
            root_not_after: issuing.root.as_ref().map_or(intermediate_not_after, |root| root.not_after),
            intermediate_not_after,
        })
    }

    /// Publishes what `state` trusts now.
    pub(crate) fn publish(&self, state: &State) -> Result<(), AuthorityError> {
        let bundle = state.bundle(&self.settings.trust_domain);
        self.trust.update(trust_of(&bundle)?);
        self.bundle.send_replace(Arc::new(bundle));
        Ok(())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.settings.trust_domain)
    }
}

fn trust_of(bundle: &Bundle) -> Result<TrustBundle, AuthorityError> {
    TrustBundle::new(bundle.trust_domain.clone(), bundle.roots.iter().cloned())
        .map_err(|e| AuthorityError::Material(e.to_string()))
}

/// A new root with an intermediate, saved.
pub(crate) fn new_branch(
    store: &Store,
    settings: &AuthoritySettings,
    number: u32,
    now: SystemTime,
) -> Result<Branch, AuthorityError> {
    let root = Signer::root(&settings.trust_domain, Validity::new(now, settings.backdate, settings.root_life, None))?;
    let intermediate = new_intermediate(&root, settings, now)?;
    store.save_signer("root", number, &root)?;
    store.save_signer("intermediate", number, &intermediate)?;
    Ok(Branch { number, roots: vec![root.cert.clone()], root: Some(root), intermediate, above: Vec::new() })
}

pub(crate) fn new_intermediate(
    root: &Signer,
    settings: &AuthoritySettings,
    now: SystemTime,
) -> Result<Signer, AuthorityError> {
    let validity = Validity::new(now, settings.backdate, settings.intermediate_life, Some(root.not_after));
    root.intermediate(&settings.trust_domain, validity)
}

fn create(store: &Store, settings: &AuthoritySettings, now: SystemTime) -> Result<State, AuthorityError> {
    let branch = new_branch(store, settings, 1, now)?;
    let state = State { generation: 1, stage: Stage::Stable, branches: vec![branch] };
    let trust_domain = settings.trust_domain.clone();
    store.save(&Saved { trust_domain, generation: 1, stage: Stage::Stable, roots: state.numbers() })?;
    Ok(state)
}

fn load(store: &Store, saved: Saved, settings: &AuthoritySettings) -> Result<State, AuthorityError> {
    if saved.trust_domain != settings.trust_domain {
        let wanted = settings.trust_domain.clone();
        return Err(AuthorityError::TrustDomain { saved: saved.trust_domain, wanted });
    }
    let branch = |number: &u32| {
        let root = store.load_signer("root", *number)?;
        let intermediate = store.load_signer("intermediate", *number)?;
        let roots = vec![root.cert.clone()];
        Ok(Branch { number: *number, roots, root: Some(root), intermediate, above: Vec::new() })
    };
    let branches = saved.roots.iter().map(branch).collect::<Result<Vec<_>, AuthorityError>>()?;
    let wanted = if saved.stage == Stage::Stable { 1 } else { 2 };
    if branches.len() != wanted {
        let found = branches.len();
        return Err(AuthorityError::Material(format!("state.json names {found} roots, its stage has {wanted}")));
    }
    Ok(State { generation: saved.generation, stage: saved.stage, branches })
}
