//! Key pairs as users give them, and the choice among several.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair as Key, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::gateway::{GatewayTls, InvalidKeyPair, KeyPair, check_key_pair};

/// Chain and key of a certificate for these names, signed by itself.
fn pem(names: &[&str]) -> (String, String) {
    let key = Key::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn pair(names: &[&str]) -> (KeyPair, CertificateDer<'static>) {
    let (chain, key) = pem(names);
    let pair = KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let der = rustls_pki_types::pem::PemObject::from_pem_slice(chain.as_bytes()).unwrap();
    (pair, der)
}

#[test]
fn a_pair_that_cannot_be_served_says_which_half_is_wrong() {
    let (chain, key) = pem(&["a.com"]);
    let (_, other) = pem(&["a.com"]);
    let half = chain.replace("MII", "MIA");
    for (chain, key, want) in [
        (chain.as_str(), key.as_str(), None),
        ("", key.as_str(), Some(InvalidKeyPair::NoCertificate)),
        ("Hello world", key.as_str(), Some(InvalidKeyPair::NoCertificate)),
        (half.as_str(), key.as_str(), Some(InvalidKeyPair::Certificate(1))),
        (chain.as_str(), "", Some(InvalidKeyPair::NoKey)),
        (chain.as_str(), "Hello world", Some(InvalidKeyPair::NoKey)),
        (chain.as_str(), chain.as_str(), Some(InvalidKeyPair::NoKey)),
        (chain.as_str(), other.as_str(), Some(InvalidKeyPair::Mismatch)),
    ] {
        assert_eq!(KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).err(), want);
        assert_eq!(check_key_pair(chain.as_bytes(), key.as_bytes()).is_ok(), want.is_none());
    }
    let ed25519 = Key::generate_for(&PKCS_ED25519).unwrap();
    let certificate = CertificateParams::new(vec!["a.com".to_owned()]).unwrap().self_signed(&ed25519).unwrap();
    assert_eq!(check_key_pair(certificate.pem().as_bytes(), ed25519.serialize_pem().as_bytes()), Ok(()));
}

/// The certificate and the application protocol that a client gets.
async fn meet(
    server: &GatewayTls,
    name: &'static str,
    alpn: &[&[u8]],
    roots: &[CertificateDer<'static>],
) -> Result<(CertificateDer<'static>, Option<Vec<u8>>), std::io::Error> {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    let (near, far) = tokio::io::duplex(1 << 16);
    let accepting = tokio::spawn({
        let server = server.clone();
        async move { server.accept(far).await }
    });
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), near).await?;
    accepting.await.unwrap().unwrap();
    let state = stream.get_ref().1;
    let leaf = state.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((leaf, state.alpn_protocol().map(<[u8]>::to_vec)))
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_and_the_protocol_agreed_on() {
    let ((first, a), (second, b)) = (pair(&["a.com"]), pair(&["b.com", "*.b.com"]));
    let server = GatewayTls::new(vec![first, second]).unwrap();
    let roots = [a.clone(), b.clone()];
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
    for (name, want) in [("a.com", &a), ("b.com", &b), ("x.b.com", &b)] {
        let (leaf, alpn) = meet(&server, name, &both, &roots).await.unwrap();
        assert_eq!((&leaf, alpn.as_deref()), (want, Some(&b"h2"[..])), "{name}");
    }
    let (_, alpn) = meet(&server, "a.com", &[b"http/1.1"], &roots).await.unwrap();
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    let (_, none) = meet(&server, "a.com", &[], &roots).await.unwrap();
    assert_eq!(none, None);
    assert!(meet(&server, "c.com", &both, &roots).await.is_err(), "the first one is presented, and isn't for it");
    assert!(meet(&server, "a.com", &[b"imap"], &roots).await.is_err(), "no protocol in common (RFC 7301, section 3.2)");
}
