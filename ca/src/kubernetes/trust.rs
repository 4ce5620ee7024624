//! The roots for everybody who mounts them: ConfigMap `weft-trust`, key `root.pem`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use weft_core::identity::TrustDomains;
use weft_core::ids::Namespace;
use weft_kube::Watched;
use weft_kube::kube::api::PostParams;
use weft_kube::kube::{Api, Client};
use weft_tls::Clock;

use super::keeper::Publication;
use super::secret::{SecretFiles, labels};
use super::{ClusterSettings, NAME, TRUST, config_maps, is_race, only, secrets, within};
use crate::authority::{Authority, Bundle};
use crate::state::State;
use crate::store::LOOK;

/// The key of the roots.
const ROOT: &str = "root.pem";
/// Which bundle the roots are.
const GENERATION: &str = "weftmesh.io/generation";
/// Since when they are there (RFC 3339).
const SINCE: &str = "weftmesh.io/published";
/// How soon a write that failed is tried again, if nothing happens before.
const AGAIN: Duration = Duration::from_secs(2);

/// Its task.
pub(super) struct Publisher {
    maps: Api<ConfigMap>,
    secrets: Api<Secret>,
    namespace: Namespace,
    trust_domains: TrustDomains,
    clock: Clock,
    leader: watch::Receiver<bool>,
    authority: watch::Receiver<Option<Arc<Authority>>>,
}

impl Publisher {
    pub fn new(
        client: &Client,
        settings: &ClusterSettings,
        clock: Clock,
        leader: watch::Receiver<bool>,
        authority: watch::Receiver<Option<Arc<Authority>>>,
    ) -> Self {
        Self {
            maps: config_maps(client, &settings.namespace),
            secrets: secrets(client, &settings.namespace),
            namespace: settings.namespace.clone(),
            trust_domains: settings.authority.trust_domains.clone(),
            clock,
            leader,
            authority,
        }
    }

    /// For ever: tells what the ConfigMap shows, and as the leader keeps it right.
    pub async fn run(mut self, published: watch::Sender<Publication>) {
        let mut events: Pin<Box<dyn Stream<Item = Watched<ConfigMap>> + Send>> =
            Box::pin(weft_kube::watch(self.maps.clone(), only(TRUST)));
        let mut bundle = self.bundle().await;
        let mut seen: Option<Option<ConfigMap>> = None;
        let mut pause = LOOK;
        loop {
            tokio::select! {
                Some(event) = events.next() => {
                    let map = current(event);
                    published.send_replace(map.as_ref().and_then(|map| publication(map, self.clock.now())));
                    seen = Some(map);
                }
                Ok(()) = bundle.changed() => {}
                Ok(()) = self.leader.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let leads = *self.leader.borrow_and_update();
            let wanted = bundle.borrow_and_update().clone();
            pause = match &seen {
                Some(map) if leads && !shows(map.as_ref(), &wanted) => {
                    if self.publish(map.as_ref()).await {
                        LOOK
                    } else {
                        AGAIN
                    }
                }
                _ => LOOK,
            };
        }
    }

    /// The authority's bundle, as soon as there is one.
    async fn bundle(&mut self) -> watch::Receiver<Arc<Bundle>> {
        loop {
            if let Some(authority) = &*self.authority.borrow_and_update() {
                return authority.subscribe();
            }
            if self.authority.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Writes what the Secret holds at this moment, not what this replica remembers: one that has been replaced as the
    /// leader and doesn't know it yet must not publish an older bundle. Whether that went well.
    async fn publish(&self, there: Option<&ConfigMap>) -> bool {
        let secret = match within(self.secrets.get_opt(NAME)).await {
            Ok(Some(secret)) => secret,
            // The keeper writes it again.
            Ok(None) => return false,
            Err(error) => {
                tracing::error!("Secret {}/{NAME} cannot be read: {error}", self.namespace);
                return false;
            }
        };
        let Ok(Some(state)) = State::load(&SecretFiles(&secret), &self.trust_domains) else { return false };
        let bundle = state.bundle();
        if shows(there, &bundle) {
            return true;
        }
        let map = with_bundle(there, &self.namespace, &bundle, self.clock.now());
        let params = PostParams { field_manager: Some(NAME.to_owned()), ..PostParams::default() };
        let written = match there {
            Some(_) => within(self.maps.replace(TRUST, &params, &map)).await,
            None => within(self.maps.create(&params, &map)).await,
        };
        match written {
            Ok(_) => tracing::info!(generation = bundle.generation, roots = bundle.roots.len(), "roots published"),
            Err(error) if is_race(&error) => tracing::info!("somebody changed ConfigMap {TRUST} first"),
            Err(error) => {
                tracing::error!("ConfigMap {}/{TRUST} cannot be written: {error}", self.namespace);
                return false;
            }
        }
        true
    }
}

fn current(event: Watched<ConfigMap>) -> Option<ConfigMap> {
    match event {
        Watched::Restarted(found) => found.into_iter().find(|m| m.metadata.name.as_deref() == Some(TRUST)),
        Watched::Applied(map) => Some(map),
        Watched::Deleted(_) => None,
    }
}

fn pem(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get(ROOT).map(String::as_str)
}

/// Whether the map has exactly these roots.
fn shows(map: Option<&ConfigMap>, bundle: &Bundle) -> bool {
    map.and_then(pem) == Some(&bundle.to_pem())
}

/// What a map shows. A map that doesn't say since when is as new as this moment.
fn publication(map: &ConfigMap, now: SystemTime) -> Option<(String, SystemTime)> {
    let since = map.metadata.annotations.as_ref().and_then(|all| all.get(SINCE));
    let since = since.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Some((pem(map)?.to_owned(), since.map_or(now, SystemTime::from)))
}

/// The map that is there, or a new one, with these roots.
fn with_bundle(there: Option<&ConfigMap>, namespace: &Namespace, bundle: &Bundle, now: SystemTime) -> ConfigMap {
    let mut map = there.cloned().unwrap_or_else(|| {
        let metadata = ObjectMeta {
            name: Some(TRUST.to_owned()),
            namespace: Some(namespace.to_string()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    });
    map.data.get_or_insert_default().insert(ROOT.to_owned(), bundle.to_pem());
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(GENERATION.to_owned(), bundle.generation.to_string());
    // The format has no way to fail for a time of this age.
    let since = OffsetDateTime::from(now).format(&Rfc3339).unwrap_or_default();
    annotations.insert(SINCE.to_owned(), since);
    map
}
