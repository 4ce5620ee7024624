//! `ExternalAuth`: what an authorizer is told, and what its yes means for the request.
//!
//! An authorizer sees the request as its client sent it, with the header modifiers that stand before the filter in its
//! list, and without any rewrite. What it changes is applied at the filter's place, so that a modifier behind it has the
//! last word.

use http::header::{self, HeaderMap, HeaderName};
use http::uri::PathAndQuery;

use super::headers::is_protected;
use super::mutation::{HeaderChange, HeaderMutation};
use crate::route::{ExternalAuth, HttpFilter};

/// An authorizer's yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Changes of the request.
    pub request: HeaderMutation,
    /// Changes of the response.
    pub response: HeaderMutation,
}

/// The authorizers among filters, in their order.
pub(super) fn authorizers(filters: &[HttpFilter]) -> impl Iterator<Item = &ExternalAuth> {
    filters.iter().filter_map(|filter| match filter {
        HttpFilter::ExternalAuth(auth) => Some(auth),
        _ => None,
    })
}

/// The headers of a question over HTTP: those that GEP-1494 names, and those listed. `Host`, method, path and
/// `Content-Length` are the caller's to write.
pub fn question_headers(listed: &[HeaderName], request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let wanted = |name: &HeaderName| {
        let own = is_protected(name) || [header::HOST, header::EXPECT].contains(name);
        !own && (*name == header::AUTHORIZATION || listed.contains(name))
    };
    for (name, value) in request.iter().filter(|(name, _)| wanted(name)) {
        headers.append(name, value.clone());
    }
    headers
}

/// The target of a question over HTTP: the prefix and the request's own target. `None`: that is no valid one.
pub fn question_target(prefix: &str, target: &PathAndQuery) -> Option<PathAndQuery> {
    if prefix.is_empty() {
        return Some(target.clone());
    }
    // `OPTIONS *` has no slash of its own.
    let slash = if target.as_str().starts_with('/') { "" } else { "/" };
    PathAndQuery::try_from(format!("{prefix}{slash}{target}")).ok()
}

/// What a 200 of an authorizer that speaks HTTP means for the request: the headers that are listed come from the authorizer
/// or from nobody, so that no client can say them of itself. With an empty list all that it says is copied, but for what
/// describes or frames its own message.
pub fn http_grant(listed: &[HeaderName], answer: &HeaderMap) -> Grant {
    let mut request = Vec::new();
    let mut take = |name: &HeaderName| {
        request.push(HeaderChange::Remove(name.clone()));
        let values = answer.get_all(name).into_iter();
        request.extend(values.map(|value| HeaderChange::Append(name.clone(), value.clone())));
    };
    if listed.is_empty() {
        answer.keys().filter(|name| !describes_message(name)).for_each(&mut take);
    } else {
        listed.iter().for_each(&mut take);
    }
    Grant { request: HeaderMutation(request), response: HeaderMutation::default() }
}

/// Whether a header speaks of the very message it is in (RFC 9110, section 8, and section 10.1.1): it would be wrong on
/// another one.
pub fn describes_message(name: &HeaderName) -> bool {
    const OF_CONTENT: [HeaderName; 5] = [
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
    ];
    is_protected(name) || OF_CONTENT.contains(name) || *name == header::EXPECT || *name == header::HOST
}
