//! Takes over pods that run already and never went through the plugin, and notices those that end without its DEL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_core::ids::{PodUid, SandboxId};

use super::source::ClusterSource;
use super::world::RunningPod;
use crate::agent::{Agent, EnrolmentSource as _, PodRef, Running};
use crate::discovery::{Found, Places, find};

/// How often pods that couldn't be found are looked for again.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two looks at all processes of the node, however much changes.
const REST: Duration = Duration::from_secs(1);

/// What a look at the node found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Pods that were taken over.
    pub adopted: usize,
    /// Pods that should be in the mesh and whose namespace wasn't found: nothing protects them.
    pub unseen: Vec<PodRef>,
}

/// Looks once for the pods that the cluster has on this node and the agent hasn't.
pub async fn adopt(agent: &Agent, source: &ClusterSource, places: &Places) -> Outcome {
    agent.forget_unseen(|pod| source.is_gone(pod)).await;
    let wanted = missing(agent, source);
    let uids: BTreeSet<PodUid> = wanted.iter().filter_map(|running| running.pod.uid.clone()).collect();
    if uids.is_empty() {
        return Outcome::default();
    }
    let places = places.clone();
    let looked = tokio::task::spawn_blocking(move || find(&places, &uids)).await;
    let mut found = match looked {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::error!(%error, "running pods can't be found");
            Default::default()
        }
        Err(error) => {
            tracing::error!(%error, "running pods can't be found");
            Default::default()
        }
    };
    let mut outcome = Outcome::default();
    for running in wanted {
        let found = running.pod.uid.as_ref().and_then(|uid| found.remove(uid));
        let taken = match found {
            Some(found) => take(agent, &running, found).await,
            None => Err("no process of it with a network of its own is seen; does the agent share the node's process \
                         namespace (hostPID)?"
                .to_owned()),
        };
        match taken {
            Ok(taken) => outcome.adopted += usize::from(taken),
            // The plugin may have brought it meanwhile, and it may have ended.
            Err(_) if !missing(agent, source).contains(&running) => {}
            Err(why) if running.enrolled => {
                tracing::error!(pod = %running.pod, why, "a running pod should be in the mesh and can't be taken over");
                outcome.unseen.push(running.pod);
            }
            Err(why) => tracing::debug!(pod = %running.pod, why, "a running pod outside the mesh isn't taken over"),
        }
    }
    outcome
}

/// Looks whenever something changed and pods are missing, until dropped. `tell` hears each outcome.
pub async fn keep_adopting(agent: Arc<Agent>, source: Arc<ClusterSource>, places: Places, tell: impl Fn(Outcome)) {
    let mut changes = source.changes();
    loop {
        tell(adopt(&agent, &source, &places).await);
        tokio::time::sleep(REST).await;
        let _either = tokio::time::timeout(AGAIN, changes.changed()).await;
    }
}

fn missing(agent: &Agent, source: &ClusterSource) -> Vec<RunningPod> {
    let known = agent.pods().borrow().clone();
    let is_known = |pod: &PodRef| {
        known.iter().any(|k| match (&k.pod.uid, &pod.uid) {
            (Some(a), Some(b)) => a == b,
            _ => k.pod.namespace == pod.namespace && k.pod.name == pod.name,
        })
    };
    source.running().into_iter().filter(|running| !is_known(&running.pod)).collect()
}

async fn take(agent: &Agent, running: &RunningPod, found: Found) -> Result<bool, String> {
    let uid = running.pod.uid.as_ref().map(ToString::to_string).unwrap_or_default();
    let sandbox = found.container.map_or_else(|| SandboxId::new(format!("pod-{uid}")), SandboxId::new);
    let (pod, ips) = (running.pod.clone(), running.ips.clone());
    let taken = agent.adopt(Running { pod, sandbox, ips, netns_path: found.path, netns: found.netns }).await;
    taken.map_err(|error| error.to_string())
}
