//! What is left on the disk of a node that the mesh has left: nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::settings::RunSettings;

/// How long the node proxy has to end, which may still be writing.
const PROXY_ENDS: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// The directories, and whether the mesh has left the node. Clones are the same.
#[derive(Clone, Debug)]
pub struct Traces {
    run_dir: PathBuf,
    state: [PathBuf; 2],
    left: Arc<AtomicBool>,
}

impl Traces {
    /// Those of an agent, which is on the node.
    pub fn new(settings: &RunSettings) -> Self {
        let state = [settings.state_dir.clone(), settings.proxy_state_dir.clone()];
        Self { run_dir: settings.run_dir.clone(), state, left: Arc::default() }
    }

    /// The mesh has left the node.
    pub fn left(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// At the end of the agent: removes everything if the mesh has left, once the node proxy has ended. What can't be removed
    /// is logged.
    pub async fn remove(&self) {
        if !self.left.load(Ordering::Relaxed) {
            return;
        }
        let proxy = self.run_dir.join("handover.sock");
        let ended = async {
            while proxy.exists() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PROXY_ENDS, ended).await.is_err() {
            tracing::warn!("the node proxy hasn't ended; what it writes from now on stays on the disk");
        }
        for dir in self.state.iter().chain([&self.run_dir]) {
            match empty(dir) {
                Ok(()) => tracing::info!(dir = %dir.display(), "removed"),
                Err(error) => tracing::warn!(dir = %dir.display(), %error, "files stay"),
            }
        }
    }
}

/// Removes all that is in a directory, which may itself be mounted and stays; none is fine.
fn empty(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[tokio::test(start_paused = true)]
    async fn files_go_when_the_mesh_has_left_and_its_proxy_has_ended() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let none = state.path().join("none");
        let traces =
            Traces { run_dir: run.path().to_owned(), state: [state.path().to_owned(), none], left: Arc::default() };
        for file in ["handover.sock", "enrolment.json"] {
            std::fs::write(run.path().join(file), "").unwrap();
        }
        std::fs::create_dir(run.path().join("missed")).unwrap();
        std::fs::write(state.path().join("a.json"), "").unwrap();
        traces.remove().await;
        assert_eq!((files(run.path()), files(state.path())), (3, 1), "an upgrade, or the end of the node");

        traces.left();
        let proxy_ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(files(state.path()), 1, "the proxy is there");
            std::fs::remove_file(run.path().join("handover.sock")).unwrap();
        };
        tokio::join!(traces.remove(), proxy_ends);
        assert_eq!((files(run.path()), files(state.path())), (0, 0));
        traces.remove().await;
    }
}
