//! Our own certificates: a chain, its key, and the request by which an authority is asked for one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use weft_core::identity::SpiffeId;
use zeroize::{Zeroize, Zeroizing};

use crate::clock::{Clock, from_seconds};
use crate::error::PeerRefused;
use crate::leaf::Leaf;
use crate::peer::PeerRole;
use crate::provider;
use crate::trust::TrustStore;
use crate::verify;

/// Why a chain and a key do not make an [`Svid`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSvid {
    /// The chain is empty.
    #[error("the chain has no certificate")]
    Empty,
    /// The leaf is not a SPIFFE leaf.
    #[error("the leaf is no SPIFFE certificate: {0}")]
    Leaf(PeerRefused),
    /// The key does not parse, or not as a kind that signs in TLS 1.3.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// The key is not the leaf's.
    #[error("the private key does not belong to the leaf")]
    KeyMismatch,
    /// No key could be generated.
    #[error("no key or request could be made: {0}")]
    Generate(String),
}

/// An X.509-SVID of ours: certificate chain, leaf first, and private key. The key is wiped when the last user drops it.
pub struct Svid {
    key: Arc<CertifiedKey>,
    pkcs8: Zeroizing<Vec<u8>>,
    leaf: Leaf,
}

impl Svid {
    /// Checks that chain and key belong together and that the leaf names one workload identity.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivatePkcs8KeyDer<'_>) -> Result<Self, InvalidSvid> {
        let leaf = Leaf::read(chain.first().ok_or(InvalidSvid::Empty)?).map_err(InvalidSvid::Leaf)?;
        let provider = provider::mesh();
        let signing = provider
            .key_provider
            .load_private_key(key.clone_key().into())
            .map_err(|e| InvalidSvid::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_| InvalidSvid::KeyMismatch)?;
        let pkcs8 = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        Ok(Self { key: Arc::new(certified), pkcs8, leaf })
    }

    /// Whose it is.
    pub fn identity(&self) -> &SpiffeId {
        &self.leaf.identity
    }

    /// The first moment it is valid.
    pub fn not_before(&self) -> SystemTime {
        from_seconds(self.leaf.not_before)
    }

    /// The last moment it is valid.
    pub fn not_after(&self) -> SystemTime {
        from_seconds(self.leaf.not_after)
    }

    /// The serial number, lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Verifies it as a peer would that holds `trust`.
    pub fn verify(&self, trust: &TrustStore, role: PeerRole, clock: &Clock) -> Result<(), PeerRefused> {
        verify::chain(self.chain(), &trust.current(), role, clock.unix()).map(drop)
    }

    /// Chain and key, for the process that takes over from this one. Not for a disk.
    pub fn to_parts(&self) -> SvidParts {
        SvidParts { chain: self.chain().to_vec(), key_pkcs8: self.pkcs8.clone() }
    }

    /// Takes over from another process.
    pub fn from_parts(parts: SvidParts) -> Result<Self, InvalidSvid> {
        Self::new(parts.chain, &PrivatePkcs8KeyDer::from(parts.key_pkcs8.as_slice()))
    }

    /// A certificate that breaks the rules, to see peers refuse it.
    #[cfg(test)]
    pub(crate) fn unchecked(chain: Vec<CertificateDer<'static>>, pkcs8: Vec<u8>, identity: SpiffeId) -> Self {
        let key = PrivatePkcs8KeyDer::from(pkcs8.clone());
        let signing = provider::mesh().key_provider.load_private_key(key.into()).unwrap();
        let not_after = 4_000_000_000;
        Self {
            key: Arc::new(CertifiedKey::new(chain, signing)),
            pkcs8: Zeroizing::new(pkcs8),
            leaf: Leaf { identity, serial: "0".into(), not_before: 0, not_after },
        }
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Svid({}, serial {}, not_after {})", self.leaf.identity, self.leaf.serial, self.leaf.not_after)
    }
}

/// What an [`Svid`] consists of, to be handed to another process. Wiped when dropped; never logged.
pub struct SvidParts {
    /// DER certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, PKCS#8.
    pub key_pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SvidParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SvidParts({} certificates, key hidden)", self.chain.len())
    }
}

/// A fresh P-256 key and the signing request (PKCS#10, RFC 2986) that asks an authority to certify it.
pub struct KeyRequest {
    csr: Vec<u8>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl KeyRequest {
    /// Makes a key and a request whose only name is the identity.
    pub fn generate(identity: &SpiffeId) -> Result<Self, InvalidSvid> {
        let failed = |e: rcgen::Error| InvalidSvid::Generate(e.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = Ia5String::try_from(identity.to_string()).map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let mut pair = KeyPair::generate().map_err(failed)?;
        let csr = params.serialize_request(&pair).map_err(failed)?.der().to_vec();
        let pkcs8 = Zeroizing::new(pair.serialize_der());
        pair.zeroize();
        Ok(Self { csr, pkcs8 })
    }

    /// The request, DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Joins the issued chain with the key.
    pub fn complete(self, chain: Vec<CertificateDer<'static>>) -> Result<Svid, InvalidSvid> {
        Svid::new(chain, &PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()))
    }
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRequest(key hidden)")
    }
}
