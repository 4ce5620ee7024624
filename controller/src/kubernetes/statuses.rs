//! Writes statuses, while we lead: read, put ours among those of others, write with the version that was read.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use weft_kube::kube::api::{GetParams, Patch, PatchParams};
use weft_kube::kube::core::{ApiResource, DynamicObject};
use weft_kube::kube::{Api, Client, Error};
use weft_kube::{Events, Severity};

use super::desired::Desired;

/// Most writes at a time. More of them make the API server answer others later, and are no faster.
const AT_ONCE: usize = 4;
/// Most writes at a time of [`Target::is_of_many`] while others wait.
const OF_MANY: usize = AT_ONCE / 2;
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
    fn is_of_many(&self) -> bool {
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
        let waiting = queue.len() + work.waiting.len();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        metrics::gauge!("weft_controller_queue_length", "queue" => "statuses").set(waiting as f64);
        // Where there is no room for a write, one that ends makes some.
        let due = work.due().filter(|_| writes.len() < AT_ONCE);
        tokio::select! {
            wanted = queue.recv() => match wanted {
                Some(wanted) => work.add(wanted),
                None => return,
            },
            Some(ended) = writes.join_next_with_id() => {
                let outcome = match ended {
                    Ok((id, (wanted, attempt, Outcome::Failed))) => {
                        work.failed(id, wanted, attempt, Instant::now());
                        Outcome::Failed
                    }
                    Ok((id, (_, _, outcome))) => {
                        work.ended(id);
                        outcome
                    }
                    Err(error) => {
                        tracing::error!(%error, "the task that writes a status failed");
                        work.ended(error.id());
                        Outcome::Panicked
                    }
                };
                metrics::counter!("weft_controller_status_writes_total", "result" => outcome.as_str()).increment(1);
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

/// What waits and what is under way: one write for an object at a time. What has to be tried again waits here, not in the
/// place of a write: else a few objects that can't be written would keep all others waiting.
#[derive(Debug, Default)]
struct Work {
    /// The latest status of each object, and how often in a row its writes have failed. An object is in one of the three
    /// below, too.
    waiting: HashMap<Target, (Wanted, u32)>,
    /// Those whose turn it is, in order.
    due: VecDeque<Target>,
    /// The same of those that are of many: theirs comes first, in half of the places.
    due_of_many: VecDeque<Target>,
    /// Those whose last write failed, by when it is their turn again. The number tells equal times apart.
    later: BTreeMap<(Instant, u64), Target>,
    /// Those that are being written. What waits of them has come since.
    under_way: HashMap<Id, Target>,
    failures: u64,
}

impl Work {
    /// A newer status takes the older one's place in the queue, and its pause as well: what failed was the API server, or a
    /// right of ours, and a world that changes all the time must not ask it all the time.
    fn add(&mut self, wanted: Wanted) {
        let is_under_way = self.under_way.values().any(|target| *target == wanted.target);
        match self.waiting.entry(wanted.target.clone()) {
            Entry::Occupied(mut waits) => waits.get_mut().0 = wanted,
            Entry::Vacant(place) => {
                if !is_under_way {
                    queue(&mut self.due, &mut self.due_of_many, wanted.target.clone());
                }
                place.insert((wanted, 0));
            }
        }
    }

    /// The next write. [`Work::began`] is told when it is under way.
    fn next(&mut self, now: Instant) -> Option<(Wanted, u32)> {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            queue(&mut self.due, &mut self.due_of_many, first.remove());
        }
        let of_many = self.under_way.values().filter(|target| target.is_of_many()).count();
        let queues = if of_many < OF_MANY {
            [&mut self.due_of_many, &mut self.due]
        } else {
            [&mut self.due, &mut self.due_of_many]
        };
        let target = queues.into_iter().find_map(VecDeque::pop_front)?;
        self.waiting.remove(&target)
    }

    /// When the turn of the first comes that has to wait after a failure.
    fn due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    fn began(&mut self, id: Id, target: Target) {
        self.under_way.insert(id, target);
    }

    /// A write need not be tried again. If there is a newer status by now, it is that one's turn.
    fn ended(&mut self, id: Id) {
        if let Some(target) = self.under_way.remove(&id)
            && self.waiting.contains_key(&target)
        {
            queue(&mut self.due, &mut self.due_of_many, target);
        }
    }

    /// A write has to be tried again later; a newer status takes its place then.
    fn failed(&mut self, id: Id, wanted: Wanted, attempt: u32, now: Instant) {
        self.under_way.remove(&id);
        let (target, attempt) = (wanted.target.clone(), attempt.saturating_add(1));
        self.waiting.entry(target.clone()).or_insert((wanted, attempt)).1 = attempt;
        self.failures = self.failures.wrapping_add(1);
        self.later.insert((now + pause(attempt), self.failures), target);
    }
}

fn queue(due: &mut VecDeque<Target>, due_of_many: &mut VecDeque<Target>, target: Target) {
    if target.is_of_many() { due_of_many } else { due }.push_back(target);
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
