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
use tokio::time::timeout;

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

/// Pings in a fixed rhythm. Returns when the peer stopped answering or the connection is gone.
pub(crate) async fn keep_alive(mut pings: PingPong, interval: Duration, limit: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match timeout(limit, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
