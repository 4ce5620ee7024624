//! Key pairs as users give them, and the choice among several.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair as Key, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::gateway::{GatewayTls, Inside, InvalidKeyPair, KeyPair, check_key_pair};

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
    meet_in(server, name, alpn, roots, rustls::DEFAULT_VERSIONS).await
}

/// The same, with a client that speaks these versions.
async fn meet_in(
    server: &GatewayTls,
    name: &'static str,
    alpn: &[&[u8]],
    roots: &[CertificateDer<'static>],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<(CertificateDer<'static>, Option<Vec<u8>>), std::io::Error> {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
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
    let server = GatewayTls::new(vec![first, second], Inside::Http, None).unwrap();
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

#[tokio::test]
async fn clients_may_be_older_than_those_of_the_mesh() {
    let (pair, leaf) = pair(&["a.com"]);
    let server = GatewayTls::new(vec![pair], Inside::Http, None).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let met = meet_in(&server, "a.com", &[b"h2"], std::slice::from_ref(&leaf), &[version]).await;
        assert_eq!(met.unwrap().1.as_deref(), Some(&b"h2"[..]), "{version:?}");
    }
}

/// The content of the last element of a PKCS#8 structure: the key in its own form (RFC 5958, section 2).
fn inner_key(pkcs8: &[u8]) -> Vec<u8> {
    fn element(bytes: &[u8]) -> (&[u8], &[u8]) {
        let (length, head) = match bytes[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            long => {
                let digits = usize::from(long & 0x7f);
                let length = bytes[2..2 + digits].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                (length, 2 + digits)
            }
        };
        (&bytes[head..head + length], &bytes[head + length..])
    }
    let (content, _) = element(pkcs8);
    let (_version, rest) = element(content);
    let (_algorithm, rest) = element(rest);
    element(rest).0.to_vec()
}

fn as_pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn keys_of_every_usual_form_are_read() {
    for (algorithm, label) in [(&PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY"), (&PKCS_RSA_SHA256, "RSA PRIVATE KEY")] {
        let key = Key::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(vec!["a.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        let own_form = as_pem(label, &inner_key(&key.serialize_der()));
        for text in [key.serialize_pem(), own_form] {
            assert_eq!(check_key_pair(certificate.pem().as_bytes(), text.as_bytes()), Ok(()), "{label}");
        }
    }
}
