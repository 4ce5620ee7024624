//! TLS to a server whose certificate is looked at and not judged: for tools that compare what servers present.
//!
//! Never for traffic: whoever answers is taken for the server. That the server has the key of its certificate is proven all the
//! same, so what is shown of a certificate is the certificate of who answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::TlsStream;
use crate::error::HandshakeError;
use crate::handshake::within;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Speaks TLS to anybody. A cheap handle.
#[derive(Clone)]
pub struct InspectingClient(Arc<ClientConfig>);

impl fmt::Debug for InspectingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InspectingClient")
    }
}

/// A stream, and what the server showed.
#[derive(Debug)]
pub struct Inspected<IO> {
    /// The stream.
    pub stream: TlsStream<IO>,
    /// The server's chain, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The application protocol that was agreed on, if one was.
    pub protocol: Option<Vec<u8>>,
}

impl InspectingClient {
    /// A client that offers these application protocols.
    ///
    /// # Errors
    /// If the cryptography library cannot be set up.
    pub fn new(protocols: &[&[u8]]) -> Result<Self, HandshakeError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Anybody(Arc::clone(&provider));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(HandshakeError::Protocol)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A session that is resumed shows no certificate.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Makes a stream out of a connection, and tells the server that this name is meant. An address isn't told (RFC 6066,
    /// section 3).
    ///
    /// # Errors
    /// [`HandshakeError`]; also if the name is none.
    pub async fn connect<IO>(&self, name: &str, io: IO) -> Result<Inspected<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| HandshakeError::Protocol(Error::General(format!("{name:?} is not a DNS name"))))?;
        let stream = within(HANDSHAKE, TlsConnector::from(Arc::clone(&self.0)).connect(server, io)).await?;
        let state = stream.get_ref().1;
        let chain = state.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let protocol = state.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Inspected { stream: stream.into(), chain, protocol })
    }
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
