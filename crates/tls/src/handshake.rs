//! What both roles do around a handshake: a deadline before, and after it the checks that hold for resumed sessions too.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::CertificateDer;

use crate::TlsStream;
use crate::clock::{Clock, from_seconds};
use crate::error::{HandshakeError, PeerRefused};
use crate::leaf::Leaf;
use crate::peer::{PeerInfo, PeerRole};
use crate::provider::ALPN_H2;
use crate::trust::TrustStore;
use crate::verify;

/// Runs a handshake to its end or its deadline.
pub(crate) async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, HandshakeError> {
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(HandshakeError::from_io(error)),
        Err(_) => Err(HandshakeError::Timeout(limit)),
    }
}

/// `h2`, or no connection.
pub(crate) fn require_h2(state: &CommonState) -> Result<(), HandshakeError> {
    if state.alpn_protocol() == Some(ALPN_H2) { Ok(()) } else { Err(HandshakeError::NoAlpn) }
}

/// Who the peer is, after the handshake.
///
/// rustls does not call a verifier when it resumes a session: it trusts the chain that was verified when the session
/// began, however long ago, with whatever bundle. So a resumed session's chain is verified here, by the same function.
pub(crate) fn verified_peer(
    state: &CommonState,
    role: PeerRole,
    trust: &TrustStore,
    clock: &Clock,
) -> Result<PeerInfo, HandshakeError> {
    let chain = state.peer_certificates().unwrap_or_default();
    let first = chain.first().ok_or(PeerRefused::NoCertificate)?;
    let snapshot = trust.current();
    let resumed =
        !matches!(state.handshake_kind(), Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest));
    let leaf = if resumed { verify::chain(chain, &snapshot, role, clock.unix())? } else { Leaf::read(first)? };
    Ok(PeerInfo {
        identity: snapshot.domains.normal(&leaf.identity),
        serial: leaf.serial,
        not_after: from_seconds(leaf.not_after),
        version: version(state.protocol_version()),
        cipher: cipher(state.negotiated_cipher_suite().map(|suite| suite.suite())),
        group: group(state.negotiated_key_exchange_group().map(|group| group.name())),
        resumed,
        role,
        verified_with: snapshot.generation,
        chain: chain.iter().cloned().map(CertificateDer::into_owned).collect::<Arc<[_]>>(),
    })
}

/// What the two ends of a stream have agreed on: the version, as `TLSv1.3`, and the cipher suite, by its IANA name.
pub fn negotiated<IO>(stream: &TlsStream<IO>) -> (&'static str, &'static str) {
    let (_, state) = stream.get_ref();
    (version(state.protocol_version()), cipher(state.negotiated_cipher_suite().map(|suite| suite.suite())))
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    }
}

fn cipher(suite: Option<CipherSuite>) -> &'static str {
    match suite {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        // TLS 1.2, which only Gateways and backends outside of the mesh speak.
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384) => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256) => {
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
        }
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256) => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        _ => "unknown",
    }
}

fn group(group: Option<NamedGroup>) -> &'static str {
    match group {
        Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
        Some(NamedGroup::X25519) => "x25519",
        Some(NamedGroup::secp256r1) => "secp256r1",
        _ => "unknown",
    }
}
