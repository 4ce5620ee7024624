//! Which rule a request, a TLS name or a connection gets: the Gateway API's precedence as pure functions.
//!
//! Precedence is an ordering of all the `matches[]` of a frontend ([`rank`]) that does not depend on the request,
//! so the winner is the first match in that order that holds ([`condition`]). [`HttpTable`] finds it through an
//! index instead of walking the order; a property test holds both to the same answer.
//!
//! A frontend is one listener of a Gateway or one port of a Service; the caller has already chosen it, among listeners
//! by their hostnames ([`ListenerTable`]). A rule of a less specific hostname still answers what no
//! rule of the more specific one matches: hostnames rank matches, they do not fence them off (listeners do).

pub mod condition;
pub mod host;
pub mod rank;

mod l4;
mod listener;
mod table;
mod weight;

#[cfg(test)]
mod tests;

use http::{HeaderMap, Method};

pub use self::l4::L4Table;
pub use self::listener::{ListenerChoice, ListenerTable, Named};
pub use self::table::{HttpTable, Matched};
pub(crate) use self::weight::scale;
pub use self::weight::{draw, pick_weighted};

/// What routing looks at in a request: the request as it will be forwarded, already normalised
/// ([`crate::normalize`]).
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host: lower case, no port, no trailing dot ([`crate::normalize::host`]); empty if the request has none.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without the `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl RequestFacts<'_> {
    /// Whether the request is a gRPC call, by its content type (gRPC over HTTP/2, "Requests").
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.headers)
    }
}

/// Whether these are the headers of a gRPC call: `content-type: application/grpc`, `application/grpc+...`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return false };
    match value.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';' | b' ')),
        None => false,
    }
}
