//! One opened CONNECT stream: bytes both ways, half-close both ways.
//!
//! Two interfaces over one state. The relay moves `Bytes` without copying: [`TunnelStream::poll_data`],
//! [`TunnelStream::poll_send`], [`TunnelStream::release`]. Everything else uses `AsyncRead` and `AsyncWrite`.
//!
//! Back-pressure: nothing is handed to the codec before the peer's windows and the tunnel's send buffer have room for it, and
//! received bytes return to the peer's window only when they are released, which `AsyncRead` does as it copies them out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::StreamError;
use crate::tunnel::StreamGuard;

/// How far the sending direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    Finished,
}

/// A byte stream inside a tunnel. Dropped before both directions have ended, it is reset with CANCEL.
pub struct TunnelStream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received and not yet copied out by `AsyncRead`.
    unread: Bytes,
    sending: Sending,
    /// Counts the stream on its tunnel, on the client's side.
    _guard: Option<StreamGuard>,
}

crate::assert_size!(TunnelStream, 128);

impl TunnelStream {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream, guard: Option<StreamGuard>) -> Self {
        Self { send, recv, unread: Bytes::new(), sending: Sending::Open, _guard: guard }
    }

    /// The next received bytes as they lie in the tunnel's read buffer; `None` is the peer's half-close.
    ///
    /// They count against the peer's window until [`Self::release`] is called for them. Don't mix with `AsyncRead`.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.unread))));
        }
        loop {
            return match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => Poll::Ready(Some(Ok(data))),
                Some(Err(error)) => Poll::Ready(Some(Err(StreamError::from(error).into()))),
                None => Poll::Ready(None),
            };
        }
    }

    /// Gives `n` consumed bytes back to the peer's windows.
    pub fn release(&mut self, n: usize) {
        // Fails only for more than was received, which would be our own mistake and harms nobody but this stream.
        let released = self.recv.flow_control().release_capacity(n);
        debug_assert!(released.is_ok(), "released more than was received");
    }

    /// Bytes received that are not released.
    pub fn unreleased(&mut self) -> usize {
        self.recv.flow_control().used_capacity()
    }

    /// Hands as much of `data` to the tunnel as the windows allow, without copying it, and returns how much that was.
    ///
    /// `data` must not be empty: an empty DATA frame says nothing and peers count them as abuse.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, data.len()))?;
        let n = room.min(data.len());
        self.send.send_data(data.split_to(n), false).map_err(StreamError::from)?;
        Poll::Ready(Ok(n))
    }

    /// Waits for room to send some of `wanted` bytes.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.sending == Sending::Finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Total, not additive; what is not used goes back to the tunnel's other streams with the next call.
        self.send.reserve_capacity(wanted);
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(StreamError::from(error).into())),
                None => return self.poll_aborted(cx).map(Err),
            }
        }
    }

    /// Ends the sending direction (END_STREAM). Reading goes on.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.sending == Sending::Finished {
            return Ok(());
        }
        self.sending = Sending::Finished;
        self.send.send_data(Bytes::new(), true).map_err(|error| StreamError::from(error).into())
    }

    /// Resets the stream: both directions end at once, what was not sent is dropped.
    pub fn reset(&mut self, reason: Reason) {
        self.sending = Sending::Finished;
        self.send.send_reset(reason);
    }

    /// Resolves when the peer resets the stream or the tunnel breaks. For a direction that waits for something else.
    pub fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.send.poll_reset(cx).map(|reset| {
            match reset {
                Ok(reason) => StreamError::Reset(reason),
                Err(error) => StreamError::from(error),
            }
            .into()
        })
    }

    /// True when the peer has half-closed and everything it sent was taken.
    pub fn is_end_of_data(&self) -> bool {
        self.unread.is_empty() && self.recv.is_end_stream()
    }
}

impl std::fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelStream").field("id", &self.send.stream_id()).field("sending", &self.sending).finish()
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            match ready!(self.poll_data(cx)) {
                Some(data) => self.unread = data?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(self.unread.get(..n).unwrap_or_default());
        self.unread.advance(n);
        self.release(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, buf.len()))?;
        let chunk = Bytes::copy_from_slice(buf.get(..room).unwrap_or(buf));
        let n = chunk.len();
        self.send.send_data(chunk, false).map_err(StreamError::from)?;
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, total))?.min(total);
        let mut chunk = Vec::with_capacity(room);
        for buf in bufs {
            let left = room - chunk.len();
            chunk.extend_from_slice(buf.get(..left).unwrap_or(buf));
        }
        self.send.send_data(chunk.into(), false).map_err(StreamError::from)?;
        Poll::Ready(Ok(room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The tunnel's driver flushes by itself at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}
