use std::os::unix::fs::PermissionsExt;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, KeyPair, SanType};
use weft_tls::{PeerRole, RootHash};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

#[test]
fn a_leaf_says_what_was_permitted_and_nothing_the_request_said() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let request = KeyRequest::generate(&id("cart")).unwrap();
    let issued = authority.issue(request.csr(), &id("cart"), None).unwrap();

    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let sans = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(sans.critical, "RFC 5280, section 4.1.2.6: critical when the subject is empty");
    assert_eq!(format!("{:?}", sans.value.general_names), format!("[URI({:?})]", id("cart").to_string()));
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(!leaf.is_ca());
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 24 * 3600 + 60, "a day, backdated a minute");

    let svid = request.complete(issued.chain).unwrap();
    svid.verify(authority.trust(), PeerRole::Client, &Clock::system()).unwrap();
    svid.verify(authority.trust(), PeerRole::Server, &Clock::system()).unwrap();
}

#[test]
fn a_server_of_ours_also_has_its_dns_names_and_peers_still_know_it_by_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let request = KeyRequest::generate(&id("ca")).unwrap();
    let names = ["ca.shop.svc", "primary"].map(|name| dns_name(name).unwrap());
    let issued = authority.issue_server(request.csr(), &id("ca"), &names).unwrap();
    let leaf = issued.chain[0].clone();
    let entity = webpki::EndEntityCert::try_from(&leaf).unwrap();
    for (name, valid) in [("ca.shop.svc", true), ("primary", true), ("other.shop.svc", false)] {
        let server = rustls_pki_types::ServerName::try_from(name).unwrap();
        assert_eq!(entity.verify_is_valid_for_subject_name(&server).is_ok(), valid, "{name}");
    }
    let svid = request.complete(issued.chain).unwrap();
    assert_eq!(svid.identity(), &id("ca"));
    svid.verify(authority.trust(), PeerRole::Server, &Clock::system()).unwrap();
}

#[test]
fn names_that_a_certificate_cannot_carry_are_refused() {
    assert_eq!(dns_name("CA.Example.com").unwrap().as_ref(), "ca.example.com");
    for wrong in ["", "*.example.com", "10.0.0.1", "ca.example.com.", "ca example", "-ca"] {
        assert_eq!(dns_name(wrong), Err(InvalidDnsName), "{wrong:?}");
    }
}

#[test]
fn serials_do_not_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let csr = csr(&id("cart"));
    let serials: std::collections::HashSet<_> = (0..64)
        .map(|_| {
            let chain = authority.issue(&csr, &id("cart"), None).unwrap().chain;
            X509Certificate::from_der(&chain[0]).unwrap().1.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 64);
    assert!(serials.iter().all(|s| s.len() == 16));
}

#[test]
fn what_does_not_belong_in_a_request_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let reason =
        |csr: &[u8], identity: &SpiffeId| authority.issue(csr, identity, None).map_or_else(|e| e.reason(), |_| "ok");
    let with = |names: Vec<SanType>, key: &KeyPair| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.serialize_request(key).unwrap().der().to_vec()
    };
    let uri = |text: &str| SanType::URI(Ia5String::try_from(text).unwrap());
    let own = || uri(&id("cart").to_string());
    let key = KeyPair::generate().unwrap();

    assert_eq!(reason(&with(vec![], &key), &id("cart")), "ok");
    assert_eq!(reason(&with(vec![own()], &key), &id("cart")), "ok");
    assert_eq!(reason(&csr(&id("stock")), &id("cart")), "csr_names");
    assert_eq!(reason(&with(vec![own(), own()], &key), &id("cart")), "csr_names");
    let dns = SanType::DnsName(Ia5String::try_from("cart.shop").unwrap());
    assert_eq!(reason(&with(vec![own(), dns], &key), &id("cart")), "csr_names");

    let mut forged = csr(&id("cart"));
    *forged.last_mut().unwrap() ^= 1;
    assert!(["csr_signature", "csr_malformed"].contains(&reason(&forged, &id("cart"))));
    let (name, other) = (id("cart").to_string(), id("carz").to_string());
    let at = forged.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
    let mut renamed = csr(&id("cart"));
    renamed[at..at + name.len()].copy_from_slice(other.as_bytes());
    assert_eq!(reason(&renamed, &id("carz")), "csr_signature");

    let mut followed = with(vec![], &key);
    followed.extend_from_slice(&csr(&id("stock")));
    assert_eq!(reason(&followed, &id("cart")), "csr_malformed", "by another request");

    assert_eq!(reason(b"", &id("cart")), "csr_malformed");
    assert_eq!(reason(&[0x30; 200], &id("cart")), "csr_malformed");
    assert_eq!(reason(&vec![0; 8 * 1024 + 1], &id("cart")), "csr_too_large");
    let elsewhere = SpiffeId::new("elsewhere".parse().unwrap(), "shop", "cart");
    assert_eq!(reason(&csr(&elsewhere), &elsewhere), "trust_domain");
}

#[test]
fn only_strong_keys_are_certified() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    for (algorithm, wanted) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ok"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ok"),
        (&rcgen::PKCS_ED25519, "ok"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "csr_weak_key"),
        // A P-521 key whose request is signed with the digest of P-256 must not be certified as a P-256 key.
        (&rcgen::PKCS_ECDSA_P521_SHA256, "csr_weak_key"),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let got = authority.issue(csr.der(), &id("cart"), None).map_or_else(|e| e.reason(), |_| "ok");
        let refused = wanted != "ok" && ["csr_weak_key", "csr_malformed", "csr_signature"].contains(&got);
        assert!(got == wanted || refused, "{algorithm:?}: {got}");
    }
}

#[test]
fn a_caller_may_ask_for_less_life_and_never_gets_more() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open(dir.path());
    let end = |life| authority.issue(&csr(&id("cart")), &id("cart"), life).unwrap().not_after;
    let now = SystemTime::now();
    let near = |at: SystemTime, wanted: Duration| {
        let got = at.duration_since(now).unwrap();
        assert!(got.abs_diff(wanted) < Duration::from_secs(5), "{got:?}");
    };
    near(end(None), DAY);
    near(end(Some(HOUR)), HOUR);
    near(end(Some(DAY * 365)), DAY);
}

#[tokio::test(start_paused = true)]
async fn no_leaf_outlives_its_intermediate() {
    let dir = tempfile::tempdir().unwrap();
    let settings = AuthoritySettings { intermediate_life: HOUR, ..settings() };
    let authority = Authority::open(dir.path(), settings, virtual_clock()).unwrap();
    let issued = authority.issue(&csr(&id("cart")), &id("cart"), None).unwrap();
    assert_eq!(issued.not_after, authority.status().unwrap().intermediate_not_after);
    tokio::time::advance(HOUR * 2).await;
    let error = authority.issue(&csr(&id("cart")), &id("cart"), None).unwrap_err();
    assert!(matches!(error, IssueError::Authority(AuthorityError::Expired(_))), "{error}");
}

#[test]
fn a_restart_keeps_the_root_and_its_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let (before, old) = (first.status().unwrap(), first.issue(&csr(&id("cart")), &id("cart"), None).unwrap());
    let locked = Authority::open(dir.path(), settings(), Clock::system()).unwrap_err();
    assert!(matches!(locked, AuthorityError::Locked(_)), "{locked}");
    drop(first);

    let second = open(dir.path());
    assert_eq!(second.status().unwrap(), before);
    assert_eq!(second.bundle(), old.bundle);
    let new = second.issue(&csr(&id("cart")), &id("cart"), None).unwrap();
    assert_eq!(new.chain[1], old.chain[1], "the same intermediate");
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
    }
    drop(second);

    let other = AuthoritySettings::new("elsewhere".parse::<TrustDomain>().unwrap());
    let error = Authority::open(dir.path(), other, Clock::system()).unwrap_err();
    assert!(matches!(error, AuthorityError::TrustDomain { .. }), "{error}");
}

/// The way of a change: the new name beside the old one, the old one beside the new one, the old one gone. The root stays.
#[test]
fn its_trust_domain_changes_under_the_same_root() {
    let dir = tempfile::tempdir().unwrap();
    let domain = |text: &str| text.parse::<TrustDomain>().unwrap();
    let (old, new) = (domain("old.example"), domain("new.example"));
    let pod = |domain: &TrustDomain| SpiffeId::new(domain.clone(), "shop", "cart");
    let open = |own: &TrustDomain, aliases: &[&TrustDomain]| {
        let domains = TrustDomains::new(own.clone(), aliases.iter().map(|alias| (*alias).clone()));
        Authority::open(dir.path(), AuthoritySettings::new(domains), Clock::system())
    };
    let issue = |authority: &Authority, identity: &SpiffeId| {
        let request = KeyRequest::generate(identity).unwrap();
        authority.issue(request.csr(), identity, None).map(|issued| request.complete(issued.chain).unwrap())
    };
    let first = open(&old, &[]).unwrap();
    let roots = first.bundle().roots.clone();
    let before = issue(&first, &pod(&old)).unwrap();
    drop(first);
    assert!(open(&new, &[]).is_err(), "without an alias it is another mesh's");

    for (own, alias) in [(&old, &new), (&new, &old), (&old, &new), (&new, &old)] {
        let authority = open(own, &[alias]).unwrap();
        assert_eq!((&authority.bundle().trust_domain, &authority.bundle().roots), (own, &roots));
        for (domain, given) in [(&old, true), (&new, true), (&domain("an.old.example"), false)] {
            let issued = issue(&authority, &pod(domain));
            assert_eq!(issued.as_ref().ok().map(weft_tls::Svid::identity), given.then(|| pod(domain)).as_ref());
            for svid in issued.iter().chain([&before]) {
                svid.verify(authority.trust(), weft_tls::PeerRole::Server, &Clock::system()).unwrap();
            }
        }
    }
    let last = open(&new, &[]).unwrap();
    assert_eq!(last.bundle().roots, roots);
    assert!(matches!(issue(&last, &pod(&old)), Err(IssueError::TrustDomain { .. })));
    assert!(before.verify(last.trust(), weft_tls::PeerRole::Client, &Clock::system()).is_err());
}

#[test]
fn broken_files_are_an_error_and_never_a_new_root() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let reopen = || Authority::open(dir.path(), settings(), Clock::system()).map(drop);
    let path = dir.path().join("intermediate-1.pem");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(matches!(reopen(), Err(AuthorityError::Material(_))));
    std::fs::write(&path, &good).unwrap();
    reopen().unwrap();
    std::fs::write(dir.path().join("state.json"), "{").unwrap();
    assert!(matches!(reopen(), Err(AuthorityError::Material(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(reopen().is_err());
}

#[test]
fn cacerts_of_another_mesh_share_its_root() {
    let (dir, mounted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let theirs = open(dir.path());
    let file = |n: &str| std::fs::read_to_string(dir.path().join(n)).unwrap();
    let root = weft_tls::pem::certificate(&theirs.bundle().roots[0]);
    let intermediate = file("intermediate-1.pem");
    let (cert, key) = intermediate.split_at(intermediate.find("-----BEGIN PRIVATE KEY").unwrap());
    let write = |n: &str, text: &str| std::fs::write(mounted.path().join(n), text).unwrap();
    write("ca-cert.pem", cert);
    write("ca-key.pem", key);
    write("cert-chain.pem", &format!("{cert}{root}"));
    write("root-cert.pem", &root);

    let ours = Authority::from_cacerts(mounted.path(), settings(), Clock::system()).unwrap();
    let request = KeyRequest::generate(&id("cart")).unwrap();
    let issued = ours.issue(request.csr(), &id("cart"), None).unwrap();
    assert_eq!(issued.chain.len(), 2, "neither the CA certificate twice nor the root");
    let svid = request.complete(issued.chain).unwrap();
    svid.verify(theirs.trust(), PeerRole::Client, &Clock::system()).unwrap();
    assert_eq!(ours.status().unwrap().roots, vec![RootHash::of(&theirs.bundle().roots[0])]);
    assert!(matches!(ours.start_rotation(), Err(RotateError::External)));

    let stranger = tempfile::tempdir().unwrap();
    write("root-cert.pem", &weft_tls::pem::certificate(&open(stranger.path()).bundle().roots[0]));
    let error = Authority::from_cacerts(mounted.path(), settings(), Clock::system()).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    write("root-cert.pem", &root);
    write("ca-key.pem", &KeyPair::generate().unwrap().serialize_pem());
    let error = Authority::from_cacerts(mounted.path(), settings(), Clock::system()).unwrap_err();
    assert!(error.to_string().contains("does not belong to its key"), "{error}");
}
