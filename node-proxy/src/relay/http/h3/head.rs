//! Fields as a request, and a response as fields (RFC 9114, sections 4.2 and 4.3). What is malformed ends its stream before
//! anybody reads a meaning into it (section 4.1.2).

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, StatusCode, Version};

use super::qpack::{Encoder, Field};

/// Headers of one connection, which HTTP/3 doesn't have (RFC 9114, section 4.2).
const OF_ONE_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why a message is malformed; for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a pseudo-header field that isn't one of a request, is there twice or stands behind other fields")]
    Pseudo,
    #[error("a field name or value that isn't valid")]
    Field,
    #[error("a field that is of one connection")]
    Connection,
    #[error("a request needs a method, a scheme, a path and an authority, and CONNECT only the last")]
    Incomplete,
    #[error("content-length is not one number")]
    Length,
}

/// What the pseudo-header fields say.
#[derive(Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
}

impl Pseudo {
    fn set(&mut self, name: &[u8], value: Bytes) -> Result<(), Malformed> {
        fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Malformed> {
            let value = value.ok_or(Malformed::Field)?;
            slot.replace(value).map_or(Ok(()), |_| Err(Malformed::Pseudo))
        }
        match name {
            b":method" => once(&mut self.method, Method::from_bytes(&value).ok()),
            b":scheme" => once(&mut self.scheme, Scheme::try_from(&value[..]).ok()),
            // Without userinfo (section 4.3.1).
            b":authority" if value.contains(&b'@') => Err(Malformed::Field),
            b":authority" => once(&mut self.authority, Authority::from_maybe_shared(value).ok()),
            b":path" if value.is_empty() => Err(Malformed::Field),
            b":path" => once(&mut self.path, PathAndQuery::from_maybe_shared(value).ok()),
            _ => Err(Malformed::Pseudo),
        }
    }

    /// Method and target; the authority may be what `Host` says.
    fn target(self, headers: &HeaderMap) -> Result<(Method, Uri), Malformed> {
        let method = self.method.ok_or(Malformed::Incomplete)?;
        let mut parts = http::uri::Parts::default();
        if method == Method::CONNECT {
            if self.scheme.is_some() || self.path.is_some() {
                return Err(Malformed::Incomplete);
            }
            parts.authority = Some(self.authority.ok_or(Malformed::Incomplete)?);
        } else {
            let path = self.path.ok_or(Malformed::Incomplete)?;
            let is_path = path.as_str().starts_with('/') || (path == "*" && method == Method::OPTIONS);
            if !is_path {
                return Err(Malformed::Field);
            }
            let host = || Authority::try_from(headers.get(header::HOST)?.as_bytes()).ok();
            parts.authority = Some(self.authority.or_else(host).ok_or(Malformed::Incomplete)?);
            parts.scheme = Some(self.scheme.ok_or(Malformed::Incomplete)?);
            parts.path_and_query = Some(path);
        }
        Ok((method, Uri::from_parts(parts).map_err(|_| Malformed::Incomplete)?))
    }
}

/// Takes a field that isn't a pseudo-header field.
fn regular(headers: &mut HeaderMap, field: Field) -> Result<(), Malformed> {
    // Upper case is malformed, too.
    let name = HeaderName::from_lowercase(&field.name).map_err(|_| Malformed::Field)?;
    let value = HeaderValue::from_maybe_shared(field.value).map_err(|_| Malformed::Field)?;
    if OF_ONE_CONNECTION.contains(&name) || (name == header::TE && value != "trailers") {
        return Err(Malformed::Connection);
    }
    headers.try_append(name, value).map_err(|_| Malformed::Field)?;
    Ok(())
}

/// A request of its fields, with the length of its body if it says one.
///
/// # Errors
/// [`Malformed`].
pub(super) fn request(fields: Vec<Field>) -> Result<(Request<()>, Option<u64>), Malformed> {
    let (mut pseudo, mut headers) = (Pseudo::default(), HeaderMap::with_capacity(fields.len()));
    for field in fields {
        if field.name.first() != Some(&b':') {
            regular(&mut headers, field)?;
        } else if headers.is_empty() {
            pseudo.set(&field.name, field.value)?;
        } else {
            return Err(Malformed::Pseudo);
        }
    }
    let length = content_length(&headers)?;
    let (method, uri) = pseudo.target(&headers)?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_3;
    *request.headers_mut() = headers;
    Ok((request, length))
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok()).ok_or(Malformed::Length)?;
    if lengths.next().is_some() { Err(Malformed::Length) } else { Ok(Some(number)) }
}

/// The fields behind a body.
///
/// # Errors
/// [`Malformed`]: pseudo-header fields have no place there.
pub(super) fn trailers(fields: Vec<Field>) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        regular(&mut headers, field)?;
    }
    Ok(headers)
}

/// A response's head as a field section. What is of one connection stays behind.
pub(super) fn response(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.field(":status", status.as_str().as_bytes(), false);
    write(&mut encoder, headers);
    encoder.finish()
}

/// Trailers as a field section.
pub(super) fn section(headers: &HeaderMap) -> Bytes {
    let mut encoder = Encoder::new();
    write(&mut encoder, headers);
    encoder.finish()
}

fn write(encoder: &mut Encoder, headers: &HeaderMap) {
    for (name, value) in headers.iter().filter(|(name, _)| !OF_ONE_CONNECTION.contains(name)) {
        encoder.field(name.as_str(), value.as_bytes(), value.is_sensitive());
    }
}

#[cfg(test)]
mod tests {
    use super::super::qpack::{Most, decode};
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Vec<Field> {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        lines.iter().map(|(name, value)| Field { name: bytes(name), value: bytes(value) }).collect()
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.com"), (":path", "/x?y=1")];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<Field> {
        fields(&[&GET[..], more].concat())
    }

    #[test]
    fn a_request_is_put_together_of_its_fields() {
        let (request, length) = request(with(&[("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")])).unwrap();
        assert_eq!((request.method(), request.version(), length), (&Method::GET, Version::HTTP_3, None));
        assert_eq!(request.uri(), "https://a.com/x?y=1");
        assert_eq!(request.headers().get_all("cookie").iter().count(), 2);
        let (request, length) = super::request(with(&[("content-length", "12")])).unwrap();
        assert_eq!((request.headers().len(), length), (1, Some(12)));
        let host = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "b.com")];
        assert_eq!(super::request(fields(&host)).unwrap().0.uri(), "https://b.com/");
        let options = [(":method", "OPTIONS"), (":scheme", "https"), (":authority", "a.com"), (":path", "*")];
        assert_eq!(super::request(fields(&options)).unwrap().0.uri().path(), "*");
        let connect = [(":method", "CONNECT"), (":authority", "a.com:80")];
        assert_eq!(super::request(fields(&connect)).unwrap().0.uri(), "a.com:80");
    }

    #[test]
    fn a_malformed_request_is_none() {
        use Malformed::{Connection, Field, Incomplete, Length, Pseudo};
        for (more, why) in [
            (&[(":method", "GET")][..], Pseudo),
            (&[(":path", "/")], Pseudo),
            (&[(":status", "200")], Pseudo),
            (&[(":protocol", "websocket")], Pseudo),
            (&[("x-a", "1"), (":scheme", "https")], Pseudo),
            (&[("X-A", "1")], Field),
            (&[("x a", "1")], Field),
            (&[("", "1")], Field),
            (&[("x-a", "1\r\nx-b: 2")], Field),
            (&[("x-a", "\0")], Field),
            (&[("connection", "close")], Connection),
            (&[("transfer-encoding", "chunked")], Connection),
            (&[("upgrade", "websocket")], Connection),
            (&[("keep-alive", "5")], Connection),
            (&[("te", "gzip")], Connection),
            (&[("content-length", "1"), ("content-length", "1")], Length),
            (&[("content-length", "+1")], Length),
            (&[("content-length", "1, 1")], Length),
        ] {
            assert_eq!(request(with(more)).unwrap_err(), why, "{more:?}");
        }
        for (at, _) in GET.iter().enumerate() {
            let without: Vec<_> = GET.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, it)| *it).collect();
            assert_eq!(request(fields(&without)).unwrap_err(), Incomplete, "without {:?}", GET[at]);
        }
        for (name, value) in
            [(":path", ""), (":path", "x"), (":path", "*"), (":authority", "u@a.com"), (":authority", "")]
        {
            let changed = GET.map(|(its, old)| (its, if its == name { value } else { old }));
            assert_eq!(request(fields(&changed)).unwrap_err(), Field, "{name} {value:?}");
        }
        let connect = [(":method", "CONNECT"), (":authority", "a.com:80"), (":path", "/")];
        assert_eq!(request(fields(&connect)).unwrap_err(), Incomplete);
        assert_eq!(trailers(fields(&[(":path", "/")])).unwrap_err(), Field);
        assert_eq!(trailers(fields(&[("x-a", "1")])).unwrap().len(), 1);
    }

    #[test]
    fn a_response_goes_without_what_is_of_one_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close"), ("x-a", "1"), ("content-type", "text/plain"), ("upgrade", "x")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let section = response(StatusCode::NOT_FOUND, &headers);
        let read = decode(&section, Most { bytes: 1000, fields: 10 }).unwrap();
        assert_eq!(read, fields(&[(":status", "404"), ("x-a", "1"), ("content-type", "text/plain")]));
    }
}
