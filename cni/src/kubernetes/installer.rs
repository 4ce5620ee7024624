//! Keeps the plugin in the node's CNI configuration: installs it once there is a primary plugin to be chained after, and
//! again whenever somebody rewrites the file.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};

use crate::install::{PLUGIN, Settings, install, install_binary, remove_binary, uninstall};

/// A writer that doesn't rename may still be at work when the first event comes.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the directories are looked at even if nothing was reported.
const POLL: Duration = Duration::from_secs(30);
/// The same while something is missing.
const RETRY: Duration = Duration::from_secs(2);

/// Whether the plugin is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It isn't, and why.
    Missing(String),
    /// It is in this file.
    Installed(PathBuf),
    /// It was taken out for good.
    Removed,
}

/// What the installer did, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// First time in this process.
    Installed,
    /// Somebody had changed the configuration or the binary.
    Repaired,
    /// It couldn't.
    Failed,
}

/// Where the plugin comes from and goes to, as paths that this process sees.
#[derive(Clone, Debug)]
pub struct Places {
    /// The runtime's configurations.
    pub conf_dir: PathBuf,
    /// The runtime's plugins.
    pub bin_dir: PathBuf,
    /// The plugin's binary.
    pub plugin: PathBuf,
    /// The plugin's entry.
    pub entry: Settings,
}

/// Installs, and knows what it saw of the binary last, so as not to read it again each time.
#[derive(Debug)]
struct Installer {
    places: Places,
    seen: Option<Stamp>,
    was_installed: bool,
}

type Stamp = (u64, u64, Option<SystemTime>);

impl Installer {
    fn install(&mut self) -> (State, Option<Done>) {
        match self.try_install() {
            Ok((file, changed)) => {
                let done = match (changed, self.was_installed) {
                    (_, false) => Some(Done::Installed),
                    (true, true) => Some(Done::Repaired),
                    (false, true) => None,
                };
                self.was_installed = true;
                (State::Installed(file), done)
            }
            // No primary plugin is not a failure: on a fresh node it comes later.
            Err(Trouble::Waits(why)) => (State::Missing(why), None),
            Err(Trouble::Failed(why)) => (State::Missing(why), Some(Done::Failed)),
        }
    }

    fn try_install(&mut self) -> Result<(PathBuf, bool), Trouble> {
        let Places { conf_dir, bin_dir, plugin, entry } = &self.places;
        let target = bin_dir.join(PLUGIN);
        let mut changed = false;
        // The binary first: the runtime must find what the configuration names.
        if self.seen.is_none() || stamp(&target).ok() != self.seen {
            let failed = |e: io::Error| Trouble::Failed(format!("the CNI plugin can't be copied: {e}"));
            changed = install_binary(plugin, bin_dir).map_err(failed)?.changed;
            self.seen = stamp(&target).ok();
        }
        match install(conf_dir, entry) {
            Ok(installed) => Ok((installed.file, changed || installed.changed)),
            Err(error @ crate::install::InstallError::NoNetwork(_)) => Err(Trouble::Waits(error.to_string())),
            Err(error) => Err(Trouble::Failed(format!("the CNI configuration can't be changed: {error}"))),
        }
    }
}

enum Trouble {
    Waits(String),
    Failed(String),
}

fn stamp(file: &Path) -> io::Result<Stamp> {
    let meta = std::fs::metadata(file)?;
    Ok((meta.ino(), meta.len(), meta.modified().ok()))
}

/// Keeps it installed until dropped. `tell` hears what was done.
pub async fn keep_installed(places: Places, state: watch::Sender<State>, tell: impl Fn(Done)) {
    let (events, mut changes) = mpsc::channel(1);
    let dirs = [places.conf_dir.clone(), places.bin_dir.clone()];
    let mut watcher = watch_dirs(events);
    let mut watched = [false; 2];
    let mut installer = Installer { places, seen: None, was_installed: false };
    loop {
        // Before the look, so that nothing is missed between both. A directory may be made later.
        for (dir, watched) in dirs.iter().zip(&mut watched) {
            if let (Some(watcher), false) = (&mut watcher, *watched) {
                *watched = watcher.watch(dir, RecursiveMode::NonRecursive).is_ok();
            }
        }
        let worked = tokio::task::spawn_blocking(move || {
            let outcome = installer.install();
            (installer, outcome)
        });
        let Ok((returned, (found, done))) = worked.await else { return };
        installer = returned;
        if let Some(done) = done {
            tracing::info!(?done, state = ?found, "the CNI plugin's place was looked at");
            tell(done);
        }
        let pause = if matches!(found, State::Installed(_)) { POLL } else { RETRY };
        state.send_if_modified(|state| {
            let changed = *state != found;
            *state = found;
            changed
        });
        if let Ok(Some(())) = tokio::time::timeout(pause, changes.recv()).await {
            tokio::time::sleep(SETTLE).await;
            // Events of the time of settling are answered by the next look.
            let _seen = changes.try_recv();
        }
    }
}

/// Takes the plugin out of every configuration, then its binary away. Idempotent.
///
/// # Errors
/// What couldn't be changed.
pub fn remove(places: &Places) -> Result<(), String> {
    uninstall(&places.conf_dir).map_err(|e| format!("the CNI configuration can't be changed: {e}"))?;
    remove_binary(&places.bin_dir).map_err(|e| format!("the CNI plugin can't be removed: {e}"))
}

fn watch_dirs(events: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        let reads = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !reads {
            // A full channel has one event waiting already, which is enough.
            let _one_waits = events.try_send(());
        }
    };
    let made = notify::recommended_watcher(handler);
    made.inspect_err(|error| tracing::warn!(%error, "the CNI directories can't be watched; they are polled")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    struct Node {
        dir: tempfile::TempDir,
        state: watch::Receiver<State>,
        done: Arc<Mutex<Vec<Done>>>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for sub in ["net.d", "bin"] {
                std::fs::create_dir(dir.path().join(sub)).unwrap();
            }
            std::fs::write(dir.path().join("plugin"), "v1").unwrap();
            let (sender, state) = watch::channel(State::Missing(String::new()));
            let done = Arc::<Mutex<Vec<Done>>>::default();
            let heard = Arc::clone(&done);
            let task = tokio::spawn(keep_installed(Self::places(&dir), sender, move |d| heard.lock().unwrap().push(d)));
            Self { dir, state, done, task }
        }

        fn places(dir: &tempfile::TempDir) -> Places {
            let path = |name: &str| dir.path().join(name);
            let entry = Settings::from_iter([("agentSocket".to_owned(), json!("/x"))]);
            Places { conf_dir: path("net.d"), bin_dir: path("bin"), plugin: path("plugin"), entry }
        }

        fn write(&self, text: &str) {
            std::fs::write(self.dir.path().join("net.d/10-net.conflist"), text).unwrap();
        }

        fn chain(&self) -> Vec<String> {
            let text = std::fs::read(self.dir.path().join("net.d/10-net.conflist")).unwrap_or_default();
            let config: Value = serde_json::from_slice(&text).unwrap_or_default();
            let plugins = config["plugins"].as_array().cloned().unwrap_or_default();
            plugins.iter().map(|p| p["type"].as_str().unwrap_or_default().to_owned()).collect()
        }

        async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
            let wait = async {
                while !condition(self) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| {
                panic!("{what}: {:?} {:?} {:?}", self.state.borrow(), self.chain(), self.done.lock().unwrap())
            });
        }

        fn done(&self) -> Vec<Done> {
            self.done.lock().unwrap().clone()
        }
    }

    const CHAIN: &str = r#"{"cniVersion":"0.3.1","name":"n","plugins":[{"type":"ptp"}]}"#;

    #[tokio::test]
    async fn waits_for_a_primary_plugin_and_repairs_what_others_rewrite() {
        let mut node = Node::new();
        node.until("it says what it waits for", |n| {
            matches!(&*n.state.borrow(), State::Missing(why) if why.contains("primary CNI plugin isn't installed yet"))
        })
        .await;
        assert!(node.dir.path().join("bin/weft-cni").exists(), "the binary is there first");
        assert!(node.done().is_empty(), "waiting is no failure");

        node.write(CHAIN);
        node.until("chained", |n| n.chain() == ["ptp", "weft-cni"]).await;
        node.until("counted", |n| n.done() == [Done::Installed]).await;
        node.write(CHAIN);
        node.until("chained again", |n| n.chain() == ["ptp", "weft-cni"]).await;
        node.until("counted", |n| n.done() == [Done::Installed, Done::Repaired]).await;

        std::fs::remove_file(node.dir.path().join("bin/weft-cni")).unwrap();
        node.until("the binary is back", |n| n.dir.path().join("bin/weft-cni").exists()).await;
        node.until("counted", |n| n.done().len() == 3).await;

        node.write("{");
        node.until(
            "broken by somebody",
            |n| matches!(&*n.state.borrow(), State::Missing(why) if why.contains("10-net.conflist")),
        )
        .await;
        node.write(CHAIN);
        node.until("whole again", |n| matches!(&*n.state.borrow(), State::Installed(_))).await;
        assert_eq!(node.chain(), ["ptp", "weft-cni"]);

        node.task.abort();
        let _aborted = (&mut node.task).await;
        assert_eq!(node.chain(), ["ptp", "weft-cni"], "an end alone removes nothing");
        remove(&Node::places(&node.dir)).unwrap();
        remove(&Node::places(&node.dir)).unwrap();
        assert_eq!(node.chain(), ["ptp"]);
        assert!(!node.dir.path().join("bin/weft-cni").exists());
    }
}
