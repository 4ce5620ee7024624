//! The seam between the connection pipelines and the HTTP engine.
//!
//! The pipelines hand a connection over when something needs HTTP: outbound for a route or an HTTP port, inbound for
//! a policy that looks at requests. A trait, so that the tests of a stage can rig the other branch to panic.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use weft_core::gateway::{Bind, Listener};
use weft_core::snapshot::Frontend;

use crate::authorize::HttpPermit;
use crate::identify::LocalWorkload;

/// A connection of a local pod, intercepted.
#[derive(Clone, Debug)]
pub struct OutboundConnection {
    /// Who calls: the pod whose namespace accepted it.
    pub source: Rc<LocalWorkload>,
    /// The client's own socket address.
    pub client: SocketAddr,
    /// Where the client dialled.
    pub destination: SocketAddr,
    /// What that meant when the connection was planned. Requests are routed on the latest snapshot.
    pub frontend: Arc<Frontend>,
}

/// A connection of a client from outside to a Gateway.
#[derive(Clone, Debug)]
pub struct GatewayConnection {
    /// The Gateway.
    pub source: Rc<LocalWorkload>,
    /// The client's socket address.
    pub client: SocketAddr,
    /// The address that it dialled.
    pub local: SocketAddr,
    /// The place that is listened on. Requests are routed by its listeners in the latest snapshot.
    pub bind: Bind,
    /// The listener whose name the client asked for in the TLS handshake, as it was then; `None`: no TLS.
    pub listener: Option<Arc<Listener>>,
}

/// A connection of QUIC, on which HTTP/3 was agreed.
#[derive(Clone, Debug)]
pub struct QuicConnection {
    /// It, after its handshake.
    pub connection: quinn::Connection,
    /// Cancelled when it is to end after what is under way, because its place is gone.
    pub leaving: CancellationToken,
}

/// Any byte stream of a worker.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

/// The HTTP engine of one worker, as the pipelines call it. A future ends with its connection, which the engine
/// reports to telemetry itself.
pub trait HttpRelay {
    /// Inbound: parses, authorizes each request on the latest snapshot, forwards to the application. Must end when
    /// the permit is revoked.
    fn inbound(&self, io: Box<dyn ByteStream>, permit: HttpPermit) -> LocalBoxFuture<'static, ()>;

    /// A pod has left: nothing is kept for it.
    fn forget(&self, _pod: &Rc<LocalWorkload>) {}

    /// Outbound: parses, routes each request on the latest snapshot, forwards to the endpoint.
    fn outbound(&self, io: TcpStream, connection: OutboundConnection) -> LocalBoxFuture<'static, ()>;

    /// Gateway: parses, routes each request by the listener that has its host, forwards to the endpoint.
    fn gateway(&self, io: Box<dyn ByteStream>, connection: GatewayConnection) -> LocalBoxFuture<'static, ()>;

    /// Gateway, over QUIC: the same by HTTP/3. Who has no HTTP/3 lets it go.
    fn http3(&self, _quic: QuicConnection, _connection: GatewayConnection) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
