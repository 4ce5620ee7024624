//! Which roots a bundle takes, and when a store says that they changed.

use rustls_pki_types::CertificateDer;
use weft_core::identity::TrustDomain;

use super::pki::Pki;
use crate::{InvalidBundle, TrustBundle, TrustStore};

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
    assert_eq!((store.update(first), changed.has_changed().unwrap()), (1, false));
    assert_eq!((store.update(second.clone()), changed.has_changed().unwrap()), (2, true));
    assert_eq!((store.update(second), store.generation()), (2, 2));
}
