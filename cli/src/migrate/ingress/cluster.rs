//! What is migrated, read from a cluster: nothing is written there, and no Secret's content is read.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::input::{Inputs, Key, key_of, namespace_of};
use super::report::{Level, Report};
use crate::cluster::{Session, Target, Unread};

/// The annotation of ingress-nginx that names a ConfigMap.
const CUSTOM_HEADERS: &str = "nginx.ingress.kubernetes.io/custom-headers";

/// Reads Ingresses and what they refer to.
///
/// # Errors
/// When Ingresses can't be read. What else may not be read is in the report.
pub fn read(target: &Target, inputs: &mut Inputs, report: &mut Report) -> anyhow::Result<()> {
    crate::cluster::block_on(async {
        let session = target.session().await?;
        from(&session, inputs, report).await
    })
}

/// Reads from a session.
pub async fn from(session: &Session, inputs: &mut Inputs, report: &mut Report) -> anyhow::Result<()> {
    inputs.ingresses = session.all().await?;
    let (classes, services) = tokio::join!(session.all(), session.all());
    inputs.classes = or_said(classes, report).unwrap_or_default();
    let services: Vec<k8s_openapi::api::core::v1::Service> = or_said(services, report).unwrap_or_default();
    inputs.services = services.into_iter().map(|service| (key_of(&service.metadata), service)).collect();
    let secrets = session.names::<Secret>().await;
    inputs.secrets = or_said(secrets, report).map(|names| names.into_iter().collect());
    for (namespace, name) in config_maps(inputs) {
        let found: Result<Option<ConfigMap>, _> = session.config_map(&namespace, &name).await;
        if let Some(map) = or_said(found, report).flatten() {
            inputs.config_maps.insert((namespace, name), map);
        }
    }
    Ok(())
}

fn or_said<T>(read: Result<T, Unread>, report: &mut Report) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(Unread { what, why }) => {
            let remedy = "get the right to read it; without it less is known about what Ingresses refer to";
            report.say(Level::Differs, ("the cluster", &what, ""), why, remedy);
            None
        }
    }
}

/// ConfigMaps that Ingresses name.
fn config_maps(inputs: &Inputs) -> BTreeSet<Key> {
    let named = inputs.ingresses.iter().filter_map(|ingress| {
        let text = ingress.metadata.annotations.as_ref()?.get(CUSTOM_HEADERS)?;
        let own = namespace_of(&ingress.metadata);
        let (namespace, name) = text.split_once('/').unwrap_or((&own, text));
        Some((namespace.to_owned(), name.to_owned()))
    });
    named.collect()
}
