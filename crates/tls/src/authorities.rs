//! Authorities as users name them: in PEM bundles of their own, or the public ones.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Why authorities can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthorities {
    /// The text is not PEM, or there is no certificate in it.
    #[error("there is no certificate in PEM form in it")]
    None,
    /// A certificate does not parse.
    #[error("certificate {0} is malformed")]
    Certificate(usize),
}

/// The authorities of a bundle, each of them a root whoever signed it.
pub(crate) fn of_bundle(pem: &[u8]) -> Result<RootCertStore, InvalidAuthorities> {
    let mut roots = RootCertStore::empty();
    for (index, der) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let der = der.map_err(|_| InvalidAuthorities::Certificate(index + 1))?;
        roots.add(der).map_err(|_| InvalidAuthorities::Certificate(index + 1))?;
    }
    if roots.is_empty() { Err(InvalidAuthorities::None) } else { Ok(roots) }
}

/// The public authorities, as Mozilla's list had them when this was built: an image has no list of its own.
pub(crate) fn public() -> Arc<RootCertStore> {
    static PUBLIC: std::sync::LazyLock<Arc<RootCertStore>> = std::sync::LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        Arc::new(roots)
    });
    Arc::clone(&PUBLIC)
}

/// Says whether the certificates of a bundle, PEM, can be trusted.
///
/// # Errors
/// Why they can't, for people.
pub fn check_authorities(pem: &[u8]) -> Result<(), String> {
    of_bundle(pem).map(drop).map_err(|invalid| invalid.to_string())
}
