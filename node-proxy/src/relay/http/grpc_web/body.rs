//! Bodies of gRPC-Web on their way through.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::text::TextDecoder;
use super::{Form, WebAnswer};
use crate::connect::http_pool::{ExchangeError, UpstreamBody};
use crate::relay::http::body::BodyError;
use crate::relay::http::client::ClientBody;

/// A request's body on its way to become gRPC's.
pub(crate) struct WebRequest {
    body: ClientBody,
    /// Of a body in base64.
    text: Option<TextDecoder>,
    ended: bool,
}

impl WebRequest {
    pub(super) fn new(body: ClientBody, form: Form) -> Self {
        Self { body, text: (form == Form::Text).then(TextDecoder::default), ended: false }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended || (self.body.is_end_stream() && self.is_whole())
    }

    fn is_whole(&self) -> bool {
        self.text.as_ref().is_none_or(TextDecoder::is_whole)
    }

    /// The next frame. Trailers of HTTP mean nothing in a request of gRPC.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended {
            let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.ended = true;
                    return Poll::Ready((!self.is_whole()).then_some(Err(BodyError::Malformed)));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            let read = match &mut self.text {
                None => Ok(data),
                Some(text) => text.feed(&data),
            };
            match read {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(_) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BodyError::Malformed)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// An answer's body on its way to become gRPC-Web's. Its last frame has the trailers.
pub(crate) struct WebResponse {
    body: UpstreamBody,
    answer: WebAnswer,
    status: Option<u8>,
    ended: bool,
}

impl WebResponse {
    pub(super) fn new(body: UpstreamBody, answer: WebAnswer) -> Self {
        Self { body, answer, status: None, ended: false }
    }

    /// The gRPC status, once it came.
    pub(crate) fn status(&self) -> Option<u8> {
        self.status
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let trailers = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(self.answer.piece(data))))),
                    Err(frame) => frame.into_trailers().ok(),
                },
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => None,
            };
            self.ended = true;
            let (last, status) = self.answer.end(trailers);
            self.status = status;
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
    }
}
