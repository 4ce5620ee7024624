//! Heads of HTTP/1: a request's is written, an answer's is read (RFC 9112).
//!
//! Invariant: the length of an answer's body has one reading, or the answer is refused.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use super::error::ExchangeError;

/// Most headers of an answer.
const MAX_HEADERS: usize = 100;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    Close,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// The connection carries another request afterwards.
    pub(super) keeps: bool,
}

/// Writes the head of a request whose body has a length (`None`: it is sent in chunks). What its headers say of that is
/// left out: it may be older than a filter, and an endpoint must not read two lengths.
pub(super) fn write(out: &mut BytesMut, head: &Parts, length: Option<u64>) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let (method, headers) = (head.method.as_str(), &head.headers);
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    out.reserve(size + method.len() + target.len() + 64);
    for part in [method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"] {
        out.put_slice(part);
    }
    for (name, value) in headers.iter().filter(|(name, _)| !FRAMING.contains(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.put_slice(part);
        }
    }
    match length {
        None => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Some(0) if !expects_body(&head.method) && !headers.contains_key(header::CONTENT_LENGTH) => {}
        Some(length) => {
            out.put_slice(b"content-length: ");
            out.put_slice(itoa::Buffer::new().format(length).as_bytes());
            out.put_slice(b"\r\n");
        }
    }
    out.put_slice(b"\r\n");
}

const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// RFC 9110, section 8.6: a request says that it has no body if its method gives one a meaning.
fn expects_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// Reads the head of an answer from the start of `buf` and takes it away; `None`: it isn't complete.
///
/// # Errors
/// It isn't HTTP/1, or can be read in two ways.
pub(super) fn read(buf: &mut Bytes, request: &Method) -> Result<Option<Head>, ExchangeError> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let size = match config.parse_response_with_uninit_headers(&mut parsed, buf, &mut slots) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(ExchangeError::Head(error)),
    };
    let mut response = Response::new(());
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    *response.status_mut() = status.map_err(|_| ExchangeError::Malformed("status"))?;
    let modern = parsed.version == Some(1);
    *response.version_mut() = if modern { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| ExchangeError::Malformed("header"))?;
        // A slice of the buffer, which stays as long as a value does.
        let value = HeaderValue::from_maybe_shared(buf.slice_ref(header.value));
        headers.append(name, value.map_err(|_| ExchangeError::Malformed("header"))?);
    }
    drop(buf.split_to(size));
    let framing = framing(response.status(), &mut headers, request)?;
    let keeps = modern && !says_close(&headers) && framing != Framing::Close;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, framing, keeps }))
}

/// RFC 9112, section 6.3; what it calls a likely attack is refused.
fn framing(status: StatusCode, headers: &mut HeaderMap, request: &Method) -> Result<Framing, ExchangeError> {
    let bodyless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *request == Method::HEAD;
    let length = content_length(headers)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let framing = match (codings.next(), codings.next()) {
        (None, _) => length.map_or(Framing::Close, Framing::Length),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") && length.is_none() => Framing::Chunked,
        _ => return Err(ExchangeError::Malformed("length of the body")),
    };
    Ok(if bodyless { Framing::Length(0) } else { framing })
}

/// The one length that `Content-Length` gives; several equal ones become one.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, ExchangeError> {
    let bad = || ExchangeError::Malformed("length of the body");
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let digits = first.as_bytes();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let length = first.to_str().ok().filter(|_| valid).and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    let mut more = false;
    for other in values {
        if other != first {
            return Err(bad());
        }
        more = true;
    }
    if more {
        let only = first.clone();
        headers.insert(header::CONTENT_LENGTH, only);
    }
    Ok(Some(length))
}

fn says_close(headers: &HeaderMap) -> bool {
    let says = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    headers.get_all(header::CONNECTION).iter().any(says)
}
