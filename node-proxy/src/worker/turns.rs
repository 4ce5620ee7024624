//! Handshakes one step at a time, so that a flood of them holds nobody up for longer than one.
//!
//! A step of a TLS handshake computes for up to a millisecond without a pause. Many that are ready at once would be run
//! one after the other before the worker looks at its sockets again. So one step is done, then everything else that is
//! ready and the sockets have their turn, then the next step. Without a rush this costs one look at the sockets.
//!
//! Where the cores belong to others, too, the next step also waits until as much time has passed as the last one took: a
//! rush of handshakes gets half of the worker at most (less, because timers are coarser than a step), and leaves the
//! core to applications in between.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::{ArcWake, AtomicWaker, waker};
use tokio::sync::Mutex;

/// The turns of one worker.
#[derive(Debug)]
pub struct Turns {
    turn: Mutex<()>,
    /// Whether there is a rest after each step.
    rests: bool,
    /// No step before this.
    rest: Cell<Option<Instant>>,
}

/// A step that takes less is none to rest from: reading a few bytes.
const SHORT: Duration = Duration::from_micros(100);

impl Turns {
    /// Turns with a rest after each step, for applications on the same cores, or without.
    pub fn new(rests: bool) -> Self {
        Self { turn: Mutex::default(), rests, rest: Cell::default() }
    }

    /// Does some work, each of its steps in turn.
    pub async fn take<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let wanted = Arc::new(Wanted { now: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = waker(Arc::clone(&wanted));
        loop {
            poll_fn(|cx| wanted.poll(cx)).await;
            let turn = self.turn.lock().await;
            if let Some(rest) = self.rest.take() {
                tokio::time::sleep_until(rest.into()).await;
            }
            let began = Instant::now();
            let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
            let took = began.elapsed();
            self.rest.set((self.rests && took >= SHORT).then(|| Instant::now() + took));
            // Back when all the others and the sockets were looked at.
            tokio::task::yield_now().await;
            drop(turn);
            if let Poll::Ready(done) = polled {
                return done;
            }
        }
    }
}

/// Whether the work can go on. Its own, because waiting for a turn wakes the task too.
struct Wanted {
    now: AtomicBool,
    task: AtomicWaker,
}

impl Wanted {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if self.now.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl ArcWake for Wanted {
    fn wake_by_ref(wanted: &Arc<Self>) {
        wanted.now.store(true, Ordering::Release);
        wanted.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Work of several steps, that says when it does one.
    async fn steps(name: &'static str, count: u32, said: Rc<RefCell<Vec<&'static str>>>) {
        for step in 0..count {
            said.borrow_mut().push(name);
            match step % 2 {
                0 => tokio::task::yield_now().await,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn others_run_between_two_steps_of_whatever_work() {
        let said = Rc::<RefCell<Vec<_>>>::default();
        let turns = Turns::new(true);
        let flood = futures::future::join_all((0..20).map(|_| turns.take(steps("flood", 5, Rc::clone(&said)))));
        let neighbour = async {
            for _ in 0..20 {
                said.borrow_mut().push("neighbour");
                tokio::task::yield_now().await;
            }
        };
        let local = tokio::task::LocalSet::new();
        local.run_until(async { tokio::join!(flood, neighbour) }).await;
        let said = said.borrow();
        assert_eq!(said.iter().filter(|name| **name == "flood").count(), 100, "all of it was done");
        let last = said.iter().rposition(|name| *name == "neighbour").unwrap();
        let in_a_row = said[..last].split(|name| *name == "neighbour").map(<[_]>::len).max().unwrap();
        assert!(in_a_row <= 2, "{in_a_row} steps in a row: {said:?}");
    }

    /// Work whose only step takes so long.
    async fn computes(long: Duration) {
        let began = Instant::now();
        while began.elapsed() < long {
            std::hint::spin_loop();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_where_applications_run_is_there_a_rest_after_a_step() {
        for rests in [true, false] {
            let (turns, started) = (Turns::new(rests), tokio::time::Instant::now());
            futures::future::join_all((0..3).map(|_| turns.take(computes(SHORT * 2)))).await;
            // The clock of timers stands still as long as nobody waits for one.
            assert_eq!(started.elapsed() > Duration::ZERO, rests);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_waits_holds_no_turn() {
        let turns = Turns::new(true);
        let slow = turns.take(tokio::time::sleep(Duration::from_secs(10)));
        let quick = async {
            turns.take(tokio::time::sleep(Duration::from_secs(1))).await;
            tokio::time::Instant::now()
        };
        let started = tokio::time::Instant::now();
        let ((), at) = tokio::join!(slow, quick);
        assert!(at - started < Duration::from_secs(2));
    }
}
