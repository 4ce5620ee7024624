//! A worker's engine between an in-memory client and in-memory applications.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::spawn_local;
use weft_core::change::{Change, Resource};
use weft_core::gateway::{Bind, Listener};
use weft_core::ids::{ListenerKey, Port, RouteKey, RouteKind, RuleKey, ServiceKey, ServicePortKey};
use weft_core::policy::WorkloadLimits;
use weft_core::route::*;
use weft_core::service::*;
use weft_core::snapshot::{EndpointEntry, Snapshot};

use crate::balance::{Balancers, NodeZone, Place};
use crate::connect::{ConnectError, Dial, Standing, Target, UpstreamStream, resolve};
use crate::identify::LocalWorkload;
use crate::records::Records;
use crate::relay::front::{GatewayConnection, HttpRelay, OutboundConnection};
use crate::relay::http::{Engine, EngineParts, HttpFront, HttpSettings};
use crate::store::Store;
use crate::telemetry::{AccessLog, LogFormat, LogPolicy, LogQueue, Registry, WorkerTelemetry};

pub(super) type Body = BoxBody<Bytes, Infallible>;
pub(super) type App = Rc<dyn Fn(Request<Incoming>, SocketAddr) -> LocalBoxFuture<'static, Response<Body>>>;
type Raw = Rc<dyn Fn(DuplexStream, SocketAddr)>;

pub(super) struct World {
    pub(super) engine: Rc<Engine>,
    pub(super) store: Arc<Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) net: Rc<Net>,
    source: Rc<LocalWorkload>,
    log: LogQueue,
    /// What is kept of requests.
    pub(super) records: Records,
}

/// The applications, by address; an address without one refuses.
#[derive(Default)]
pub(super) struct Net {
    apps: RefCell<HashMap<SocketAddr, Raw>>,
    down: RefCell<HashSet<SocketAddr>>,
    pub(super) dials: Cell<u32>,
}

impl Dial for Net {
    fn dial<'a>(
        &'a self,
        _source: &'a Rc<LocalWorkload>,
        target: &'a Target,
    ) -> LocalBoxFuture<'a, Result<UpstreamStream, ConnectError>> {
        Box::pin(async move {
            self.dials.set(self.dials.get() + 1);
            let refused = ConnectError::Tcp { to: target.address, kind: std::io::ErrorKind::ConnectionRefused };
            if self.down.borrow().contains(&target.address) {
                return Err(refused);
            }
            let app = self.apps.borrow().get(&target.address).cloned().ok_or(refused)?;
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            app(theirs, target.address);
            Ok(UpstreamStream::Pipe(ours))
        })
    }
}

/// Whoever is sent to this endpoint panics.
pub(super) const PANICS: u8 = 66;

fn resolve_or_panic(snapshot: &Snapshot, entry: &EndpointEntry, client: Standing<'_>) -> Target {
    assert_ne!(entry.address, address(PANICS), "on purpose");
    resolve(snapshot, entry, client)
}

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8080))
}

pub(super) fn key(name: &str) -> ServicePortKey {
    ServicePortKey { service: ServiceKey::new("shop", name), port: Port::new(80).unwrap() }
}

pub(super) fn service(name: &str, protocol: AppProtocol, endpoints: &[u8]) -> Vec<Change> {
    let service = Service {
        key: ServiceKey::new("shop", name),
        addresses: Vec::new(),
        ports: vec![ServicePort { name: "main".into(), port: Port::new(80).unwrap(), protocol }],
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::RoundRobin,
        traffic: None,
    };
    let endpoint = |last: &u8| Endpoint {
        address: address(*last).ip(),
        workload: None,
        health: EndpointHealth::Ready,
        node: None,
        zone: None,
    };
    let slice = EndpointSlice {
        key: SliceKey { namespace: "shop".into(), name: name.into() },
        service: service.key.clone(),
        ports: vec![SlicePort { name: "main".into(), port: Port::new(8080).unwrap() }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    vec![Change::Upsert(Resource::Service(Arc::new(service))), Change::Upsert(Resource::EndpointSlice(Arc::new(slice)))]
}

pub(super) fn backend(name: &str) -> HttpBackend {
    HttpBackend { target: BackendTarget::Service(key(name)), weight: 1, filters: Vec::new() }
}

/// A rule of the Service `web`.
pub(super) fn rule(index: u16, prefix: &str, backends: Vec<HttpBackend>) -> HttpRule {
    HttpRule {
        key: RuleKey { route: RouteKey { kind: RouteKind::Http, namespace: "shop".into(), name: "r".into() }, index },
        name: None,
        created: Created::default(),
        parents: vec![Parent::Service { port: key("web"), consumer: None }],
        hostnames: Vec::new(),
        matches: vec![HttpMatch {
            path: PathMatch::Prefix(prefix.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        filters: Vec::new(),
        action: HttpAction::Forward(backends),
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }
}

pub(super) fn upsert(rule: HttpRule) -> Change {
    Change::Upsert(Resource::Rule(Arc::new(RouteRule::Http(rule))))
}

impl World {
    /// The Service `web` with endpoints 1 and 2, and `other` with endpoint 3.
    pub(super) fn new(changes: Vec<Change>) -> Self {
        Self::with(changes, HttpSettings::default(), LogPolicy::All)
    }

    pub(super) fn with(changes: Vec<Change>, settings: HttpSettings, policy: LogPolicy) -> Self {
        Self::telling(changes, settings, AccessLog::new(policy, LogFormat::Json))
    }

    /// The same with a log of one's own.
    pub(super) fn telling(changes: Vec<Change>, settings: HttpSettings, (log, queue): (AccessLog, LogQueue)) -> Self {
        let mut all = service("web", AppProtocol::Http, &[1, 2]);
        all.extend(service("other", AppProtocol::Http, &[3]));
        all.extend(changes);
        let store = Arc::new(Store::new(Snapshot::default().apply(&all)));
        let registry = Arc::<Registry>::default();
        let recorder = Rc::new(registry.recorder());
        let (net, records) = (Rc::<Net>::default(), Records::default());
        let engine = Engine::new(EngineParts {
            store: Arc::clone(&store),
            dial: Rc::clone(&net) as Rc<dyn Dial>,
            resolve: resolve_or_panic,
            balancers: Balancers::new(Place { node: "n1".into(), zone: NodeZone::default() }, Arc::default()),
            observer: Rc::new(WorkerTelemetry::new(Rc::clone(&recorder), log.clone())),
            recorder,
            log,
            ring: records.ring(),
            http3: Default::default(),
            settings,
        });
        spawn_local(Rc::clone(&engine).watch());
        let source = Rc::new(LocalWorkload::new(crate::plain::fixed_pod()));
        Self { engine, store, registry, net, source, log: queue, records }
    }

    /// The pod that calls.
    pub(super) fn local(&self) -> &Arc<weft_core::workload::Workload> {
        self.source.pod.announced()
    }

    /// What the pod that calls may have of buffers, in bytes.
    pub(super) fn may_hold(&self, bytes: u64) {
        let limits = WorkloadLimits { max_buffer_bytes: Some(bytes), ..WorkloadLimits::default() };
        self.source.pod.budget.set_limits(limits);
    }

    /// What it has of them.
    pub(super) fn holds(&self) -> u64 {
        self.source.pod.budget.usage().buffer_bytes
    }

    /// The pod that calls has left the node.
    pub(super) fn forget(&self) {
        self.engine.forget(&self.source);
    }

    pub(super) fn apply(&self, changes: &[Change]) {
        self.store.apply(changes);
    }

    pub(super) fn down(&self, last: u8, down: bool) {
        if down {
            self.net.down.borrow_mut().insert(address(last));
        } else {
            self.net.down.borrow_mut().remove(&address(last));
        }
    }

    /// An application that speaks whatever version the proxy does.
    pub(super) fn app(&self, last: u8, app: App) {
        self.raw(last, Rc::new(move |stream, address| drop(spawn_local(serve_app(stream, address, Rc::clone(&app))))));
    }

    pub(super) fn raw(&self, last: u8, raw: Raw) {
        self.net.apps.borrow_mut().insert(address(last), raw);
    }

    /// Shows what goes to an application's endpoint from now on.
    pub(super) fn tapped(&self, last: u8, seen: impl Fn(&[u8]) + 'static) {
        let (app, seen) = (self.net.apps.borrow().get(&address(last)).cloned().unwrap(), Rc::new(seen));
        let between = move |stream: DuplexStream, address| {
            let (near, far) = tokio::io::duplex(64 * 1024);
            app(far, address);
            let seen = Rc::clone(&seen);
            drop(spawn_local(async move {
                let ((mut from, mut back), (mut answers, mut to)) = (tokio::io::split(stream), tokio::io::split(near));
                let there = async {
                    let mut bytes = vec![0; 16 << 10];
                    while let Ok(read @ 1..) = from.read(&mut bytes).await {
                        seen(&bytes[..read]);
                        to.write_all(&bytes[..read]).await.ok();
                    }
                    to.shutdown().await.ok();
                };
                let home = async {
                    tokio::io::copy(&mut answers, &mut back).await.ok();
                    back.shutdown().await.ok();
                };
                tokio::join!(there, home);
            }));
        };
        self.raw(last, Rc::new(between));
    }

    /// Bytes to the Service `web`.
    pub(super) fn connect_raw(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let front = HttpFront(Rc::clone(&self.engine));
        let connection = OutboundConnection {
            source: Rc::clone(&self.source),
            client: "10.1.0.1:4000".parse().unwrap(),
            destination: "10.96.0.1:80".parse().unwrap(),
            frontend: Arc::clone(self.store.load().frontend(&key("web")).unwrap()),
        };
        spawn_local(async move { front.serve_outbound(theirs, connection).await });
        ours
    }

    /// A client from outside at port 80 of a Gateway; `listener`: the one that TLS was ended for.
    pub(super) async fn connect_gateway(&self, version: Version, listener: Option<ListenerKey>) -> Client {
        Client::new(self.connect_gateway_raw(listener), version).await
    }

    /// The bytes of such a client.
    pub(super) fn connect_gateway_raw(&self, listener: Option<ListenerKey>) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let front = HttpFront(Rc::clone(&self.engine));
        let connection = GatewayConnection {
            source: Rc::clone(&self.source),
            client: "192.0.2.7:4000".parse().unwrap(),
            local: "192.0.2.1:80".parse().unwrap(),
            bind: Bind::tcp(None, Port::new(80).unwrap()),
            listener: listener.map(|key| self.listener(&key)),
        };
        spawn_local(async move { front.gateway(Box::new(theirs), connection).await });
        ours
    }

    /// A listener as it is now.
    fn listener(&self, key: &ListenerKey) -> Arc<Listener> {
        let snapshot = self.store.load();
        let port = snapshot.gateway_port(&Bind::tcp(None, Port::new(80).unwrap())).unwrap();
        Arc::clone(&port.listeners.iter().find(|it| it.listener.key == *key).unwrap().listener)
    }

    pub(super) async fn connect(&self, version: Version) -> Client {
        Client::new(self.connect_raw(), version).await
    }

    /// What was logged since the last call.
    pub(super) fn logged(&self) -> Vec<serde_json::Value> {
        self.log.take_now().iter().map(|entry| serde_json::to_value(entry).unwrap()).collect()
    }

    /// The value of a metric whose line has all the needles.
    pub(super) fn metric(&self, name: &str, needles: &[&str]) -> Option<f64> {
        let text = self.registry.render();
        let is_it = |l: &&str| l.starts_with(&format!("{name}{{")) && needles.iter().all(|needle| l.contains(needle));
        text.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
    }
}

/// Runs the codec's tasks on this thread.
#[derive(Clone, Copy, Debug)]
struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, task: F) {
        drop(tokio::task::spawn_local(task));
    }
}

pub(super) async fn serve_app<T>(stream: T, address: SocketAddr, app: App)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    use tokio::io::AsyncReadExt;
    let mut stream = stream;
    let mut first = [0; 3];
    if stream.read_exact(&mut first).await.is_err() {
        return;
    }
    let (read, write) = tokio::io::split(stream);
    let io = TokioIo::new(tokio::io::join(AsyncReadExt::chain(std::io::Cursor::new(first), read), write));
    let service = service_fn(move |request| {
        let answer = app(request, address);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // How the preface of HTTP/2 starts, and no method does.
    if first == *b"PRI" {
        let _ = hyper::server::conn::http2::Builder::new(LocalExec).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

pub(super) enum Client {
    H1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

impl Client {
    pub(super) async fn new(stream: DuplexStream, version: Version) -> Self {
        if version == Version::HTTP_2 {
            let (sender, conn) = hyper::client::conn::http2::handshake(LocalExec, TokioIo::new(stream)).await.unwrap();
            spawn_local(conn);
            return Self::H2(sender);
        }
        let (sender, conn) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        spawn_local(conn);
        Self::H1(sender)
    }

    pub(super) async fn send(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::H1(sender) => {
                request.headers_mut().entry("host").or_insert_with(|| "web.shop".parse().unwrap());
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                let host = request.headers_mut().remove("host").unwrap_or_else(|| "web.shop".parse().unwrap());
                let uri = format!("http://{}{}", host.to_str().unwrap(), request.uri());
                *request.uri_mut() = uri.parse().unwrap();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Status, headers and the whole body.
    pub(super) async fn ask(&mut self, request: Request<Body>) -> (u16, HeaderMap, Bytes) {
        let (head, body) = self.send(request).await.unwrap().into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    }

    pub(super) async fn get(&mut self, path: &str) -> (u16, HeaderMap, Bytes) {
        self.ask(Request::get(path).body(empty()).unwrap()).await
    }
}

pub(super) fn empty() -> Body {
    full("")
}

pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

/// An application that says its address's last byte and the body it got.
pub(super) fn echo() -> App {
    Rc::new(|request, address| {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut response = Response::new(full(body));
            response.headers_mut().insert("x-path", path.parse().unwrap());
            response.headers_mut().insert("x-endpoint", address.ip().to_string().parse().unwrap());
            response
        })
    })
}

/// An application that answers with a status.
pub(super) fn status(code: u16) -> App {
    Rc::new(move |_, _| Box::pin(async move { Response::builder().status(code).body(empty()).unwrap() }))
}

/// Runs a test on a worker, on a clock that jumps when nobody has anything to do.
pub(super) fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let limit = std::time::Duration::from_secs(7200);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(limit, test).await.expect("the test hangs");
    });
}
