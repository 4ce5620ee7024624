//! The authority as a source of certificates for its own process (standalone mode).

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, DnsName};
use weft_tls::{FetchError, FetchFuture, SvidRequest, SvidSource};

use crate::authority::{Authority, Issued};
use crate::error::IssueError;

/// Issues without a network between. Only for identities that the process itself decides on.
#[derive(Clone, Debug)]
pub struct LocalSource(pub Arc<Authority>);

impl SvidSource for LocalSource {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(async move { chain(self.0.issue(&request.csr, &request.identity, None)) })
    }
}

/// As [`LocalSource`], for the authority's own server: its certificates also carry DNS names, by which the agents of
/// other meshes that share the root know it. Weft's own callers know it by its identity and don't look at them.
#[derive(Clone, Debug)]
pub struct ServerSource {
    /// Who issues.
    pub authority: Arc<Authority>,
    /// The names; may be empty.
    pub dns_names: Vec<DnsName<'static>>,
}

impl SvidSource for ServerSource {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(async move { chain(self.authority.issue_server(&request.csr, &request.identity, &self.dns_names)) })
    }
}

fn chain(issued: Result<Issued, IssueError>) -> Result<Vec<CertificateDer<'static>>, FetchError> {
    match issued {
        Ok(issued) => Ok(issued.chain),
        Err(error) if error.is_ours() => Err(FetchError::Unavailable(error.to_string())),
        Err(error) => Err(FetchError::Refused(error.to_string())),
    }
}

/// The text is no DNS name that a certificate can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS name such as ca.example.com (no wildcard, no address, no dot at the end)")]
pub struct InvalidDnsName;

/// Reads a DNS name for [`ServerSource`], for command lines.
///
/// # Errors
///
/// If it is no host name of RFC 1123, or ends with a dot, which SANs don't (RFC 5280, section 4.2.1.6).
pub fn dns_name(text: &str) -> Result<DnsName<'static>, InvalidDnsName> {
    if text.ends_with('.') {
        return Err(InvalidDnsName);
    }
    DnsName::try_from(text).map(|name| name.to_lowercase_owned()).map_err(|_| InvalidDnsName)
}
