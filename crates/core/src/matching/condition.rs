//! Whether the conditions of one `matches[]` entry hold.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::matching::RequestFacts;
use crate::matching::rank::normal_prefix;
use crate::route::{HeaderMatch, HttpMatch, PathMatch, QueryMatch, TextMatch};

impl HttpMatch {
    /// Whether everything holds. "Multiple match types are ANDed together."
    pub fn holds(&self, facts: &RequestFacts<'_>) -> bool {
        self.path.holds(facts.path) && self.holds_beside_path(facts)
    }

    /// Whether everything but the path holds.
    pub(super) fn holds_beside_path(&self, facts: &RequestFacts<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == facts.method)
            && self.headers.iter().all(|header| header.holds(facts.headers))
            && self.query.iter().all(|param| param.holds(facts.query))
    }
}

impl PathMatch {
    /// Whether the path holds, case-sensitive.
    pub fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => prefix_holds(normal_prefix(prefix), path),
            Self::Regex(pattern) => pattern.is_match(path),
            Self::Grpc { service, method } => grpc_call(path).is_some_and(|(called_service, called_method)| {
                service.as_ref().is_none_or(|it| it.holds(called_service))
                    && method.as_ref().is_none_or(|it| it.holds(called_method))
            }),
        }
    }
}

/// By path element: `/abc` holds for `/abc`, `/abc/` and `/abc/def`, not for `/abcd`. The empty prefix holds for
/// everything, also for what has no path (`OPTIONS *`).
fn prefix_holds(prefix: &str, path: &str) -> bool {
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The service and the method of a gRPC call: `/{service}/{method}`, both not empty and without a slash.
pub fn grpc_call(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/')).then_some((service, method))
}

impl TextMatch {
    /// Whether the text holds.
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Regex(pattern) => pattern.is_match(text),
        }
    }
}

impl HeaderMatch {
    /// Whether the header is there and holds. A repeated header counts as one whose values are joined with commas
    /// (RFC 9110, section 5.3); cookies with `; ` (RFC 9113, section 8.2.3).
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let Some(first) = values.next() else { return false };
        let Some(second) = values.next() else {
            return match &self.value {
                TextMatch::Exact(exact) => exact.as_bytes() == first.as_bytes(),
                TextMatch::Regex(pattern) => std::str::from_utf8(first.as_bytes()).is_ok_and(|it| pattern.is_match(it)),
            };
        };
        let all = [first, second].into_iter().chain(values);
        let separator = if self.name == COOKIE { b';' } else { b',' };
        match &self.value {
            TextMatch::Exact(exact) => equals_joined(exact.as_bytes(), all, separator),
            TextMatch::Regex(pattern) => join(all, separator).is_some_and(|joined| pattern.is_match(&joined)),
        }
    }
}

/// Whether `expected` is the values joined by the separator; white space after a separator does not matter.
fn equals_joined<'a>(expected: &[u8], values: impl Iterator<Item = &'a HeaderValue>, separator: u8) -> bool {
    let mut rest = expected;
    for (index, value) in values.enumerate() {
        if index > 0 {
            let Some(after) = rest.strip_prefix(&[separator]) else { return false };
            rest = after.trim_ascii_start();
        }
        let Some(after) = rest.strip_prefix(value.as_bytes()) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// The values joined as text, or `None` if one of them is not UTF-8.
fn join<'a>(values: impl Iterator<Item = &'a HeaderValue>, separator: u8) -> Option<String> {
    let mut joined = String::new();
    for (index, value) in values.enumerate() {
        if index > 0 {
            joined.push(char::from(separator));
            if separator == b';' {
                joined.push(' ');
            }
        }
        joined.push_str(std::str::from_utf8(value.as_bytes()).ok()?);
    }
    Some(joined)
}

impl QueryMatch {
    /// Whether the parameter is there and holds: the first one of that name, "exact string match", as it stands or
    /// percent-decoded.
    pub fn holds(&self, query: Option<&str>) -> bool {
        let Some(query) = query else { return false };
        let first = query.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            equals_decoded(name, &self.name).then_some(value)
        });
        let Some(value) = first else { return false };
        match &self.value {
            TextMatch::Exact(exact) => equals_decoded(value, exact),
            TextMatch::Regex(pattern) => decoded(value).is_some_and(|it| pattern.is_match(&it)),
        }
    }
}

/// Whether a part of a query is the expected text, as it stands or decoded as a form is; without an allocation.
fn equals_decoded(raw: &str, expected: &str) -> bool {
    raw == expected || (needs_decoding(raw) && FormBytes(raw.as_bytes()).eq(expected.bytes()))
}

fn needs_decoding(raw: &str) -> bool {
    raw.bytes().any(|byte| matches!(byte, b'%' | b'+'))
}

fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if !needs_decoding(raw) {
        return Some(Cow::Borrowed(raw));
    }
    String::from_utf8(FormBytes(raw.as_bytes()).collect()).ok().map(Cow::Owned)
}

/// The bytes of `application/x-www-form-urlencoded` text; a `%` that starts no escape stands for itself.
struct FormBytes<'a>(&'a [u8]);

impl Iterator for FormBytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = match *self.0 {
            [b'%', high, low, ref rest @ ..] if hex(high).is_some() && hex(low).is_some() => {
                (hex(high)? << 4 | hex(low)?, rest)
            }
            [b'+', ref rest @ ..] => (b' ', rest),
            [byte, ref rest @ ..] => (byte, rest),
            [] => return None,
        };
        self.0 = rest;
        Some(byte)
    }
}

/// The value of a hexadecimal digit.
pub(crate) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
