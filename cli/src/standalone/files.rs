//! The node's directories and small files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use weft_cni::agent::write_atomically;

/// What tells a node's processes how to reach the primary, below the state directory.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The node's token.
    pub token: PathBuf,
    /// The mesh's roots, PEM.
    pub roots: PathBuf,
    /// The trust domain, text.
    pub trust_domain: PathBuf,
}

impl Credentials {
    /// Where they are.
    pub fn below(state: &Path) -> Self {
        let file = |name: &str| state.join("node").join(name);
        Self { token: file("token"), roots: file("roots.pem"), trust_domain: file("trust-domain") }
    }

    /// Writes them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, token: &str, roots: &str, trust_domain: &str) -> io::Result<()> {
        self.token.parent().map_or(Ok(()), prepare)?;
        let private = |file: &Path, text: &str| write_atomically(file, text.as_bytes(), 0o600);
        private(&self.roots, roots)?;
        self.write_trust_domain(trust_domain)?;
        // Last: whoever finds a token finds the rest.
        private(&self.token, token)
    }

    /// Writes the trust domain alone: it may change.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_trust_domain(&self, trust_domain: &str) -> io::Result<()> {
        write_atomically(&self.trust_domain, trust_domain.as_bytes(), 0o600)
    }
}

/// Makes a directory that only its owner reads, unless it is there.
pub fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Holds a directory for this process.
pub fn lock(path: &Path) -> anyhow::Result<Flock<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another weft runs with this state ({} is locked): stop it or use another --state", path.display())
        }
        Err((_, error)) => bail!("{}: {error}", path.display()),
    }
}
