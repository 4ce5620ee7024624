//! What workers are built with: telemetry that adds up in one registry, and the HTTP engine.

use std::rc::Rc;
use std::sync::Arc;

use tokio::task::spawn_local;
use weft_core::ids::NodeName;

use super::HttpFront;
use super::engine::{Engine, EngineParts, HttpSettings};
use crate::balance::{Balancers, NodeZone, Place, Shared};
use crate::connect::resolve;
use crate::observe::Observer;
use crate::records::Records;
use crate::relay::front::HttpRelay;
use crate::telemetry::{AccessLog, Alive, Registry, WorkerTelemetry};
use crate::worker;

/// Builds the telemetry and the HTTP engine of each worker.
#[derive(Debug)]
pub struct Telemetered {
    /// Sums the workers' metrics.
    pub registry: Arc<Registry>,
    /// The access log.
    pub log: AccessLog,
    /// The requests of late of all workers.
    pub records: Records,
    /// What the balancers of all workers share.
    pub shared: Arc<Shared>,
    /// The node's zone.
    pub zone: NodeZone,
    /// Limits.
    pub settings: HttpSettings,
}

impl worker::Engine for Telemetered {
    fn observer(&self, _worker: usize) -> Rc<dyn Observer> {
        Rc::new(WorkerTelemetry::new(Rc::new(self.registry.recorder()), self.log.clone()))
    }

    fn balancers(&self, node: &NodeName) -> Balancers {
        let place = Place { node: node.clone(), zone: self.zone.clone() };
        Balancers::new(place, Arc::clone(&self.shared))
    }

    fn retain(&self, alive: &Alive) {
        self.registry.retain(alive);
    }

    fn http(&self, parts: worker::EngineParts) -> Rc<dyn HttpRelay> {
        let worker::EngineParts { node, dial, observer, drain, .. } = parts;
        let place = Place { node: node.name.clone(), zone: self.zone.clone() };
        let engine = Engine::new(EngineParts {
            store: Arc::clone(&node.store),
            dial,
            resolve,
            balancers: Balancers::new(place, Arc::clone(&self.shared)),
            recorder: Rc::new(self.registry.recorder()),
            observer,
            log: self.log.clone(),
            ring: self.records.ring(),
            http3: node.gateways.http3().clone(),
            settings: self.settings,
        });
        spawn_local(Rc::clone(&engine).watch());
        let draining = Rc::clone(&engine);
        spawn_local(async move {
            drain.cancelled().await;
            draining.drain();
        });
        Rc::new(HttpFront(engine))
    }
}
