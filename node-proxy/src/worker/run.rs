//! A worker's thread: commands, listeners, and the tasks of its connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::ids::NodeName;

use super::handle::{Accepted, Command, WorkerHandle};
use super::{Node, Pods, Turns, Worker, coalesce};
use crate::accept;
use crate::balance::{Balancers, NodeZone, Place};
use crate::connect::{BackendClients, Connector, Dial, Tunnels};
use crate::gateway;
use crate::identify::LocalWorkload;
use crate::observe::{Holdings, Observer};
use crate::pipeline::{self, InboundHalf};
use crate::relay::front::HttpRelay;
use crate::telemetry::Alive;
use weft_core::ids::SandboxId;

/// How often a worker's gauges are brought up to date.
const TICK: Duration = Duration::from_secs(5);
/// And how many of those until certificates are looked at.
const TICKS_PER_LOOK: u64 = 6;

/// What a worker is built with, beyond what this crate's pipelines bring: telemetry and the HTTP engine.
pub trait Engine: Send + Sync {
    /// The telemetry of one worker.
    fn observer(&self, worker: usize) -> Rc<dyn Observer>;

    /// Choice of endpoints for connections that are relayed as bytes, of one worker. Without more to say: no zone, and
    /// affinity that each worker remembers for itself.
    fn balancers(&self, node: &NodeName) -> Balancers {
        Balancers::new(Place { node: node.clone(), zone: NodeZone::default() }, Arc::default())
    }

    /// What there is, once a minute: telemetry of the rest may go.
    fn retain(&self, _alive: &Alive) {}

    /// The HTTP engine of one worker.
    fn http(&self, parts: EngineParts) -> Rc<dyn HttpRelay>;
}

/// What an HTTP engine may use.
pub struct EngineParts {
    /// What all workers share.
    pub node: Arc<Node>,
    /// Ways to endpoints.
    pub dial: Rc<dyn Dial>,
    /// The way to applications on this node.
    pub inbound: Rc<InboundHalf>,
    /// The telemetry of this worker.
    pub observer: Rc<dyn Observer>,
    /// Which worker.
    pub worker: usize,
    /// Cancelled when the worker drains.
    pub drain: CancellationToken,
}

pub(super) struct Start {
    pub node: Arc<Node>,
    pub engine: Arc<dyn Engine>,
    pub workers: Arc<[WorkerHandle]>,
    pub index: usize,
    pub commands: mpsc::UnboundedReceiver<Command>,
}

pub(super) fn spawn(start: Start) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(coalesce::before_waiting)
        .on_thread_unpark(coalesce::after_waiting)
        .build()?;
    std::thread::Builder::new().name(format!("worker-{}", start.index)).spawn(move || {
        coalesce::sleep_exactly();
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, run(start));
    })
}

impl Worker {
    fn new(start: &Start) -> Rc<Self> {
        let node = Arc::clone(&start.node);
        let observer = start.engine.observer(start.index);
        let drain = CancellationToken::new();
        let pods = Rc::new(Pods::default());
        let inbound = Rc::new(InboundHalf::new(Arc::clone(&node), Rc::clone(&observer)));
        let turns = Rc::new(Turns::new(node.limits.handshakes_rest));
        let tunnels = Tunnels::new(Arc::clone(&node), Rc::clone(&pods), Rc::clone(&observer), Rc::clone(&turns));
        let connector = Connector::new(Rc::clone(&pods), tunnels, Rc::clone(&inbound), node.limits.connect);
        let connector = Rc::new(connector);
        let http = start.engine.http(EngineParts {
            node: Arc::clone(&node),
            dial: Rc::clone(&connector) as Rc<dyn Dial>,
            inbound: Rc::clone(&inbound),
            observer: Rc::clone(&observer),
            worker: start.index,
            drain: drain.clone(),
        });
        inbound.set_http(&http);
        let workers = Arc::clone(&start.workers);
        let balancers = start.engine.balancers(&node.name);
        let (index, backends) = (start.index, BackendClients::default());
        Rc::new(Self {
            balancers,
            backends,
            node,
            pods,
            connector,
            inbound,
            turns,
            http,
            observer,
            drain,
            workers,
            index,
        })
    }

    /// Starts the task of a connection. A panic in it is counted and ends only it.
    pub(crate) fn serve(self: &Rc<Self>, accepted: Accepted<TcpStream>) {
        let Some(workload) = self.pods.by_sandbox(&accepted.sandbox) else { return };
        let worker = Rc::clone(self);
        spawn_local(async move {
            let _counted = CountPanic { worker: &worker, workload: &workload };
            pipeline::serve(&worker, &workload, accepted).await;
        });
    }
}

/// Counts a panic that unwinds through it.
pub(crate) struct CountPanic<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) workload: &'a LocalWorkload,
}

impl Drop for CountPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let workload = self.workload.workload(&self.worker.node.store.load());
            self.worker.observer.panicked(&workload);
        }
    }
}

async fn run(mut start: Start) {
    let worker = Worker::new(&start);
    let watching = [
        spawn_local(watch_config(Rc::clone(&worker))).abort_handle(),
        spawn_local(watch_trust(Rc::clone(&worker))).abort_handle(),
        spawn_local(watch_time(Rc::clone(&worker))).abort_handle(),
        spawn_local(gateway::follow(Rc::clone(&worker))).abort_handle(),
    ];
    let listeners = Listeners::default();
    while let Some(command) = start.commands.recv().await {
        match command {
            Command::AddPod(pod, _done) => {
                worker.pods.insert(LocalWorkload::new(pod).within(&worker.drain));
            }
            Command::Listen(sandbox, role, listener, _done) => {
                let Some(pod) = worker.pods.by_sandbox(&sandbox) else { continue };
                let task = spawn_local(accept::run(Rc::clone(&worker), pod, role, listener));
                listeners.add(sandbox, task.abort_handle());
            }
            Command::StopListening(sandbox, _done) => listeners.close(&sandbox),
            Command::RemovePod(sandbox, _done) => {
                listeners.close(&sandbox);
                if let Some(pod) = worker.pods.remove(&sandbox) {
                    worker.http.forget(&pod);
                    pod.leaving.cancel();
                }
                worker.connector.forget_pod(&sandbox);
                worker.inbound.forget_pod(&sandbox);
            }
            Command::Connection(accepted) => adopt(&worker, accepted),
            Command::Drain => {
                listeners.close_all();
                worker.drain.cancel();
            }
            Command::Stop => break,
        }
    }
    watching.iter().for_each(AbortHandle::abort);
}

/// Takes over a connection that another worker accepted.
fn adopt(worker: &Rc<Worker>, accepted: Accepted<std::net::TcpStream>) {
    let Accepted { sandbox, role, stream, peer, slot, load } = accepted;
    match TcpStream::from_std(stream) {
        Ok(stream) => worker.serve(Accepted { sandbox, role, stream, peer, slot, load }),
        Err(error) => tracing::warn!(%sandbox, "a connection was lost between workers: {error}"),
    }
}

/// A policy that changes reaches connections that are open, and so does the end of a workload.
async fn watch_config(worker: Rc<Worker>) {
    let mut versions = worker.node.store.subscribe();
    while versions.changed().await.is_ok() {
        worker.inbound.recheck_policy().await;
        let snapshot = worker.node.store.load_full();
        worker.balancers.sweep(&snapshot, Instant::now());
        worker.connector.doubt_gone(&snapshot);
    }
}

/// A root that is taken away ends the connections that it vouched for.
async fn watch_trust(worker: Rc<Worker>) {
    let mut generations = worker.node.certificates.trust().subscribe();
    while generations.changed().await.is_ok() {
        worker.connector.recheck_trust(&worker.node.certificates);
        worker.inbound.recheck_trust().await;
    }
}

/// What only time changes: gauges, and certificates that run out under open connections.
async fn watch_time(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut serials = HashMap::new();
    for ticks in 0_u64.. {
        let now = tick.tick().await;
        worker.observer.holds(Holdings { ejected: worker.balancers.ejected(now), ..worker.connector.holdings() });
        // A pod that the API server has forgotten may answer for a while, and then no more.
        worker.connector.doubt_gone(&worker.node.store.load());
        if ticks.is_multiple_of(TICKS_PER_LOOK) {
            worker.inbound.end_expired().await;
            renew_tunnels(&worker, &mut serials);
            worker.connector.forget_peers();
        }
    }
}

/// New streams of a pod with a new certificate go through new tunnels, long before the old certificate ends.
fn renew_tunnels(worker: &Worker, serials: &mut HashMap<SandboxId, String>) {
    let mut now = HashMap::new();
    for pod in worker.pods.all() {
        let Ok(svid) = pod.pod.lease.current() else { continue };
        let sandbox = &pod.pod.sandbox;
        if serials.get(sandbox).is_some_and(|serial| serial != svid.serial()) {
            worker.connector.renew_tunnels_of(sandbox);
        }
        now.insert(sandbox.clone(), svid.serial().to_owned());
    }
    *serials = now;
}

/// Accept loops by pod.
#[derive(Default)]
struct Listeners(RefCell<HashMap<SandboxId, Vec<AbortHandle>>>);

impl Listeners {
    fn add(&self, sandbox: SandboxId, task: AbortHandle) {
        self.0.borrow_mut().entry(sandbox).or_default().push(task);
    }

    fn close(&self, sandbox: &SandboxId) {
        self.0.borrow_mut().remove(sandbox).into_iter().flatten().for_each(|task| task.abort());
    }

    fn close_all(&self) {
        self.0.borrow_mut().drain().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
    }
}
