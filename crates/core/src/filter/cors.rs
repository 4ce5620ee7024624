//! `CORS`: preflights are answered here, other responses get the headers of the Fetch standard.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::filter::reply::LocalReply;
use crate::matching::RequestFacts;
use crate::reason::Reason;
use crate::route::{Cors, OriginMatch};

/// What a configured origin got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is `*` or http(s)://host[:port], where the host may be `*` or start with `*.`")]
pub struct InvalidOrigin;

impl OriginMatch {
    /// Reads `*`, `scheme://host[:port]` or `scheme://*.suffix[:port]`; also `scheme://*[:port]`.
    ///
    /// # Errors
    /// [`InvalidOrigin`].
    pub fn new(text: &str) -> Result<Self, InvalidOrigin> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, host) = text.split_once("://").ok_or(InvalidOrigin)?;
        let host = without_default_port(scheme, host);
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']');
        let suffix = host.strip_prefix('*');
        let rest = suffix.unwrap_or(host);
        let known = matches!(scheme, "http" | "https");
        let starts_well = suffix.is_none_or(|it| it.is_empty() || it.starts_with(['.', ':']));
        if !known || host.is_empty() || !rest.bytes().all(legal) || !starts_well {
            return Err(InvalidOrigin);
        }
        Ok(match suffix {
            Some(suffix) => Self::Wildcard { scheme: scheme.into(), suffix: suffix.into() },
            None => Self::Exact(format!("{scheme}://{host}")),
        })
    }

    /// Whether a request's `Origin` is allowed. A missing port is the scheme's own.
    pub fn matches(&self, origin: &str) -> bool {
        let Some((scheme, host)) = origin.split_once("://") else { return matches!(self, Self::Any) };
        let host = without_default_port(scheme, host);
        match self {
            Self::Any => true,
            Self::Exact(exact) => {
                let Some((exact_scheme, exact_host)) = exact.split_once("://") else { return false };
                exact_scheme.eq_ignore_ascii_case(scheme)
                    && without_default_port(exact_scheme, exact_host).eq_ignore_ascii_case(host)
            }
            Self::Wildcard { scheme: wanted, suffix } => {
                let suffix = without_default_port(wanted, suffix);
                let head = host.len().checked_sub(suffix.len()).filter(|head| *head > 0);
                let tail = head.and_then(|head| Some((host.get(..head)?, host.get(head..)?)));
                // With the port outside the suffix the wildcard would swallow one, so it may not.
                wanted.eq_ignore_ascii_case(scheme)
                    && tail.is_some_and(|(head, tail)| {
                        tail.eq_ignore_ascii_case(suffix) && !head.contains([':', '/', '@'])
                    })
            }
        }
    }
}

fn without_default_port<'a>(scheme: &str, host: &'a str) -> &'a str {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(host)
}

/// What CORS says about the response to a request.
#[derive(Clone, Debug, Default)]
pub enum CorsResponse<'a> {
    /// There is no CORS filter: the backend's headers stand.
    #[default]
    None,
    /// The request names no origin, or one that is not allowed: no CORS header goes out.
    Refused,
    /// The origin may read the response.
    Granted {
        /// The filter.
        cors: &'a Cors,
        /// The request's origin.
        origin: HeaderValue,
    },
}

impl<'a> CorsResponse<'a> {
    pub(super) fn new(cors: &'a Cors, headers: &HeaderMap) -> Self {
        match headers.get(ORIGIN) {
            Some(origin) if cors.allows(origin) => Self::Granted { cors, origin: origin.clone() },
            _ => Self::Refused,
        }
    }

    /// Replaces the CORS headers of a response: with a CORS filter they are the filter's alone.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if matches!(self, Self::None) {
            return;
        }
        for name in [
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            ACCESS_CONTROL_MAX_AGE,
        ] {
            headers.remove(name);
        }
        // The answer depends on the origin, whether it was granted or not: a cache has to know.
        headers.append(VARY, HeaderValue::from_name(ORIGIN));
        if let Self::Granted { cors, origin } = self {
            cors.grant(origin, headers);
        }
    }
}

impl Cors {
    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.allow_origins.iter().any(|it| it.matches(origin)))
    }

    /// The headers of every response that an origin may read.
    fn grant(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let any = self.allow_origins.contains(&OriginMatch::Any) && !self.allow_credentials;
        let allowed = if any { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        // `*` means nothing but a header of that name where credentials are allowed.
        let exposed = self.expose_headers.iter().filter(|name| !self.allow_credentials || *name != "*");
        insert_list(headers, ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }

    /// Whether a request is a CORS preflight (Fetch standard, "CORS-preflight request").
    pub(super) fn is_preflight(facts: &RequestFacts<'_>) -> bool {
        facts.method == Method::OPTIONS
            && facts.headers.contains_key(ORIGIN)
            && facts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The answer to a preflight: 204, with CORS headers only if the origin is allowed.
    pub(super) fn preflight(&self, request: &HeaderMap) -> LocalReply<'static> {
        let mut reply = LocalReply::new(StatusCode::NO_CONTENT, Reason::CorsPreflight);
        let headers = &mut reply.headers;
        let vary = "origin, access-control-request-method, access-control-request-headers";
        headers.insert(VARY, HeaderValue::from_static(vary));
        let Some(origin) = request.get(ORIGIN).filter(|origin| self.allows(origin)) else { return reply };
        self.grant(origin, headers);
        let asked = |name: HeaderName| request.get(name);
        self.allow(headers, ACCESS_CONTROL_ALLOW_METHODS, &self.allow_methods, asked(ACCESS_CONTROL_REQUEST_METHOD));
        self.allow(headers, ACCESS_CONTROL_ALLOW_HEADERS, &self.allow_headers, asked(ACCESS_CONTROL_REQUEST_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age_seconds));
        reply
    }
}

impl Cors {
    /// One of the lists of a preflight. With credentials a `*` would stand for itself, so what was asked for is
    /// given back, or nothing if nothing was asked for.
    fn allow(&self, headers: &mut HeaderMap, name: HeaderName, allowed: &[String], asked: Option<&HeaderValue>) {
        if !allowed.iter().any(|it| it == "*") {
            insert_list(headers, name, allowed.iter());
        } else if !self.allow_credentials {
            headers.insert(name, HeaderValue::from_static("*"));
        } else if let Some(asked) = asked {
            headers.insert(name, asked.clone());
        }
    }
}

/// One header with the values joined; none if there are no values or one of them is not legal.
fn insert_list<'a>(headers: &mut HeaderMap, name: HeaderName, values: impl Iterator<Item = &'a String>) {
    let values: Vec<&str> = values.map(String::as_str).collect();
    if !values.is_empty()
        && let Ok(joined) = HeaderValue::try_from(values.join(", "))
    {
        headers.insert(name, joined);
    }
}
