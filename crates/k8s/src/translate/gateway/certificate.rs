//! References to Secrets -> certificates.

use std::fmt;

use gateway_api::experimental::gateways::{GatewayListenersTlsCertificateRefs, GatewayTlsBackendClientCertificateRef};
use k8s_openapi::api::core::v1::Secret;
use weft_core::gateway::{Certificate, PrivateKey};
use weft_core::ids::{CertificateKey, GatewayKey, ListenerSetKey, Namespace, SecretKey};

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

/// Who holds a listener. What it refers to is looked for in the holder's namespace, and ReferenceGrants name the holder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    /// The Gateway that serves it.
    pub gateway: &'a GatewayKey,
    /// The ListenerSet, if it isn't the Gateway itself.
    pub set: Option<&'a ListenerSetKey>,
}

impl<'a> Holder<'a> {
    /// The Gateway itself.
    pub(super) const fn gateway(gateway: &'a GatewayKey) -> Self {
        Self { gateway, set: None }
    }

    /// Its kind.
    pub(super) const fn kind(self) -> &'static str {
        if self.set.is_some() { "ListenerSet" } else { "Gateway" }
    }

    /// Its namespace.
    pub(super) fn namespace(self) -> &'a Namespace {
        self.set.map_or(&self.gateway.namespace, |set| &set.namespace)
    }

    /// Fails unless a reference from here may be followed: into another namespace it takes a ReferenceGrant. Asked before
    /// whether there is something at its end, so that nobody finds out what there is in other namespaces.
    pub(super) fn may_refer(
        self,
        field: &str,
        (kind, namespace, name): (&str, &Namespace, &str),
        lookup: &dyn Lookup,
    ) -> Result<(), Problem> {
        let own = self.namespace();
        if own == namespace || lookup.permitted((self.kind(), own), (kind, namespace, name)) {
            return Ok(());
        }
        let message =
            format!("{kind} {namespace}/{name} is in another namespace and no ReferenceGrant there permits it");
        let from = self.kind();
        let remedy = format!("create a ReferenceGrant in namespace {namespace} from {from} in {own} to {kind} {name}");
        Err(Problem::new(format!("{field}.namespace"), Reason::RefNotPermitted, message, remedy))
    }
}

/// A reference to a Secret (`SecretObjectReference`).
#[derive(Clone, Copy, Debug)]
pub(super) struct SecretReference<'a> {
    group: Option<&'a str>,
    kind: Option<&'a str>,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> From<&'a GatewayListenersTlsCertificateRefs> for SecretReference<'a> {
    fn from(it: &'a GatewayListenersTlsCertificateRefs) -> Self {
        let (group, kind) = (it.group.as_deref(), it.kind.as_deref());
        Self { group, kind, namespace: it.namespace.as_deref(), name: &it.name }
    }
}

impl<'a> From<&'a GatewayTlsBackendClientCertificateRef> for SecretReference<'a> {
    fn from(it: &'a GatewayTlsBackendClientCertificateRef) -> Self {
        let (group, kind) = (it.group.as_deref(), it.kind.as_deref());
        Self { group, kind, namespace: it.namespace.as_deref(), name: &it.name }
    }
}

/// The certificate that a Secret holds. `invalid` is the word for a reference to none.
pub(super) fn certificate(
    holder: Holder<'_>,
    field: &str,
    wanted: SecretReference<'_>,
    invalid: Reason,
    lookup: &dyn Lookup,
) -> Result<Certificate, Problem> {
    let invalid =
        |part: &str, message: String, remedy: &str| Problem::new(format!("{field}{part}"), invalid, message, remedy);
    let (group, kind) = (wanted.group.unwrap_or_default(), wanted.kind.unwrap_or("Secret"));
    if !group.is_empty() || kind != "Secret" {
        let message = format!("a certificate can't be of kind {kind:?} in group {group:?}");
        return Err(invalid(".kind", message, "refer to a Secret of the core group"));
    }
    let key = SecretKey::new(wanted.namespace.unwrap_or(holder.namespace().as_str()), wanted.name);
    holder.may_refer(field, ("Secret", &key.namespace, key.name.as_str()), lookup)?;
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
    let key = CertificateKey { gateway: holder.gateway.clone(), secret: key };
    Ok(Certificate { key, chain, private_key: PrivateKey::new(private_key) })
}

/// A value of a Secret. An API server puts `stringData` into `data`; in a directory nobody has.
fn data(secret: &Secret, name: &str) -> Option<Vec<u8>> {
    let text = secret.string_data.as_ref().and_then(|data| data.get(name)).map(|text| text.clone().into_bytes());
    let bytes = || secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.clone());
    text.or_else(bytes).filter(|value| !value.is_empty())
}
