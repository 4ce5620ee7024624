//! gRPC echo: every message comes back as it arrived, as soon as it arrived, whatever the method.
//!
//! The request's `x-grpc-status` and `x-grpc-message` become the trailers, so that a test chooses the outcome.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};

use super::http::Body;

pub(super) fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut trailers = HeaderMap::new();
    let status = head.headers.get("x-grpc-status").cloned();
    trailers.insert("grpc-status", status.unwrap_or(HeaderValue::from_static("0")));
    if let Some(message) = head.headers.get("x-grpc-message") {
        trailers.insert("grpc-message", message.clone());
    }
    let frames = stream::unfold(Some((body, trailers)), |state| async {
        let (mut body, trailers) = state?;
        loop {
            match body.frame().await {
                // Frame by frame is message by message enough: the client puts them together again.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Some((data(bytes), Some((body, trailers)))),
                    Err(_) => continue,
                },
                Some(Err(_)) => return None,
                None => return Some((Ok(Frame::trailers(trailers)), None)),
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn data(bytes: Bytes) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(bytes))
}
