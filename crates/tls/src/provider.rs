//! Which cryptography the mesh speaks: TLS 1.3 only, hybrid post-quantum key exchange first.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};

/// The versions spoken inside the mesh.
pub(crate) static MESH_VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// ALPN of HBONE and of the control channel (RFC 9113, section 3.2).
pub(crate) const ALPN_H2: &[u8] = b"h2";

static MESH: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        // AES-128 first: with hardware AES it is the fastest, and its strength matches P-256 and X25519.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        // The hybrid first (draft-ietf-tls-ecdhe-mlkem); X25519 and P-256 for peers of other makes.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
});

/// The provider of every mesh configuration.
pub(crate) fn mesh() -> Arc<CryptoProvider> {
    MESH.clone()
}

/// The signatures that are accepted in certificates and handshakes.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    MESH.signature_verification_algorithms
}
