//! Why a handshake failed, as closed enums that metrics can label and that survive the way through rustls and tokio.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};
use weft_core::identity::{InvalidIdentity, SpiffeId, TrustDomain};
use weft_core::reason::Reason;

use crate::clock::seconds;
use crate::peer::ExpectedPeer;

/// Why this side refuses the peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// The certificate, or one above it, has expired.
    #[error("certificate expired {} s ago (not_after {not_after}, now {now}); is the peer's renewal stuck, or a clock wrong?", now.saturating_sub(*not_after))]
    Expired {
        /// Its last second, since the epoch.
        not_after: u64,
        /// The second it was judged at.
        now: u64,
    },
    /// The certificate, or one above it, is not valid yet.
    #[error("certificate not valid for another {} s (not_before {not_before}, now {now}); is a clock wrong?", not_before.saturating_sub(*now))]
    NotYetValid {
        /// Its first second, since the epoch.
        not_before: u64,
        /// The second it was judged at.
        now: u64,
    },
    /// No current root of the peer's trust domain signed the chain.
    #[error(
        "no current root of the peer's trust domain signed its chain; was a root retired too early, or is the bundle stale?"
    )]
    UnknownRoot,
    /// The peer did not prove that it holds its certificate's key.
    #[error("the peer did not prove that it holds the key of its certificate")]
    BadSignature,
    /// There is no URI SAN.
    #[error("certificate has no SPIFFE URI SAN")]
    NoSpiffeSan,
    /// There are two or more URI SANs (X.509-SVID, section 2: exactly one).
    #[error("certificate has {count} URI SANs, a SPIFFE certificate has exactly one")]
    SeveralSans {
        /// How many.
        count: usize,
    },
    /// The URI SAN is not an identity of the form we use.
    #[error("certificate's URI SAN is no workload identity: {0}")]
    InvalidSpiffeSan(InvalidIdentity),
    /// The peer is someone, but not whom we dialled.
    #[error("peer is {got}, expected {expected}; does the address belong to another workload by now?")]
    WrongIdentity {
        /// Who was acceptable.
        expected: ExpectedPeer,
        /// Who answered.
        got: SpiffeId,
    },
    /// The peer's trust domain is not one we hold roots for.
    #[error("trust domain {got} is neither ours nor federated")]
    WrongTrustDomain {
        /// The peer's.
        got: TrustDomain,
    },
    /// The peer presented no certificate.
    #[error("peer presented no certificate")]
    NoCertificate,
    /// The certificate may not be used for this: key usage, extended key usage or CA flag (X.509-SVID, section 4).
    #[error("certificate's key usages do not allow it to be used this way")]
    KeyUsage,
    /// The certificate does not parse.
    #[error("certificate is malformed")]
    Malformed,
    /// Anything else that webpki rejects in a chain.
    #[error("chain rejected: {0:?}")]
    InvalidChain(webpki::Error),
}

impl PeerRefused {
    /// The closed reason for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::UnknownRoot => "unknown_root",
            Self::BadSignature => "bad_signature",
            Self::NoSpiffeSan => "no_spiffe_san",
            Self::SeveralSans { .. } => "several_sans",
            Self::InvalidSpiffeSan(_) => "invalid_spiffe_san",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::WrongTrustDomain { .. } => "wrong_trust_domain",
            Self::NoCertificate => "no_peer_certificate",
            Self::KeyUsage => "key_usage",
            Self::Malformed => "malformed_certificate",
            Self::InvalidChain(_) => "invalid_chain",
        }
    }

    pub(crate) fn from_webpki(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CertExpired { time, not_after } => Self::Expired { not_after: not_after.as_secs(), now: time.as_secs() },
            E::CertNotValidYet { time, not_before } => {
                Self::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
            }
            // An old and a new root often share their name, so "signed by somebody of that name with another key" is
            // the usual sight of a root that is not ours (any more).
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::UnknownRoot,
            E::CaUsedAsEndEntity | E::EndEntityUsedAsCa | E::RequiredEkuNotFoundContext(_) => Self::KeyUsage,
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions => Self::Malformed,
            other => Self::InvalidChain(other),
        }
    }

    /// The form in which a rustls verifier answers; the native variants are used where they make rustls send the
    /// alert that tells the peer most.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        use rustls_pki_types::UnixTime;
        let at = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
        rustls::Error::InvalidCertificate(match self {
            Self::Expired { not_after, now } => {
                CertificateError::ExpiredContext { time: at(now), not_after: at(not_after) }
            }
            Self::NotYetValid { not_before, now } => {
                CertificateError::NotValidYetContext { time: at(now), not_before: at(not_before) }
            }
            Self::UnknownRoot => CertificateError::UnknownIssuer,
            Self::BadSignature => CertificateError::BadSignature,
            Self::Malformed => CertificateError::BadEncoding,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }

    fn from_rustls(error: &CertificateError) -> Option<Self> {
        Some(match error {
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { not_after: not_after.as_secs(), now: time.as_secs() }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
            }
            CertificateError::UnknownIssuer => Self::UnknownRoot,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::BadEncoding => Self::Malformed,
            CertificateError::Other(OtherError(inner)) => inner.downcast_ref::<Self>()?.clone(),
            _ => return None,
        })
    }
}

/// Why there is no certificate of ours to present. The reason is always `no_certificate`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCertificate {
    /// No pod here runs as this identity.
    #[error("no workload of this node runs as {0}")]
    NotRequested(SpiffeId),
    /// It was asked for and has not come yet.
    #[error("the certificate of {identity} has not been issued yet{}", last_error.as_deref().map(|e| format!("; last error: {e}")).unwrap_or_default())]
    Pending {
        /// Whose.
        identity: SpiffeId,
        /// What the last attempt ended with.
        last_error: Option<Arc<str>>,
    },
    /// It expired before it could be renewed.
    #[error("the certificate of {identity} expired at {} and could not be renewed{}", seconds(*not_after), last_error.as_deref().map(|e| format!("; last error: {e}")).unwrap_or_default())]
    Expired {
        /// Whose.
        identity: SpiffeId,
        /// When.
        not_after: std::time::SystemTime,
        /// What the last attempt to renew it ended with.
        last_error: Option<Arc<str>>,
    },
}

impl NoCertificate {
    /// The closed reason for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        "no_certificate"
    }
}

/// Why a connection did not get to be a verified TLS stream.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// There is no certificate of ours to present.
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),
    /// We refuse the peer.
    #[error("peer refused: {0}")]
    Peer(#[from] PeerRefused),
    /// The peer refused us, or gave up, by an alert.
    #[error("peer ended the handshake with the alert {0:?}; its log says why")]
    Alert(AlertDescription),
    /// The peer speaks no TLS version, cipher or group that we accept.
    #[error("peer's TLS is not acceptable (TLS 1.3 is required): {0:?}")]
    Incompatible(PeerIncompatible),
    /// The application protocol `h2` was not agreed on.
    #[error("no common application protocol: the peer must offer h2 by ALPN")]
    NoAlpn,
    /// The peer broke the protocol, or is not a TLS peer at all.
    #[error("TLS protocol error: {0}")]
    Protocol(rustls::Error),
    /// The handshake took too long.
    #[error("handshake not finished within {0:?}")]
    Timeout(std::time::Duration),
    /// The connection failed under the handshake.
    #[error("connection failed during the handshake: {0}")]
    Io(io::Error),
}

impl HandshakeError {
    /// The closed reason for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate(inner) => inner.reason(),
            Self::Peer(inner) => inner.reason(),
            Self::Alert(_) => "refused_by_peer",
            Self::Incompatible(_) => "incompatible_tls",
            Self::NoAlpn => "no_alpn",
            Self::Protocol(_) => "tls_protocol",
            Self::Timeout(_) => "handshake_timeout",
            Self::Io(_) => "handshake_io",
        }
    }

    /// The code that a connection which ended for this is logged and counted with; [`Self::reason`] is the detail.
    pub const fn code(&self) -> Reason {
        match self {
            Self::NoCertificate(_) => Reason::NoCertificate,
            Self::Peer(_) => Reason::PeerIdentity,
            _ => Reason::TlsHandshake,
        }
    }

    /// Whether dialling the same peer again, later, may succeed without anybody's configuration changing.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NoCertificate(_) | Self::Timeout(_) | Self::Io(_))
    }

    /// What an error of a TLS stream means. In TLS 1.3 a client learns only from its first read that the server refused
    /// its certificate, so users of a stream ask this as well.
    pub fn from_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => Self::from_rustls(inner.clone()),
            None => Self::Io(error),
        }
    }

    fn from_rustls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(inner) => match PeerRefused::from_rustls(&inner) {
                Some(refused) => Self::Peer(refused),
                None => Self::Protocol(rustls::Error::InvalidCertificate(inner)),
            },
            rustls::Error::NoCertificatesPresented => Self::Peer(PeerRefused::NoCertificate),
            rustls::Error::AlertReceived(alert) => Self::Alert(alert),
            rustls::Error::PeerIncompatible(what) => Self::Incompatible(what),
            rustls::Error::NoApplicationProtocol => Self::NoAlpn,
            other => Self::Protocol(other),
        }
    }
}
