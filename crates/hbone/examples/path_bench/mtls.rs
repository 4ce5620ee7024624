//! A root, one workload's certificate, and both ends of the handshake.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::{Duration, OffsetDateTime};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_tls::{
    CertStore, ClientTls, Clock, ExpectedPeer, PrivatePkcs8KeyDer, ServerTls, Svid, TlsSettings, TrustBundle,
    TrustStore,
};

/// Both ends with the same identity.
#[derive(Clone)]
pub struct Mtls {
    pub client: ClientTls,
    pub server: ServerTls,
    pub expected: ExpectedPeer,
}

impl Mtls {
    pub fn new() -> Self {
        let identity = SpiffeId::new(TrustDomain::default(), "bench", "workload");
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_key = KeyPair::generate().unwrap();
        let anchor = root.self_signed(&root_key).unwrap().der().clone();
        let issuer = Issuer::new(root, root_key);

        let mut leaf = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        (leaf.not_before, leaf.not_after) = (now - Duration::HOUR, now + Duration::HOUR);
        leaf.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string()).unwrap())];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![Usage::ServerAuth, Usage::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let chain = vec![leaf.signed_by(&key, &issuer).unwrap().der().clone()];
        let svid = Svid::new(chain, &PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap();

        let trust = TrustStore::new(TrustBundle::new(TrustDomain::default(), [anchor]).unwrap());
        let store = CertStore::new(trust, Clock::system(), TlsSettings::default());
        store.install(svid);
        Self {
            client: ClientTls::for_identity(&store, &identity).unwrap(),
            server: ServerTls::for_identity(&store, &identity).unwrap(),
            expected: ExpectedPeer::one(identity),
        }
    }
}
