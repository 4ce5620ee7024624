//! Taking over from a process that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use weft_sys::{PreparedListener, SeqPacketListener};

use super::StartError;
use crate::gateway::Progress;
use crate::handover::{is_served, take_over};
use crate::inpod::Manager;
use crate::worker::Node;

/// How often a process that runs is asked for its pods, and the pause in between.
const TAKEOVERS: u32 = 3;
const TAKEOVER_PAUSE: Duration = Duration::from_millis(500);
/// How long it goes on alone at most until this one listens for Gateways, too, and how often it is looked at whether it does.
const LISTENING: Duration = Duration::from_secs(10);
const STILL: Duration = Duration::from_millis(500);
/// How often a full disk is tried again.
const ROOM: Duration = Duration::from_secs(1);

/// Takes over from a process that runs, if there is one. It may be busy with another successor that then gives up. What the
/// next successor will ask at is there before the predecessor is told: one that fails at it has taken nothing. With nobody to
/// take over from a full disk is no reason not to serve: `None`, and it is tried again.
pub(super) async fn inherit(
    socket: &Option<PathBuf>,
    node: &Node,
    manager: &Manager,
) -> Result<Option<SeqPacketListener>, StartError> {
    let Some(path) = socket else { return Ok(None) };
    let prepared = match SeqPacketListener::prepare(path, 0o600) {
        // Its clients shouldn't find this one beside it for longer than that takes.
        Err(error) if is_served(path) => return Err(error.into()),
        prepared => prepared,
    };
    listen_beside(path, node.gateways.progress()).await;
    let mut attempts = 1..=TAKEOVERS;
    let mut pending = loop {
        let attempt = attempts.next();
        match take_over(path, env!("CARGO_PKG_VERSION")).await {
            Ok(Some(pending)) => break pending,
            Ok(None) => return alone(prepared),
            Err(error) if attempt.is_none_or(|attempt| attempt == TAKEOVERS) => return Err(error.into()),
            Err(error) => tracing::warn!("nothing taken over yet from the process that runs: {error}"),
        }
        sleep(TAKEOVER_PAUSE).await;
    };
    let prepared = prepared?;
    let inheritance = std::mem::take(&mut pending.inheritance);
    for svid in inheritance.certificates {
        node.certificates.install(svid);
    }
    let pods = inheritance.pods.len();
    let domains = node.certificates.trust().domains();
    for (mut announced, listeners) in inheritance.pods {
        // It may have had the mesh's former trust domain.
        announced.workload = announced.workload.normal(&domains);
        let workload = announced.workload.uid.clone();
        if let Err(error) = manager.add_with(announced, listeners).await {
            tracing::error!(%workload, "inherited pod can't be served: {error}");
        }
    }
    let listener = prepared.publish()?;
    match pending.taken().await {
        Ok(()) => tracing::info!(pods, "taken over"),
        Err(error) => tracing::warn!("the predecessor is gone: {error}"),
    }
    Ok(Some(listener))
}

/// Listens for Gateways beside a process that runs. That one closes its sockets when it is replaced, and what nobody else listens
/// at by then is closed to clients. Where the configuration isn't saved, or was long ago on a disk that is full now, the control
/// plane has to say first where to listen. Meanwhile everything goes on; with nobody who runs there is nothing to wait for.
async fn listen_beside(path: &Path, progress: &Progress) {
    let runs = async {
        while is_served(path) {
            sleep(STILL).await;
        }
    };
    tokio::select! {
        biased;
        () = progress.listening() => {}
        () = runs => {}
        () = sleep(LISTENING) => {
            tracing::warn!("taking over without news from the controller: a Gateway that isn't saved here is closed until they come");
        }
    }
}

/// Nobody runs: what a successor will ask at, unless the disk is full.
fn alone(prepared: std::io::Result<PreparedListener>) -> Result<Option<SeqPacketListener>, StartError> {
    match prepared.and_then(PreparedListener::publish) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if weft_sys::is_disk_full(&error) => {
            tracing::error!("no successor can take over: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Listens for a successor as soon as it can.
pub(super) async fn listen_when_there_is_room(path: &Path) -> SeqPacketListener {
    loop {
        match SeqPacketListener::bind(path, 0o600) {
            Ok(listener) => return listener,
            Err(error) => tracing::debug!("still no successor can take over: {error}"),
        }
        sleep(ROOM).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::gateway::Failing;

    /// How long it takes to listen beside whoever is at `path`, with a worker that looks at once and listeners that are known
    /// after so many seconds.
    async fn beside(path: &Path, known: Option<u64>) -> Duration {
        let (progress, began) = (Progress::new(1), Instant::now());
        progress.await_listeners();
        progress.report(0, 1, &Failing::new());
        let telling = tokio::spawn({
            let progress = progress.clone();
            async move {
                if let Some(seconds) = known {
                    sleep(Duration::from_secs(seconds)).await;
                    progress.know();
                }
            }
        });
        listen_beside(path, &progress).await;
        telling.abort();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_runs_goes_on_until_this_one_listens_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover");
        assert_eq!(beside(&path, None).await, Duration::ZERO, "pods that nobody serves don't wait");
        let listener = SeqPacketListener::bind(&path, 0o600).unwrap();
        assert_eq!(beside(&path, Some(0)).await.as_secs(), 0);
        assert_eq!(beside(&path, Some(3)).await.as_secs(), 3);
        assert_eq!(beside(&path, None).await.as_secs(), LISTENING.as_secs());
        let ending = async {
            sleep(STILL * 4).await;
            drop(listener);
        };
        let (waited, ()) = tokio::join!(beside(&path, None), ending);
        assert!(waited <= STILL * 6, "it has ended meanwhile: {waited:?}");
        assert_eq!(beside(&path, None).await, Duration::ZERO, "it has ended");
    }
}
