//! Proxies that end are let go of by their DaemonSet.
//!
//! A proxy that was replaced goes on until the last of its connections has ended, as a pod that is being deleted, for an hour at
//! most. A DaemonSet knows one pod of each node, and the oldest is the one that counts: until it is gone, the DaemonSet isn't
//! ready, whoever waits for a rollout waits for that hour, the next rollout leaves the node out, and a pod that somebody deletes
//! has no successor. So the DaemonSet selects a label that is taken off here.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::watch;
use weft_kube::kube::api::{Patch, PatchParams};
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{Api, Client, ResourceExt as _};
use weft_kube::{Watched, watch_as};

/// Pods of node proxies have it until they end. The chart knows it, too.
pub const IN_SERVICE: &str = "weftmesh.io/in-service";
/// Between attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Whether a pod, by name, is being deleted.
type Seen = (String, bool);

/// Takes the label off pods of `namespace` that are being deleted, while `leader` is true. Ends with its sender.
pub async fn run(client: Client, namespace: String, leader: watch::Receiver<bool>) {
    let pods = Api::<Pod>::namespaced(client, &namespace);
    let read = |pod: Pod| (pod.name_any(), pod.metadata.deletion_timestamp.is_some());
    let news = watch_as(pods.clone(), Config::default().labels(IN_SERVICE), read);
    follow(&pods, news, leader).await;
}

async fn follow(pods: &Api<Pod>, news: impl Stream<Item = Watched<Seen>>, mut leader: watch::Receiver<bool>) {
    let mut news = std::pin::pin!(news);
    let mut ending = BTreeSet::new();
    loop {
        if *leader.borrow_and_update() {
            let_go(pods, &mut ending).await;
        }
        tokio::select! {
            Some(change) = news.next() => take(&mut ending, change),
            changed = leader.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !ending.is_empty() => {}
        }
    }
}

fn take(ending: &mut BTreeSet<String>, change: Watched<Seen>) {
    match change {
        Watched::Restarted(all) => *ending = all.into_iter().filter_map(|(name, ends)| ends.then_some(name)).collect(),
        Watched::Applied((name, true)) => drop(ending.insert(name)),
        Watched::Applied((name, false)) | Watched::Deleted((name, _)) => drop(ending.remove(&name)),
    }
}

/// Those that can't be let go of now stay in `ending`.
async fn let_go(pods: &Api<Pod>, ending: &mut BTreeSet<String>) {
    for name in std::mem::take(ending) {
        // Labels are set with the status, too; and whoever may do no more can't give a pod another program.
        let without = Patch::Merge(json!({ "metadata": { "labels": { IN_SERVICE: null } } }));
        match pods.patch_status(&name, &PatchParams::default(), &without).await {
            Ok(_) => tracing::info!(pod = %name, "a proxy ends: its DaemonSet goes on without it"),
            Err(weft_kube::kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(pod = %name, %error, "a proxy that ends can't be let go of; rollouts wait for it");
                ending.insert(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::atomic::{AtomicU32, Ordering};
    use weft_kube_fake::{FakeApi, Reply};

    const PODS: &str = "/api/v1/namespaces/weft-system/pods";

    fn put(api: &FakeApi, name: &str, ends: bool) {
        let mut metadata = json!({ "name": name, "labels": { "app": "proxy", IN_SERVICE: "true" } });
        if ends {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        api.put(PODS, json!({ "metadata": metadata, "spec": { "containers": [] }, "status": { "phase": "Running" } }));
    }

    fn labels(api: &FakeApi, name: &str) -> Value {
        api.get(&format!("{PODS}/{name}")).expect("the pod")["metadata"]["labels"].clone()
    }

    async fn until(what: impl Fn() -> bool) {
        tokio::time::timeout(Duration::from_secs(30), async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("in time");
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_is_let_go_of_by_whoever_leads_and_nobody_else_is() {
        let (api, (lead, leader)) = (FakeApi::new(), watch::channel(false));
        put(&api, "before", true);
        put(&api, "serves", false);
        // It fails at first.
        let left = AtomicU32::new(3);
        api.answer(move |request| {
            let fails = request.method == "PATCH"
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            fails.then(|| Reply::error(500, "InternalError"))
        });
        let task = tokio::spawn(run(api.client(), "weft-system".to_owned(), leader));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(api.requests().iter().all(|request| request.method != "PATCH"), "it doesn't lead");
        lead.send(true).expect("a receiver");
        until(|| labels(&api, "before") == json!({ "app": "proxy" })).await;
        put(&api, "later", false);
        put(&api, "later", true);
        until(|| labels(&api, "later") == json!({ "app": "proxy" })).await;
        assert_eq!(labels(&api, "serves"), json!({ "app": "proxy", IN_SERVICE: "true" }));
        assert_eq!(api.get(&format!("{PODS}/later")).expect("it")["status"]["phase"], "Running");
        drop(lead);
        task.await.expect("it ends with its leader");
    }
}
