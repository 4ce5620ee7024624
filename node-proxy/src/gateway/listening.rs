//! The sockets of one worker, brought up to date with the configuration.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;
use weft_core::gateway::{Bind, Transport};
use weft_core::ids::GatewayKey;
use weft_core::snapshot::Snapshot;
use weft_sys::sock::{self, Listen};

use super::Failing;
use super::quic::{self, QuicListening};
use super::serve::{Arrived, serve};
use super::terminate::Terminators;
use crate::accept::classify;
use crate::identify::LocalWorkload;
use crate::inpod::ListenerRole;
use crate::observe::AcceptFailure;
use crate::worker::{CountPanic, Worker};

/// How long accepting pauses when it fails other than for one connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections taken from one listener before the worker's other tasks get a turn.
const TAKEN_PER_TURN: u32 = 16;

/// What a worker listens on.
pub(super) struct Listening {
    worker: Rc<Worker>,
    places: BTreeMap<Bind, Place>,
    sources: BTreeMap<GatewayKey, Rc<LocalWorkload>>,
    terminators: Arc<Terminators>,
    /// Places that failed, and why.
    failing: Failing,
    http3: QuicListening,
}

/// One place: its accept loops, which end with it.
struct Place {
    gateway: GatewayKey,
    loops: Vec<AbortHandle>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.loops.iter().for_each(AbortHandle::abort);
    }
}

impl Listening {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        let terminators = Arc::clone(worker.node.gateways.terminators());
        Self {
            worker,
            places: BTreeMap::new(),
            sources: BTreeMap::new(),
            terminators,
            failing: Failing::new(),
            http3: QuicListening::default(),
        }
    }

    /// Where it can't listen, and why.
    pub(super) fn failing(&self) -> &Failing {
        &self.failing
    }

    /// Whether it has to be tried again to listen somewhere.
    pub(super) fn has_failed(&self) -> bool {
        !self.failing.is_empty() || self.http3.has_failed()
    }

    /// Opens what is new and closes what is gone.
    pub(super) fn bring_up_to_date(&mut self, snapshot: &Snapshot) {
        let wanted: BTreeMap<Bind, GatewayKey> =
            snapshot.gateway_ports().map(|port| (port.bind, port.gateway.clone())).collect();
        // First what is gone, so that another may have its port.
        self.places.retain(|bind, place| wanted.get(bind) == Some(&place.gateway));
        let http3 = quic::wanted(&self.worker, snapshot);
        self.http3.retain(&http3);
        self.failing.retain(|bind, _| wanted.contains_key(bind));
        self.terminators.retain(snapshot);
        for (bind, gateway) in &wanted {
            if !self.places.contains_key(bind) {
                self.open(*bind, gateway);
            }
        }
        for (tcp, gateway) in http3 {
            let source = self.source(&gateway);
            self.http3.open(&self.worker, &source, &self.terminators, (tcp, gateway));
        }
        self.forget(|gateway| !wanted.values().any(|wanted| wanted == gateway));
    }

    fn open(&mut self, bind: Bind, gateway: &GatewayKey) {
        let source = self.source(gateway);
        let opened = match bind.transport {
            Transport::Tcp => sockets(bind).map(|sockets| {
                let accept = |socket| self.accept(bind, &source, socket);
                sockets.into_iter().map(accept).collect()
            }),
            Transport::Udp => super::udp::open(&self.worker, &source, bind),
        };
        match opened {
            Ok(loops) => {
                self.places.insert(bind, Place { gateway: gateway.clone(), loops });
                self.failing.remove(&bind);
                if self.worker.index == 0 {
                    tracing::info!(%gateway, %bind, "listening");
                }
            }
            Err(error) => {
                let before = self.failing.insert(bind, format!("{bind} can't be listened on: {error}"));
                if before.is_none() && self.worker.index == 0 {
                    tracing::error!(%gateway, %bind, "can't listen, tried again every few seconds: {error}; \
                        is another program listening there, or is the address not this machine's?");
                }
            }
        }
    }

    /// This worker's side of a Gateway; from now on its tunnels find it.
    fn source(&mut self, gateway: &GatewayKey) -> Rc<LocalWorkload> {
        if let Some(source) = self.sources.get(gateway) {
            return Rc::clone(source);
        }
        let worker = &self.worker;
        let pod = worker.node.gateways.source(&worker.node, gateway);
        let source = worker.pods.insert(LocalWorkload::new(pod).within(&worker.drain));
        self.sources.insert(gateway.clone(), Rc::clone(&source));
        source
    }

    /// Forgets Gateways that are gone. Their connections go on; what they hold towards endpoints takes nothing new.
    fn forget(&mut self, is_gone: impl Fn(&GatewayKey) -> bool) {
        let gone = self.sources.extract_if(.., |gateway, _| is_gone(gateway));
        for (_, source) in gone {
            let sandbox = &source.pod.sandbox;
            self.worker.pods.remove(sandbox);
            self.worker.http.forget(&source);
            self.worker.connector.renew_tunnels_of(sandbox);
        }
    }

    fn accept(&self, bind: Bind, source: &Rc<LocalWorkload>, socket: tokio::net::TcpListener) -> AbortHandle {
        let (worker, source) = (Rc::clone(&self.worker), Rc::clone(source));
        let terminators = Arc::clone(&self.terminators);
        spawn_local(run(worker, bind, source, terminators, socket)).abort_handle()
    }
}

/// Accepts until the task is aborted.
async fn run(
    worker: Rc<Worker>,
    bind: Bind,
    source: Rc<LocalWorkload>,
    terminators: Arc<Terminators>,
    socket: tokio::net::TcpListener,
) {
    let mut taken = 0_u32;
    loop {
        match socket.accept().await {
            Ok((stream, client)) => {
                let arrived = Arrived { bind, stream, client: sock::canonical(client) };
                take(&worker, &source, &terminators, arrived);
                taken = taken.wrapping_add(1);
                if taken.is_multiple_of(TAKEN_PER_TURN) {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                let class = classify(&error);
                let workload = source.workload(&worker.node.store.load());
                worker.observer.accept_failed(&workload, ListenerRole::Outbound, class);
                if class != AcceptFailure::Connection {
                    tracing::warn!(gateway = %source.uid(), %bind, "accept pauses {PAUSE:?}: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Counts a connection and starts its task; what is over a budget is refused with a reset, so that the client learns it at
/// once and we keep nothing.
fn take(worker: &Rc<Worker>, source: &Rc<LocalWorkload>, terminators: &Arc<Terminators>, arrived: Arrived) {
    let slot = match source.pod.budget.connection() {
        Ok(slot) => slot,
        Err(reason) => {
            // Best effort: a plain close tells the client too.
            let _ = sock::reset_on_close(&arrived.stream);
            let workload = source.workload(&worker.node.store.load());
            return worker.observer.shed(&workload, ListenerRole::Outbound, reason);
        }
    };
    let Some(load) = worker.workers.get(worker.index).map(|handle| handle.take_load()) else { return };
    let (worker, source, terminators) = (Rc::clone(worker), Rc::clone(source), Arc::clone(terminators));
    spawn_local(async move {
        let _counted = (slot, load);
        let _panics = CountPanic { worker: &worker, workload: &source };
        serve(&worker, &source, &terminators, arrived).await;
    });
}

/// The sockets of a place: of each family that the machine has, if no address is asked for.
fn sockets(bind: Bind) -> io::Result<Vec<tokio::net::TcpListener>> {
    let families: &[IpAddr] = match &bind.address {
        Some(address) => std::slice::from_ref(address),
        None => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    let (mut open, mut missing) = (Vec::new(), None);
    for address in families {
        let options = Listen { reuse_port: true, ..Listen::new(SocketAddr::new(*address, bind.port.get())) };
        match sock::listen(None, &options) {
            Ok(socket) => open.push(into_async(socket)?),
            Err(error) if bind.address.is_none() && sock::is_family_missing(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if open.is_empty() => Err(error),
        _ => Ok(open),
    }
}

fn into_async(socket: TcpListener) -> io::Result<tokio::net::TcpListener> {
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}
