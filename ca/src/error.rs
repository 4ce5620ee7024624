//! Why an authority cannot work, and why a request gets no certificate.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_core::identity::{SpiffeId, TrustDomain};

use crate::csr;

/// A time for people: RFC 3339 in UTC, whole seconds.
pub(crate) fn stamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at).replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// Why an authority cannot start, or cannot change.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory fails.
    #[error("{0}: {1}")]
    Disk(PathBuf, #[source] io::Error),
    /// Another process has the directory.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A file's or Secret's content cannot be used; the text names both.
    #[error("{0}")]
    Material(String),
    /// The saved state belongs to another trust domain.
    #[error(
        "{place} belongs to trust domain {saved}, not {wanted}: to change it, {saved} has to be an alias of {wanted} for a while"
    )]
    TrustDomain {
        /// Where it is saved.
        place: String,
        /// The saved one.
        saved: TrustDomain,
        /// The caller's.
        wanted: TrustDomain,
    },
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(#[source] rcgen::Error),
    /// The issuing certificate has expired.
    #[error("the issuing certificate expired at {}", stamp(*.0))]
    Expired(SystemTime),
    /// The system gave no random numbers.
    #[error("no random numbers")]
    Random,
}

/// Why a request gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It is larger than any honest one.
    #[error("the request has {0} bytes, at most {max} are read", max = csr::MAX_CSR)]
    TooLarge(usize),
    /// It does not parse, or asks for extensions that have no place in a workload's certificate.
    #[error("the request is no PKCS#10 request for a workload's certificate")]
    Malformed,
    /// It is not signed by the key it names.
    #[error("the request's signature does not match its key")]
    Signature,
    /// It names something other than the identity.
    #[error("the request names something other than the identity asked for")]
    OtherNames,
    /// Its key is of a kind or size that is not certified.
    #[error("the request's key is not P-256, P-384, Ed25519 or RSA with 2048 to 4096 bits")]
    WeakKey,
    /// The identity is not in this authority's trust domain.
    #[error("{identity} is not in trust domain {domain}")]
    TrustDomain {
        /// Whose certificate was asked for.
        identity: SpiffeId,
        /// Ours.
        domain: TrustDomain,
    },
    /// The authority has trouble of its own.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl IssueError {
    /// Whether the authority is at fault, not the request.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Authority(_))
    }

    /// The closed reason for metrics and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "csr_too_large",
            Self::Malformed => "csr_malformed",
            Self::Signature => "csr_signature",
            Self::OtherNames => "csr_names",
            Self::WeakKey => "csr_weak_key",
            Self::TrustDomain { .. } => "trust_domain",
            Self::Authority(_) => "authority",
        }
    }
}
