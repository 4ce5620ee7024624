//! `POST /v1/tap`, one answer of lines for each tap: to the controller of the mesh over mutual TLS, or outside of Kubernetes
//! to whoever may open a socket of this machine. Nobody else gets as far as asking.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weft_core::identity::SpiffeId;
use weft_core::tap::{Line, PATH, Tap};
use weft_tls::ServerTls;

use super::{Subscription, Taps};

/// Connections at once; more are closed.
const CONNECTIONS: usize = 32;
/// What a request may be, in bytes, and how long it may take to come.
const LARGEST: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines on their way to the connection.
const LINES: usize = 16;
/// How long a reader has for the last line.
const GRACE: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The pause after accept() failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Where the controller comes in.
#[derive(Debug)]
pub struct Door {
    /// Our certificate.
    pub tls: ServerTls,
    /// Who the controller is.
    pub controller: SpiffeId,
}

impl Door {
    /// Serves the controller until `stop` is cancelled.
    pub async fn serve(self, taps: Taps, listener: TcpListener, stop: CancellationToken) {
        let (door, turns) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match (accepted, Arc::clone(&turns).try_acquire_owned()) {
                (Ok((tcp, peer)), Ok(turn)) => {
                    let (door, taps) = (Arc::clone(&door), taps.clone());
                    tokio::spawn(async move {
                        let _turn = turn;
                        if let Err(why) = door.admit(taps, tcp).await {
                            tracing::info!(%peer, "tap: a connection is refused: {why}");
                        }
                    });
                }
                (Ok((_, peer)), Err(_)) => tracing::debug!(%peer, "tap: {CONNECTIONS} connections are open"),
                (Err(error), _) => {
                    tracing::warn!("tap: accept failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn admit(&self, taps: Taps, tcp: TcpStream) -> Result<(), String> {
        let _ = tcp.set_nodelay(true);
        let (stream, peer) = self.tls.accept(tcp).await.map_err(|error| error.to_string())?;
        if *peer.identity() != self.controller {
            return Err(format!("{} is not {}", peer.identity(), self.controller));
        }
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE);
        let service = service_fn(move |request| {
            let taps = taps.clone();
            async move { answered(&taps, request).await }
        });
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!("tap: a connection ended: {error}");
        }
        Ok(())
    }
}

/// Serves on a Unix socket that only its owner may open, until `stop` is cancelled. One that is there is replaced: it is that
/// of a process before us.
///
/// # Errors
/// If the socket can't be made.
pub async fn serve_socket(taps: Taps, path: &Path, stop: CancellationToken) -> io::Result<()> {
    let listener = bind(path)?;
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&turns).try_acquire_owned()) {
            (Ok((stream, _)), Ok(turn)) => {
                let taps = taps.clone();
                tokio::spawn(async move {
                    let _turn = turn;
                    let mut http = http1::Builder::new();
                    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                    let service = service_fn(|request| answered(&taps, request));
                    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                        tracing::debug!("tap: a connection ended: {error}");
                    }
                });
            }
            (Ok(_), Err(_)) => tracing::debug!("tap: {CONNECTIONS} connections are open"),
            (Err(error), _) => {
                tracing::warn!("tap: accept failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Under another name first, so that nobody meets it with the rights that the umask gives.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.to_owned().into_os_string();
    new.push(format!(".{}", std::process::id()));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

async fn answered(taps: &Taps, request: Request<Incoming>) -> Result<Answer, Infallible> {
    Ok(answer(taps, request)
        .await
        .unwrap_or_else(|(status, why)| reply(status, "text/plain", Full::new(Bytes::from(why + "\n")).boxed_unsync())))
}

async fn answer(taps: &Taps, request: Request<Incoming>) -> Result<Answer, (StatusCode, String)> {
    if (request.method(), request.uri().path()) != (&Method::POST, PATH) {
        return Err((StatusCode::NOT_FOUND, format!("POST {PATH}")));
    }
    let refused = |why: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, format!("no tap: {why}"));
    let body = timeout(PATIENCE, Limited::new(request.into_body(), LARGEST).collect()).await;
    let body = body.map_err(|late| refused(&late))?.map_err(|error| refused(&error))?.to_bytes();
    let tap: Tap = serde_json::from_slice(&body).map_err(|error| refused(&error))?;
    tap.check().map_err(|why| refused(&why))?;
    tracing::info!(?tap, "a tap begins");
    let subscription = taps.begin(tap).map_err(|error| (StatusCode::TOO_MANY_REQUESTS, error.to_string()))?;
    let (lines, mut sent) = mpsc::channel::<Line>(LINES);
    tokio::spawn(pump(subscription, lines));
    let sent = futures::stream::poll_fn(move |cx| sent.poll_recv(cx));
    let frames = sent.map(|line| Ok(Frame::data(Bytes::from(line.text()))));
    Ok(reply(StatusCode::OK, "application/x-ndjson", BodyExt::boxed_unsync(StreamBody::new(frames))))
}

/// Carries lines to the answer. A reader that is stuck or gone doesn't keep the tap alive.
async fn pump(mut subscription: Subscription, lines: mpsc::Sender<Line>) {
    let last = subscription.end() + GRACE;
    let carried = async {
        while let Some(line) = subscription.next().await {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = carried => {}
        () = lines.closed() => {}
        () = sleep_until(last) => {}
    }
}

fn reply(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
