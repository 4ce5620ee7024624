//! See [`crate::fuzzing`].

use http::HeaderMap;

use super::context::{Said, read, unsample};

/// The trace and span that the headers of a request name, and whether it is to be recorded.
pub fn said(headers: &HeaderMap) -> Option<(u128, u64, Option<bool>)> {
    match read(headers) {
        Said::Part(context) => Some((context.trace, context.span, context.sampled)),
        Said::Nothing | Said::Never => None,
    }
}

/// Takes the word back that a request is to be recorded.
pub fn unsampled(mut headers: HeaderMap) -> HeaderMap {
    unsample(&mut headers);
    headers
}
