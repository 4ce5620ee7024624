//! Un-installation, both sides: the hook asks by a ConfigMap, and every node answers in it.
//!
//! ```text
//!   hook: makes ConfigMap weft-uninstall --> agents: un-enrol every pod --> plugin out of the CNI configuration
//!     ^                                                                                |
//!     +------------- waits for data.<node> = "done" of every node with an agent <------+   then removes the ConfigMap
//! ```
//!
//! An agent that has left stays away, also when the ConfigMap is gone: Helm deletes it a moment later. One that starts
//! while the ConfigMap is there leaves at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;
use tokio::time::Instant;
use weft_core::ids::{Namespace, NodeName};
use weft_kube::kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use weft_kube::kube::core::Selector;
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{self, Api, Client};
use weft_kube::{Watched, watch};

use super::installer::{self, Places};
use super::source::ClusterSource;
use crate::agent::{Agent, LocalPod, Protection};

/// The ConfigMap that asks every node to leave.
pub const ASKED: &str = "weft-uninstall";
/// A node's answer when nothing is left on it.
const DONE: &str = "done";
/// Between two looks of the hook, and between two attempts of an agent.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until the ConfigMap is there. `looked` is set once it is known whether it is.
pub async fn asked(client: Client, namespace: &Namespace, looked: &tokio::sync::watch::Sender<bool>) {
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace.as_str());
    let mut news = std::pin::pin!(watch(maps, Config::default().fields(&format!("metadata.name={ASKED}"))));
    while let Some(news) = news.next().await {
        match news {
            Watched::Restarted(all) if all.is_empty() => drop(looked.send_replace(true)),
            Watched::Restarted(_) | Watched::Applied(_) => return,
            Watched::Deleted(_) => {}
        }
    }
}

/// Takes every pod of this node out of the mesh, then the plugin out of the configuration, and says so; tries until all
/// of it is done. The plugin must no longer be kept installed when this is called.
pub async fn leave(client: Client, namespace: &Namespace, node: &NodeName, leaving: Leaving<'_>) {
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace.as_str());
    tracing::warn!("the mesh is being removed: every pod of this node leaves it");
    leaving.source.leave();
    let mut said = String::new();
    loop {
        leaving.agent.look_again();
        let trouble = leaving.remaining().await;
        let answer = trouble.as_deref().unwrap_or(DONE);
        if said != answer {
            match answer {
                DONE => tracing::warn!("nothing of the mesh is left on this node but its agent and its proxy"),
                trouble => tracing::warn!(trouble, "not everything has left yet"),
            }
            let patch = Patch::Merge(json!({ "data": { node.as_str(): answer } }));
            match maps.patch(ASKED, &PatchParams::default(), &patch).await {
                Ok(_) => answer.clone_into(&mut said),
                // The hook has its answers, or was called off.
                Err(kube::Error::Api(status)) if status.code == 404 => answer.clone_into(&mut said),
                Err(error) => {
                    metrics::counter!("weft_agent_api_errors_total", "call" => "uninstall").increment(1);
                    tracing::warn!(%error, "the answer to the un-installation can't be written");
                }
            }
        }
        if said == DONE {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What an agent needs to leave.
pub struct Leaving<'a> {
    /// The agent.
    pub agent: &'a Arc<Agent>,
    /// Who is told that nobody is in the mesh any more.
    pub source: &'a ClusterSource,
    /// Where the plugin is.
    pub places: &'a Places,
}

impl Leaving<'_> {
    /// What keeps this node from being left; none when nothing does.
    async fn remaining(&self) -> Option<String> {
        let pods = self.agent.pods().borrow().clone();
        if let Some(still) = still_in(&pods) {
            return Some(still);
        }
        let places = self.places.clone();
        match tokio::task::spawn_blocking(move || installer::remove(&places)).await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn still_in(pods: &[LocalPod]) -> Option<String> {
    let still: Vec<_> = pods.iter().filter(|pod| !matches!(pod.protection, Protection::Outside(_))).collect();
    let first = still.first()?;
    let why = match &first.protection {
        Protection::Closed(why) | Protection::Unprotected(why) => why.as_str(),
        Protection::Protected | Protection::Outside(_) => "its rules are being removed",
    };
    Some(format!("{} pods are still in the mesh, such as {}: {why}", still.len(), first.pod))
}

/// The hook: asks every node to leave and waits until all have. The ConfigMap stays when time is over, so that nodes go
/// on leaving and the hook can be run again.
///
/// # Errors
/// Of the API server, or which nodes haven't answered in time.
pub async fn uninstall(
    client: Client,
    namespace: &Namespace,
    daemonset: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace.as_str());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace.as_str());
    let pods: Api<Pod> = Api::namespaced(client, namespace.as_str());
    let set = sets.get_opt(daemonset).await.with_context(|| format!("read DaemonSet {namespace}/{daemonset}"))?;
    let Some(set) = set else {
        println!("There is no DaemonSet {namespace}/{daemonset}: no node has an agent, nothing is to be left.");
        return Ok(());
    };
    // It goes with the DaemonSet, whatever becomes of this hook: an installation that comes later isn't meant.
    let owner = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": daemonset, "uid": set.metadata.uid });
    let map =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": ASKED, "ownerReferences": [owner] } });
    let selector: Selector = set.spec.unwrap_or_default().selector.try_into().context("the DaemonSet's selector")?;
    let map = serde_json::from_value(map).context("the ConfigMap")?;
    match maps.create(&PostParams::default(), &map).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error).with_context(|| format!("make ConfigMap {namespace}/{ASKED}")),
    }
    let agents = ListParams::default().labels_from(&selector);
    let deadline = Instant::now() + patience;
    loop {
        let nodes = pods.list(&agents).await.with_context(|| format!("list the pods of {daemonset}"))?;
        let nodes: BTreeSet<String> = nodes.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
        let answers = maps.get_opt(ASKED).await.with_context(|| format!("read ConfigMap {namespace}/{ASKED}"))?;
        let answers = answers.unwrap_or_default().data.unwrap_or_default();
        let late: Vec<_> = nodes.iter().filter(|node| answers.get(*node).is_none_or(|said| said != DONE)).collect();
        if late.is_empty() {
            maps.delete(ASKED, &DeleteParams::default()).await.with_context(|| format!("remove ConfigMap {ASKED}"))?;
            println!("All pods of {} nodes have left the mesh.", nodes.len());
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = |node: &&String| {
                let said = answers.get(*node).map_or("no answer; is its agent running?", String::as_str);
                format!("  node {node}: {said}")
            };
            let list = late.iter().map(why).collect::<Vec<_>>().join("\n");
            bail!(
                "not every node has left the mesh in {patience:?}:\n{list}\nLook at the agents there and run this again. To \
                 go without a node that is gone, delete its agent's pod or the node first."
            );
        }
        tokio::time::sleep(PAUSE.min(deadline - Instant::now())).await;
    }
}

#[cfg(test)]
mod tests;
