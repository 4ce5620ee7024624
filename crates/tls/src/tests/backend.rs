//! Gateways towards backends that speak TLS: whose certificate is taken, and what is presented to them.

use weft_core::gateway::{BackendTls, BackendTrust, ClientValidation, ClientValidationMode, SubjectAltName};

use super::clients::{Authority, meet};
use crate::gateway::{GatewayTls, Inside};
use crate::{BackendClient, InvalidBackendTls};

fn hostname(name: &str) -> SubjectAltName {
    SubjectAltName::Hostname(name.into())
}

fn uri(uri: &str) -> SubjectAltName {
    SubjectAltName::Uri(uri.into())
}

#[tokio::test]
async fn a_backend_has_to_prove_the_hostname_or_one_of_the_names_that_stand_for_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let backend = authority.pair(&["abc.example.com", "*.w.com", "spiffe://abc/test"]);
    let server = GatewayTls::new(vec![backend], Inside::Bytes, None).unwrap();
    for (name, names, is_trusted) in [
        ("abc.example.com", vec![], true),
        ("x.w.com", vec![], true),
        ("def.example.com", vec![], false),
        ("x.y.w.com", vec![], false),
        // The hostname is what is asked for, and no more, where there are names.
        ("def.example.com", vec![hostname("abc.example.com")], true),
        ("abc.example.com", vec![hostname("def.example.com")], false),
        ("def.example.com", vec![hostname("x.w.com")], true),
        ("def.example.com", vec![hostname("*.w.com")], true),
        ("def.example.com", vec![hostname("*.example.com")], false),
        ("def.example.com", vec![uri("spiffe://abc/test")], true),
        ("def.example.com", vec![uri("spiffe://abc/TEST")], false),
        ("def.example.com", vec![uri("spiffe://def/test"), hostname("nobody"), uri("spiffe://abc/test")], true),
        ("abc.example.com", vec![uri("abc.example.com")], false),
    ] {
        let policy = BackendTls { subject_alt_names: names.clone(), ..authority.policy(name) };
        let met = meet(&server, &BackendClient::new(&policy, None, &[]).unwrap()).await;
        assert_eq!(met.is_ok(), is_trusted, "{name} {names:?}: {met:?}");
        let strange = BackendTls { trust: BackendTrust::Bundle(other.pem()), ..policy.clone() };
        assert!(meet(&server, &BackendClient::new(&strange, None, &[]).unwrap()).await.is_err(), "{name} {names:?}");
        let public = BackendTls { trust: BackendTrust::System, ..policy };
        assert!(meet(&server, &BackendClient::new(&public, None, &[]).unwrap()).await.is_err(), "{name} {names:?}");
    }
}

#[tokio::test]
async fn a_backend_is_shown_the_gateways_certificate_when_it_asks() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let asks = ClientValidation { ca: clients.pem(), mode: ClientValidationMode::AllowValidOnly };
    let own = clients.pair(&["gateway"]);
    for (server, certificate, shown) in [
        (GatewayTls::new(vec![authority.pair(&["b.com"])], Inside::Bytes, Some(&asks)), Some(&own), Some(1)),
        (GatewayTls::new(vec![authority.pair(&["b.com"])], Inside::Bytes, Some(&asks)), None, None),
        (GatewayTls::new(vec![authority.pair(&["b.com"])], Inside::Bytes, None), Some(&own), Some(0)),
    ] {
        let client = BackendClient::new(&authority.policy("b.com"), certificate, &[]).unwrap();
        assert_eq!(meet(&server.unwrap(), &client).await.ok(), shown, "{certificate:?}");
    }
}

#[tokio::test]
async fn http_2_has_to_be_agreed_on_and_http_1_does_not() {
    let authority = Authority::new();
    let (h1, h2): (&[&[u8]], &[&[u8]]) = (&[b"http/1.1"], &[b"h2"]);
    for (inside, offered, is_met) in
        [(Inside::Http, h1, true), (Inside::Http, h2, true), (Inside::Bytes, h1, true), (Inside::Bytes, h2, false)]
    {
        let server = GatewayTls::new(vec![authority.pair(&["b.com"])], inside, None).unwrap();
        let client = BackendClient::new(&authority.policy("b.com"), None, offered).unwrap();
        assert_eq!(meet(&server, &client).await.is_ok(), is_met, "{inside:?} {offered:?}");
    }
}

#[test]
fn a_policy_that_cannot_be_followed_makes_no_client() {
    let authority = Authority::new();
    let policy = authority.policy("b.com");
    for (wrong, why) in [
        (
            BackendTls { trust: BackendTrust::Invalid("no such ConfigMap".into()), ..policy.clone() },
            InvalidBackendTls::Policy("no such ConfigMap".into()),
        ),
        (BackendTls { hostname: "a b".into(), ..policy.clone() }, InvalidBackendTls::Hostname("a b".into())),
        (
            BackendTls { trust: BackendTrust::Bundle(b"x".to_vec()), ..policy.clone() },
            InvalidBackendTls::Authorities(crate::InvalidAuthorities::None),
        ),
    ] {
        assert_eq!(BackendClient::new(&wrong, None, &[]).err(), Some(why));
    }
    let client = BackendClient::new(&policy, None, &[]).unwrap();
    assert_eq!(client, client.clone());
    assert_ne!(client, BackendClient::new(&policy, None, &[]).unwrap(), "sessions are another's");
}
