//! HTTP/2 connections: many requests at once.
//!
//! A request opens its stream itself and waits for nobody but the endpoint: the connection's own task only reads and writes
//! frames. Only a body that isn't there at once has a task, because it may go on while the answer is read.

mod answer;
mod drive;
#[cfg(test)]
mod tests;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ::h2::client::{Builder, ResponseFuture, SendRequest};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::{ConnectError, UpstreamStream};
use super::{Outgoing, PoolSettings, clone_head};
use crate::relay::http::{RequestBody, gather, strip_hop_headers};

pub(crate) use answer::H2Body;
use upload::Uploading;

/// A stream's window: a body of this size needs no round trip for credit.
const STREAM_WINDOW: u32 = 1 << 20;
/// The window of a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What of a request's body waits for the endpoint to take it, bytes of a stream.
const SEND_BUFFER: usize = 1 << 20;

/// The connections of one key.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) dialling: tokio::sync::Mutex<()>,
    open: RefCell<Vec<Open>>,
}

struct Open {
    sender: Sender,
    streams: Rc<Cell<u32>>,
    used: Cell<Instant>,
}

/// What begins streams. The connection ends when the last one is gone, and the last stream.
#[derive(Clone)]
struct Sender {
    h2: SendRequest<Bytes>,
    link: Rc<Link>,
}

/// What the requests of a connection and its task know of each other.
#[derive(Default)]
struct Link {
    /// It takes no more requests.
    closed: Cell<bool>,
    /// Requests that were sent and aren't over.
    sent: Cell<usize>,
    /// Something of an answer came lately.
    heard: Cell<bool>,
    /// One of them is over, or the connection is.
    freed: Notify,
}

impl Link {
    fn close(&self) {
        self.closed.set(true);
        self.freed.notify_waiters();
    }
}

/// The right to one stream.
pub(super) struct H2 {
    sender: Sender,
    streams: Rc<Cell<u32>>,
    sent: bool,
}

/// Why a request has no answer.
pub(super) enum Lost {
    /// Not a byte of it was sent.
    Unsent,
    /// It may have been sent.
    Sent(::h2::Error),
}

impl H2 {
    fn new(sender: Sender, streams: Rc<Cell<u32>>) -> Self {
        streams.set(streams.get() + 1);
        Self { sender, streams, sent: false }
    }

    /// Sends a request and waits for the head of its answer. Who drops this before gives the request up.
    pub(super) async fn send(&mut self, outgoing: &mut Outgoing) -> Result<Response<H2Body>, Lost> {
        if !self.is_let_in().await {
            return Err(Lost::Unsent);
        }
        let (answer, uploading) = self.start(outgoing)?;
        let answer = answer.await.map_err(Lost::Sent)?;
        let link = Rc::clone(&self.sender.link);
        // The rest of the body goes on beside the answer.
        if let Some(uploading) = uploading {
            uploading.detach();
        }
        link.heard.set(true);
        let (head, stream) = answer.into_parts();
        let body = H2Body::new(stream, &head.headers, link);
        Ok(Response::from_parts(head, body))
    }

    /// Opens the stream, and sends what there is at once.
    fn start(&mut self, outgoing: &mut Outgoing) -> Result<(ResponseFuture, Option<Uploading>), Lost> {
        let Outgoing { head, body, keep } = outgoing;
        let taken = if *keep { head.as_ref().map(clone_head) } else { head.take() };
        let (Some(mut head), Some(body)) = (taken, body.take()) else { return Err(Lost::Unsent) };
        // The codec refuses them, and what a filter sets is looked at by nobody else.
        strip_hop_headers(&mut head.headers);
        tell_length(&mut head, &body);
        let ends = body.is_end_stream();
        let (answer, stream) = self.sender.h2.send_request(Request::from_parts(head, ()), ends).map_err(Lost::Sent)?;
        let link = &self.sender.link;
        link.sent.set(link.sent.get() + 1);
        self.sent = true;
        Ok((answer, if ends { None } else { upload::start(body, stream) }))
    }

    /// Waits until the endpoint has room for a stream; `false`: the connection takes none any more.
    async fn is_let_in(&mut self) -> bool {
        let Sender { h2, link } = &mut self.sender;
        while !link.closed.get() && link.sent.get() >= h2.current_max_send_streams() {
            link.freed.notified().await;
        }
        if link.closed.get() {
            return false;
        }
        let ready = poll_fn(|cx| h2.poll_ready(cx)).await.is_ok();
        if !ready {
            link.close();
        }
        ready
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        if self.sent {
            let link = &self.sender.link;
            link.sent.set(link.sent.get().saturating_sub(1));
            link.freed.notify_one();
        }
    }
}

/// Says how long a body is, if that is known and nobody said it.
fn tell_length(head: &mut http::request::Parts, body: &RequestBody) {
    let Some(length) = body.size_hint().exact() else { return };
    let means_a_body = ![Method::GET, Method::HEAD, Method::DELETE, Method::CONNECT].contains(&head.method);
    if (length > 0 || means_a_body) && !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

impl Shared {
    /// A stream on a connection that has room.
    pub(super) fn usable(&self, max_streams: u32) -> Option<H2> {
        let mut open = self.open.borrow_mut();
        open.retain(|it| !it.sender.link.closed.get());
        let found = open.iter().find(|it| it.streams.get() < max_streams)?;
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
        self.open.borrow_mut().retain(|it| !it.sender.link.closed.get() && !unused(it));
        Rc::strong_count(self) > 1 || !self.open.borrow().is_empty()
    }
}

/// Starts HTTP/2 on a stream.
pub(super) async fn open(stream: UpstreamStream, limits: &PoolSettings, to: SocketAddr) -> Result<H2, ConnectError> {
    let (stream, written) = gather(stream);
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .enable_push(false)
        .handshake(stream)
        .await;
    let (h2, connection) = handshake.map_err(|_| ConnectError::Tcp { to, kind: std::io::ErrorKind::Other })?;
    let link = Rc::<Link>::default();
    tokio::task::spawn_local(drive::run(connection, written, Rc::clone(&link)));
    Ok(H2::new(Sender { h2, link }, Rc::default()))
}
