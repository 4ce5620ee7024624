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
//! - What issues has been saved before: in a directory, each file whole (written aside, then renamed) and readable by its
//!   owner; or in a Secret ([`kubernetes`]), from which alone every replica issues. In a cluster keys touch no disk.
//! - A step of a rotation is a pure function of the state ([`Step`]); where the state is kept makes no
//!   difference to it.

mod auth;
mod authority;
mod csr;
mod error;
mod external;
pub mod kubernetes;
mod local;
mod material;
mod metrics;
mod rotate;
mod server;
mod service;
mod state;
mod store;

pub use auth::{Authenticator, Bindings, Caller, IssueRule, Refusal, StaticTokens, Unauthenticated};
pub use authority::{Authority, AuthoritySettings, AuthorityStatus, Bundle, Issued};
pub use error::{AuthorityError, IssueError};
pub use local::{InvalidDnsName, LocalSource, ServerSource, dns_name};
pub use rotate::{InvalidStep, RotateError, Stage, Step};
pub use rustls_pki_types::DnsName;
pub use server::{ServeError, ServerIdentity, serve};
pub use service::{CaService, ServiceSettings};
pub use weft_control::{TlsIo, control_incoming};

/// Whether a signing request is one for an identity; for the fuzz targets.
#[doc(hidden)]
pub fn is_request_for(der: &[u8], identity: &weft_core::identity::SpiffeId) -> bool {
    csr::public_key(der, identity).is_ok()
}

#[cfg(test)]
mod tests;
