//! What a leaf certificate says, read strictly: exactly one URI SAN, a workload identity of ours (X.509-SVID, sections
//! 2 and 4). DNS names, addresses and the subject are not looked at.

use std::time::SystemTime;

use weft_core::identity::SpiffeId;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::clock::from_seconds;
use crate::error::PeerRefused;

/// The facts of a leaf. Nothing here is verified: see [`crate::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub identity: SpiffeId,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// First valid second, since the epoch.
    pub not_before: u64,
    /// Last valid second, since the epoch.
    pub not_after: u64,
}

impl Leaf {
    /// Reads a leaf.
    pub fn read(der: &[u8]) -> Result<Self, PeerRefused> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| PeerRefused::Malformed)?;
        if !rest.is_empty() {
            return Err(PeerRefused::Malformed);
        }
        let mut sans = None;
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names)
                    if sans.replace(names).is_some() => {
                        return Err(PeerRefused::Malformed);
                    }
                ParsedExtension::KeyUsage(usage)
                    // X.509-SVID, section 4.3: a leaf signs handshakes, never certificates or revocation lists.
                    if (!usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign()) => {
                        return Err(PeerRefused::KeyUsage);
                    }
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                    return Err(PeerRefused::KeyUsage);
                }
                // An extension that we read but cannot parse must not silently count as absent.
                ParsedExtension::ParseError { .. } => return Err(PeerRefused::Malformed),
                _ => {}
            }
        }
        let names = sans.map(|s| s.general_names.as_slice()).unwrap_or_default();
        Ok(Self {
            identity: single_identity(names)?,
            serial: hex(cert.raw_serial()),
            not_before: epoch(cert.validity().not_before),
            not_after: epoch(cert.validity().not_after),
        })
    }
}

/// The last moment a certificate is valid, of whatever kind.
pub(crate) fn not_after(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(from_seconds(epoch(certificate.validity().not_after)))
}

fn single_identity(names: &[GeneralName<'_>]) -> Result<SpiffeId, PeerRefused> {
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(PeerRefused::Malformed),
            _ => {}
        }
    }
    match uris.as_slice() {
        [] => Err(PeerRefused::NoSpiffeSan),
        [uri] => uri.parse().map_err(PeerRefused::InvalidSpiffeSan),
        several => Err(PeerRefused::SeveralSans { count: several.len() }),
    }
}

fn epoch(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
