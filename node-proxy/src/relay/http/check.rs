//! One meaning for each request: what could be read in two ways is refused, the rest is brought into one form.
//!
//! Runs before anything is matched, so that what is matched, authorized and forwarded is the same (RFC 9112, sections
//! 3.2, 3.3 and 6; RFC 9113, section 8.3.1). The codec has already refused malformed lines, differing lengths and
//! `Transfer-Encoding` in HTTP/1.0; what else it would have resolved by itself was seen before ([`super::framing`]).

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Method, Version};
use weft_core::normalize;

/// Why a request is refused; the text goes to the log and the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("exactly one Host header is needed")]
    Host,
    #[error("the host is not valid")]
    InvalidHost,
    #[error("the authority and the Host header differ")]
    HostMismatch,
    #[error("the path is not valid")]
    Path,
    #[error("the length of the body is ambiguous")]
    Length,
    #[error("CONNECT is not served here")]
    Connect,
}

/// What the checks found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// The path has an encoded separator, which authorization must not trust.
    pub(crate) ambiguous_path: bool,
}

/// Checks a request and brings its target into one form: the host in the `Host` header (HTTP/1) or the URI (HTTP/2), the
/// normalised path. `ambiguous`: its framing could be read in two ways.
pub(crate) fn check(parts: &mut Parts, ambiguous: bool) -> Result<Checked, BadRequest> {
    if parts.version == Version::HTTP_2 {
        check_h2_authority(parts)?;
    } else {
        check_framing(&parts.headers, ambiguous)?;
        check_h1_host(parts)?;
    }
    if parts.method == Method::CONNECT {
        let extended = parts.version == Version::HTTP_2 && parts.extensions.get::<hyper::ext::Protocol>().is_some();
        if !extended {
            return Err(BadRequest::Connect);
        }
    }
    normalize_path(parts)
}

fn check_framing(headers: &HeaderMap, ambiguous: bool) -> Result<(), BadRequest> {
    if ambiguous {
        return Err(BadRequest::Length);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(BadRequest::Length);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") && length.is_none() => Ok(()),
        _ => Err(BadRequest::Length),
    }
}

fn check_h1_host(parts: &mut Parts) -> Result<(), BadRequest> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && parts.version >= Version::HTTP_11) {
        return Err(BadRequest::Host);
    }
    if let Some(host) = host {
        normalize::host(host.to_str().map_err(|_| BadRequest::InvalidHost)?).map_err(|_| BadRequest::InvalidHost)?;
    }
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    // The absolute form: the authority counts (RFC 9112, section 3.2.2), and who sends another Host means mischief.
    normalize::host(authority.as_str()).map_err(|_| BadRequest::InvalidHost)?;
    if host.is_some_and(|host| !same(host, authority)) {
        return Err(BadRequest::HostMismatch);
    }
    let value = HeaderValue::from_str(authority.as_str()).map_err(|_| BadRequest::InvalidHost)?;
    parts.headers.insert(header::HOST, value);
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(())
}

fn check_h2_authority(parts: &mut Parts) -> Result<(), BadRequest> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::Host);
    }
    match (parts.uri.authority(), host) {
        (None, None) => return Err(BadRequest::Host),
        (Some(authority), Some(host)) if !same(host, authority) => return Err(BadRequest::HostMismatch),
        (Some(authority), _) => normalize::host(authority.as_str()).map_err(|_| BadRequest::InvalidHost).map(drop)?,
        (None, Some(host)) => {
            let authority = Authority::try_from(host.as_bytes()).map_err(|_| BadRequest::InvalidHost)?;
            normalize::host(authority.as_str()).map_err(|_| BadRequest::InvalidHost)?;
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            uri.scheme = uri.scheme.or(Some(http::uri::Scheme::HTTP));
            uri.authority = Some(authority);
            parts.uri = Uri::from_parts(uri).map_err(|_| BadRequest::InvalidHost)?;
        }
    }
    parts.headers.remove(header::HOST);
    Ok(())
}

fn same(host: &HeaderValue, authority: &Authority) -> bool {
    host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
}

fn normalize_path(parts: &mut Parts) -> Result<Checked, BadRequest> {
    let normal = normalize::path(parts.uri.path()).map_err(|_| BadRequest::Path)?;
    let checked = Checked { ambiguous_path: normal.ambiguous };
    if let std::borrow::Cow::Owned(path) = normal.text {
        set_path(parts, path)?;
    }
    Ok(checked)
}

/// Replaces the path and keeps the query.
fn set_path(parts: &mut Parts, mut path: String) -> Result<(), BadRequest> {
    if let Some(query) = parts.uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let path = PathAndQuery::try_from(path).map_err(|_| BadRequest::Path)?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(path);
    parts.uri = Uri::from_parts(uri).map_err(|_| BadRequest::Path)?;
    Ok(())
}

/// The authority of a checked request: of the URI for HTTP/2, of `Host` for HTTP/1.
pub(crate) fn authority(parts: &Parts) -> &str {
    let host = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(Authority::as_str).or_else(host).unwrap_or_default()
}
