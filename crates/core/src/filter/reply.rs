//! Answers that the proxy gives itself.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::reason::Reason;

/// An answer without a backend; it has no body.
#[derive(Clone, Debug)]
pub struct LocalReply<'a> {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Why.
    pub reason: Reason,
    /// More for the log, never for the client; empty if there is no more to say.
    pub detail: Cow<'a, str>,
}

impl<'a> LocalReply<'a> {
    /// An answer without headers.
    pub fn new(status: StatusCode, reason: Reason) -> Self {
        Self { status, headers: HeaderMap::new(), reason, detail: Cow::Borrowed("") }
    }

    /// The same with a detail for the log.
    pub fn with_detail(self, detail: impl Into<Cow<'a, str>>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// The same for a gRPC call: 200 and the status in the headers ("Trailers-Only", gRPC over HTTP/2).
    pub fn into_grpc(mut self) -> Self {
        let code = grpc_status(self.status, self.reason);
        self.status = StatusCode::OK;
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        self.headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(code));
        let message = HeaderValue::from_static(self.reason.as_str());
        self.headers.insert(HeaderName::from_static("grpc-message"), message);
        self
    }
}

/// The gRPC status of an answer of the proxy: for reasons that GRPCRoute names a status for, that one, else what
/// gRPC clients make of the HTTP status ("HTTP to gRPC Status Code Mapping").
pub fn grpc_status(status: StatusCode, reason: Reason) -> u16 {
    const UNKNOWN: u16 = 2;
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match (reason, status.as_u16()) {
        (Reason::InvalidBackend | Reason::NoBackend | Reason::InvalidRoute, _) => UNAVAILABLE,
        (Reason::RequestTimeout | Reason::BackendTimeout, _) => DEADLINE_EXCEEDED,
        (_, 400) => INTERNAL,
        (_, 401) => UNAUTHENTICATED,
        (_, 403) => PERMISSION_DENIED,
        (_, 404) => UNIMPLEMENTED,
        (_, 429 | 502 | 503 | 504) => UNAVAILABLE,
        _ => UNKNOWN,
    }
}
