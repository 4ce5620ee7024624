//! The HTTP server. Its answer says what arrived:
//!
//! ```json
//! {"pod":"b","method":"GET","version":"HTTP/1.1","path":"/x","query":"q=1","host":"b.ns","peer":"10.244.1.2:4711",
//!  "local":"10.244.1.3:80","headers":{"host":["b.ns"]},"body_bytes":0,"body":""}
//! ```
//!
//! | request | does |
//! |---|---|
//! | any, `?delay=MS` | waits before it answers |
//! | any, `x-echo-set-header: NAME: VALUE` | adds that header to the answer |
//! | `/status/NNN` | answers with that status |
//! | `/flaky?key=K&fail=N&status=NNN` | the first N requests of a key get the status (503), the others 200 |
//! | `/abort` | ends the connection without an answer |
//! | `/bytes?n=N` | N bytes of the pattern |
//! | `/sink` | how much of the pattern came: `{"pod":..,"seen":..,"wrong_at":..}` |
//! | `/sse?n=N&every=MS` | N server-sent events |
//! | `Upgrade: websocket` | WebSocket echo |
//! | `content-type: application/grpc` | gRPC echo |

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::stream;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Server, grpc, listen_tcp, start};
use crate::netns::Netns;
use crate::{pattern, websocket};

/// The header of every answer that names the server.
pub const POD_HEADER: HeaderName = HeaderName::from_static("x-echo-pod");

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What one server's connections share.
struct Shared {
    name: String,
    /// Requests per key of `/flaky`.
    flaky: Mutex<HashMap<String, u32>>,
}

/// One connection.
struct Conn {
    shared: Arc<Shared>,
    peer: SocketAddr,
    local: SocketAddr,
}

/// An HTTP server; see the module.
///
/// # Errors
/// When it can't listen.
pub fn http(place: &Netns, name: &str, addr: SocketAddr) -> Result<Server> {
    let shared = Arc::new(Shared { name: name.to_owned(), flaky: Mutex::default() });
    start(
        place,
        move || listen_tcp(addr),
        async move |listener: tokio::net::TcpListener, seen| {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let peer = seen.push(peer);
                        tokio::spawn(serve(stream, peer, shared.clone()));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        },
    )
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let conn = Arc::new(Conn { shared, peer, local });
    let service = service_fn(move |request| {
        let conn = conn.clone();
        async move { answer(&conn, request).await }
    });
    // What a client does to its connection is the client's to report.
    let _ =
        auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

async fn answer(conn: &Conn, request: Request<Incoming>) -> Result<Response<Body>> {
    let mut extra = HeaderMap::new();
    extra.insert(POD_HEADER, HeaderValue::from_str(&conn.shared.name)?);
    for line in request.headers().get_all("x-echo-set-header") {
        let (name, value) = line.to_str()?.split_once(':').context("x-echo-set-header without a colon")?;
        extra.append(HeaderName::try_from(name.trim())?, HeaderValue::from_str(value.trim())?);
    }
    if let Some(delay) = query(&request, "delay") {
        tokio::time::sleep(Duration::from_millis(delay.parse()?)).await;
    }
    let mut response = dispatch(conn, request).await?;
    for (name, value) in &extra {
        response.headers_mut().append(name, value.clone());
    }
    Ok(response)
}

async fn dispatch(conn: &Conn, mut request: Request<Incoming>) -> Result<Response<Body>> {
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if content_type.starts_with(b"application/grpc") {
        return Ok(grpc::echo(request));
    }
    if request.headers().get(UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return upgrade(&mut request);
    }
    let path = request.uri().path().to_owned();
    let number = |key, default| query(&request, key).map_or(Ok(default), str::parse::<u64>);
    match path.as_str() {
        "/abort" => bail!("aborting as asked"),
        "/bytes" => Ok(Response::new(pattern_body(number("n", 0)?))),
        "/sink" => sink(conn, request.into_body()).await,
        "/sse" => events(&conn.shared.name, number("n", 1)?, Duration::from_millis(number("every", 0)?)),
        "/flaky" => {
            let status = StatusCode::from_u16(number("status", 503)?.try_into()?)?;
            let (fail, key) = (number("fail", 1)?, query(&request, "key").unwrap_or_default().to_owned());
            let count = {
                let mut flaky = conn.shared.flaky.lock();
                let count = flaky.entry(key).or_default();
                *count += 1;
                *count
            };
            let status = if u64::from(count) <= fail { status } else { StatusCode::OK };
            echo(conn, request, status).await
        }
        _ => {
            let status = match path.strip_prefix("/status/") {
                Some(code) => StatusCode::from_bytes(code.as_bytes())?,
                None => StatusCode::OK,
            };
            echo(conn, request, status).await
        }
    }
}

/// The value of a key in the query, as it is on the wire.
fn query<'a>(request: &'a Request<Incoming>, key: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&').filter_map(|p| p.split_once('='));
    pairs.into_iter().find(|(k, _)| *k == key).map(|(_, v)| v)
}

async fn echo(conn: &Conn, request: Request<Incoming>, status: StatusCode) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut headers = serde_json::Map::new();
    for name in head.headers.keys() {
        let values = head.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
        headers.insert(name.to_string(), values.collect::<Vec<_>>().into());
    }
    let host = head.headers.get(http::header::HOST).and_then(|h| h.to_str().ok());
    let value = json!({
        "pod": conn.shared.name,
        "method": head.method.as_str(),
        "version": format!("{:?}", head.version),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "host": head.uri.authority().map(|a| a.as_str()).or(host),
        "peer": conn.peer,
        "local": conn.local,
        "headers": headers,
        "body_bytes": body.len(),
        "body": String::from_utf8_lossy(&body[..body.len().min(4096)]),
    });
    let mut response = json_response(&value);
    *response.status_mut() = status;
    Ok(response)
}

fn json_response(value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn pattern_body(len: u64) -> Body {
    let chunks = stream::unfold(0, move |sent| async move {
        let bytes = pattern::chunk(sent, len - sent);
        let next = sent + bytes.len() as u64;
        (!bytes.is_empty()).then(|| (Ok(Frame::data(bytes)), next))
    });
    StreamBody::new(chunks).boxed_unsync()
}

async fn sink(conn: &Conn, mut body: Incoming) -> Result<Response<Body>> {
    let mut check = pattern::Check::default();
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            check.feed(&bytes);
        }
    }
    Ok(json_response(&json!({"pod": conn.shared.name, "seen": check.seen(), "wrong_at": check.wrong_at()})))
}

fn events(name: &str, count: u64, every: Duration) -> Result<Response<Body>> {
    let name = name.to_owned();
    let events = stream::unfold(0, move |n| {
        let event = format!("id: {n}\ndata: {name}\n\n");
        async move {
            if n == count {
                return None;
            }
            tokio::time::sleep(if n == 0 { Duration::ZERO } else { every }).await;
            Some((Ok(Frame::data(Bytes::from(event))), n + 1))
        }
    });
    let response = Response::builder().header(CONTENT_TYPE, "text/event-stream");
    Ok(response.body(StreamBody::new(events).boxed_unsync())?)
}

fn upgrade(request: &mut Request<Incoming>) -> Result<Response<Body>> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).context("no websocket key")?.to_str()?;
    let accept = websocket::accept_key(key);
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await?);
        websocket::echo(&mut io).await
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response.body(Full::default().boxed_unsync())?)
}
