//! Whom we trust: roots per trust domain, several per domain while one replaces another, federated domains beside ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use tokio::sync::watch;
use weft_core::identity::{TrustDomain, TrustDomains};

/// Most roots kept for one trust domain: a rotation needs two, an interrupted one perhaps four.
const MAX_ROOTS: usize = 16;

/// Why roots cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// A trust domain came without any root.
    #[error("trust domain {0} has no roots")]
    Empty(TrustDomain),
    /// More roots than anybody needs.
    #[error("trust domain {0} has more than {MAX_ROOTS} roots")]
    TooMany(TrustDomain),
    /// A root does not parse as a certificate.
    #[error("root {index} of trust domain {domain} is not an X.509 certificate")]
    Root {
        /// Whose.
        domain: TrustDomain,
        /// Which, from 0.
        index: usize,
    },
    /// One name can't be ours and somebody else's.
    #[error(
        "{alias} has roots of its own beside those of {own}, whose alias it is: a trust domain is either an alias of ours or \
         federated; take it out of the aliases, or out of the federated domains"
    )]
    Alias {
        /// The trust domain with roots of its own.
        alias: TrustDomain,
        /// The one that it is another name of.
        own: TrustDomain,
    },
    /// Nobody of our own could be verified with it.
    #[error(
        "it has no roots of {0}, which is our trust domain: if that is being changed, this process has not heard of the new name"
    )]
    NotOurs(TrustDomain),
    /// The PEM text is broken.
    #[error("not PEM: {0}")]
    Pem(String),
}

#[derive(Clone)]
struct Roots {
    ders: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Roots per trust domain. A peer is verified with the roots of the domain that its certificate names and no others.
#[derive(Clone, Default)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Roots>,
}

impl TrustBundle {
    /// A bundle of one trust domain.
    pub fn new(
        domain: TrustDomain,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidBundle> {
        Self::default().with(domain, roots)
    }

    /// A bundle of one trust domain from PEM text; anything in it that is not a certificate is an error.
    pub fn from_pem(domain: TrustDomain, pem: &[u8]) -> Result<Self, InvalidBundle> {
        let roots = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| InvalidBundle::Pem(e.to_string()))?;
        Self::new(domain, roots)
    }

    /// The bundle with the roots of `domain` set to `roots`; doubles are dropped.
    pub fn with(
        mut self,
        domain: TrustDomain,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidBundle> {
        let mut kept = Roots { ders: Vec::new(), anchors: Vec::new() };
        for (index, der) in roots.into_iter().enumerate() {
            if index >= MAX_ROOTS {
                return Err(InvalidBundle::TooMany(domain));
            }
            let invalid = |_| InvalidBundle::Root { domain: domain.clone(), index };
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(invalid)?.to_owned();
            if !kept.ders.contains(&der) {
                kept.ders.push(der);
                kept.anchors.push(anchor);
            }
        }
        if kept.ders.is_empty() {
            return Err(InvalidBundle::Empty(domain));
        }
        self.domains.insert(domain, kept);
        Ok(self)
    }

    /// The trust domains that have roots.
    pub fn domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// The roots of a trust domain, none if it is unknown.
    pub fn roots(&self, domain: &TrustDomain) -> &[CertificateDer<'static>] {
        self.domains.get(domain).map(|r| r.ders.as_slice()).unwrap_or_default()
    }

    /// When the last of a trust domain's roots ends: the last moment at which anything of it can be trusted.
    pub fn not_after(&self, domain: &TrustDomain) -> Option<SystemTime> {
        self.roots(domain).iter().filter_map(|root| crate::leaf::not_after(root)).max()
    }

    /// The roots of a trust domain as PEM text, one after the other.
    pub fn to_pem(&self, domain: &TrustDomain) -> String {
        self.roots(domain).iter().map(crate::pem::certificate).collect()
    }

    /// The bundle as it is kept by somebody for whom these names are one: its roots under our own name, whichever of them it
    /// came under.
    fn normal(mut self, domains: &TrustDomains) -> Result<Self, InvalidBundle> {
        for alias in domains.aliases() {
            let Some(roots) = self.domains.remove(alias) else { continue };
            if self.domains.contains_key(domains.own()) {
                return Err(InvalidBundle::Alias { alias: alias.clone(), own: domains.own().clone() });
            }
            self.domains.insert(domains.own().clone(), roots);
        }
        Ok(self)
    }

    pub(crate) fn anchors(&self, domain: &TrustDomain) -> Option<&[TrustAnchor<'static>]> {
        self.domains.get(domain).map(|r| r.anchors.as_slice())
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.domains.len() == other.domains.len()
            && self.domains.iter().zip(&other.domains).all(|((a, x), (b, y))| a == b && x.ders == y.ders)
    }
}

impl Eq for TrustBundle {}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.domains.iter().map(|(d, r)| (d, r.ders.len()))).finish()
    }
}

/// Counts the different bundles a [`TrustStore`] has held, from 1.
pub type Generation = u64;

/// A bundle and its generation.
#[derive(Clone, Debug)]
pub struct TrustSnapshot {
    /// Which bundle of the store this is.
    pub generation: Generation,
    /// The roots.
    pub bundle: TrustBundle,
    /// Which names are ours: the bundle has the roots of all of them under the first.
    pub(crate) domains: TrustDomains,
}

/// The current bundle, shared by every verifier: an update takes effect with the next handshake.
#[derive(Clone)]
pub struct TrustStore(Arc<Inner>);

struct Inner {
    current: ArcSwap<TrustSnapshot>,
    generation: watch::Sender<Generation>,
    /// Orders updates, so that generations only grow.
    update: Mutex<()>,
}

impl TrustStore {
    /// A store that holds `bundle` (an empty one refuses everybody).
    pub fn new(bundle: TrustBundle) -> Self {
        Self::of(bundle, TrustDomains::default())
    }

    /// A store that holds `bundle` for somebody whose trust domain has other names: a certificate under any of them is
    /// verified with our own roots, and its identity is the one under our own name.
    ///
    /// # Errors
    /// If the bundle has roots for two of the names ([`InvalidBundle::Alias`]).
    pub fn with_domains(bundle: TrustBundle, domains: TrustDomains) -> Result<Self, InvalidBundle> {
        Ok(Self::of(bundle.normal(&domains)?, domains))
    }

    fn of(bundle: TrustBundle, domains: TrustDomains) -> Self {
        Self(Arc::new(Inner {
            current: ArcSwap::from_pointee(TrustSnapshot { generation: 1, bundle, domains }),
            generation: watch::Sender::new(1),
            update: Mutex::new(()),
        }))
    }

    /// The current bundle.
    pub fn current(&self) -> Arc<TrustSnapshot> {
        self.0.current.load_full()
    }

    /// The current generation.
    pub fn generation(&self) -> Generation {
        self.0.current.load().generation
    }

    /// Our trust domain with its aliases.
    pub fn domains(&self) -> TrustDomains {
        self.0.current.load().domains.clone()
    }

    /// Replaces the bundle and returns the generation then in force. An equal bundle changes nothing, so that a
    /// re-sent one costs nobody a full handshake.
    ///
    /// # Errors
    /// As [`Self::with_domains`], or if it takes all roots of our own trust domain away ([`InvalidBundle::NotOurs`]); the old
    /// bundle stays.
    pub fn update(&self, bundle: TrustBundle) -> Result<Generation, InvalidBundle> {
        let _ordered = self.0.update.lock();
        let current = self.0.current.load();
        let domains = current.domains.clone();
        let bundle = bundle.normal(&domains)?;
        if current.bundle == bundle {
            return Ok(current.generation);
        }
        if bundle.anchors(domains.own()).is_none() && current.bundle.anchors(domains.own()).is_some() {
            return Err(InvalidBundle::NotOurs(domains.own().clone()));
        }
        let generation = current.generation.saturating_add(1);
        self.0.current.store(Arc::new(TrustSnapshot { generation, bundle, domains }));
        self.0.generation.send_replace(generation);
        Ok(generation)
    }

    /// Follows the generation: whoever holds connections re-checks their peers
    /// ([`PeerInfo::recheck`](crate::PeerInfo::recheck)) when it changes.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.generation.subscribe()
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.current.load(), f)
    }
}
