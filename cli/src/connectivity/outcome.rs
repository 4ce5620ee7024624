//! What became of one request.

use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a request may take, from looking the name up to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const MAX_BODY: usize = 4096;

/// Where requests go: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    uri: http::Uri,
    host: String,
    port: u16,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected http://HOST[:PORT][/PATH], not {text:?}");
        let uri: http::Uri = text.parse().map_err(|_| expected())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(expected)?;
        // An IPv6 address stands in brackets, which are no part of it.
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { host, port, uri })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx answer, with its text.
    Answered(String),
    /// The connection was accepted and then ended without an answer, or the answer is 403.
    Refused(String),
    /// Anything else: an unknown name, nobody who listens, time that ran out, another status.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(text) => write!(f, "answered: {text}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Sends one request on a connection of its own, so that nothing decided earlier counts.
pub async fn request(url: &Url) -> Outcome {
    match tokio::time::timeout(TIMEOUT, attempt(url)).await {
        Ok(Ok(outcome) | Err(outcome)) => outcome,
        Err(_) => Outcome::Failed(format!("no answer within {TIMEOUT:?}")),
    }
}

async fn attempt(url: &Url) -> Result<Outcome, Outcome> {
    // Nobody who listens is not a refusal: a server that isn't there would pass for a policy.
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| match error.kind() {
        // It was accepted: nobody who listens would be "connection refused". The reset came before we looked.
        std::io::ErrorKind::ConnectionReset => {
            Outcome::Refused("the connection was reset without an answer".to_owned())
        }
        _ => Outcome::Failed(format!("connecting: {error}")),
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| ended(&error))?;
    let driver = tokio::spawn(connection);
    let path = url.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = url.uri.authority().map_or(url.host.as_str(), http::uri::Authority::as_str);
    let request = http::Request::get(path).header(http::header::HOST, host);
    let request = request.header(http::header::USER_AGENT, "weft-connectivity").body(Empty::<bytes::Bytes>::new());
    let request = request.map_err(|error| Outcome::Failed(format!("not a request: {error}")))?;
    let answer = sender.send_request(request).await.map_err(|error| ended(&error))?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    driver.abort();
    let body = body.map_err(|error| Outcome::Failed(format!("the answer broke off: {error}")))?.to_bytes();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    Ok(match head.status {
        status if status.is_success() => Outcome::Answered(text),
        status @ http::StatusCode::FORBIDDEN => Outcome::Refused(status.to_string()),
        status => Outcome::Failed(format!("{status} {text}")),
    })
}

/// A connection that was there and gave no answer.
fn ended(error: &hyper::Error) -> Outcome {
    let mut cause = std::error::Error::source(error);
    let mut reset = false;
    while let Some(inner) = cause {
        let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
        reset |= matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
        cause = inner.source();
    }
    if reset {
        Outcome::Refused("the connection was reset without an answer".to_owned())
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Outcome::Refused("the connection was closed without an answer".to_owned())
    } else {
        Outcome::Failed(error.to_string())
    }
}
