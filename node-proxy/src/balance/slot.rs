//! What one worker has learnt about one endpoint: its latency, what is under way, its failures.
//!
//! Cells, not locks: a slot never leaves its worker. It outlives the list it came from while a request holds it, and
//! moves to the next list if the endpoint is still in there.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How fast an old latency is forgotten.
const DECAY: Duration = Duration::from_secs(10);
/// The cost, in seconds, of an endpoint that has not answered yet but has been asked: one request at a time until it
/// does.
const UNKNOWN_COST: f64 = 1.0;
/// Failures in a row that eject an endpoint.
const FAILURES_TO_EJECT: u32 = 5;
/// The first ejection; each further one doubles it.
const EJECTION: Duration = Duration::from_secs(10);
/// The longest ejection.
const MAX_EJECTION: Duration = Duration::from_secs(300);
/// An endpoint that asked for less load gets at least this share of it.
const MAX_BURDEN: f64 = 16.0;

/// How a request ended, as far as the endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer that is the application's business.
    Answered,
    /// It asked for less: 429, or gRPC RESOURCE_EXHAUSTED.
    Overloaded,
    /// 5xx, a reset, a timeout, or no connection.
    Failed,
    /// The client went away, or we gave up for reasons of ours: it says nothing about the endpoint.
    Unknown,
}

/// One endpoint's slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) address: SocketAddr,
    /// Of the address, for consistent hashing.
    pub(super) hash: u64,
    pending: Cell<u32>,
    /// Seconds; 0 before the first answer.
    latency: Cell<f64>,
    measured: Cell<Instant>,
    burden: Cell<f64>,
    failures: Cell<u32>,
    ejections: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
}

impl Slot {
    pub(super) fn new(address: SocketAddr, now: Instant) -> Self {
        Self {
            address,
            hash: super::hash::hash_address(address),
            pending: Cell::new(0),
            latency: Cell::new(0.0),
            measured: Cell::new(now),
            burden: Cell::new(1.0),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            ejected_until: Cell::new(None),
        }
    }

    /// What one more request would cost here: expected latency times what is under way.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        let pending = f64::from(self.pending.get());
        // It fades also while nobody asks, so that a slow endpoint gets another chance.
        let latency = self.latency.get() * keep(now.saturating_duration_since(self.measured.get()));
        let latency = if latency == 0.0 && pending > 0.0 { UNKNOWN_COST } else { latency };
        latency * (pending + 1.0) * self.burden.get()
    }

    /// How much less than its share it asked for: 1 is the whole share.
    pub(super) fn burden(&self) -> f64 {
        self.burden.get()
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        match self.ejected_until.get() {
            None => false,
            Some(until) if until > now => true,
            Some(_) => {
                self.ejected_until.set(None);
                false
            }
        }
    }

    pub(super) fn start(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    pub(super) fn finish(&self) {
        self.pending.set(self.pending.get().saturating_sub(1));
    }

    /// Learns from an answer; whether the endpoint has failed often enough to be ejected.
    pub(super) fn learn(&self, outcome: Outcome, took: Duration, now: Instant) -> bool {
        match outcome {
            Outcome::Unknown => false,
            Outcome::Answered => {
                self.observe(took.as_secs_f64(), now);
                self.burden.set((self.burden.get() * 0.9).max(1.0));
                if self.failures.replace(0) == 0 && self.ejections.get() > 0 {
                    self.ejections.set(self.ejections.get() - 1);
                }
                false
            }
            Outcome::Overloaded => {
                self.observe(took.as_secs_f64(), now);
                self.burden.set((self.burden.get() * 2.0).min(MAX_BURDEN));
                self.failures.set(0);
                false
            }
            Outcome::Failed => {
                // A fast failure must not look like a fast endpoint.
                let known = self.latency.get();
                let expected = if known == 0.0 { UNKNOWN_COST } else { known };
                self.observe(took.as_secs_f64().max(expected), now);
                self.failures.set(self.failures.get() + 1);
                self.failures.get() >= FAILURES_TO_EJECT
            }
        }
    }

    /// Takes the endpoint out; `random` spreads the return of several.
    pub(super) fn eject(&self, now: Instant, random: u64) -> Duration {
        let doubled = EJECTION.saturating_mul(1 << self.ejections.get().min(10)).min(MAX_EJECTION);
        let jitter = doubled.mul_f64((random % 1024) as f64 / 1024.0 * 0.2);
        self.failures.set(0);
        self.ejections.set(self.ejections.get() + 1);
        self.ejected_until.set(Some(now + doubled + jitter));
        doubled + jitter
    }

    /// Peak-EWMA: rises at once, falls slowly.
    fn observe(&self, seconds: f64, now: Instant) {
        let old = self.latency.get();
        let elapsed = now.saturating_duration_since(self.measured.replace(now));
        let new = if seconds >= old {
            seconds
        } else {
            let keep = keep(elapsed);
            old * keep + seconds * (1.0 - keep)
        };
        self.latency.set(new.max(f64::MIN_POSITIVE));
    }
}

/// The share of an old measurement that still counts.
fn keep(elapsed: Duration) -> f64 {
    // Most picks come within a millisecond of the last answer, where the exponential is 1 for our purposes.
    if elapsed < Duration::from_millis(10) { 1.0 } else { (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp() }
}
