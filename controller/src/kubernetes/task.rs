//! The task in which the world changes, one batch of facts at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use weft_core::change::Resource;
use weft_kube::Events;
use weft_xds::server::Publisher;

use super::access::{Nack, ProxyAccess};
use super::gateways::Plans;
use super::intake::Fact;
use super::statuses::Wanted;
use super::world::{Effects, Note, World};
use crate::publish::encode;

/// After a fact comes another one within this time, or the batch is done; a batch never takes longer than the second. Where objects
/// change all the time there is always another one: then the second is what every change waits for.
const QUIET: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(10);
/// Most facts in a batch.
const MOST: usize = 10_000;

/// Where the task's effects go.
pub struct Outlets {
    /// The configuration.
    pub publisher: Publisher,
    /// Publishes it to those that it lets in.
    pub access: Arc<ProxyAccess>,
    /// Statuses to be written.
    pub statuses: mpsc::UnboundedSender<Wanted>,
    /// What people should know.
    pub events: Events,
    /// Kinds that weren't heard of yet; empty once the configuration is whole and published.
    pub missing: watch::Sender<Vec<&'static str>>,
    /// Replicas that are no more, and left a word of what their nodes refuse.
    pub gone: mpsc::UnboundedSender<String>,
    /// The same, of what pods of Gateways have bound.
    pub gone_of_bound: mpsc::UnboundedSender<String>,
    /// What Gateways need to be served.
    pub plans: watch::Sender<Option<Arc<Plans>>>,
}

/// Asks the task for what is published.
#[derive(Clone, Debug)]
pub struct Configuration(mpsc::Sender<Question>);

/// Where the answer goes.
pub type Question = oneshot::Sender<Vec<Resource>>;

impl Configuration {
    /// With the questions for the task to answer.
    pub fn channel() -> (Self, mpsc::Receiver<Question>) {
        let (sender, questions) = mpsc::channel(1);
        (Self(sender), questions)
    }

    /// What is published now; `None`: the task has ended.
    pub async fn resources(&self) -> Option<Vec<Resource>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

/// Runs until the facts end. Until every kind was heard of nothing is published: what is not known yet would look like
/// something that is not there.
pub async fn run(
    mut world: World,
    outlets: Outlets,
    mut leader: watch::Receiver<bool>,
    mut facts: mpsc::Receiver<Fact>,
    (mut nacks, mut questions): (mpsc::Receiver<Nack>, mpsc::Receiver<Question>),
) {
    metrics::gauge!("weft_controller_leader").set(0.0);
    loop {
        tokio::select! {
            fact = facts.recv() => {
                let Some(fact) = fact else { return };
                collect(&mut world, fact, &mut facts).await;
                metrics::gauge!("weft_controller_queue_length", "queue" => "facts").set(as_f64(facts.len()));
                let missing = world.missing();
                if missing.is_empty() {
                    let effects = commit(&mut world, &outlets);
                    carry_out(effects, &outlets, *leader.borrow());
                }
                outlets.missing.send_if_modified(|before| std::mem::replace(before, missing) != *before);
            }
            changed = leader.changed() => {
                if changed.is_err() {
                    return;
                }
                let leads = *leader.borrow_and_update();
                metrics::gauge!("weft_controller_leader").set(if leads { 1.0 } else { 0.0 });
                if leads && world.missing().is_empty() {
                    carry_out(world.review(), &outlets, true);
                }
            }
            Some(answer) = questions.recv() => {
                // Whoever asked may have gone.
                let _ = answer.send(world.resources());
            }
            // Whoever serves the node says it: replicas don't hear each other's.
            Some(nack) = nacks.recv() => say(&outlets.events, world.note_of_nack(&nack)),
        }
    }
}

/// Takes in what comes soon after a fact.
async fn collect(world: &mut World, first: Fact, facts: &mut mpsc::Receiver<Fact>) {
    let last = Instant::now() + LONGEST;
    world.take(first);
    for _ in 1..MOST {
        match timeout_at(last.min(Instant::now() + QUIET), facts.recv()).await {
            Ok(Some(fact)) => world.take(fact),
            Ok(None) | Err(_) => return,
        }
    }
}

fn commit(world: &mut World, outlets: &Outlets) -> Effects {
    let began = Instant::now();
    let mut effects = world.commit();
    if let Some(plans) = effects.plans.take() {
        // Most changes of a Gateway, its status for one, change nothing about its objects.
        outlets.plans.send_if_modified(|before| {
            let differs = before.as_deref() != Some(&plans);
            if differs {
                *before = Some(Arc::new(plans));
            }
            differs
        });
    }
    if let Some(accounts) = effects.audience.accounts.take() {
        outlets.access.set_gateways(accounts);
    }
    if !effects.changes.is_empty() || !effects.audience.listeners.is_empty() {
        outlets.access.publish(effects.changes.iter().map(encode).collect(), &effects.audience.listeners);
    }
    metrics::histogram!("weft_controller_commit_seconds").record(began.elapsed().as_secs_f64());
    metrics::gauge!("weft_controller_resources").set(as_f64(outlets.publisher.len()));
    for (kind, count) in world.counts() {
        metrics::gauge!("weft_controller_objects", "kind" => kind).set(as_f64(count));
    }
    metrics::gauge!("weft_controller_unreadable_objects").set(as_f64(world.odd()));
    effects
}

fn carry_out(effects: Effects, outlets: &Outlets, leads: bool) {
    if !leads {
        return;
    }
    for wanted in effects.statuses {
        // The writer goes only with the process.
        let _ = outlets.statuses.send(wanted);
    }
    for replica in effects.gone {
        // Whoever removes it goes only with the process.
        let _ = outlets.gone.send(replica);
    }
    for replica in effects.gone_of_bound {
        // As above.
        let _ = outlets.gone_of_bound.send(replica);
    }
    effects.notes.into_iter().for_each(|note| say(&outlets.events, note));
}

fn say(events: &Events, note: Note) {
    events.publish(note.regarding, note.severity, &note.reason, &note.message);
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_k8s::index::IndexConfig;

    use super::super::ranges::GivenRanges;
    use super::*;

    fn world() -> World {
        World::new(IndexConfig::default(), GivenRanges::default())
    }

    fn fact() -> Fact {
        Fact::Refused(BTreeMap::new())
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_together_is_one_batch() {
        let (sender, mut facts) = mpsc::channel(10);
        for _ in 0..3 {
            sender.send(fact()).await.unwrap();
        }
        let began = Instant::now();
        let first = facts.recv().await.unwrap();
        collect(&mut world(), first, &mut facts).await;
        assert!(facts.is_empty() && began.elapsed() < LONGEST, "{:?}", began.elapsed());
    }

    /// With a hundred edits a second, and what the controller itself writes because of them, the next fact is never far.
    #[tokio::test(start_paused = true)]
    async fn a_change_does_not_wait_until_nothing_else_changes() {
        let (sender, mut facts) = mpsc::channel(10);
        let teller = tokio::spawn(async move {
            while sender.send(fact()).await.is_ok() {
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let first = facts.recv().await.unwrap();
        let began = Instant::now();
        collect(&mut world(), first, &mut facts).await;
        assert!(began.elapsed() < Duration::from_millis(15), "{:?}", began.elapsed());
        drop(facts);
        teller.await.unwrap();
    }
}
