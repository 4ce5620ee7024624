//! What every request begins with, whichever way it goes.

use std::rc::Rc;

use http::Version;
use http::request::Parts;
use tokio::time::Instant;

use super::check::{BadRequest, Checked, check};
use super::downstream::Downstream;
use super::finish::Asked;

/// A request that was counted and checked.
pub(super) struct Begun {
    pub(super) checked: Result<Checked, BadRequest>,
    pub(super) asked: Box<Asked>,
    pub(super) protocol: &'static str,
}

/// Counts and checks a request. Its time starts here.
pub(super) fn begin(conn: &Rc<Downstream>, parts: &mut Parts) -> Begun {
    let started = Instant::now();
    let ambiguous = conn.watched.request_began();
    if parts.version == Version::HTTP_11 {
        conn.watched.takes_interim();
    }
    let version = parts.version;
    if version == Version::HTTP_3 {
        // It means what one of HTTP/2 means, and nothing from here on has to know more (RFC 9114, section 4).
        parts.version = Version::HTTP_2;
    }
    let checked = check(parts, ambiguous);
    // Boxed: it goes through many hands.
    let mut asked = Box::new(Asked::new(conn, parts, started));
    asked.open_span(&mut parts.headers);
    let protocol = protocol_label(version, asked.grpc);
    Begun { checked, asked, protocol }
}

/// What a request is counted as.
pub(super) fn protocol_label(version: Version, grpc: bool) -> &'static str {
    match version {
        _ if grpc => "grpc",
        Version::HTTP_3 => "http3",
        Version::HTTP_2 => "http2",
        _ => "http1",
    }
}
