//! What is told of whose requests: worked out once for each snapshot, so that a request costs a look into a map, and nothing
//! where no policy says anything.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use weft_core::ids::WorkloadUid;
use weft_core::snapshot::Snapshot;
use weft_core::telemetry::{Defaults, Telemetry, effective};

use crate::identify::LocalWorkload;
use crate::util::FastHash;

/// The terms of one worker, of one snapshot.
pub(super) struct Told {
    defaults: Defaults,
    /// Where no policy says anything.
    plain: Rc<Telemetry>,
    of: RefCell<HashMap<WorkloadUid, Rc<Telemetry>, FastHash>>,
}

impl Told {
    pub(super) fn new(defaults: Defaults) -> Self {
        let plain = Rc::new(effective(std::iter::empty(), None, &defaults));
        Self { defaults, plain, of: RefCell::default() }
    }

    /// There is another snapshot.
    pub(super) fn clear(&self) {
        self.of.borrow_mut().clear();
    }

    /// What is told of a pod's requests, or a Gateway's. `snapshot` is the latest.
    pub(super) fn of(&self, snapshot: &Snapshot, pod: &LocalWorkload) -> Rc<Telemetry> {
        if !snapshot.has_telemetry_policies() {
            return match &self.plain.tracing {
                // Clients of Gateways are asked about traces in another way.
                Some(_) if pod.is_gateway() => self.known(snapshot, pod),
                _ => Rc::clone(&self.plain),
            };
        }
        self.known(snapshot, pod)
    }

    fn known(&self, snapshot: &Snapshot, pod: &LocalWorkload) -> Rc<Telemetry> {
        if let Some(known) = self.of.borrow().get(pod.uid()) {
            return Rc::clone(known);
        }
        let made = Rc::new(snapshot.telemetry_for(&pod.workload(snapshot), &self.defaults));
        self.of.borrow_mut().insert(pod.uid().clone(), Rc::clone(&made));
        made
    }
}
