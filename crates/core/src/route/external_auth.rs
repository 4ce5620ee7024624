//! `ExternalAuth` (GEP-1494): somebody else decides whether a request may pass.

use std::num::NonZeroU32;

use http::HeaderName;

use super::BackendTarget;

/// The largest `forwardBody.maxSize`, bytes: a body is held in memory until its authorizer has answered.
pub const MAX_SHOWN_BODY: u32 = 1 << 20;

/// `ExternalAuth`: who is asked about a request, and how. Without a clear yes the request doesn't pass.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAuth {
    /// Who is asked.
    pub authorizer: BackendTarget,
    /// What is spoken with it.
    pub protocol: AuthProtocol,
    /// `forwardBody.maxSize`, bytes: the authorizer sees the body, and a longer one is refused. `None`: it sees none. Not
    /// more than [`MAX_SHOWN_BODY`].
    pub max_body: Option<NonZeroU32>,
}

/// What is spoken with an authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthProtocol {
    /// Envoy's `envoy.service.auth.v3.Authorization`.
    Grpc {
        /// The headers of the request that it hears of; empty: of all.
        headers: Vec<HeaderName>,
    },
    /// The head of the request itself; 200 is a yes.
    Http {
        /// Put before the request's path: empty, or an absolute path without a slash at its end.
        path: String,
        /// The headers of the request that it gets beside `Host` and `Authorization`.
        request_headers: Vec<HeaderName>,
        /// The headers of its answer that the backend gets, and gets from nobody else; empty: all.
        response_headers: Vec<HeaderName>,
    },
}
