//! A pool whose tunnels lead, over in-memory pipes, to servers in the same thread.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::DuplexStream;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use weft_hbone::{
    ConnectRequest, Connector, DialError, DialFailure, Handler, OpenRequest, Pool, Responder, ServeReport,
    ServerLimits, TunnelLimits, TunnelStream, serve_connection,
};

/// Size of the pipe under a tunnel: small, so that back-pressure is met.
pub const PIPE: usize = 256 << 10;

/// What the server does with streams, by port of the authority.
pub const ECHO: u16 = 1;
pub const HOLD: u16 = 2;
pub const REFUSE: u16 = 3;
pub const PANIC: u16 = 4;
pub const NEVER: u16 = 5;
pub const CONNECTING_FOREVER: u16 = 6;
pub const DROP: u16 = 7;

#[derive(Default)]
pub struct Backend {
    /// Streams accepted on port HOLD, for the test to play with.
    pub held: RefCell<Vec<TunnelStream>>,
    /// Handlers that were dropped before they ended.
    pub cancelled: Cell<usize>,
    pub seen: RefCell<Vec<ConnectRequest>>,
}

pub struct Port(pub Rc<Backend>);

struct OnDrop<'a>(&'a Cell<usize>);
impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Handler for Port {
    fn handle(&self, request: ConnectRequest, responder: Responder) -> impl Future<Output = ()> + 'static {
        let backend = Rc::clone(&self.0);
        async move {
            backend.seen.borrow_mut().push(request.clone());
            match request.authority.port() {
                ECHO => echo(responder.accept().unwrap()).await,
                HOLD => backend.held.borrow_mut().push(responder.accept().unwrap()),
                REFUSE => responder.refuse(StatusCode::UNAUTHORIZED).unwrap(),
                PANIC => panic!("on purpose"),
                CONNECTING_FOREVER | NEVER => {
                    let _guard = OnDrop(&backend.cancelled);
                    std::future::pending::<()>().await;
                }
                _ => drop(responder),
            }
        }
    }
}

pub async fn echo(mut stream: TunnelStream) {
    use weft_hbone::relay::Side;
    let mut queue = std::collections::VecDeque::new();
    while let Some(Ok(chunk)) = std::future::poll_fn(|cx| stream.poll_data(cx)).await {
        let n = chunk.len();
        queue.push_back(chunk);
        while !queue.is_empty() {
            if std::future::poll_fn(|cx| stream.poll_put(cx, &mut queue)).await.is_err() {
                return;
            }
        }
        Side::release(&mut stream, n);
    }
    let _ = stream.finish();
}

/// Dials by making a pipe and serving its other end.
pub struct Pipes {
    pub backend: Rc<Backend>,
    pub limits: ServerLimits,
    pub drain: RefCell<CancellationToken>,
    pub dials: Cell<usize>,
    pub delay: Cell<Duration>,
    pub fail: Cell<Option<DialFailure>>,
    /// Nobody serves the other ends of pipes that are dialled now; they are open nevertheless.
    pub silent: Cell<bool>,
    pub unserved: RefCell<Vec<DuplexStream>>,
    pub reports: RefCell<Vec<tokio::task::JoinHandle<ServeReport>>>,
}

#[derive(Clone)]
pub struct Dialer(pub Rc<Pipes>);

impl Connector<u32> for Dialer {
    type Io = DuplexStream;

    async fn connect(&self, _key: &u32) -> Result<DuplexStream, DialError> {
        self.0.dials.set(self.0.dials.get() + 1);
        tokio::time::sleep(self.0.delay.get()).await;
        if let Some(failure) = self.0.fail.get() {
            return Err(DialError::new(failure, "on purpose"));
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        if self.0.silent.get() {
            self.0.unserved.borrow_mut().push(theirs);
            return Ok(ours);
        }
        let handler = Rc::new(Port(Rc::clone(&self.0.backend)));
        let serving = serve_connection(theirs, handler, self.0.limits, self.0.drain.borrow().clone());
        self.0.reports.borrow_mut().push(tokio::task::spawn_local(serving));
        Ok(ours)
    }
}

pub struct World {
    pub pipes: Rc<Pipes>,
    pub pool: Pool<u32, Dialer>,
}

impl World {
    pub fn new(client: TunnelLimits, server: ServerLimits) -> Self {
        let pipes = Rc::new(Pipes {
            backend: Rc::default(),
            limits: server,
            drain: RefCell::default(),
            dials: Cell::new(0),
            delay: Cell::new(Duration::ZERO),
            fail: Cell::new(None),
            silent: Cell::new(false),
            unserved: RefCell::default(),
            reports: RefCell::default(),
        });
        let pool = Pool::new(Dialer(Rc::clone(&pipes)), client);
        Self { pipes, pool }
    }

    pub fn default() -> Self {
        Self::new(TunnelLimits::default(), ServerLimits::default())
    }

    pub fn dials(&self) -> usize {
        self.pipes.dials.get()
    }

    pub async fn open(&self, port: u16) -> TunnelStream {
        self.pool.open(&1, &to(port)).await.unwrap()
    }
}

pub fn to(port: u16) -> OpenRequest {
    OpenRequest::new(SocketAddr::from(([10, 0, 0, 1], port)))
}

/// Runs a test on one thread with paused time; more than ten virtual minutes is a hang.
pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(600), test).await.expect("the test hangs");
    });
}

/// Waits for a condition; with paused time this takes no time.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}
