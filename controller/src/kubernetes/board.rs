//! ConfigMaps in which replicas tell each other what they hear of their clients: each under its own name. One object for
//! each topic, written only when something comes or goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use weft_kube::kube::api::{Patch, PatchParams, PostParams};
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{Api, Client, Error};
use weft_kube::{PART_OF, Watched, watch};

use super::bound::{self, Bound};
use super::intake::Fact;
use super::refusals::{self, Refusals};

/// The name of the ConfigMap with what nodes refuse.
pub const NAME: &str = "weft-refusals";
/// How often what is remembered for a while is looked at, and what failed tried again.
const LOOK: Duration = Duration::from_secs(5);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a replica tells the others of one topic.
pub trait Topic: Send + 'static {
    /// What is told, as it is read by the others.
    type Report: DeserializeOwned + Send;
    /// The name of its ConfigMap.
    const MAP: &'static str;
    /// For logs and metrics.
    const WHAT: &'static str;
    /// How long more is waited for before it is written.
    const GATHER: Duration;
    /// How long the word of a replica that is gone stays.
    const AFTERWARDS: Duration;

    /// What is to be told now; `None` for nothing.
    fn entry(&mut self, now: Instant) -> Option<String>;

    /// What all replicas told.
    fn fact(reports: BTreeMap<String, Self::Report>) -> Fact;
}

impl Topic for Refusals {
    type Report = refusals::Report;
    const MAP: &'static str = NAME;
    const WHAT: &'static str = "refusals";
    /// Refusals come in bursts: all nodes look at the same edit.
    const GATHER: Duration = Duration::from_secs(1);
    /// Its nodes follow another by now, with the same opinions.
    const AFTERWARDS: Duration = Duration::ZERO;

    fn entry(&mut self, now: Instant) -> Option<String> {
        self.tidy(now);
        let report = self.report();
        (!report.is_empty()).then(|| json!(report).to_string())
    }

    fn fact(reports: BTreeMap<String, Self::Report>) -> Fact {
        Fact::Refused(reports)
    }
}

impl Topic for Bound {
    type Report = bound::Report;
    const MAP: &'static str = "weft-gateways";
    const WHAT: &'static str = "gateways";
    /// All pods of a Gateway bind the same edit. A leader that hears its own pods doesn't wait for it.
    const GATHER: Duration = Duration::from_millis(100);
    /// What its pods had bound is bound as long as they are on their way to another.
    const AFTERWARDS: Duration = bound::REMEMBERED;

    fn entry(&mut self, now: Instant) -> Option<String> {
        self.tidy(now);
        let report = self.report();
        (!report.is_empty()).then(|| json!(report).to_string())
    }

    fn fact(reports: BTreeMap<String, Self::Report>) -> Fact {
        Fact::Bound(reports)
    }
}

/// What this replica has to tell, and a signal that it changed. A cheap handle.
pub struct Own<S = Refusals> {
    topic: Arc<Mutex<S>>,
    changed: watch::Sender<u64>,
}

impl<S: Default> Default for Own<S> {
    fn default() -> Self {
        Self { topic: Arc::default(), changed: watch::Sender::default() }
    }
}

impl<S> Clone for Own<S> {
    fn clone(&self) -> Self {
        Self { topic: Arc::clone(&self.topic), changed: self.changed.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Own<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Own").field(&self.topic).finish()
    }
}

impl<S: Topic> Own<S> {
    /// Changes it; `edit` says whether it did.
    pub fn edit(&self, edit: impl FnOnce(&mut S) -> bool) {
        let edited = edit(&mut self.topic.lock());
        if edited {
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn entry(&self) -> Option<String> {
        self.topic.lock().entry(Instant::now())
    }
}

impl Own<Refusals> {
    /// What they are now.
    pub fn look(&self) -> refusals::Report {
        let mut refusals = self.topic.lock();
        refusals.tidy(Instant::now());
        refusals.report()
    }

    /// How many resources are refused by somebody.
    fn resources(&self) -> usize {
        self.topic.lock().resources()
    }

    /// Keeps the gauge of what is refused, for ever.
    pub async fn measure(self) {
        let mut changed = self.changed.subscribe();
        loop {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            metrics::gauge!("weft_controller_refused_resources").set(self.resources() as f64);
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

impl Own<Bound> {
    /// Tells what the pods that follow this replica have bound, each time that it is something else, for ever. Nothing goes
    /// by the API server: whoever leads hears its own pods at once.
    pub async fn hear(self, facts: mpsc::Sender<Fact>) {
        let mut changed = self.changed.subscribe();
        let mut told = bound::Report::new();
        loop {
            let now = {
                let mut bound = self.topic.lock();
                bound.tidy(Instant::now());
                bound.report()
            };
            if now != told {
                told.clone_from(&now);
                if facts.send(Fact::BoundHere(now)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Tells what all replicas say of a topic, as a fact, for ever.
pub async fn follow<S: Topic>(client: Client, namespace: String, facts: mpsc::Sender<Fact>) {
    let mut watched = maps(Api::namespaced(client, &namespace), S::MAP);
    while let Some(map) = watched.next().await {
        let reports = map.as_ref().map(entries).unwrap_or_default();
        if facts.send(S::fact(reports)).await.is_err() {
            return;
        }
    }
}

/// The ConfigMap, and each time that it has changed; `None` while there is none.
fn maps(api: Api<ConfigMap>, name: &str) -> BoxStream<'static, Option<ConfigMap>> {
    let watched = watch(api, Config::default().fields(&format!("metadata.name={name}")));
    let map = watched.map(|change| match change {
        Watched::Restarted(all) => all.into_iter().next(),
        Watched::Applied(one) => Some(one),
        Watched::Deleted(_) => None,
    });
    map.boxed()
}

/// What the nodes of all replicas refuse; a report that can't be read, of another version say, is left out.
pub fn read(map: &ConfigMap) -> BTreeMap<String, refusals::Report> {
    entries(map)
}

/// The reports of all replicas; one that can't be read, of another version say, is left out.
fn entries<R: DeserializeOwned>(map: &ConfigMap) -> BTreeMap<String, R> {
    let data = map.data.iter().flatten();
    data.filter_map(|(replica, text)| Some((replica.clone(), serde_json::from_str(text).ok()?))).collect()
}

/// Keeps the entry of this replica as it is here, whoever changes or removes it, for ever, and removes those of replicas that
/// are `gone`.
pub async fn tell<S: Topic>(
    client: Client,
    namespace: String,
    instance: String,
    own: Own<S>,
    gone: mpsc::UnboundedReceiver<String>,
) {
    let api = Api::<ConfigMap>::namespaced(client, &namespace);
    Teller { api, instance, own, gone, to_remove: BTreeMap::new(), there: None }.run().await;
}

struct Teller<S> {
    api: Api<ConfigMap>,
    instance: String,
    own: Own<S>,
    gone: mpsc::UnboundedReceiver<String>,
    /// Replicas that are gone and whose entries are still to be removed, and when.
    to_remove: BTreeMap<String, Instant>,
    /// The entry of this replica, if it has one, as it was written or seen last; `None` before either. What an earlier
    /// process of this name left isn't known then, so that the first write removes it.
    there: Option<Option<String>>,
}

impl<S: Topic> Teller<S> {
    async fn run(mut self) {
        let mut changed = self.own.changed.subscribe();
        let mut look = tokio::time::interval(LOOK);
        let mut watched = maps(self.api.clone(), S::MAP);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                Some(map) = watched.next() => {
                    let data = map.and_then(|map| map.data).unwrap_or_default();
                    self.there = Some(data.get(&self.instance).cloned());
                    // Left to the next look: our own writes come by here too, after newer ones perhaps, and somebody who
                    // removes it again and again must not be answered each time.
                    continue;
                }
                seen = changed.changed() => match seen {
                    Ok(()) => tokio::time::sleep(S::GATHER).await,
                    Err(_) => return,
                },
                Some(name) = self.gone.recv() => {
                    self.to_remove.entry(name).or_insert_with(|| Instant::now() + S::AFTERWARDS);
                }
            }
            let entry = self.own.entry();
            let due = self.due();
            if due.is_empty() && self.there.as_ref() == Some(&entry) {
                continue;
            }
            match timeout(PATIENCE, self.write(entry.as_deref(), &due)).await {
                Ok(Ok(())) => {
                    self.there = Some(entry);
                    self.to_remove.retain(|name, _| !due.contains(name));
                }
                // What is still to be done is done at the next look.
                Ok(Err(error)) => failed(S::WHAT, &error),
                Err(elapsed) => failed(S::WHAT, &elapsed),
            }
        }
    }

    /// Replicas whose entries are to be removed now.
    fn due(&self) -> Vec<String> {
        let now = Instant::now();
        self.to_remove.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone()).collect()
    }

    async fn write(&self, entry: Option<&str>, gone: &[String]) -> Result<(), Error> {
        let own = json!(entry);
        let mut data: serde_json::Map<_, _> = gone.iter().map(|name| (name.clone(), Value::Null)).collect();
        data.insert(self.instance.clone(), own.clone());
        // A merge patch changes the keys it names: replicas don't get into each other's way.
        let labels = json!({ PART_OF.0: PART_OF.1 });
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels }, "data": data }));
        match self.api.patch(S::MAP, &PatchParams::default(), &patch).await {
            Err(Error::Api(status)) if status.code == 404 && own.is_null() => Ok(()),
            Err(Error::Api(status)) if status.code == 404 => {
                let metadata = json!({ "name": S::MAP, "labels": labels });
                let map = json!({ "metadata": metadata, "data": { self.instance.as_str(): own } });
                let map: ConfigMap = serde_json::from_value(map).map_err(Error::SerdeError)?;
                // If another replica is first, the next look finds it.
                self.api.create(&PostParams::default(), &map).await.map(drop)
            }
            answered => answered.map(drop),
        }
    }
}

fn failed(what: &'static str, error: &dyn fmt::Display) {
    metrics::counter!("weft_controller_api_errors_total", "what" => what).increment(1);
    tracing::warn!(%error, what, "what this replica hears can't be told to the others now");
}

#[cfg(test)]
#[path = "tests/board.rs"]
mod tests;
