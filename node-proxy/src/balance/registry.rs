//! The balancers of one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use weft_core::ids::ServicePortKey;
use weft_core::snapshot::{Frontend, Snapshot};

use super::{AffinityTable, Balancer, Place, RetryBudgets};
use crate::util::FastHash;

/// What the balancers of all workers of a proxy share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Where clients were sent, of Services with affinity.
    pub affinity: AffinityTable,
    /// What retries are paid from.
    pub retry_budgets: RetryBudgets,
}

/// One balancer for each frontend that was asked for.
#[derive(Debug)]
pub struct Balancers {
    place: Place,
    shared: Arc<Shared>,
    /// By the address of the frontend's allocation, which the balancer keeps alive: no name is hashed for a request.
    by_frontend: RefCell<HashMap<usize, Rc<Balancer>, FastHash>>,
    by_key: RefCell<HashMap<ServicePortKey, Rc<Balancer>>>,
}

impl Balancers {
    /// No balancer yet.
    pub fn new(place: Place, shared: Arc<Shared>) -> Self {
        Self { place, shared, by_frontend: RefCell::default(), by_key: RefCell::default() }
    }

    /// Where this proxy runs.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The balancer of a frontend, brought up to this version of it.
    pub fn get(&self, frontend: &Arc<Frontend>, now: Instant) -> Rc<Balancer> {
        let pointer = Arc::as_ptr(frontend).addr();
        if let Some(balancer) = self.by_frontend.borrow().get(&pointer).filter(|balancer| balancer.knows(&self.place)) {
            return Rc::clone(balancer);
        }
        let mut by_key = self.by_key.borrow_mut();
        let mut by_frontend = self.by_frontend.borrow_mut();
        let balancer = match by_key.get(&frontend.key) {
            Some(balancer) => {
                by_frontend.remove(&Arc::as_ptr(&balancer.frontend()).addr());
                balancer.update(Arc::clone(frontend), &self.place, now);
                Rc::clone(balancer)
            }
            None => {
                let shared = Arc::clone(&self.shared);
                let balancer = Rc::new(Balancer::new(Arc::clone(frontend), &self.place, shared, now));
                by_key.insert(frontend.key.clone(), Rc::clone(&balancer));
                balancer
            }
        };
        by_frontend.insert(pointer, Rc::clone(&balancer));
        balancer
    }

    /// Endpoints that are out of balancing now.
    pub fn ejected(&self, now: Instant) -> usize {
        self.by_key.borrow().values().map(|balancer| balancer.ejected(now)).sum()
    }

    /// How many frontends are known.
    pub fn len(&self) -> usize {
        self.by_key.borrow().len().max(self.by_frontend.borrow().len())
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the frontends that are gone.
    pub fn sweep(&self, snapshot: &Snapshot, now: Instant) {
        self.by_key.borrow_mut().retain(|key, _| snapshot.frontend(key).is_some());
        self.by_frontend.borrow_mut().retain(|_, balancer| snapshot.frontend(&balancer.frontend().key).is_some());
        self.shared.affinity.sweep(now, |key| snapshot.frontend(key).is_some());
    }
}
