//! Reads a socket in big pieces for a reader that asks for small ones.
//!
//! A TLS library reads its transport 4 KiB at a time, which is five system calls for one full record. Put [`ReadAhead`] between
//! the socket and the TLS layer and it is one call for several records; the extra copy is cheaper than the calls it saves.
//! The buffer exists only while it holds bytes, so an idle connection doesn't pay for it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// How much is read at once: four TLS records with their framing, as one bulk frame is sent.
pub const READ_AHEAD: usize = 66 << 10;

/// Requests from this size on are read directly, without the buffer.
const DIRECT_FROM: usize = 32 << 10;

/// A transport whose small reads are served from a big one. Writes pass unchanged.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    buffer: BytesMut,
}

impl<IO> ReadAhead<IO> {
    /// Wraps a transport from which nothing has been read ahead yet.
    pub fn new(io: IO) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// The transport, for socket options and addresses. Don't read from it.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            if buf.remaining() >= DIRECT_FROM {
                this.buffer = BytesMut::new();
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            this.buffer.reserve(READ_AHEAD);
            let read = poll_read_buf(Pin::new(&mut this.io), cx, &mut this.buffer);
            if !matches!(read, Poll::Ready(Ok(n)) if n > 0) {
                this.buffer = BytesMut::new();
            }
            ready!(read)?;
        }
        // An emptied buffer stays for the next read of this burst; `Pending` above gives it back.
        let n = this.buffer.len().min(buf.remaining());
        buf.put_slice(this.buffer.get(..n).unwrap_or_default());
        this.buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn small_reads_take_what_one_big_read_brought() {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let sent: Vec<u8> = (0..200_000_u32).map(|i| (i * 3 + (i >> 8)) as u8).collect();
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut io = ReadAhead::new(far);
        let mut first = [0; 5];
        io.read_exact(&mut first).await.unwrap();
        assert!(io.buffer.len() > 4096, "read ahead: {}", io.buffer.len());
        let mut got = first.to_vec();
        io.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert_eq!(io.buffer.capacity(), 0, "nothing is held at the end");
    }
}
