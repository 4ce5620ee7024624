//! What an operator asks a node proxy: metrics, health, its configuration, its log level, and to leave.
//!
//! Serves plain HTTP/1 on a runtime of its own, so that it answers while workers are busy. All of it is for loopback
//! only; what a kubelet and a scraper need is served on another address too, where nothing can be changed. Nothing it
//! shows holds a key. What changes something is a POST.

mod dump;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weft_metrics::{Component, openmetrics};

use crate::records::Records;
use crate::store::{Store, to_bytes};
use crate::telemetry::{Registry, Wanted};

/// Connections to the status address at once; more wait. Whoever reaches the proxy's address reaches it.
const STATUS_CONNECTIONS: usize = 32;
/// How long one of them may last.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);

/// Requests that are shown at once.
const MOST_REQUESTS: usize = 1000;

/// Sets a log filter, or says what is wrong with it.
pub type SetLogFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the server shows and does.
pub struct Admin {
    /// Metrics of the workers.
    pub registry: Arc<Registry>,
    /// The requests of late.
    pub records: Records,
    /// Metrics of the process, in the text format.
    pub process_metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether metrics go by Istio's names too.
    pub istio_metrics: bool,
    /// The configuration.
    pub store: Arc<Store>,
    /// What is missing for traffic; empty when ready.
    pub missing: Box<dyn Fn() -> Vec<&'static str> + Send + Sync>,
    /// Connections per worker, as JSON.
    pub connections: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Sets the log filter; what is wrong with it otherwise.
    pub set_log_filter: SetLogFilter,
    /// Cancelled by `POST /quitquitquit`: the process drains and ends.
    pub quit: CancellationToken,
}

impl Admin {
    /// Serves until the token is cancelled.
    ///
    /// # Errors
    /// When the address is not loopback or cannot be bound.
    pub async fn serve(self: Arc<Self>, address: SocketAddr, stop: CancellationToken) -> io::Result<()> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the admin address must be loopback"));
        }
        self.accept(TcpListener::bind(address).await?, stop).await;
        Ok(())
    }

    /// Serves `/healthz`, `/readyz` and `/metrics`, on any address, until the token is cancelled.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve_status(self: Arc<Self>, address: SocketAddr, stop: CancellationToken) -> io::Result<()> {
        let listener = weft_control::bind(address).await?;
        let turns = Arc::new(Semaphore::new(STATUS_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return Ok(()) };
            let Some(stream) = next(&listener, &stop).await else { return Ok(()) };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                let _turn = turn;
                // Who asks in time gets an answer.
                let _late = tokio::time::timeout(STATUS_DEADLINE, admin.converse(stream, Pages::Status)).await;
            });
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        while let Some(stream) = next(&listener, &stop).await {
            tokio::spawn(Arc::clone(&self).converse(stream, Pages::All));
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, pages: Pages) {
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&self);
            async move { Ok::<_, Infallible>(admin.answer(pages, &request)) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!("admin connection ended: {error}");
        }
    }

    fn answer(&self, pages: Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if (request.method(), request.uri().path()) == (&Method::GET, "/metrics") {
            let accepts = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
            return self.metrics(accepts.into_iter().any(openmetrics::is_wanted));
        }
        self.route(pages, request.method(), (request.uri().path(), request.uri().query()))
    }

    fn route(&self, pages: Pages, method: &Method, (path, query): (&str, Option<&str>)) -> Response<Full<Bytes>> {
        match (method, path) {
            (_, path) if !pages.has(path) => reply(StatusCode::NOT_FOUND, "text/plain", pages.index()),
            (&Method::GET, "/metrics") => self.metrics(false),
            (&Method::GET, "/healthz") => reply(StatusCode::OK, "text/plain", "ok\n"),
            (&Method::GET, "/readyz") => self.ready(),
            (&Method::GET, "/config_dump") => json(&dump::snapshot(&self.store.load())),
            (&Method::GET, "/config") => match to_bytes(&self.store.load()) {
                Ok(bytes) => reply(StatusCode::OK, "application/octet-stream", bytes),
                Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
            },
            (&Method::GET, "/requests") => self.requests(query.unwrap_or_default()),
            (&Method::GET, "/connections") => json(&(self.connections)()),
            (&Method::POST, "/logging") => self.logging(query.and_then(|query| query.strip_prefix("level="))),
            (&Method::POST, "/quitquitquit") => {
                self.quit.cancel();
                reply(StatusCode::OK, "text/plain", "draining\n")
            }
            _ => reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "another method is needed\n"),
        }
    }

    /// All metrics, in the text format or as OpenMetrics.
    fn metrics(&self, as_openmetrics: bool) -> Response<Full<Bytes>> {
        let mut text = self.registry.page(Wanted { exemplars: as_openmetrics });
        if self.istio_metrics {
            text += &self.registry.render_istio(&self.store.load().mesh().cluster_domain);
        }
        text += &(self.process_metrics)();
        text += &weft_metrics::process::render(Component::Proxy, env!("CARGO_PKG_VERSION"));
        match as_openmetrics {
            true => reply(StatusCode::OK, openmetrics::CONTENT_TYPE, openmetrics::from_text(&text)),
            false => reply(StatusCode::OK, openmetrics::TEXT, text),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let missing = (self.missing)();
        if missing.is_empty() {
            return reply(StatusCode::OK, "text/plain", "ready\n");
        }
        reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("waiting for: {}\n", missing.join(", ")))
    }

    /// The requests with an id (`id=`), or the last ones: `last=` as many.
    fn requests(&self, query: &str) -> Response<Full<Bytes>> {
        let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let id = of("id").map(|id| percent_decode_str(id).decode_utf8_lossy());
        let most = of("last").and_then(|last| last.parse().ok()).unwrap_or(MOST_REQUESTS);
        json(&serde_json::json!(self.records.find(id.as_deref(), most.min(MOST_REQUESTS))))
    }

    fn logging(&self, filter: Option<&str>) -> Response<Full<Bytes>> {
        let Some(filter) = filter else {
            return reply(
                StatusCode::BAD_REQUEST,
                "text/plain",
                "use /logging?level=info or level=weft_node_proxy=debug\n",
            );
        };
        match (self.set_log_filter)(filter) {
            Ok(()) => reply(StatusCode::OK, "text/plain", "set\n"),
            Err(why) => reply(StatusCode::BAD_REQUEST, "text/plain", format!("{why}\n")),
        }
    }
}

/// What an address shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    All,
    Status,
}

impl Pages {
    fn has(self, path: &str) -> bool {
        match path {
            "/metrics" | "/healthz" | "/readyz" => true,
            "/config" | "/config_dump" | "/connections" | "/requests" | "/logging" | "/quitquitquit" => {
                self == Self::All
            }
            _ => false,
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::All => {
                "GET /metrics /healthz /readyz /config /config_dump /connections /requests?id=...\nPOST /logging?level=... /quitquitquit\n"
            }
            Self::Status => "GET /metrics /healthz /readyz\n",
        }
    }
}

/// The next connection; `None` when it is time to stop.
async fn next(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted =
            tokio::select! { () = stop.cancelled() => return None, accepted = listener.accept() => accepted };
        match accepted {
            Ok((stream, _)) => return Some(stream),
            Err(error) => {
                tracing::warn!("admin: accept failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    reply(StatusCode::OK, "application/json", serde_json::to_string_pretty(value).unwrap_or_default() + "\n")
}

fn reply(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
