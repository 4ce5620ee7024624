//! See [`crate::fuzzing`].

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use weft_core::gateway::ForwardedHeader;
use weft_core::traffic::SessionCarrier;

use super::framing::{H1Framing, H2Framing};
use super::grpc_web::TextDecoder;
use super::{check, hop as headers_of_hop, origin, session};
use crate::fuzzing::Hops;

pub use super::auth::fuzzing::{Authorized, auth_grpc, auth_http, denied};
pub use super::grpc_web::fuzzing::{WebCall, web_call};
pub use super::h3::fuzzing::{H3Section, H3Stream, h3_frames, h3_huffman, h3_section, h3_stream};

/// Which header [`forwarded`] reads.
pub const FORWARDED: [ForwardedHeader; 2] = [ForwardedHeader::Forwarded, ForwardedHeader::XForwardedFor];

/// The number of the first request in bytes of a connection of HTTP/1 whose framing is ambiguous, and how many heads were whole;
/// the bytes come in pieces of this size.
pub fn h1_ambiguous(bytes: &[u8], piece: usize) -> (Option<u64>, u64) {
    let mut framing = H1Framing::default();
    let found = bytes.chunks(piece.max(1)).find_map(|piece| framing.feed(piece));
    (found, framing.heads())
}

/// Whether a header block is under way at the end of bytes of a connection of HTTP/2, behind the preface.
pub fn h2_in_block(bytes: &[u8], piece: usize) -> bool {
    let mut framing = H2Framing::new(0);
    bytes.chunks(piece.max(1)).fold(false, |_, piece| framing.feed(piece).in_block)
}

/// Checks a request, and brings it into its one form; whether its path has an encoded separator. `None`: it is refused.
pub fn checked(parts: &mut Parts) -> Option<bool> {
    check::check(parts, false).ok().map(|checked| checked.ambiguous_path)
}

/// Removes what concerns one connection, and returns what the connection may be switched to.
pub fn hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers_of_hop::strip(headers)
}

/// Removes what has no place in trailers.
pub fn trailers(trailers: &mut HeaderMap) {
    headers_of_hop::strip_trailers(trailers);
}

/// The hops that headers name, the nearest one first; `None`: they can't be read.
pub fn forwarded(headers: &HeaderMap, header: ForwardedHeader) -> Option<Hops> {
    origin::hops_said(headers, header)
}

/// The seals of sessions that a client presents.
pub fn presented(carrier: &SessionCarrier, headers: &HeaderMap) -> Vec<String> {
    session::presented(carrier, headers).map(str::to_owned).collect()
}

/// The bytes of a text of gRPC-Web that comes in pieces of this size; `None`: it isn't base64, or isn't whole.
pub fn web_text(text: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut decoder = TextDecoder::default();
    let parts: Result<Vec<Bytes>, _> = text.chunks(piece.max(1)).map(|piece| decoder.feed(piece)).collect();
    parts.ok().filter(|_| decoder.is_whole()).map(|parts| parts.concat())
}
