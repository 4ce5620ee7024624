//! The client's side of one tunnel: an HTTP/2 connection that carries CONNECT streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{self, Connection, SendRequest};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::drive::{Command, Control, keep_alive, turn};
use crate::error::{DialError, DialFailure, OpenError};
use crate::io::SharedIo;
use crate::limits::{BULK_FRAME, TunnelLimits};
use crate::request::OpenRequest;
use crate::stream::TunnelStream;

/// The longest reason of a peer that is passed on, in bytes.
const LONGEST_REASON: usize = 64;

/// How far a tunnel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// Takes streams.
    Open,
    /// Takes no more streams; those it has go on. After GOAWAY, eviction, drain or idleness.
    Retiring,
    /// Gone.
    Closed,
}

/// A tunnel. Belongs to one thread; the tasks that drive it were spawned on its `LocalSet`.
pub struct Tunnel {
    send: RefCell<Option<SendRequest<Bytes>>>,
    state: Cell<TunnelState>,
    active: Cell<usize>,
    last_used: Cell<Instant>,
    control: Rc<Control>,
    doubt: Notify,
    limits: TunnelLimits,
}

/// Counts a stream on its tunnel for as long as it lives.
pub(crate) struct StreamGuard(Rc<Tunnel>);

impl StreamGuard {
    fn new(tunnel: &Rc<Tunnel>) -> Self {
        tunnel.active.set(tunnel.active.get() + 1);
        Self(Rc::clone(tunnel))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.last_used.set(Instant::now());
    }
}

impl Tunnel {
    /// Speaks HTTP/2 on a transport that is already authenticated, and spawns the tasks that drive it.
    ///
    /// `closed` runs once when the tunnel no longer takes streams or has broken.
    ///
    /// # Errors
    /// [`DialFailure::Http2`] if the preface can't be written.
    pub async fn start<IO>(io: IO, limits: TunnelLimits, closed: impl FnOnce() + 'static) -> Result<Rc<Self>, DialError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = SharedIo::new(io);
        let mut handshake = Box::pin(builder(&limits).handshake::<_, Bytes>(io.clone()));
        let (send, mut connection) = poll_fn(|cx| match turn(&io, cx, |cx| handshake.as_mut().poll(cx)) {
            (_, Err(error)) => Poll::Ready(Err(h2_failed(error))),
            (polled, Ok(())) => polled.map_err(h2_failed),
        })
        .await?;
        connection.set_target_window_size(limits.connection_window);
        let pings = connection.ping_pong();
        let tunnel = Rc::new(Self {
            send: RefCell::new(Some(send)),
            state: Cell::new(TunnelState::Open),
            active: Cell::new(0),
            last_used: Cell::new(Instant::now()),
            control: Control::new(),
            doubt: Notify::new(),
            limits,
        });
        let clock = tokio::task::spawn_local(keep_clock(Rc::clone(&tunnel), pings));
        let driven = Rc::clone(&tunnel);
        tokio::task::spawn_local(async move {
            drive(&mut connection, &io, &driven).await;
            clock.abort();
            driven.state.set(TunnelState::Closed);
            driven.send.take();
            // Streams learn of the end as the connection is dropped; the pool must not offer the tunnel by then.
            closed();
            drop(connection);
        });
        Ok(tunnel)
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self: &Rc<Self>, request: &OpenRequest) -> Result<TunnelStream, OpenError> {
        let guard = StreamGuard::new(self);
        let request = request.to_http().ok_or(OpenError::Refused { status: StatusCode::BAD_REQUEST, reason: None })?;
        let (response, send) = {
            let mut slot = self.send.borrow_mut();
            let sender = slot.as_mut().ok_or(OpenError::GoAway)?;
            sender.send_request(request, false).map_err(|_| OpenError::GoAway)?
        };
        let response = match timeout(self.limits.open_timeout, response).await {
            Ok(response) => response?,
            Err(_) => return Err(OpenError::TimedOut),
        };
        if response.status() != StatusCode::OK {
            let said = response.headers().get(crate::REASON).and_then(|reason| reason.to_str().ok());
            let reason = said.filter(|said| said.len() <= LONGEST_REASON).map(ToOwned::to_owned);
            return Err(OpenError::Refused { status: response.status(), reason });
        }
        Ok(TunnelStream::new(send, response.into_body(), Some(guard)))
    }

    /// True if another stream may be put on this tunnel: it takes streams, and neither our limit nor the peer's is reached.
    pub fn has_room(&self) -> bool {
        if self.state.get() != TunnelState::Open {
            return false;
        }
        let mut slot = self.send.borrow_mut();
        let Some(sender) = slot.as_mut() else { return false };
        // Knows of a GOAWAY and of exhausted stream ids. Never waits, because the count below is kept.
        let mut cx = Context::from_waker(Waker::noop());
        if matches!(sender.poll_ready(&mut cx), Poll::Ready(Err(_))) {
            self.state.set(TunnelState::Retiring);
            *slot = None;
            return false;
        }
        self.active.get() < self.limits.streams_per_tunnel.min(sender.current_max_send_streams())
    }

    /// Takes no more streams; closes when the last one has ended.
    pub fn retire(&self) {
        if self.state.get() == TunnelState::Open {
            self.state.set(TunnelState::Retiring);
        }
        // The connection ends by itself when nobody can open streams on it and none is left.
        self.send.take();
    }

    /// Closes at once; open streams fail.
    pub fn stop(&self) {
        self.retire();
        self.control.send(Command::Stop);
    }

    /// There is reason to believe that the peer is gone: asks it at once, and closes as [`Self::stop`] does when no answer comes
    /// within two seconds.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// How far it is.
    pub fn state(&self) -> TunnelState {
        self.state.get()
    }

    /// Streams on it, those being opened included.
    pub fn active_streams(&self) -> usize {
        self.active.get()
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("state", &self.state.get()).field("active", &self.active.get()).finish()
    }
}

fn builder(limits: &TunnelLimits) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(BULK_FRAME as u32)
        .max_header_list_size(limits.max_header_list_bytes)
        .max_send_buffer_size(limits.send_buffer)
        .enable_push(false);
    builder
}

fn h2_failed(error: impl std::fmt::Display) -> DialError {
    DialError::new(DialFailure::Http2, error)
}

async fn drive<IO>(connection: &mut Connection<SharedIo<IO>, Bytes>, io: &SharedIo<IO>, tunnel: &Tunnel)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let ended: Result<(), String> = poll_fn(|cx| {
        if tunnel.control.poll(cx) >= Some(Command::Stop) {
            return Poll::Ready(Ok(()));
        }
        match turn(io, cx, |cx| Pin::new(&mut *connection).poll(cx)) {
            (Poll::Ready(ended), _) => Poll::Ready(ended.map_err(|error| error.to_string())),
            (Poll::Pending, Err(error)) => Poll::Ready(Err(error.to_string())),
            (Poll::Pending, Ok(())) => Poll::Pending,
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(streams = tunnel.active.get(), error, "tunnel ended");
    }
}

/// Retires the tunnel when it has been idle for long enough, and stops it when the peer answers no PING.
async fn keep_clock(tunnel: Rc<Tunnel>, pings: Option<h2::PingPong>) {
    let limits = tunnel.limits;
    let alive = async {
        match pings {
            Some(pings) => keep_alive(pings, limits.ping_interval, limits.ping_timeout, &tunnel.doubt).await,
            None => std::future::pending().await,
        }
    };
    let idle = async {
        loop {
            let deadline = tunnel.last_used.get() + limits.idle;
            if tunnel.active.get() == 0 && Instant::now() >= deadline {
                return;
            }
            // With streams on it the tunnel can't become idle sooner than this.
            let next = if tunnel.active.get() == 0 { deadline } else { Instant::now() + limits.idle };
            tokio::time::sleep_until(next).await;
        }
    };
    tokio::select! {
        () = alive => tunnel.stop(),
        () = idle => tunnel.retire(),
    }
}
