//! Which roots a bundle takes, and when a store says that they changed.

use rustls_pki_types::CertificateDer;
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};

use super::pki::{Pki, Seen, id, meet, store_with};
use crate::{
    CertStore, ClientTls, Clock, ExpectedPeer, HandshakeError, InvalidBundle, ServerTls, Svid, TrustBundle, TrustStore,
};

#[test]
fn a_bundle_has_so_many_roots_and_each_of_them_once() {
    let domain = TrustDomain::default();
    let bundle = |roots: &[CertificateDer<'static>]| TrustBundle::new(domain.clone(), roots.iter().cloned());
    let mut roots: Vec<_> = (0..16).map(|_| Pki::new().root).collect();
    assert_eq!(bundle(&roots).unwrap().roots(&domain), roots);
    roots[1] = roots[0].clone();
    assert_eq!(bundle(&roots).unwrap().roots(&domain), &roots[1..]);
    roots.push(Pki::new().root);
    assert_eq!(bundle(&roots), Err(InvalidBundle::TooMany(domain.clone())));
    assert_eq!(bundle(&[]), Err(InvalidBundle::Empty(domain.clone())));
    assert_eq!(bundle(&[b"no".to_vec().into()]), Err(InvalidBundle::Root { domain: domain.clone(), index: 0 }));
}

/// Sessions end with a generation, so that a bundle that only comes again must not begin one.
#[test]
fn the_same_roots_again_are_nothing_new() {
    let (first, second) = (Pki::new().bundle(), Pki::new().bundle());
    let store = TrustStore::new(first.clone());
    let changed = store.subscribe();
    assert_eq!((store.update(first).unwrap(), changed.has_changed().unwrap()), (1, false));
    assert_eq!((store.update(second.clone()).unwrap(), changed.has_changed().unwrap()), (2, true));
    assert_eq!((store.update(second).unwrap(), store.generation()), (2, 2));
}

fn domain(text: &str) -> TrustDomain {
    text.parse().unwrap()
}

/// `cluster.local` is ours, and `old.example` another name of it.
fn renamed() -> TrustDomains {
    TrustDomains::new(TrustDomain::default(), [domain("old.example")])
}

fn of(text: &str, account: &str) -> SpiffeId {
    SpiffeId::new(domain(text), "shop", account)
}

/// A client and a server that both know the alias, with whatever certificates.
async fn between(trust: &TrustStore, client: Svid, server: Svid, expected: &SpiffeId) -> Seen {
    let of = |svid| store_with(trust, Clock::system(), svid);
    let ((ours, dials), (theirs, answers)) = (of(client), of(server));
    let client = ClientTls::for_identity(&ours, &dials).unwrap();
    let server = ServerTls::for_identity(&theirs, &answers).unwrap();
    meet(&client, &server, &ExpectedPeer::one(expected.clone())).await
}

#[tokio::test]
async fn an_identity_under_an_alias_is_the_one_under_our_own_name_to_both_sides() {
    let pki = Pki::new();
    let trust = TrustStore::with_domains(pki.bundle(), renamed()).unwrap();
    for (client, server, expected) in [
        ("cluster.local", "cluster.local", "cluster.local"),
        ("old.example", "cluster.local", "cluster.local"),
        ("cluster.local", "old.example", "cluster.local"),
        ("cluster.local", "cluster.local", "old.example"),
        ("old.example", "old.example", "old.example"),
    ] {
        let (cart, stock) = (pki.svid(&of(client, "cart")), pki.svid(&of(server, "stock")));
        let seen = between(&trust, cart, stock, &of(expected, "stock")).await;
        let (server, client) = (seen.client.unwrap(), seen.server.unwrap());
        assert_eq!((server.identity(), client.identity()), (&id("stock"), &id("cart")));
        for peer in [&server, &client] {
            peer.recheck(&trust, &Clock::system()).unwrap();
        }
    }
    // The rest of the identity is compared as ever.
    let (cart, stock) = (pki.svid(&id("cart")), pki.svid(&of("old.example", "stock")));
    assert_eq!(between(&trust, cart, stock, &id("cart")).await.client_reason(), "wrong_identity");
}

#[tokio::test]
async fn what_is_like_an_alias_and_is_not_listed_is_refused_by_both_sides() {
    let pki = Pki::new();
    let trust = TrustStore::with_domains(pki.bundle(), renamed()).unwrap();
    for like in ["an.old.example", "old.example.com", "old.exampl", "example", "new.example"] {
        let (good, odd) = (|| pki.svid(&id("cart")), || pki.svid(&of(like, "cart")));
        let seen = between(&trust, good(), odd(), &id("cart")).await;
        assert_eq!((seen.client_reason(), seen.server_reason()), ("wrong_trust_domain", "refused_by_peer"), "{like}");
        let seen = between(&trust, odd(), good(), &id("cart")).await;
        assert_eq!((seen.client_reason(), seen.server_reason()), ("refused_by_peer", "wrong_trust_domain"), "{like}");
    }
    let alone = TrustStore::new(pki.bundle());
    let seen = between(&alone, pki.svid(&id("cart")), pki.svid(&of("old.example", "cart")), &id("cart")).await;
    assert_eq!(seen.client_reason(), "wrong_trust_domain", "for who has no alias there is none");
}

/// Whose authority vouches is what counts: a federated one speaks for no name of ours.
#[tokio::test]
async fn an_alias_is_vouched_for_by_our_own_roots_alone() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let both = ours.bundle().with(domain("partner.example"), [theirs.root.clone()]).unwrap();
    let trust = TrustStore::with_domains(both, renamed()).unwrap();
    let (cart, forged) = (ours.svid(&id("cart")), theirs.svid(&of("old.example", "stock")));
    assert_eq!(between(&trust, cart, forged, &id("stock")).await.client_reason(), "unknown_root");
    let (forged, stock) = (theirs.svid(&of("old.example", "cart")), ours.svid(&id("stock")));
    assert_eq!(between(&trust, forged, stock, &id("stock")).await.server_reason(), "unknown_root");
    let guest = of("partner.example", "stock");
    let (cart, right) = (ours.svid(&id("cart")), theirs.svid(&guest));
    assert_eq!(between(&trust, cart, right, &guest).await.client.unwrap().identity(), &guest, "and keeps its name");
    let (cart, right) = (ours.svid(&id("cart")), theirs.svid(&guest));
    let seen = between(&trust, cart, right, &id("stock")).await;
    assert!(matches!(seen.client, Err(HandshakeError::Peer(_))), "nor is it ours: {:?}", seen.client);
}

#[test]
fn a_name_is_either_an_alias_or_federated() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let both = || ours.bundle().with(domain("old.example"), [theirs.root.clone()]).unwrap();
    let error = TrustStore::with_domains(both(), renamed()).unwrap_err();
    assert_eq!(error, InvalidBundle::Alias { alias: domain("old.example"), own: TrustDomain::default() });
    let said = error.to_string();
    assert!(said.contains("old.example") && said.contains("cluster.local"), "{said}");

    let trust = TrustStore::with_domains(ours.bundle(), renamed()).unwrap();
    trust.update(both()).unwrap_err();
    assert_eq!((trust.generation(), trust.current().bundle.clone()), (1, ours.bundle()), "the old one stays");
}

/// Some parts of the mesh hear of the new name before others.
#[test]
fn our_roots_are_ours_under_whichever_name_they_come() {
    let pki = Pki::new();
    let under = |name: &str| TrustBundle::new(domain(name), [pki.root.clone()]).unwrap();
    let trust = TrustStore::with_domains(under("old.example"), renamed()).unwrap();
    assert_eq!(trust.current().bundle.domains().collect::<Vec<_>>(), [&TrustDomain::default()]);
    for name in ["cluster.local", "old.example"] {
        assert_eq!(trust.update(under(name)), Ok(1), "{name}: nothing new, and no session ends");
    }
    let strangers = trust.update(under("another.example"));
    assert_eq!(strangers, Err(InvalidBundle::NotOurs(TrustDomain::default())), "which would leave us none");
    assert_eq!(trust.current().bundle.roots(&TrustDomain::default()), std::slice::from_ref(&pki.root));
}

/// A proxy that takes over from one of the old name goes on with its certificates.
#[test]
fn a_certificate_under_an_alias_is_that_of_the_identity_under_our_own_name() {
    let pki = Pki::new();
    let trust = TrustStore::with_domains(pki.bundle(), renamed()).unwrap();
    let store = CertStore::new(trust, Clock::system(), Default::default());
    store.install(pki.svid(&of("old.example", "cart")));
    for identity in [id("cart"), of("old.example", "cart")] {
        assert_eq!(store.current(&identity).unwrap().identity(), &of("old.example", "cart"));
    }
    assert_eq!(store.status()[0].identity, of("old.example", "cart"), "who looks sees what is not renewed yet");
    assert!(store.current(&of("partner.example", "cart")).is_err());
    store.remove(&id("cart"));
    assert!(store.current(&id("cart")).is_err());
}
