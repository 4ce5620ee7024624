//! Network namespaces: open, compare, enter and always come back.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

use crate::ErrorContext;

/// `NSFS_MAGIC` of `linux/magic.h`: the file system that namespace files live on.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Which namespace it is, for as long as something holds it open: device and inode of its file.
///
/// The kernel reuses inode numbers once a namespace is gone; compare only with one that is still held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// The device of the namespace file system.
    pub dev: u64,
    /// The inode of the namespace.
    pub ino: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}:{}]", self.dev, self.ino)
    }
}

impl fmt::Debug for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network namespace that is held open. Cheap to clone; equal when it is the same namespace.
#[derive(Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace file at `path`, such as `/var/run/netns/x` or `/proc/1/ns/net`.
    ///
    /// # Errors
    /// When the file can't be opened or is not a namespace.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).context(|| format!("open network namespace {}", path.display()))?;
        Self::from_fd(file.into()).context(|| path.display().to_string())
    }

    /// The namespace behind a descriptor, for example one that came over a unix socket.
    ///
    /// # Errors
    /// When the descriptor is not a file of the namespace file system. That it is a *network* namespace is checked
    /// by the kernel at each entry.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let fs = rustix::fs::fstatfs(&fd).context(|| "fstatfs of a network namespace")?;
        if u64::try_from(fs.f_type).ok() != Some(NSFS_MAGIC) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is not a namespace"));
        }
        let stat = rustix::fs::fstat(&fd).context(|| "fstat of a network namespace")?;
        Ok(Self { fd: Arc::new(fd), id: NetnsId { dev: stat.st_dev, ino: stat.st_ino } })
    }

    /// The namespace this thread is in.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Makes a new, empty namespace that lives as long as the value (or a process or mount) holds it.
    ///
    /// # Errors
    /// When the process may not (`CAP_SYS_ADMIN`) or a thread can't be started.
    pub fn create() -> io::Result<Self> {
        // On a thread of its own, which ends inside the new namespace, so that no way back is needed.
        let made = std::thread::Builder::new().name("netns-create".into()).spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context(|| "unshare a network namespace")?;
            Self::current()
        })?;
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes a namespace panicked")))
    }

    /// Which namespace it is.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `f` with this thread inside the namespace, then returns to where the thread was.
    ///
    /// Threads started and processes spawned by `f` stay in the namespace; so do sockets, which is the purpose: make
    /// the socket inside, use it outside. `f` is synchronous on purpose: an entry never spans an await.
    ///
    /// # Errors
    /// When the kernel refuses the entry; `f` has not run then.
    ///
    /// # Aborts
    /// The process, when the way back is refused.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        let home = Self::current()?;
        if home.id == self.id {
            return Ok(f());
        }
        setns(&*self.fd, CloneFlags::CLONE_NEWNET).context(|| format!("enter {}", self.id))?;
        let way_back = WayBack { home };
        let out = f();
        drop(way_back);
        Ok(out)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Netns {}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id, f)
    }
}

/// Returns the thread home when dropped, hence also while a panic unwinds.
struct WayBack {
    home: Netns,
}

impl Drop for WayBack {
    fn drop(&mut self) {
        if let Err(e) = setns(&*self.home.fd, CloneFlags::CLONE_NEWNET) {
            tracing::error!(error = %e, home = %self.home.id, "a thread can't leave a pod's network namespace; aborting");
            std::process::abort();
        }
    }
}
