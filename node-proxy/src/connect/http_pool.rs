//! HTTP connections to endpoints, kept for the next request. One pool per worker.
//!
//! A connection belongs to the pod it was dialled for and to one endpoint with one transport: another pod never gets
//! it, and neither does a workload that took over an address with another identity. HTTP/1 connections carry one
//! request at a time and the one used last is used next; HTTP/2 connections carry many. Those that tell endpoints of a
//! client end with the client's own ([`OwnPool`]).

pub mod fuzzing;
mod h1;
mod h2;
mod key;
mod own;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts as RequestHead;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{ConnectError, Dial, Target, UpstreamStream, open};
use crate::identify::LocalWorkload;
use crate::relay::http::RequestBody;
use crate::util::FastHash;

use h1::{AnswerBody, H1, Idle};
pub(crate) use h1::{ExchangeError, Parts};
use h2::{H2, H2Body, Lost, Shared};
pub(crate) use key::{PoolKey, Protocol};
pub(crate) use own::OwnPool;

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// An HTTP/1 connection that nobody used for so long is closed; shorter than what servers commonly allow.
    pub idle_timeout: Duration,
    /// Idle HTTP/1 connections kept for one pod and endpoint.
    pub max_idle: usize,
    /// Requests at once on one HTTP/2 connection; more open another.
    pub max_streams: u32,
    /// Bytes of the head of an answer.
    pub max_header_bytes: usize,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(60), max_idle: 256, max_streams: 100, max_header_bytes: 60 * 1024 }
    }
}

/// The pool; see the module.
pub(crate) struct Pool {
    dial: Rc<dyn Dial>,
    settings: PoolSettings,
    h1: RefCell<HashMap<PoolKey, Vec<Idle>, FastHash>>,
    h2: RefCell<HashMap<PoolKey, Rc<Shared>, FastHash>>,
    /// The most idle connections of each version.
    room: Cell<usize>,
    /// The pools of single clients.
    own: RefCell<Vec<Weak<Pool>>>,
}

/// The right to send one request on a connection.
pub(crate) struct Lease {
    home: Home,
    conn: Conn,
    reused: bool,
}

/// Where a connection goes back to.
enum Home {
    Pool(Rc<Pool>, PoolKey),
    App(Rc<AppConnections>),
}

/// Connections to the application of one inbound connection: they carry its client's address, so nobody shares them.
pub(crate) struct AppConnections {
    settings: PoolSettings,
    h1: RefCell<Vec<H1>>,
    h2: Rc<Shared>,
}

impl AppConnections {
    pub(crate) fn new(settings: PoolSettings) -> Rc<Self> {
        Rc::new(Self { settings, h1: RefCell::default(), h2: Rc::default() })
    }

    /// A connection that is open already.
    pub(crate) fn kept(self: &Rc<Self>, protocol: Protocol) -> Option<Lease> {
        let conn = match protocol {
            Protocol::H2 => Conn::H2(self.h2.usable(self.settings.max_streams)?),
            Protocol::H1 => {
                let mut idle = self.h1.borrow_mut();
                idle.retain(|conn| !conn.is_closed());
                Conn::H1(idle.pop()?)
            }
        };
        Some(Lease { home: Home::App(Rc::clone(self)), conn, reused: true })
    }

    /// A connection on a new stream.
    pub(crate) async fn open(
        self: &Rc<Self>,
        stream: UpstreamStream,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Result<Lease, ConnectError> {
        let conn = match protocol {
            Protocol::H1 => Conn::H1(H1::new(stream, &self.settings)),
            Protocol::H2 => {
                let conn = h2::open(stream, &self.settings, to).await?;
                self.h2.add(&conn);
                Conn::H2(conn)
            }
        };
        Ok(Lease { home: Home::App(Rc::clone(self)), conn, reused: false })
    }
}

enum Conn {
    H1(H1),
    H2(H2),
}

/// A request to be sent. It stays where it is while it waits, and is taken piece by piece: moving it through the futures of
/// everybody who waits for its answer would cost more than sending it.
pub(crate) struct Outgoing {
    /// `None`: it was sent.
    pub(crate) head: Option<RequestHead>,
    /// `None`: some of it may have been sent.
    pub(crate) body: Option<RequestBody>,
    /// The head may be needed once more, and is not to be taken.
    pub(crate) keep: bool,
}

impl Outgoing {
    /// To be sent once.
    pub(crate) fn new(head: RequestHead, body: RequestBody) -> Self {
        Self { head: Some(head), body: Some(body), keep: false }
    }
}

/// Why a request got no answer.
pub(crate) enum SendError {
    /// Not a byte of it was sent: [`Outgoing`] has it whole.
    Unsent,
    /// It may have been sent.
    Sent(ExchangeError),
}

/// The body of an answer.
pub(crate) enum UpstreamBody {
    H1(AnswerBody),
    H2(H2Body),
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match &mut *self {
            Self::H1(body) => body.poll_frame(cx),
            Self::H2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(body) => body.size_hint(),
            Self::H2(body) => body.size_hint(),
        }
    }
}

impl Pool {
    pub(crate) fn new(dial: Rc<dyn Dial>, settings: PoolSettings) -> Rc<Self> {
        Self::with_room(dial, settings, usize::MAX)
    }

    fn with_room(dial: Rc<dyn Dial>, settings: PoolSettings, room: usize) -> Rc<Self> {
        let (h1, h2, own) = (RefCell::default(), RefCell::default(), RefCell::default());
        Rc::new(Self { dial, settings, h1, h2, room: Cell::new(room), own })
    }

    /// A connection that is open already.
    pub(crate) fn kept(
        self: &Rc<Self>,
        source: &Rc<LocalWorkload>,
        target: &Rc<Target>,
        protocol: Protocol,
    ) -> Option<Lease> {
        let key = PoolKey::new(source, target, protocol);
        let conn = match protocol {
            Protocol::H1 => Conn::H1(self.pop(&key)?),
            Protocol::H2 => Conn::H2(self.h2.borrow().get(&key)?.usable(self.settings.max_streams)?),
        };
        Some(Lease { home: Home::Pool(Rc::clone(self), key), conn, reused: true })
    }

    /// A connection for one request; `fresh` takes none that was used before.
    pub(crate) async fn acquire(
        self: &Rc<Self>,
        source: &Rc<LocalWorkload>,
        target: &Rc<Target>,
        protocol: Protocol,
        fresh: bool,
    ) -> Result<Lease, ConnectError> {
        if !fresh && let Some(kept) = self.kept(source, target, protocol) {
            return Ok(kept);
        }
        let key = PoolKey::new(source, target, protocol);
        if protocol == Protocol::H2 {
            return self.acquire_h2(key, fresh).await;
        }
        let stream = open(&*self.dial, source, target).await?;
        let conn = Conn::H1(H1::new(stream, &self.settings));
        Ok(Lease { home: Home::Pool(Rc::clone(self), key), conn, reused: false })
    }

    async fn acquire_h2(self: &Rc<Self>, key: PoolKey, fresh: bool) -> Result<Lease, ConnectError> {
        let shared = Rc::clone(self.h2.borrow_mut().entry(key.clone()).or_default());
        // One dials, the others wait for what it gets.
        let _turn = shared.dialling.lock().await;
        if let Some(conn) = shared.usable(self.settings.max_streams).filter(|_| !fresh) {
            return Ok(Lease { home: Home::Pool(Rc::clone(self), key), conn: Conn::H2(conn), reused: true });
        }
        let stream = open(&*self.dial, key.source(), key.target()).await?;
        let conn = h2::open(stream, &self.settings, key.target().address).await?;
        shared.add(&conn);
        self.make_room_h2();
        Ok(Lease { home: Home::Pool(Rc::clone(self), key), conn: Conn::H2(conn), reused: false })
    }

    /// The idle connection that was used last, if there is a live one.
    fn pop(&self, key: &PoolKey) -> Option<H1> {
        let mut h1 = self.h1.borrow_mut();
        let idle = h1.get_mut(key)?;
        while let Some(Idle { conn, .. }) = idle.pop() {
            if !conn.is_closed() {
                return Some(conn);
            }
        }
        None
    }

    fn push(&self, key: PoolKey, conn: H1) {
        let idle = Idle { conn, since: Instant::now() };
        let mut h1 = self.h1.borrow_mut();
        match h1.get_mut(&key) {
            Some(list) if list.len() < self.settings.max_idle => list.push(idle),
            Some(_) => idle.conn.close(),
            None => drop(h1.insert(key, vec![idle])),
        }
        drop(h1);
        self.make_room_h1();
    }

    /// Closes what was idle for too long and forgets what is closed.
    pub(crate) fn sweep(&self, now: Instant) {
        let stale = |idle: &Idle| now.saturating_duration_since(idle.since) > self.settings.idle_timeout;
        self.h1.borrow_mut().retain(|_, list| {
            // The one used last is last: the stale ones are in front.
            let fresh = list.iter().position(|idle| !stale(idle)).unwrap_or(list.len());
            list.drain(..fresh).for_each(|idle| idle.conn.close());
            list.retain(|idle| !idle.conn.is_closed());
            !list.is_empty()
        });
        self.h2.borrow_mut().retain(|_, shared| shared.sweep(now, self.settings.idle_timeout));
        self.each_own(|own| own.sweep(now));
    }

    /// Forgets the connections of a pod that left.
    pub(crate) fn forget(&self, source: &Rc<LocalWorkload>) {
        self.h1.borrow_mut().retain(|key, _| !Rc::ptr_eq(key.source(), source));
        self.h2.borrow_mut().retain(|key, _| !Rc::ptr_eq(key.source(), source));
        self.each_own(|own| own.forget(source));
    }

    /// Idle HTTP/1 connections, open HTTP/2 connections, and the requests under way on the latter.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let h2 = self.h2.borrow();
        let mut idle = self.h1.borrow().values().map(Vec::len).sum();
        let mut open = h2.values().map(|shared| shared.len()).sum();
        let mut streams = h2.values().map(|shared| shared.streams()).sum();
        self.each_own(|own| {
            let more = own.sizes();
            (idle, open, streams) = (idle + more.0, open + more.1, streams + more.2);
        });
        (idle, open, streams)
    }
}

impl Lease {
    /// Whether the connection carried a request before, and so may have been closed by the endpoint meanwhile.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of the answer; `told` hears of interim answers (HTTP/1 only).
    pub(crate) async fn send(
        &mut self,
        outgoing: &mut Outgoing,
        told: &dyn Fn(&Response<()>),
    ) -> Result<Response<UpstreamBody>, SendError> {
        match &mut self.conn {
            Conn::H1(conn) => conn.send(outgoing, told).await.map(|response| response.map(UpstreamBody::H1)),
            Conn::H2(conn) => match conn.send(outgoing).await {
                Ok(response) => Ok(response.map(UpstreamBody::H2)),
                Err(Lost::Sent(error)) => Err(SendError::Sent(error.into())),
                Err(Lost::Unsent) => Err(SendError::Unsent),
            },
        }
    }

    /// Announces that the request asks for another protocol, so that the stream is kept if it is granted.
    pub(crate) fn expect_upgrade(&self) {
        if let Conn::H1(conn) = &self.conn {
            conn.expect_upgrade();
        }
    }

    /// The stream, after the endpoint answered 101.
    pub(crate) fn upgraded(self) -> Option<Parts> {
        match self.conn {
            Conn::H1(conn) => conn.upgraded(),
            Conn::H2(_) => None,
        }
    }

    /// The answer is complete: the connection may carry the next request.
    pub(crate) fn release(self) {
        match (self.conn, self.home) {
            (Conn::H1(conn), _) if !conn.is_reusable() => {}
            (Conn::H1(conn), Home::Pool(pool, key)) => pool.push(key, conn),
            (Conn::H1(conn), Home::App(app)) => app.h1.borrow_mut().push(conn),
            (Conn::H2(_), _) => {}
        }
    }
}

/// The head once more. Of the extensions only what the codec needs.
fn clone_head(head: &RequestHead) -> RequestHead {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    if let Some(protocol) = head.extensions.get::<hyper::ext::Protocol>() {
        copy.extensions.insert(protocol.clone());
    }
    copy
}
