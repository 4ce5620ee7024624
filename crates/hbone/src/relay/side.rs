//! What a relay needs of a connection, and the two kinds that have it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::buffer;
use crate::stream::TunnelStream;

/// Chunks written with one system call. A bulk frame is 64 KiB, so this is a socket buffer's worth.
const WRITE_AT_ONCE: usize = 8;

/// One side of a relay.
pub trait Side {
    /// Chunks worth taking before they are written to the other side.
    const GATHER: usize;

    /// The next chunk, or `None` at the end of what this side sends. Not called again after the end.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// Writes from the front of a queue that is not empty, and returns how many bytes.
    fn poll_put(&mut self, cx: &mut Context<'_>, queue: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>>;

    /// `n` bytes that were taken from this side have been written to the other.
    fn release(&mut self, n: usize);

    /// Bytes received from the peer and not released, where the side knows.
    fn unreleased(&mut self) -> usize {
        0
    }

    /// Passes on that no more bytes will be put.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Resolves if the peer gave up, for a side that is not read any more.
    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Ends both directions at once, telling the peer that it is not a regular end.
    fn reset(&mut self);
}

/// A transport that is read and written directly.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Ready when a read may give something: lets an idle connection do without a buffer.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes the peer see a reset when the transport is dropped.
    fn reset_on_drop(&self);
}

impl Transport for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn reset_on_drop(&self) {
        // Best effort: a plain close tells the peer too late, never wrongly.
        let _ = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl Transport for tokio::io::DuplexStream {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn reset_on_drop(&self) {}
}

/// A socket as a side of a relay.
#[derive(Debug)]
pub struct Socket<T> {
    io: T,
}

impl<T: Transport> Socket<T> {
    /// A connected socket. Set TCP_NODELAY on it: a relay must not hold back what it was given.
    pub fn new(io: T) -> Self {
        Self { io }
    }

    /// The socket.
    pub fn get_ref(&self) -> &T {
        &self.io
    }
}

impl<T: Transport> Side for Socket<T> {
    // One read takes all there is up to a bulk frame; more reads before the write would only cool the cache.
    const GATHER: usize = 1;

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        ready!(self.io.poll_readable(cx))?;
        buffer::poll_read(cx, &mut self.io)
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, queue: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_AT_ONCE];
        for (slot, chunk) in slices.iter_mut().zip(queue.iter()) {
            *slot = IoSlice::new(chunk);
        }
        let count = queue.len().min(WRITE_AT_ONCE);
        let slices = slices.get(..count).unwrap_or(&slices);
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let mut left = written;
        while let Some(chunk) = queue.front_mut() {
            if chunk.len() > left {
                chunk.advance(left);
                break;
            }
            left -= chunk.len();
            queue.pop_front();
        }
        Poll::Ready(Ok(written))
    }

    fn release(&mut self, _: usize) {}

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            // The peer has closed or reset already. If that matters the other direction will say so.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            finished => Poll::Ready(finished),
        }
    }

    /// A reset of a socket shows when it is written to; a half-closed one that is never written waits for the idle timer.
    fn poll_aborted(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }

    fn reset(&mut self) {
        self.io.reset_on_drop();
    }
}

impl Side for TunnelStream {
    // Frames of a peer may be small; one system call writes several.
    const GATHER: usize = WRITE_AT_ONCE;

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_data(cx).map(Option::transpose)
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, queue: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        let Some(chunk) = queue.front_mut() else { return Poll::Ready(Ok(0)) };
        let n = ready!(self.poll_send(cx, chunk))?;
        if chunk.is_empty() {
            queue.pop_front();
        }
        Poll::Ready(Ok(n))
    }

    fn release(&mut self, n: usize) {
        TunnelStream::release(self, n);
    }

    fn unreleased(&mut self) -> usize {
        TunnelStream::unreleased(self)
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }

    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        TunnelStream::poll_aborted(self, cx)
    }

    fn reset(&mut self) {
        TunnelStream::reset(self, Reason::CANCEL);
    }
}
