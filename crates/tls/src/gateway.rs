//! TLS that ends at a Gateway's listener: certificates that a user gives, chosen by the name that a client asks for.
//!
//! Other than inside the mesh, anybody may connect: a certificate is asked of clients only where a user wants that, TLS 1.2 is
//! spoken too, and an application protocol is agreed on (RFC 7301).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use weft_core::gateway::ClientValidation;

use crate::TlsStream;
use crate::authorities::InvalidAuthorities;
use crate::clients;
use crate::error::HandshakeError;
use crate::handshake::within;
use crate::quic;

/// What is offered to clients, HTTP/2 first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// And over QUIC, where a client without it is refused (RFC 9001, section 8.1).
const ALPN_HTTP3: &[u8] = b"h3";
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Tickets given with each handshake of TLS 1.3.
const TICKETS: usize = 2;

/// Why a chain and a private key can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyPair {
    /// The chain is not PEM, or there is no certificate in it.
    #[error("tls.crt has no certificate in PEM form")]
    NoCertificate,
    /// A certificate of the chain does not parse.
    #[error("tls.crt: certificate {0} is malformed")]
    Certificate(usize),
    /// The private key is not PEM, or of another form than PKCS#8, PKCS#1 and SEC1.
    #[error("tls.key has no private key in PEM form (PKCS#8, PKCS#1 or SEC1, not encrypted)")]
    NoKey,
    /// The key is of a kind that can't be used.
    #[error("tls.key can't be used: {0}")]
    Key(String),
    /// The key is another certificate's.
    #[error("tls.key is not the key of the first certificate in tls.crt")]
    Mismatch,
}

/// What TLS is ended around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// HTTP: its version is agreed on by ALPN.
    Http,
    /// Bytes of whatever protocol: ALPN is not spoken, because which one it is isn't ours to say.
    Bytes,
}

/// Why TLS can't be ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidTls {
    /// The authorities of clients can't be used.
    #[error("the authorities of clients can't be used: {0}")]
    Authorities(#[from] InvalidAuthorities),
    /// The cryptography library can't be set up; the system may give no randomness for ticket keys.
    #[error("TLS can't be set up: {0}")]
    Library(rustls::Error),
}

/// A certificate chain with its private key. Whether it is valid at this time is the client's to judge.
#[derive(Clone)]
pub struct KeyPair(Arc<CertifiedKey>);

impl KeyPair {
    /// Reads both from PEM (RFC 7468).
    ///
    /// # Errors
    /// [`InvalidKeyPair`].
    pub fn from_pem(chain: &[u8], private_key: &[u8]) -> Result<Self, InvalidKeyPair> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| InvalidKeyPair::NoCertificate)?;
        if chain.is_empty() {
            return Err(InvalidKeyPair::NoCertificate);
        }
        if let Some(bad) = chain.iter().position(|der| webpki::EndEntityCert::try_from(der).is_err()) {
            return Err(InvalidKeyPair::Certificate(bad + 1));
        }
        let key = PrivateKeyDer::from_pem_slice(private_key).map_err(|_| InvalidKeyPair::NoKey)?;
        let provider = aws_lc_rs::default_provider();
        let signing = provider.key_provider.load_private_key(key).map_err(|e| InvalidKeyPair::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // A key whose public half can't be had can't be told from the right one.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Self(Arc::new(certified)))
            }
            Err(_) => Err(InvalidKeyPair::Mismatch),
        }
    }

    /// Whether the certificate is for a name.
    fn covers(&self, name: &ServerName<'_>) -> bool {
        let leaf = self.0.cert.first().and_then(|der| webpki::EndEntityCert::try_from(der).ok());
        leaf.is_some_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok())
    }
}

/// Presented to a backend that asks for a certificate, if that takes signatures of its kind.
impl ResolvesClientCert for KeyPair {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({} certificates, key hidden)", self.0.cert.len())
    }
}

/// Says whether a chain and a private key, both PEM, can be served.
///
/// # Errors
/// Why they can't, for people.
pub fn check_key_pair(chain: &[u8], private_key: &[u8]) -> Result<(), String> {
    KeyPair::from_pem(chain, private_key).map(drop).map_err(|invalid| invalid.to_string())
}

/// Ends TLS for one listener. A cheap handle; sessions are resumed only under the one that began them.
#[derive(Clone)]
pub struct GatewayTls {
    tcp: Arc<ServerConfig>,
    /// The same as QUIC uses it; only around HTTP.
    quic: Option<Arc<QuicServerConfig>>,
}

impl GatewayTls {
    /// Ends TLS with these certificates around what is `inside`; clients are asked for certificates of theirs if `clients`
    /// says how they are judged.
    ///
    /// # Errors
    /// [`InvalidTls`].
    pub fn new(pairs: Vec<KeyPair>, inside: Inside, clients: Option<&ClientValidation>) -> Result<Self, InvalidTls> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(InvalidTls::Library)?;
        let builder = match clients {
            Some(validation) => builder.with_client_cert_verifier(clients::verifier(validation, &provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(pairs)));
        config.alpn_protocols = match inside {
            Inside::Http => ALPN.iter().map(|protocol| protocol.to_vec()).collect(),
            Inside::Bytes => Vec::new(),
        };
        // Never 0-RTT: its data can be replayed (RFC 8446, section 8).
        config.max_early_data_size = 0;
        if clients.is_some() {
            // A resumed session is not judged again, however its certificate does meanwhile.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Ticketer::new().map_err(InvalidTls::Library)?;
            config.send_tls13_tickets = TICKETS;
        }
        let quic = match inside {
            Inside::Http => {
                let mut config = config.clone();
                config.alpn_protocols = vec![ALPN_HTTP3.to_vec()];
                Some(quic::of(config)?)
            }
            Inside::Bytes => None,
        };
        Ok(Self { quic, tcp: Arc::new(config) })
    }

    /// It as QUIC uses it: with the same certificates, judging clients alike, for HTTP/3 alone (RFC 9114, section 3.1).
    pub(crate) fn quic(&self) -> Option<Arc<QuicServerConfig>> {
        self.quic.clone()
    }

    /// Makes a stream out of an accepted connection.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tcp));
        Ok(within(HANDSHAKE, acceptor.accept(io)).await?.into())
    }
}

impl fmt::Debug for GatewayTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayTls")
    }
}

/// The certificate for the name asked for, of a kind that the client can verify; the first one if none is.
struct ByName(Vec<KeyPair>);

impl ByName {
    fn pick(&self, name: Option<&str>, usable: impl Fn(&KeyPair) -> bool) -> Option<&KeyPair> {
        let name = name.and_then(|name| DnsName::try_from(name).ok()).map(ServerName::DnsName);
        let named = |pair: &&KeyPair| name.as_ref().is_some_and(|name| pair.covers(name));
        let can = |pair: &&KeyPair| usable(pair);
        let both = self.0.iter().find(|pair| named(pair) && can(pair));
        both.or_else(|| self.0.iter().find(can)).or_else(|| self.0.first())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let picked = self.pick(hello.server_name(), |pair| pair.0.key.choose_scheme(schemes).is_some());
        picked.map(|pair| Arc::clone(&pair.0))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
