//! Open connections and the certificates they stand on.

mod node;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::reason::Reason;
use weft_tls::{
    CertStore, ClientTls, Clock, ExpectedPeer, KeyRequest, PeerInfo, ServerTls, Svid, TlsSettings, TrustBundle,
    TrustStore,
};

use super::{Inbound, Registry};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};

fn identity(name: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", name)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundle: TrustBundle,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), bundle: TrustBundle::new(TrustDomain::default(), [root]).unwrap() }
    }

    fn issue(&self, name: &str, life: Duration) -> Svid {
        let key = KeyRequest::generate(&identity(name)).unwrap();
        let csr = rcgen::CertificateSigningRequestParams::from_der(&key.csr().into()).unwrap();
        let mut params = CertificateParams::default();
        params.not_after = (SystemTime::now() + life).into();
        let uri = Ia5String::try_from(identity(name).to_string()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        key.complete(vec![params.signed_by(&csr.public_key, &self.issuer).unwrap().der().clone()]).unwrap()
    }
}

/// What a server learns of a client.
async fn handshake(store: &CertStore, client: &SpiffeId, server: &SpiffeId) -> PeerInfo {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let dials = ClientTls::for_identity(store, client).unwrap();
    let answers = ServerTls::for_identity(store, server).unwrap();
    let expected = ExpectedPeer::one(server.clone());
    let (dialled, accepted) =
        tokio::join!(dials.connect(near, IpAddr::from([10, 0, 0, 1]), &expected), answers.accept(far));
    dialled.unwrap();
    accepted.unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_peers_certificate() {
    let authority = Authority::new();
    let trust = TrustStore::new(authority.bundle.clone());
    let store = CertStore::new(trust, Clock::following_tokio(SystemTime::now()), TlsSettings::default());
    for (name, hours) in [("short", 1), ("long", 24), ("server", 24)] {
        store.install(authority.issue(name, Duration::from_secs(hours * 3600)));
    }
    let registry = Registry::default();
    let workload = Rc::new(LocalWorkload::new(crate::plain::fixed_pod()));
    let mut open = Vec::new();
    for peer in ["short", "long", ""] {
        let identity = match peer {
            "" => PeerIdentity::Unidentified,
            name => PeerIdentity::Certificate(Arc::new(handshake(&store, &identity(name), &identity("server")).await)),
        };
        let peer = Peer { identity, address: "10.0.0.2:4000".parse().unwrap() };
        let destination = "10.0.0.1:80".parse().unwrap();
        open.push(registry.register(&Inbound { workload: Rc::clone(&workload), peer, destination }));
    }
    let ended = |open: &[super::Registration]| -> Vec<Option<Reason>> {
        use futures::FutureExt;
        open.iter().map(|registration| registration.revoked().now_or_never()).collect()
    };
    tokio::time::advance(Duration::from_secs(3500)).await;
    registry.end_expired(&store).await;
    assert_eq!(ended(&open), [None, None, None]);
    tokio::time::advance(Duration::from_secs(200)).await;
    registry.end_expired(&store).await;
    assert_eq!(ended(&open), [Some(Reason::PeerIdentity), None, None]);
}
