//! Numbers with one writer, which the scrape reads.
//!
//! Adding is a load and a store, never a locked instruction, and no two workers share a cache line.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::exemplar::{Exemplar, Slot, TraceId};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only ever called by the worker that owns it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces it, for a gauge; only ever called by the worker that owns it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's buckets, with the text of their `le` labels: canonical numbers of OpenMetrics.
#[derive(Debug)]
pub(super) struct Bounds<const N: usize> {
    pub(super) upper: [u64; N],
    pub(super) le: [&'static str; N],
    /// How many of what is observed make one of the unit.
    pub(super) unit: f64,
}

/// How many bounds durations have: few, because all durations of all destinations have them.
pub(super) const OF_DURATIONS: usize = 9;

/// Of durations, in nanoseconds.
pub(super) static DURATIONS: Bounds<OF_DURATIONS> = Bounds {
    upper: [
        1_000_000,
        5_000_000,
        25_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        10_000_000_000,
    ],
    le: ["0.001", "0.005", "0.025", "0.1", "0.25", "0.5", "1.0", "2.5", "10.0"],
    unit: 1e9,
};

/// How many bounds sizes have.
pub(super) const OF_SIZES: usize = 3;

/// Of sizes, in bytes.
pub(super) static SIZES: Bounds<OF_SIZES> =
    Bounds { upper: [1 << 10, 64 << 10, 4 << 20], le: ["1024.0", "65536.0", "4194304.0"], unit: 1.0 };

/// A histogram of `N` bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static Bounds<N>,
    buckets: [Counter; N],
    count: Counter,
    sum: Counter,
    /// The latest of each bucket, and of what is above all bounds. There from the first one on: most series have none.
    exemplars: OnceLock<Box<[Slot]>>,
}

impl<const N: usize> Histogram<N> {
    /// The series that it is on a page.
    pub(super) const SERIES: usize = N + 3;

    pub(super) fn new(bounds: &'static Bounds<N>) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            count: Counter::default(),
            sum: Counter::default(),
            exemplars: OnceLock::new(),
        }
    }

    /// Counts one; only ever called by the worker that owns it.
    pub(super) fn observe(&self, value: u64, trace: Option<TraceId>) {
        let place = self.bounds.upper.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.add(1);
        }
        self.count.add(1);
        self.sum.add(value);
        if let Some(trace) = trace {
            self.keep(place, value, trace);
        }
    }

    #[cold]
    fn keep(&self, place: usize, value: u64, trace: TraceId) {
        let slots = self.exemplars.get_or_init(|| (0..=N).map(|_| Slot::default()).collect());
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(slot) = slots.get(place) {
            slot.put(&Exemplar { trace, value, at_millis: u64::try_from(at.as_millis()).unwrap_or_default() });
        }
    }

    /// Adds up into a sum of several workers.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        total.buckets.resize(N, 0);
        for (to, from) in total.buckets.iter_mut().zip(&self.buckets) {
            *to += from.get();
        }
        total.count += self.count.get();
        total.sum += self.sum.get();
        let Some(slots) = self.exemplars.get() else { return };
        total.exemplars.resize(N + 1, None);
        for (latest, slot) in total.exemplars.iter_mut().zip(slots) {
            let newer = slot.get().filter(|it| latest.as_ref().is_none_or(|l: &Exemplar| l.at_millis <= it.at_millis));
            *latest = newer.or_else(|| latest.take());
        }
    }
}

/// A histogram summed over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotal {
    pub(super) buckets: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum: u64,
    /// Of each bucket and of what is above; empty while there are none.
    pub(super) exemplars: Vec<Option<Exemplar>>,
}
