//! Driving a connection: one task polls the codec and flushes once per turn, another keeps the clock.
//!
//! The driver runs for every frame, so it looks at no timer. The clock task sleeps, pings, and tells the driver through
//! [`Control`] when the connection has to end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::io::SharedIo;

/// What the driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Command {
    /// Announce the end (GOAWAY) and let streams finish.
    Drain,
    /// End now, with a word to the peer.
    Stop,
    /// End without waiting until the peer has taken that.
    Over,
}

/// A one-slot mailbox of a driver on the same thread. A later, stronger command replaces an earlier one.
#[derive(Default)]
pub(crate) struct Control {
    command: Cell<Option<Command>>,
    driver: RefCell<Option<Waker>>,
}

impl Control {
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    pub(crate) fn send(&self, command: Command) {
        self.command.set(self.command.get().max(Some(command)));
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The driver's side: takes a command, or arranges to be woken for one.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Option<Command> {
        let command = self.command.take();
        if command.is_none() {
            let mut driver = self.driver.borrow_mut();
            if !driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *driver = Some(cx.waker().clone());
            }
        }
        command
    }
}

/// One turn of a driver: polls the codec, then flushes what it gathered, whatever the codec said.
///
/// An error of the flush is left for the codec to find: the next write fails the same way.
pub(crate) fn turn<IO, T>(
    io: &SharedIo<IO>,
    cx: &mut Context<'_>,
    codec: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> (Poll<T>, std::io::Result<()>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    io.begin_turn();
    let polled = codec(cx);
    match io.poll_flush_gathered(cx) {
        Poll::Ready(flushed) => (polled, flushed),
        Poll::Pending => (polled, Ok(())),
    }
}

/// How long a peer may take to answer a PING when there is reason to believe that it is gone.
const IN_DOUBT: Duration = Duration::from_secs(2);
const PIECES: u32 = 4;

/// Pings in a fixed rhythm, and at once when there is a doubt, which also shortens what a PING under way is waited for. Returns when
/// the peer stopped answering or the connection is gone.
pub(crate) async fn keep_alive(mut pings: PingPong, interval: Duration, limit: Duration, doubt: &Notify) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            // It is for the wait below, too.
            () = doubt.notified() => doubt.notify_one(),
        }
        let late = async {
            tokio::select! {
                () = tokio::time::sleep(limit) => {}
                () = doubt.notified() => {
                    // Piece by piece: a thread that stood still for a while has had no time to hear the answer.
                    for _ in 0..PIECES {
                        tokio::time::sleep(IN_DOUBT.min(limit) / PIECES).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            answered = pings.ping(Ping::opaque()) => {
                if answered.is_err() {
                    return;
                }
            }
            () = late => return,
        }
    }
}
