//! Writes statuses, while we lead: read, put ours among those of others, write with the version that was read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_kube::kube::api::{Patch, PatchParams};
use weft_kube::kube::core::{ApiResource, DynamicObject};
use weft_kube::kube::{Api, Client, Error};
use weft_kube::{Events, Severity};

use super::desired::Desired;

/// Most writes at a time.
const AT_ONCE: usize = 8;
/// Tries of one write when somebody else writes at the same time.
const TRIES: u32 = 8;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses after a failure: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its kind, in the version that is served.
    pub resource: ApiResource,
    /// Its namespace; empty for an object of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A status to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Whose.
    pub target: Target,
    /// Which incarnation; another one has another status.
    pub uid: String,
    /// The generation that was looked at.
    pub generation: i64,
    /// The status.
    pub desired: Desired,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    /// It was so already.
    Unchanged,
    /// The object is gone or another one; or we don't lead any more.
    Moot,
    /// The API server won't take it, now or ever.
    Refused,
    Failed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Moot => "moot",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Target {
    fn api(&self, client: &Client) -> Api<DynamicObject> {
        match self.namespace.as_str() {
            "" => Api::all_with(client.clone(), &self.resource),
            namespace => Api::namespaced_with(client.clone(), namespace, &self.resource),
        }
    }

    /// It as the object of an Event.
    pub fn reference(&self, uid: &str) -> ObjectReference {
        let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
        ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            namespace: some(&self.namespace),
            name: Some(self.name.clone()),
            uid: some(uid),
            ..ObjectReference::default()
        }
    }
}

/// Writes what it is sent, the latest for each object, while `leader` is true. Ends with the sender.
pub async fn run(
    client: Client,
    events: Events,
    leader: watch::Receiver<bool>,
    mut queue: mpsc::UnboundedReceiver<Wanted>,
) {
    let mut work = Work::default();
    let mut writes: JoinSet<(Wanted, u32, Outcome)> = JoinSet::new();
    loop {
        while writes.len() < AT_ONCE
            && let Some((wanted, attempt)) = work.next()
        {
            let (client, events, leader) = (client.clone(), events.clone(), leader.clone());
            writes.spawn(async move {
                if attempt > 0 {
                    tokio::time::sleep(pause(attempt)).await;
                }
                let outcome = write(&client, &events, &leader, &wanted).await;
                (wanted, attempt, outcome)
            });
        }
        tokio::select! {
            wanted = queue.recv() => match wanted {
                Some(wanted) => work.add(wanted, 0),
                None => return,
            },
            Some(done) = writes.join_next() => {
                let Ok((wanted, attempt, outcome)) = done else { continue };
                metrics::counter!("weft_controller_status_writes_total", "result" => outcome.as_str()).increment(1);
                work.done(&wanted.target);
                if outcome == Outcome::Failed {
                    work.retry(wanted, attempt.saturating_add(1));
                }
            }
        }
    }
}

/// What waits and what is under way: one write for an object at a time.
#[derive(Debug, Default)]
struct Work {
    waiting: HashMap<Target, (Wanted, u32)>,
    order: VecDeque<Target>,
    under_way: HashSet<Target>,
}

impl Work {
    fn add(&mut self, wanted: Wanted, attempt: u32) {
        let target = wanted.target.clone();
        if self.waiting.insert(target.clone(), (wanted, attempt)).is_none() {
            self.order.push_back(target);
        }
    }

    /// A newer one makes a retry moot.
    fn retry(&mut self, wanted: Wanted, attempt: u32) {
        if !self.waiting.contains_key(&wanted.target) {
            self.add(wanted, attempt);
        }
    }

    fn next(&mut self) -> Option<(Wanted, u32)> {
        let at = self.order.iter().position(|target| !self.under_way.contains(target))?;
        let target = self.order.remove(at)?;
        let next = self.waiting.remove(&target)?;
        self.under_way.insert(target);
        Some(next)
    }

    fn done(&mut self, target: &Target) {
        self.under_way.remove(target);
    }
}

fn pause(attempt: u32) -> Duration {
    let longest = PAUSES.0.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(PAUSES.1);
    longest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

async fn write(client: &Client, events: &Events, leader: &watch::Receiver<bool>, wanted: &Wanted) -> Outcome {
    let target = &wanted.target;
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(20).mul_f64(f64::from(attempt) * rand::random::<f64>())).await;
        }
        if !*leader.borrow() {
            return Outcome::Moot;
        }
        let error = match timeout(PATIENCE, try_once(client, wanted)).await {
            Ok(Ok(Outcome::Written)) => {
                for (reason, message) in wanted.desired.refusals() {
                    events.publish(target.reference(&wanted.uid), Severity::Warning, &reason, &message);
                }
                return Outcome::Written;
            }
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(Error::Api(status))) if status.code == 409 => continue,
            Ok(Err(Error::Api(status))) if status.code == 404 => return Outcome::Moot,
            Ok(Err(Error::Api(status))) if [400, 403, 422].contains(&status.code) => {
                tracing::error!(
                    kind = target.resource.kind,
                    namespace = target.namespace,
                    name = target.name,
                    error = status.message,
                    "the API server refuses a status"
                );
                api_error();
                // A right may still be granted; a status that isn't valid stays so.
                return if status.code == 403 { Outcome::Failed } else { Outcome::Refused };
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        api_error();
        tracing::warn!(
            kind = target.resource.kind,
            namespace = target.namespace,
            name = target.name,
            error,
            "a status can't be written now"
        );
        return Outcome::Failed;
    }
    Outcome::Failed
}

fn api_error() {
    metrics::counter!("weft_controller_api_errors_total", "what" => "status").increment(1);
}

async fn try_once(client: &Client, wanted: &Wanted) -> Result<Outcome, Error> {
    let api = wanted.target.api(client);
    let Some(object) = api.get_opt(&wanted.target.name).await? else { return Ok(Outcome::Moot) };
    if object.metadata.uid.as_deref().unwrap_or_default() != wanted.uid {
        return Ok(Outcome::Moot);
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(status) = wanted.desired.merge(wanted.generation, object.data.get("status"), &now) else {
        return Ok(Outcome::Unchanged);
    };
    let patch: Value = json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": status });
    api.patch_status(&wanted.target.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(Outcome::Written)
}

#[cfg(test)]
#[path = "tests/statuses.rs"]
mod tests;
