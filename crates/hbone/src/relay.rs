//! Moves bytes between two connections, both ways, until both directions have ended.
//!
//! ```text
//!   Socket --poll_take--> queue (at most GATHER chunks) --poll_put--> TunnelStream      and the same the other way
//! ```
//!
//! - A chunk is `Bytes` from the read to the write: it is never copied between a socket's read buffer and a tunnel's frame, nor
//!   between a received frame and the socket. Only small reads are copied once, so that they don't pin a big buffer.
//! - Reads go into one buffer per thread ([`buffer`]), so an idle connection holds no buffer at all, and every read may take as
//!   much as a bulk frame.
//! - Half-close is passed on in its own direction; a reset or an error of one side resets the other.
//! - Nothing is read while something is still to be written: back-pressure reaches the sender.
//! - splice(2) was considered for socket to socket: it needs two pipes (4 descriptors, 128 KiB of kernel memory) per connection
//!   and two system calls per piece, and wins only for bulk; plain connections are few in a mesh.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

mod buffer;
mod side;
#[cfg(test)]
mod tests;

pub use side::{Side, Socket, Transport};

/// How many bytes one direction moves before the task lets others run: about 0.2 ms of a core.
const BYTES_PER_TURN: usize = 1 << 20;

/// How soon an account hears of what came after a relay has stalled: a stream's window is filled without waking who doesn't read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Counts what a relay holds because one side is slower than the other.
pub trait Account {
    /// The bytes held now, in all; `false` if that is too much. Called only when it changes.
    fn hold(&mut self, bytes: usize) -> bool;
}

/// Settings of one relay.
#[derive(Default)]
pub struct Options<'a> {
    /// Told what is held; over budget the relay ends. `None`: nobody counts.
    pub account: Option<&'a mut dyn Account>,
    /// Ends the relay after this long without a byte either way, unless bytes wait to be written. `None`: never.
    pub idle: Option<Duration>,
    /// Ends the relay from elsewhere on the same thread. `None`: it ends by itself only.
    pub stop: Option<StopSignal>,
}

/// Which side of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first argument of [`between`].
    First,
    /// The second argument of [`between`].
    Second,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions ended; this side closed first.
    Closed(Which),
    /// This side was reset or failed; the other was reset.
    Failed(Which, io::ErrorKind),
    /// Nothing was moved for the idle time; both were reset.
    Idle,
    /// [`Stop::stop`] was called with this reason; both were reset.
    Stopped(&'static str),
    /// More was held than the [`Account`] allows; both were reset.
    OverBudget,
}

impl End {
    /// The label value.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Failed(_, io::ErrorKind::ConnectionReset) => "reset",
            Self::Failed(..) => "io_error",
            Self::Idle => "idle",
            Self::Stopped(reason) => reason,
            Self::OverBudget => "over_budget",
        }
    }
}

/// What a relay moved and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes written to the second side.
    pub to_second: u64,
    /// Bytes written to the first side.
    pub to_first: u64,
    /// How it ended.
    pub end: End,
}

#[derive(Default)]
struct StopState {
    reason: Cell<Option<&'static str>>,
    waker: RefCell<Option<Waker>>,
}

/// Ends a relay, for a revoked identity or a policy that changed.
#[derive(Clone, Default)]
pub struct Stop(Rc<StopState>);

/// The relay's end of a [`Stop`]. One relay per signal.
#[derive(Clone)]
pub struct StopSignal(Rc<StopState>);

impl Stop {
    /// A stop that nobody has pulled.
    pub fn new() -> Self {
        Self::default()
    }

    /// The relay's end.
    pub fn signal(&self) -> StopSignal {
        StopSignal(Rc::clone(&self.0))
    }

    /// Ends the relay with a reason for logs and metrics. The first reason counts.
    pub fn stop(&self, reason: &'static str) {
        if self.0.reason.get().is_none() {
            self.0.reason.set(Some(reason));
        }
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl StopSignal {
    fn poll(&self, cx: &mut Context<'_>) -> Option<&'static str> {
        let reason = self.0.reason.get();
        let mut waker = self.0.waker.borrow_mut();
        if reason.is_none() && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        reason
    }
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stop").field(&self.0.reason.get()).finish()
    }
}

impl std::fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StopSignal").field(&self.0.reason.get()).finish()
    }
}

/// One direction.
#[derive(Default)]
struct Direction {
    queue: VecDeque<Bytes>,
    moved: u64,
    ended: bool,
    finished: bool,
}

/// A failure of one side while moving: of the one read from, or of the one written to.
enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

impl Direction {
    /// Moves until one side would block, the turn is over, or the direction has ended and the end was passed on.
    fn poll<S: Side, D: Side>(&mut self, cx: &mut Context<'_>, from: &mut S, to: &mut D) -> Poll<Result<(), Failed>> {
        let mut left = BYTES_PER_TURN;
        loop {
            while !self.ended && self.queue.len() < S::GATHER {
                match from.poll_take(cx) {
                    Poll::Ready(Ok(Some(chunk))) => self.queue.push_back(chunk),
                    Poll::Ready(Ok(None)) => self.ended = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Reading(error))),
                    Poll::Pending => break,
                }
            }
            if self.queue.is_empty() {
                if self.finished {
                    return Poll::Ready(Ok(()));
                }
                if !self.ended {
                    return Poll::Pending;
                }
                ready!(to.poll_finish(cx)).map_err(Failed::Writing)?;
                self.finished = true;
                return Poll::Ready(Ok(()));
            }
            let n = ready!(to.poll_put(cx, &mut self.queue)).map_err(Failed::Writing)?;
            from.release(n);
            self.moved += n as u64;
            left = left.saturating_sub(n);
            if left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// The idle timer looks at a count of bytes when it fires instead of at a clock whenever bytes move.
struct Idle {
    timer: Pin<Box<Sleep>>,
    limit: Duration,
    seen: u64,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { timer: Box::pin(sleep(limit)), limit, seen: 0 }
    }

    /// True if nothing has moved between two firings of the timer and nothing waits. So an idle relay lives between one and two
    /// limits.
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64, waiting: bool) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            if moved == self.seen && !waiting {
                return true;
            }
            self.seen = moved;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        false
    }
}

struct Relay<'a, 'o, A, B> {
    first: &'a mut A,
    second: &'a mut B,
    to_second: Direction,
    to_first: Direction,
    closed_first: Option<Which>,
    idle: Option<Idle>,
    stop: Option<StopSignal>,
    account: Option<&'o mut dyn Account>,
    held: usize,
    look: Option<Pin<Box<Sleep>>>,
}

crate::assert_size!(Relay<'static, 'static, Socket<tokio::net::TcpStream>, crate::TunnelStream>, 256);

/// Relays between two connections until both directions have ended, one side fails, or it is stopped.
///
/// Both sides are finished or reset when it returns. Dropping it early leaves both as they are, with what was read and not yet
/// written lost: drop them too.
pub async fn between<A: Side, B: Side>(first: &mut A, second: &mut B, options: Options<'_>) -> Report {
    let mut relay = Relay {
        first,
        second,
        to_second: Direction::default(),
        to_first: Direction::default(),
        closed_first: None,
        idle: options.idle.map(Idle::new),
        stop: options.stop,
        account: options.account,
        held: 0,
        look: None,
    };
    let end = poll_fn(|cx| relay.poll(cx)).await;
    Report { to_second: relay.to_second.moved, to_first: relay.to_first.moved, end }
}

fn held(queue: &VecDeque<Bytes>, from: &mut impl Side) -> usize {
    if queue.is_empty() {
        return 0;
    }
    // What was taken and not released is part of what the side holds.
    queue.iter().map(Bytes::len).sum::<usize>().max(from.unreleased())
}

/// Wakes the task in a while. A timer that runs is left alone, so that a busy relay sets one once a second.
fn look_again(timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(LOOK_AGAIN)));
    while timer.as_mut().poll(cx).is_ready() {
        timer.as_mut().reset(Instant::now() + LOOK_AGAIN);
    }
}

impl<A: Side, B: Side> Relay<'_, '_, A, B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(reason) = self.stop.as_ref().and_then(|stop| stop.poll(cx)) {
            return self.abort(End::Stopped(reason));
        }
        let forth = self.to_second.poll(cx, self.first, self.second);
        if let Poll::Ready(Err(failed)) = forth {
            return self.fail(failed, Which::First, Which::Second);
        }
        if self.to_second.finished && self.closed_first.is_none() {
            self.closed_first = Some(Which::First);
        }
        let back = self.to_first.poll(cx, self.second, self.first);
        if let Poll::Ready(Err(failed)) = back {
            return self.fail(failed, Which::Second, Which::First);
        }
        if self.to_first.finished && self.closed_first.is_none() {
            self.closed_first = Some(Which::Second);
        }
        if let (true, true, Some(which)) = (self.to_second.finished, self.to_first.finished, self.closed_first) {
            return Poll::Ready(End::Closed(which));
        }
        self.poll_waiting(cx)
    }

    /// What else can end a relay of which one direction has ended or both wait.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // A side whose receiving half has ended is not read any more; only this tells of a reset.
        if self.to_second.ended
            && let Poll::Ready(error) = self.first.poll_aborted(cx)
        {
            return self.abort(End::Failed(Which::First, error.kind()));
        }
        if self.to_first.ended
            && let Poll::Ready(error) = self.second.poll_aborted(cx)
        {
            return self.abort(End::Failed(Which::Second, error.kind()));
        }
        if !self.is_within_budget(cx) {
            return self.abort(End::OverBudget);
        }
        let moved = self.to_second.moved + self.to_first.moved;
        let waiting = !self.to_second.queue.is_empty() || !self.to_first.queue.is_empty();
        if self.idle.as_mut().is_some_and(|idle| idle.poll(cx, moved, waiting)) {
            return self.abort(End::Idle);
        }
        Poll::Pending
    }

    /// Tells the account when what is held has changed. What a side holds itself counts while the other is slower: a
    /// stream whose other end takes nothing may be filled up to its window after this look, which the next one sees.
    fn is_within_budget(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(account) = &mut self.account else { return true };
        let held = held(&self.to_second.queue, self.first) + held(&self.to_first.queue, self.second);
        if std::mem::replace(&mut self.held, held) != held && !account.hold(held) {
            return false;
        }
        if held > 0 {
            look_again(&mut self.look, cx);
        }
        true
    }

    fn fail(&mut self, failed: Failed, from: Which, to: Which) -> Poll<End> {
        match failed {
            Failed::Reading(error) => self.abort(End::Failed(from, error.kind())),
            Failed::Writing(error) => self.abort(End::Failed(to, error.kind())),
        }
    }

    fn abort(&mut self, end: End) -> Poll<End> {
        self.first.reset();
        self.second.reset();
        Poll::Ready(end)
    }
}
