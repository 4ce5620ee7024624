//! What two front doors show of a host's certificate.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use weft_tls::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::compare::Difference;

/// What is compared of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shown {
    subject: String,
    names: String,
    issuer: String,
    until: String,
    key: String,
    /// The subjects of the others, in their order.
    chain: String,
    /// SHA-256 of the certificate.
    fingerprint: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(chain: &[CertificateDer<'static>]) -> Option<Shown> {
    let first = chain.first()?;
    let fingerprint = hex(&Sha256::digest(first));
    let Ok((_, certificate)) = X509Certificate::from_der(first) else {
        let unread = || "can't be read".to_owned();
        return Some(Shown {
            subject: unread(),
            names: unread(),
            issuer: unread(),
            until: unread(),
            key: unread(),
            chain: unread(),
            fingerprint,
        });
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = names.iter().flat_map(|names| &names.value.general_names).map(name).collect();
    names.sort();
    let others = chain.iter().skip(1).map(|der| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => certificate.subject().to_string(),
        Err(_) => "can't be read".to_owned(),
    });
    Some(Shown {
        subject: certificate.subject().to_string(),
        names: names.join(", "),
        issuer: certificate.issuer().to_string(),
        until: certificate.validity().not_after.to_string(),
        key: certificate.public_key().algorithm.algorithm.to_id_string(),
        chain: others.collect::<Vec<_>>().join(" < "),
        fingerprint,
    })
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(text) => (*text).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(bytes) => std::net::Ipv4Addr::from(bytes).to_string(),
            Err(_) => <[u8; 16]>::try_from(*bytes)
                .map_or_else(|_| hex(bytes), |bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        other => other.to_string(),
    }
}

/// What differs between the chains of two servers; nothing if one of them showed none, because it gave no answer either.
pub fn compare(old: &[CertificateDer<'static>], new: &[CertificateDer<'static>]) -> Vec<Difference> {
    let (Some(old), Some(new)) = (shown(old), shown(new)) else { return Vec::new() };
    let between = |what: &str, old: String, new: String| Difference::between(what, Some(old), Some(new));
    let mut found: Vec<_> = [
        between("subject", old.subject, new.subject),
        between("names", old.names, new.names),
        between("issuer", old.issuer, new.issuer),
        between("valid until", old.until, new.until),
        between("key algorithm", old.key, new.key),
        between("chain", old.chain, new.chain),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Otherwise the same, but not the same one.
    if found.is_empty() {
        found.extend(between("fingerprint", old.fingerprint, new.fingerprint));
    }
    found
}
