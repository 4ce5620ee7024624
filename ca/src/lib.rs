//! SPIFFE X.509 authority: issue, rotate, publish the trust bundle.
//!
//! ```text
//!  request --token--> Authenticator -> Caller --may it?--> IssueRule --CSR--> Authority --> chain + bundle
//! ```
//!
//! Invariants:
//!
//! - The name in a certificate is the identity that the caller was permitted; nothing but the public key is taken from
//!   a signing request. DNS names are for the authority's own server and come from its command line alone.
//! - No leaf outlives the intermediate that signed it, and no intermediate its root.
//! - At every moment of a rotation, every unexpired leaf chains to a root of the current bundle, and no leaf is issued
//!   under a root that was not published for the propagation time before.
//! - What is on disk is written before it is used, each file whole (written aside, then renamed), readable by its owner.

mod auth;
mod authority;
mod cacerts;
mod csr;
mod local;
mod material;
mod rotate;
mod serve;
mod service;
mod store;

pub use auth::{Authenticator, Bindings, Caller, IssueRule, Refusal, StaticTokens, Unauthenticated};
pub use authority::{Authority, AuthorityError, AuthoritySettings, AuthorityStatus, Bundle, IssueError, Issued};
pub use local::{InvalidDnsName, LocalSource, ServerSource, dns_name};
pub use rotate::{RotateError, Stage};
pub use rustls_pki_types::DnsName;
pub use serve::{TlsIo, control_incoming};
pub use service::{CaService, ServiceSettings};

#[cfg(test)]
mod tests;
