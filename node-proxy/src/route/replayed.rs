//! A connection whose first bytes were read already, to see where it goes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::relay::encrypted::Abort;

/// Gives the bytes that were read once more, then what comes.
#[derive(Debug)]
pub(crate) struct Replayed {
    first: Vec<u8>,
    at: usize,
    stream: TcpStream,
}

impl Replayed {
    /// The bytes that were read, and where they came from.
    pub(crate) fn new(first: Vec<u8>, stream: TcpStream) -> Self {
        Self { first, at: 0, stream }
    }

    /// What was read already and not given yet, and where it came from.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, TcpStream) {
        self.first.drain(..self.at.min(self.first.len()));
        (self.first, self.stream)
    }
}

impl AsyncRead for Replayed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.first.get(this.at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let part = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(part);
        this.at += part.len();
        if this.at >= this.first.len() {
            this.first = Vec::new();
            this.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Abort for Replayed {
    fn abort_on_drop(&self) {
        // Best effort: a plain close tells the client too late, never wrongly.
        let _ = weft_sys::sock::reset_on_close(&self.stream);
    }
}
