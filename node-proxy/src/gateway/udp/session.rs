//! One client's datagrams, both ways.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use weft_core::ids::ServicePortKey;
use weft_core::reason::Reason;

use super::room::Slot;
use super::socket::{Ends, Listener};
use super::{MAX_DATAGRAM, TAKEN_PER_TURN};
use crate::balance::{InFlight, Outcome};
use crate::observe::{Connection, Ended};
use crate::worker::Worker;

/// A session in which nothing has passed for so long ends.
const IDLE: Duration = Duration::from_secs(60);
/// The same before its first answer: addresses of clients are easily forged, and nobody waits so long for a first one.
const UNANSWERED: Duration = Duration::from_secs(15);

/// Sessions by their clients.
pub(super) type Sessions = RefCell<HashMap<Ends, Weak<Session>>>;

/// What a session begins with.
pub(super) struct Begun {
    pub(super) ends: Ends,
    pub(super) service: ServicePortKey,
    pub(super) endpoint: SocketAddr,
    pub(super) upstream: UdpSocket,
    pub(super) record: Connection,
    pub(super) flight: InFlight,
    /// Counts it, until it is over.
    pub(super) slot: Cell<Option<Slot>>,
}

/// A session; it is reported when it is dropped.
pub(super) struct Session {
    begun: Begun,
    worker: Rc<Worker>,
    sessions: Weak<Sessions>,
    since: Instant,
    last: Cell<Instant>,
    ended: Cell<Ended>,
    over: Cell<bool>,
    wake: Notify,
}

impl Session {
    /// Starts the account of a session, which is going to be among `sessions`.
    pub(super) fn new(begun: Begun, worker: Rc<Worker>, sessions: Weak<Sessions>) -> Self {
        worker.observer.opened(&begun.record);
        let now = Instant::now();
        Self {
            begun,
            worker,
            sessions,
            since: now,
            last: Cell::new(now),
            ended: Cell::new(Ended::refused(Reason::Ok)),
            over: Cell::new(false),
            wake: Notify::new(),
        }
    }

    pub(super) fn ends(&self) -> Ends {
        self.begun.ends
    }

    /// Whether it takes no more datagrams.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether the endpoint ever said something.
    pub(super) fn is_answered(&self) -> bool {
        self.ended.get().sent > 0
    }

    /// When something last passed.
    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }

    /// What is said of its endpoint.
    pub(super) fn is_at(&self, is_there: impl Fn(&ServicePortKey, SocketAddr) -> bool) -> bool {
        is_there(&self.begun.service, self.begun.endpoint)
    }

    /// Sends a datagram to the endpoint; `false`: nobody listens there, and it was not sent.
    pub(super) fn send(&self, datagram: &[u8]) -> bool {
        // Not by way of the runtime, which would have to learn first that a new socket takes data.
        match SockRef::from(&self.begun.upstream).send(datagram) {
            Ok(sent) => self.passed(sent as u64, 0),
            Err(error) if is_refused(&error) => {
                self.failed();
                return false;
            }
            // Lost, as in the network.
            Err(error) => tracing::trace!(endpoint = %self.begun.endpoint, "datagram lost: {error}"),
        }
        true
    }

    /// Passes on what the endpoint sent, up to a turn's worth; `false`: nobody listens there.
    fn answers(&self, socket: &Listener, buffer: &mut [u8]) -> bool {
        for _ in 0..TAKEN_PER_TURN {
            match self.begun.upstream.try_recv(buffer) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    if self.ended.get().sent == 0 {
                        self.learn(Outcome::Answered);
                    }
                    socket.send(datagram, self.begun.ends);
                    self.passed(0, length as u64);
                }
                Err(error) if is_refused(&error) => {
                    self.failed();
                    return false;
                }
                Err(_) => return true,
            }
        }
        true
    }

    fn passed(&self, received: u64, sent: u64) {
        let before = self.ended.get();
        self.ended.set(Ended { received: before.received + received, sent: before.sent + sent, ..before });
        self.last.set(Instant::now());
    }

    fn failed(&self) {
        self.learn(Outcome::Failed);
        self.end(Reason::ConnectFailed);
    }

    fn learn(&self, outcome: Outcome) {
        if self.begun.flight.learn(outcome, Instant::now(), fastrand::u64(..)) {
            self.worker.observer.ejected(&self.begun.service);
        }
    }

    pub(super) fn end(&self, reason: Reason) {
        if !self.over.replace(true) {
            self.ended.set(Ended { reason, ..self.ended.get() });
            drop(self.begun.slot.take());
            self.wake.notify_one();
        }
    }

    /// When it ends if nothing passes.
    fn expires(&self) -> Instant {
        self.last.get() + if self.is_answered() { IDLE } else { UNANSWERED }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.observer.closed(&self.begun.record, &self.ended.get(), self.since.elapsed());
        let Some(sessions) = self.sessions.upgrade() else { return };
        let mut sessions = sessions.borrow_mut();
        // A newer session of the client may have its place.
        if sessions.get(&self.begun.ends).is_some_and(|of_client| of_client.strong_count() == 0) {
            sessions.remove(&self.begun.ends);
        }
    }
}

/// An ICMP "port unreachable" that an earlier datagram got.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

thread_local! {
    /// What an endpoint sent, on its way to the client: never held across an await, so that one is enough.
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_DATAGRAM]);
}

/// Passes on answers until the session is over.
pub(super) async fn answer(session: Rc<Session>, socket: Rc<Listener>) {
    let mut alarm = pin!(sleep_until(session.expires()));
    loop {
        tokio::select! {
            ready = session.begun.upstream.readable() => {
                let goes_on = ready.is_ok() && ANSWER.with_borrow_mut(|buffer| session.answers(&socket, buffer));
                if !goes_on {
                    return;
                }
                tokio::task::yield_now().await;
            }
            () = &mut alarm => {
                if session.expires() <= Instant::now() {
                    session.over.set(true);
                    return;
                }
                alarm.as_mut().reset(session.expires());
            }
            () = session.wake.notified() => return,
        }
    }
}
