//! Lets tonic serve on streams that crates/tls accepted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;
use weft_tls::{ControlServer, HandshakeLimits, TlsStream};

/// Handshakes that go on at the same time. Each takes some tens of KiB at most. Peers of one address are as a rule one node's;
/// where many come from one, what is too much for it comes again.
const HANDSHAKES: HandshakeLimits = HandshakeLimits { total: 512, per_address: 64 };

/// A TLS stream that tells tonic who is at its other end.
#[derive(Debug)]
pub struct TlsIo {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
}

/// What `Server::serve_with_incoming` takes.
pub fn control_incoming(listener: TcpListener, server: ControlServer) -> impl Stream<Item = io::Result<TlsIo>> {
    let accepted = weft_tls::incoming(listener, server, HANDSHAKES);
    ReceiverStream::new(accepted).map(|(stream, peer)| Ok(TlsIo { stream, peer }))
}

impl Connected for TlsIo {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
