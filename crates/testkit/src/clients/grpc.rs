//! gRPC with hand-written frames: one byte "compressed", four bytes length, the message.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::SinkExt as _;
use futures::channel::mpsc;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use super::http::{Connection, RequestBody, request};

/// Requests written but not yet taken by the connection.
const QUEUE: usize = 4;

/// A client of one server.
#[derive(Debug)]
pub struct Grpc {
    connection: Connection,
    authority: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcReply {
    /// `grpc-status`, from the trailers, or from the head when there is nothing else.
    pub status: u32,
    /// `grpc-message`.
    pub message: Option<String>,
    /// The messages, in order.
    pub messages: Vec<Bytes>,
    /// The headers of the answer.
    pub headers: HeaderMap,
}

/// A call that goes on. Dropping it resets the stream.
#[derive(Debug)]
pub struct GrpcStream {
    requests: mpsc::Sender<Result<Frame<Bytes>>>,
    headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Grpc {
    /// Connects over HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// When that fails.
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        Ok(Self { connection: Connection::open(addr, Version::HTTP_2).await?, authority: None })
    }

    /// Uses this authority instead of the address.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// One message out, all messages and the status back. `path` is `/package.Service/Method`.
    ///
    /// # Errors
    /// When there is no gRPC answer; a status other than 0 is an answer.
    pub async fn unary(&mut self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Result<GrpcReply> {
        let mut body = BytesMut::new();
        put(&mut body, message)?;
        let mut request = self.request(path, headers);
        *request.body_mut() = http_body_util::Full::new(body.freeze()).map_err(|never| match never {}).boxed_unsync();
        let response = self.connection.send_streaming(request).await?;
        let (closed, _) = mpsc::channel(0);
        GrpcStream::new(closed, response)?.finish().await
    }

    /// Starts a call in which both sides send as they like.
    ///
    /// # Errors
    /// When there is no gRPC answer.
    pub async fn stream(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<GrpcStream> {
        let (requests, frames) = mpsc::channel(QUEUE);
        let mut request = self.request(path, headers);
        *request.body_mut() = StreamBody::new(frames).boxed_unsync();
        let response = self.connection.send_streaming(request).await?;
        GrpcStream::new(requests, response)
    }

    fn request(&self, path: &str, headers: &[(&str, &str)]) -> Request<RequestBody> {
        let mut all = vec![("content-type", "application/grpc"), ("te", "trailers")];
        all.extend_from_slice(headers);
        let target = self.authority.as_ref().map_or(path.to_owned(), |a| format!("http://{a}{path}"));
        request(Method::POST, &target, &all, Bytes::new())
    }
}

impl GrpcStream {
    fn new(requests: mpsc::Sender<Result<Frame<Bytes>>>, response: http::Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        ensure!(head.status == StatusCode::OK, "not a gRPC answer: {} {:?}", head.status, head.headers);
        Ok(Self { requests, headers: head.headers, body, buffer: BytesMut::new(), trailers: None })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn send(&mut self, message: &[u8]) -> Result<()> {
        let mut frame = BytesMut::new();
        put(&mut frame, message)?;
        self.requests.send(Ok(Frame::data(frame.freeze()))).await.context("the call has ended")
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// When the stream is reset or ends within a message.
    pub async fn recv(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = take(&mut self.buffer) {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(frame) => match frame?.into_data() {
                    Ok(bytes) => self.buffer.extend_from_slice(&bytes),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                None if self.buffer.is_empty() => return Ok(None),
                None => bail!("ended within a message"),
            }
        }
    }

    /// Says that no more comes from here, and waits for the rest and the status.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), or when there is no status.
    pub async fn finish(mut self) -> Result<GrpcReply> {
        self.requests.close_channel();
        let mut messages = Vec::new();
        while let Some(message) = self.recv().await? {
            messages.push(message);
        }
        let last = self.trailers.as_ref().unwrap_or(&self.headers);
        let text = |name| last.get(name).and_then(|v| v.to_str().ok());
        let status = text("grpc-status").context("no grpc-status")?.parse()?;
        let message = text("grpc-message").map(str::to_owned);
        Ok(GrpcReply { status, message, messages, headers: self.headers })
    }
}

fn put(out: &mut BytesMut, message: &[u8]) -> Result<()> {
    out.put_u8(0);
    out.put_u32(message.len().try_into()?);
    out.put_slice(message);
    Ok(())
}

fn take(buffer: &mut BytesMut) -> Option<Bytes> {
    let len = u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize;
    if buffer.len() < 5 + len {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(len).freeze())
}
