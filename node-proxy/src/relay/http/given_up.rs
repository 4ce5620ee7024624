//! Clients of HTTP/2 from outside that begin requests and give them up ("rapid reset", CVE-2023-44487), or have us reset them for
//! what they send behind the head ("MadeYouReset", CVE-2025-8671). The codec counts those that come before it could hand them
//! out, and its own resets; here are those that were handed out, each of which may have cost an endpoint its work.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;
use weft_core::reason::Reason;

use super::downstream::Downstream;
use super::wire::End;

/// Requests of a connection that may be given up before they are answered.
const BURST: f64 = 200.0;
/// How many of them come back in a second: there are clients with time limits, and endpoints that are slow.
const PER_SECOND: f64 = 50.0;

/// What a connection may give up yet.
pub(super) struct GivenUp {
    conn: Rc<Downstream>,
    /// As of when.
    left: Cell<(f64, Instant)>,
}

impl GivenUp {
    /// Of a connection, where it matters: to clients of the mesh it is known who they are.
    pub(super) fn of(conn: &Rc<Downstream>) -> Option<Rc<Self>> {
        let left = Cell::new((BURST, Instant::now()));
        conn.side.is_outside().then(|| Rc::new(Self { conn: Rc::clone(conn), left }))
    }

    /// A request was given up: beyond what may be, the connection ends.
    fn count(&self) {
        let (left, since) = self.left.get();
        let now = Instant::now();
        let refilled = now.saturating_duration_since(since).as_secs_f64() * PER_SECOND;
        let left = (left + refilled).min(BURST) - 1.0;
        self.left.set((left, now));
        if left < 0.0 {
            self.conn.watched.end(End::Now(Reason::BadRequest));
        }
    }
}

/// On an answer that nobody will read: its client broke off the request, and we noticed by the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForNobody;

/// A request that isn't answered yet. Dropped, it was given up.
pub(super) struct Unanswered(Option<Rc<GivenUp>>);

impl Unanswered {
    /// One of a connection.
    pub(super) fn new(of: Option<&Rc<GivenUp>>) -> Self {
        Self(of.cloned())
    }

    /// Its answer is there. From here on the client may do without the rest.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(of) = self.0.take() {
            of.count();
        }
    }
}
