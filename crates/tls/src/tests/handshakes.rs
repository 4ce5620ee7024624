use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose as Ku};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use super::pki::*;
use crate::*;

#[tokio::test]
async fn two_workloads_meet_and_know_each_other() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (client, server) = (client(&trust, pki.svid(&id("cart"))), server(&trust, pki.svid(&id("stock"))));

    let seen = meet(&client, &server, &id("stock").into()).await;

    let (at_client, at_server) = (seen.client.unwrap(), seen.server.unwrap());
    assert_eq!(at_client.identity(), &id("stock"));
    assert_eq!(at_server.identity(), &id("cart"));
    assert_eq!((at_server.version(), at_server.group()), ("TLSv1.3", "X25519MLKEM768"));
    assert_eq!(at_server.cipher(), "TLS_AES_128_GCM_SHA256");
    assert!(!at_server.resumed() && !at_server.serial().is_empty());
    assert!(at_server.not_after() > Clock::system().now());
}

/// A broken certificate, and the reason it is refused for.
fn broken(pki: &Pki) -> Vec<(&'static str, Svid)> {
    let mut cases = Vec::new();
    let mut case = |reason, change: &dyn Fn(&mut Spec)| {
        let mut spec = Spec::of(&id("stock"));
        change(&mut spec);
        cases.push((reason, pki.issue(&spec)));
    };
    let now = std::time::SystemTime::now();
    case("ok", &|_| {});
    case("ok", &|s| s.dns = vec!["stock.shop".into(), "*".into()]);
    case("ok", &|s| s.key_usages.push(Ku::KeyEncipherment));
    case("expired", &|s| s.not_after = now - HOUR / 2);
    case("not_yet_valid", &|s| s.not_before = now + HOUR / 2);
    case("no_spiffe_san", &|s| s.uris.clear());
    case("no_spiffe_san", &|s| {
        s.uris.clear();
        s.dns = vec![id("stock").to_string()];
    });
    case("several_sans", &|s| s.uris.push(id("stock").to_string()));
    case("several_sans", &|s| s.uris.push(id("cart").to_string()));
    case("several_sans", &|s| s.uris.push("https://example.com/".into()));
    case("invalid_spiffe_san", &|s| s.uris = vec!["https://cluster.local/ns/shop/sa/stock".into()]);
    case("invalid_spiffe_san", &|s| s.uris = vec![format!("{}\0", id("stock"))]);
    case("invalid_spiffe_san", &|s| s.uris = vec![format!("{}\0.example.com", id("stock"))]);
    case("invalid_spiffe_san", &|s| s.uris = vec![format!("{}/", id("stock"))]);
    case("invalid_spiffe_san", &|s| s.uris = vec!["spiffe://cluster.local/workload".into()]);
    case("wrong_trust_domain", &|s| s.uris = vec!["spiffe://elsewhere/ns/shop/sa/stock".into()]);
    case("key_usage", &|s| s.is_ca = true);
    case("key_usage", &|s| s.key_usages.push(Ku::KeyCertSign));
    case("key_usage", &|s| s.key_usages = vec![Ku::KeyEncipherment]);
    case("key_usage", &|s| s.extended = vec![Eku::CodeSigning]);
    cases
}

#[tokio::test]
async fn a_client_refuses_every_kind_of_broken_server_certificate() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let client = client(&trust, pki.svid(&id("cart")));
    for (n, (reason, svid)) in broken(&pki).into_iter().enumerate() {
        let seen = meet(&client, &server(&trust, svid), &id("stock").into()).await;
        assert_eq!(seen.client_reason(), reason, "case {n}: {:?}", seen.client);
        let at_server = if reason == "ok" { "ok" } else { "refused_by_peer" };
        assert_eq!(seen.server_reason(), at_server, "case {n}: {:?}", seen.server);
    }
}

#[tokio::test]
async fn a_server_refuses_every_kind_of_broken_client_certificate() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let server = server(&trust, pki.svid(&id("cart")));
    for (n, (reason, svid)) in broken(&pki).into_iter().enumerate() {
        let seen = meet(&client(&trust, svid), &server, &id("cart").into()).await;
        assert_eq!(seen.server_reason(), reason, "case {n}: {:?}", seen.server);
        let at_client = if reason == "ok" { "ok" } else { "refused_by_peer" };
        assert_eq!(seen.client_reason(), at_client, "case {n}: {:?}", seen.client);
    }
}

#[tokio::test]
async fn each_usage_is_good_for_its_own_role_only() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let limited = |usage| {
        let mut spec = Spec::of(&id("stock"));
        spec.extended = vec![usage];
        pki.issue(&spec)
    };
    let client = client(&trust, limited(Eku::ClientAuth));
    let seen = meet(&client, &server(&trust, limited(Eku::ServerAuth)), &id("stock").into()).await;
    assert_eq!((seen.client_reason(), seen.server_reason()), ("ok", "ok"));
    let seen = meet(&client, &server(&trust, limited(Eku::ClientAuth)), &id("stock").into()).await;
    assert_eq!(seen.client_reason(), "key_usage");
}

#[tokio::test]
async fn the_whole_identity_must_be_an_expected_one() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (client, server) = (client(&trust, pki.svid(&id("cart"))), server(&trust, pki.svid(&id("stock"))));
    let elsewhere = weft_core::identity::SpiffeId::new(Default::default(), "other", "stock");

    for wrong in [ExpectedPeer::one(id("stoc")), ExpectedPeer::one(elsewhere.clone()), id("cart").into()] {
        let seen = meet(&client, &server, &wrong).await;
        let Err(HandshakeError::Peer(PeerRefused::WrongIdentity { expected, got })) = &seen.client else {
            panic!("{:?}", seen.client)
        };
        assert_eq!((expected, got), (&wrong, &id("stock")));
        assert_eq!(seen.server_reason(), "refused_by_peer", "the client sent nothing, not even its certificate");
    }

    let either = ExpectedPeer::any_of([elsewhere, id("stock"), id("stock")]).unwrap();
    assert_eq!(meet(&client, &server, &either).await.client_reason(), "ok");
    assert_eq!(ExpectedPeer::any_of([]), None);
}

#[tokio::test]
async fn a_root_that_is_not_ours_is_refused_by_both_sides() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let trust = TrustStore::new(ours.bundle());
    let good = || ours.svid(&id("stock"));
    let forged = || theirs.svid(&id("stock"));

    let seen = meet(&client(&trust, good()), &server(&trust, forged()), &id("stock").into()).await;
    assert_eq!((seen.client_reason(), seen.server_reason()), ("unknown_root", "refused_by_peer"));
    let seen = meet(&client(&trust, forged()), &server(&trust, good()), &id("stock").into()).await;
    assert_eq!((seen.client_reason(), seen.server_reason()), ("refused_by_peer", "unknown_root"));
}

#[tokio::test]
async fn a_federated_domain_speaks_for_itself_and_never_for_ours() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let partner: weft_core::identity::TrustDomain = "partner.example".parse().unwrap();
    let trust = TrustStore::new(ours.bundle().with(partner.clone(), [theirs.root.clone()]).unwrap());
    let client = client(&trust, ours.svid(&id("cart")));
    let guest = weft_core::identity::SpiffeId::new(partner, "shop", "stock");

    let seen = meet(&client, &server(&trust, theirs.svid(&guest)), &guest.clone().into()).await;
    assert_eq!((seen.client_reason(), seen.server_reason()), ("ok", "ok"));
    let seen = meet(&client, &server(&trust, theirs.svid(&id("stock"))), &id("stock").into()).await;
    assert_eq!(seen.client_reason(), "unknown_root");
    let seen = meet(&client, &server(&trust, ours.svid(&guest)), &guest.into()).await;
    assert_eq!(seen.client_reason(), "unknown_root");
}

/// Accepts any server: what is under test is the server.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        crate::provider::algorithms().supported_schemes()
    }
}

/// What the server makes of a client that is not one of ours.
async fn stranger(version: &'static rustls::SupportedProtocolVersion, own: Option<Svid>, alpn: &[&[u8]]) -> String {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let server = server(&trust, pki.svid(&id("stock")));
    let own = own.map(|_| Arc::new(crate::mesh::OwnCertificate(pki.svid(&id("cart")).certified().clone())));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let (a, b) = tokio::io::duplex(64 * 1024);
    let connect = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("stock").unwrap(), a);
    let (_stream, accepted) = tokio::join!(connect, server.accept(b));
    accepted.map_or_else(|e| e.reason().to_owned(), |(_, peer)| peer.identity().to_string())
}

#[tokio::test]
async fn strangers_are_turned_away_for_the_right_reason() {
    use rustls::version::{TLS12, TLS13};
    let own = || Some(Pki::new().svid(&id("cart")));
    assert_eq!(stranger(&TLS13, own(), &[b"h2"]).await, id("cart").to_string(), "the test's own client is good");
    assert_eq!(stranger(&TLS13, None, &[b"h2"]).await, "no_peer_certificate");
    assert_eq!(stranger(&TLS12, own(), &[b"h2"]).await, "incompatible_tls");
    assert_eq!(stranger(&TLS13, own(), &[b"http/1.1"]).await, "no_alpn");
    assert_eq!(stranger(&TLS13, own(), &[]).await, "no_alpn");
}

#[tokio::test]
async fn without_a_certificate_of_ours_nothing_is_sent() {
    let pki = Pki::new();
    let store = CertStore::new(TrustStore::new(pki.bundle()), Clock::system(), TlsSettings::default());
    assert_eq!(ClientTls::for_identity(&store, &id("cart")).unwrap_err().reason(), "no_certificate");
    let mut spec = Spec::of(&id("cart"));
    spec.not_after = spec.not_before + HOUR / 2;
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = pki.answer(rcgen_csr(&key).as_slice(), &spec);
    store.install(Svid::new(chain, &PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap());

    let client = ClientTls::for_identity(&store, &id("cart")).unwrap();
    let (io, mut far) = tokio::io::duplex(1024);
    let error = client.connect(io, SERVER_IP, &id("stock").into()).await.unwrap_err();
    assert_eq!(error.reason(), "no_certificate");
    let mut sent = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut far, &mut sent).await.unwrap();
    assert!(sent.is_empty());
}

fn rcgen_csr(key: &rcgen::KeyPair) -> Vec<u8> {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_on() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (io, _far) = tokio::io::duplex(1024);
    let error = server(&trust, pki.svid(&id("stock"))).accept(io).await.unwrap_err();
    assert_eq!(error.reason(), "handshake_timeout");
}

#[tokio::test]
async fn a_key_that_is_not_the_leafs_is_refused_at_the_door() {
    let pki = Pki::new();
    let other = rcgen::KeyPair::generate().unwrap().serialize_der();
    let chain = pki.svid(&id("cart")).chain().to_vec();
    let error = Svid::new(chain, &PrivatePkcs8KeyDer::from(other)).unwrap_err();
    assert_eq!(error, InvalidSvid::KeyMismatch);
}

#[tokio::test]
async fn a_certificate_can_be_handed_to_another_process_and_never_shows_its_key() {
    let pki = Pki::new();
    let parts = pki.svid(&id("cart")).to_parts();
    assert_eq!(format!("{parts:?}"), "SvidParts(2 certificates, key hidden)");
    let svid = Svid::from_parts(parts).unwrap();
    assert_eq!(svid.identity(), &id("cart"));
    let trust = TrustStore::new(pki.bundle());
    let seen = meet(&client(&trust, svid), &server(&trust, pki.svid(&id("stock"))), &id("stock").into()).await;
    assert_eq!(seen.server_reason(), "ok");
}
