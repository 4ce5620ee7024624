//! TLS of the control channel: only the server shows a certificate, callers prove themselves by a token inside.
//!
//! A node that joins knows one thing about the mesh, the hash of its root; the server therefore sends its roots along
//! with its chain. Afterwards the node holds the bundle and verifies with that. Either way the server must be who it
//! should be: any workload's certificate chains to the same root.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_core::ids::{Namespace, ServiceAccount};

use crate::TlsStream;
use crate::clock::Clock;
use crate::error::{HandshakeError, NoCertificate, PeerRefused};
use crate::handshake::{require_h2, within};
use crate::leaf::Leaf;
use crate::mesh::OwnCertificate;
use crate::peer::{ExpectedPeer, PeerRole};
use crate::provider::{self, ALPN_H2, MESH_VERSIONS};
use crate::store::{CertStore, Entry};
use crate::svid::Svid;
use crate::trust::{Generation, TrustBundle, TrustSnapshot, TrustStore};
use crate::verify::{self, no_tls12};

/// The longest a control-channel handshake may take, on the client's side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The SHA-256 of a root certificate's DER, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash([u8; 32]);

impl RootHash {
    /// The hash of a root.
    pub fn of(root: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(root).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text is not `sha256:<64 hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a root hash: expected sha256: and 64 hexadecimal digits")]
pub struct InvalidRootHash;

impl FromStr for RootHash {
    type Err = InvalidRootHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").filter(|h| h.len() == 64 && h.is_ascii()).ok_or(InvalidRootHash)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidRootHash)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(InvalidRootHash);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidRootHash)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who the server of a control channel must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedServer {
    /// One of these.
    Identity(ExpectedPeer),
    /// This ServiceAccount in whatever trust domain it says: for a node that joins and does not know the name yet.
    /// The pinned root says which mesh it is.
    Account {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        service_account: ServiceAccount,
    },
}

impl ExpectedServer {
    fn check(&self, identity: &SpiffeId, domains: &TrustDomains) -> Result<(), PeerRefused> {
        match self {
            Self::Identity(expected) => expected.check(identity, domains),
            Self::Account { namespace, service_account } => {
                let domain = identity.trust_domain.clone();
                ExpectedPeer::one(SpiffeId::new(domain, namespace.clone(), service_account.clone()))
                    .check(identity, domains)
            }
        }
    }
}

/// By what a client knows the server of a control channel.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// The hash of a root that the server must present and chain to.
    PinnedRoot(RootHash),
    /// The current bundle.
    Bundle(TrustStore),
    /// These roots, for whatever trust domain the server says: for a person's tool, which has the mesh's roots and need not know
    /// its name.
    Roots(Vec<CertificateDer<'static>>),
}

/// Dials the control plane. A cheap handle.
#[derive(Clone, Debug)]
pub struct ControlClient(Arc<ClientConfig>);

impl ControlClient {
    /// A client that accepts only `expected`, known by `trust`.
    ///
    /// # Errors
    ///
    /// If the cryptography library cannot be set up.
    pub fn new(trust: ServerTrust, expected: ExpectedServer, clock: Clock) -> Result<Self, HandshakeError> {
        let verifier = ControlVerifier { trust, expected };
        let mut config = ClientConfig::builder_with_details(provider::mesh(), Arc::new(clock))
            .with_protocol_versions(MESH_VERSIONS)
            .map_err(HandshakeError::Protocol)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.enable_sni = false;
        // A few long streams: nothing to gain, and without it the verifier sees every connection.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Makes a verified stream out of `io`.
    pub async fn connect<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Not sent and not looked at: the server is known by its identity.
        let name = ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into());
        let stream = within(HANDSHAKE_TIMEOUT, TlsConnector::from(self.0.clone()).connect(name, io)).await?;
        require_h2(stream.get_ref().1)?;
        Ok(stream.into())
    }
}

struct ControlVerifier {
    trust: ServerTrust,
    expected: ExpectedServer,
}

impl ControlVerifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), PeerRefused> {
        let trust = match &self.trust {
            ServerTrust::Bundle(store) => store.current(),
            ServerTrust::PinnedRoot(pin) => {
                let root = chain.iter().find(|der| RootHash::of(der) == *pin).ok_or(PeerRefused::UnknownRoot)?;
                roots_of(domain_of(chain)?, vec![root.clone().into_owned()])?
            }
            ServerTrust::Roots(roots) => roots_of(domain_of(chain)?, roots.clone())?,
        };
        let leaf = verify::chain(chain, &trust, PeerRole::Server, now)?;
        self.expected.check(&leaf.identity, &trust.domains)
    }
}

/// The trust domain that a chain claims.
fn domain_of(chain: &[CertificateDer<'_>]) -> Result<TrustDomain, PeerRefused> {
    Ok(Leaf::read(chain.first().ok_or(PeerRefused::NoCertificate)?)?.identity.trust_domain)
}

/// These roots for that domain.
fn roots_of(domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Result<Arc<TrustSnapshot>, PeerRefused> {
    let bundle = TrustBundle::new(domain, roots).map_err(|_| PeerRefused::Malformed)?;
    Ok(TrustStore::new(bundle).current())
}

impl ServerCertVerifier for ControlVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        self.verify(&chain, now).map(|()| ServerCertVerified::assertion()).map_err(PeerRefused::into_rustls)
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

impl fmt::Debug for ControlVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlVerifier({:?})", self.expected)
    }
}

/// Answers on the control channel as one identity of a store. A cheap handle.
#[derive(Clone)]
pub struct ControlServer(Arc<Control>);

struct Control {
    entry: Arc<Entry>,
    current: ArcSwapOption<Epoch>,
}

struct Epoch {
    svid: Arc<Svid>,
    generation: Generation,
    config: Arc<ServerConfig>,
}

impl ControlServer {
    /// The server of an identity that the store knows (it need not have a certificate yet).
    pub fn for_identity(store: &CertStore, identity: &SpiffeId) -> Result<Self, NoCertificate> {
        let entry = store.find(identity)?;
        Ok(Self(Arc::new(Control { entry, current: ArcSwapOption::empty() })))
    }

    /// Makes a stream out of an accepted connection. The client is not known yet: its token says who it is.
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config()?);
        let stream = within(self.0.entry.shared.settings.handshake_timeout, acceptor.accept(io)).await?;
        require_h2(stream.get_ref().1)?;
        Ok(stream.into())
    }

    fn config(&self) -> Result<Arc<ServerConfig>, HandshakeError> {
        let shared = &self.0.entry.shared;
        let svid = self.0.entry.current()?;
        let trust = shared.trust.current();
        if let Some(epoch) = self.0.current.load_full()
            && epoch.generation == trust.generation
            && Arc::ptr_eq(&epoch.svid, &svid)
        {
            return Ok(epoch.config.clone());
        }
        let mut chain = svid.chain().to_vec();
        chain.extend_from_slice(trust.bundle.roots(trust.domains.name_of(&svid.identity().trust_domain)));
        let key = CertifiedKey::new(chain, svid.certified().key.clone());
        let mut config = ServerConfig::builder_with_details(provider::mesh(), Arc::new(shared.clock))
            .with_protocol_versions(MESH_VERSIONS)
            .map_err(HandshakeError::Protocol)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(OwnCertificate(Arc::new(key))));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        let generation = trust.generation;
        self.0.current.store(Some(Arc::new(Epoch { svid, generation, config: config.clone() })));
        Ok(config)
    }
}

impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlServer({})", self.0.entry.identity)
    }
}
