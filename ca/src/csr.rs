//! Reads a signing request: the public key is taken, everything else only checked.

use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use weft_core::identity::SpiffeId;
use x509_parser::asn1_rs::{Any, FromDer as _};

use crate::error::IssueError;

/// The largest request read, in bytes; one with an RSA-4096 key is about 1,300.
pub(crate) const MAX_CSR: usize = 8 * 1024;

/// The key of a request that is signed by that key and names nobody, or only the identity.
pub(crate) fn public_key(der: &[u8], identity: &SpiffeId) -> Result<PublicKey, IssueError> {
    if der.len() > MAX_CSR {
        return Err(IssueError::TooLarge(der.len()));
    }
    let csr =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).map_err(|e| match e {
            rcgen::Error::InvalidCertificationRequestSignature => IssueError::Signature,
            _ => IssueError::Malformed,
        })?;
    // What follows a request isn't signed, and might be read by somebody as the one that is.
    let whole = Any::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    if !whole {
        return Err(IssueError::Malformed);
    }
    match csr.params.subject_alt_names.as_slice() {
        [] => {}
        [SanType::URI(uri)] if uri.as_str() == identity.to_string() => {}
        _ => return Err(IssueError::OtherNames),
    }
    if !is_strong(&csr.public_key) {
        return Err(IssueError::WeakKey);
    }
    Ok(csr.public_key)
}

/// P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits. The lengths matter: the library takes the curve from the
/// signature's name, not from the key.
fn is_strong(key: &PublicKey) -> bool {
    let raw = key.der_bytes();
    let uncompressed = raw.first() == Some(&4);
    match key.algorithm() {
        alg if *alg == rcgen::PKCS_ECDSA_P256_SHA256 => raw.len() == 65 && uncompressed,
        alg if *alg == rcgen::PKCS_ECDSA_P384_SHA384 => raw.len() == 97 && uncompressed,
        alg if *alg == rcgen::PKCS_ED25519 => raw.len() == 32,
        // DER: the modulus, 256 to 512 bytes, its sign byte, the exponent, and three headers.
        alg if *alg == rcgen::PKCS_RSA_SHA256 => (256 + 8..=512 + 20).contains(&raw.len()),
        _ => false,
    }
}
