//! HTTP/1.1 with keep-alive, and HTTP/2 with prior knowledge.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::websocket::accept_key;

/// The bodies requests may have.
pub type RequestBody = UnsyncBoxBody<Bytes, anyhow::Error>;

/// One connection to one address; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    addr: SocketAddr,
    local: SocketAddr,
    _driver: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers, if there were any.
    pub trailers: Option<HeaderMap>,
}

/// What the echo server saw; see [`servers`](crate::servers::http()).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Echo {
    /// The name of the server that answered.
    pub pod: String,
    /// The method.
    pub method: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The path, as it is on the wire.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// The authority or, without one, the Host header.
    pub host: Option<String>,
    /// The client's address as the server's kernel has it.
    pub peer: SocketAddr,
    /// The server's.
    pub local: SocketAddr,
    /// Every header, lower case.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The length of the body.
    pub body_bytes: u64,
    /// The first 4 KiB of the body.
    pub body: String,
}

impl Echo {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }
}

impl Reply {
    /// What the echo server saw.
    ///
    /// # Errors
    /// When somebody else answered.
    pub fn echo(&self) -> Result<Echo> {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).with_context(|| format!("{}: not an echo: {text:?}", self.status))
    }

    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Connection {
    /// Connects, in HTTP/1.1 or in HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// When TCP or the HTTP/2 preface fails.
    pub async fn open(addr: SocketAddr, version: Version) -> Result<Self> {
        Self::over(super::connect(addr).await?, version).await
    }

    /// The same over a connection that exists.
    ///
    /// # Errors
    /// When the HTTP/2 preface fails.
    pub async fn over(stream: TcpStream, version: Version) -> Result<Self> {
        let (addr, local) = (stream.peer_addr()?, stream.local_addr()?);
        let io = TokioIo::new(stream);
        // How a connection ended shows in the requests that were on it.
        let (sender, driver) = if version == Version::HTTP_2 {
            let (sender, conn) = http2::handshake(TokioExecutor::new(), io).await?;
            (Sender::Http2(sender), tokio::spawn(async { conn.await.unwrap_or_default() }))
        } else {
            let (sender, conn) = http1::handshake(io).await?;
            (Sender::Http1(sender), tokio::spawn(async { conn.with_upgrades().await.unwrap_or_default() }))
        };
        Ok(Self { sender, addr, local, _driver: AbortOnDropHandle::new(driver) })
    }

    /// The client's own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends a request and gives the answer as soon as its head is there. Adds what is missing: the Host header, or scheme
    /// and authority, from the address.
    ///
    /// # Errors
    /// When the connection fails, or closed before.
    pub async fn send_streaming(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>> {
        let addr = self.addr.to_string();
        match &mut self.sender {
            Sender::Http1(sender) => {
                if !request.headers().contains_key(HOST) {
                    let host = request.uri().authority().map_or(addr, ToString::to_string);
                    request.headers_mut().insert(HOST, host.parse()?);
                }
                if request.method() != Method::CONNECT {
                    let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
                    *request.uri_mut() = target.parse()?;
                }
                sender.ready().await.context("the connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                let host = request.headers_mut().remove(HOST);
                let mut parts = request.uri().clone().into_parts();
                if parts.authority.is_none() {
                    let host = host.as_ref().map_or(Ok(addr.as_str()), |h| h.to_str())?;
                    parts.authority = Some(host.parse()?);
                }
                if request.method() != Method::CONNECT {
                    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
                }
                *request.uri_mut() = Uri::from_parts(parts)?;
                *request.version_mut() = Version::HTTP_2;
                sender.ready().await.context("the connection is closed")?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// As [`send_streaming`](Self::send_streaming), or when the body fails.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Result<Reply> {
        let (head, body) = self.send_streaming(request).await?.into_parts();
        let body = body.collect().await.context("the body of the answer")?;
        let trailers = body.trailers().cloned();
        Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }

    /// GET.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn get(&mut self, path: &str) -> Result<Reply> {
        self.send(request(Method::GET, path, &[], Bytes::new())).await
    }
}

/// A request with a body; `target` is a path or a whole URI.
///
/// # Panics
/// When the target or a header isn't valid.
pub fn request(method: Method, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<RequestBody> {
    let builder = Request::builder().method(method).uri(target);
    let builder = headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value));
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    builder.body(body).expect("a valid request in a test")
}

/// GET over HTTP/1.1 on a connection of its own.
///
/// # Errors
/// When anything fails; a status isn't a failure.
pub async fn get(addr: SocketAddr, target: &str) -> Result<Reply> {
    Connection::open(addr, Version::HTTP_11).await?.get(target).await
}

/// Upgrades a new connection to WebSocket; use the functions of [`websocket`](crate::websocket) on what is returned.
///
/// # Errors
/// When the server doesn't switch protocols, or not to this key.
pub async fn websocket(addr: SocketAddr, target: &str) -> Result<TokioIo<Upgraded>> {
    let stream = super::connect(addr).await?;
    let (mut sender, conn) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async { conn.with_upgrades().await.unwrap_or_default() });
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let host = addr.to_string();
    let headers = [
        (HOST.as_str(), host.as_str()),
        (UPGRADE.as_str(), "websocket"),
        (CONNECTION.as_str(), "Upgrade"),
        (SEC_WEBSOCKET_KEY.as_str(), key),
        (SEC_WEBSOCKET_VERSION.as_str(), "13"),
    ];
    let response = sender.send_request(request(Method::GET, target, &headers, Bytes::new())).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        bail!("not upgraded: {}", response.status());
    }
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).context("no Sec-WebSocket-Accept")?;
    ensure!(accept.as_bytes() == accept_key(key).as_bytes(), "the answer is for another key: {accept:?}");
    Ok(TokioIo::new(hyper::upgrade::on(response).await?))
}
