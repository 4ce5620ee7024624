//! Writes statuses, while we lead, in the order of [`Turns`]: read, put ours among those of others, write with the version that was read.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use weft_kube::kube::api::{GetParams, Patch, PatchParams};
use weft_kube::kube::core::{ApiResource, DynamicObject};
use weft_kube::kube::{Api, Client, Error};
use weft_kube::{Events, Severity};

use super::desired::Desired;
use super::turns::Turns;

/// Most writes at a time. More of them make the API server answer others later, and are no faster.
pub(super) const AT_ONCE: usize = 4;
/// Tries of one write when somebody else writes at the same time.
const TRIES: u32 = 8;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// It says of a newer generation what stands there of an older one.
    pub confirms: bool,
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
    /// A fault of ours. It would come again with the same status.
    Panicked,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Moot => "moot",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
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

    /// Whether its status tells of many others, as that of a Gateway does with `attachedRoutes`: people and programs wait for
    /// it, and it is one write however many others there are.
    pub(super) fn is_of_many(&self) -> bool {
        ["Gateway", "GatewayClass", "ListenerSet"].contains(&self.resource.kind.as_str())
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

/// Writes what it is sent, the latest for each object, while `leader` is true; a new leader is sent everything. Ends with the
/// sender.
pub async fn run(
    client: Client,
    events: Events,
    mut leader: watch::Receiver<bool>,
    mut queue: mpsc::UnboundedReceiver<Wanted>,
) {
    let mut work = Turns::default();
    let mut writes: JoinSet<(Wanted, u32, Outcome)> = JoinSet::new();
    loop {
        while writes.len() < AT_ONCE
            && let Some((wanted, attempt)) = work.next(Instant::now())
        {
            let (client, events, leader) = (client.clone(), events.clone(), leader.clone());
            let target = wanted.target.clone();
            let task = writes.spawn(async move {
                let outcome = write(&client, &events, &leader, &wanted).await;
                (wanted, attempt, outcome)
            });
            work.began(task.id(), target);
        }
        let waiting = queue.len() + work.waiting();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        metrics::gauge!("weft_controller_queue_length", "queue" => "statuses").set(waiting as f64);
        // Where there is no room for a write, one that ends makes some.
        let due = work.due().filter(|_| writes.len() < AT_ONCE);
        tokio::select! {
            wanted = queue.recv() => match wanted {
                Some(wanted) => work.add(wanted, Instant::now()),
                None => return,
            },
            Ok(()) = leader.changed() => if !*leader.borrow_and_update() {
                work.forget();
            },
            Some(ended) = writes.join_next_with_id() => {
                let outcome = match ended {
                    Ok((id, (wanted, attempt, Outcome::Failed))) => {
                        work.failed(id, wanted, attempt, Instant::now());
                        Outcome::Failed
                    }
                    Ok((id, (_, _, outcome))) => {
                        work.ended(id, Instant::now());
                        outcome
                    }
                    Err(error) => {
                        tracing::error!(%error, "the task that writes a status failed");
                        work.ended(error.id(), Instant::now());
                        Outcome::Panicked
                    }
                };
                metrics::counter!("weft_controller_status_writes_total", "result" => outcome.as_str()).increment(1);
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
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
        let error = match timeout(PATIENCE, try_once(client, wanted, attempt > 0)).await {
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

/// What the API server remembers of the object is enough to begin with, and spares its database a read: a write on an old
/// version is a conflict, after which `afresh` is true. It isn't where it knows less than we have seen.
async fn try_once(client: &Client, wanted: &Wanted, afresh: bool) -> Result<Outcome, Error> {
    let api = wanted.target.api(client);
    let name = &wanted.target.name;
    let is_ours = |object: &DynamicObject| object.metadata.uid.as_deref() == Some(&wanted.uid);
    let is_late = |object: &DynamicObject| object.metadata.generation.is_some_and(|g| g < wanted.generation);
    let remembered = if afresh { None } else { read(&api, name, &GetParams::any()).await? };
    let object = match remembered.filter(|object| is_ours(object) && !is_late(object)) {
        Some(object) => object,
        None => match read(&api, name, &GetParams::default()).await?.filter(is_ours) {
            Some(object) => object,
            None => return Ok(Outcome::Moot),
        },
    };
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(status) = wanted.desired.merge(wanted.generation, object.data.get("status"), &now) else {
        return Ok(Outcome::Unchanged);
    };
    let patch: Value = json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(Outcome::Written)
}

async fn read(api: &Api<DynamicObject>, name: &str, version: &GetParams) -> Result<Option<DynamicObject>, Error> {
    match api.get_with(name, version).await {
        Ok(object) => Ok(Some(object)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "tests/statuses.rs"]
mod tests;
