//! The manifest files below a directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Deepest nesting of directories; also ends loops of symbolic links that have new names each time round.
const MAX_DEPTH: usize = 16;
/// Most files that are looked at.
const MAX_FILES: usize = 20_000;

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub len: u64,
    pub modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// Of the file that a path leads to.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path)?;
        Ok(Self { len: meta.len(), modified: meta.modified().ok(), inode: meta.ino() })
    }
}

/// What is in a directory.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Manifest files, in order of their paths.
    pub found: BTreeSet<PathBuf>,
    /// Directories that could not be read: what was in them is kept.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// All `*.yaml`, `*.yml` and `*.json` files, recursively. Names that start with a dot are passed over: the real
/// directories behind a mounted ConfigMap are such, and its files are links into them, which are followed.
pub(super) fn files(root: &Path) -> Files {
    let mut files = Files::default();
    visit(root, 0, &mut Vec::new(), &mut files);
    files
}

fn visit(dir: &Path, depth: usize, above: &mut Vec<PathBuf>, files: &mut Files) {
    let read = std::fs::canonicalize(dir).and_then(|real| Ok((real, std::fs::read_dir(dir)?)));
    let (real, entries) = match read {
        Ok(ok) => ok,
        Err(e) => return files.unreadable.push((dir.to_owned(), e.to_string())),
    };
    if above.contains(&real) || depth > MAX_DEPTH {
        return;
    }
    above.push(real);
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if !entry.file_name().as_encoded_bytes().starts_with(b".") => paths.push(entry.path()),
            Ok(_) => {}
            Err(e) => files.unreadable.push((dir.to_owned(), e.to_string())),
        }
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            visit(&path, depth + 1, above, files);
        } else if files.found.len() >= MAX_FILES {
            files.unreadable.push((dir.to_owned(), format!("more than {MAX_FILES} files")));
            break;
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")) {
            files.found.insert(path);
        }
    }
    above.pop();
}
