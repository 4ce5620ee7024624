//! The authority's own state on disk: a directory of its own, locked, files whole and readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use weft_core::identity::TrustDomain;

use crate::authority::AuthorityError;
use crate::material::Signer;
use crate::rotate::Stage;

const STATE: &str = "state.json";

/// What `state.json` says; the files it names exist before it does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub trust_domain: TrustDomain,
    pub generation: u64,
    pub stage: Stage,
    /// The numbers of the roots, the older first.
    pub roots: Vec<u32>,
}

/// The directory, held by one process at a time.
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the directory, making it if need be.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let failed = |e| AuthorityError::Disk(dir.to_owned(), e);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let path = dir.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
        lock.try_lock().map_err(|_| AuthorityError::Locked(dir.to_owned()))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// What was saved last, if anything was.
    pub fn load(&self) -> Result<Option<Saved>, AuthorityError> {
        let path = self.dir.join(STATE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| AuthorityError::Material(format!("{} cannot be read: {e}", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(AuthorityError::Disk(path, e)),
        }
    }

    /// Makes `saved` what is loaded next time.
    pub fn save(&self, saved: &Saved) -> Result<(), AuthorityError> {
        let text = serde_json::to_vec_pretty(saved).map_err(|e| AuthorityError::Material(e.to_string()))?;
        self.write(STATE, &text)
    }

    pub fn load_signer(&self, kind: &str, number: u32) -> Result<Signer, AuthorityError> {
        let path = self.dir.join(name(kind, number));
        let pem = fs::read_to_string(&path).map_err(|e| AuthorityError::Disk(path.clone(), e))?;
        let broken = |what: String| AuthorityError::Material(format!("{}: {what}", path.display()));
        let cert = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| broken(e.to_string()))?;
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| broken(e.to_string()))?;
        let key = KeyPair::try_from(key.secret_der()).map_err(|e| broken(e.to_string()))?;
        Signer::new(cert, key)
    }

    /// Certificate and key in one file, so that they are replaced together.
    pub fn save_signer(&self, kind: &str, number: u32, signer: &Signer) -> Result<(), AuthorityError> {
        let key = signer.issuer.key().serialize_pem();
        self.write(&name(kind, number), format!("{}{key}", weft_tls::pem::certificate(&signer.cert)).as_bytes())
    }

    pub fn remove_signer(&self, kind: &str, number: u32) {
        let path = self.dir.join(name(kind, number));
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a retired key could not be removed");
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AuthorityError> {
        let path = self.dir.join(name);
        let aside = self.dir.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| AuthorityError::Disk(path.clone(), e))
    }
}

fn name(kind: &str, number: u32) -> String {
    format!("{kind}-{number}.pem")
}
