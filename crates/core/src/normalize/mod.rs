//! One form for hosts and paths, so that what is matched, authorized and forwarded is the same text.
//!
//! What has no single meaning is refused; what servers read differently (an encoded slash) is kept as it is and
//! marked, so that authorization can fail closed on it. Both functions are idempotent and never panic.

use std::borrow::Cow;

use crate::matching::condition::hex;

#[cfg(test)]
mod tests;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not start with `/` (and is not the `*` of OPTIONS).
    #[error("the path does not start with '/'")]
    NotAbsolute,
    /// A byte that no URI has: a control, a space, a backslash, `?`, `#`, or beyond ASCII.
    #[error("the path has a byte that must be percent-encoded")]
    Character,
    /// A `%` without two hexadecimal digits.
    #[error("the path has an incomplete percent-encoding")]
    Escape,
    /// An encoded control byte.
    #[error("the path has an encoded control character")]
    EncodedControl,
    /// `..` would leave the root.
    #[error("the path has more '..' than segments")]
    AboveRoot,
    /// `..;x` or `.;x`: a dot segment to servers that cut parameters off.
    #[error("the path has a dot segment with a parameter")]
    DotParameter,
}

/// Why a host is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// There is none.
    #[error("the host is empty")]
    Empty,
    /// `user@host`: RFC 9110, section 4.2.4, tells recipients to treat it as an error.
    #[error("the authority has user information")]
    UserInfo,
    /// The port is not a number from 0 to 65535.
    #[error("the port is not a number up to 65535")]
    Port,
    /// A byte outside letters, digits, `-`, `.`, `_`, or a malformed IPv6 literal.
    #[error("the host has a byte that no host has")]
    Character,
    /// Two dots in a row, or one at the start.
    #[error("the host has an empty label")]
    EmptyLabel,
}

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// The path. Borrowed if it was normal already.
    pub text: Cow<'a, str>,
    /// It holds `%2F` or `%5C`, which some servers take for a separator and some do not.
    pub ambiguous: bool,
}

/// The one form of a request path (without the query): percent-encodings of unreserved characters decoded and the
/// others in upper case, `.` and `..` resolved, runs of slashes merged (RFC 3986, section 6.2.2). `*` stays.
///
/// # Errors
/// [`InvalidPath`]: answer 400.
pub fn path(raw: &str) -> Result<NormalPath<'_>, InvalidPath> {
    match raw {
        "*" => return Ok(NormalPath { text: Cow::Borrowed(raw), ambiguous: false }),
        "" => return Ok(NormalPath { text: Cow::Borrowed("/"), ambiguous: false }),
        _ if !raw.starts_with('/') => return Err(InvalidPath::NotAbsolute),
        _ => {}
    }
    if raw.bytes().any(|byte| !is_path_byte(byte)) {
        return Err(InvalidPath::Character);
    }
    if is_plain(raw) {
        return Ok(NormalPath { text: Cow::Borrowed(raw), ambiguous: false });
    }
    let text = resolve_segments(&decode_unreserved(raw)?)?;
    // Of what is forwarded: a separator inside a segment that `..` took away confuses nobody any more.
    let ambiguous = text.contains("%2F") || text.contains("%5C");
    let text = if text == raw { Cow::Borrowed(raw) } else { Cow::Owned(text) };
    Ok(NormalPath { text, ambiguous })
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'?' | b'#')
}

/// Whether nothing in the path can need a change: no `%`, no slash followed by a slash or a dot.
fn is_plain(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    !bytes.contains(&b'%') && !bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

/// Decodes unreserved characters and writes other escapes in upper case.
fn decode_unreserved(raw: &str) -> Result<String, InvalidPath> {
    let mut text = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            text.push(char::from(byte));
            continue;
        }
        let mut digit = || bytes.next().and_then(hex).ok_or(InvalidPath::Escape);
        let (high, low) = (digit()?, digit()?);
        match high << 4 | low {
            0..=0x1f | 0x7f => return Err(InvalidPath::EncodedControl),
            byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => text.push(char::from(byte)),
            _ => {
                text.push('%');
                text.extend([high, low].map(|it| char::from_digit(it.into(), 16).unwrap_or('0').to_ascii_uppercase()));
            }
        }
    }
    Ok(text)
}

/// Resolves dot segments and merges slashes.
fn resolve_segments(decoded: &str) -> Result<String, InvalidPath> {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in decoded.split('/').skip(1) {
        ends_open = true;
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(InvalidPath::AboveRoot)?;
            }
            _ => {
                if matches!(segment.split_once(';'), Some(("." | "..", _))) {
                    return Err(InvalidPath::DotParameter);
                }
                kept.push(segment);
                ends_open = false;
            }
        }
    }
    let mut text = String::with_capacity(decoded.len());
    for segment in &kept {
        text.push('/');
        text.push_str(segment);
    }
    if ends_open {
        text.push('/');
    }
    Ok(text)
}

/// The host of an authority or `Host` header, in its one form: lower case, no port, no trailing dot.
///
/// # Errors
/// [`InvalidHost`]: answer 400.
pub fn host(authority: &str) -> Result<Cow<'_, str>, InvalidHost> {
    if authority.contains('@') {
        return Err(InvalidHost::UserInfo);
    }
    let host = without_port(authority)?;
    if host.starts_with('[') {
        return ipv6_literal(host);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(InvalidHost::Empty);
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        return Err(InvalidHost::Character);
    }
    if host.split('.').any(str::is_empty) {
        return Err(InvalidHost::EmptyLabel);
    }
    Ok(lower_case(host))
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Cuts `:port` off; an empty port is allowed (RFC 3986, section 3.2.3).
fn without_port(authority: &str) -> Result<&str, InvalidHost> {
    let start = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let tail = authority.get(start..).unwrap_or_default();
    let Some(colon) = tail.find(':') else { return Ok(authority) };
    let port = tail.get(colon + 1..).unwrap_or_default();
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (!port.is_empty() && port.parse::<u16>().is_err()) {
        return Err(InvalidHost::Port);
    }
    Ok(authority.get(..start + colon).unwrap_or_default())
}

/// `[address]`, written as RFC 5952 does.
fn ipv6_literal(host: &str) -> Result<Cow<'_, str>, InvalidHost> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(InvalidHost::Character)?;
    let address: std::net::Ipv6Addr = inner.parse().map_err(|_| InvalidHost::Character)?;
    let text = format!("[{address}]");
    Ok(if text == host { Cow::Borrowed(host) } else { Cow::Owned(text) })
}
