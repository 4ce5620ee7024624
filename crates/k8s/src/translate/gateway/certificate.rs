//! `certificateRefs[]` -> certificates.

use std::fmt;

use gateway_api::experimental::gateways::GatewayListenersTlsCertificateRefs;
use k8s_openapi::api::core::v1::Secret;
use weft_core::gateway::{Certificate, PrivateKey};
use weft_core::ids::{CertificateKey, GatewayKey};

use super::Lookup;
use crate::translate::{Problem, Reason};

/// Where a Secret of type `kubernetes.io/tls` has its parts.
const CHAIN: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";

/// Says whether a chain and a private key, both PEM, can be served, or why they can't.
///
/// Given from outside, because only who speaks TLS knows.
#[derive(Clone, Copy)]
pub struct KeyPairCheck(pub fn(chain: &[u8], private_key: &[u8]) -> Result<(), String>);

impl PartialEq for KeyPairCheck {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for KeyPairCheck {}

impl fmt::Debug for KeyPairCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPairCheck")
    }
}

/// The certificate that a listener refers to. Whether the reference may be followed is asked before whether there is
/// something at its end, so that nobody finds out what there is in other namespaces.
pub(super) fn certificate(
    gateway: &GatewayKey,
    field: &str,
    wanted: &GatewayListenersTlsCertificateRefs,
    lookup: &dyn Lookup,
) -> Result<Certificate, Problem> {
    let invalid = |part: &str, message: String, remedy: &str| {
        Problem::new(format!("{field}{part}"), Reason::InvalidCertificateRef, message, remedy)
    };
    let (group, kind) = (wanted.group.as_deref().unwrap_or_default(), wanted.kind.as_deref().unwrap_or("Secret"));
    if !group.is_empty() || kind != "Secret" {
        let message = format!("a certificate can't be of kind {kind:?} in group {group:?}");
        return Err(invalid(".kind", message, "refer to a Secret of the core group"));
    }
    let namespace = wanted.namespace.as_deref().unwrap_or(gateway.namespace.as_str());
    let key = CertificateKey::new(namespace, wanted.name.as_str());
    if key.namespace != gateway.namespace && !lookup.permitted(&gateway.namespace, &key) {
        let message = format!("Secret {key} is in another namespace and no ReferenceGrant there permits it");
        let remedy = format!(
            "create a ReferenceGrant in namespace {} from Gateway in {} to Secret {}",
            key.namespace, gateway.namespace, key.name
        );
        return Err(Problem::new(format!("{field}.namespace"), Reason::RefNotPermitted, message, remedy));
    }
    let Some(secret) = lookup.secret(&key) else {
        return Err(invalid(".name", format!("Secret {key} does not exist"), "create it, or correct the name"));
    };
    let part = |name: &str| {
        let message = || format!("Secret {key} has no {name}");
        data(secret, name).ok_or_else(|| invalid(".name", message(), "make it of type kubernetes.io/tls"))
    };
    let (chain, private_key) = (part(CHAIN)?, part(PRIVATE_KEY)?);
    (lookup.settings().check.0)(&chain, &private_key).map_err(|why| {
        let remedy = "put a certificate chain, leaf first, into tls.crt and its private key into tls.key, both as PEM";
        invalid(".name", format!("Secret {key}: {why}"), remedy)
    })?;
    Ok(Certificate { key, chain, private_key: PrivateKey::new(private_key) })
}

/// A value of a Secret. An API server puts `stringData` into `data`; in a directory nobody has.
fn data(secret: &Secret, name: &str) -> Option<Vec<u8>> {
    let text = secret.string_data.as_ref().and_then(|data| data.get(name)).map(|text| text.clone().into_bytes());
    let bytes = || secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.clone());
    text.or_else(bytes).filter(|value| !value.is_empty())
}
