//! One QUIC connection of a client from its first stream to its last.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quinn::{ConnectionError, SendStream, VarInt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_core::reason::Reason;

use super::super::downstream::Downstream;
use super::super::serve::CountPanic;
use super::super::wire::End;
use super::code::Code;
use super::control::{self, Seen};
use super::exchange;
use super::varint;
use crate::observe::Ended;

/// How long a client may let us wait until we may open a stream.
const OPENING: Duration = Duration::from_secs(10);
/// Between saying that the connection ends and saying which requests are served to the end: what is under way to us when it
/// hears the first is served, too (RFC 9114, section 5.2).
const GOING: Duration = Duration::from_secs(1);
/// Requests that a client may give up before their answers begin, beyond as many as it has taken answers of: each may have cost
/// an endpoint its work (what is known of HTTP/2 as "rapid reset", CVE-2023-44487). So may one that is reset by us for what the
/// client sent behind its head ("MadeYouReset", CVE-2025-8671).
const MOST_GIVEN_UP: u32 = 100;
/// Heads of requests that are gathered at once. Others wait in the connection's window, which is what a client may fill.
const HEADS: usize = 16;
/// Ids of streams of one kind are four apart (RFC 9000, section 2.1).
const NEXT_STREAM: u64 = 4;
/// No request has this id or a greater one: the greatest that one can have, and more.
const NO_STREAM: u64 = varint::MAX - 3;

/// What the streams of a connection share.
pub(super) struct Shared {
    pub(super) conn: Rc<Downstream>,
    pub(super) seen: Seen,
    pub(super) heads: Semaphore,
    quic: quinn::Connection,
    /// Requests under way.
    open: Cell<u32>,
    given_up: Cell<u32>,
    /// Why we ended it.
    reason: Cell<Option<Reason>>,
    changed: Notify,
}

impl Shared {
    /// Ends the connection, because the client is wrong. Nothing for one that is over: its streams ended with it, and not by
    /// an error of the client's.
    pub(super) fn close(&self, code: Code) {
        if self.quic.close_reason().is_some() {
            return;
        }
        let client = self.quic.remote_address();
        tracing::debug!(%client, ?code, "an HTTP/3 connection ends by the client's error");
        self.reason.set(self.reason.get().or(Some(Reason::BadRequest)));
        self.quic.close(code.into(), b"");
    }

    /// A request was given up by its client before its answer began, or had to be for what the client sent.
    pub(super) fn given_up(&self) {
        let count = self.given_up.get() + 1;
        self.given_up.set(count);
        if count > MOST_GIVEN_UP {
            self.close(Code::ExcessiveLoad);
        }
    }

    /// An answer was taken whole.
    pub(super) fn taken(&self) {
        self.given_up.set(self.given_up.get().saturating_sub(1));
    }
}

/// A request under way, until dropped.
struct Open(Rc<Shared>);

impl Open {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.open.set(shared.open.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.changed.notify_one();
    }
}

/// Serves a connection. It ends after what is under way when `leaving` is cancelled, too.
pub(in crate::relay::http) async fn serve(
    quic: quinn::Connection,
    conn: Rc<Downstream>,
    leaving: CancellationToken,
) -> Ended {
    let shared = Rc::new(Shared {
        conn,
        seen: Seen::default(),
        heads: Semaphore::new(HEADS),
        quic: quic.clone(),
        open: Cell::default(),
        given_up: Cell::default(),
        reason: Cell::default(),
        changed: Notify::new(),
    });
    let reason = match Serving::begin(Rc::clone(&shared)).await {
        Ok(mut serving) => serving.run(&leaving).await,
        Err(reason) => reason,
    };
    quic.close(Code::NoError.into(), b"");
    let stats = quic.stats();
    Ended { received: stats.udp_rx.bytes, sent: stats.udp_tx.bytes, reason: shared.reason.get().unwrap_or(reason) }
}

/// A connection that is served.
struct Serving {
    shared: Rc<Shared>,
    /// Our control stream: it must not end before the connection (RFC 9114, section 6.2.1).
    control: SendStream,
    /// The id that the client's next request would have.
    next: u64,
    going: Going,
}

/// How far the end has come.
enum Going {
    No,
    /// It was said.
    Said(Pin<Box<Sleep>>),
    /// It was said from which request on none is served.
    From(u64),
}

/// What happens next.
enum Event {
    End(Reason),
    Leave,
    /// The client has had its time to hear that the connection ends.
    Heard,
    Request(SendStream, quinn::RecvStream),
    Stream(quinn::RecvStream),
    /// Requests have ended.
    Changed,
}

impl Serving {
    async fn begin(shared: Rc<Shared>) -> Result<Self, Reason> {
        let hello = control::hello(shared.conn.engine.settings.max_header_bytes);
        let opened = timeout(OPENING, async {
            let mut control = shared.quic.open_uni().await.map_err(|error| ended_by(&error))?;
            control.write_all(&hello).await.map_err(|_| Reason::DownstreamReset)?;
            Ok(control)
        });
        let control = opened.await.unwrap_or_else(|_| {
            shared.close(Code::GeneralProtocolError);
            Err(Reason::BadRequest)
        })?;
        Ok(Self { shared, control, next: 0, going: Going::No })
    }

    async fn run(&mut self, leaving: &CancellationToken) -> Reason {
        loop {
            match self.event(leaving).await {
                Event::End(reason) => return reason,
                Event::Leave => {
                    control::go_away(&mut self.control, NO_STREAM).await;
                    self.going = Going::Said(Box::pin(sleep(GOING)));
                }
                Event::Heard => {
                    control::go_away(&mut self.control, self.next).await;
                    self.going = Going::From(self.next);
                }
                Event::Request(send, receive) => self.request(send, receive),
                Event::Stream(stream) => drop(spawn_local(control::read(Rc::clone(&self.shared), stream))),
                Event::Changed => {}
            }
            if matches!(self.going, Going::From(_)) && self.shared.open.get() == 0 {
                return self.shared.conn.last.get();
            }
        }
    }

    async fn event(&mut self, leaving: &CancellationToken) -> Event {
        let Shared { quic, conn, changed, open, .. } = &*self.shared;
        let stays = matches!(self.going, Going::No);
        let end = poll_fn(|cx| match conn.poll_end(cx) {
            // Requests are over for the worker's watch when their answers are read, but clients may not have them yet.
            Some(End::Now(Reason::Draining | Reason::IdleTimeout)) if open.get() > 0 => {
                if stays {
                    Poll::Ready(Event::Leave)
                } else {
                    Poll::Pending
                }
            }
            Some(End::Now(reason)) => Poll::Ready(Event::End(reason)),
            Some(End::Gracefully) if stays => Poll::Ready(Event::Leave),
            _ => Poll::Pending,
        });
        let heard = poll_fn(|cx| match &mut self.going {
            Going::Said(pause) => pause.as_mut().poll(cx),
            Going::No | Going::From(_) => Poll::Pending,
        });
        let end = pin!(end);
        tokio::select! {
            biased;
            event = end => event,
            () = leaving.cancelled(), if stays => Event::Leave,
            () = heard => Event::Heard,
            stream = quic.accept_uni() => stream.map_or_else(|error| self.over(&error), Event::Stream),
            stream = quic.accept_bi() => match stream {
                Ok((send, receive)) => Event::Request(send, receive),
                Err(error) => self.over(&error),
            },
            () = changed.notified() => Event::Changed,
            () = sleep(conn.engine.settings.http3_idle_timeout), if stays && open.get() == 0 => Event::Leave,
        }
    }

    fn over(&self, error: &ConnectionError) -> Event {
        let client = self.shared.quic.remote_address();
        tracing::debug!(%client, "an HTTP/3 connection is over: {error}");
        Event::End(match ended_by(error) {
            Reason::Ok => self.shared.conn.last.get(),
            reason => reason,
        })
    }

    fn request(&mut self, mut send: SendStream, mut receive: quinn::RecvStream) {
        let id = u64::from(VarInt::from(send.id()));
        if let Going::From(none) = self.going
            && id >= none
        {
            // Both fail only for a stream that is over.
            let _ = send.reset(Code::RequestRejected.into());
            let _ = receive.stop(Code::RequestRejected.into());
            return;
        }
        self.next = self.next.max(id + NEXT_STREAM);
        let (shared, open) = (Rc::clone(&self.shared), Open::new(&self.shared));
        // Boxed here, because spawning moves a task several times.
        let task = Box::pin(exchange::serve(Rc::clone(&shared), send, receive));
        drop(spawn_local(async move {
            let _open = open;
            let _counted = CountPanic(&shared.conn);
            task.await;
        }));
    }
}

/// Why a connection is over, for telemetry.
fn ended_by(error: &ConnectionError) -> Reason {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from(Code::NoError) => Reason::Ok,
        ConnectionError::LocallyClosed => Reason::Ok,
        ConnectionError::TimedOut => Reason::IdleTimeout,
        _ => Reason::DownstreamReset,
    }
}
