//! Memory after configuration was taken in.
//!
//! Taking the whole configuration of a cluster in needs more memory than it has in the end: what came over the wire, and
//! what a snapshot shared with the one before it. The allocator keeps what became free for a while, which is right
//! where buffers come and go with traffic, and would keep it for good in a process that then rests.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weft_sys::memory::give_back;
use weft_xds::client::ClientStatus;

use crate::store::Store;

/// How soon after a change memory is given back while the whole configuration comes in: what is used at most counts too.
const COMING: Duration = Duration::from_millis(50);
/// How soon after a change otherwise, so that many changes need it once.
const LATER: Duration = Duration::from_secs(10);
/// The controller has sent everything; what comes in this time still belongs to it.
const SETTLING: Duration = Duration::from_secs(3);

/// Gives memory back after changes of the configuration, as long as the store is there.
pub(super) async fn keep_small(store: Arc<Store>, config: watch::Receiver<ClientStatus>) {
    let (mut changes, mut synced) = (store.subscribe(), None);
    while changes.changed().await.is_ok() {
        if synced.is_none() && config.borrow().synced {
            synced = Some(Instant::now());
        }
        let settled = synced.is_some_and(|at| at.elapsed() > SETTLING);
        sleep(if settled { LATER } else { COMING }).await;
        changes.borrow_and_update();
        give_back();
    }
}
