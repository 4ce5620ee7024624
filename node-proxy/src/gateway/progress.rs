//! How far the workers of a proxy are with listening: whoever acknowledges a listener waits here until it is bound.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use weft_core::gateway::Bind;

/// Places that can't be listened on, with the reason for people.
pub type Failing = BTreeMap<Bind, String>;

/// What each worker says. A cheap handle.
#[derive(Clone, Debug)]
pub struct Progress {
    workers: Arc<watch::Sender<Vec<Reached>>>,
    /// Whether the control plane has yet to say which listeners there are now.
    awaits: Arc<watch::Sender<bool>>,
}

/// How far one worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reached {
    /// The version of the store that it listens by; 0 before it has looked for the first time.
    version: u64,
    /// Whether it has looked.
    looked: bool,
    failing: Failing,
}

impl Progress {
    /// Of so many workers.
    pub fn new(workers: usize) -> Self {
        let reached = vec![Reached::default(); workers];
        Self { workers: Arc::new(watch::Sender::new(reached)), awaits: Arc::new(watch::Sender::new(false)) }
    }

    /// The control plane says which listeners there are now; when it has, so does [`Progress::know`].
    pub(crate) fn await_listeners(&self) {
        self.awaits.send_replace(true);
    }

    /// It has said so, and the workers have bound what of these they can.
    pub(crate) fn know(&self) {
        self.awaits.send_replace(false);
    }

    /// Waits until every worker listens where it can of what the control plane has said, if that is awaited.
    pub(crate) async fn listening(&self) {
        self.reached(0).await;
        // The sender is ours.
        let _ = self.awaits.subscribe().wait_for(|awaits| !awaits).await;
    }

    /// A worker listens by this version of the store, but at these places it can't.
    pub(crate) fn report(&self, worker: usize, version: u64, failing: &Failing) {
        self.workers.send_if_modified(|all| {
            let Some(own) = all.get_mut(worker) else { return false };
            let now = Reached { version, looked: true, failing: failing.clone() };
            let differs = *own != now;
            *own = now;
            differs
        });
    }

    /// Waits until every worker listens by this version or a later one; returns where one of them can't.
    pub async fn reached(&self, version: u64) -> Failing {
        let mut workers = self.workers.subscribe();
        let all_there = |all: &Vec<Reached>| all.iter().all(|worker| worker.looked && worker.version >= version);
        match workers.wait_for(all_there).await {
            Ok(all) => failing(&all),
            // The sender is ours.
            Err(_closed) => Failing::new(),
        }
    }

    /// Where a worker can't listen now.
    pub fn failing(&self) -> Failing {
        failing(&self.workers.borrow())
    }

    /// Whether every worker has looked at least once.
    pub fn has_begun(&self) -> bool {
        self.workers.borrow().iter().all(|worker| worker.looked)
    }

    /// Learns of what workers say from now on.
    pub fn watch(&self) -> Watch {
        Watch(self.workers.subscribe())
    }
}

/// What workers say, each time that it is something new.
#[derive(Debug)]
pub struct Watch(watch::Receiver<Vec<Reached>>);

impl Watch {
    /// Waits for the next word; returns where a worker can't listen then. Never, once the proxy is gone.
    pub async fn next(&mut self) -> Failing {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        failing(&self.0.borrow_and_update())
    }
}

/// Each place where some worker can't listen, with the reason of the first that says so.
fn failing(all: &[Reached]) -> Failing {
    let mut failing = Failing::new();
    for (bind, reason) in all.iter().flat_map(|worker| &worker.failing) {
        failing.entry(*bind).or_insert_with(|| reason.clone());
    }
    failing
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use weft_core::gateway::Bind;
    use weft_core::ids::Port;

    use super::*;

    fn place(port: u16) -> Bind {
        Bind::tcp(None, Port::new(port).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_is_reached_when_every_worker_has_it_and_the_reason_of_any_counts() {
        let progress = Progress::new(2);
        let soon = Duration::from_millis(10);
        assert!(timeout(soon, progress.reached(0)).await.is_err(), "nobody has looked yet");
        progress.report(0, 3, &Failing::new());
        assert!(timeout(soon, progress.reached(3)).await.is_err(), "the second worker hasn't");
        let taken = Failing::from([(place(80), "address in use".to_owned())]);
        progress.report(1, 2, &taken);
        assert!(timeout(soon, progress.reached(3)).await.is_err(), "the second worker is behind");
        progress.report(1, 3, &taken);
        assert_eq!(timeout(soon, progress.reached(3)).await.unwrap(), taken);
        progress.report(1, 3, &Failing::new());
        assert_eq!(progress.reached(2).await, Failing::new(), "later is as good");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_bound_later_is_told() {
        let progress = Progress::new(1);
        let mut watch = progress.watch();
        let taken = Failing::from([(place(80), "address in use".to_owned())]);
        progress.report(0, 1, &taken);
        assert_eq!(watch.next().await, taken);
        progress.report(0, 1, &taken);
        assert!(timeout(Duration::from_secs(1), watch.next()).await.is_err(), "nothing new");
        progress.report(0, 1, &Failing::new());
        assert_eq!(watch.next().await, Failing::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_listens_when_its_workers_have_looked_and_the_listeners_are_known() {
        let soon = Duration::from_millis(10);
        let alone = Progress::new(1);
        assert!(timeout(soon, alone.listening()).await.is_err(), "its worker hasn't looked");
        alone.report(0, 0, &Failing::new());
        alone.listening().await;

        let told = Progress::new(1);
        told.await_listeners();
        told.report(0, 4, &Failing::new());
        assert!(timeout(soon, told.listening()).await.is_err(), "nobody has told it of listeners");
        let waiting = tokio::spawn({
            let told = told.clone();
            async move { told.listening().await }
        });
        tokio::task::yield_now().await;
        told.know();
        timeout(soon, waiting).await.unwrap().unwrap();
    }

    #[test]
    fn a_proxy_without_workers_of_its_own_waits_for_nobody() {
        let progress = Progress::new(0);
        progress.report(5, 1, &Failing::new());
        assert_eq!(progress.failing(), Failing::new());
    }
}
