//! The only user of rustls: SPIFFE verification, certificate store, rotation.
//!
//! ```text
//!  CertManager --renews--> CertStore --current Svid--> ClientTls::connect / ServerTls::accept --> (TlsStream, PeerInfo)
//!                              |                                   |
//!                          TrustStore (roots per trust domain, generation) --verified by webpki, SPIFFE rules on top
//! ```
//!
//! Invariants:
//!
//! - Inside the mesh a certificate is accepted by one path only ([`PeerInfo`] comes out of it): a chain to a current root of
//!   the trust domain that its single SPIFFE URI SAN names, valid now, with the right key usages. DNS names and subjects
//!   count for nothing.
//! - At a Gateway users say whom they trust: clients by a bundle of authorities ([`GatewayTls`]), backends by a bundle or the
//!   public authorities, and by name ([`BackendClient`]). Nothing that is trusted there is trusted in the mesh.
//! - A client gets a stream only for a peer whose whole identity is one it expects; nothing of the application's is
//!   written before.
//! - A resumed session is held to the same rules as a full handshake: the peer's chain, kept with the session, is
//!   verified again against the bundle and the clock of *now*. Sessions are kept in memory, per certificate of ours and
//!   generation of the bundle, and die with either.
//! - Private keys of workloads live in memory only.
//! - Tools that compare servers look at certificates without judging them ([`InspectingClient`]): never for traffic.

mod authorities;
mod backend;
mod clients;
mod clock;
mod control;
mod error;
mod gateway;
mod handshake;
mod inspect;
mod leaf;
mod manager;
mod mesh;
mod peer;
pub mod pem;
mod provider;
mod quic;
mod serve;
mod sessions;
mod store;
mod svid;
mod trust;
mod verify;

pub use authorities::{InvalidAuthorities, check_authorities};
pub use backend::{BackendClient, InvalidBackendTls};
pub use clock::Clock;
pub use control::{ControlClient, ControlServer, ExpectedServer, InvalidRootHash, RootHash, ServerTrust};
pub use error::{HandshakeError, NoCertificate, PeerRefused};
pub use gateway::{GatewayTls, Inside, InvalidKeyPair, InvalidTls, KeyPair, check_key_pair};
pub use handshake::negotiated;
pub use inspect::{Inspected, InspectingClient};
pub use manager::{CertManager, FetchError, FetchFuture, IdentityLease, ManagerSettings, SvidRequest, SvidSource};
pub use mesh::{ClientTls, ServerTls};
pub use peer::{ExpectedPeer, PeerInfo, PeerRole};
pub use quic::{Chosen, QuicChoice, quic_server};
pub use serve::{HandshakeLimits, incoming};
pub use store::{CertStore, IdentityStatus, TlsSettings};
pub use svid::{InvalidSvid, KeyRequest, Svid, SvidParts};
pub use trust::{Generation, InvalidBundle, TrustBundle, TrustSnapshot, TrustStore};

pub use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A TLS stream of either role over `IO`.
pub type TlsStream<IO> = tokio_rustls::TlsStream<IO>;

/// The identity that a leaf certificate names, before anything of it is verified; for the fuzz targets.
///
/// # Errors
/// It names none, or is malformed.
#[doc(hidden)]
pub fn identity_of_leaf(der: &[u8]) -> Result<weft_core::identity::SpiffeId, PeerRefused> {
    leaf::Leaf::read(der).map(|leaf| leaf.identity)
}

#[cfg(test)]
mod tests;
