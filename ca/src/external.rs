//! CA certificates made elsewhere: Istio's `cacerts`, or what cert-manager puts into a Secret. A mesh that shares its root
//! with another one. The root's key is not here.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use weft_core::identity::SpiffeId;
use weft_tls::{Clock, KeyRequest, PeerRole};

use crate::authority::{Authority, AuthoritySettings, Bundle};
use crate::csr;
use crate::error::AuthorityError;
use crate::material::Signer;
use crate::state::{Branch, Files, State, Subject};
use crate::store::Directory;

/// Which part is in which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The CA certificate that signs leaves; what follows it in the file goes on to the root.
    cert: &'static str,
    key: &'static str,
    /// More of the way to the root.
    chain: Option<&'static str>,
    roots: &'static str,
}

/// What Istio mounts as `cacerts`.
pub(crate) const CACERTS: Layout =
    Layout { cert: "ca-cert.pem", key: "ca-key.pem", chain: Some("cert-chain.pem"), roots: "root-cert.pem" };
/// A Secret of type `kubernetes.io/tls`, as cert-manager fills it.
pub(crate) const TLS: Layout = Layout { cert: "tls.crt", key: "tls.key", chain: None, roots: "ca.crt" };

impl Branch {
    /// The branch that files made elsewhere hold. It issues something for a test, so that a chain that peers would
    /// refuse is an error here.
    pub fn external(
        files: &impl Files,
        layout: &Layout,
        settings: &AuthoritySettings,
        clock: &Clock,
    ) -> Result<Self, AuthorityError> {
        let roots = files.certificates(layout.roots)?;
        let mut certificates = files.certificates(layout.cert)?.into_iter();
        let cert = certificates.next().ok_or_else(|| files.broken(layout.cert, "no certificate in it"))?;
        let mut certificates: Vec<_> = certificates.collect();
        let key = files.need_key(layout.key)?;
        if let Some(chain) = layout.chain {
            certificates.extend(files.certificates(chain)?);
        }
        let intermediate = Signer::new(cert.clone(), key).map_err(|e| files.broken(layout.cert, e))?;
        // The chain may begin with the CA certificate and end with the root; peers need neither twice.
        let mut seen: HashSet<_> = roots.iter().cloned().chain([cert]).collect();
        certificates.retain(|der| seen.insert(der.clone()));
        let branch = Self { number: 0, roots, root: None, intermediate: Arc::new(intermediate), above: certificates };
        let bundle = State::first(settings.trust_domains.own().clone(), branch.clone()).bundle();
        branch.probe(&bundle, settings, clock).map_err(|e| files.broken(layout.cert, e))?;
        Ok(branch)
    }

    /// Issues a certificate and verifies it as a peer with this bundle would.
    pub fn probe(&self, bundle: &Bundle, settings: &AuthoritySettings, clock: &Clock) -> Result<(), AuthorityError> {
        let refused = |e: &dyn std::fmt::Display| {
            AuthorityError::Material(format!("a certificate issued for a test is refused: {e}"))
        };
        let identity = SpiffeId::new(settings.trust_domains.own().clone(), "probe", "probe");
        let request = KeyRequest::generate(&identity).map_err(|e| refused(&e))?;
        let key = csr::public_key(request.csr(), &identity).map_err(|e| refused(&e))?;
        let subject = Subject { identity: &identity, dns_names: &[], key: &key, life: settings.leaf_life };
        let (chain, _) = self.certify(&subject, settings.backdate, clock.now())?;
        let svid = request.complete(chain).map_err(|e| refused(&e))?;
        let trust = bundle.to_store(&settings.trust_domains)?;
        for role in [PeerRole::Client, PeerRole::Server] {
            svid.verify(&trust, role, clock).map_err(|e| refused(&e))?;
        }
        Ok(())
    }
}

impl Authority {
    /// Opens the authority whose files `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem` and `root-cert.pem` are in `dir`.
    /// It issues and never rotates.
    ///
    /// # Errors
    ///
    /// If a file is missing or broken, the key is not the certificate's, or what it issues does not chain to the root.
    pub fn from_cacerts(dir: &Path, settings: AuthoritySettings, clock: Clock) -> Result<Self, AuthorityError> {
        let branch = Branch::external(&Directory(dir), &CACERTS, &settings, &clock)?;
        let state = State::first(settings.trust_domains.own().clone(), branch);
        Self::assemble(settings, clock, None, state)
    }
}
