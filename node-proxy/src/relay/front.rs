//! The seam between the connection pipelines and the HTTP engine.
//!
//! The pipelines hand a connection over when something needs HTTP: outbound for a route or an HTTP port, inbound for
//! a policy that looks at requests. A trait, so that the tests of a stage can rig the other branch to panic.

use std::net::SocketAddr;
use std::rc::Rc;

use futures::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use weft_core::reason::Reason;

use crate::identify::{LocalWorkload, Peer};

/// A connection of a local pod, intercepted.
#[derive(Clone, Debug)]
pub struct OutboundConnection {
    /// Who calls: the pod whose namespace accepted it.
    pub source: Rc<LocalWorkload>,
    /// The client's own socket address.
    pub client: SocketAddr,
    /// Where the client dialled.
    pub destination: SocketAddr,
}

/// A connection to a local pod, by tunnel, in memory or in the clear.
#[derive(Clone, Debug)]
pub struct InboundConnection {
    /// The destination pod.
    pub workload: Rc<LocalWorkload>,
    /// Who calls.
    pub peer: Peer,
    /// The application's address: one of the pod's.
    pub destination: SocketAddr,
}

/// Any byte stream of a worker.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

/// How much went through a connection, and why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Why it ended.
    pub reason: Reason,
}

/// The HTTP engine of one worker, as the pipelines call it. A future ends with its connection.
pub trait HttpRelay {
    /// Inbound: parses, authorizes each request on the latest snapshot, forwards to the application.
    fn inbound(&self, io: Box<dyn ByteStream>, connection: InboundConnection) -> LocalBoxFuture<'_, Ended>;

    /// Outbound: parses, routes each request on the latest snapshot, forwards to the endpoint.
    fn outbound(&self, io: TcpStream, connection: OutboundConnection) -> LocalBoxFuture<'_, Ended>;
}
