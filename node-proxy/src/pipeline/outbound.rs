//! Outbound: accept, identify (the listener's pod), route, connect, relay.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use weft_core::gateway::Bind;
use weft_core::inpod::OUTBOUND_PORT;
use weft_core::matching::L4Table;
use weft_core::plan::ConnectionPlan;
use weft_core::reason::Reason;
use weft_core::service::HashKey;
use weft_core::snapshot::{Frontend, Snapshot};
use weft_hbone::relay::{Side, Socket};
use weft_tls::BackendClient;

use super::{ClientStream, reset};
use crate::authorize::gateway::Admitted;
use crate::balance::{Ask, Outcome, Picked, hash_ip};
use crate::connect::{
    ConnectError, Dial, ProxyHeader, Retry, Standing, Target, UpstreamStream, open, resolve, to_workload,
};
use crate::identify::LocalWorkload;
use crate::observe::{Connection, Direction, Ended};
use crate::relay::front::{GatewayConnection, OutboundConnection};
use crate::relay::tcp::{Terms, relay};
use crate::route::{self, Hello, read_client_hello};
use crate::worker::Worker;

/// Endpoints that one connection tries before it gives up.
const ATTEMPTS: usize = 3;

/// Serves a connection that a pod opened.
pub(super) async fn serve(worker: &Rc<Worker>, source: &Rc<LocalWorkload>, stream: TcpStream, client: SocketAddr) {
    let destination = match source.pod.net.original_destination(&stream) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::debug!(workload = %source.uid(), %client, "a connection without a destination: {error}");
            return reset(&stream);
        }
    };
    let call = Call { worker, source, client, destination, bind: None, admitted: None };
    if is_loop(&stream, destination) {
        return call.refuse(&stream.into(), &call.record(), Reason::Loop);
    }
    let plan = route::plan(&worker.node.store, source, destination).await;
    let place = worker.balancers.place();
    if place.is_zone_unknown() {
        place.learn(&source.workload(&worker.node.store.load()));
    }
    match plan {
        ConnectionPlan::Http { frontend, .. } => {
            let source = Rc::clone(source);
            let connection = OutboundConnection { source, client, destination, frontend };
            worker.http.outbound(stream, connection).await;
        }
        ConnectionPlan::Tcp { frontend, table } => {
            call.to_frontend(stream.into(), Hello::default(), &frontend, table.as_deref()).await;
        }
        ConnectionPlan::Tls { frontend, table } => {
            let mut stream = stream;
            // An error means that the client is gone.
            let Ok(hello) = read_client_hello(&mut stream, worker.node.limits.client_hello).await else { return };
            call.to_frontend(stream.into(), hello, &frontend, Some(&table)).await;
        }
        ConnectionPlan::Workload { workload, destination } => {
            let target = {
                let snapshot = worker.node.store.load();
                to_workload(&snapshot, &workload, destination, call.standing(&snapshot))
            };
            call.to_target(stream.into(), target).await;
        }
        ConnectionPlan::Passthrough { .. } => call.pass(stream.into()).await,
        ConnectionPlan::Refuse(reason) => call.refuse(&stream.into(), &call.record(), reason),
        // The plan has waited long enough.
        ConnectionPlan::AwaitConfig => call.refuse(&stream.into(), &call.record(), Reason::UnknownDestination),
    }
}

/// What is relayed as bytes at a Gateway.
pub(crate) struct AtGateway<'a> {
    pub(crate) stream: ClientStream,
    /// The name that was asked for, and what was read already.
    pub(crate) hello: Hello,
    /// TLS of the client's, which is passed through as it is: none is added to it.
    pub(crate) passthrough: bool,
    /// The routes of the listener.
    pub(crate) table: Option<&'a L4Table>,
    /// That it may, and for how long.
    pub(crate) admitted: &'a Admitted,
}

/// Relays a connection of a client from outside, by the routes of a Gateway's listener.
pub(crate) async fn relay_at_gateway(worker: &Rc<Worker>, connection: &GatewayConnection, at: AtGateway<'_>) {
    let AtGateway { stream, hello, passthrough, table, admitted } = at;
    let bind = (!passthrough).then_some(connection.bind);
    let (client, destination) = (connection.client, connection.local);
    let call = Call { worker, source: &connection.source, client, destination, bind, admitted: Some(admitted) };
    let name = hello.server_name.as_deref();
    let found =
        table.ok_or(Reason::NoRoute).and_then(|table| route::backend_of(&worker.node.store.load(), table, name));
    match found {
        Ok(frontend) => {
            let record = Connection { service: Some(frontend.key.clone()), ..call.record() };
            call.to_endpoint(stream, &hello.bytes, &frontend, record).await;
        }
        Err(reason) => call.refuse(&stream, &call.record(), reason),
    }
}

/// Whether the client dialled our own listener: nothing redirected it, or it named the port on the loopback device.
fn is_loop(stream: &TcpStream, destination: SocketAddr) -> bool {
    let local = stream.local_addr().map(weft_sys::sock::canonical);
    destination.port() == OUTBOUND_PORT && (destination.ip().is_loopback() || local.is_ok_and(|a| a == destination))
}

/// One connection on its way out.
struct Call<'a> {
    worker: &'a Rc<Worker>,
    source: &'a Rc<LocalWorkload>,
    client: SocketAddr,
    destination: SocketAddr,
    /// The place of a Gateway that it came to, if the Gateway is to speak TLS where backends do.
    bind: Option<Bind>,
    /// It came to a Gateway, which let it in.
    admitted: Option<&'a Admitted>,
}

impl Call<'_> {
    fn record(&self) -> Connection {
        Connection {
            direction: Direction::Outbound,
            workload: self.source.workload(&self.worker.node.store.load()),
            remote: None,
            identity: None,
            service: None,
            client: self.client,
            destination: self.destination,
            endpoint: None,
            transport: "none",
            http: false,
        }
    }

    fn standing(&self, snapshot: &Snapshot) -> Standing<'_> {
        let network_policy = self.source.pod.under_network_policy(snapshot);
        Standing { node: &self.worker.node.name, network_policy }
    }

    fn refuse(&self, stream: &ClientStream, record: &Connection, reason: Reason) {
        tracing::debug!(workload = %record.workload.uid, destination = %self.destination, reason = reason.as_str(),
            "outbound connection refused");
        self.worker.observer.refused(record, reason);
        stream.reset();
    }

    /// To one of the endpoints of a Service that was dialled, or of what its routes say.
    async fn to_frontend(&self, stream: ClientStream, hello: Hello, dialled: &Arc<Frontend>, table: Option<&L4Table>) {
        let record = Connection { service: Some(dialled.key.clone()), ..self.record() };
        let name = hello.server_name.as_deref();
        match route::frontend_of(&self.worker.node.store.load(), dialled, table, name) {
            Ok(frontend) => self.to_endpoint(stream, &hello.bytes, &frontend, record).await,
            Err(reason) => self.refuse(&stream, &record, reason),
        }
    }

    /// To one of a Service's endpoints. One that can't be reached is replaced while nothing was sent.
    async fn to_endpoint(&self, stream: ClientStream, first: &[u8], frontend: &Arc<Frontend>, mut record: Connection) {
        let node = &self.worker.node;
        let balancer = self.worker.balancers.get(frontend, Instant::now());
        let mut tried = SmallVec::<[SocketAddr; ATTEMPTS]>::new();
        let (mut reason, mut attempts) = (Reason::NoEndpoint, 0);
        while attempts < ATTEMPTS {
            let hash = balancer.hash_key().and_then(|key| self.hash(&key));
            let now = Instant::now();
            let ask = Ask { client: self.client.ip(), hash, tried: &tried, now, random: fastrand::u64(..) };
            let Some(Picked { entry, flight }) = balancer.pick(&ask) else { break };
            let target = {
                let snapshot = node.store.load();
                let target = resolve(&snapshot, &entry, self.standing(&snapshot));
                self.tls(&snapshot, frontend).map(|tls| Target { tls, proxy: self.proxy(frontend), ..target })
            };
            let dialled = match &target {
                Ok(target) => {
                    describe(&mut record, target);
                    open(&*self.worker.connector, self.source, target).await
                }
                Err(error) => Err(error.clone()),
            };
            if flight.learn(outcome(&dialled), Instant::now(), fastrand::u64(..)) {
                self.worker.observer.ejected(&frontend.key);
            }
            match dialled {
                Ok(upstream) => {
                    self.carry(stream, first, upstream, record).await;
                    return flight.finish();
                }
                Err(error) => {
                    reason = self.failed(&error);
                    if error.retryable() == Retry::Pointless {
                        break;
                    }
                    let skipped = target.is_ok_and(|target| target.is_skipped(&tried));
                    attempts += usize::from(!skipped);
                    tried.push(entry.address);
                }
            }
        }
        self.refuse(&stream, &record, reason);
    }

    /// TLS that the endpoints speak themselves, as far as it is for us to speak it.
    fn tls(&self, snapshot: &Snapshot, frontend: &Frontend) -> Result<Option<BackendClient>, ConnectError> {
        let Some(bind) = &self.bind else { return Ok(None) };
        let found = self.worker.backends.of(snapshot, bind, &frontend.key, None);
        found.map_err(|why| ConnectError::InvalidBackendTls { backend: frontend.key.clone(), why })
    }

    /// What endpoints are told of the client, if they want to be.
    fn proxy(&self, frontend: &Frontend) -> Option<ProxyHeader> {
        let version = frontend.service.proxy_protocol.filter(|_| self.admitted.is_some())?;
        Some(ProxyHeader::new(version, self.client, self.destination))
    }

    /// What a consistent hash is taken of: of a connection only the client's address is known.
    fn hash(&self, key: &HashKey) -> Option<u64> {
        match key {
            HashKey::ClientIp => Some(hash_ip(self.client.ip())),
            HashKey::Header(_) | HashKey::Cookie(_) => None,
        }
    }

    async fn to_target(&self, stream: ClientStream, target: Target) {
        let mut record = self.record();
        describe(&mut record, &target);
        match self.worker.connector.dial(self.source, &target).await {
            Ok(upstream) => self.carry(stream, &[], upstream, record).await,
            Err(error) => self.refuse(&stream, &record, self.failed(&error)),
        }
    }

    /// Not ours: as the pod would have connected itself.
    async fn pass(&self, stream: ClientStream) {
        let remote = self.worker.node.store.load().workload_at(self.destination.ip()).cloned();
        let record = Connection { remote, transport: "passthrough", ..self.record() };
        let own = Some(self.client.ip()).filter(|ip| self.source.pod.has_address(*ip));
        match self.worker.connector.plain(self.source, own, self.destination).await {
            Ok(upstream) => {
                let record = Connection { endpoint: Some(self.destination), ..record };
                self.carry(stream, &[], upstream, record).await;
            }
            Err(error) => self.refuse(&stream, &record, self.failed(&error)),
        }
    }

    fn failed(&self, error: &ConnectError) -> Reason {
        tracing::debug!(workload = %self.source.uid(), destination = %self.destination, "{error}");
        error.reason()
    }

    /// Relays to the end, what was read already first.
    async fn carry(&self, stream: ClientStream, first: &[u8], mut upstream: UpstreamStream, record: Connection) {
        if !first.is_empty() && upstream.write_all(first).await.is_err() {
            return self.refuse(&stream, &record, Reason::UpstreamReset);
        }
        let observer = &self.worker.observer;
        observer.opened(&record);
        let since = Instant::now();
        let mut ended = self.bytes(stream, upstream).await;
        ended.received += first.len() as u64;
        observer.closed(&record, &ended, since.elapsed());
    }

    async fn bytes(&self, stream: ClientStream, upstream: UpstreamStream) -> Ended {
        match stream {
            ClientStream::Tcp(tcp) => self.between(Socket::new(tcp), upstream).await,
            // Boxed: most connections are not of this kind, and a future is as big as its rarest way.
            ClientStream::Tls(tls) => Box::pin(self.between(Socket::new(*tls), upstream)).await,
        }
    }

    async fn between(&self, mut client: impl Side, upstream: UpstreamStream) -> Ended {
        let (idle, budget) = (self.worker.node.limits.idle, &self.source.pod.budget);
        let terms = Terms { idle, permission: None, admitted: self.admitted, budget };
        match upstream {
            UpstreamStream::Tunnel(mut tunnel) => relay(&mut client, &mut tunnel, terms).await,
            UpstreamStream::Tcp(tcp) => relay(&mut client, &mut Socket::new(tcp), terms).await,
            UpstreamStream::Tls(tls) => Box::pin(relay(&mut client, &mut Socket::new(*tls), terms)).await,
            UpstreamStream::Pipe(pipe) => relay(&mut client, &mut Socket::new(pipe), terms).await,
            UpstreamStream::Local(local) => {
                let (tcp, end) = local.into_parts();
                let terms = Terms { permission: Some(end.permission()), ..terms };
                let ended = relay(&mut client, &mut Socket::new(tcp), terms).await;
                end.finish(ended);
                ended
            }
        }
    }
}

/// What a dial says about its endpoint; a failure of ours says nothing.
fn outcome(dialled: &Result<UpstreamStream, ConnectError>) -> Outcome {
    match dialled {
        Ok(_) => Outcome::Answered,
        Err(error) if error.retryable() == Retry::NeverSent => Outcome::Failed,
        Err(_) => Outcome::Unknown,
    }
}

fn describe(record: &mut Connection, target: &Target) {
    record.endpoint = Some(target.address);
    record.transport = target.transport.as_str();
    record.remote.clone_from(&target.workload);
    record.identity = match &target.transport {
        crate::connect::Transport::Hbone { expected } => Some(expected.clone()),
        crate::connect::Transport::Local { .. } => target.workload.as_ref().map(|w| w.identity.clone()),
        crate::connect::Transport::Plain | crate::connect::Transport::Unknown => None,
    };
}
