//! Datagrams of clients from outside.
//!
//! ```text
//!  listener's socket --recv--> session of the client's address --send--> endpoint
//!                   <--send_to-- the session's task <--recv-- (a connected socket of the session's own)
//! ```
//!
//! What UDP has of connections is here: a session is one client's address and port at one place. Its endpoint is picked
//! once, by the weights of the listener's UDPRoute, and stays until nothing has passed for a while, the endpoint says that
//! nobody listens, or it is gone from its Service. Nothing is queued: a datagram that a socket doesn't take at once is lost,
//! as in the network.
//!
//! Sessions end with their place: what they hold of its socket must not outlive it, or the kernel would give it datagrams
//! that nobody reads.

mod room;
mod session;
mod socket;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet, spawn_local};
use tokio::time::{Instant, sleep};
use weft_core::gateway::Bind;
use weft_core::ids::{Port, ServicePortKey};
use weft_core::policy::Mode;
use weft_core::reason::Reason;
use weft_core::service::{EndpointHealth, HashKey};
use weft_core::snapshot::{Frontend, RouteSet, Snapshot};
use weft_core::workload::Enrolment;

use crate::authorize::gateway::{AtListener, Judged, judge};
use crate::balance::{Ask, InFlight, Picked, hash_ip};
use crate::connect::{Standing, Target, Transport, resolve};
use crate::identify::LocalWorkload;
use crate::inpod::ListenerRole;
use crate::observe::{Connection, Direction, Observer};
use crate::route::backend_of;
use crate::worker::Worker;
pub(super) use room::Room;
use room::{Slot, quietest};
use session::{Begun, Session, Sessions, answer};
use socket::{Ends, Listener};

/// Sessions of one place on one worker; those that come when there are so many take the place of quiet ones.
const SESSIONS: usize = 4096;
/// Datagrams that one socket gives before others get a turn.
const TAKEN_PER_TURN: u32 = 32;
/// No datagram is longer.
const MAX_DATAGRAM: usize = 65_535;
/// How long receiving pauses when the listener's socket fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens this worker's sockets of a place, and serves it until the tasks are aborted.
///
/// # Errors
/// What the kernel says: the place is another program's, or the address not this machine's.
pub(super) fn open(worker: &Rc<Worker>, source: &Rc<LocalWorkload>, bind: Bind) -> io::Result<Vec<AbortHandle>> {
    let start = |socket| {
        let (worker, source, socket) = (Rc::clone(worker), Rc::clone(source), Rc::new(socket));
        let (sessions, counted) = (Rc::default(), Rc::default());
        let front = Front { worker, source, bind, socket, sessions, counted, tasks: JoinSet::new() };
        spawn_local(front.run()).abort_handle()
    };
    Ok(sockets(bind)?.into_iter().map(start).collect())
}

/// Of each family that the machine has, if no address is asked for.
fn sockets(bind: Bind) -> io::Result<Vec<Listener>> {
    let families: &[IpAddr] = match &bind.address {
        Some(address) => std::slice::from_ref(address),
        None => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    let (mut open, mut missing) = (Vec::new(), None);
    for address in families {
        match Listener::new(SocketAddr::new(*address, bind.port.get())) {
            Ok(socket) => open.push(socket),
            Err(error) if bind.address.is_none() && weft_sys::sock::is_family_missing(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if open.is_empty() => Err(error),
        _ => Ok(open),
    }
}

/// One socket of a place.
struct Front {
    worker: Rc<Worker>,
    source: Rc<LocalWorkload>,
    bind: Bind,
    socket: Rc<Listener>,
    sessions: Rc<Sessions>,
    /// Held by each session that counts.
    counted: Rc<()>,
    /// Of the sessions: aborted with this.
    tasks: JoinSet<()>,
}

/// Why a datagram begins no session, as far as that is told here.
enum Shed {
    /// Told already.
    Told,
    /// To be told with the record.
    Refused(Box<Connection>, Reason),
}

impl Front {
    async fn run(mut self) {
        let mut versions = self.worker.node.store.subscribe();
        let mut datagram = vec![0; MAX_DATAGRAM];
        let socket = Rc::clone(&self.socket);
        loop {
            tokio::select! {
                ready = socket.readable() => {
                    if let Err(error) = ready.and_then(|()| self.take(&mut datagram)) {
                        tracing::warn!(gateway = %self.source.uid(), bind = %self.bind, "receiving pauses {PAUSE:?}: {error}");
                        sleep(PAUSE).await;
                    }
                    tokio::task::yield_now().await;
                }
                Some(_) = self.tasks.join_next() => {}
                Ok(()) = versions.changed() => self.end_gone(),
            }
        }
    }

    /// What there is, up to a turn's worth.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..TAKEN_PER_TURN {
            match self.socket.try_receive(buffer) {
                Poll::Ready(Ok((length, ends))) => self.pass(ends, buffer.get(..length).unwrap_or_default()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// To the endpoint of the client's session; if nobody listens there any more, once to another one.
    fn pass(&mut self, ends: Ends, datagram: &[u8]) {
        for _ in 0..2 {
            let known = self.sessions.borrow().get(&ends).and_then(Weak::upgrade).filter(|it| !it.is_over());
            let session = match known.map_or_else(|| self.begin(ends), Ok) {
                Ok(session) => session,
                Err(Shed::Told) => return,
                Err(Shed::Refused(record, reason)) => {
                    tracing::debug!(client = %ends.client, bind = %self.bind, reason = reason.as_str(), "datagram refused");
                    return self.worker.observer.refused(&record, reason);
                }
            };
            if session.send(datagram) {
                return;
            }
        }
    }

    fn record(&self, snapshot: &Snapshot, Ends { client, local }: Ends) -> Connection {
        let address = local.or(self.bind.address).unwrap_or_else(|| weft_sys::sock::unspecified(client.ip()));
        Connection {
            direction: Direction::Outbound,
            workload: self.source.workload(snapshot),
            remote: None,
            identity: None,
            service: None,
            client: weft_sys::sock::canonical(client),
            destination: SocketAddr::new(address, self.bind.port.get()),
            endpoint: None,
            transport: "none",
            http: false,
        }
    }

    fn begin(&mut self, ends: Ends) -> Result<Rc<Session>, Shed> {
        let snapshot = self.worker.node.store.load_full();
        let mut record = self.record(&snapshot, ends);
        let slot = match self.slot().or_else(|_full| {
            self.make_room();
            self.slot()
        }) {
            Ok(slot) => slot,
            Err(reason) => {
                self.worker.observer.shed(&record.workload, ListenerRole::Outbound, reason);
                return Err(Shed::Told);
            }
        };
        if let Some(why) = self.judged(&snapshot, ends.client.ip(), Some(&*self.worker.observer)).why_not() {
            self.worker.observer.refused_because(&record, Reason::PolicyDenied, &why);
            return Err(Shed::Told);
        }
        let begun = self.backend(&snapshot).and_then(|frontend| {
            record.service = Some(frontend.key.clone());
            let (target, flight) = self.endpoint(&snapshot, &frontend, ends.client)?;
            record.endpoint = Some(target.address);
            record.remote.clone_from(&target.workload);
            let upstream = reach(&snapshot, &target)?;
            record.transport = Transport::Plain.as_str();
            Ok((frontend.key.clone(), target.address, upstream, flight))
        });
        let (service, endpoint, upstream, flight) = match begun {
            Ok(begun) => begun,
            Err(reason) => return Err(Shed::Refused(Box::new(record), reason)),
        };
        let (worker, sessions) = (Rc::clone(&self.worker), Rc::downgrade(&self.sessions));
        let begun = Begun { ends, service, endpoint, upstream, record, flight, slot: Cell::new(Some(slot)) };
        Ok(self.start(Session::new(begun, worker, sessions)))
    }

    fn slot(&self) -> Result<Slot, Reason> {
        if Rc::strong_count(&self.counted) > SESSIONS {
            return Err(Reason::LimitConnections);
        }
        let node = &self.worker.node;
        let of_proxy = node.gateways.sessions().take(node.budget.max_connections());
        Ok(Slot {
            _of_proxy: of_proxy.ok_or(Reason::LimitConnections)?,
            _connection: self.source.pod.budget.connection()?,
            _of_place: Rc::clone(&self.counted),
        })
    }

    fn make_room(&self) {
        let all: Vec<_> = self.sessions.borrow().values().filter_map(Weak::upgrade).collect();
        let all = all.into_iter().filter(|session| !session.is_over());
        for session in quietest(all.map(|session| (session.is_answered(), session.last(), session)).collect()) {
            session.end(Reason::LimitConnections);
        }
    }

    /// Whether the listener's policies let a client in. Datagrams aren't looked at: what asks about requests fails closed.
    fn judged(&self, snapshot: &Snapshot, client: IpAddr, told: Option<&dyn Observer>) -> Judged {
        let found = snapshot.gateway_port(&self.bind).and_then(|port| port.listeners.find(""));
        // Whether there is one is for others to say.
        let Some(found) = found else { return Judged::Allowed };
        let gateway = self.source.workload(snapshot);
        let client = client.to_canonical();
        judge(snapshot, &AtListener { gateway: &gateway, listener: &found.listener, client, http: None, told })
    }

    /// By the weights of the route.
    fn backend(&self, snapshot: &Snapshot) -> Result<Arc<Frontend>, Reason> {
        let port = snapshot.gateway_port(&self.bind).ok_or(Reason::NoListener)?;
        let listener = port.listeners.find("").ok_or(Reason::NoListener)?;
        match &listener.routes {
            RouteSet::Udp(table) => backend_of(snapshot, table, None),
            RouteSet::None | RouteSet::Http(_) | RouteSet::Tls(_) | RouteSet::Tcp(_) => Err(Reason::NoRoute),
        }
    }

    fn endpoint(
        &self,
        snapshot: &Snapshot,
        frontend: &Arc<Frontend>,
        client: SocketAddr,
    ) -> Result<(Target, InFlight), Reason> {
        let now = Instant::now();
        let balancer = self.worker.balancers.get(frontend, now);
        let hash = match balancer.hash_key() {
            Some(HashKey::ClientIp) => Some(hash_ip(client.ip())),
            Some(HashKey::Header(_) | HashKey::Cookie(_)) | None => None,
        };
        let ask = Ask { client: client.ip(), hash, tried: &[], now, random: fastrand::u64(..) };
        let Picked { entry, flight } = balancer.pick(&ask).ok_or(Reason::NoEndpoint)?;
        let network_policy = self.source.pod.under_network_policy(snapshot);
        Ok((resolve(snapshot, &entry, Standing { node: &self.worker.node.name, network_policy }), flight))
    }

    fn start(&mut self, session: Session) -> Rc<Session> {
        let session = Rc::new(session);
        self.sessions.borrow_mut().insert(session.ends(), Rc::downgrade(&session));
        self.tasks.spawn_local(answer(Rc::clone(&session), Rc::clone(&self.socket)));
        session
    }

    /// Ends sessions whose endpoint is gone; their clients' next datagrams go elsewhere. And those that policies deny now.
    fn end_gone(&self) {
        let snapshot = self.worker.node.store.load_full();
        let all: Vec<_> = self.sessions.borrow().values().filter_map(Weak::upgrade).collect();
        for session in all {
            if !session.is_at(|service, endpoint| is_there(&snapshot, service, endpoint)) {
                session.end(Reason::NoEndpoint);
            } else if matches!(self.judged(&snapshot, session.ends().client.ip(), None), Judged::Denied(_)) {
                session.end(Reason::PolicyRevoked);
            }
        }
    }
}

fn is_there(snapshot: &Snapshot, service: &ServicePortKey, endpoint: SocketAddr) -> bool {
    let usable = |frontend: &Frontend| {
        let entries = &frontend.endpoints.entries;
        entries.iter().any(|entry| entry.address == endpoint && entry.health != EndpointHealth::NotReady)
    };
    snapshot.frontend(service).is_some_and(|frontend| usable(frontend))
}

/// A socket to an endpoint. The mesh carries no datagrams: a workload that is in it and takes nothing in the clear gets none.
fn reach(snapshot: &Snapshot, target: &Target) -> Result<UdpSocket, Reason> {
    if target.transport == Transport::Unknown {
        return Err(Reason::UnknownDestination);
    }
    let enrolled = target.workload.as_ref().filter(|workload| workload.enrolment == Enrolment::Enrolled);
    if let (Some(workload), Some(port)) = (enrolled, Port::new(target.address.port()))
        && snapshot.mode_for(workload, port) == Mode::Strict
    {
        return Err(Reason::PlaintextRefused);
    }
    connect(target.address).map_err(|error| {
        tracing::debug!(endpoint = %target.address, "no socket for datagrams: {error}");
        Reason::ConnectFailed
    })
}

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    UdpSocket::from_std(socket.into())
}
