//! Who the other side must be, and who it turned out to be.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use weft_core::identity::{SpiffeId, TrustDomains};

use crate::clock::Clock;
use crate::error::PeerRefused;
use crate::trust::{Generation, TrustStore};
use crate::verify;

/// The identities a client accepts of the server it dials, compared whole but for aliases of our trust domain; never empty.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExpectedPeer(Arc<[SpiffeId]>);

impl ExpectedPeer {
    /// Exactly this identity.
    pub fn one(identity: SpiffeId) -> Self {
        Self(Arc::from([identity]))
    }

    /// Any of these; `None` if there are none, because "nobody in particular" is not a thing to expect.
    pub fn any_of(identities: impl IntoIterator<Item = SpiffeId>) -> Option<Self> {
        let mut all: Vec<_> = identities.into_iter().collect();
        all.sort();
        all.dedup();
        (!all.is_empty()).then(|| Self(all.into()))
    }

    /// Whether an identity that was verified is one of these; of its trust domain the names in `domains` are one.
    pub(crate) fn check(&self, identity: &SpiffeId, domains: &TrustDomains) -> Result<(), PeerRefused> {
        if self.0.iter().any(|expected| domains.same(expected, identity)) {
            return Ok(());
        }
        Err(PeerRefused::WrongIdentity { expected: self.clone(), got: identity.clone() })
    }
}

impl From<SpiffeId> for ExpectedPeer {
    fn from(identity: SpiffeId) -> Self {
        Self::one(identity)
    }
}

impl fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, identity) in self.0.iter().enumerate() {
            write!(f, "{}{identity}", if n == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which end of the connection a certificate was presented by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRole {
    /// The end that dialled.
    Client,
    /// The end that was dialled.
    Server,
}

/// A verified peer. Only a handshake makes one.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    pub(crate) identity: SpiffeId,
    pub(crate) serial: String,
    pub(crate) not_after: SystemTime,
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    pub(crate) group: &'static str,
    pub(crate) resumed: bool,
    pub(crate) role: PeerRole,
    pub(crate) verified_with: Generation,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}

impl PeerInfo {
    /// The identity its certificate proves, under our own name for its trust domain.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The serial number of its certificate, lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The last moment its certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The negotiated TLS version, as `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The negotiated cipher suite, by its IANA name.
    pub fn cipher(&self) -> &'static str {
        self.cipher
    }

    /// The negotiated key exchange group, by its IANA name.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Whether a session was resumed (the chain was verified again all the same).
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// The end that the peer is.
    pub fn role(&self) -> PeerRole {
        self.role
    }

    /// The bundle generation it was verified with.
    pub fn verified_with(&self) -> Generation {
        self.verified_with
    }

    /// Verifies the chain once more, against the bundle and the time of now: for open connections when the bundle
    /// changes, and for those that outlive their peer's certificate.
    pub fn recheck(&self, trust: &TrustStore, clock: &Clock) -> Result<(), PeerRefused> {
        let leaf = verify::chain(&self.chain, &trust.current(), self.role, clock.unix())?;
        if leaf.identity == self.identity {
            return Ok(());
        }
        Err(PeerRefused::WrongIdentity { expected: self.identity.clone().into(), got: leaf.identity })
    }
}
