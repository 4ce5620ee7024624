//! What an authority consists of, as a value, and the files it is saved as. A directory and a Secret hold the same files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};

use crate::authority::{AuthoritySettings, Bundle};
use crate::error::AuthorityError;
use crate::material::{Signer, Validity};
use crate::rotate::Stage;

/// The file that names the others; it is written after them.
pub(crate) const STATE: &str = "state.json";

/// Names and contents.
pub(crate) type Saved = BTreeMap<String, Vec<u8>>;

/// What `state.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    trust_domain: TrustDomain,
    generation: u64,
    stage: Stage,
    /// The numbers of the roots, the older first.
    roots: Vec<u32>,
}

/// Where files are: a directory, or an object of Kubernetes.
pub(crate) trait Files {
    /// A file's content, `None` if there is no such file.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, AuthorityError>;

    /// A file's full name, for messages.
    fn place(&self, name: &str) -> String;

    /// A file that must be there.
    fn need(&self, name: &str) -> Result<Vec<u8>, AuthorityError> {
        self.read(name)?.ok_or_else(|| AuthorityError::Material(format!("{} is missing", self.place(name))))
    }

    /// An error about a file.
    fn broken(&self, name: &str, what: impl std::fmt::Display) -> AuthorityError {
        AuthorityError::Material(format!("{}: {what}", self.place(name)))
    }

    /// The certificates of a file, at least one.
    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let text = self.need(name)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.map_err(|e| self.broken(name, e))?;
        if found.is_empty() {
            return Err(self.broken(name, "no certificate in it (PEM, BEGIN CERTIFICATE)"));
        }
        Ok(found)
    }

    /// The key of a file, `None` if the file has none.
    fn key(&self, name: &str) -> Result<Option<KeyPair>, AuthorityError> {
        let text = self.need(name)?;
        let der = match PrivateKeyDer::from_pem_slice(&text) {
            Ok(der) => der,
            Err(pem::Error::NoItemsFound) => return Ok(None),
            Err(error) => return Err(self.broken(name, error)),
        };
        // From the bytes, not from their label: keys are saved under one label, whatever their encoding.
        KeyPair::try_from(der.secret_der()).map(Some).map_err(|e| self.broken(name, e))
    }

    /// The key of a file that must have one.
    fn need_key(&self, name: &str) -> Result<KeyPair, AuthorityError> {
        self.key(name)?.ok_or_else(|| self.broken(name, "no private key in it (PEM, BEGIN PRIVATE KEY)"))
    }
}

/// A root (its key is absent when it is kept elsewhere) and the intermediate under it.
#[derive(Clone)]
pub(crate) struct Branch {
    /// Names its files; never used twice in one authority.
    pub number: u32,
    pub roots: Vec<CertificateDer<'static>>,
    pub root: Option<Arc<Signer>>,
    pub intermediate: Arc<Signer>,
    /// What is sent after the intermediate.
    pub above: Vec<CertificateDer<'static>>,
}

/// The subject of a leaf.
pub(crate) struct Subject<'a> {
    pub identity: &'a SpiffeId,
    pub dns_names: &'a [DnsName<'a>],
    pub key: &'a PublicKey,
    pub life: Duration,
}

impl Branch {
    /// A new root with an intermediate.
    pub fn own(settings: &AuthoritySettings, number: u32, now: SystemTime) -> Result<Self, AuthorityError> {
        let validity = Validity::new(now, settings.backdate, settings.root_life, None);
        let root = Signer::root(settings.trust_domains.own(), validity)?;
        let intermediate = Arc::new(new_intermediate(&root, settings, now)?);
        let roots = vec![root.cert.clone()];
        Ok(Self { number, roots, root: Some(Arc::new(root)), intermediate, above: Vec::new() })
    }

    /// A chain for a leaf, and the leaf's last moment.
    pub fn certify(
        &self,
        subject: &Subject<'_>,
        backdate: Duration,
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, SystemTime), AuthorityError> {
        let end = self.intermediate.not_after;
        if end <= now {
            return Err(AuthorityError::Expired(end));
        }
        let validity = Validity::new(now, backdate, subject.life, Some(end));
        let leaf = self.intermediate.leaf(subject.identity, subject.dns_names, subject.key, validity)?;
        let mut chain = vec![leaf, self.intermediate.cert.clone()];
        chain.extend(self.above.iter().cloned());
        Ok((chain, validity.to))
    }

    fn load(files: &impl Files, number: u32) -> Result<Self, AuthorityError> {
        let (root_name, name) = (root_name(number), intermediate_name(number));
        let roots = files.certificates(&root_name)?;
        let root = match (files.key(&root_name)?, roots.first()) {
            (Some(key), Some(cert)) => {
                let signer = Signer::new(cert.clone(), key).map_err(|e| files.broken(&root_name, e))?;
                Some(Arc::new(signer))
            }
            _ => None,
        };
        let mut certificates = files.certificates(&name)?.into_iter();
        let cert = certificates.next().ok_or_else(|| files.broken(&name, "no certificate in it"))?;
        let intermediate = Signer::new(cert, files.need_key(&name)?).map_err(|e| files.broken(&name, e))?;
        Ok(Self { number, roots, root, intermediate: Arc::new(intermediate), above: certificates.collect() })
    }

    fn save(&self, into: &mut Saved) {
        let pem = |ders: &[CertificateDer<'static>]| ders.iter().map(weft_tls::pem::certificate).collect::<String>();
        let key = |signer: &Signer| signer.issuer.key().serialize_pem();
        let root = pem(&self.roots) + &self.root.as_deref().map(key).unwrap_or_default();
        // Certificate and key in one file, so that they are replaced together.
        let own = weft_tls::pem::certificate(&self.intermediate.cert);
        let intermediate = own + &pem(&self.above) + &key(&self.intermediate);
        into.insert(root_name(self.number), root.into_bytes());
        into.insert(intermediate_name(self.number), intermediate.into_bytes());
    }
}

/// All of an authority. A change makes a new one; what did not change is shared.
#[derive(Clone)]
pub(crate) struct State {
    pub trust_domain: TrustDomain,
    /// Grows with each change of the bundle or the stage.
    pub generation: u64,
    pub stage: Stage,
    /// One branch, or two while one replaces the other: the older first.
    pub branches: Vec<Branch>,
}

impl State {
    /// The first state of an authority.
    pub fn first(trust_domain: TrustDomain, branch: Branch) -> Self {
        Self { trust_domain, generation: 1, stage: Stage::Stable, branches: vec![branch] }
    }

    /// The branch that issues.
    pub fn issuing(&self) -> Result<&Branch, AuthorityError> {
        let branch = match self.stage {
            Stage::Issuing { .. } => self.branches.last(),
            Stage::Stable | Stage::Publishing { .. } => self.branches.first(),
        };
        branch.ok_or_else(|| AuthorityError::Material("the authority has no root".to_owned()))
    }

    /// The number that the next branch gets.
    pub fn next_number(&self) -> u32 {
        self.branches.iter().map(|b| b.number).max().unwrap_or(0).saturating_add(1)
    }

    /// Everybody's roots: what the rest of the mesh is to trust. Branches may share a root.
    pub fn bundle(&self) -> Bundle {
        let mut roots: Vec<CertificateDer<'static>> = Vec::new();
        for root in self.branches.iter().flat_map(|b| &b.roots) {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        Bundle { generation: self.generation, trust_domain: self.trust_domain.clone(), roots }
    }

    /// The files that hold it.
    pub fn save(&self) -> Result<Saved, AuthorityError> {
        let mut files = Saved::new();
        self.branches.iter().for_each(|branch| branch.save(&mut files));
        let summary = Summary {
            trust_domain: self.trust_domain.clone(),
            generation: self.generation,
            stage: self.stage,
            roots: self.branches.iter().map(|b| b.number).collect(),
        };
        let text = serde_json::to_vec_pretty(&summary).map_err(|e| AuthorityError::Material(e.to_string()))?;
        files.insert(STATE.to_owned(), text);
        Ok(files)
    }

    /// The state under our own name, if it was saved under an alias. Certificates of authorities have nothing of a trust domain
    /// that is looked at: roots and intermediates go on under any name.
    pub fn renamed(&self, domains: &TrustDomains) -> Option<Self> {
        let is_alias = self.trust_domain != *domains.own() && domains.is_ours(&self.trust_domain);
        is_alias.then(|| Self { trust_domain: domains.own().clone(), ..self.clone() })
    }

    /// What files of this trust domain hold, or of one that is an alias of it; `None` if nothing was saved there.
    pub fn load(files: &impl Files, domains: &TrustDomains) -> Result<Option<Self>, AuthorityError> {
        match Self::load_any(files)? {
            Some(state) if !domains.is_ours(&state.trust_domain) => {
                let (place, wanted) = (files.place(STATE), domains.own().clone());
                Err(AuthorityError::TrustDomain { place, saved: state.trust_domain, wanted })
            }
            state => Ok(state),
        }
    }

    /// What files hold, whatever the trust domain.
    pub fn load_any(files: &impl Files) -> Result<Option<Self>, AuthorityError> {
        let Some(text) = files.read(STATE)? else { return Ok(None) };
        let saved: Summary =
            serde_json::from_slice(&text).map_err(|e| files.broken(STATE, format!("cannot be read: {e}")))?;
        let branches = saved.roots.iter().map(|number| Branch::load(files, *number)).collect::<Result<Vec<_>, _>>()?;
        let wanted = if saved.stage == Stage::Stable { 1 } else { 2 };
        if branches.len() != wanted {
            let found = branches.len();
            return Err(files.broken(STATE, format!("it names {found} roots, its stage has {wanted}")));
        }
        Ok(Some(Self { trust_domain: saved.trust_domain, generation: saved.generation, stage: saved.stage, branches }))
    }
}

/// An intermediate of this root.
pub(crate) fn new_intermediate(
    root: &Signer,
    settings: &AuthoritySettings,
    now: SystemTime,
) -> Result<Signer, AuthorityError> {
    let validity = Validity::new(now, settings.backdate, settings.intermediate_life, Some(root.not_after));
    root.intermediate(settings.trust_domains.own(), validity)
}

fn root_name(number: u32) -> String {
    format!("root-{number}.pem")
}

fn intermediate_name(number: u32) -> String {
    format!("intermediate-{number}.pem")
}
