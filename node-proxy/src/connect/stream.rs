//! A stream to an endpoint, whatever carries it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use weft_hbone::TunnelStream;

use super::LocalStream;
use crate::relay::encrypted::{Abort, Encrypted};

/// A byte stream to an endpoint, with half-close: `shutdown` ends our direction only.
#[derive(Debug)]
pub enum UpstreamStream {
    /// TCP.
    Tcp(TcpStream),
    /// A stream of a tunnel.
    Tunnel(TunnelStream),
    /// The application is on this node.
    Local(LocalStream),
    /// TLS that the application itself speaks, over one of the others.
    Tls(Box<Encrypted<UpstreamStream>>),
    /// The other half runs on the same worker.
    Pipe(DuplexStream),
}

impl UpstreamStream {
    /// Whether the endpoint's end, if it has been read, may be somebody else's doing: TLS that ended without saying so.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.is_cut())
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            UpstreamStream::Tcp($stream) => $call,
            UpstreamStream::Tunnel($stream) => $call,
            UpstreamStream::Local($stream) => $call,
            UpstreamStream::Tls($stream) => $call,
            UpstreamStream::Pipe($stream) => $call,
        }
    };
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Abort for UpstreamStream {
    fn abort_on_drop(&self) {
        match self {
            // Best effort: a plain close tells the endpoint too late, never wrongly.
            Self::Tcp(stream) => drop(weft_sys::sock::reset_on_close(stream)),
            Self::Tls(stream) => stream.carrier().abort_on_drop(),
            // A stream of a tunnel that is dropped in the middle is reset.
            Self::Tunnel(_) | Self::Local(_) | Self::Pipe(_) => {}
        }
    }
}
