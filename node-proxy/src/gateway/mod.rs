//! The gateway front: what Gateways listen on, on this machine.
//!
//! ```text
//!  snapshot --places--> listening (a socket each, on every worker) --> accept --(TLS: hello, listener)--> relay::http
//! ```
//!
//! The same pipeline as outbound, with a client from outside: the Gateway is the source, and each request is routed by the
//! listener that has its host. Every worker listens with sockets of its own, which share their port (`SO_REUSEPORT`), so
//! that no connection changes workers, and a proxy that takes over listens before the one that runs stops. What each
//! worker has bound is its word to whoever acknowledges listeners ([`Progress`]), and to the take-over.
//!
//! Invariants: a place that stays in the configuration keeps its sockets, whatever happens to others; an edit never
//! touches a connection that is open.

mod handshakes;
mod listening;
mod opening;
mod progress;
mod quic;
mod serve;
mod source;
mod terminate;
#[cfg(test)]
mod tests;
mod udp;

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use weft_sys::sock::Keepalive;

pub use self::progress::{Failing, Progress, Watch};
pub use self::quic::QuicPlaces;
pub use self::source::{Gateways, identity_of};
use crate::worker::Worker;
use listening::Listening;

/// When a place that could not be listened on is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Of connections to clients and endpoints: one whose other end is gone without a word is noticed after two minutes.
const KEEPALIVE: Keepalive = Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(15), retries: 4 };

/// Listens for Gateways, as the configuration says, until the worker drains.
pub(crate) async fn follow(worker: Rc<Worker>) {
    let mut versions = worker.node.store.subscribe();
    let mut listening = Listening::new(Rc::clone(&worker));
    let progress = worker.node.gateways.progress();
    loop {
        // The snapshot is never older than the number.
        let version = *versions.borrow_and_update();
        listening.bring_up_to_date(&worker.node.store.load_full());
        let failed = listening.has_failed();
        progress.report(worker.index, version, listening.failing());
        tokio::select! {
            () = worker.drain.cancelled() => break,
            changed = versions.changed() => if changed.is_err() { break },
            () = sleep(AGAIN), if failed => {}
        }
    }
    // Nobody needs to wait for it any more; what it couldn't listen at, it hasn't bound by ending.
    progress.report(worker.index, u64::MAX, listening.failing());
}
