//! TLS as a side of a relay of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_hbone::relay::Transport;
use weft_tls::TlsStream;

/// What is under TLS, as far as its end is concerned.
pub trait Abort {
    /// Makes the peer see a reset when this is dropped, if that is possible: in the middle of something, an end that looks
    /// regular would be a lie.
    fn abort_on_drop(&self);
}

/// A TLS stream that says of bytes that they are written when they are on their way: a relay doesn't flush, and what is left
/// in the stream's own buffers would wait for the next write. Whoever is told to wait must come back with the same bytes.
#[derive(Debug)]
pub struct Encrypted<IO> {
    stream: TlsStream<IO>,
    /// Bytes that the stream took and didn't send yet.
    taken: Option<usize>,
    /// It ended without a goodbye: somebody on the way may have cut it off.
    cut: bool,
}

impl<IO> Encrypted<IO> {
    /// After the handshake.
    pub(crate) fn new(stream: TlsStream<IO>) -> Self {
        Self { stream, taken: None, cut: false }
    }

    /// Whether what was read ended without `close_notify` (RFC 8446, section 6.1). There may have been more of it, which only
    /// who knows how much there should be can tell.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// What is under it.
    pub(crate) fn carrier(&self) -> &IO {
        self.stream.get_ref().0
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Encrypted<IO> {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<IO>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let taken = match self.taken {
            Some(taken) => taken,
            None => ready!(write(Pin::new(&mut self.stream), cx))?,
        };
        self.taken = Some(taken);
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.taken = None;
        Poll::Ready(Ok(taken))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            // Closed without a goodbye, as many do: how much there should have been is for what is inside to say.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                this.cut = true;
                Poll::Ready(Ok(()))
            }
            polled => polled,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
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

impl<IO: AsyncRead + AsyncWrite + Unpin + Abort> Transport for Encrypted<IO> {
    /// What was decrypted already is not seen by the socket.
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn reset_on_drop(&self) {
        self.carrier().abort_on_drop();
    }
}
