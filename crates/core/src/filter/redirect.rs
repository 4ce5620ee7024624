//! `RequestRedirect`.

use std::borrow::Cow;
use std::fmt::Write;

use http::HeaderValue;

use crate::filter::path::replace_path;
use crate::filter::plan::FrontFacts;
use crate::matching::RequestFacts;
use crate::route::{Redirect, RedirectScheme};

impl RedirectScheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The well-known port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The `Location` of a redirect, or `None` if the rule cannot give one.
///
/// The port: the filter's, else the well-known port of the filter's scheme, else the listener's; left out where it
/// is the scheme's own. The query stays.
pub(super) fn location(
    redirect: &Redirect,
    facts: &RequestFacts<'_>,
    front: &FrontFacts,
    prefix_len: Option<usize>,
) -> Option<HeaderValue> {
    let scheme = redirect.scheme.unwrap_or(front.scheme);
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port.get(),
        (None, Some(scheme)) => scheme.port(),
        (None, None) => front.port.get(),
    };
    // `OPTIONS *` asks about the server as a whole.
    let path = if facts.path.starts_with('/') { facts.path } else { "/" };
    let path = match &redirect.path {
        Some(modifier) => replace_path(modifier, path, prefix_len)?,
        None => Cow::Borrowed(path),
    };
    let host = redirect.hostname.as_deref().unwrap_or(facts.host);
    let mut text = String::with_capacity(host.len() + path.len() + 32);
    // Without a host (HTTP/1.0) a reference relative to the request's own.
    if !host.is_empty() {
        write!(text, "{}://{host}", scheme.as_str()).ok()?;
        if port != scheme.port() {
            write!(text, ":{port}").ok()?;
        }
    }
    text.push_str(&path);
    if let Some(query) = facts.query {
        text.push('?');
        text.push_str(query);
    }
    HeaderValue::try_from(text).ok()
}
