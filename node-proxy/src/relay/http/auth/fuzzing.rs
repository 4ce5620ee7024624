//! See [`crate::fuzzing`].

use http::{HeaderMap, HeaderName, StatusCode};
use weft_core::filter::Grant;

use super::envoy::Verdict;
use super::{check, envoy, refuse};

/// What an authorizer's answer means.
#[derive(Debug, PartialEq)]
pub enum Authorized {
    /// Yes, with changes.
    Yes(Grant),
    /// No, and what the client is answered.
    No(StatusCode, HeaderMap),
    /// Neither: nothing passes.
    Unclear,
}

/// What the body of an answer over gRPC means.
pub fn auth_grpc(framed: &[u8]) -> Authorized {
    match check::unframed(framed).map(envoy::verdict) {
        Some(Verdict::Permitted(grant)) => Authorized::Yes(grant),
        Some(Verdict::Denied { status, headers, .. }) => Authorized::No(status, headers),
        Some(Verdict::Unclear(_)) | None => Authorized::Unclear,
    }
}

/// What an answer over HTTP permits, of whose headers these are listed; `None`: it is a no.
pub fn auth_http(listed: &[HeaderName], status: StatusCode, headers: &HeaderMap) -> Option<Grant> {
    check::granted(listed, status, headers)
}

/// The headers of an answer of ours to a gRPC client, with those of an authorizer that denied its call.
pub fn denied(mut ours: HeaderMap, theirs: HeaderMap) -> HeaderMap {
    refuse::add(&mut ours, theirs);
    ours
}
