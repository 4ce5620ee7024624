//! The frame of a gRPC-Web body that holds trailers.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

use super::{MESSAGE, STATUS};

/// The flag of a frame of trailers, where a message has its compression.
const TRAILERS: u8 = 0x80;

/// The trailers as lines of HTTP/1, names in lower case, in a frame.
pub(super) fn of_trailers(trailers: &HeaderMap) -> Bytes {
    let length: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 3).sum();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(TRAILERS);
    // Trailers are bounded by what is taken from an endpoint at all.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"] {
            frame.put_slice(part);
        }
    }
    frame.freeze()
}

/// What is said of an answer that ended without its trailers: UNKNOWN, as gRPC clients take it.
pub(super) fn missing() -> HeaderMap {
    HeaderMap::from_iter([
        (STATUS, HeaderValue::from_static("2")),
        (MESSAGE, HeaderValue::from_static("the answer has no status")),
    ])
}
