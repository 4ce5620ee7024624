//! Counters and histograms that one worker writes and the scrape reads.
//!
//! One writer each: adding is a load and a store, never a locked instruction, and no two workers share a cache line.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weft_core::reason::Reason;

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

/// Upper bounds of durations, in nanoseconds, with the text of their `le` label in seconds.
pub(super) const DURATIONS: [(u64, &str); 16] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
];

/// Upper bounds of sizes, in bytes.
pub(super) const SIZES: [(u64, &str); 8] = [
    (256, "256"),
    (1 << 10, "1024"),
    (4 << 10, "4096"),
    (16 << 10, "16384"),
    (64 << 10, "65536"),
    (1 << 20, "1048576"),
    (16 << 20, "16777216"),
    (256 << 20, "268435456"),
];

/// A histogram of `N` bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [(u64, &'static str); N],
    buckets: [Counter; N],
    count: Counter,
    sum: Counter,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static [(u64, &'static str); N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            count: Counter::default(),
            sum: Counter::default(),
        }
    }

    fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|(bound, _)| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.add(1);
        }
        self.count.add(1);
        self.sum.add(value);
    }

    /// Adds up into a sum of several workers.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        total.buckets.resize(N, 0);
        for (to, from) in total.buckets.iter_mut().zip(&self.buckets) {
            *to += from.get();
        }
        total.count += self.count.get();
        total.sum += self.sum.get();
    }
}

/// A histogram summed over the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotal {
    pub(super) buckets: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum: u64,
}

/// How a request ended, as metrics tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestOutcome {
    /// The first digit of the status; 0 without an answer.
    pub class: u8,
    /// Why the proxy ended it, if it did.
    pub reason: Reason,
    /// The gRPC status, for a gRPC call that got one.
    pub grpc_status: Option<u8>,
}

/// Requests with the same labels.
#[derive(Debug)]
pub struct RequestSeries {
    /// The common outcomes: answered by the application, not gRPC; by class.
    plain: [Counter; 6],
    /// The others. Locked by the worker and the scrape only, so never contended by workers.
    others: Mutex<Vec<(RequestOutcome, u64)>>,
    pub(super) duration: Histogram<16>,
    pub(super) request_bytes: Histogram<8>,
    pub(super) response_bytes: Histogram<8>,
    pub(super) retries: Counter,
    /// Its workload is gone, and so is the series: a worker that still has it must look again.
    retired: AtomicBool,
}

impl Default for RequestSeries {
    fn default() -> Self {
        Self {
            plain: Default::default(),
            others: Mutex::default(),
            duration: Histogram::new(&DURATIONS),
            request_bytes: Histogram::new(&SIZES),
            response_bytes: Histogram::new(&SIZES),
            retries: Counter::default(),
            retired: AtomicBool::new(false),
        }
    }
}

/// Sizes and time of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestMeasure {
    /// From the complete head of the request to the end of the answer.
    pub took: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Tries after the first.
    pub retries: u32,
}

impl RequestSeries {
    /// Counts one request.
    pub fn record(&self, outcome: RequestOutcome, measure: &RequestMeasure) {
        match self.plain.get(usize::from(outcome.class)) {
            Some(counter) if outcome.reason == Reason::Ok && outcome.grpc_status.is_none() => counter.add(1),
            _ => self.record_other(outcome),
        }
        self.duration.observe(u64::try_from(measure.took.as_nanos()).unwrap_or(u64::MAX));
        self.request_bytes.observe(measure.request_bytes);
        self.response_bytes.observe(measure.response_bytes);
        if measure.retries > 0 {
            self.retries.add(u64::from(measure.retries));
        }
    }

    fn record_other(&self, outcome: RequestOutcome) {
        let mut others = self.others.lock();
        match others.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, count)) => *count += 1,
            None => others.push((outcome, 1)),
        }
    }

    /// Every outcome that happened.
    pub(super) fn outcomes(&self) -> Vec<(RequestOutcome, u64)> {
        let plain =
            self.plain.iter().zip(0_u8..).filter(|(counter, _)| counter.get() > 0).map(|(counter, class)| {
                (RequestOutcome { class, reason: Reason::Ok, grpc_status: None }, counter.get())
            });
        plain.chain(self.others.lock().iter().copied()).collect()
    }

    /// Whether its workload is gone.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

/// Connections with the same labels.
#[derive(Debug, Default)]
pub struct ConnectionSeries {
    /// Bytes began to flow.
    pub opened: Counter,
    /// Of those opened, ended.
    pub closed: Counter,
    /// Bytes from the client.
    pub received: Counter,
    /// Bytes to the client.
    pub sent: Counter,
    retired: AtomicBool,
}

/// A series that can be taken away.
pub(super) trait Retire {
    fn retire(&self);
    fn is_retired(&self) -> bool;
}

impl Retire for RequestSeries {
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

impl Retire for ConnectionSeries {
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

/// A counter of some event, or a gauge.
#[derive(Debug, Default)]
pub struct EventSeries {
    /// How often, or how many.
    pub count: Counter,
    retired: AtomicBool,
}

impl Retire for EventSeries {
    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}
