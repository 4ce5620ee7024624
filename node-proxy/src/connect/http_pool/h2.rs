//! HTTP/2 connections: many requests at once.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::super::{ConnectError, UpstreamStream};
use super::PoolSettings;
use crate::relay::http::{LocalExec, RequestBody};

/// A stream's window: a body of this size needs no round trip for credit.
const STREAM_WINDOW: u32 = 1 << 20;
/// The window of a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A connection that answers no ping for so long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The connections of one key.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) dialling: tokio::sync::Mutex<()>,
    open: RefCell<Vec<Open>>,
}

struct Open {
    sender: SendRequest<RequestBody>,
    streams: Rc<Cell<u32>>,
    used: Cell<Instant>,
}

/// The right to one stream.
pub(super) struct H2 {
    sender: SendRequest<RequestBody>,
    streams: Rc<Cell<u32>>,
}

impl H2 {
    fn new(sender: SendRequest<RequestBody>, streams: Rc<Cell<u32>>) -> Self {
        streams.set(streams.get() + 1);
        Self { sender, streams }
    }

    /// Sends a request. If not a byte of it was sent, it comes back with the error.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<RequestBody>>)> {
        self.sender.try_send_request(request).await.map_err(|mut error| {
            let request = error.take_message();
            (error.into_error(), request)
        })
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
    }
}

impl Shared {
    /// A stream on a connection that has room.
    pub(super) fn usable(&self, max_streams: u32) -> Option<H2> {
        let mut open = self.open.borrow_mut();
        open.retain(|it| !it.sender.is_closed());
        let room = |it: &&Open| it.streams.get() < max_streams && it.sender.is_ready();
        let found = open.iter().find(room)?;
        found.used.set(Instant::now());
        Some(H2::new(found.sender.clone(), Rc::clone(&found.streams)))
    }

    pub(super) fn add(&self, conn: &H2) {
        let streams = Rc::clone(&conn.streams);
        self.open.borrow_mut().push(Open { sender: conn.sender.clone(), streams, used: Cell::new(Instant::now()) });
    }

    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Requests under way.
    pub(super) fn streams(&self) -> usize {
        self.open.borrow().iter().map(|it| it.streams.get() as usize).sum()
    }

    /// Since when no request needs it (`None` inside: there never was a connection); `None`: one does.
    pub(super) fn unused_since(self: &Rc<Self>) -> Option<Option<Instant>> {
        let open = self.open.borrow();
        let is_free = Rc::strong_count(self) == 1 && open.iter().all(|it| it.streams.get() == 0);
        is_free.then(|| open.iter().map(|it| it.used.get()).max())
    }

    /// Drops what is closed or unused; whether anything is left.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant, idle: Duration) -> bool {
        let unused = |it: &Open| it.streams.get() == 0 && now.saturating_duration_since(it.used.get()) > idle;
        self.open.borrow_mut().retain(|it| !it.sender.is_closed() && !unused(it));
        Rc::strong_count(self) > 1 || !self.open.borrow().is_empty()
    }
}

/// Starts HTTP/2 on a stream.
pub(super) async fn open(stream: UpstreamStream, limits: &PoolSettings, to: SocketAddr) -> Result<H2, ConnectError> {
    let handshake = Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|_| ConnectError::Tcp { to, kind: std::io::ErrorKind::Other })?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!("upstream connection ended: {error}");
        }
    });
    Ok(H2::new(sender, Rc::default()))
}
