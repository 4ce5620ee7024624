//! A resumed session must be worth exactly as much as a full handshake. rustls calls no verifier when it resumes, so
//! each of these would pass unseen if we trusted it alone.

use std::time::{Duration, SystemTime};

use super::pki::*;
use crate::*;

const LATER: Duration = Duration::from_secs(60);

fn resumed(seen: &Seen) -> (bool, bool) {
    let flag = |peer: &Result<PeerInfo, HandshakeError>| peer.as_ref().is_ok_and(PeerInfo::resumed);
    (flag(&seen.client), flag(&seen.server))
}

fn short_lived(pki: &Pki, name: &str) -> Svid {
    let mut spec = Spec::of(&id(name));
    spec.not_after = SystemTime::now() + LATER / 2;
    // Unchecked, so that its own side goes on using it after its end, as somebody with ill intent would.
    pki.issue(&spec)
}

fn on_tokio_time(trust: &TrustStore, svid: Svid) -> (CertStore, weft_core::identity::SpiffeId) {
    store_with(trust, Clock::following_tokio(SystemTime::now()), svid)
}

#[tokio::test]
async fn the_second_connection_resumes_and_still_names_the_peer() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (client, server) = (client(&trust, pki.svid(&id("cart"))), server(&trust, pki.svid(&id("stock"))));
    let expected = id("stock").into();
    assert_eq!(resumed(&meet(&client, &server, &expected).await), (false, false));
    for _ in 0..5 {
        let seen = meet(&client, &server, &expected).await;
        assert_eq!(resumed(&seen), (true, true));
        assert_eq!(seen.client.unwrap().identity(), &id("stock"));
        let at_server = seen.server.unwrap();
        assert_eq!(at_server.identity(), &id("cart"));
        assert_eq!(at_server.group(), "X25519MLKEM768", "resumption keeps forward secrecy");
    }
}

#[tokio::test]
async fn a_ticket_is_no_way_around_the_expected_identity() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (client, server) = (client(&trust, pki.svid(&id("cart"))), server(&trust, pki.svid(&id("stock"))));
    meet(&client, &server, &id("stock").into()).await;
    let seen = meet(&client, &server, &id("other").into()).await;
    assert_eq!(seen.client_reason(), "wrong_identity");
}

#[tokio::test]
async fn another_server_at_the_same_address_is_looked_at_afresh() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let client = client(&trust, pki.svid(&id("cart")));
    let either = ExpectedPeer::any_of([id("stock"), id("stock-canary")]).unwrap();
    meet(&client, &server(&trust, pki.svid(&id("stock"))), &either).await;
    let seen = meet(&client, &server(&trust, pki.svid(&id("stock-canary"))), &either).await;
    assert_eq!(resumed(&seen), (false, false));
    assert_eq!(seen.client.unwrap().identity(), &id("stock-canary"));
}

#[tokio::test]
async fn a_new_bundle_ends_all_sessions_even_if_it_still_accepts_the_peer() {
    let (pki, next) = (Pki::new(), Pki::new());
    let trust = TrustStore::new(pki.bundle());
    let (client, server) = (client(&trust, pki.svid(&id("cart"))), server(&trust, pki.svid(&id("stock"))));
    let expected = id("stock").into();
    meet(&client, &server, &expected).await;

    let both = TrustBundle::new(Default::default(), [pki.root.clone(), next.root.clone()]).unwrap();
    assert_eq!(trust.update(both.clone()).unwrap(), 2);
    assert_eq!(resumed(&meet(&client, &server, &expected).await), (false, false));
    assert_eq!(trust.update(both).unwrap(), 2, "an equal bundle is no new one");
    assert_eq!(resumed(&meet(&client, &server, &expected).await), (true, true));

    trust.update(next.bundle()).unwrap();
    let seen = meet(&client, &server, &expected).await;
    assert_eq!(seen.client_reason(), "unknown_root");
}

#[tokio::test]
async fn a_new_certificate_of_ours_ends_its_sessions() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let server = server(&trust, pki.svid(&id("stock")));
    let (store, identity) = store_of(&trust, pki.svid(&id("cart")));
    let client = ClientTls::for_identity(&store, &identity).unwrap();
    let expected = id("stock").into();
    meet(&client, &server, &expected).await;
    store.install(pki.svid(&id("cart")));
    let seen = meet(&client, &server, &expected).await;
    assert_eq!(resumed(&seen), (false, false));
    assert_eq!(seen.server.unwrap().serial(), store.current(&identity).unwrap().serial());
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_certificate_has_expired_cannot_resume() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (clients, cart) = on_tokio_time(&trust, short_lived(&pki, "cart"));
    let (servers, stock) = on_tokio_time(&trust, pki.svid(&id("stock")));
    let client = ClientTls::for_identity(&clients, &cart).unwrap();
    let server = ServerTls::for_identity(&servers, &stock).unwrap();
    let expected = id("stock").into();
    meet(&client, &server, &expected).await;
    assert_eq!(resumed(&meet(&client, &server, &expected).await), (true, true));
    tokio::time::advance(LATER).await;
    assert_eq!(meet(&client, &server, &expected).await.server_reason(), "expired");
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_certificate_has_expired_cannot_resume() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (clients, cart) = on_tokio_time(&trust, pki.svid(&id("cart")));
    let (servers, stock) = on_tokio_time(&trust, short_lived(&pki, "stock"));
    let client = ClientTls::for_identity(&clients, &cart).unwrap();
    let server = ServerTls::for_identity(&servers, &stock).unwrap();
    let expected = id("stock").into();
    meet(&client, &server, &expected).await;
    assert_eq!(resumed(&meet(&client, &server, &expected).await), (true, true));
    tokio::time::advance(LATER).await;
    assert_eq!(meet(&client, &server, &expected).await.client_reason(), "expired");
}

#[tokio::test]
async fn a_root_retired_during_the_handshake_counts() {
    let (pki, next) = (Pki::new(), Pki::new());
    let (ours, theirs) = (TrustStore::new(pki.bundle()), TrustStore::new(pki.bundle()));
    let (client, server) = (client(&theirs, pki.svid(&id("cart"))), server(&ours, pki.svid(&id("stock"))));
    let expected = id("stock").into();
    meet(&client, &server, &expected).await;

    let (a, b) = tokio::io::duplex(64 * 1024);
    let mut accepting = Box::pin(answer(&server, b));
    tokio::select! {
        biased;
        _ = &mut accepting => panic!("nobody has dialled yet"),
        () = tokio::task::yield_now() => {}
    }
    ours.update(next.bundle()).unwrap();
    let (dialled, accepted) = tokio::join!(dial(&client, a, &expected), accepting);
    assert_eq!(accepted.unwrap_err().reason(), "unknown_root");
    assert!(dialled.is_err());
}

#[tokio::test]
async fn open_connections_are_checked_again_when_the_bundle_changes() {
    let (pki, next) = (Pki::new(), Pki::new());
    let trust = TrustStore::new(pki.bundle());
    let mut changes = trust.subscribe();
    let (client, server) = (client(&trust, pki.svid(&id("cart"))), server(&trust, pki.svid(&id("stock"))));
    let peer = meet(&client, &server, &id("stock").into()).await.server.unwrap();
    assert_eq!(peer.recheck(&trust, &Clock::system()), Ok(()));
    assert_eq!(peer.verified_with(), 1);

    trust.update(next.bundle()).unwrap();
    changes.changed().await.unwrap();
    assert_eq!(peer.recheck(&trust, &Clock::system()), Err(PeerRefused::UnknownRoot));
}

#[tokio::test]
async fn without_resumption_every_handshake_is_a_full_one() {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let settings = TlsSettings { resumption: false, ..TlsSettings::default() };
    let store = CertStore::new(trust, Clock::system(), settings);
    store.install(pki.svid(&id("cart")));
    let client = ClientTls::for_identity(&store, &id("cart")).unwrap();
    let server = ServerTls::for_identity(&store, &id("cart")).unwrap();
    for _ in 0..3 {
        assert_eq!(resumed(&meet(&client, &server, &id("cart").into()).await), (false, false));
    }
}
