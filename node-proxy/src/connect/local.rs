//! The in-memory path between two pods of one node: no tunnel, the same policy.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use weft_core::reason::Reason;

use super::Application;
use crate::authorize::Registration;
use crate::budget::ConnectionSlot;
use crate::observe::{Connection, Ended, Observer};

/// A connection to an application on this node, permitted by its own policy. It fails when the permission ends.
pub struct LocalStream {
    io: TcpStream,
    end: Box<LocalEnd>,
}

/// The inbound half's account of a local connection: reports it when dropped.
pub struct LocalEnd {
    permission: Rc<Registration>,
    observer: Rc<dyn Observer>,
    record: Connection,
    since: Instant,
    ended: Cell<Ended>,
    _slot: ConnectionSlot,
}

impl LocalStream {
    /// Starts the account of an application's connection.
    pub(crate) fn new(
        application: Application,
        record: Connection,
        observer: Rc<dyn Observer>,
        slot: ConnectionSlot,
    ) -> Self {
        observer.opened(&record);
        let end = LocalEnd {
            permission: application.permission,
            observer,
            record,
            since: Instant::now(),
            ended: Cell::new(Ended::refused(Reason::Ok)),
            _slot: slot,
        };
        Self { io: application.stream, end: Box::new(end) }
    }

    /// The socket and the account, for a relay that counts by itself.
    pub fn into_parts(self) -> (TcpStream, LocalEnd) {
        (self.io, *self.end)
    }

    fn check(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.permission.poll_revoked(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(reason) => {
                self.end.update(|ended| ended.reason = reason);
                Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.as_str()))
            }
        }
    }
}

impl LocalEnd {
    /// The permission, which ends the relay when it ends.
    pub fn permission(&self) -> &Registration {
        &self.permission
    }

    /// Says how it ended.
    pub fn finish(self, ended: Ended) {
        self.ended.set(ended);
    }

    fn update(&self, edit: impl FnOnce(&mut Ended)) {
        let mut ended = self.ended.get();
        edit(&mut ended);
        self.ended.set(ended);
    }
}

impl Drop for LocalEnd {
    fn drop(&mut self) {
        self.observer.closed(&self.record, &self.ended.get(), self.since.elapsed());
    }
}

impl std::fmt::Debug for LocalStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStream").field("io", &self.io).finish_non_exhaustive()
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        this.end.update(|ended| ended.sent += (buf.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.count(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.count(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl LocalStream {
    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = written {
            self.end.update(|ended| ended.received += *n as u64);
        }
    }
}
