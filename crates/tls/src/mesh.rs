//! Mutual TLS between workloads: the two ends of a tunnel.
//!
//! Configurations are built once per *epoch* (a certificate of ours and a bundle generation), not per connection. A
//! client has one per expected peer, because rustls asks the verifier of the configuration, and because tickets are
//! resumed only under the verifier they were got with: a ticket got while expecting `a` is never offered while expecting
//! `b`. A server's ticket key belongs to its epoch, so that no ticket outlives the certificate or the bundle it was
//! issued under.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption, Tls12Resumption};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_core::identity::SpiffeId;

use crate::TlsStream;
use crate::error::{HandshakeError, NoCertificate};
use crate::handshake::{require_h2, verified_peer, within};
use crate::peer::{ExpectedPeer, PeerInfo, PeerRole};
use crate::provider::{self, ALPN_H2, MESH_VERSIONS};
use crate::sessions::Sessions;
use crate::store::{CertStore, Entry, Shared};
use crate::svid::Svid;
use crate::trust::Generation;
use crate::verify::{ClientVerifier, ServerVerifier};

/// Most configurations a client keeps; each is about 1 KiB, and one is rebuilt in microseconds.
const MAX_PEERS: usize = 1024;

/// Tickets a server gives with each handshake; a client uses one for each connection it resumes.
const TICKETS: usize = 2;

/// Dials peers as one identity. A cheap handle.
#[derive(Clone)]
pub struct ClientTls(Arc<Entry>);

impl ClientTls {
    /// The client of an identity that the store knows (it need not have a certificate yet).
    pub fn for_identity(store: &CertStore, identity: &SpiffeId) -> Result<Self, NoCertificate> {
        store.find(identity).map(Self)
    }

    pub(crate) fn new(entry: Arc<Entry>) -> Self {
        Self(entry)
    }

    /// The identity it dials as.
    pub fn identity(&self) -> &SpiffeId {
        &self.0.identity
    }

    /// Makes a verified stream out of `io`, a connection to `address`, which is only the key under which sessions are
    /// kept: the peer is known by its certificate alone, and no SNI is sent.
    pub async fn connect<IO>(
        &self,
        io: IO,
        address: IpAddr,
        expected: &ExpectedPeer,
    ) -> Result<(TlsStream<IO>, PeerInfo), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let epoch = self.epoch()?;
        let name = ServerName::IpAddress(address.into());
        let connector = TlsConnector::from(epoch.config(&self.0.shared, expected)?);
        let limit = self.0.shared.settings.handshake_timeout;
        let stream = within(limit, connector.connect(name.clone(), io)).await?;
        match self.check(stream.get_ref().1, expected) {
            Ok(peer) => Ok((stream.into(), peer)),
            Err(refused) => {
                epoch.sessions.forget(&name);
                Err(refused)
            }
        }
    }

    fn check(&self, state: &rustls::CommonState, expected: &ExpectedPeer) -> Result<PeerInfo, HandshakeError> {
        require_h2(state)?;
        let peer = verified_peer(state, PeerRole::Server, &self.0.shared.trust, &self.0.shared.clock)?;
        expected.check(&peer.identity, &self.0.shared.trust.domains())?;
        Ok(peer)
    }

    fn epoch(&self) -> Result<Arc<ClientEpoch>, HandshakeError> {
        let svid = self.0.current()?;
        let generation = self.0.shared.trust.generation();
        if let Some(epoch) = self.0.client.load_full()
            && epoch.generation == generation
            && Arc::ptr_eq(&epoch.svid, &svid)
        {
            return Ok(epoch);
        }
        let epoch = Arc::new(ClientEpoch {
            own: Arc::new(OwnCertificate(svid.certified().clone())),
            svid,
            generation,
            sessions: Arc::default(),
            configs: Mutex::default(),
        });
        self.0.client.store(Some(epoch.clone()));
        Ok(epoch)
    }
}

/// Accepts peers as one identity. A cheap handle.
#[derive(Clone)]
pub struct ServerTls(Arc<Entry>);

impl ServerTls {
    /// The server of an identity that the store knows (it need not have a certificate yet).
    pub fn for_identity(store: &CertStore, identity: &SpiffeId) -> Result<Self, NoCertificate> {
        store.find(identity).map(Self)
    }

    pub(crate) fn new(entry: Arc<Entry>) -> Self {
        Self(entry)
    }

    /// The identity it answers as.
    pub fn identity(&self) -> &SpiffeId {
        &self.0.identity
    }

    /// Makes a verified stream out of an accepted connection.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, PeerInfo), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config()?);
        let stream = within(self.0.shared.settings.handshake_timeout, acceptor.accept(io)).await?;
        let state = stream.get_ref().1;
        require_h2(state)?;
        let peer = verified_peer(state, PeerRole::Client, &self.0.shared.trust, &self.0.shared.clock)?;
        Ok((stream.into(), peer))
    }

    fn config(&self) -> Result<Arc<ServerConfig>, HandshakeError> {
        let svid = self.0.current()?;
        let generation = self.0.shared.trust.generation();
        if let Some(epoch) = self.0.server.load_full()
            && epoch.generation == generation
            && Arc::ptr_eq(&epoch.svid, &svid)
        {
            return Ok(epoch.config.clone());
        }
        let config = server_config(&self.0.shared, &svid).map_err(HandshakeError::Protocol)?;
        let config = Arc::new(config);
        self.0.server.store(Some(Arc::new(ServerEpoch { svid, generation, config: config.clone() })));
        Ok(config)
    }
}

/// What a client keeps for one certificate and one bundle.
pub(crate) struct ClientEpoch {
    svid: Arc<Svid>,
    generation: Generation,
    own: Arc<OwnCertificate>,
    sessions: Arc<Sessions>,
    configs: Mutex<HashMap<ExpectedPeer, Arc<ClientConfig>>>,
}

impl ClientEpoch {
    fn config(&self, shared: &Shared, expected: &ExpectedPeer) -> Result<Arc<ClientConfig>, HandshakeError> {
        let mut configs = self.configs.lock();
        if let Some(config) = configs.get(expected) {
            return Ok(config.clone());
        }
        if configs.len() >= MAX_PEERS
            && let Some(victim) = configs.keys().next().cloned()
        {
            configs.remove(&victim);
        }
        let config = Arc::new(self.build(shared, expected).map_err(HandshakeError::Protocol)?);
        configs.insert(expected.clone(), config.clone());
        Ok(config)
    }

    pub(crate) fn sweep(&self) {
        self.sessions.sweep();
    }

    fn build(&self, shared: &Shared, expected: &ExpectedPeer) -> Result<ClientConfig, rustls::Error> {
        let verifier = ServerVerifier { trust: shared.trust.clone(), expected: expected.clone() };
        let mut config = ClientConfig::builder_with_details(provider::mesh(), Arc::new(shared.clock))
            .with_protocol_versions(MESH_VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.own.clone());
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.enable_sni = false;
        config.resumption = if shared.settings.resumption {
            Resumption::store(self.sessions.clone()).tls12_resumption(Tls12Resumption::Disabled)
        } else {
            Resumption::disabled()
        };
        Ok(config)
    }
}

/// What a server keeps for one certificate and one bundle.
pub(crate) struct ServerEpoch {
    svid: Arc<Svid>,
    generation: Generation,
    config: Arc<ServerConfig>,
}

fn server_config(shared: &Shared, svid: &Svid) -> Result<ServerConfig, rustls::Error> {
    let verifier = ClientVerifier { trust: shared.trust.clone() };
    let mut config = ServerConfig::builder_with_details(provider::mesh(), Arc::new(shared.clock))
        .with_protocol_versions(MESH_VERSIONS)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(OwnCertificate(svid.certified().clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // Never 0-RTT: its data can be replayed (RFC 8446, section 8).
    config.max_early_data_size = 0;
    if shared.settings.resumption {
        config.ticketer = Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
    } else {
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The certificate that both roles present, whatever the peer hints at.
pub(crate) struct OwnCertificate(pub Arc<CertifiedKey>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCertificate")
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({})", self.0.identity)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerTls({})", self.0.identity)
    }
}
