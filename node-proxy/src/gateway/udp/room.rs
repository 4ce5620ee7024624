//! How many sessions there may be. They are connections of their Gateway; but addresses of clients are easily forged, and
//! what listens for connections must go on whatever datagrams come.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

use crate::budget::ConnectionSlot;

/// The part of a proxy's connections that sessions may be.
const SHARE: u32 = 4;
/// The part of a place's sessions that end at once when there is no room, so that looking for them is worth its while.
const AT_ONCE: usize = 16;

/// The sessions of a proxy. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct Room(Arc<AtomicU32>);

/// A session, counted until dropped.
pub(super) struct Slot {
    pub(super) _connection: ConnectionSlot,
    pub(super) _of_proxy: Counted,
    /// Shared by all sessions of a place.
    pub(super) _of_place: Rc<()>,
}

/// One of the sessions of a proxy.
#[derive(Debug)]
pub(super) struct Counted(Room);

impl Room {
    /// Counts one more, of a proxy with so many connections; `None`: there is no room.
    pub(super) fn take(&self, connections: u32) -> Option<Counted> {
        let most = (connections / SHARE).max(1);
        let held = self.0.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(self.clone());
        (held < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which sessions make room: those without an answer first, then those that have been quiet longest. Each comes with whether
/// it was answered, and when something last passed.
pub(super) fn quietest<T>(mut sessions: Vec<(bool, Instant, T)>) -> Vec<T> {
    let Some(last) = sessions.len().checked_sub(1) else { return Vec::new() };
    let count = (sessions.len() / AT_ONCE).max(1);
    sessions.select_nth_unstable_by_key((count - 1).min(last), |(answered, since, _)| (*answered, *since));
    sessions.truncate(count);
    sessions.into_iter().map(|(_, _, session)| session).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sessions_are_a_quarter_of_connections_at_most() {
        let room = Room::default();
        let mut held: Vec<_> = (0..2).map(|_| room.take(8).unwrap()).collect();
        assert!(room.take(8).is_none() && room.take(8).is_none());
        held.pop();
        assert!(room.take(8).is_some());
        assert!(Room::default().take(1).is_some(), "never none at all");
    }

    #[test]
    fn who_was_never_answered_goes_first_and_then_who_was_quiet_longest() {
        let start = Instant::now();
        let at = |answered, seconds, name| (answered, start + Duration::from_secs(seconds), name);
        assert_eq!(quietest(vec![at(true, 1, "a"), at(false, 9, "b"), at(true, 2, "c")]), ["b"]);
        assert_eq!(quietest(vec![at(true, 3, "a"), at(true, 1, "b"), at(true, 2, "c")]), ["b"]);
        assert!(quietest::<()>(vec![]).is_empty());
        let many = (0..32_u64).rev().map(|age| (true, start + Duration::from_secs(age), age)).collect();
        let mut gone = quietest(many);
        gone.sort_unstable();
        assert_eq!(gone, [0, 1]);
    }
}
