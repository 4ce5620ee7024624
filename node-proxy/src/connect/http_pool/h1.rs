//! HTTP/1 connections to endpoints: one request at a time.
//!
//! The exchange runs in the task of the request, which writes the request's head and body, reads the answer's head, and then
//! takes the answer's body as the client has room for it: there is no task, channel or timer per connection. While a
//! connection is idle nobody looks at it; whether its endpoint has closed it is found when it is taken from the pool.
//!
//! Invariants: a connection goes back to its pool only when request and answer are complete, the endpoint hasn't said that
//! it closes, and not a byte came after the answer; the body of an answer lets go of the connection as it ends.

mod decode;
mod error;
pub mod fuzzing;
mod head;
mod io;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::request::Parts as RequestHead;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::super::UpstreamStream;
use super::{Outgoing, PoolSettings, SendError};
use crate::relay::http::RequestBody;
use decode::Decoder;
pub(crate) use error::ExchangeError;
use head::Head;

/// A request body's data up to this size is copied behind what goes before it, so that both leave in one call.
const COPY_UP_TO: usize = 4 * 1024;
/// So much is gathered before it is written.
const GATHER: usize = 16 * 1024;
/// How long an endpoint may take to close its half of a connection that is given up.
const FAREWELL: Duration = Duration::from_secs(1);

/// The stream of a connection that switched protocols, and what was read of the new one.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) stream: UpstreamStream,
    pub(crate) read: Bytes,
}

/// Hears of interim answers.
type Told<'a> = &'a dyn Fn(&Response<()>);

/// An open connection.
pub(super) struct H1(Rc<RefCell<Connection>>);

/// A connection that waits for its next request.
pub(super) struct Idle {
    pub(super) conn: H1,
    pub(super) since: Instant,
}

/// The body of an answer. The connection is here until the body ends.
pub(crate) struct AnswerBody(Option<Rc<RefCell<Connection>>>);

struct Connection {
    stream: UpstreamStream,
    /// Received and not yet looked at.
    received: Bytes,
    /// To be sent, first this, then `data`.
    head: BytesMut,
    data: Bytes,
    /// A line end follows `data`.
    ends_chunk: bool,
    sending: Option<Sending>,
    /// Something of the request was written, or taken from its body.
    touched: bool,
    decoder: Decoder,
    keeps: bool,
    switches: bool,
    max_header_bytes: usize,
}

/// A request's body on its way.
struct Sending {
    body: RequestBody,
    /// What is left to send; `None`: it goes in chunks.
    left: Option<u64>,
}

impl H1 {
    /// Speaks HTTP/1 on a stream.
    pub(super) fn new(stream: UpstreamStream, limits: &PoolSettings) -> Self {
        Self(Rc::new(RefCell::new(Connection {
            stream,
            received: Bytes::new(),
            head: BytesMut::new(),
            data: Bytes::new(),
            ends_chunk: false,
            sending: None,
            touched: false,
            decoder: Decoder::Done,
            keeps: true,
            switches: false,
            max_header_bytes: limits.max_header_bytes,
        })))
    }

    /// Whether a connection that nobody uses is of no use: closed, or the endpoint sent what nobody asked for.
    pub(super) fn is_closed(&self) -> bool {
        let mut conn = self.0.borrow_mut();
        !conn.received.is_empty() || io::is_readable(&mut conn.stream)
    }

    /// Whether it may carry the next request.
    pub(super) fn is_reusable(&self) -> bool {
        let conn = self.0.borrow();
        conn.keeps
            && conn.decoder == Decoder::Done
            && conn.sending.is_none()
            && !conn.is_writing()
            && conn.received.is_empty()
    }

    pub(super) fn expect_upgrade(&self) {
        self.0.borrow_mut().switches = true;
    }

    /// The stream, after the endpoint answered 101.
    pub(super) fn upgraded(self) -> Option<Parts> {
        let conn = Rc::try_unwrap(self.0).ok()?.into_inner();
        Some(Parts { stream: conn.stream, read: conn.received })
    }

    /// Sends a request and waits for the head of the answer; `told` hears of interim answers.
    pub(super) async fn send(
        &mut self,
        outgoing: &mut Outgoing,
        told: Told<'_>,
    ) -> Result<Response<AnswerBody>, SendError> {
        let Outgoing { head: Some(head), body, .. } = outgoing else { return Err(SendError::Unsent) };
        let Some(sent) = body.take() else { return Err(SendError::Unsent) };
        self.0.borrow_mut().start(head, sent);
        let answered = poll_fn(|cx| self.0.borrow_mut().poll_head(cx, (head, told))).await;
        let mut conn = self.0.borrow_mut();
        match answered {
            Ok(Head { response, framing, keeps }) => {
                conn.decoder = Decoder::new(framing);
                conn.keeps = keeps;
                let body = AnswerBody((conn.decoder != Decoder::Done).then(|| Rc::clone(&self.0)));
                Ok(response.map(|()| body))
            }
            Err(error) => {
                conn.keeps = false;
                match conn.sending.take() {
                    sending if !conn.touched => {
                        *body = Some(sending.map_or(RequestBody::Empty, |sending| sending.body));
                        Err(SendError::Unsent)
                    }
                    _ => Err(SendError::Sent(error)),
                }
            }
        }
    }

    /// Closes a connection that is complete, so that the endpoint sees an end and not a reset.
    pub(super) fn close(self) {
        let Ok(conn) = Rc::try_unwrap(self.0) else { return };
        let mut stream = conn.into_inner().stream;
        tokio::task::spawn_local(async move {
            let farewell = async {
                stream.shutdown().await?;
                stream.read(&mut [0; 64]).await
            };
            // Whatever comes of it, the stream is dropped.
            let _ = tokio::time::timeout(FAREWELL, farewell).await;
        });
    }
}

impl Connection {
    fn is_writing(&self) -> bool {
        !self.head.is_empty() || !self.data.is_empty() || self.ends_chunk
    }

    fn start(&mut self, head: &RequestHead, body: RequestBody) {
        let length = body.size_hint().exact();
        head::write(&mut self.head, head, length);
        self.sending = (!body.is_end_stream()).then_some(Sending { body, left: length });
        (self.touched, self.keeps) = (false, false);
    }

    /// Sends what there is of the request, and reads the head of the answer.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        request: (&RequestHead, Told<'_>),
    ) -> Poll<Result<Head, ExchangeError>> {
        // An endpoint that answers early may stop reading: then its answer counts.
        let failed = match self.poll_request(cx) {
            Poll::Ready(Err(error)) if !self.touched => return Poll::Ready(Err(error)),
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        match (self.poll_answer(cx, request), failed) {
            (Poll::Ready(Ok(mut head)), failed) => {
                head.keeps &= failed.is_none();
                Poll::Ready(Ok(head))
            }
            (_, Some(error)) => Poll::Ready(Err(error)),
            (polled, None) => polled,
        }
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        (request, told): (&RequestHead, Told<'_>),
    ) -> Poll<Result<Head, ExchangeError>> {
        // Where the end of the head can't be before: a head that comes byte by byte is not parsed for each of them.
        let mut searched = self.received.len();
        loop {
            if !self.received.is_empty() && io::has_empty_line(&self.received, searched) {
                match head::read(&mut self.received, &request.method)? {
                    Some(head) if head.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                        let wanted = std::mem::take(&mut self.switches);
                        let refused = ExchangeError::Malformed("a switch of protocols that nobody asked for");
                        return Poll::Ready(if wanted { Ok(head) } else { Err(refused) });
                    }
                    Some(head) if head.response.status().is_informational() => {
                        told(&head.response);
                        searched = 0;
                        continue;
                    }
                    Some(head) => {
                        self.switches = false;
                        return Poll::Ready(Ok(head));
                    }
                    None => {}
                }
            }
            if self.received.len() > self.max_header_bytes {
                return Poll::Ready(Err(ExchangeError::TooLarge));
            }
            searched = self.received.len();
            if !ready!(io::poll_receive(&mut self.stream, cx, &mut self.received))? {
                return Poll::Ready(Err(ExchangeError::Closed));
            }
        }
    }

    /// Sends what there is of the request; ready when all of it is sent.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        loop {
            while self.sending.is_some() && self.data.is_empty() && !self.ends_chunk && self.head.len() < GATHER {
                if self.poll_gather(cx)?.is_pending() {
                    break;
                }
            }
            if !self.is_writing() {
                return if self.sending.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            ready!(io::poll_send(&mut self.stream, cx, (&mut self.head, &mut self.data)))?;
            self.touched = true;
            if self.data.is_empty() && self.head.is_empty() && std::mem::take(&mut self.ends_chunk) {
                self.head.put_slice(b"\r\n");
            }
        }
    }

    /// Takes the next frame of the request's body.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, ExchangeError> {
        let Some(sending) = &mut self.sending else { return Ok(Poll::Ready(())) };
        let Poll::Ready(frame) = std::pin::Pin::new(&mut sending.body).poll_frame(cx) else { return Ok(Poll::Pending) };
        self.touched = true;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => self.put_data(data)?,
                Err(frame) => self.end_body(frame.into_trailers().ok())?,
            },
            Some(Err(_)) => return Err(ExchangeError::RequestBody),
            None => self.end_body(None)?,
        }
        Ok(Poll::Ready(()))
    }

    fn put_data(&mut self, data: Bytes) -> Result<(), ExchangeError> {
        let Some(Sending { left, .. }) = &mut self.sending else { return Ok(()) };
        let chunked = left.is_none();
        if let Some(left) = left {
            // More than was announced would be the start of another request to the endpoint.
            *left = left.checked_sub(data.len() as u64).ok_or(ExchangeError::RequestBody)?;
        } else {
            self.head.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
        }
        if data.len() <= COPY_UP_TO {
            self.head.put_slice(&data);
            if chunked {
                self.head.put_slice(b"\r\n");
            }
        } else {
            (self.data, self.ends_chunk) = (data, chunked);
        }
        Ok(())
    }

    fn end_body(&mut self, trailers: Option<http::HeaderMap>) -> Result<(), ExchangeError> {
        match self.sending.take() {
            Some(Sending { left: Some(1..), .. }) => return Err(ExchangeError::RequestBody),
            Some(Sending { left: None, .. }) => {
                self.head.put_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten() {
                    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                        self.head.put_slice(part);
                    }
                }
                self.head.put_slice(b"\r\n");
            }
            _ => {}
        }
        Ok(())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if (self.sending.is_some() || self.is_writing())
            && let Poll::Ready(Err(_)) = self.poll_request(cx)
        {
            // The endpoint doesn't want the rest of the request; its answer still counts.
            (self.sending, self.keeps, self.ends_chunk) = (None, false, false);
            self.head.clear();
            self.data.clear();
        }
        loop {
            match self.decoder.next(&mut self.received) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder == Decoder::Done => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(io::poll_receive(&mut self.stream, cx, &mut self.received)) {
                Ok(true) => {}
                // A body that ends with its connection is whole only if it was the endpoint that ended it (RFC 9112,
                // section 9.8).
                Ok(false) if self.decoder == Decoder::Close && !self.stream.is_cut() => self.decoder = Decoder::Done,
                Ok(false) => return Poll::Ready(Some(Err(ExchangeError::Closed))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

impl AnswerBody {
    /// The next frame. After an error or the end there is none.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let Some(shared) = &self.0 else { return Poll::Ready(None) };
        let mut conn = shared.borrow_mut();
        let polled = ready!(conn.poll_body(cx));
        let over = conn.decoder == Decoder::Done || !matches!(polled, Some(Ok(_)));
        drop(conn);
        if over {
            self.0 = None;
        }
        Poll::Ready(polled)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.0.as_ref().map(|conn| conn.borrow().decoder.left()) {
            None => SizeHint::with_exact(0),
            Some(Some(left)) => SizeHint::with_exact(left),
            Some(None) => SizeHint::default(),
        }
    }
}
