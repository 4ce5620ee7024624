//! TLS as QUIC carries it (RFC 9001), ended at a Gateway: by whom is decided when the ClientHello is whole, as with TCP.
//!
//! QUIC's library wants to know who ends TLS before the client has said a word, and rustls chooses no more than a certificate by
//! the name that is asked for. So a session here gathers the ClientHello first, asks who has its name, and from then on is that
//! one's session. Nothing is said to a client before.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use quinn_proto::crypto::ServerConfig as _;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCertUsingSni;

use crate::gateway::{GatewayTls, InvalidTls};

/// The most a ClientHello may take, in bytes. Post-quantum key shares make it some 2 KiB.
const MAX_HELLO: usize = 16 << 10;
/// A handshake message begins with its type and three bytes of length (RFC 8446, section 4).
const MESSAGE_HEAD: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// Alerts (RFC 8446, section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const UNRECOGNIZED_NAME: u8 = 112;

/// Says who ends TLS for a client.
pub trait QuicChoice: Send + Sync + 'static {
    /// By a ClientHello (RFC 8446, section 4.1.2), without the head of its message; `None`: nobody has the name, and the client
    /// is told so. With whatever the caller wants to find in [`Chosen`] after the handshake.
    fn choose(&self, client_hello: &[u8]) -> Option<(GatewayTls, Arc<dyn Any + Send + Sync>)>;
}

/// What the choice came with: the handshake data of a connection, from when its application protocol is agreed.
#[derive(Clone, Debug)]
pub struct Chosen(pub Arc<dyn Any + Send + Sync>);

/// The cryptography of an endpoint of QUIC that asks for each connection who ends its TLS.
///
/// # Errors
/// The cryptography library can't be set up.
pub fn quic_server(choice: Arc<dyn QuicChoice>) -> Result<Arc<dyn crypto::ServerConfig>, InvalidTls> {
    // For keys that depend on nobody's certificate: it has none, and never ends a handshake.
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(InvalidTls::Library)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    Ok(Arc::new(Choosing { nobody: of(config)?, choice }))
}

/// A configuration as QUIC uses it.
pub(crate) fn of(config: ServerConfig) -> Result<Arc<QuicServerConfig>, InvalidTls> {
    let no_suite = |why: crypto::rustls::NoInitialCipherSuite| rustls::Error::General(why.to_string());
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(|why| InvalidTls::Library(no_suite(why)))?))
}

struct Choosing {
    nobody: Arc<QuicServerConfig>,
    choice: Arc<dyn QuicChoice>,
}

impl crypto::ServerConfig for Choosing {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.nobody.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.nobody.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let inner = Arc::clone(&self.nobody).start_session(version, params);
        let waiting = Some(Waiting { choosing: self, version, params: *params, hello: Vec::new() });
        Box::new(Session { inner, waiting, chosen: None })
    }
}

/// A session; `inner` is nobody's until the ClientHello is whole.
struct Session {
    inner: Box<dyn crypto::Session>,
    waiting: Option<Waiting>,
    chosen: Option<Chosen>,
}

/// The session of who ends TLS, and what the choice came with.
type Begun = (Box<dyn crypto::Session>, Chosen);

/// A ClientHello as far as it came.
struct Waiting {
    choosing: Arc<Choosing>,
    version: u32,
    params: TransportParameters,
    hello: Vec<u8>,
}

fn alert(alert: u8, why: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(alert), frame: None, reason: why.to_owned() }
}

impl Waiting {
    /// Takes more of the ClientHello; the session of who ends TLS, when it is whole.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Begun>, TransportError> {
        self.hello.extend_from_slice(bytes);
        let Some(([kind, high, middle, low], rest)) = self.hello.split_first_chunk::<MESSAGE_HEAD>() else {
            return Ok(None);
        };
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        if *kind != CLIENT_HELLO || length > MAX_HELLO {
            return Err(alert(UNEXPECTED_MESSAGE, "not a ClientHello"));
        }
        let Some(hello) = rest.get(..length) else { return Ok(None) };
        let unknown = || alert(UNRECOGNIZED_NAME, "nobody has this name");
        let (tls, chosen) = self.choosing.choice.choose(hello).ok_or_else(unknown)?;
        let config = tls.quic().ok_or_else(unknown)?;
        Ok(Some((config.start_session(self.version, &self.params), Chosen(chosen))))
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()?;
        Some(Box::new(self.chosen.clone()?))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(waiting) = &mut self.waiting else { return self.inner.read_handshake(bytes) };
        let Some((inner, chosen)) = waiting.take(bytes)? else { return Ok(false) };
        let hello = std::mem::take(&mut waiting.hello);
        (self.inner, self.chosen, self.waiting) = (inner, Some(chosen), None);
        self.inner.read_handshake(&hello)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        if self.waiting.is_some() { None } else { self.inner.write_handshake(out) }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

impl fmt::Debug for Choosing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choosing")
    }
}
