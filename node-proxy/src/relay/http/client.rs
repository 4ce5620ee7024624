//! The body of a request as it comes from the client, whatever carries it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;
use super::grpc_web::WebRequest;
use super::h3::Http3Body;
use super::hop::strip_trailers;

/// A request's body on the client's side.
pub(crate) enum ClientBody {
    /// There is none.
    None,
    /// Of HTTP/1 or HTTP/2.
    Codec(Incoming),
    /// Of HTTP/3.
    Http3(Box<Http3Body>),
    /// Read whole, because an authorizer had to see it.
    Whole(Box<WholeBody>),
    /// Of gRPC-Web, on its way to become gRPC's.
    GrpcWeb(Box<WebRequest>),
}

impl From<Incoming> for ClientBody {
    fn from(body: Incoming) -> Self {
        Self::Codec(body)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = match &mut *self {
            Self::None => Poll::Ready(None),
            Self::Codec(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Http),
            Self::Http3(body) => Pin::new(body).poll_frame(cx),
            Self::Whole(body) => Poll::Ready(body.next().map(Ok)),
            Self::GrpcWeb(body) => body.poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            strip_trailers(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Codec(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
            Self::Whole(body) => body.is_empty(),
            Self::GrpcWeb(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Codec(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
            Self::Whole(body) => body.size_hint(),
            Self::GrpcWeb(_) => SizeHint::default(),
        }
    }
}

/// A body that was read to its end.
#[derive(Debug, Default)]
pub(crate) struct WholeBody {
    /// What it consists of.
    pub(crate) data: Bytes,
    /// What came after it.
    pub(crate) trailers: Option<HeaderMap>,
}

impl WholeBody {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.data)))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.trailers {
            // They can't follow a body whose length is announced on HTTP/1.
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.data.len() as u64),
        }
    }
}
