//! Wake-ups of a busy worker, coalesced.
//!
//! A worker that is faster than its clients and backends is woken for each of their packets, and has a call of the kernel for
//! each: to wait, to read, to write, and to wake who reads that. Where many requests share a connection, one call could do for
//! several. So a worker with much to do rests for a moment before it waits for the next event, as network cards do before they
//! interrupt: what comes meanwhile is read and written together.
//!
//! It costs what it saves if nothing comes together, or if somebody waits for the worker that doesn't share. So there are rests
//! only while
//! - the worker is busy for half of its time, or was when they began and still is for a quarter of it,
//! - requests that share a connection with several others are what it is busy with,
//! - it relays no bytes, of which it can't know who waits for them,
//! - and they are short beside the time that even the quickest request of late has taken.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// The longest rest, whatever else.
const LONGEST: Duration = Duration::from_micros(100);
/// A shorter one isn't worth the call.
const SHORTEST: Duration = Duration::from_micros(10);
/// The part of the quickest request's time that a rest may take.
const SHARE: u32 = 4;
/// After so much work in one go enough has come together without a rest.
const LONG_WORK: Duration = Duration::from_micros(300);
/// So many answers are looked at together, if they come within [`WINDOW`].
const ANSWERS: u32 = 64;
/// How long the worker looks for so many.
const WINDOW: Duration = Duration::from_millis(10);
/// Requests on one connection, on average, from which on they are taken to share it.
const SHARED: u32 = 5;
/// A sleep takes so much longer than it should, nanoseconds; without a word, Linux rounds it up by 50 microseconds.
const SLACK: u64 = 1_000;

thread_local! {
    static PACE: RefCell<Pace> = RefCell::new(Pace::new(Instant::now()));
    /// Relays of bytes that are open.
    static RELAYS: Cell<usize> = const { Cell::new(0) };
}

/// Has this thread sleep for as long as it wants to.
pub(super) fn sleep_exactly() {
    // Refused, rests are longer than they should be, but short all the same.
    let _ = nix::sys::prctl::set_timerslack(SLACK);
}

/// The worker is going to wait for events.
pub(super) fn before_waiting() {
    let rest = PACE.with_borrow_mut(|pace| pace.rest(Instant::now()));
    if let Some(rest) = rest.filter(|_| RELAYS.get() == 0) {
        std::thread::sleep(rest);
    }
}

/// It has waited.
pub(super) fn after_waiting() {
    PACE.with_borrow_mut(|pace| pace.woke = Instant::now());
}

/// An endpoint's answer has passed, `took` after its request came; so many requests were under way on the client's connection.
pub(crate) fn answered(took: Duration, under_way: u32) {
    PACE.with_borrow_mut(|pace| pace.answered(took, under_way));
}

/// Bytes are relayed on this thread, as long as it is there.
#[derive(Debug)]
pub(crate) struct Relaying(());

impl Relaying {
    pub(crate) fn begin() -> Self {
        RELAYS.set(RELAYS.get() + 1);
        Self(())
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        RELAYS.set(RELAYS.get().saturating_sub(1));
    }
}

/// What a worker has had to do of late.
#[derive(Debug)]
struct Pace {
    /// When it began to look.
    since: Instant,
    /// When it had last waited.
    woke: Instant,
    /// What it has worked since.
    worked: Duration,
    answers: u32,
    /// The sum of the requests that were under way beside each of them, itself included.
    under_way: u32,
    /// The quickest of them.
    quickest: Duration,
    /// The quickest of late: it is forgotten slowly, so that one that comes now and then is heeded.
    quickest_of_late: Duration,
    /// How long it rests for now.
    rest: Option<Duration>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            woke: now,
            worked: Duration::ZERO,
            answers: 0,
            under_way: 0,
            quickest: Duration::MAX,
            quickest_of_late: LONGEST * SHARE,
            rest: None,
        }
    }

    fn answered(&mut self, took: Duration, under_way: u32) {
        self.answers += 1;
        self.under_way = self.under_way.saturating_add(under_way);
        self.quickest = self.quickest.min(took);
    }

    /// How long to rest before waiting, if at all.
    fn rest(&mut self, now: Instant) -> Option<Duration> {
        let work = now.saturating_duration_since(self.woke);
        self.worked += work;
        let looked = now.saturating_duration_since(self.since);
        if self.answers >= ANSWERS || looked >= WINDOW {
            self.rest = self.next_rest(looked);
            *self =
                Self { woke: self.woke, quickest_of_late: self.quickest_of_late, rest: self.rest, ..Self::new(now) };
        }
        self.rest.filter(|_| work < LONG_WORK)
    }

    fn next_rest(&mut self, looked: Duration) -> Option<Duration> {
        // An eighth more in each window: twice as much after six, which are some milliseconds of a busy worker.
        let forgotten = (self.quickest_of_late + self.quickest_of_late / 8).min(LONGEST * SHARE);
        self.quickest_of_late = forgotten.min(self.quickest);
        let enough = if self.rest.is_some() { looked / 4 } else { looked / 2 };
        let is_busy = self.answers >= ANSWERS && self.worked >= enough;
        let is_shared = self.under_way >= self.answers.saturating_mul(SHARED);
        let rest = (self.quickest_of_late / SHARE).min(LONGEST);
        (is_busy && is_shared && rest >= SHORTEST).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// A worker that works and then waits, again and again.
    struct World {
        pace: Pace,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self { pace: Pace::new(now), now }
        }

        /// So many turns, each of them so much work, so much waiting, and so many answers that took so long and shared their
        /// connection with so many; how long it would rest after the last.
        fn turns(&mut self, turns: u32, (work, wait): (u32, u32), answers: &[(u32, u32)]) -> Option<Duration> {
            let mut rest = None;
            for _ in 0..turns {
                self.pace.woke = self.now;
                self.now += US * work;
                answers.iter().for_each(|(took, under_way)| self.pace.answered(US * *took, *under_way));
                rest = self.pace.rest(self.now);
                self.now += US * wait;
            }
            rest
        }
    }

    #[test]
    fn only_a_busy_worker_whose_requests_share_connections_rests() {
        let shared = [(1_000, 12), (1_200, 8)];
        for (times, answers, want) in [
            ((30, 6), &shared[..], Some(100)),
            // As many answers, and a worker that has time.
            ((30, 60), &shared[..], None),
            // Each on its own connection, or with as few beside it as browsers have.
            ((30, 6), &[(1_000, 1), (1_000, 1)][..], None),
            ((30, 6), &[(1_000, 4), (1_000, 3)][..], None),
            // Most of them are.
            ((30, 6), &[(1_000, 12), (1_000, 1), (1_000, 1), (1_000, 1)][..], None),
            // Busy with other things.
            ((900, 100), &[(1_000, 12)][..], None),
            // A rest that would be long beside what they take is shorter, or none.
            ((30, 6), &[(1_000, 12), (200, 12)][..], Some(50)),
            ((30, 6), &[(1_000, 12), (30, 12)][..], None),
            // So much at once that nothing has to be waited for.
            ((400, 10), &shared.repeat(20)[..], None),
        ] {
            let rest = World::new().turns(200, times, answers);
            assert_eq!(rest, want.map(|us| US * us), "{times:?} {answers:?}");
        }
    }

    #[test]
    fn rests_do_not_end_themselves() {
        let mut world = World::new();
        let shared = [(1_000, 12), (1_200, 8)];
        assert!(world.turns(200, (30, 6), &shared).is_some());
        // With them it has less to do.
        assert!(world.turns(200, (30, 70), &shared).is_some());
        assert!(world.turns(200, (30, 120), &shared).is_none());
        assert!(world.turns(200, (30, 70), &shared).is_none(), "and then it is busy again, or there is none");
    }

    #[test]
    fn a_quick_request_now_and_then_is_heeded() {
        let mut world = World::new();
        let (shared, quick) = ([(1_000, 12), (1_200, 8)], [(60, 12)]);
        assert_eq!(world.turns(200, (30, 6), &shared), Some(US * 100));
        for _ in 0..5 {
            world.turns(1, (30, 6), &quick);
            let rest = world.turns(100, (30, 6), &shared).unwrap();
            assert!(rest < US * 30, "{rest:?}");
        }
        assert_eq!(world.turns(2_000, (30, 6), &shared), Some(US * 100));
    }

    #[test]
    fn nobody_answers_and_there_is_no_rest() {
        let mut world = World::new();
        assert!(world.turns(200, (30, 6), &[(1_000, 12), (1_200, 8)]).is_some());
        assert_eq!(world.turns(500, (30, 6), &[]), None);
    }
}
