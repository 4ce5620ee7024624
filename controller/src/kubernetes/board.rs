//! The ConfigMap in which replicas tell each other what their nodes refuse: each under its own name. One object, written
//! only when a refusal comes or goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use weft_kube::kube::api::{Patch, PatchParams, PostParams};
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{Api, Client, Error};
use weft_kube::{Watched, watch};

use super::intake::Fact;
use super::refusals::{Refusals, Report};

/// The name of the ConfigMap.
pub const NAME: &str = "weft-refusals";
/// Refusals come in bursts: all nodes look at the same edit.
const GATHER: Duration = Duration::from_secs(1);
/// How often what is remembered for a while is looked at, and what failed tried again.
const LOOK: Duration = Duration::from_secs(5);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The refusals of this replica, and a signal that they changed. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Own {
    refusals: Arc<Mutex<Refusals>>,
    changed: watch::Sender<u64>,
}

impl Own {
    /// Changes them; `edit` says whether it did.
    pub fn edit(&self, edit: impl FnOnce(&mut Refusals) -> bool) {
        let edited = edit(&mut self.refusals.lock());
        if edited {
            self.changed.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// What they are now.
    pub fn look(&self) -> Report {
        let mut refusals = self.refusals.lock();
        refusals.tidy(Instant::now());
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        metrics::gauge!("weft_controller_refused_resources").set(refusals.resources() as f64);
        refusals.report()
    }
}

/// Tells what all replicas refuse, as [`Fact::Refused`], for ever.
pub async fn follow(client: Client, namespace: String, facts: mpsc::Sender<Fact>) {
    let mut watched = maps(Api::namespaced(client, &namespace));
    while let Some(map) = watched.next().await {
        let reports = map.as_ref().map(read).unwrap_or_default();
        if facts.send(Fact::Refused(reports)).await.is_err() {
            return;
        }
    }
}

/// The ConfigMap, and each time that it has changed; `None` while there is none.
fn maps(api: Api<ConfigMap>) -> BoxStream<'static, Option<ConfigMap>> {
    let watched = watch(api, Config::default().fields(&format!("metadata.name={NAME}")));
    let map = watched.map(|change| match change {
        Watched::Restarted(all) => all.into_iter().next(),
        Watched::Applied(one) => Some(one),
        Watched::Deleted(_) => None,
    });
    map.boxed()
}

/// The reports of all replicas; one that can't be read, of another version say, is left out.
pub fn read(map: &ConfigMap) -> BTreeMap<String, Report> {
    let data = map.data.iter().flatten();
    data.filter_map(|(replica, text)| Some((replica.clone(), serde_json::from_str(text).ok()?))).collect()
}

/// Keeps the entry of this replica as it is here, whoever changes or removes it, for ever, and removes those of replicas that
/// are `gone`.
pub async fn tell(
    client: Client,
    namespace: String,
    instance: String,
    own: Own,
    gone: mpsc::UnboundedReceiver<String>,
) {
    let api = Api::<ConfigMap>::namespaced(client, &namespace);
    Teller { api, instance, own, gone, to_remove: BTreeSet::new(), there: None }.run().await;
}

struct Teller {
    api: Api<ConfigMap>,
    instance: String,
    own: Own,
    gone: mpsc::UnboundedReceiver<String>,
    /// Replicas that are gone and whose entries are still to be removed.
    to_remove: BTreeSet<String>,
    /// The entry of this replica, if it has one, as it was written or seen last; `None` before either. What an earlier
    /// process of this name left isn't known then, so that the first write removes it.
    there: Option<Option<String>>,
}

impl Teller {
    async fn run(mut self) {
        let mut changed = self.own.changed.subscribe();
        let mut look = tokio::time::interval(LOOK);
        let mut watched = maps(self.api.clone());
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
                    Ok(()) => tokio::time::sleep(GATHER).await,
                    Err(_) => return,
                },
                Some(name) = self.gone.recv() => {
                    self.to_remove.insert(name);
                }
            }
            let report = self.own.look();
            let entry = (!report.is_empty()).then(|| json!(report).to_string());
            if self.to_remove.is_empty() && self.there.as_ref() == Some(&entry) {
                continue;
            }
            match timeout(PATIENCE, self.write(entry.as_deref())).await {
                Ok(Ok(())) => {
                    self.there = Some(entry);
                    self.to_remove.clear();
                }
                // What is still to be done is done at the next look.
                Ok(Err(error)) => failed(&error),
                Err(elapsed) => failed(&elapsed),
            }
        }
    }

    async fn write(&self, entry: Option<&str>) -> Result<(), Error> {
        let own = json!(entry);
        let mut data: serde_json::Map<_, _> = self.to_remove.iter().map(|name| (name.clone(), Value::Null)).collect();
        data.insert(self.instance.clone(), own.clone());
        // A merge patch changes the keys it names: replicas don't get into each other's way.
        let patch = Patch::Merge(json!({ "data": data }));
        match self.api.patch(NAME, &PatchParams::default(), &patch).await {
            Err(Error::Api(status)) if status.code == 404 && own.is_null() => Ok(()),
            Err(Error::Api(status)) if status.code == 404 => {
                let map = json!({ "metadata": { "name": NAME }, "data": { self.instance.as_str(): own } });
                let map: ConfigMap = serde_json::from_value(map).map_err(Error::SerdeError)?;
                // If another replica is first, the next look finds it.
                self.api.create(&PostParams::default(), &map).await.map(drop)
            }
            answered => answered.map(drop),
        }
    }
}

fn failed(error: &dyn std::fmt::Display) {
    metrics::counter!("weft_controller_api_errors_total", "what" => "refusals").increment(1);
    tracing::warn!(%error, "what nodes refuse can't be told to the other replicas now");
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_kube_fake::{FakeApi, Reply};
    use weft_xds::TypeUrl;
    use weft_xds::server::Refusal;

    const MAPS: &str = "/api/v1/namespaces/mesh/configmaps";

    fn refuse(own: &Own, node: &str) {
        let url = TypeUrl::new("type.googleapis.com/weft.config.v1.Service");
        own.edit(|refusals| {
            let refusal = Refusal { name: "shop/cart".into(), reason: "ports".into() };
            refusals.refuse(1, &node.into(), &url, &[refusal]);
            true
        });
    }

    fn mend(own: &Own) {
        let url = TypeUrl::new("type.googleapis.com/weft.config.v1.Service");
        own.edit(|refusals| {
            refusals.mend(1, &url, "shop/cart");
            true
        });
    }

    async fn settle() {
        tokio::time::sleep(LOOK * 3).await;
    }

    fn keys(api: &FakeApi) -> Vec<String> {
        let map = api.get(&format!("{MAPS}/{NAME}"));
        let data = map.and_then(|map| map["data"].as_object().cloned()).unwrap_or_default();
        data.keys().cloned().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_replica_has_its_own_key_and_hears_of_all() {
        let api = FakeApi::new();
        let (a, b) = (Own::default(), Own::default());
        let (say_gone, gone) = mpsc::unbounded_channel();
        tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), a.clone(), gone));
        let (_keep, never) = mpsc::unbounded_channel();
        tokio::spawn(tell(api.client(), "mesh".into(), "b".into(), b.clone(), never));
        let (facts, mut told) = mpsc::channel(16);
        tokio::spawn(follow(api.client(), "mesh".into(), facts));
        settle().await;
        assert!(keys(&api).is_empty(), "nothing is made before there is something to tell");

        refuse(&a, "n1");
        settle().await;
        refuse(&b, "n2");
        settle().await;
        assert_eq!(keys(&api), ["a", "b"]);
        let mut last = BTreeMap::new();
        while let Ok(Fact::Refused(reports)) = told.try_recv() {
            last = reports;
        }
        let message = |replica: &str| last[replica][0].message();
        assert!(message("a").ends_with("n1 (ports)") && message("b").ends_with("n2 (ports)"), "{last:?}");

        mend(&b);
        settle().await;
        assert_eq!(keys(&api), ["a"]);
        api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": { "a": "[]", "old": "[]" } }));
        say_gone.send("old".to_owned()).unwrap();
        settle().await;
        assert_eq!(keys(&api), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_process_removes_what_one_of_its_name_left() {
        let api = FakeApi::new();
        api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": { "a": "[]" } }));
        let (_keep, gone) = mpsc::unbounded_channel();
        tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), Own::default(), gone));
        settle().await;
        assert!(keys(&api).is_empty());
        let writes = api.requests().iter().filter(|r| r.method == "PATCH").count();
        assert_eq!(writes, 1, "nothing new, nothing to write");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_removes_or_changes_an_entry_it_comes_back() {
        let api = FakeApi::new();
        let (own, (_keep, gone)) = (Own::default(), mpsc::unbounded_channel());
        tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), own.clone(), gone));
        refuse(&own, "n1");
        settle().await;
        let entry = || api.get(&format!("{MAPS}/{NAME}")).map(|map| map["data"]["a"].clone());
        let told = entry();
        assert!(told.as_ref().is_some_and(Value::is_string), "{told:?}");
        let writes = || api.requests().iter().filter(|r| ["PATCH", "POST"].contains(&r.method.as_str())).count();
        let before = writes();
        settle().await;
        assert_eq!(writes(), before, "it is there: nothing to write");

        api.remove(&format!("{MAPS}/{NAME}"));
        settle().await;
        assert_eq!(entry(), told, "the map was removed");
        for data in [json!({}), json!({ "a": "[]" }), json!({ "a": "odd", "b": "[]" })] {
            api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": data }));
            settle().await;
            assert_eq!(entry(), told, "{data}");
        }
        api.put(MAPS, json!({ "metadata": { "name": NAME } }));
        settle().await;
        assert_eq!(entry(), told);
        mend(&own);
        settle().await;
        assert!(keys(&api).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_remembered_until_it_is_removed() {
        let api = FakeApi::new();
        api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": { "old": "[]", "older": "[]" } }));
        let (say_gone, gone) = mpsc::unbounded_channel();
        tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), Own::default(), gone));
        settle().await;
        api.answer(|request| (request.method == "PATCH").then(|| Reply::error(500, "InternalError")));
        for name in ["old", "older"] {
            say_gone.send(name.to_owned()).unwrap();
            settle().await;
        }
        assert_eq!(keys(&api), ["old", "older"]);
        api.answer(|_| None);
        settle().await;
        assert!(keys(&api).is_empty());
    }
}
