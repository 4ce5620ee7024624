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
/// Confirmations: one each time, after as many at once as the second says.
pub(super) const CONFIRMATIONS: (Duration, u32) = (Duration::from_millis(50), 100);

/// What waits and what is under way: one write for an object at a time. What has to be tried again waits here, not in the
/// place of a write: else a few objects that can't be written would keep all others waiting.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The latest status of each object. An object is in one of the five below, too.
    waiting: HashMap<Target, Waiting>,
    /// Those whose turn it is, in order.
    due: VecDeque<Target>,
    /// The same of those that are of many: theirs comes first, in half of the places.
    due_of_many: VecDeque<Target>,
    /// Those whose last write failed, by when it is their turn again. The number tells equal times apart.
    later: BTreeMap<(Instant, u64), Target>,
    /// Those that have nothing new to say, in order. Where many objects change all the time, each of their changes would be two
    /// writes for the API server; the second of these can wait for a few more changes, and is for all of them then.
    confirmations: BTreeMap<u64, Target>,
    pace: Pace,
    /// Those that are being written. What waits of them has come since.
    under_way: HashMap<Id, Target>,
    /// Numbers that were given so far.
    numbers: u64,
}

#[derive(Debug)]
struct Waiting {
    wanted: Wanted,
    /// How often in a row its writes have failed.
    failures: u32,
    /// Its number among the confirmations, if it is there.
    confirmation: Option<u64>,
}

impl Turns {
    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A newer status takes the older one's place in the queue, and its pause as well: what failed was the API server, or a
    /// right of ours, and a world that changes all the time must not ask it all the time. Only one that confirms the older makes
    /// way for news at once.
    pub(super) fn add(&mut self, wanted: Wanted) {
        let is_under_way = self.under_way.values().any(|target| *target == wanted.target);
        let target = wanted.target.clone();
        match self.waiting.entry(target.clone()) {
            Entry::Occupied(mut waits) => {
                let waits = waits.get_mut();
                let is_news = !waits_for_pace(&wanted);
                waits.wanted = wanted;
                if is_news && let Some(number) = waits.confirmation.take() {
                    self.confirmations.remove(&number);
                    self.enqueue(target);
                }
            }
            Entry::Vacant(place) => {
                place.insert(Waiting { wanted, failures: 0, confirmation: None });
                if !is_under_way {
                    self.take_place(target);
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
            self.enqueue(target);
        }
        while self.pace.next(now) <= now
            && let Some((_, target)) = self.confirmations.pop_first()
        {
            self.pace.take(now);
            if let Some(waits) = self.waiting.get_mut(&target) {
                waits.confirmation = None;
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
        self.waiting.remove(&target).map(|waits| (waits.wanted, waits.failures))
    }

    /// When the turn of the first comes that has to wait for a time.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let again = self.later.first_key_value().map(|((due, _), _)| *due);
        let confirmed = (!self.confirmations.is_empty()).then(|| self.pace.next(now));
        again.into_iter().chain(confirmed).min()
    }

    pub(super) fn began(&mut self, id: Id, target: Target) {
        self.under_way.insert(id, target);
    }

    /// A write need not be tried again. If there is a newer status by now, it is that one's turn.
    pub(super) fn ended(&mut self, id: Id) {
        if let Some(target) = self.under_way.remove(&id)
            && self.waiting.contains_key(&target)
        {
            self.take_place(target);
        }
    }

    /// A write has to be tried again later; a newer status takes its place then.
    pub(super) fn failed(&mut self, id: Id, wanted: Wanted, failures: u32, now: Instant) {
        self.under_way.remove(&id);
        let (target, failures) = (wanted.target.clone(), failures.saturating_add(1));
        let waits = self.waiting.entry(target.clone()).or_insert(Waiting { wanted, failures, confirmation: None });
        waits.failures = failures;
        let number = self.number();
        self.later.insert((now + pause(failures), number), target);
    }

    /// Among those whose turn it is, or among the confirmations.
    fn take_place(&mut self, target: Target) {
        let number = self.number();
        match self.waiting.get_mut(&target) {
            Some(waits) if waits_for_pace(&waits.wanted) => {
                waits.confirmation = Some(number);
                self.confirmations.insert(number, target);
            }
            _ => self.enqueue(target),
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
fn waits_for_pace(wanted: &Wanted) -> bool {
    wanted.confirms && !wanted.target.is_of_many()
}

/// [`CONFIRMATIONS`], by the generic cell rate algorithm, in the time that it is told.
#[derive(Debug, Default)]
struct Pace {
    /// When all that were taken would have been taken one at a time.
    spent: Option<Instant>,
}

impl Pace {
    fn next(&self, now: Instant) -> Instant {
        let (each, at_once) = CONFIRMATIONS;
        self.spent
            .and_then(|spent| spent.checked_sub(each * at_once.saturating_sub(1)))
            .map_or(now, |next| next.max(now))
    }

    fn take(&mut self, now: Instant) {
        self.spent = Some(self.spent.map_or(now, |spent| spent.max(now)) + CONFIRMATIONS.0);
    }
}

fn pause(failures: u32) -> Duration {
    let longest = PAUSES.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSES.1);
    longest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
#[path = "tests/turns.rs"]
mod tests;
