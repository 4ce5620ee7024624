//! See [`crate::fuzzing`].

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::{Form, GrpcWeb};
use crate::relay::http::client::ClientBody;

/// A call of gRPC-Web, in gRPC and back.
#[derive(Debug)]
pub struct WebCall {
    /// What the backend gets.
    pub request: Parts,
    /// Whether the client gets its answer in base64.
    pub text: bool,
    /// The head and the body of that; `None`: the backend's isn't gRPC, and passes as it is.
    pub answer: Option<(HeaderMap, Vec<u8>)>,
}

/// Translates a request, and the answer to it: its headers, its body that comes in pieces of this size, its trailers. `None`: the
/// request is no call of gRPC-Web, or has no form in HTTP/2.
pub fn web_call(
    mut request: Parts,
    headers: HeaderMap,
    (body, piece): (&[u8], usize),
    trailers: Option<HeaderMap>,
) -> Option<WebCall> {
    let web = GrpcWeb::of(&request.method, &request.headers)?;
    web.translate(&mut request, ClientBody::None).ok()?;
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.headers = headers;
    let answer = web.answer(&mut head).map(|mut answer| {
        let pieces = body.chunks(piece.max(1)).map(|piece| answer.piece(Bytes::copy_from_slice(piece)));
        let mut written: Vec<u8> = pieces.flatten().collect();
        written.extend_from_slice(&answer.end(trailers).0);
        (head.headers, written)
    });
    Some(WebCall { request, text: web.answer == Form::Text, answer })
}
