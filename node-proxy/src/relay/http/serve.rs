//! One downstream connection from its first byte to its last: HTTP/1 or HTTP/2, its limits, its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use weft_core::reason::Reason;

use super::body::ResponseBody;
use super::client::ClientBody;
use super::downstream::{Downstream, Side};
use super::engine::HttpSettings;
use super::framing::{H1Framing, H2Framing};
use super::gather::gather;
use super::given_up::{ForNobody, GivenUp, Unanswered};
use super::wire::{End, Framing, Wire};
use super::{inbound, outbound, trail};
use crate::observe::Ended;
use crate::worker::coalesce::Relaying;

/// What hyper takes without being told (`http1::Builder::max_headers`).
const HYPERS_MAX_HEADERS: usize = 100;
/// How long a last word may take.
const PARTING: std::time::Duration = std::time::Duration::from_secs(1);
/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The windows of streams and connections of a Gateway: its clients are many, and what they send into a window is ours to hold.
const GATEWAY_STREAM_WINDOW: u32 = 64 << 10;
const GATEWAY_CONNECTION_WINDOW: u32 = 1 << 20;
/// What of an answer waits for a Gateway's client to take it, bytes of a stream.
const GATEWAY_SEND_BUFFER: usize = 64 << 10;
/// The window of a stream towards us.
const STREAM_WINDOW: u32 = 1 << 20;
/// The window of a connection towards us.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Streams reset by the peer before we took them (CVE-2023-44487, "rapid reset").
const MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset for the peer's errors (CVE-2025-8671, "MadeYouReset").
const MAX_LOCAL_RESETS: usize = 100;

/// Serves a connection.
pub(super) async fn serve<T>(io: T, conn: Rc<Downstream>) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let reason = match sniff(io, &conn).await {
        Ok((wire, true)) => serve_h2(wire, &conn).await,
        Ok((wire, false)) => serve_h1(wire, &conn).await,
        Err(reason) => reason,
    };
    Ended { received: conn.watched.received.get(), sent: conn.watched.sent.get(), reason }
}

/// Whether the client speaks HTTP/2. It waits only while what came is a part of the preface.
async fn sniff<T>(mut io: T, conn: &Rc<Downstream>) -> Result<(Wire<T>, bool), Reason>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = BytesMut::with_capacity(PREFACE.len());
    loop {
        let got = {
            let mut reading = pin!(io.read_buf(&mut read));
            poll_fn(|cx| match conn.poll_end(cx) {
                Some(End::Now(reason)) => Poll::Ready(Err(reason)),
                // Its first request may be on the way; the worker's watch ends it if none comes.
                _ => reading.as_mut().poll(cx).map(|got| got.map_err(|_| Reason::DownstreamReset)),
            })
            .await?
        };
        let is_part = PREFACE.starts_with(&read);
        if got == 0 || !is_part || read.len() >= PREFACE.len() {
            let h2 = is_part && read.len() >= PREFACE.len();
            let framing = match h2 {
                true => Framing::Http2(H2Framing::new(PREFACE.len())),
                false => Framing::Http1(H1Framing::default()),
            };
            return Ok((Wire::new(io, read.freeze(), framing, Rc::clone(&conn.watched)), h2));
        }
        conn.watched.began();
    }
}

/// Answers a request, whatever carries it; every failure is an answer. `unanswered` is told then.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep what it is given twice")]
pub(super) fn answer(
    conn: Rc<Downstream>,
    request: Request<ClientBody>,
    unanswered: Unanswered,
) -> impl Future<Output = Result<Response<ResponseBody>, std::convert::Infallible>> {
    async move {
        let is_http3 = request.version() == Version::HTTP_3;
        let mut response = match &conn.side {
            Side::Outbound(caller) => outbound::serve(&conn, caller, request.into_parts()).await?,
            Side::Inbound(called) => inbound::serve(&conn, called, request.into_parts()).await?,
        };
        if let Some(alternative) = (!is_http3).then(|| conn.alternative()).flatten() {
            response.headers_mut().insert(header::ALT_SVC, alternative);
        }
        if response.extensions().get::<ForNobody>().is_none() {
            unanswered.answered();
        }
        Ok(response)
    }
}

async fn serve_h1<T>(wire: Wire<T>, conn: &Rc<Downstream>) -> Reason
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn({
        let conn = Rc::clone(conn);
        // Boxed, because the codec moves it, and it has kilobytes.
        move |request: Request<Incoming>| {
            Box::pin(answer(Rc::clone(&conn), request.map(ClientBody::from), Unanswered::new(None)))
        }
    });
    let mut connection = h1_builder(&conn.engine.settings).serve_connection(TokioIo::new(wire), service);
    let mut leaving = false;
    let ended = poll_fn(|cx| {
        match conn.poll_end(cx) {
            Some(End::Now(reason)) => return Poll::Ready(Err(reason)),
            // An idle client may be sending its next request at this moment: it gets an answer, with
            // `Connection: close`. If none comes, the worker's watch ends the connection.
            Some(End::Gracefully) if !leaving && conn.watched.busy.get() > 0 => {
                leaving = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ => {}
        }
        // Not `poll_without_shutdown`, which would need a box for each request. A switched connection is left open.
        Pin::new(&mut connection).poll(cx).map(|result| result.map_err(|error| reason_of(&error)))
    })
    .await;
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    // Also if nobody is told of the switch any more: it knows the connection, which would keep both.
    let switched = conn.upgrade.borrow_mut().take();
    if let Err(reason) = ended {
        if reason == Reason::HeaderTimeout && io.is_flushed() {
            // Nobody may be there to read it.
            let last = trail::too_slow(conn);
            drop(tokio::time::timeout(PARTING, io.write_all(last.as_bytes())).await);
        }
        return reason;
    }
    let Some((lease, finish)) = switched else { return conn.last.get() };
    match lease.upgraded() {
        Some(upstream) => tunnel(io, parts.read_buf, upstream, (conn, finish)).await,
        None => Reason::UpstreamReset,
    }
}

/// Bytes both ways after a protocol switch.
async fn tunnel<T>(
    mut io: Wire<T>,
    early: Bytes,
    upstream: crate::connect::http_pool::Parts,
    (conn, mut finish): (&Rc<Downstream>, super::finish::Finish),
) -> Reason
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let _relaying = Relaying::begin();
    let crate::connect::http_pool::Parts { mut stream, read } = upstream;
    let before = conn.watched.sent.get();
    io.switched();
    let relay = async {
        stream.write_all(&early).await?;
        io.write_all(&read).await?;
        tokio::io::copy_bidirectional(&mut io, &mut stream).await
    };
    let mut relay = pin!(relay);
    let ended = poll_fn(|cx| match conn.poll_end(cx) {
        Some(End::Now(reason)) => Poll::Ready(Err(reason)),
        // A drain lets it go on: it ends with the application, or when the process does.
        _ => relay.as_mut().poll(cx).map(|result| result.map(drop).map_err(|_| Reason::DownstreamReset)),
    })
    .await;
    finish.add_sent(conn.watched.sent.get() - before);
    finish.complete(true);
    ended.err().unwrap_or(Reason::Ok)
}

async fn serve_h2<T>(wire: Wire<T>, conn: &Rc<Downstream>) -> Reason
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn({
        let (conn, given_up) = (Rc::clone(conn), GivenUp::of(conn));
        // Boxed, because the codec and the runtime move it several times, and it has kilobytes.
        move |request: Request<Incoming>| {
            let unanswered = Unanswered::new(given_up.as_ref());
            Box::pin(answer(Rc::clone(&conn), request.map(ClientBody::from), unanswered))
        }
    });
    let (wire, written) = gather(wire);
    let connection = h2_builder(conn).serve_connection(TokioIo::new(wire), service);
    let mut connection = pin!(connection);
    let mut leaving = false;
    let ended = poll_fn(|cx| {
        match conn.poll_end(cx) {
            Some(End::Now(reason)) => return Poll::Ready(Err(reason)),
            Some(End::Gracefully) if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        let ended = connection.as_mut().poll(cx).map(|result| result.map_err(|error| reason_of(&error)));
        // Whether or not that was its last word.
        match written.poll_send(cx) {
            Poll::Ready(Err(_)) if ended.is_pending() => Poll::Ready(Err(Reason::DownstreamReset)),
            _ => ended,
        }
    })
    .await;
    ended.err().unwrap_or_else(|| conn.last.get())
}

fn h1_builder(settings: &HttpSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Of a number that it is told, even of its own, hyper clears as many places at each request.
    if settings.max_headers != HYPERS_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
        .max_header_size(settings.max_header_bytes)
        // Our clock ends slow heads and idle connections (wire); a date is the application's to give.
        .header_read_timeout(None)
        .auto_date_header(false)
        .half_close(false);
    builder
}

/// Runs the requests of an HTTP/2 connection, each in a task of its own, which is where it may panic.
#[derive(Clone)]
struct RequestExec(Rc<Downstream>);

impl<F> hyper::rt::Executor<F> for RequestExec
where
    F: Future + Unpin + 'static,
{
    fn execute(&self, task: F) {
        let conn = Rc::clone(&self.0);
        drop(tokio::task::spawn_local(Counted { task, conn }));
    }
}

/// A task of a connection, which is told of a panic in it. Not an `async` block, which would have the task twice: as what it
/// was given, and as what it waits for.
struct Counted<F> {
    task: F,
    conn: Rc<Downstream>,
}

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { task, conn } = &mut *self;
        let _counted = CountPanic(conn);
        Pin::new(task).poll(cx).map(drop)
    }
}

pub(super) struct CountPanic<'a>(pub(super) &'a Downstream);

impl Drop for CountPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked();
        }
    }
}

fn h2_builder(conn: &Rc<Downstream>) -> http2::Builder<RequestExec> {
    let settings = &conn.engine.settings;
    let mut builder = http2::Builder::new(RequestExec(Rc::clone(conn)));
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(std::time::Duration::from_secs(60))
        .keep_alive_timeout(std::time::Duration::from_secs(20));
    if conn.side.is_gateway() {
        builder
            .initial_stream_window_size(GATEWAY_STREAM_WINDOW)
            .initial_connection_window_size(GATEWAY_CONNECTION_WINDOW)
            .max_send_buf_size(GATEWAY_SEND_BUFFER);
    }
    if matches!(conn.side, Side::Outbound(_)) {
        builder.enable_connect_protocol();
    }
    builder
}

fn reason_of(error: &hyper::Error) -> Reason {
    if error.is_parse_too_large() {
        Reason::HeadersTooLarge
    } else if error.is_parse() {
        Reason::BadRequest
    } else if error.is_timeout() {
        Reason::HeaderTimeout
    } else {
        Reason::DownstreamReset
    }
}
