//! What the HTTP exchanges of one worker share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_core::reason::Reason;
use weft_core::snapshot::{EndpointEntry, Snapshot};
use weft_core::telemetry::Telemetry;
use weft_tls::BackendClient;

use super::told::Told;
use super::wire::{End, Watched};
use crate::balance::Balancers;
use crate::connect::http_pool::{Pool, PoolSettings};
use crate::connect::{BackendClients, Dial, Standing, Target, Transport};
use crate::gateway::QuicPlaces;
use crate::identify::LocalWorkload;
use crate::observe::Observer;
use crate::records::Ring;
use crate::store::Store;
use crate::telemetry::{AccessLog, EventLabels, Recorder, families};
use crate::util::FastHash;

/// How long a draining worker waits for the next request of an idle HTTP/1 connection, to answer it with
/// `Connection: close`, before it ends the connection itself.
const LINGER: Duration = Duration::from_secs(5);

/// How a client gets to an endpoint: a pure function.
pub type Resolve = fn(&Snapshot, &EndpointEntry, Standing<'_>) -> Target;

/// Limits of HTTP connections.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// Bytes of a request's head; over it: 431.
    pub max_header_bytes: usize,
    /// Headers of a request; over it: 431.
    pub max_headers: usize,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// How long the body of a request may pause before there is an answer, except gRPC's; up to twice that: 408.
    pub body_timeout: Option<Duration>,
    /// A connection without a request for so long is closed.
    pub idle_timeout: Duration,
    /// The same with HTTP/3. Shorter, because until then a connection is kept alive on its way by datagrams, which wake up whoever
    /// gets them; coming back costs a client one round trip more.
    pub http3_idle_timeout: Duration,
    /// How long a client of HTTP/3 may take nothing of an answer.
    pub http3_stall_timeout: Duration,
    /// How long connecting to an application may take.
    pub connect_timeout: Duration,
    /// HTTP/2 streams at once on one connection.
    pub max_streams: u32,
    /// Upstream connections.
    pub pool: PoolSettings,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            max_header_bytes: 60 * 1024,
            max_headers: 100,
            header_timeout: Duration::from_secs(30),
            body_timeout: Some(Duration::from_secs(300)),
            idle_timeout: Duration::from_secs(3600),
            http3_idle_timeout: Duration::from_secs(60),
            http3_stall_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            max_streams: 250,
            pool: PoolSettings::default(),
        }
    }
}

fn wall() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// What an engine is made of.
pub struct EngineParts {
    /// The configuration.
    pub store: Arc<Store>,
    /// Streams to endpoints.
    pub dial: Rc<dyn Dial>,
    /// How to get to an endpoint.
    pub resolve: Resolve,
    /// Endpoint choice.
    pub balancers: Balancers,
    /// Metrics of this worker.
    pub recorder: Rc<Recorder>,
    /// Told of connections.
    pub observer: Rc<dyn Observer>,
    /// The access log.
    pub log: AccessLog,
    /// Where requests of late are kept.
    pub ring: Arc<Ring>,
    /// Where HTTP/3 is listened for.
    pub http3: QuicPlaces,
    /// Limits.
    pub settings: HttpSettings,
}

/// The HTTP engine of one worker.
pub struct Engine {
    pub(super) store: Arc<Store>,
    view: RefCell<View>,
    resolve: Resolve,
    pub(super) balancers: Balancers,
    pub(super) pool: Rc<Pool>,
    pub(super) recorder: Rc<Recorder>,
    pub(super) observer: Rc<dyn Observer>,
    pub(super) log: AccessLog,
    told: Told,
    pub(super) ring: Arc<Ring>,
    pub(super) http3: QuicPlaces,
    pub(super) settings: HttpSettings,
    targets: RefCell<Targets>,
    pub(super) backends: BackendClients,
    clock: Rc<Cell<Instant>>,
    watched: RefCell<Vec<Weak<Watched>>>,
    draining: Cell<Option<Instant>>,
    /// Seconds since the Unix epoch.
    pub(super) wall: Cell<fn() -> u64>,
}

/// By the address of the entry's allocation, which the map keeps alive, whether for clients under a NetworkPolicy, and with
/// which TLS.
type Targets = HashMap<(usize, bool, usize), (Rc<EndpointEntry>, Rc<Target>), FastHash>;

/// A snapshot that this worker holds: cloning it touches no counter of another core.
pub(super) type View = Rc<Arc<Snapshot>>;

impl Engine {
    /// An engine; [`Engine::watch`] must run beside it.
    pub fn new(parts: EngineParts) -> Rc<Self> {
        let view = Rc::new(Arc::clone(&parts.store.load()));
        Rc::new(Self {
            view: RefCell::new(view),
            store: parts.store,
            resolve: parts.resolve,
            balancers: parts.balancers,
            pool: Pool::new(parts.dial, parts.settings.pool),
            recorder: parts.recorder,
            observer: parts.observer,
            told: Told::new(parts.log.defaults().clone()),
            log: parts.log,
            ring: parts.ring,
            http3: parts.http3,
            settings: parts.settings,
            targets: RefCell::default(),
            backends: BackendClients::default(),
            clock: Rc::new(Cell::new(Instant::now())),
            watched: RefCell::default(),
            draining: Cell::new(None),
            wall: Cell::new(wall),
        })
    }

    /// The time that sessions are measured by, which other proxies agree on: seconds since the Unix epoch.
    pub(super) fn unix_now(&self) -> u64 {
        self.wall.get()()
    }

    /// The latest snapshot.
    pub(super) fn view(&self) -> View {
        let latest = self.store.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(&latest, &view) {
            *view = Rc::new(Arc::clone(&latest));
            self.targets.borrow_mut().clear();
            self.told.clear();
        }
        Rc::clone(&view)
    }

    /// What is told of a pod's requests, or a Gateway's.
    pub(super) fn told(&self, pod: &LocalWorkload) -> Rc<Telemetry> {
        self.told.of(&self.view(), pod)
    }

    /// How a pod gets to an endpoint, and what is spoken there.
    pub(super) fn target(
        &self,
        view: &View,
        entry: &Rc<EndpointEntry>,
        source: &LocalWorkload,
        tls: Option<&BackendClient>,
    ) -> Rc<Target> {
        let target = self.known_target(view, entry, false, tls);
        // Only the way through memory depends on who asks.
        if matches!(target.transport, Transport::Local { .. }) && source.pod.under_network_policy(view) {
            return self.known_target(view, entry, true, tls);
        }
        target
    }

    /// Worked out once for each snapshot.
    fn known_target(
        &self,
        view: &View,
        entry: &Rc<EndpointEntry>,
        network_policy: bool,
        tls: Option<&BackendClient>,
    ) -> Rc<Target> {
        // The target keeps the client, so that its address is nobody else's.
        let key = (Rc::as_ptr(entry).addr(), network_policy, tls.map_or(0, BackendClient::addr));
        // The view may be older than the map by now: then it is worked out anew, and not kept.
        let current = Rc::ptr_eq(view, &self.view.borrow());
        if current && let Some((_, target)) = self.targets.borrow().get(&key) {
            return Rc::clone(target);
        }
        let client = Standing { node: &self.balancers.place().node, network_policy };
        let target = Rc::new(Target { tls: tls.cloned(), ..(self.resolve)(view, entry, client) });
        if current {
            self.targets.borrow_mut().insert(key, (Rc::clone(entry), Rc::clone(&target)));
        }
        target
    }

    /// Registers a connection, so that its limits are watched and a drain reaches it.
    pub(super) fn register(&self) -> Rc<Watched> {
        self.clock.set(Instant::now());
        let watched = Rc::new(Watched::new(&self.clock));
        if self.draining.get().is_some() {
            watched.end(End::Gracefully);
        }
        self.watched.borrow_mut().push(Rc::downgrade(&watched));
        watched
    }

    /// Ends every connection after what is under way on it: HTTP/1 by `Connection: close` on its next answer, or when no
    /// request came for a while; HTTP/2 by GOAWAY.
    pub fn drain(&self) {
        self.draining.set(Some(Instant::now()));
        for watched in self.watched.borrow().iter().filter_map(Weak::upgrade) {
            watched.end(End::Gracefully);
        }
    }

    /// Connections open downstream.
    pub fn connections(&self) -> usize {
        self.watched.borrow().iter().filter(|watched| watched.strong_count() > 0).count()
    }

    /// Idle HTTP/1 and open HTTP/2 connections upstream.
    pub fn pooled(&self) -> (usize, usize) {
        let (idle, h2, _) = self.pool.sizes();
        (idle, h2)
    }

    /// Forgets a pod that left.
    pub fn forget(&self, source: &Rc<LocalWorkload>) {
        self.pool.forget(source);
    }

    fn gauges(&self, now: Instant) {
        let (idle, h2, streams) = self.pool.sizes();
        for (family, value) in [
            (&families::HTTP_DOWNSTREAM, self.connections()),
            (&families::HTTP_UPSTREAM_IDLE, idle),
            (&families::HTTP_UPSTREAM_H2, h2),
            (&families::HTTP_UPSTREAM_STREAMS, streams),
            (&families::ENDPOINTS_EJECTED, self.balancers.ejected(now)),
        ] {
            self.recorder.gauge(&EventLabels::plain(family), value as u64);
        }
    }

    /// Watches limits once a second, for ever.
    pub async fn watch(self: Rc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            let now = tick.tick().await;
            self.clock.set(now);
            self.watched.borrow_mut().retain(|watched| {
                let Some(watched) = watched.upgrade() else { return false };
                if let Some(why) = watched.expired(now, self.settings.header_timeout, self.settings.idle_timeout) {
                    watched.end(End::Now(why));
                } else if !watched.bodies().fit(now) {
                    watched.end(End::Now(Reason::LimitBuffers));
                } else if self.draining.get().is_some_and(|since| watched.is_idle_for(LINGER, since, now)) {
                    watched.end(End::Now(Reason::Draining));
                }
                true
            });
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(5) {
                self.pool.sweep(now);
                self.gauges(now);
            }
            if ticks.is_multiple_of(60) {
                let view = self.view();
                self.balancers.sweep(&view, now);
            }
        }
    }
}
