//! An authority whose certificates were made elsewhere, in the layout that Istio mounts as `cacerts`: a mesh that shares
//! its root with another one. The root's key is not here, so such an authority issues and never rotates.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_core::identity::SpiffeId;
use weft_tls::{Clock, KeyRequest, PeerRole};

use crate::authority::{Authority, AuthorityError, AuthoritySettings, Branch, State};
use crate::material::Signer;
use crate::rotate::Stage;

impl Authority {
    /// Opens the authority whose files `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem` and `root-cert.pem` are in `dir`.
    ///
    /// # Errors
    ///
    /// If a file is missing or broken, the key is not the certificate's, or what it issues does not chain to the root.
    pub fn from_cacerts(dir: &Path, settings: AuthoritySettings, clock: Clock) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|e| AuthorityError::Disk(path, e))
        };
        let broken =
            |name: &str, what: String| AuthorityError::Material(format!("{}: {what}", dir.join(name).display()));
        let certificates = |name: &str| {
            CertificateDer::pem_slice_iter(&read(name)?)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| broken(name, e.to_string()))
        };
        let key =
            PrivateKeyDer::from_pem_slice(&read("ca-key.pem")?).map_err(|e| broken("ca-key.pem", e.to_string()))?;
        let key = KeyPair::try_from(key.secret_der()).map_err(|e| broken("ca-key.pem", e.to_string()))?;
        let none = || broken("ca-cert.pem", "no certificate".to_owned());
        let cert = certificates("ca-cert.pem")?.into_iter().next().ok_or_else(none)?;
        let roots = certificates("root-cert.pem")?;
        // The chain file may begin with the CA certificate and end with the root; peers need neither twice.
        let mut seen: HashSet<_> = roots.iter().cloned().chain([cert.clone()]).collect();
        let above = certificates("cert-chain.pem")?.into_iter().filter(|der| seen.insert(der.clone())).collect();
        let branch = Branch { number: 0, roots, root: None, intermediate: Signer::new(cert, key)?, above };
        let state = State { generation: 1, stage: Stage::Stable, branches: vec![branch] };
        let authority = Self::assemble(settings, clock, None, state)?;
        authority.probe()?;
        Ok(authority)
    }

    /// Issues a certificate and verifies it as a peer would.
    fn probe(&self) -> Result<(), AuthorityError> {
        let broken = |e: String| AuthorityError::Material(format!("a certificate issued for a test is refused: {e}"));
        let identity = SpiffeId::new(self.trust_domain().clone(), "probe", "probe");
        let request = KeyRequest::generate(&identity).map_err(|e| broken(e.to_string()))?;
        let issued = self.issue(request.csr(), &identity, None).map_err(|e| broken(e.to_string()))?;
        let svid = request.complete(issued.chain).map_err(|e| broken(e.to_string()))?;
        for role in [PeerRole::Client, PeerRole::Server] {
            svid.verify(self.trust(), role, &self.clock).map_err(|e| broken(e.to_string()))?;
        }
        Ok(())
    }
}
