//! The authority's state as a Secret.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_core::ids::Namespace;
use weft_kube::PART_OF;

use super::NAME;
use crate::error::AuthorityError;
use crate::state::{Files, State};

/// The step that a person orders; the leader takes it and removes the order in one write.
pub(super) const ORDER: &str = "weftmesh.io/rotate";
/// What became of the last order.
pub(super) const ANSWER: &str = "weftmesh.io/rotate-result";

/// A Secret's data as files.
pub(super) struct SecretFiles<'a>(pub &'a Secret);

impl Files for SecretFiles<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, AuthorityError> {
        Ok(self.0.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.clone()))
    }

    fn place(&self, name: &str) -> String {
        format!("Secret {}, key {name}", full_name(self.0))
    }
}

/// `namespace/name`.
pub(super) fn full_name(secret: &Secret) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&secret.metadata.namespace), part(&secret.metadata.name))
}

/// An annotation's text.
pub(super) fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The Secret that holds `state`: what is there (its version, so that nobody else's write is lost) or a new one.
pub(super) fn with_state(
    there: Option<&Secret>,
    namespace: &Namespace,
    state: &State,
) -> Result<Secret, AuthorityError> {
    let mut secret = there.cloned().unwrap_or_else(|| new_secret(namespace));
    secret.data = Some(state.save()?.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect());
    Ok(secret)
}

/// The same with the order taken away and its answer written down.
pub(super) fn with_answer(mut secret: Secret, answer: &str) -> Secret {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.remove(ORDER);
    annotations.insert(ANSWER.to_owned(), answer.to_owned());
    secret
}

fn new_secret(namespace: &Namespace) -> Secret {
    let metadata = ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(namespace.to_string()),
        labels: Some(labels()),
        ..ObjectMeta::default()
    };
    Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() }
}

pub(super) fn labels() -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", NAME), PART_OF, ("app.kubernetes.io/managed-by", NAME)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
