//! Chains that are longer than anybody needs: each certificate is a signature to verify.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::pki::*;
use crate::*;

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A root, and a good certificate of an identity with so many between them.
fn chain_of(intermediates: usize, identity: &weft_core::identity::SpiffeId) -> (CertificateDer<'static>, Svid) {
    let key = KeyPair::generate().unwrap();
    let root = authority("root").self_signed(&key).unwrap().der().clone();
    let mut issuer = Issuer::new(authority("root"), key);
    let mut chain = Vec::new();
    for n in 0..intermediates {
        let (params, key) = (authority(&n.to_string()), KeyPair::generate().unwrap());
        chain.push(params.signed_by(&key, &issuer).unwrap().der().clone());
        issuer = Issuer::new(params, key);
    }
    let key = KeyPair::generate().unwrap();
    chain.push(leaf(&Spec::of(identity)).signed_by(&key, &issuer).unwrap().der().clone());
    chain.reverse();
    (root, Svid::unchecked(chain, key.serialize_der(), identity.clone()))
}

#[tokio::test]
async fn a_chain_is_verified_up_to_its_limit_and_not_beyond() {
    for (intermediates, reason) in [(0, "ok"), (3, "ok"), (9, "malformed_certificate"), (100, "malformed_certificate")]
    {
        let (root, of_client) = chain_of(intermediates, &id("cart"));
        let trust = TrustStore::new(TrustBundle::new(Default::default(), [root]).unwrap());
        let pki = Pki::new();
        let (ours, both) = (pki.svid(&id("stock")), pki.bundle());
        // The client trusts our server; the server is the one that meets the chain.
        let server = server(&trust, ours);
        let seen = meet(&client(&TrustStore::new(both), of_client), &server, &id("stock").into()).await;
        assert_eq!(seen.server_reason(), reason, "{intermediates} intermediates: {:?}", seen.server);
    }
}
