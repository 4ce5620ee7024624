//! HTTP/1 connections: one request at a time.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::{ConnectError, UpstreamStream};
use super::{PoolSettings, SendError};
use crate::relay::http::RequestBody;

/// Most headers of an answer.
const MAX_HEADERS: usize = 100;

/// The stream of a connection that switched protocols, and what was read of the new one.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) stream: UpstreamStream,
    pub(crate) read: Bytes,
}

/// An open connection.
pub(super) struct H1 {
    sender: SendRequest<RequestBody>,
    upgrade: Rc<Cell<bool>>,
    parts: oneshot::Receiver<Parts>,
}

/// A connection that waits for its next request.
pub(super) struct Idle {
    pub(super) conn: H1,
    pub(super) since: Instant,
}

/// Starts HTTP/1 on a stream.
pub(super) async fn open(stream: UpstreamStream, limits: &PoolSettings, to: SocketAddr) -> Result<H1, ConnectError> {
    let handshake = Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(limits.max_header_bytes)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|_| ConnectError::Tcp { to, kind: std::io::ErrorKind::Other })?;
    let upgrade = Rc::new(Cell::new(false));
    let (give, parts) = oneshot::channel();
    tokio::task::spawn_local(drive(connection, Rc::clone(&upgrade), give));
    Ok(H1 { sender, upgrade, parts })
}

async fn drive(
    mut connection: Connection<TokioIo<UpstreamStream>, RequestBody>,
    upgrade: Rc<Cell<bool>>,
    give: oneshot::Sender<Parts>,
) {
    if let Err(error) = poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
        tracing::debug!("upstream connection ended: {error}");
        return;
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if upgrade.get() {
        // Whoever waited for it may be gone; then the stream closes.
        drop(give.send(Parts { stream, read: parts.read_buf }));
    } else if let Err(error) = stream.shutdown().await {
        tracing::trace!("upstream connection not closed cleanly: {error}");
    }
}

impl H1 {
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn expect_upgrade(&self) {
        self.upgrade.set(true);
    }

    pub(super) async fn upgraded(self) -> Option<Parts> {
        self.parts.await.ok()
    }

    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        self.sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Sent(error.into_error()),
        })
    }
}
