//! A small certificate authority that also makes what an honest one never would.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use weft_core::identity::{SpiffeId, TrustDomain};

use crate::*;

pub const SERVER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn id(service_account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", service_account)
}

/// What a test leaf says; the default is a good one.
pub struct Spec {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub key_usages: Vec<KeyUsagePurpose>,
    pub extended: Vec<ExtendedKeyUsagePurpose>,
    pub is_ca: bool,
}

impl Spec {
    pub fn of(identity: &SpiffeId) -> Self {
        let now = SystemTime::now();
        Self {
            uris: vec![identity.to_string()],
            dns: vec![],
            not_before: now - HOUR,
            not_after: now + HOUR,
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            extended: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            is_ca: false,
        }
    }
}

/// What a leaf is made of.
pub fn leaf(spec: &Spec) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(spec.not_before);
    params.not_after = OffsetDateTime::from(spec.not_after);
    let uri = |text: &String| SanType::URI(Ia5String::try_from(text.as_str()).unwrap());
    let dns = |text: &String| SanType::DnsName(Ia5String::try_from(text.as_str()).unwrap());
    params.subject_alt_names = spec.uris.iter().map(uri).chain(spec.dns.iter().map(dns)).collect();
    params.key_usages.clone_from(&spec.key_usages);
    params.extended_key_usages.clone_from(&spec.extended);
    if spec.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// A root with one intermediate.
pub struct Pki {
    pub root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Self {
        let authority = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let root_key = KeyPair::generate().unwrap();
        let root = authority().self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(authority(), root_key);
        let key = KeyPair::generate().unwrap();
        let mut params = authority();
        params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
        let intermediate = params.signed_by(&key, &root_issuer).unwrap();
        Self { root: root.der().clone(), intermediate: intermediate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::new(TrustDomain::default(), [self.root.clone()]).unwrap()
    }

    fn sign(&self, spec: &Spec, key: &impl rcgen::PublicKeyData) -> Vec<CertificateDer<'static>> {
        let leaf = leaf(spec).signed_by(key, &self.issuer).unwrap();
        vec![leaf.der().clone(), self.intermediate.clone()]
    }

    /// A certificate of whatever the spec says.
    pub fn issue(&self, spec: &Spec) -> Svid {
        let key = KeyPair::generate().unwrap();
        Svid::unchecked(self.sign(spec, &key), key.serialize_der(), id("any"))
    }

    /// A good certificate.
    pub fn svid(&self, identity: &SpiffeId) -> Svid {
        let key = KeyPair::generate().unwrap();
        let pkcs8 = key.serialize_der();
        Svid::new(self.sign(&Spec::of(identity), &key), &PrivatePkcs8KeyDer::from(pkcs8)).unwrap()
    }

    /// Answers a request.
    pub fn answer(&self, csr: &[u8], spec: &Spec) -> Vec<CertificateDer<'static>> {
        let csr = rcgen::CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        self.sign(spec, &csr.public_key)
    }
}

/// A store with one certificate, whatever it says, under the identity `any`.
pub fn store_of(trust: &TrustStore, svid: Svid) -> (CertStore, SpiffeId) {
    store_with(trust, Clock::system(), svid)
}

pub fn store_with(trust: &TrustStore, clock: Clock, svid: Svid) -> (CertStore, SpiffeId) {
    let store = CertStore::new(trust.clone(), clock, TlsSettings::default());
    let identity = svid.identity().clone();
    store.install(svid);
    (store, identity)
}

pub fn client(trust: &TrustStore, svid: Svid) -> ClientTls {
    let (store, identity) = store_of(trust, svid);
    ClientTls::for_identity(&store, &identity).unwrap()
}

pub fn server(trust: &TrustStore, svid: Svid) -> ServerTls {
    let (store, identity) = store_of(trust, svid);
    ServerTls::for_identity(&store, &identity).unwrap()
}

/// What each side saw. A client that is refused in TLS 1.3 sees it in its first read, so that read is included.
pub struct Seen {
    pub client: Result<PeerInfo, HandshakeError>,
    pub server: Result<PeerInfo, HandshakeError>,
}

impl Seen {
    pub fn client_reason(&self) -> &'static str {
        self.client.as_ref().map_or_else(HandshakeError::reason, |_| "ok")
    }

    pub fn server_reason(&self) -> &'static str {
        self.server.as_ref().map_or_else(HandshakeError::reason, |_| "ok")
    }
}

/// One connection: handshake, then one byte from the server to the client.
pub async fn meet(client: &ClientTls, server: &ServerTls, expected: &ExpectedPeer) -> Seen {
    let (a, b) = tokio::io::duplex(64 * 1024);
    let (client, server) = tokio::join!(dial(client, a, expected), answer(server, b));
    Seen { client, server }
}

pub async fn dial(client: &ClientTls, io: DuplexStream, expected: &ExpectedPeer) -> Result<PeerInfo, HandshakeError> {
    let (mut stream, peer) = client.connect(io, SERVER_IP, expected).await?;
    stream.read_u8().await.map_err(HandshakeError::from_io)?;
    stream.shutdown().await.map_err(HandshakeError::from_io)?;
    Ok(peer)
}

pub async fn answer(server: &ServerTls, io: DuplexStream) -> Result<PeerInfo, HandshakeError> {
    let (mut stream, peer) = server.accept(io).await?;
    stream.write_u8(7).await.map_err(HandshakeError::from_io)?;
    let _ = stream.flush().await;
    let _ = stream.read_u8().await;
    Ok(peer)
}
