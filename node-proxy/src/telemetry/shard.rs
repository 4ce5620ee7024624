//! Series of one worker, and the sum over all.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::alive::Alive;
use super::budget::{Admitted, Budget};
use super::labels::{ConnectionLabels, DurationLabels, EventLabels, Labels, RequestLabels, RoleLabel, SizeLabels};
use super::series::{ConnectionSeries, DurationSeries, EventSeries, RequestSeries, Retire, SizeSeries};

/// Series of traffic that a proxy has at most, if nothing else is said.
pub const DEFAULT_SERIES: usize = 20_000;

/// All series, as the scrape sees them.
#[derive(Debug)]
pub struct Registry {
    shards: Mutex<Vec<Arc<Shard>>>,
    pub(super) budget: Arc<Budget>,
    silent: bool,
}

/// The series of one worker. The lists are locked when a series is made, taken away or read: never for a request.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) requests: Listed<RequestLabels, RequestSeries>,
    pub(super) durations: Listed<DurationLabels, DurationSeries>,
    pub(super) sizes: Listed<SizeLabels, SizeSeries>,
    pub(super) connections: Listed<ConnectionLabels, ConnectionSeries>,
    pub(super) events: Listed<EventLabels, EventSeries>,
    pub(super) handshakes: Listed<RoleLabel, DurationSeries>,
}

#[derive(Debug)]
pub(super) struct Listed<L, S>(Mutex<Vec<Entry<L, S>>>);

#[derive(Debug)]
struct Entry<L, S> {
    labels: L,
    series: Arc<S>,
    /// What it names was gone at the last look.
    gone: bool,
}

impl<L, S> Default for Listed<L, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Labels, S: Retire> Listed<L, S> {
    fn retain(&self, alive: &Alive) {
        self.0.lock().retain_mut(|entry| {
            let was_gone = std::mem::replace(&mut entry.gone, !entry.labels.is_alive(alive));
            let keep = !(was_gone && entry.gone);
            if !keep {
                entry.series.retire();
            }
            keep
        });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::with_budget(DEFAULT_SERIES)
    }
}

impl Registry {
    /// With so many series of traffic at most.
    pub fn with_budget(series: usize) -> Self {
        Self { shards: Mutex::default(), budget: Arc::new(Budget::new(series)), silent: false }
    }

    /// One that counts no requests: a benchmark measures against it what counting costs. No setting of a proxy leads here.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// The recorder of one more worker.
    pub fn recorder(&self) -> Recorder {
        let shard = Arc::<Shard>::default();
        self.shards.lock().push(Arc::clone(&shard));
        Recorder {
            shard,
            budget: Arc::clone(&self.budget),
            silent: self.silent,
            requests: RefCell::default(),
            durations: RefCell::default(),
            sizes: RefCell::default(),
            connections: RefCell::default(),
            events: RefCell::default(),
            handshakes: RefCell::default(),
        }
    }

    /// Takes away the series of what is gone, at the second look that finds it so: a scrape in between sees the last of them.
    pub fn retain(&self, alive: &Alive) {
        self.retain_of(|s| &s.requests, |b| &b.requests, alive);
        self.retain_of(|s| &s.durations, |b| &b.durations, alive);
        self.retain_of(|s| &s.sizes, |b| &b.sizes, alive);
        self.retain_of(|s| &s.connections, |b| &b.connections, alive);
        self.retain_of(|s| &s.events, |b| &b.events, alive);
    }

    fn retain_of<L: Labels + Eq + Hash, S: Retire>(
        &self,
        listed: impl Fn(&Shard) -> &Listed<L, S>,
        admitted: impl Fn(&Budget) -> &Admitted<L>,
        alive: &Alive,
    ) {
        let mut kept = HashSet::<L>::default();
        for shard in self.shards.lock().iter() {
            let listed = listed(shard);
            listed.retain(alive);
            kept.extend(listed.0.lock().iter().map(|entry| entry.labels.clone()));
        }
        self.budget.retain(admitted, |labels| kept.contains(labels));
    }

    /// How many labels have series, over all workers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let shards = self.shards.lock();
        shards.iter().map(|shard| shard.requests.len() + shard.connections.len() + shard.events.len()).sum()
    }

    /// The series of a family, by labels, of all workers.
    pub(super) fn gather<L: Clone + Ord, S>(
        &self,
        family: impl Fn(&Shard) -> &Listed<L, S>,
    ) -> BTreeMap<L, Vec<Arc<S>>> {
        let mut all: BTreeMap<L, Vec<Arc<S>>> = BTreeMap::new();
        for shard in self.shards.lock().iter() {
            for Entry { labels, series, .. } in family(shard).0.lock().iter() {
                all.entry(labels.clone()).or_default().push(Arc::clone(series));
            }
        }
        all
    }
}

type Known<L, S> = RefCell<HashMap<L, Arc<S>>>;

/// What a worker records with. Not shared with other workers.
#[derive(Debug)]
pub struct Recorder {
    shard: Arc<Shard>,
    budget: Arc<Budget>,
    silent: bool,
    requests: Known<RequestLabels, RequestSeries>,
    durations: Known<DurationLabels, DurationSeries>,
    sizes: Known<SizeLabels, SizeSeries>,
    connections: Known<ConnectionLabels, ConnectionSeries>,
    events: Known<EventLabels, EventSeries>,
    handshakes: Known<RoleLabel, DurationSeries>,
}

impl Recorder {
    /// The series of these labels; keep it while [`RequestSeries::is_retired`] says no.
    pub fn requests(&self, labels: &RequestLabels) -> Arc<RequestSeries> {
        let admit = |labels: &RequestLabels| self.budget.admit(|b| &b.requests, labels);
        find(&self.requests, &self.shard.requests, labels, admit, |labels| {
            // Made before this one, they may go at a look before: then this one is made again, and they with it.
            let admit = |labels: &DurationLabels| self.budget.admit(|b| &b.durations, labels);
            let make = |_: &DurationLabels| DurationSeries::default();
            let duration = find(&self.durations, &self.shard.durations, &labels.of_duration(), admit, make);
            let admit = |labels: &SizeLabels| self.budget.admit(|b| &b.sizes, labels);
            let make = |_: &SizeLabels| SizeSeries::default();
            let sizes = find(&self.sizes, &self.shard.sizes, &labels.of_sizes(), admit, make);
            RequestSeries::new(duration, sizes, self.silent)
        })
    }

    /// The series of these labels.
    pub fn connections(&self, labels: &ConnectionLabels) -> Arc<ConnectionSeries> {
        let admit = |labels: &ConnectionLabels| self.budget.admit(|b| &b.connections, labels);
        find(&self.connections, &self.shard.connections, labels, admit, |_| ConnectionSeries::default())
    }

    /// Counts an event.
    pub fn event(&self, labels: &EventLabels, n: u64) {
        self.events(labels).count.add(n);
    }

    /// Sets a gauge of this worker.
    pub fn gauge(&self, labels: &EventLabels, n: u64) {
        self.events(labels).count.set(n);
    }

    fn events(&self, labels: &EventLabels) -> Arc<EventSeries> {
        let admit = |labels: &EventLabels| labels.is_plain() || self.budget.admit(|b| &b.events, labels);
        find(&self.events, &self.shard.events, labels, admit, |_| EventSeries::default())
    }

    /// Counts how long a TLS handshake took.
    pub fn handshake(&self, role: RoleLabel, took: Duration) {
        let make = |_: &RoleLabel| DurationSeries::default();
        let series = find(&self.handshakes, &self.shard.handshakes, &role, |_| true, make);
        series.took.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), None);
    }

    /// Series that this worker knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.requests.borrow().len() + self.connections.borrow().len() + self.events.borrow().len()
    }
}

/// The worker's series of these labels, or of overflow in their place.
fn find<L, S>(
    known: &Known<L, S>,
    listed: &Listed<L, S>,
    labels: &L,
    admit: impl Fn(&L) -> bool,
    make: impl FnOnce(&L) -> S,
) -> Arc<S>
where
    L: Labels + Eq + Hash,
    S: Retire,
{
    let of_known = |labels: &L| known.borrow().get(labels).filter(|series| !series.is_retired()).map(Arc::clone);
    if let Some(series) = of_known(labels) {
        return series;
    }
    let labels = if admit(labels) { labels.clone() } else { labels.overflow() };
    if let Some(series) = of_known(&labels) {
        return series;
    }
    let series = Arc::new(make(&labels));
    let mut known = known.borrow_mut();
    known.retain(|_, series| !series.is_retired());
    known.insert(labels.clone(), Arc::clone(&series));
    listed.0.lock().push(Entry { labels, series: Arc::clone(&series), gone: false });
    series
}
