//! Certificates of the authority itself, and leaves: what they say.

use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use weft_core::identity::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::AuthorityError;

/// A certificate that signs others, and its key.
pub(crate) struct Signer {
    pub cert: CertificateDer<'static>,
    pub issuer: Issuer<'static, KeyPair>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// A span of validity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub from: SystemTime,
    pub to: SystemTime,
}

impl Validity {
    /// `life` from now, backdated for callers whose clocks are behind, and never beyond the issuer's own end.
    pub fn new(now: SystemTime, backdate: Duration, life: Duration, end: Option<SystemTime>) -> Self {
        let from = now.checked_sub(backdate).unwrap_or(now);
        let to = now.checked_add(life).unwrap_or(now);
        Self { from, to: end.map_or(to, |end| to.min(end)) }
    }
}

impl Signer {
    /// Takes a certificate and its key, checking that they belong together and may sign certificates.
    pub fn new(cert: CertificateDer<'static>, key: KeyPair) -> Result<Self, AuthorityError> {
        let broken = |what: &str| AuthorityError::Material(what.to_owned());
        let (_, parsed) = X509Certificate::from_der(&cert).map_err(|_| broken("a CA certificate does not parse"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(broken("a CA certificate does not belong to its key"));
        }
        if !parsed.is_ca() {
            return Err(broken("a CA certificate lacks the CA flag"));
        }
        let at = |secs: i64| {
            SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(u64::try_from(secs).unwrap_or(0)))
                .ok_or_else(|| broken("a CA certificate's validity is out of range"))
        };
        let not_before = at(parsed.validity().not_before.timestamp())?;
        let not_after = at(parsed.validity().not_after.timestamp())?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(AuthorityError::Sign)?;
        Ok(Self { not_before, not_after, issuer, cert })
    }

    /// A new self-signed root.
    pub fn root(domain: &TrustDomain, validity: Validity) -> Result<Self, AuthorityError> {
        let params = authority_params(domain, "root", 1, validity)?;
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let issued = CertifiedIssuer::self_signed(params, &key).map_err(AuthorityError::Sign)?;
        Self::new(issued.der().clone(), key)
    }

    /// A new intermediate of this root.
    pub fn intermediate(&self, domain: &TrustDomain, validity: Validity) -> Result<Self, AuthorityError> {
        let params = authority_params(domain, "intermediate", 0, validity)?;
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let issued = params.signed_by(&key, &self.issuer).map_err(AuthorityError::Sign)?;
        Self::new(issued.der().clone(), key)
    }

    /// A leaf of this intermediate: one URI SAN, DNS SANs after it, no subject, and nothing the requester chose but the
    /// key.
    pub fn leaf(
        &self,
        identity: &SpiffeId,
        dns_names: &[DnsName<'_>],
        key: &impl PublicKeyData,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let text = |text: &str| Ia5String::try_from(text).map_err(AuthorityError::Sign);
        let mut params = dated(validity)?;
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(text(&identity.to_string())?)];
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName(text(name.as_ref())?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(key, &self.issuer).map_err(AuthorityError::Sign)?;
        Ok(leaf.der().clone())
    }
}

fn authority_params(
    domain: &TrustDomain,
    role: &str,
    depth: u8,
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = dated(validity)?;
    // A name of its own for each: verifiers try issuers by name, and two roots of one name cost a wrong guess.
    let serial: String =
        params.serial_number.iter().flat_map(SerialNumber::to_bytes).take(4).map(|b| format!("{b:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, domain.as_str());
    name.push(DnType::CommonName, format!("Weft {role} {serial}"));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn dated(validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(validity.from);
    params.not_after = OffsetDateTime::from(validity.to);
    params.serial_number = Some(random_serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits, never zero (RFC 5280, section 4.1.2.2: positive, at most 20 octets).
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}
