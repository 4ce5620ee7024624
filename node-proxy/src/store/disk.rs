//! The configuration on the node's disk, so that a proxy can start while no controller answers. No secret is in it.

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Cursor, Read as _, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost::encoding::message;
use sha2::{Digest as _, Sha256};
use weft_api::weft::proxy::v1::{SavedConfig, SavedResource};
use weft_core::change::Change;
use weft_core::snapshot::Snapshot;
use weft_core::wire;

use super::Store;

/// First bytes of the file, with the version of its form.
const MAGIC: &[u8; 8] = b"WEFTCFG1";
/// The largest file read.
const MAX_FILE: u64 = 1 << 30;
/// The number of the field of a saved configuration that holds its resources.
const RESOURCES: u32 = 1;
/// Changes are gathered for so long before they are written, at least and at most.
const QUIET: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How much longer than a save took the pause before the next one is: where everything changes all the time, saves have
/// a twentieth of a core.
const SHARE: u32 = 20;

/// Why a saved configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile {
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It isn't one, or was cut off.
    #[error("not a saved configuration, or a damaged one")]
    Damaged,
}

/// The file.
#[derive(Clone, Debug)]
pub struct SavedFile(PathBuf);

impl SavedFile {
    /// The file at a path. Its folder is made with it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was saved; `None` if nothing was. A resource that this version can't read is left out and logged: the
    /// controller sends it again.
    ///
    /// # Errors
    /// See [`InvalidFile`]; start without it then.
    pub fn read(&self) -> Result<Option<Snapshot>, InvalidFile> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        from_bytes(&bytes).map(Some)
    }

    /// Saves a snapshot: a reader finds the old one or the new one whole.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        if let Some(folder) = self.0.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // A name of our own: a predecessor in another container may be writing at this moment.
        let mut temporary = self.0.clone().into_os_string();
        temporary.push(format!(".{:016x}.new", fastrand::u64(..)));
        let written = self.replace(Path::new(&temporary), snapshot);
        if written.is_err() {
            // What could not be made is not there to remove.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    fn replace(&self, temporary: &Path, snapshot: &Snapshot) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(temporary)?);
        write_to(&mut file, snapshot)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(temporary, &self.0)
    }

    /// Saves the store's snapshot after changes, for ever: not more often than every few seconds, and a large one less often,
    /// as each save is of everything. Changes that were applied before count, too: the first configuration is there before
    /// anybody follows it.
    pub async fn follow(self, store: Arc<Store>) {
        let mut versions = store.subscribe();
        if store.version() > 0 {
            versions.mark_changed();
        }
        let mut pause = QUIET.0;
        while versions.changed().await.is_ok() {
            tokio::time::sleep(pause).await;
            versions.borrow_and_update();
            let began = std::time::Instant::now();
            let (file, snapshot) = (self.clone(), store.load_full());
            let written = tokio::task::spawn_blocking(move || file.write(&snapshot)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(path = %self.0.display(), "the configuration can't be saved: {error}");
            }
            pause = (began.elapsed() * SHARE).clamp(QUIET.0, QUIET.1);
        }
    }
}

/// A snapshot from what [`to_bytes`] made of it. A resource that this version can't read is left out and logged.
///
/// # Errors
/// See [`InvalidFile`].
pub fn from_bytes(bytes: &[u8]) -> Result<Snapshot, InvalidFile> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(InvalidFile::Damaged)?;
    let (sum, body) = rest.split_first_chunk::<32>().ok_or(InvalidFile::Damaged)?;
    if Sha256::digest(body).as_slice() != sum {
        return Err(InvalidFile::Damaged);
    }
    let saved = SavedConfig::decode(body).map_err(|_| InvalidFile::Damaged)?;
    let read = |resource: &SavedResource| match wire::decode(&resource.type_url, &resource.name, &resource.body) {
        Ok(resource) => Some(Change::Upsert(resource)),
        Err(error) => {
            tracing::warn!(name = resource.name, "a saved resource can't be used: {error}");
            None
        }
    };
    let changes: Vec<_> = saved.resources.iter().filter_map(read).collect();
    Ok(Snapshot::default().apply(&changes))
}

/// A snapshot in the form of the file.
///
/// # Errors
/// None in practice: memory doesn't fail.
pub fn to_bytes(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    write_to(&mut bytes, snapshot)?;
    Ok(bytes.into_inner())
}

/// One resource at a time: a second copy of everything would be most of what the process ever needs.
fn write_to(to: &mut (impl Write + Seek), snapshot: &Snapshot) -> io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&[0; 32])?;
    let (mut sum, mut bytes) = (Sha256::new(), Vec::new());
    for resource in snapshot.resources() {
        let key = resource.key();
        let saved = SavedResource {
            type_url: wire::type_url(&key).to_owned(),
            name: wire::name(&key),
            body: wire::encode(&resource),
        };
        bytes.clear();
        message::encode(RESOURCES, &saved, &mut bytes);
        sum.update(&bytes);
        to.write_all(&bytes)?;
    }
    to.seek(SeekFrom::Start(MAGIC.len() as u64))?;
    to.write_all(&sum.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::change::{MeshConfig, Resource};

    fn snapshot() -> Snapshot {
        let mesh = MeshConfig { force_wire: true, ..MeshConfig::default() };
        Snapshot::default().apply(&[Change::Upsert(Resource::Mesh(Arc::new(mesh)))])
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("not/there/yet");
        let file = SavedFile::new(folder.join("config"));
        assert!(file.read().unwrap().is_none());
        file.write(&snapshot()).unwrap();
        assert_eq!(file.read().unwrap().unwrap().resources(), snapshot().resources());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = SavedFile::new(folder.path().join("config"));
        file.write(&snapshot()).unwrap();
        let whole = std::fs::read(file.path()).unwrap();
        for cut in [0, 4, 20, whole.len() - 1] {
            std::fs::write(file.path(), &whole[..cut]).unwrap();
            assert!(matches!(file.read(), Err(InvalidFile::Damaged)), "cut at {cut}");
        }
        let mut flipped = whole;
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(file.path(), flipped).unwrap();
        assert!(matches!(file.read(), Err(InvalidFile::Damaged)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_applied_before_is_saved_without_a_further_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = SavedFile::new(folder.path().join("config"));
        let store = Arc::new(Store::default());
        store.apply(&[Change::Upsert(Resource::Mesh(Arc::new(MeshConfig::default())))]);
        let task = tokio::spawn(file.clone().follow(store));
        let saved = async {
            while file.read().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), saved).await.expect("it is saved");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_saved_soon() {
        let folder = tempfile::tempdir().unwrap();
        let file = SavedFile::new(folder.path().join("config"));
        let store = Arc::new(Store::default());
        let task = tokio::spawn(file.clone().follow(Arc::clone(&store)));
        tokio::task::yield_now().await;
        store.apply(&[Change::Upsert(Resource::Mesh(Arc::new(MeshConfig::default())))]);
        while file.read().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        task.abort();
    }
}
