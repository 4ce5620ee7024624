//! Taps of this proxy: requests and connections as they end, for who asks, for a while.
//!
//! ```text
//!  workers --offer--> Taps: filter, rate --bounded queue--> Subscription --lines--> HTTP answer (serve)
//! ```
//!
//! While nobody taps, a request costs one relaxed load. A worker never waits: what is too much for a tap's rate, or for its
//! reader, is dropped and counted. A tap ends by itself, also when its reader is stuck.

mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use weft_core::tap::{AT_ONCE, End, Facts, Line, Record, Tap};

use crate::telemetry::{Entry, WorkloadLabel};

pub use self::serve::{Door, serve_socket};

/// Records of one tap that may wait for its reader.
const QUEUE: usize = 512;
/// How often it is said that more was dropped, and that nothing happens.
const TELL: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(10);

/// The taps of a process; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Taps(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many run, for a look that costs nothing.
    count: AtomicUsize,
    running: ArcSwap<Vec<Arc<Running>>>,
    /// Held while the list changes.
    edit: Mutex<()>,
}

#[derive(Debug)]
struct Running {
    tap: Tap,
    queue: mpsc::Sender<Box<Record>>,
    began: Instant,
    /// The second of the last record, and how many there were in it: 32 bits each.
    window: AtomicU64,
    dropped: AtomicU64,
}

/// Eight taps run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{AT_ONCE} taps run on this proxy already, which is all that it serves: try again later")]
pub struct TooMany;

/// A request or connection that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What the access log would say of it.
    pub entry: &'a Entry,
    /// Who called and who was called.
    pub ends: (&'a WorkloadLabel, &'a WorkloadLabel),
    /// The query of its path.
    pub query: Option<&'a str>,
    /// Whether the access log would take it for a failure.
    pub failed: bool,
}

impl Taps {
    /// Whether anybody taps. For each request: no lock, no barrier.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) > 0
    }

    /// Shows a request to the taps that want it. Never waits.
    #[cold]
    pub fn offer(&self, seen: &Seen<'_>) {
        let facts = seen.facts();
        for running in self.0.running.load().iter() {
            if running.tap.filter.matches(&facts) {
                running.take(seen, &facts);
            }
        }
    }

    /// Begins a tap, which has been checked. It lasts until the subscription is dropped.
    ///
    /// # Errors
    /// If there are too many.
    pub fn begin(&self, tap: Tap) -> Result<Subscription, TooMany> {
        let (queue, records) = mpsc::channel(QUEUE);
        let began = Instant::now();
        let end = began + Duration::from_secs(u64::from(tap.seconds));
        let running = Running { tap, queue, began, window: AtomicU64::new(0), dropped: AtomicU64::new(0) };
        let running = Arc::new(running);
        let edit = self.0.edit.lock();
        let mut all = self.0.running.load().to_vec();
        if all.len() >= AT_ONCE {
            return Err(TooMany);
        }
        all.push(Arc::clone(&running));
        self.publish(all);
        drop(edit);
        let taps = self.clone();
        Ok(Subscription {
            taps,
            running,
            records,
            end,
            seen: 0,
            closed: false,
            told: (began, 0),
            last: began,
            over: Over::No,
        })
    }

    fn remove(&self, gone: &Arc<Running>) {
        let _edit = self.0.edit.lock();
        let mut all = self.0.running.load().to_vec();
        all.retain(|running| !Arc::ptr_eq(running, gone));
        self.publish(all);
    }

    fn publish(&self, all: Vec<Arc<Running>>) {
        let count = all.len();
        self.0.running.store(Arc::new(all));
        self.0.count.store(count, Ordering::Relaxed);
    }
}

impl Running {
    fn take(&self, seen: &Seen<'_>, facts: &Facts<'_>) {
        let sent = self.has_rate() && self.queue.try_send(Box::new(seen.record(facts, self.tap.query))).is_ok();
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether this second has room for one more.
    fn has_rate(&self) -> bool {
        let second = self.began.elapsed().as_secs() & u64::from(u32::MAX);
        let one_more = |window: u64| match (window >> 32 == second, window & u64::from(u32::MAX)) {
            (true, count) => (count < u64::from(self.tap.rate)).then_some(window.wrapping_add(1)),
            (false, _) => Some((second << 32) | 1),
        };
        self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }
}

/// The reader's end of a tap.
#[derive(Debug)]
pub struct Subscription {
    taps: Taps,
    running: Arc<Running>,
    records: mpsc::Receiver<Box<Record>>,
    end: Instant,
    seen: u64,
    /// Its time is over.
    closed: bool,
    /// When it was said how many were dropped, and how many that were.
    told: (Instant, u64),
    /// When the last line was.
    last: Instant,
    over: Over,
}

#[derive(Debug)]
enum Over {
    No,
    /// The last line is to be said.
    Because(String),
    Yes,
}

impl Subscription {
    /// When it is over at the latest.
    pub fn end(&self) -> Instant {
        self.end
    }

    /// The next line, as soon as there is one; `None` after the last.
    pub async fn next(&mut self) -> Option<Line> {
        let line = self.line().await;
        self.last = Instant::now();
        line
    }

    async fn line(&mut self) -> Option<Line> {
        loop {
            let is_over = !matches!(self.over, Over::No);
            let dropped = self.running.dropped.load(Ordering::Relaxed);
            if dropped > self.told.1 && (is_over || self.told.0.elapsed() >= TELL) {
                self.told = (Instant::now(), dropped);
                return Some(Line::Dropped(dropped));
            }
            match std::mem::replace(&mut self.over, Over::Yes) {
                Over::Yes => return None,
                Over::Because(why) => return Some(Line::End(why)),
                Over::No => self.over = Over::No,
            }
            tokio::select! {
                biased;
                () = sleep_until(self.end), if !self.closed => {
                    // What waits is still said, and nothing more is taken.
                    self.closed = true;
                    self.taps.remove(&self.running);
                    self.records.close();
                }
                record = self.records.recv() => {
                    let Some(record) = record else {
                        self.over = Over::Because(format!("{} s are over", self.running.tap.seconds));
                        continue;
                    };
                    self.seen = self.seen.saturating_add(1);
                    if self.seen == self.running.tap.count {
                        self.over = Over::Because(format!("{} are seen", self.seen));
                    }
                    return Some(Line::Seen(record));
                }
                () = sleep_until(self.told.0 + TELL), if dropped > self.told.1 => {}
                () = sleep_until(self.last + QUIET) => return Some(Line::Quiet),
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.taps.remove(&self.running);
    }
}

impl<'a> Seen<'a> {
    fn facts(&self) -> Facts<'a> {
        let Self { entry, ends, failed, .. } = *self;
        let service = entry.service.rsplit_once(':').map_or("", |(service, _port)| service);
        let (source, mut destination) = (end(ends.0, &entry.source), end(ends.1, &entry.destination));
        if destination.namespace.is_empty() {
            // Nobody was found there: it is the Service's affair.
            destination.namespace = service.split_once('/').map_or("", |(namespace, _)| namespace);
        }
        Facts {
            source,
            destination,
            service,
            route: entry.route.split_once('/').map_or("", |(_kind, name)| name),
            method: &entry.method,
            path: &entry.path,
            status: entry.status,
            failed,
            reporter: if entry.direction == "gateway" { "gateway" } else { entry.reporter },
        }
    }

    fn record(&self, facts: &Facts<'_>, with_query: bool) -> Record {
        let entry = self.entry;
        let mut record = Record {
            time: now(),
            reporter: facts.reporter.to_owned(),
            request_id: entry.request_id.clone(),
            trace_id: entry.trace_id.clone(),
            source_namespace: facts.source.namespace.to_owned(),
            source_workload: facts.source.workload.to_owned(),
            source_pod: facts.source.pod.to_owned(),
            source_identity: entry.source_identity.clone(),
            source_address: entry.source_address.clone(),
            destination_namespace: facts.destination.namespace.to_owned(),
            destination_workload: facts.destination.workload.to_owned(),
            destination_pod: facts.destination.pod.to_owned(),
            destination_identity: entry.destination_identity.clone(),
            endpoint: entry.endpoint.clone(),
            service: entry.service.clone(),
            route: entry.route.clone(),
            rule: entry.rule.clone(),
            protocol: entry.protocol.to_owned(),
            method: entry.method.clone(),
            authority: entry.authority.clone(),
            path: entry.path.clone(),
            status: entry.status,
            grpc_status: entry.grpc_status.clone(),
            reason: entry.reason.to_owned(),
            made_by: entry.made_by.to_owned(),
            detail: entry.detail.clone(),
            duration_ms: entry.duration_ms,
            request_bytes: entry.request_bytes,
            response_bytes: entry.response_bytes,
            tries: entry.tries,
            connection_security: entry.connection_security.to_owned(),
            ..Record::default()
        };
        if let Some(query) = self.query.filter(|_| with_query) {
            record.path = format!("{}?{query}", record.path);
        }
        record.cut();
        record
    }
}

/// RFC 3339, UTC.
fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// One end, of its label and the pod as namespace/name; what isn't known has no name.
fn end<'a>(label: &'a WorkloadLabel, pod: &'a str) -> End<'a> {
    let (namespace, pod) = pod.split_once('/').unwrap_or_default();
    match label.is_nobody() {
        true => End { namespace, pod, workload: "" },
        false => End { namespace: &label.namespace, pod, workload: &label.workload },
    }
}
