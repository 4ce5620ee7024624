//! TLS towards backends of Gateways (BackendTLSPolicy, GEP-1897).
//!
//! Invariant: nothing of a request is written before the backend has proven a name that its policy asks for, by a chain to
//! an authority that the policy trusts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use weft_core::gateway::{BackendTls, BackendTrust, SubjectAltName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::TlsStream;
use crate::authorities::{self, InvalidAuthorities};
use crate::error::HandshakeError;
use crate::gateway::KeyPair;
use crate::handshake::{require_h2, within};
use crate::provider::ALPN_H2;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why TLS can't be spoken to a backend.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidBackendTls {
    /// The policy can't be used; the controller says why.
    #[error("{0}")]
    Policy(String),
    /// The name is none.
    #[error("validation.hostname {0:?} is not a DNS name")]
    Hostname(String),
    /// The authorities can't be used.
    #[error("caCertificateRefs: {0}")]
    Authorities(#[from] InvalidAuthorities),
    /// The cryptography library can't be set up.
    #[error("TLS can't be set up: {0}")]
    Library(Error),
}

/// Speaks TLS to one backend. A cheap handle; sessions are resumed only under the one that began them.
#[derive(Clone)]
pub struct BackendClient(Arc<Inner>);

struct Inner {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl BackendClient {
    /// A client as the policy says, which presents a certificate if it is asked for one, and offers these application
    /// protocols (none: it doesn't speak of them).
    ///
    /// # Errors
    /// [`InvalidBackendTls`].
    pub fn new(
        policy: &BackendTls,
        certificate: Option<&KeyPair>,
        protocols: &[&[u8]],
    ) -> Result<Self, InvalidBackendTls> {
        let roots = match &policy.trust {
            BackendTrust::Bundle(pem) => Arc::new(authorities::of_bundle(pem)?),
            BackendTrust::System => authorities::public(),
            BackendTrust::Invalid(why) => return Err(InvalidBackendTls::Policy(why.clone())),
            BackendTrust::Plain => return Err(InvalidBackendTls::Policy("it asks for no TLS".into())),
        };
        let name = ServerName::try_from(policy.hostname.clone())
            .map_err(|_| InvalidBackendTls::Hostname(policy.hostname.clone()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names = policy.subject_alt_names.clone();
        let verifier = Verifier { roots, names, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(InvalidBackendTls::Library)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificate {
            Some(pair) => builder.with_client_cert_resolver(Arc::new(pair.clone())),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self(Arc::new(Inner { config: Arc::new(config), name })))
    }

    /// Makes a stream to the backend out of a connection to it.
    ///
    /// # Errors
    /// [`HandshakeError`]; nothing of the application's was sent.
    pub async fn connect<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.0.config));
        let stream = within(HANDSHAKE, connector.connect(self.0.name.clone(), io)).await?;
        // HTTP/2 has to be agreed on (RFC 9113, section 3.2); HTTP/1.1 is what a server speaks that says nothing.
        if self.0.config.alpn_protocols == [ALPN_H2] {
            require_h2(stream.get_ref().1)?;
        }
        Ok(stream.into())
    }

    /// The address of what handles of one client share: nobody else has it while there is a handle.
    pub fn addr(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl PartialEq for BackendClient {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for BackendClient {}

impl fmt::Debug for BackendClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendClient({:?})", self.0.name)
    }
}

/// Judges a backend's certificate.
struct Verifier {
    roots: Arc<RootCertStore>,
    /// One of these, if there are any: then the hostname is only told to the backend.
    names: Vec<SubjectAltName>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        if self.names.is_empty() {
            verify_server_name(&leaf, server_name)?;
        } else if !self.names.iter().any(|name| has_name(&leaf, end_entity, name)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate has a name: a whole hostname also by a wildcard of the certificate's (RFC 9525, section 6.3), one that
/// is a wildcard itself only by the same text.
fn has_name(leaf: &ParsedCertificate<'_>, der: &CertificateDer<'_>, name: &SubjectAltName) -> bool {
    match name {
        SubjectAltName::Hostname(name) if name.starts_with("*.") => {
            any_name(der, |san| matches!(san, GeneralName::DNSName(text) if text.eq_ignore_ascii_case(name)))
        }
        SubjectAltName::Hostname(name) => {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(leaf, &name).is_ok())
        }
        SubjectAltName::Uri(uri) => any_name(der, |san| matches!(san, GeneralName::URI(text) if text == uri)),
    }
}

fn any_name(der: &CertificateDer<'_>, is_it: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    // Said twice, it says nothing.
    certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .is_some_and(|names| names.value.general_names.iter().any(is_it))
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} roots, {:?})", self.roots.len(), self.names)
    }
}
