//! Connections, requests, and who answers which.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use weft_kube::kube::Client;
use weft_tls::{ControlServer, HandshakeLimits};

use super::auth::{Guard, Refused};
use super::dashboard::{self, Dashboard};
use super::proxies::Proxies;
use super::tap;

/// Handshakes under way. A port-forward comes from a node's address: people share them.
const HANDSHAKES: HandshakeLimits = HandshakeLimits { total: 64, per_address: 16 };
/// Connections at once, and streams of each.
const CONNECTIONS: usize = 64;
const STREAMS: u32 = 16;
/// How long a connection takes requests, and how long after that those that it has may last: longer than any tap.
const AGE: Duration = Duration::from_secs(600);
const REST: Duration = Duration::from_secs(660);
/// The largest body that is read, in bytes, and how long it may take to come.
const LARGEST: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it lives, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// An answer, whole or as it comes.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request, read.
#[derive(Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path, as it came.
    pub path: String,
    /// The pairs of the query, decoded.
    pub query: Vec<(String, String)>,
    /// The bearer token.
    pub token: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Asked {
    /// A parameter of the query; the first of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    async fn read(request: Request<Incoming>) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let refused = |status, why: &str| Refused::new(status, why);
        let body = tokio::time::timeout(PATIENCE, Limited::new(body, LARGEST).collect()).await;
        let body = body.map_err(|_| refused(StatusCode::REQUEST_TIMEOUT, "the request doesn't come to its end"))?;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => refused(StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than 64 KiB"),
            false => refused(StatusCode::BAD_REQUEST, "the request can't be read"),
        })?;
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        let token = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Ok(Self {
            query: query.collect(),
            token: token.and_then(|value| value.strip_prefix("Bearer ")).map(|token| token.trim().to_owned()),
            path: head.uri.path().to_owned(),
            method: head.method,
            body: body.to_bytes(),
        })
    }
}

/// What the endpoints have to answer with.
pub struct View {
    /// Who may see what.
    pub guard: Guard,
    /// The API server.
    pub client: Client,
    /// The proxies of the mesh.
    pub proxies: Proxies,
    /// Taps that may run at the same time.
    pub(super) taps: Arc<Semaphore>,
    /// What was read for dashboards.
    pub dashboard: Dashboard,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// Of a mesh.
    pub fn new(client: Client, proxies: Proxies) -> Arc<Self> {
        let guard = Guard::new(client.clone());
        let taps = Arc::new(Semaphore::new(tap::AT_ONCE));
        Arc::new(Self { guard, client, proxies, taps, dashboard: Dashboard::default() })
    }

    /// Serves for ever.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: ControlServer) {
        let (mut incoming, turns) =
            (weft_tls::incoming(listener, tls, HANDSHAKES), Arc::new(Semaphore::new(CONNECTIONS)));
        while let Some((stream, peer)) = incoming.recv().await {
            let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else {
                tracing::warn!(%peer, "a viewer is refused: {CONNECTIONS} connections are open");
                continue;
            };
            let view = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let view = Arc::clone(&view);
                    async move { Ok::<_, Infallible>(view.answer(request).await) }
                });
                let mut http = http2::Builder::new(TokioExecutor::new());
                http.timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
                http.keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE);
                let connection = http.serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => Ok(ended),
                    () = tokio::time::sleep(AGE) => {
                        connection.as_mut().graceful_shutdown();
                        tokio::time::timeout(REST, connection).await
                    }
                };
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%peer, "a viewer's connection ended: {error}");
                }
                drop(turn);
            });
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let answer = match Asked::read(request).await {
            Ok(asked) => self.route(&asked).await,
            Err(refused) => Err(refused),
        };
        answer.unwrap_or_else(|refused| failure(&refused))
    }

    /// The table of endpoints.
    pub(super) async fn route(self: &Arc<Self>, asked: &Asked) -> Result<Answer, Refused> {
        if let Some(answer) = dashboard::answer(self, asked).await {
            return answer;
        }
        match (&asked.method, asked.path.as_str()) {
            (&Method::POST, weft_core::tap::PATH) => tap::answer(self, asked).await,
            _ => Err(Refused::new(StatusCode::NOT_FOUND, format!("there is no {} {}", asked.method, asked.path))),
        }
    }
}

/// A value, whole.
pub fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => reply(StatusCode::OK, "application/json", text.into()),
        Err(error) => failure(&Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// `{"error": "…"}`
fn failure(refused: &Refused) -> Answer {
    let text = serde_json::json!({ "error": refused.why }).to_string();
    let mut answer = reply(refused.status, "application/json", text.into());
    if refused.status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn reply(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    streamed(status, kind, Full::new(body).boxed_unsync())
}

/// A body as it comes.
pub(super) fn streamed(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
#[path = "tests/server.rs"]
mod tests;
