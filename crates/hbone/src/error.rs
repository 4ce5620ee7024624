//! What can go wrong with a tunnel or a stream, as closed sets that metrics and logs can name.

use std::fmt;
use std::io;
use std::rc::Rc;

use http::StatusCode;

/// Why dialling a tunnel failed. A closed set: every variant is a label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialFailure {
    /// The peer's host refused the connection (nobody listens).
    Refused,
    /// No route to the peer, or an ICMP error said so.
    Unreachable,
    /// Connecting or the handshake took longer than allowed.
    TimedOut,
    /// The TLS handshake failed for a reason other than the identity.
    Tls,
    /// The peer proved an identity, but not the expected one.
    Identity,
    /// The peer's certificate, or one above it, has expired.
    Expired,
    /// There is no certificate to dial with.
    NoCertificate,
    /// File descriptors, ports or memory ran out here.
    Exhausted,
    /// The HTTP/2 handshake failed.
    Http2,
    /// Any other I/O error.
    Io,
}

impl DialFailure {
    /// The label value.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused => "dial_refused",
            Self::Unreachable => "dial_unreachable",
            Self::TimedOut => "dial_timeout",
            Self::Tls => "dial_tls",
            Self::Identity => "dial_identity",
            Self::Expired => "dial_expired",
            Self::NoCertificate => "no_certificate",
            Self::Exhausted => "dial_exhausted",
            Self::Http2 => "dial_http2",
            Self::Io => "dial_io",
        }
    }
}

/// A failed dial. Cheap to clone, because all streams that waited for the dial get it.
#[derive(Clone, Debug)]
pub struct DialError {
    failure: DialFailure,
    message: Rc<str>,
}

impl DialError {
    /// A failure with the words of its cause; name the address and what to check.
    pub fn new(failure: DialFailure, message: impl fmt::Display) -> Self {
        Self { failure, message: message.to_string().into() }
    }

    /// The class of the failure.
    pub fn failure(&self) -> DialFailure {
        self.failure
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let failure = match error.kind() {
            Kind::ConnectionRefused => DialFailure::Refused,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => DialFailure::Unreachable,
            Kind::TimedOut => DialFailure::TimedOut,
            Kind::AddrNotAvailable | Kind::OutOfMemory => DialFailure::Exhausted,
            _ => DialFailure::Io,
        };
        Self::new(failure, error)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.reason(), self.message)
    }
}

impl std::error::Error for DialError {}

/// Why a stream could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no tunnel and none could be dialled.
    #[error("no tunnel: {0}")]
    Dial(#[from] DialError),
    /// The peer answered with a status other than 200: 401 and 403 by policy, 503 when it could not connect, 400 for a bad request.
    #[error("the peer refused the stream with status {status}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it gave as its reason ([`crate::REASON`]), 64 bytes at most: its word, and no more than that.
        reason: Option<String>,
    },
    /// The peer did not answer in time.
    #[error("the peer did not answer the CONNECT in time")]
    TimedOut,
    /// The tunnel is going away and never processed the stream.
    #[error("the tunnel went away before the stream was processed")]
    GoAway,
    /// The peer reset the stream instead of answering.
    #[error("the peer reset the stream: {0}")]
    Reset(h2::Reason),
    /// The tunnel broke before the peer answered.
    #[error("the tunnel broke before the stream was opened")]
    Broken,
    /// The pool drains and opens nothing.
    #[error("the pool is draining")]
    Draining,
}

impl OpenError {
    /// The label value.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Dial(dial) => dial.failure.reason(),
            Self::Refused { status, .. } => match status.as_u16() {
                400 => "refused_bad_request",
                401 | 403 => "refused_by_policy",
                503 => "refused_connect_failed",
                _ => "refused_other",
            },
            Self::TimedOut => "open_timeout",
            Self::GoAway => "goaway",
            Self::Reset(_) => "open_reset",
            Self::Broken => "tunnel_broken",
            Self::Draining => "draining",
        }
    }

    /// True if the destination's application certainly saw nothing of this stream, so that another endpoint may be tried.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Refused { .. } | Self::GoAway | Self::Draining => true,
            Self::Reset(reason) => *reason == h2::Reason::REFUSED_STREAM,
            Self::TimedOut | Self::Broken => false,
        }
    }

    /// True if another tunnel to the same peer may do better at once.
    pub(crate) fn other_tunnel_may_do(&self) -> bool {
        matches!(self, Self::GoAway) || matches!(self, Self::Reset(reason) if *reason == h2::Reason::REFUSED_STREAM)
    }
}

impl From<h2::Error> for OpenError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::NO_ERROR) if error.is_go_away() => Self::GoAway,
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::Broken,
        }
    }
}

/// How an open stream ended badly. Carried inside the `io::Error` of [`crate::TunnelStream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream.
    #[error("the stream was reset: {0}")]
    Reset(h2::Reason),
    /// The tunnel under the stream is gone.
    #[error("the tunnel broke")]
    TunnelBroken,
    /// The peer closed the tunnel with an error.
    #[error("the peer closed the tunnel: {0}")]
    GoAway(h2::Reason),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::TunnelBroken | StreamError::GoAway(_) => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, error)
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_go_away() => Self::GoAway(reason),
            Some(reason) => Self::Reset(reason),
            None => Self::TunnelBroken,
        }
    }
}
