//! The one path by which a certificate is accepted, and the rustls verifiers of both roles that take it.

use std::fmt;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::error::PeerRefused;
use crate::leaf::Leaf;
use crate::peer::{ExpectedPeer, PeerRole};
use crate::provider;
use crate::trust::{TrustSnapshot, TrustStore};

/// Most certificates between a leaf and its root that are looked at.
const MAX_INTERMEDIATES: usize = 8;

/// Verifies a chain, leaf first. The identity that comes out is under the name that we have for its trust domain.
pub(crate) fn chain(
    chain: &[CertificateDer<'_>],
    trust: &TrustSnapshot,
    role: PeerRole,
    now: UnixTime,
) -> Result<Leaf, PeerRefused> {
    let (leaf, intermediates) = chain.split_first().ok_or(PeerRefused::NoCertificate)?;
    leaf_and_intermediates(leaf, intermediates, trust, role, now)
}

fn leaf_and_intermediates(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &TrustSnapshot,
    role: PeerRole,
    now: UnixTime,
) -> Result<Leaf, PeerRefused> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(PeerRefused::Malformed);
    }
    let mut facts = Leaf::read(leaf)?;
    let claimed = &facts.identity.trust_domain;
    let wrong_domain = || PeerRefused::WrongTrustDomain { got: claimed.clone() };
    // Only the roots of the domain it claims: a federated domain's authority cannot speak for ours, and not for what is
    // another name of ours.
    let anchors = trust.bundle.anchors(trust.domains.name_of(claimed)).ok_or_else(wrong_domain)?;
    let usage = match role {
        PeerRole::Client => KeyUsage::client_auth(),
        PeerRole::Server => KeyUsage::server_auth(),
    };
    EndEntityCert::try_from(leaf)
        .and_then(|cert| {
            cert.verify_for_usage(provider::algorithms().all, anchors, intermediates, now, usage, None, None).map(drop)
        })
        .map_err(PeerRefused::from_webpki)?;
    facts.identity = trust.domains.normal(&facts.identity);
    Ok(facts)
}

/// A client's view of a server: verified chain, and an identity that is expected.
pub(crate) struct ServerVerifier {
    pub trust: TrustStore,
    pub expected: ExpectedPeer,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = self.trust.current();
        leaf_and_intermediates(end_entity, intermediates, &trust, PeerRole::Server, now)
            .and_then(|leaf| self.expected.check(&leaf.identity, &trust.domains))
            .map(|()| ServerCertVerified::assertion())
            .map_err(PeerRefused::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider::algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::algorithms().supported_schemes()
    }
}

/// A server's view of a client: a certificate is required, and its chain verified; who it is is for policy to judge.
pub(crate) struct ClientVerifier {
    pub trust: TrustStore,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a workload has one certificate, and names of roots would have to be kept in step with the bundle.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        leaf_and_intermediates(end_entity, intermediates, &self.trust.current(), PeerRole::Client, now)
            .map(|_| ClientCertVerified::assertion())
            .map_err(PeerRefused::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider::algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::algorithms().supported_schemes()
    }
}

pub(crate) fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerVerifier(expects {})", self.expected)
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}
