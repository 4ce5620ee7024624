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
    /// As of the last look.
    alive: Mutex<Option<Arc<Alive>>>,
}

/// The series of one worker. The lists are locked when a series is made, taken away or read: never for a request.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) requests: Listed<RequestLabels, RequestSeries>,
    pub(super) connections: Listed<ConnectionLabels, ConnectionSeries>,
    pub(super) events: Listed<EventLabels, EventSeries>,
}

#[derive(Debug)]
pub(super) struct Listed<L, S>(Mutex<Vec<(L, Arc<S>)>>);

impl<L, S> Default for Listed<L, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Labels, S: Retire> Listed<L, S> {
    fn retain(&self, alive: &impl Fn(&dyn Fn(&Alive) -> bool) -> bool) {
        self.0.lock().retain(|(labels, series)| {
            let keep = alive(&|alive| labels.is_alive(alive));
            if !keep {
                series.retire();
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

    /// Takes away the series of what is gone since the last call but one: so that a scrape in between sees the last of
    /// them.
    pub fn retain(&self, alive: Alive) {
        let before = self.alive.lock().replace(Arc::new(alive));
        let (Some(before), Some(now)) = (before, self.alive.lock().clone()) else { return };
        let either = |is_alive: &dyn Fn(&Alive) -> bool| is_alive(&now) || is_alive(&before);
        for shard in self.shards.lock().iter() {
            shard.requests.retain(&either);
            shard.connections.retain(&either);
            shard.events.retain(&either);
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
            for (labels, series) in family(shard).0.lock().iter() {
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
    listed.0.lock().push((labels.clone(), Arc::clone(&series)));
    series
}
