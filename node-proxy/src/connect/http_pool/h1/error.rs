//! Why an exchange failed.

/// Why an exchange with an endpoint failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] std::io::Error),
    /// The endpoint closed the connection before the answer was complete.
    #[error("closed before the answer was complete")]
    Closed,
    /// The head of the answer isn't HTTP/1.
    #[error("the head of the answer is not HTTP: {0}")]
    Head(httparse::Error),
    /// A part of the answer is malformed, or can be read in two ways.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    /// The head of the answer is too big.
    #[error("the head of the answer is too big")]
    TooLarge,
    /// The request's body broke off.
    #[error("the request's body broke off")]
    RequestBody,
    /// The HTTP/2 codec's word.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl ExchangeError {
    /// Whether the endpoint didn't keep to the protocol.
    pub(crate) fn is_parse(&self) -> bool {
        match self {
            Self::Head(_) | Self::Malformed(_) | Self::TooLarge => true,
            Self::Http2(_) | Self::Io(_) | Self::Closed | Self::RequestBody => false,
        }
    }
}
