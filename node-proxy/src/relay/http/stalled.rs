//! Bodies of which nothing is taken: what their senders go on to send fills windows and buffers of this process until these are full.
//! It counts against the buffers of the pod that is served, and a connection with more of it than fits is ended.
//!
//! A timer for each body would cost more than carrying most of them: each notes when it gave its last piece, and the worker looks at
//! all of them once a second.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::SizeHint;
use slab::Slab;
use tokio::time::Instant;
use weft_hbone::relay::Account as _;

use super::wire::Watched;
use crate::budget::{Budget, Buffers};

/// What one of them holds at most, in bytes: a stream's window on one side and the codecs' buffers; up to 0.7 MiB were measured.
pub(super) const MOST: usize = 768 << 10;

/// From when on a body counts. The worker's clock is a second coarse, and who takes a piece now and then leaves little lying.
const AFTER: Duration = Duration::from_millis(1500);

/// The bodies of one connection.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// Of each when its last piece was given and the bytes that may be held since; `None`: the next piece is waited for.
    gave: RefCell<Slab<Option<(Instant, usize)>>>,
    /// Whom they count for.
    account: RefCell<Option<Buffers>>,
}

impl Bodies {
    /// From now on they count for a pod.
    pub(super) fn count_for(&self, budget: &Arc<Budget>) {
        *self.account.borrow_mut() = Some(budget.buffers());
    }

    /// Counts those of which nothing is taken; `false`: that is more than there is.
    pub(super) fn fit(&self, now: Instant) -> bool {
        let held = |(since, bytes): (Instant, usize)| {
            if now.saturating_duration_since(since) > AFTER { bytes } else { 0 }
        };
        let held = self.gave.borrow().iter().filter_map(|(_, gave)| gave.map(held)).sum();
        self.account.borrow_mut().as_mut().is_none_or(|account| account.hold(held))
    }
}

/// One body on its way.
pub(super) struct Taken {
    watched: Rc<Watched>,
    key: usize,
}

impl Taken {
    /// A body that passes on this connection.
    pub(super) fn of(watched: &Rc<Watched>) -> Self {
        let key = watched.bodies().gave.borrow_mut().insert(None);
        Self { watched: Rc::clone(watched), key }
    }

    /// The next piece is asked for.
    pub(super) fn asked(&self) {
        self.set(None);
    }

    /// A piece was given, or is there, and there may be more: as much as is left of its length.
    pub(super) fn gave(&self, left: &SizeHint) {
        let left = left.upper().and_then(|left| usize::try_from(left).ok());
        self.set(Some((self.watched.clock(), left.map_or(MOST, |left| left.min(MOST)))));
    }

    fn set(&self, gave: Option<(Instant, usize)>) {
        if let Some(body) = self.watched.bodies().gave.borrow_mut().get_mut(self.key) {
            *body = gave;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // There is nothing else that could have removed it.
        self.watched.bodies().gave.borrow_mut().try_remove(self.key);
    }
}
