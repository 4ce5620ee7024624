//! The order in which statuses are written.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::task::Id;
use tokio::time::Instant;

use super::statuses::{AT_ONCE, Target, Wanted};

/// Most writes at a time of [`Target::is_of_many`] while others wait.
const OF_MANY: usize = AT_ONCE / 2;
/// Pauses after a failure: the first and the longest.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How soon a confirmation is followed by another one of the same object.
pub(super) const CONFIRMED: Duration = Duration::from_secs(5);

/// What waits and what is under way: one write for an object at a time. What has to be tried again waits here, not in the
/// place of a write: else a few objects that can't be written would keep all others waiting.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The latest status of each object. An object is in one of the four below, too.
    waiting: HashMap<Target, Waiting>,
    /// Those whose turn it is, in order.
    due: VecDeque<Target>,
    /// The same of those that are of many: theirs comes first, in half of the places.
    due_of_many: VecDeque<Target>,
    /// Those whose last write failed, and confirmations of what was confirmed just now, by when it is their turn. The number tells
    /// equal times apart.
    later: BTreeMap<Turn, Target>,
    /// Those that are being written. What waits of them has come since.
    under_way: HashMap<Id, Target>,
    confirmed: Confirmed,
    /// Numbers that were given so far.
    numbers: u64,
}

type Turn = (Instant, u64);

#[derive(Debug)]
struct Waiting {
    wanted: Wanted,
    /// How often in a row its writes have failed.
    failures: u32,
    /// Its turn, if it is a confirmation that has to wait.
    held: Option<Turn>,
}

impl Turns {
    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A newer status takes the older one's place in the queue, and its pause as well: what failed was the API server, or a
    /// right of ours, and a world that changes all the time must not ask it all the time. Only the turn of a confirmation isn't
    /// for news, which have theirs at once.
    pub(super) fn add(&mut self, wanted: Wanted, now: Instant) {
        let is_under_way = self.under_way.values().any(|target| *target == wanted.target);
        let target = wanted.target.clone();
        match self.waiting.entry(target.clone()) {
            Entry::Occupied(mut waits) => {
                let waits = waits.get_mut();
                waits.wanted = wanted;
                if !can_wait(&waits.wanted)
                    && let Some(turn) = waits.held.take()
                {
                    self.later.remove(&turn);
                    self.enqueue(target);
                }
            }
            Entry::Vacant(place) => {
                place.insert(Waiting { wanted, failures: 0, held: None });
                if !is_under_way {
                    self.take_place(target, now);
                }
            }
        }
    }

    /// The next write, and how often it has failed. [`Turns::began`] is told when it is under way.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Wanted, u32)> {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            let target = first.remove();
            if let Some(waits) = self.waiting.get_mut(&target) {
                waits.held = None;
            }
            self.enqueue(target);
        }
        let of_many = self.under_way.values().filter(|target| target.is_of_many()).count();
        let queues = if of_many < OF_MANY {
            [&mut self.due_of_many, &mut self.due]
        } else {
            [&mut self.due, &mut self.due_of_many]
        };
        let target = queues.into_iter().find_map(VecDeque::pop_front)?;
        let Waiting { wanted, failures, .. } = self.waiting.remove(&target)?;
        if can_wait(&wanted) {
            self.confirmed.note(target, now);
        }
        Some((wanted, failures))
    }

    /// When the turn of the first comes that has to wait for a time.
    pub(super) fn due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn began(&mut self, id: Id, target: Target) {
        self.under_way.insert(id, target);
    }

    /// A write need not be tried again. If there is a newer status by now, it is that one's turn.
    pub(super) fn ended(&mut self, id: Id, now: Instant) {
        if let Some(target) = self.under_way.remove(&id)
            && self.waiting.contains_key(&target)
        {
            self.take_place(target, now);
        }
    }

    /// A write has to be tried again later; a newer status takes its place then.
    pub(super) fn failed(&mut self, id: Id, wanted: Wanted, failures: u32, now: Instant) {
        self.under_way.remove(&id);
        let (target, failures) = (wanted.target.clone(), failures.saturating_add(1));
        let waits = self.waiting.entry(target.clone()).or_insert(Waiting { wanted, failures, held: None });
        waits.failures = failures;
        let number = self.number();
        self.later.insert((now + pause(failures), number), target);
    }

    /// Forgets what waits: somebody else leads, and by the time that we do again it would be old.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.due.clear();
        self.due_of_many.clear();
        self.later.clear();
    }

    /// Now, or for a confirmation a while after the one before. Where an object changes all the time, each change would be two
    /// writes for the API server; the second of these can wait for a few more changes, and is for all of them then.
    fn take_place(&mut self, target: Target, now: Instant) {
        let number = self.number();
        if let Some(waits) = self.waiting.get_mut(&target)
            && can_wait(&waits.wanted)
            && let Some(turn) = self.confirmed.again(&target).filter(|turn| *turn > now)
        {
            waits.held = Some((turn, number));
            self.later.insert((turn, number), target);
        } else {
            self.enqueue(target);
        }
    }

    fn enqueue(&mut self, target: Target) {
        if target.is_of_many() { &mut self.due_of_many } else { &mut self.due }.push_back(target);
    }

    fn number(&mut self) -> u64 {
        self.numbers = self.numbers.wrapping_add(1);
        self.numbers
    }
}

/// What tells of many others is one write for all of them anyhow.
fn can_wait(wanted: &Wanted) -> bool {
    wanted.confirms && !wanted.target.is_of_many()
}

/// Objects of which something was confirmed in the last [`CONFIRMED`].
#[derive(Debug, Default)]
struct Confirmed {
    last: HashMap<Target, Instant>,
    in_order: VecDeque<(Instant, Target)>,
}

impl Confirmed {
    fn note(&mut self, target: Target, now: Instant) {
        while let Some((at, first)) = self.in_order.pop_front_if(|(at, _)| now.duration_since(*at) >= CONFIRMED) {
            if self.last.get(&first) == Some(&at) {
                self.last.remove(&first);
            }
        }
        self.last.insert(target.clone(), now);
        self.in_order.push_back((now, target));
    }

    /// When it may be confirmed again.
    fn again(&self, target: &Target) -> Option<Instant> {
        self.last.get(target).map(|last| *last + CONFIRMED)
    }
}

fn pause(failures: u32) -> Duration {
    let longest = PAUSES.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSES.1);
    longest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
#[path = "tests/turns.rs"]
mod tests;
