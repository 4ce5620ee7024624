//! Series of one worker: it writes them, and the scrape reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weft_core::reason::Reason;

use super::exemplar::TraceId;
use super::numbers::{Counter, DURATIONS, Histogram, OF_DURATIONS, OF_SIZES, SIZES};

/// The highest status that gRPC has, and the one for all that it hasn't: `UNKNOWN`.
const LAST_GRPC_STATUS: u8 = 16;
const GRPC_UNKNOWN: u8 = 2;

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
    /// Nanoseconds that they took together.
    pub(super) time: Counter,
    pub(super) retries: Counter,
    /// Shared with the requests of others to the same destination. The same worker's.
    duration: Arc<DurationSeries>,
    /// Shared with all requests of the workload.
    sizes: Arc<SizeSeries>,
    /// Its workload is gone, and so is the series: a worker that still has it must look again.
    retired: AtomicBool,
    /// Of a registry that counts nothing.
    silent: bool,
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
    /// Its trace, if that is sampled.
    pub trace: Option<TraceId>,
}

impl RequestSeries {
    pub(super) fn new(duration: Arc<DurationSeries>, sizes: Arc<SizeSeries>, silent: bool) -> Self {
        Self {
            plain: Default::default(),
            others: Mutex::default(),
            time: Counter::default(),
            retries: Counter::default(),
            duration,
            sizes,
            retired: AtomicBool::new(false),
            silent,
        }
    }

    /// Counts one request.
    pub fn record(&self, outcome: RequestOutcome, measure: &RequestMeasure) {
        if self.silent {
            return;
        }
        match self.plain.get(usize::from(outcome.class)) {
            Some(counter) if outcome.reason == Reason::Ok && outcome.grpc_status.is_none() => counter.add(1),
            _ => self.record_other(outcome),
        }
        let nanos = u64::try_from(measure.took.as_nanos()).unwrap_or(u64::MAX);
        self.time.add(nanos);
        self.duration.took.observe(nanos, measure.trace);
        self.sizes.request.observe(measure.request_bytes, None);
        self.sizes.response.observe(measure.response_bytes, None);
        if measure.retries > 0 {
            self.retries.add(u64::from(measure.retries));
        }
    }

    fn record_other(&self, outcome: RequestOutcome) {
        // What an application makes up is no label.
        let known = |status| if status > LAST_GRPC_STATUS { GRPC_UNKNOWN } else { status };
        let outcome = RequestOutcome { grpc_status: outcome.grpc_status.map(known), ..outcome };
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

    /// Whether its workload is gone, or a series that it shares has gone with another look.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed) || self.duration.is_retired() || self.sizes.is_retired()
    }
}

/// How long things took.
#[derive(Debug)]
pub struct DurationSeries {
    pub(super) took: Histogram<OF_DURATIONS>,
    retired: AtomicBool,
}

impl DurationSeries {
    pub(super) const SERIES: usize = Histogram::<OF_DURATIONS>::SERIES;
}

impl Default for DurationSeries {
    fn default() -> Self {
        Self { took: Histogram::new(&DURATIONS), retired: AtomicBool::new(false) }
    }
}

/// How large bodies were.
#[derive(Debug)]
pub struct SizeSeries {
    pub(super) request: Histogram<OF_SIZES>,
    pub(super) response: Histogram<OF_SIZES>,
    retired: AtomicBool,
}

impl SizeSeries {
    pub(super) const SERIES: usize = 2 * Histogram::<OF_SIZES>::SERIES;
}

impl Default for SizeSeries {
    fn default() -> Self {
        Self { request: Histogram::new(&SIZES), response: Histogram::new(&SIZES), retired: AtomicBool::new(false) }
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

impl ConnectionSeries {
    /// How many are open; a moment between two counters never makes it less than none.
    pub(super) fn open(&self) -> u64 {
        self.opened.get().saturating_sub(self.closed.get())
    }
}

/// A counter of some event, or a gauge.
#[derive(Debug, Default)]
pub struct EventSeries {
    /// How often, or how many.
    pub count: Counter,
    retired: AtomicBool,
}

/// A series that can be taken away.
pub(super) trait Retire {
    fn retired(&self) -> &AtomicBool;

    fn retire(&self) {
        self.retired().store(true, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.retired().load(Ordering::Relaxed)
    }
}

macro_rules! can_retire {
    ($($series:ty),+) => {
        $(impl Retire for $series {
            fn retired(&self) -> &AtomicBool {
                &self.retired
            }
        })+
    };
}

impl Retire for RequestSeries {
    fn retired(&self) -> &AtomicBool {
        &self.retired
    }

    fn is_retired(&self) -> bool {
        Self::is_retired(self)
    }
}

can_retire!(DurationSeries, SizeSeries, ConnectionSeries, EventSeries);
