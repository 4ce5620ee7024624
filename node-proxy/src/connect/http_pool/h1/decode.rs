//! The body of an answer, out of the bytes of a connection.

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body::Frame;

use super::error::ExchangeError;
use super::head::Framing;

/// Bytes of a line with a chunk's size, or of all trailers.
const MAX_LINE: usize = 8 * 1024;
/// Most trailers.
const MAX_TRAILERS: usize = 64;

/// Where in a body the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// A line with a chunk's size comes next.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Trailers, or the empty line.
    Trailers,
    /// Everything until the end of the connection.
    Close,
    /// The body is complete.
    Done,
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Size,
            Framing::Close => Self::Close,
        }
    }

    /// What is left, if that is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Done => Some(0),
            _ => None,
        }
    }

    /// The next frame out of `buf`; `None`: more bytes are needed, or the body is complete.
    pub(super) fn next(&mut self, buf: &mut Bytes) -> Result<Option<Frame<Bytes>>, ExchangeError> {
        loop {
            match *self {
                Self::Done => return Ok(None),
                _ if buf.is_empty() => return Ok(None),
                Self::Length(left) => {
                    let data = take(buf, left);
                    *self = match left - data.len() as u64 {
                        0 => Self::Done,
                        left => Self::Length(left),
                    };
                    return Ok(Some(Frame::data(data)));
                }
                Self::Close => return Ok(Some(Frame::data(std::mem::take(buf)))),
                Self::Chunk(left) => {
                    let data = take(buf, left);
                    *self = match left - data.len() as u64 {
                        0 => Self::ChunkEnd,
                        left => Self::Chunk(left),
                    };
                    return Ok(Some(Frame::data(data)));
                }
                Self::ChunkEnd => {
                    if buf.len() < 2 {
                        return Ok(None);
                    }
                    if !buf.starts_with(b"\r\n") {
                        return Err(ExchangeError::Malformed("end of a chunk"));
                    }
                    buf.advance(2);
                    *self = Self::Size;
                }
                Self::Size => match size(buf)? {
                    None => return Ok(None),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Chunk(size),
                },
                Self::Trailers => {
                    let Some(trailers) = trailers(buf)? else { return Ok(None) };
                    *self = Self::Done;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
            }
        }
    }
}

fn take(buf: &mut Bytes, left: u64) -> Bytes {
    let n = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
    buf.split_to(n)
}

/// A chunk's size; an extension is skipped (RFC 9112, section 7.1.1).
fn size(buf: &mut Bytes) -> Result<Option<u64>, ExchangeError> {
    let bad = ExchangeError::Malformed("size of a chunk");
    let Some(end) = buf.iter().position(|byte| *byte == b'\n') else {
        return if buf.len() > MAX_LINE { Err(bad) } else { Ok(None) };
    };
    let line = buf.split_to(end + 1);
    let Some(line) = line.strip_suffix(b"\r\n").filter(|line| line.len() <= MAX_LINE) else { return Err(bad) };
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    // Blanks before an extension are allowed for; anything else, a bare CR above all, is not.
    let extension_is_fine =
        extension.is_empty() || extension.trim_ascii_start().starts_with(b";") && !extension.contains(&b'\r');
    if digits.is_empty() || digits.len() > 16 || !extension_is_fine {
        return Err(bad);
    }
    let text = std::str::from_utf8(digits).map_err(|_| ExchangeError::Malformed("size of a chunk"))?;
    u64::from_str_radix(text, 16).map(Some).map_err(|_| bad)
}

fn trailers(buf: &mut Bytes) -> Result<Option<HeaderMap>, ExchangeError> {
    let bad = |_| ExchangeError::Malformed("trailers");
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let (size, parsed) = match httparse::parse_headers(buf, &mut slots).map_err(bad)? {
        httparse::Status::Complete(found) => found,
        httparse::Status::Partial if buf.len() > MAX_LINE => return Err(ExchangeError::Malformed("trailers")),
        httparse::Status::Partial => return Ok(None),
    };
    let mut trailers = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok();
        let value = HeaderValue::from_maybe_shared(buf.slice_ref(header.value)).ok();
        let (name, value) = name.zip(value).ok_or(ExchangeError::Malformed("trailers"))?;
        trailers.append(name, value);
    }
    buf.advance(size);
    Ok(Some(trailers))
}
