//! The accepting side of a tunnel: validates CONNECT streams and gives each to a handler in its own task.
//!
//! A stream is answered by its handler alone, after it has authorized and connected: 200 means that the application is there.
//! A panic in a handler ends its stream, nothing else. All limits are in [`crate::limits`].

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::drive::{Command, Control, keep_alive, turn};
use crate::io::SharedIo;
use crate::limits::{BULK_FRAME, ServerLimits};
use crate::request::ConnectRequest;
use crate::responder::{Responder, status_only};

/// How long the last word on a connection may take to be taken.
const PARTING: Duration = Duration::from_secs(1);

/// Decides about streams and carries them.
pub trait Handler: 'static {
    /// Authorizes, connects, answers through `responder`, relays. Runs in its own task; it is dropped when the peer resets the
    /// stream before it was answered.
    fn handle(&self, request: ConnectRequest, responder: Responder) -> impl Future<Output = ()> + 'static;
}

/// How a served connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeEnd {
    /// The peer closed it, or it was drained and all streams ended.
    Finished,
    /// The peer did not finish the HTTP/2 handshake in time.
    HandshakeTimeout,
    /// The peer answered no PING.
    Unresponsive,
    /// Streams were still open at the drain deadline.
    DrainDeadline,
    /// The peer reset too many streams before they were answered; it was sent ENHANCE_YOUR_CALM.
    TooManyResets,
    /// The peer broke the protocol or a limit of the codec.
    Protocol(Reason),
    /// The transport failed.
    Io,
}

impl ServeEnd {
    /// The label value.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Unresponsive => "unresponsive",
            Self::DrainDeadline => "drain_deadline",
            Self::TooManyResets => "too_many_resets",
            Self::Protocol(Reason::ENHANCE_YOUR_CALM) => "protocol_limit",
            Self::Protocol(_) => "protocol_error",
            Self::Io => "io_error",
        }
    }
}

/// What happened on a served connection. Panics of handlers that outlive the connection are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeReport {
    /// How it ended.
    pub end: ServeEnd,
    /// Valid CONNECT streams given to the handler.
    pub streams: u64,
    /// Streams answered 400 without the handler.
    pub bad_requests: u64,
    /// Streams that the peer reset before they were answered.
    pub early_resets: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

/// Counters and the reset budget of one connection, shared with its stream tasks.
struct Shared {
    streams: Cell<u64>,
    bad_requests: Cell<u64>,
    early_resets: Cell<u64>,
    panics: Cell<u64>,
    /// Early resets that may still come, and when that was computed.
    budget: Cell<(f64, Instant)>,
    too_many_resets: Cell<bool>,
    unresponsive: Cell<bool>,
    deadline_passed: Cell<bool>,
    control: Rc<Control>,
    limits: ServerLimits,
}

fn bump(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Shared {
    fn new(limits: ServerLimits) -> Rc<Self> {
        Rc::new(Self {
            streams: Cell::new(0),
            bad_requests: Cell::new(0),
            early_resets: Cell::new(0),
            panics: Cell::new(0),
            budget: Cell::new((f64::from(limits.early_reset_burst), Instant::now())),
            too_many_resets: Cell::new(false),
            unresponsive: Cell::new(false),
            deadline_passed: Cell::new(false),
            control: Control::new(),
            limits,
        })
    }

    /// A stream was reset before it was answered. Beyond the budget the connection is the peer's last.
    fn note_early_reset(&self) {
        bump(&self.early_resets);
        let (left, since) = self.budget.get();
        let now = Instant::now();
        let refill = now.duration_since(since).as_secs_f64() * f64::from(self.limits.early_resets_per_second);
        let left = (left + refill).min(f64::from(self.limits.early_reset_burst)) - 1.0;
        self.budget.set((left, now));
        if left < 0.0 {
            self.too_many_resets.set(true);
            self.control.send(Command::Stop);
        }
    }

    fn report(&self, end: ServeEnd) -> ServeReport {
        ServeReport {
            end,
            streams: self.streams.get(),
            bad_requests: self.bad_requests.get(),
            early_resets: self.early_resets.get(),
            panics: self.panics.get(),
        }
    }
}

/// Serves one accepted, authenticated transport until it ends. Needs the worker's `LocalSet`.
///
/// When `drain` is cancelled the peer gets GOAWAY, streams may finish until the drain deadline, and then the connection is closed.
pub async fn serve_connection<IO, H>(
    io: IO,
    handler: Rc<H>,
    limits: ServerLimits,
    drain: CancellationToken,
) -> ServeReport
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    let io = SharedIo::new(io);
    let shared = Shared::new(limits);
    let mut connection = match handshake(&io, &limits).await {
        Ok(connection) => connection,
        Err(end) => return shared.report(end),
    };
    let pings = connection.ping_pong();
    let clock = tokio::task::spawn_local(keep_clock(Rc::clone(&shared), pings, drain));
    let end = drive(&mut connection, &io, &handler, &shared).await;
    clock.abort();
    shared.report(end)
}

async fn handshake<IO>(io: &SharedIo<IO>, limits: &ServerLimits) -> Result<Connection<SharedIo<IO>, Bytes>, ServeEnd>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = Box::pin(builder(limits).handshake::<_, Bytes>(io.clone()));
    let shaken = timeout(
        limits.handshake_timeout,
        poll_fn(|cx| match turn(io, cx, |cx| handshake.as_mut().poll(cx)) {
            (_, Err(_)) => Poll::Ready(Err(ServeEnd::Io)),
            (polled, Ok(())) => polled.map_err(|error| ended_by(&error)),
        }),
    );
    shaken.await.unwrap_or(Err(ServeEnd::HandshakeTimeout))
}

fn builder(limits: &ServerLimits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.tunnel.stream_window)
        .initial_connection_window_size(limits.tunnel.connection_window)
        .max_frame_size(BULK_FRAME as u32)
        .max_header_list_size(limits.tunnel.max_header_list_bytes)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_pending_accept_reset_streams(limits.max_pending_reset_streams)
        .max_local_error_reset_streams(Some(limits.max_error_reset_streams))
        .max_concurrent_reset_streams(limits.max_remembered_resets)
        .max_send_buffer_size(limits.tunnel.send_buffer);
    builder
}

fn ended_by(error: &h2::Error) -> ServeEnd {
    match error.reason() {
        Some(Reason::NO_ERROR) => ServeEnd::Finished,
        Some(reason) => ServeEnd::Protocol(reason),
        None => ServeEnd::Io,
    }
}

async fn drive<IO, H>(
    connection: &mut Connection<SharedIo<IO>, Bytes>,
    io: &SharedIo<IO>,
    handler: &Rc<H>,
    shared: &Rc<Shared>,
) -> ServeEnd
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler,
{
    loop {
        let accepted = poll_fn(|cx| {
            if obey(connection, shared, cx) {
                return Poll::Ready(Err(ServeEnd::Io));
            }
            match turn(io, cx, |cx| connection.poll_accept(cx)) {
                (Poll::Pending, Err(_)) => Poll::Ready(Err(ServeEnd::Io)),
                (polled, _) => polled.map(Ok),
            }
        })
        .await;
        match accepted {
            Ok(Some(Ok((request, respond)))) => dispatch(request, respond, handler, shared),
            Ok(Some(Err(error))) => return why(connection, shared, ended_by(&error)),
            Ok(None) => return why(connection, shared, ServeEnd::Finished),
            Err(end) => return why(connection, shared, end),
        }
    }
}

/// What we decided goes before what the codec made of it. A transport that goes away under an idle connection is just closed:
/// our answer to the peer's GOAWAY often finds nobody.
fn why<IO>(connection: &Connection<SharedIo<IO>, Bytes>, shared: &Shared, end: ServeEnd) -> ServeEnd
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if shared.too_many_resets.get() {
        ServeEnd::TooManyResets
    } else if shared.unresponsive.get() {
        ServeEnd::Unresponsive
    } else if shared.deadline_passed.get() {
        ServeEnd::DrainDeadline
    } else if end == ServeEnd::Io && !connection.has_streams() {
        ServeEnd::Finished
    } else {
        end
    }
}

/// Whether it is over.
fn obey<IO>(connection: &mut Connection<SharedIo<IO>, Bytes>, shared: &Shared, cx: &mut Context<'_>) -> bool
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(command) = shared.control.poll(cx) {
        match command {
            Command::Over => return true,
            Command::Drain => connection.graceful_shutdown(),
            Command::Stop if shared.too_many_resets.get() => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            Command::Stop => connection.abrupt_shutdown(Reason::NO_ERROR),
        }
    }
    false
}

/// Pings the peer, and turns the drain signal into GOAWAY and later the end.
async fn keep_clock(shared: Rc<Shared>, pings: Option<h2::PingPong>, drain: CancellationToken) {
    let limits = shared.limits;
    let alive = async {
        match pings {
            // Who dialled knows whether there is a doubt.
            Some(pings) => {
                keep_alive(pings, limits.tunnel.ping_interval, limits.tunnel.ping_timeout, &Notify::new()).await
            }
            None => std::future::pending().await,
        }
    };
    let drained = async {
        drain.cancelled().await;
        shared.control.send(Command::Drain);
        tokio::time::sleep(limits.drain_deadline).await;
    };
    tokio::select! {
        () = alive => shared.unresponsive.set(true),
        () = drained => shared.deadline_passed.set(true),
    }
    shared.control.send(Command::Stop);
    // A peer that takes nothing doesn't take our last word either.
    tokio::time::sleep(PARTING).await;
    shared.control.send(Command::Over);
}

fn dispatch<H: Handler>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: &Rc<H>,
    shared: &Rc<Shared>,
) {
    let (parts, recv) = request.into_parts();
    // Extended CONNECT (RFC 8441) is another protocol; we don't advertise it.
    let plain = parts.method == Method::CONNECT && parts.extensions.get::<h2::ext::Protocol>().is_none();
    let request = match ConnectRequest::from_parts(parts) {
        Ok(request) if plain => request,
        _ => {
            bump(&shared.bad_requests);
            // Fails only if the stream is gone already.
            let _ = respond.send_response(status_only(StatusCode::BAD_REQUEST), true);
            return;
        }
    };
    bump(&shared.streams);
    let unanswered = Rc::new(RefCell::new(Some((respond, recv))));
    let responder = Responder::new(Rc::clone(&unanswered));
    let (handler, shared) = (Rc::clone(handler), Rc::clone(shared));
    tokio::task::spawn_local(async move {
        let _panicked = CountPanic(&shared);
        let mut handling = pin!(handler.handle(request, responder));
        poll_fn(|cx| {
            if handling.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut slot = unanswered.borrow_mut();
            let Some((respond, _)) = slot.as_mut() else { return Poll::Pending };
            respond.poll_reset(cx).map(|reset| {
                if reset.is_ok() {
                    shared.note_early_reset();
                }
            })
        })
        .await;
    });
}

struct CountPanic<'a>(&'a Shared);

impl Drop for CountPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            bump(&self.0.panics);
        }
    }
}
