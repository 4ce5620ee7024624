//! The downstream byte stream under the HTTP codec: counts bytes, keeps time, and can be ended from outside.
//!
//! Timers per request would cost more than parsing it. Instead reading marks the time at which a request head began,
//! and the worker looks at all its connections once a second. What passes is also looked at for requests that two
//! parsers could read in two ways ([`super::framing`]).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use weft_core::reason::Reason;

use super::framing::{H1Framing, H2Framing};
use super::interim::Interim;
use super::stalled::Bodies;

/// Writes up to this size are made of one buffer.
const ONE_BUFFER: usize = 4096;

/// How long a client from outside may take until its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(120);
/// How long a client from outside may take none of what is written to it.
const STALLED: Duration = Duration::from_secs(60);

/// What a worker knows of one downstream connection. Shared by the stream, its task and the worker's watch.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Bytes from the client.
    pub(crate) received: Cell<u64>,
    /// Bytes to the client.
    pub(crate) sent: Cell<u64>,
    /// Requests under way.
    pub(crate) busy: Cell<u32>,
    /// Requests so far.
    pub(crate) requests: Cell<u64>,
    /// The number of the request whose framing is ambiguous; it is the last of its connection.
    ambiguous: Cell<Option<u64>>,
    /// The worker's clock when an unfinished request head began.
    head_since: Cell<Option<Instant>>,
    /// When something last happened, to the second.
    active: Cell<Instant>,
    /// The worker's clock, a second or so coarse.
    clock: Rc<Cell<Instant>>,
    end: Cell<Option<End>>,
    waker: RefCell<Option<Waker>>,
    /// What the endpoint said before its answer.
    interim: Arc<Interim>,
    /// The client is from outside, and may be anybody.
    outside: Cell<bool>,
    /// The worker's clock when the client began to take nothing.
    stalled: Cell<Option<Instant>>,
    /// A request is under way, and not a byte of its answer has been written: an interim answer may be.
    may_interim: Cell<bool>,
    bodies: Bodies,
}

/// Why the connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Finish what is under way, take no more.
    Gracefully,
    /// At once.
    Now(Reason),
}

impl Watched {
    pub(crate) fn new(clock: &Rc<Cell<Instant>>) -> Self {
        Self {
            received: Cell::new(0),
            sent: Cell::new(0),
            busy: Cell::new(0),
            requests: Cell::new(0),
            ambiguous: Cell::new(None),
            head_since: Cell::new(None),
            active: Cell::new(clock.get()),
            clock: Rc::clone(clock),
            end: Cell::new(None),
            waker: RefCell::new(None),
            interim: Arc::default(),
            outside: Cell::new(false),
            stalled: Cell::new(None),
            may_interim: Cell::new(false),
            bodies: Bodies::default(),
        }
    }

    /// What passes on it.
    pub(super) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// The worker's clock.
    pub(super) fn clock(&self) -> Instant {
        self.clock.get()
    }

    /// A request head is complete; whether its framing is ambiguous.
    pub(crate) fn request_began(&self) -> bool {
        self.head_since.set(None);
        self.interim.next_request();
        self.busy.set(self.busy.get() + 1);
        let number = self.requests.replace(self.requests.get() + 1);
        self.ambiguous.get() == Some(number)
    }

    /// Its client is from outside: it isn't waited for as long as one that is known.
    pub(super) fn mark_outside(&self) {
        self.outside.set(true);
    }

    /// Its client knows interim answers.
    pub(super) fn takes_interim(&self) {
        self.may_interim.set(true);
    }

    /// Where interim answers go.
    pub(super) fn interim(&self) -> Arc<Interim> {
        Arc::clone(&self.interim)
    }

    /// The first bytes came, of whatever it will be.
    pub(crate) fn began(&self) {
        self.head(true);
    }

    /// Its answer is complete, or nobody waits for it any more.
    pub(crate) fn request_ended(&self) {
        self.busy.set(self.busy.get().saturating_sub(1));
        self.active.set(self.clock.get());
        // The time of a head that came early counts from when it is wanted.
        self.head_since.set(self.head_since.get().map(|_| self.clock.get()));
    }

    /// Asks the connection's task to end it.
    pub(crate) fn end(&self, how: End) {
        self.end.set(Some(how));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The same after what is under way, unless it ends sooner.
    pub(super) fn end_gracefully(&self) {
        if self.end.get().is_none() {
            self.end(End::Gracefully);
        }
    }

    /// What the task was asked to do; it is woken when that changes.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Option<End> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.end.get()
    }

    /// Whether nothing has happened for so long, counted from `start` at the earliest.
    pub(crate) fn is_idle_for(&self, time: Duration, start: Instant, now: Instant) -> bool {
        let since = self.active.get().max(start);
        self.busy.get() == 0 && self.head_since.get().is_none() && now.saturating_duration_since(since) >= time
    }

    /// Whether the connection outlived one of its limits.
    pub(crate) fn expired(&self, now: Instant, head: Duration, idle: Duration) -> Option<Reason> {
        let outside = self.outside.get();
        if outside && self.stalled.get().is_some_and(|since| now.saturating_duration_since(since) > STALLED) {
            return Some(Reason::IdleTimeout);
        }
        let idle = if outside && self.requests.get() == 0 { idle.min(FIRST_REQUEST) } else { idle };
        if self.busy.get() > 0 {
            return None;
        }
        match self.head_since.get() {
            Some(since) if now.saturating_duration_since(since) > head => Some(Reason::HeaderTimeout),
            Some(_) => None,
            None if now.saturating_duration_since(self.active.get()) > idle => Some(Reason::IdleTimeout),
            None => None,
        }
    }

    fn read(&self, framing: &mut Framing, bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
        match framing {
            Framing::Http1(requests) => {
                self.active.set(self.clock.get());
                if let Some(number) = requests.feed(bytes) {
                    self.ambiguous.set(Some(number));
                }
                self.head(requests.is_in_head());
            }
            Framing::Http2(frames) => {
                let seen = frames.feed(bytes);
                if seen.active {
                    self.active.set(self.clock.get());
                }
                self.head(seen.in_block);
            }
            Framing::Opaque => self.active.set(self.clock.get()),
        }
    }

    fn head(&self, under_way: bool) {
        let since = self.head_since.get().unwrap_or_else(|| self.clock.get());
        self.head_since.set(under_way.then_some(since));
    }

    fn wrote(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.stalled.set(None);
    }

    /// What became of writing.
    pub(super) fn written(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(bytes)) => self.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.stalled.set(self.stalled.get().or_else(|| Some(self.clock.get()))),
        }
    }
}

/// What the bytes from the client are.
#[derive(Debug)]
pub(super) enum Framing {
    Http1(H1Framing),
    Http2(H2Framing),
    /// After a switch of protocols: not ours to read.
    Opaque,
}

/// The stream; see the module.
#[derive(Debug)]
pub(crate) struct Wire<T> {
    inner: T,
    /// Read already, to find out what is spoken.
    prefix: Bytes,
    framing: Framing,
    watched: Rc<Watched>,
    /// Something was written that may be in the codec's buffer in part: what is written now may be the rest of it.
    unflushed: bool,
    /// The rest of an interim answer.
    interim: Bytes,
}

impl<T> Wire<T> {
    pub(super) fn new(inner: T, prefix: Bytes, mut framing: Framing, watched: Rc<Watched>) -> Self {
        if !prefix.is_empty() {
            watched.read(&mut framing, &prefix);
        }
        Self { inner, prefix, framing, watched, unflushed: false, interim: Bytes::new() }
    }

    /// Whether the last answer went out whole.
    pub(super) fn is_flushed(&self) -> bool {
        !self.unflushed && self.interim.is_empty()
    }

    /// From now on the bytes are another protocol's.
    pub(super) fn switched(&mut self) {
        self.framing = Framing::Opaque;
    }
}

impl<T: AsyncWrite + Unpin> Wire<T> {
    /// Writes interim answers, where one may stand: after the last byte of the answer before, and before the first of
    /// the next.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Also before one may be written: the codec reads once more before it calls for the answer, and not after.
        if matches!(self.framing, Framing::Http1(_)) {
            self.watched.interim.register(cx);
        }
        if self.watched.may_interim.get() && !self.unflushed && self.interim.is_empty() {
            self.interim = self.watched.interim.take().into();
        }
        while !self.interim.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.interim))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.watched.wrote(n);
            self.interim.advance(n);
            if self.interim.is_empty() {
                ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The codec writes: it begins or continues an answer, unless it only says 100.
    fn writes(&mut self, bytes: &[u8]) {
        self.unflushed = true;
        if !bytes.starts_with(b"HTTP/1.1 100 ") {
            self.watched.may_interim.set(false);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The codec reads while it waits for the answer, to see a client leave: the one chance to write meanwhile. A
        // failure shows with the answer.
        if let Poll::Ready(Err(error)) = self.poll_interim(cx) {
            return Poll::Ready(Err(error));
        }
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            let chunk = self.prefix.split_to(n);
            buf.put_slice(chunk.chunk());
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let before = buf.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Some(new) = buf.filled().get(before..).filter(|new| !new.is_empty()) {
            this.watched.read(&mut this.framing, new);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.writes(buf);
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watched.written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.writes(bufs.first().map_or(&[], |first| first));
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let result = if total <= ONE_BUFFER {
            // A head and a small body: copying them costs less than what the kernel does for several buffers.
            let mut one = SmallVec::<[u8; ONE_BUFFER]>::new();
            bufs.iter().for_each(|buf| one.extend_from_slice(buf));
            Pin::new(&mut self.inner).poll_write(cx, &one)
        } else {
            Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
        };
        self.watched.written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The codec flushes when its own buffer is empty.
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
