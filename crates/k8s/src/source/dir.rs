//! A directory of manifests, read again whenever it changes.
//!
//! Invariants:
//! - A file that can't be read or is not YAML takes nothing away: the objects it gave before stay as they were, and
//!   a finding says so. So does an unreadable directory.
//! - A file is read only when it has not been written for a moment ([`DirOptions::settle`]), so that one that is
//!   being written is not taken for one whose end was cut off. Whoever replaces files by renaming never waits.
//! - uid, creation time and generation survive a restart ([`DirOptions::state_file`]).
//!
//! ```text
//!  loop { scan() -> apply and delete in the index -> commit -> write_statuses(); changed().await }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::Watcher as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use super::state::{State, key};
use super::status::StatusFiles;
use super::walk::{Stamp, files};
use crate::object::{Object, ObjectRef, StatusUpdate};
use crate::parse::{Finding, Located, MAX_FILE_BYTES, ParsedFile, Severity, drop_duplicates, parse};

/// Settings of a directory source.
#[derive(Clone, Debug)]
pub struct DirOptions {
    /// The directory.
    pub dir: PathBuf,
    /// Where statuses are written; none are if `None`.
    pub status_dir: Option<PathBuf>,
    /// Where uids, creation times and generations are remembered.
    pub state_file: PathBuf,
    /// How long a file must not have been written before it is read again.
    pub settle: Duration,
    /// How often the directory is looked at even if nothing was reported: file systems such as NFS report nothing.
    pub poll: Duration,
}

impl DirOptions {
    /// The usual settings: statuses in `<dir>/.weft/status`, 100 ms to settle, a look every 5 s.
    pub fn new(dir: impl Into<PathBuf>, state_file: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            status_dir: Some(dir.join(".weft/status")),
            dir,
            state_file: state_file.into(),
            settle: Duration::from_millis(100),
            poll: Duration::from_secs(5),
        }
    }
}

/// What is different since the last scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// New and changed objects.
    pub applied: Vec<Object>,
    /// Objects that are gone.
    pub deleted: Vec<ObjectRef>,
    /// All findings of all files, whether new or not.
    pub findings: Vec<Finding>,
    /// Whether some file is still being written: scan again after a moment ([`DirSource::changed`] does).
    pub unsettled: bool,
}

/// What was read from one file.
#[derive(Debug)]
struct Held {
    stamp: Stamp,
    parsed: ParsedFile,
}

/// A directory of manifests.
#[derive(Debug)]
pub struct DirSource {
    options: DirOptions,
    held: BTreeMap<PathBuf, Held>,
    objects: BTreeMap<ObjectRef, Located>,
    state: State,
    statuses: Option<StatusFiles>,
    unsettled: bool,
    events: mpsc::Receiver<()>,
    /// Kept alive; `None` if the system can't watch, and then polling has to do.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl DirSource {
    /// Starts to watch. Nothing is read before the first [`DirSource::scan`].
    pub fn new(options: DirOptions) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = watch(&options, sender).inspect_err(|e| {
            tracing::warn!(dir = %options.dir.display(), error = %e, poll = ?options.poll, "the directory can't be watched; it is polled");
        });
        Self {
            state: State::load(&options.state_file),
            statuses: options.status_dir.as_deref().map(StatusFiles::new),
            held: BTreeMap::new(),
            objects: BTreeMap::new(),
            unsettled: false,
            events,
            _watcher: watcher.ok(),
            options,
        }
    }

    /// Reads what changed. Blocking I/O: call it where that is no harm.
    pub fn scan(&mut self) -> Scan {
        let found = files(&self.options.dir);
        let mut scan = Scan::default();
        for (dir, why) in &found.unreadable {
            let file: Arc<str> = dir.display().to_string().into();
            let remedy = "correct it; until then the objects below stay as they were";
            scan.findings.push(Finding::error(&file, 1, format!("can't be read: {why}"), remedy));
        }
        let below_unreadable = |path: &Path| found.unreadable.iter().any(|(dir, _)| path.starts_with(dir));
        self.held.retain(|path, _| found.found.contains(path) || below_unreadable(path));
        for path in &found.found {
            scan.unsettled |= self.read(path);
        }
        self.unsettled = scan.unsettled;
        self.collect(&mut scan);
        if let Err(e) = self.state.save() {
            tracing::warn!(file = %self.options.state_file.display(), error = %e, "the state of the directory source can't be written");
        }
        scan
    }

    /// Reads one file if it changed; `true` if it is still being written.
    fn read(&mut self, path: &Path) -> bool {
        let stamp = Stamp::of(path);
        if let (Ok(stamp), Some(held)) = (&stamp, self.held.get(path))
            && held.stamp == *stamp
        {
            return false;
        }
        if let Ok(stamp) = &stamp
            && self.is_fresh(stamp)
        {
            return true;
        }
        let name = path.strip_prefix(&self.options.dir).unwrap_or(path).display().to_string();
        let text = match &stamp {
            Ok(stamp) if stamp.len > MAX_FILE_BYTES as u64 => {
                Err(format!("has {} bytes, more than the limit of {MAX_FILE_BYTES}", stamp.len))
            }
            Ok(_) => std::fs::read(path)
                .map_err(|e| format!("can't be read: {e}"))
                .and_then(|bytes| String::from_utf8(bytes).map_err(|e| format!("is not UTF-8 text: {e}"))),
            Err(e) => Err(format!("can't be read: {e}")),
        };
        let mut parsed = match text {
            Ok(text) => parse(&name, &text),
            Err(why) => {
                let remedy = "correct it; until then its objects stay as they were";
                let finding = Finding::error(&Arc::from(name.as_str()), 1, why, remedy);
                ParsedFile { findings: vec![finding], broken: true, ..ParsedFile::default() }
            }
        };
        // Written while it was read: the next scan will see the rest.
        if Stamp::of(path).ok() != stamp.as_ref().ok().cloned() {
            return true;
        }
        let Ok(stamp) = stamp else { return false };
        if parsed.broken
            && let Some(held) = self.held.get_mut(path)
        {
            parsed.objects = std::mem::take(&mut held.parsed.objects);
        }
        self.held.insert(path.to_owned(), Held { stamp, parsed });
        false
    }

    fn is_fresh(&self, stamp: &Stamp) -> bool {
        // A time in the future is a wrong clock, not a recent write.
        let age = stamp.modified.and_then(|m| SystemTime::now().duration_since(m).ok());
        !self.options.settle.is_zero() && age.is_some_and(|age| age < self.options.settle)
    }

    /// Puts the objects of all files together and finds the differences.
    fn collect(&mut self, scan: &mut Scan) {
        let mut all: Vec<Located> = Vec::new();
        let mut named: BTreeSet<ObjectRef> = BTreeSet::new();
        for held in self.held.values() {
            scan.findings.extend(held.parsed.findings.iter().cloned());
            all.extend(held.parsed.objects.iter().cloned());
            named.extend(held.parsed.unreadable.iter().cloned());
        }
        // An object that can no longer be read stays what it was, as if an API server had refused the edit.
        all.extend(named.iter().filter_map(|r| self.objects.get(r)).cloned());
        drop_duplicates(&mut all, &mut scan.findings);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut objects = BTreeMap::new();
        for mut located in all {
            self.state.complete(&mut located.object, now);
            objects.insert(located.object.reference(), located);
        }
        for (reference, located) in &objects {
            if self.objects.get(reference).map(|l| &l.object) != Some(&located.object) {
                scan.applied.push(located.object.clone());
            }
        }
        scan.deleted = self.objects.keys().filter(|r| !objects.contains_key(r)).cloned().collect();
        if let Some(statuses) = &mut self.statuses {
            scan.deleted.iter().for_each(|r| statuses.remove(r));
        }
        self.objects = objects;
        // While some file can't be read, objects that are not seen may only be hidden in it.
        let whole = !scan.unsettled && !scan.findings.iter().any(|f| f.severity == Severity::Error);
        if whole {
            let there: BTreeSet<String> = self.objects.keys().map(key).collect();
            self.state.retain(|k| there.contains(k));
        }
    }

    /// The objects as of the last scan.
    pub fn objects(&self) -> impl Iterator<Item = &Located> {
        self.objects.values()
    }

    /// Waits until the directory may have changed: after a report of the system, after a moment if a file was being
    /// written, or when it is time to look anyway. May end without a change; cancel-safe.
    pub async fn changed(&mut self) {
        let wait = if self.unsettled { self.options.settle } else { self.options.poll };
        let reported = tokio::time::timeout(wait, self.events.recv()).await;
        if matches!(reported, Ok(None)) {
            // No watcher: polling has to do.
            tokio::time::sleep(wait).await;
        } else if reported.is_ok() {
            // An editor or a rollout touches several files: read them together.
            tokio::time::sleep(self.options.settle).await;
            while self.events.try_recv().is_ok() {}
        }
    }

    /// Writes statuses beside the manifests. A directory that can't be written (a mounted ConfigMap) costs only
    /// these files; it is logged.
    pub fn write_statuses(&mut self, updates: &[StatusUpdate]) {
        let Some(statuses) = &mut self.statuses else { return };
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|t| t.format(&Rfc3339).ok());
        let now = now.unwrap_or_default();
        for update in updates {
            if let Err(e) = statuses.write(update, &now) {
                tracing::warn!(dir = %statuses.dir().display(), object = %update.object, error = %e, "a status can't be written");
                break;
            }
        }
    }
}

/// Reports changes below the directory that are not our own.
fn watch(options: &DirOptions, sender: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let own = options.status_dir.clone();
    let state_dir = options.state_file.parent().map(Path::to_owned);
    let state_name = options.state_file.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let is_own = move |path: &Path| {
        let is_state = path.parent().map(Path::to_owned) == state_dir
            && path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.contains(&state_name));
        is_state || own.as_ref().is_some_and(|dir| path.starts_with(dir) || dir.starts_with(path))
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = match &event {
            // Reading the files is reported as access: to scan on it would never end.
            Ok(event) if matches!(event.kind, notify::EventKind::Access(_)) => false,
            Ok(event) => event.paths.is_empty() || !event.paths.iter().all(|p| is_own(p)),
            Err(_) => true,
        };
        if matters {
            // Full means that a report is waiting already.
            let _ = sender.try_send(());
        }
    })?;
    watcher.watch(&options.dir, notify::RecursiveMode::Recursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests;
