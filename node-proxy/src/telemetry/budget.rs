//! How many series there may be, over all workers: what is new when there is no room is counted as overflow.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::labels::{ConnectionLabels, DurationLabels, EventLabels, Labels, RequestLabels, SizeLabels};

/// What has series. Looked at when a worker makes one, never for a request.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
    overflowed: AtomicU64,
    pub(super) requests: Admitted<RequestLabels>,
    pub(super) durations: Admitted<DurationLabels>,
    pub(super) sizes: Admitted<SizeLabels>,
    pub(super) connections: Admitted<ConnectionLabels>,
    pub(super) events: Admitted<EventLabels>,
}

/// Labels of one kind that have series.
#[derive(Debug)]
pub(super) struct Admitted<L>(Mutex<HashSet<L>>);

impl<L> Default for Admitted<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            requests: Admitted::default(),
            durations: Admitted::default(),
            sizes: Admitted::default(),
            connections: Admitted::default(),
            events: Admitted::default(),
        }
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Series that are counted.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How often there was no room.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Whether there is room for these labels, which have it from now on; always, if another worker has them.
    pub(super) fn admit<L: Labels + Eq + Hash>(&self, of: impl Fn(&Self) -> &Admitted<L>, labels: &L) -> bool {
        let mut admitted = of(self).0.lock();
        if admitted.contains(labels) {
            return true;
        }
        let with = |used: usize| used.checked_add(L::SERIES).filter(|used| *used <= self.limit);
        let has_room = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok();
        if has_room {
            admitted.insert(labels.clone());
        } else {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Gives the room of those back that don't stay.
    pub(super) fn retain<L: Labels + Eq + Hash>(&self, of: impl Fn(&Self) -> &Admitted<L>, stays: impl Fn(&L) -> bool) {
        let mut admitted = of(self).0.lock();
        let before = admitted.len();
        admitted.retain(|labels| stays(labels));
        let gone = before.saturating_sub(admitted.len());
        self.used.fetch_sub(gone.saturating_mul(L::SERIES), Ordering::Relaxed);
    }
}
