//! One request, to one front door.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use weft_tls::{CertificateDer, InspectingClient};

use super::door::Door;
use super::requests::{Request, Version};

/// What is said who asks, where the request doesn't.
const USER_AGENT: &str = concat!("weft-migrate-diff/", env!("CARGO_PKG_VERSION"));

/// What bounds a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the connection to the end of the answer.
    pub timeout: Duration,
    /// Bytes of a body that are read.
    pub body: usize,
    /// The version where a request says none.
    pub default: Version,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Bytes that were read.
    pub length: usize,
    /// Of these, SHA-256.
    pub hash: String,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer, or why there is none.
    pub answer: Result<Answer, String>,
    /// The chain that the server showed; empty without TLS.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Asks one front door.
#[derive(Debug)]
pub struct Client {
    door: Door,
    limits: Limits,
    http1: InspectingClient,
    http2: InspectingClient,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// If the cryptography library cannot be set up.
    pub fn new(door: Door, limits: Limits) -> anyhow::Result<Self> {
        let (http1, http2) = (InspectingClient::new(&[b"http/1.1"])?, InspectingClient::new(&[b"h2"])?);
        Ok(Self { door, limits, http1, http2 })
    }

    /// Sends a request on a connection of its own.
    pub async fn ask(&self, request: &Request) -> Outcome {
        let mut chain = Vec::new();
        let asked = tokio::time::timeout(self.limits.timeout, self.attempt(request, &mut chain)).await;
        let answer = match asked {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no whole answer within {}", humantime::format_duration(self.limits.timeout))),
        };
        Outcome { answer, chain }
    }

    async fn attempt(&self, request: &Request, chain: &mut Vec<CertificateDer<'static>>) -> anyhow::Result<Answer> {
        let scheme = request.scheme();
        let (host, port) = self.door.address(scheme).ok_or_else(|| anyhow!("no address was given for {scheme}"))?;
        let stream = TcpStream::connect((host, port)).await.context("connecting")?;
        stream.set_nodelay(true).context("connecting")?;
        let version = request.version.unwrap_or(self.limits.default);
        if scheme == "http" {
            return self.exchange(stream, request, version).await;
        }
        let tls = if version == Version::Http2 { &self.http2 } else { &self.http1 };
        let inspected = tls.connect(request.host(), stream).await.context("TLS")?;
        *chain = inspected.chain;
        if version == Version::Http2 && inspected.protocol.as_deref() != Some(b"h2") {
            bail!("TLS: HTTP/2 was not agreed on");
        }
        self.exchange(inspected.stream, request, version).await
    }

    async fn exchange<IO>(&self, io: IO, request: &Request, version: Version) -> anyhow::Result<Answer>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let sent = message(request, version)?;
        let io = TokioIo::new(io);
        // The task ends with its sender, which is dropped at the end of this.
        let response = match version {
            Version::Http1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                let driver = tokio::spawn(connection);
                let response = sender.send_request(sent).await.context("no answer")?;
                let answer = self.read(response).await;
                driver.abort();
                return answer;
            }
            Version::Http2 => {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.context("HTTP/2")?;
                tokio::spawn(connection);
                sender.send_request(sent).await.context("no answer")?
            }
        };
        self.read(response).await
    }

    async fn read(&self, response: http::Response<Incoming>) -> anyhow::Result<Answer> {
        let (head, mut body) = response.into_parts();
        let (mut hash, mut length) = (Sha256::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.context("the answer broke off")?.into_data() else { continue };
            let room = self.limits.body.saturating_sub(length);
            let part = data.get(..room.min(data.len())).unwrap_or_default();
            hash.update(part);
            length += part.len();
            if part.len() < data.len() {
                break;
            }
        }
        let hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Answer { status: head.status, headers: head.headers, length, hash })
    }
}

/// The request as it goes out: with the target in the form of its version, and the host of its URL.
fn message(request: &Request, version: Version) -> anyhow::Result<http::Request<Full<Bytes>>> {
    let authority = request.uri.authority().ok_or_else(|| anyhow!("the URL has no host"))?;
    let path = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target: Uri = match version {
        Version::Http1 => path.parse()?,
        Version::Http2 => format!("{}://{authority}{path}", request.scheme()).parse()?,
    };
    let mut made = http::Request::new(Full::new(request.body.clone()));
    *made.method_mut() = request.method.clone();
    *made.uri_mut() = target;
    *made.version_mut() = if version == Version::Http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
    let headers = made.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if version == Version::Http1 {
        headers.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    }
    // The first of a name replaces what is there, the others are added.
    let mut seen = Vec::new();
    for (name, value) in &request.headers {
        if seen.contains(&name) {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
            seen.push(name);
        }
    }
    Ok(made)
}
