//! Series of one worker, and the sum over all.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::alive::Alive;
use super::labels::{ConnectionLabels, EventLabels, Labels, RequestLabels};
use super::series::{ConnectionSeries, EventSeries, RequestSeries, Retire};

/// All series, as the scrape sees them.
#[derive(Debug, Default)]
pub struct Registry {
    shards: Mutex<Vec<Arc<Shard>>>,
}

/// The series of one worker. The lists are locked when a series is made, taken away or read: never for a request.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) requests: Listed<RequestLabels, RequestSeries>,
    pub(super) connections: Listed<ConnectionLabels, ConnectionSeries>,
    pub(super) events: Listed<EventLabels, EventSeries>,
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
}

impl Registry {
    /// The recorder of one more worker.
    pub fn recorder(&self) -> Recorder {
        let shard = Arc::<Shard>::default();
        self.shards.lock().push(Arc::clone(&shard));
        Recorder { shard, requests: RefCell::default(), connections: RefCell::default(), events: RefCell::default() }
    }

    /// Takes away the series of what is gone, at the second look that finds it so: a scrape in between sees the last of them.
    pub fn retain(&self, alive: &Alive) {
        for shard in self.shards.lock().iter() {
            shard.requests.retain(alive);
            shard.connections.retain(alive);
            shard.events.retain(alive);
        }
    }

    /// How many series there are, over all workers.
    pub fn len(&self) -> usize {
        let shards = self.shards.lock();
        let len = |shard: &Arc<Shard>| {
            shard.requests.0.lock().len() + shard.connections.0.lock().len() + shard.events.0.lock().len()
        };
        shards.iter().map(len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

/// What a worker records with. Not shared with other workers.
#[derive(Debug)]
pub struct Recorder {
    shard: Arc<Shard>,
    requests: RefCell<HashMap<RequestLabels, Arc<RequestSeries>>>,
    connections: RefCell<HashMap<ConnectionLabels, Arc<ConnectionSeries>>>,
    events: RefCell<HashMap<EventLabels, Arc<EventSeries>>>,
}

impl Recorder {
    /// The series of these labels; keep it while [`RequestSeries::is_retired`] says no.
    pub fn requests(&self, labels: &RequestLabels) -> Arc<RequestSeries> {
        find(&self.requests, &self.shard.requests, labels)
    }

    /// The series of these labels.
    pub fn connections(&self, labels: &ConnectionLabels) -> Arc<ConnectionSeries> {
        find(&self.connections, &self.shard.connections, labels)
    }

    /// Counts an event.
    pub fn event(&self, labels: &EventLabels, n: u64) {
        find(&self.events, &self.shard.events, labels).count.add(n);
    }

    /// Series that this worker knows.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.requests.borrow().len() + self.connections.borrow().len() + self.events.borrow().len()
    }

    /// Sets a gauge of this worker.
    pub fn gauge(&self, labels: &EventLabels, n: u64) {
        find(&self.events, &self.shard.events, labels).count.set(n);
    }
}

fn find<L, S>(known: &RefCell<HashMap<L, Arc<S>>>, listed: &Listed<L, S>, labels: &L) -> Arc<S>
where
    L: Clone + Eq + Hash,
    S: Default + Retire,
{
    if let Some(series) = known.borrow().get(labels).filter(|series| !series.is_retired()) {
        return Arc::clone(series);
    }
    let mut known = known.borrow_mut();
    known.retain(|_, series| !series.is_retired());
    let series = Arc::<S>::default();
    known.insert(labels.clone(), Arc::clone(&series));
    listed.0.lock().push(Entry { labels: labels.clone(), series: Arc::clone(&series), gone: false });
    series
}
