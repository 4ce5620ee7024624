//! An authority whose state is a directory of its own: locked, files whole and readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use weft_tls::Clock;

use crate::authority::{Authority, AuthoritySettings};
use crate::error::AuthorityError;
use crate::rotate::{RotateError, Stage, Step};
use crate::state::{Branch, Files, STATE, Saved, State};

/// How often [`Authority::run`] looks whether a step is due.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// Files of a directory, as they are.
pub(crate) struct Directory<'a>(pub &'a Path);

impl Files for Directory<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, AuthorityError> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(AuthorityError::Disk(path, e)),
        }
    }

    fn place(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// The directory, held by one process at a time.
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the directory, making it if need be.
    fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let failed = |e| AuthorityError::Disk(dir.to_owned(), e);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let path = dir.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
        lock.try_lock().map_err(|_| AuthorityError::Locked(dir.to_owned()))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Makes `next` what is loaded next time: new files, then the one that names them, then old ones go.
    fn save(&self, old: &Saved, next: &Saved) -> Result<(), AuthorityError> {
        let changed = |name: &String| old.get(name) != next.get(name);
        let ordered = next.iter().filter(|(name, _)| *name != STATE).chain(next.get_key_value(STATE));
        for (name, bytes) in ordered.filter(|(name, _)| changed(name)) {
            self.write(name, bytes)?;
        }
        for name in old.keys().filter(|name| !next.contains_key(*name)) {
            let path = self.dir.join(name);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a retired key could not be removed");
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AuthorityError> {
        let path = self.dir.join(name);
        let aside = self.dir.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| AuthorityError::Disk(path.clone(), e))
    }
}

/// Its state in a directory.
impl Authority {
    /// Opens the authority in `dir`, with a new root if there is none yet.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, is another process's or another trust domain's, or holds broken files.
    pub fn open(dir: &Path, settings: AuthoritySettings, clock: Clock) -> Result<Self, AuthorityError> {
        let store = Store::open(dir)?;
        let state = match State::load(&Directory(dir), &settings.trust_domains)? {
            Some(state) => match state.renamed(&settings.trust_domains) {
                Some(renamed) => {
                    store.save(&state.save()?, &renamed.save()?)?;
                    renamed
                }
                None => state,
            },
            None => {
                let branch = Branch::own(&settings, 1, clock.now())?;
                let state = State::first(settings.trust_domains.own().clone(), branch);
                store.save(&Saved::new(), &state.save()?)?;
                state
            }
        };
        Self::assemble(settings, clock, Some(store), state)
    }

    /// Starts to replace the root: makes a new one and publishes it.
    ///
    /// # Errors
    ///
    /// If a rotation is going on, the state is not in a directory of ours, or the disk fails.
    pub fn start_rotation(&self) -> Result<Stage, RotateError> {
        self.step(Step::Start)
    }

    /// Takes the next step of a rotation at once, see [`Step::Advance`].
    ///
    /// # Errors
    ///
    /// If none is going on, the state is not in a directory of ours, or the disk fails.
    pub fn advance_rotation(&self) -> Result<Stage, RotateError> {
        self.step(Step::Advance)
    }

    /// Takes whatever step is due by time; tells whether one was. An authority whose state somebody else keeps has
    /// nothing to do.
    ///
    /// # Errors
    ///
    /// If the disk fails; nothing has changed then.
    pub fn tick(&self) -> Result<bool, RotateError> {
        if self.store.is_none() {
            return Ok(false);
        }
        self.change(State::due)
    }

    /// Takes steps as they come due, for ever.
    pub async fn run(&self) {
        loop {
            match self.tick() {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    tracing::error!(%error, "rotation is stuck");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn step(&self, step: Step) -> Result<Stage, RotateError> {
        self.change(|state, settings, now| state.take(step, settings, now).map(Some))?;
        Ok(self.state().stage)
    }

    /// Saves the next state, then makes it true: if the disk fails, nothing has changed. The store's lock puts changes
    /// in order; issuing does not wait for it.
    fn change(
        &self,
        next: impl FnOnce(&State, &AuthoritySettings, SystemTime) -> Result<Option<State>, RotateError>,
    ) -> Result<bool, RotateError> {
        let store = self.store.as_ref().ok_or(RotateError::External)?.lock();
        let old = self.state();
        let Some(next) = next(&old, &self.settings, self.clock.now())? else { return Ok(false) };
        store.save(&old.save()?, &next.save()?)?;
        self.install(next)?;
        Ok(true)
    }
}
