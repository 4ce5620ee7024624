//! The page's own small server.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::keys::Keys;
use super::source::{Refused, Source, View};

/// The page's files: path, type, text.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/graph.js", SCRIPT, include_str!("page/graph.js")),
    ("/layout.js", SCRIPT, include_str!("page/layout.js")),
    ("/details.js", SCRIPT, include_str!("page/details.js")),
    ("/lists.js", SCRIPT, include_str!("page/lists.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Of every answer. No other page frames it or reads from it, and nothing from elsewhere runs in it.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The longest token that is read, in bytes.
const LONGEST: usize = 256;
/// How long a request's head may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A page, where it is and what it shows.
pub struct Site {
    source: Source,
    port: u16,
    keys: Keys,
}

type Answer = Response<Full<Bytes>>;

impl Site {
    /// A page at a port of the loopback, to which nobody was invited yet.
    pub fn new(source: Source, port: u16) -> Self {
        Self { source, port, keys: Keys::new() }
    }

    /// The address for one tab of a browser. The token is after the `#`, so that it is in no request, log or `Referer`.
    pub fn invitation(&self) -> String {
        format!("http://127.0.0.1:{}/#token={}", self.port, self.keys.token())
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let answered = match self.admit(request.method(), request.headers()) {
            Ok(()) => self.route(request).await,
            Err(refused) => Err(refused),
        };
        let mut answer = answered.unwrap_or_else(|refused| {
            reply(refused.status, "application/json", json!({ "error": refused.why }).to_string().into())
        });
        for (name, value) in HEADERS {
            answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        answer
    }

    /// A browser that was led here by a name of somebody else's, which now stands for this machine, says that name as the host.
    fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        let own = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", self.port));
        let mut hosts = headers.get_all(header::HOST).iter();
        let is_own = |value: &HeaderValue| own.iter().any(|own| value.as_bytes().eq_ignore_ascii_case(own.as_bytes()));
        if !hosts.next().is_some_and(is_own) || hosts.next().is_some() {
            return Err(Refused::new(
                StatusCode::MISDIRECTED_REQUEST,
                "this page is at 127.0.0.1 and at localhost only",
            ));
        }
        let is_elsewhere = |origin: &HeaderValue| {
            let origin = origin.as_bytes();
            !own.iter().any(|own| origin.strip_prefix(b"http://").is_some_and(|host| host == own.as_bytes()))
        };
        if headers.get_all(header::ORIGIN).iter().any(is_elsewhere) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "another page asks"));
        }
        if !matches!(*method, Method::GET | Method::HEAD | Method::POST) {
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "there is only to read here"));
        }
        Ok(())
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let path = request.uri().path().to_owned();
        if request.method() == Method::POST {
            return match path.as_str() {
                "/api/session" => self.session(request).await,
                _ => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "there is only to read here")),
            };
        }
        if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) {
            return Ok(reply(StatusCode::OK, kind, Bytes::from_static(text.as_bytes())));
        }
        let view = path.strip_prefix("/api/").and_then(View::of);
        let view = view.ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, format!("there is no {path}")))?;
        let key =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if !key.is_some_and(|key| self.keys.has(key)) {
            return Err(Refused::new(StatusCode::UNAUTHORIZED, NO_KEY));
        }
        let namespace = namespace(request.uri().query().unwrap_or_default())?;
        let body = self.source.answer(view, namespace.as_deref()).await?;
        Ok(reply(StatusCode::OK, "application/json", body))
    }

    /// A key for the token of an invitation.
    async fn session(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let body = tokio::time::timeout(PATIENCE, Limited::new(request.into_body(), LONGEST).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        let key = std::str::from_utf8(&body).ok().and_then(|token| self.keys.exchange(token));
        let key = key.ok_or_else(|| Refused::new(StatusCode::UNAUTHORIZED, NO_KEY))?;
        println!("for another tab: {}", self.invitation());
        Ok(reply(StatusCode::OK, "application/json", json!({ "key": key }).to_string().into()))
    }
}

const NO_KEY: &str = "This address has been used, or is an old one: `weft dashboard` prints a new one for every tab.";

/// The namespace that a query asks for; `None`: all of them.
fn namespace(query: &str) -> Result<Option<String>, Refused> {
    let Some(name) = query.split('&').find_map(|pair| pair.strip_prefix("namespace=")) else { return Ok(None) };
    // What names of namespaces are made of (RFC 1123); everything else would have to be decoded.
    let is_name =
        name.len() <= 63 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    match is_name {
        true => Ok(Some(name.to_owned()).filter(|name| !name.is_empty())),
        false => Err(Refused::new(StatusCode::BAD_REQUEST, "a namespace's name is of a-z, 0-9 and -")),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Answers until the listener fails; within a `LocalSet`.
///
/// # Errors
/// That.
pub async fn serve<T>(site: Rc<Site>, listener: TcpListener) -> anyhow::Result<T> {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            Some(_) = connections.join_next() => continue,
        };
        let site = Rc::clone(&site);
        connections.spawn_local(async move {
            let service = service_fn(move |request| {
                let site = Rc::clone(&site);
                async move { Ok::<_, Infallible>(site.answer(request).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!("a browser's connection ended: {error}");
            }
        });
    }
}
