//! The body of an answer.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

use super::super::ExchangeError;
use super::Link;

/// The body of an answer; room for more is given to the endpoint as this is read.
pub(crate) struct H2Body {
    stream: RecvStream,
    link: Rc<Link>,
    /// What is left of a length that was announced.
    left: Option<u64>,
    /// Only trailers may come.
    data_is_over: bool,
}

impl H2Body {
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap, link: Rc<Link>) -> Self {
        // The codec refuses one that isn't kept.
        let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let left = announced.or(stream.is_end_stream().then_some(0));
        Self { stream, link, left, data_is_over: false }
    }
}

impl Body for H2Body {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let this = &mut *self;
        if !this.data_is_over {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only for more than there was.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    this.link.heard.set(true);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(broken(error)),
                None => this.data_is_over = true,
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(broken(error)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// A reset without an error means that the answer was whole before the request was (RFC 9113, section 8.1).
fn broken(error: ::h2::Error) -> Option<Result<Frame<Bytes>, ExchangeError>> {
    if error.reason() == Some(Reason::NO_ERROR) { None } else { Some(Err(error.into())) }
}
